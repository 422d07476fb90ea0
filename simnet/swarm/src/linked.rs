//! Whether the stand-ins are linked: a run whose timers, clocks or random bytes were the machine's would look plausible and
//! could not be repeated. Each is tried by what it does, not by what it is called.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::{Instant, advance, timeout};

use crate::entropy;

/// A time that no machine lets pass while a check runs.
const LONG: Duration = Duration::from_secs(3600);

/// What is not linked as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLinked {
    /// The patch of futures-timer is not in force.
    #[error("futures-timer runs by the machine's clock: its stand-in is not linked")]
    Timer,
    /// The patch of web-time is not in force.
    #[error("web-time reads the machine's clock: its stand-in is not linked")]
    Clock,
    /// The packages `getrandom` and `rand` do not draw from the seed.
    #[error("random bytes come from the machine: this program's getrandom is not linked")]
    Entropy,
    /// std's hash tables do not draw their keys from the seed.
    #[error("hash tables are keyed by the machine: this program's getrandom is not linked")]
    HashKeys,
}

/// Tries everything on the current thread, which must be seeded and must not have made a hash table before, within a runtime
/// whose clock is paused.
///
/// # Errors
/// The first thing that is not linked.
pub async fn check() -> Result<(), NotLinked> {
    hash_keys()?;
    random_bytes()?;
    clock().await?;
    timer().await
}

/// A thread's first table draws keys; they must have come from us.
fn hash_keys() -> Result<(), NotLinked> {
    let before = entropy::draws();
    let hashed = std::thread::spawn(|| {
        entropy::seed(1);
        let hashed = RandomState::new().hash_one(1);
        (hashed, entropy::draws())
    });
    let again = std::thread::spawn(|| {
        entropy::seed(1);
        (RandomState::new().hash_one(1), entropy::draws())
    });
    let (one, other) = (hashed.join(), again.join());
    let same = matches!((one, other), (Ok((one, 1..)), Ok((other, 1..))) if one == other);
    (same && entropy::draws() == before).then_some(()).ok_or(NotLinked::HashKeys)
}

fn random_bytes() -> Result<(), NotLinked> {
    let expected = entropy::peek();
    let drawn = getrandom::u64().ok();
    let before = entropy::draws();
    let _first_of_this_thread: u64 = rand::random();
    (drawn.is_some() && drawn == expected && entropy::draws() > before)
        .then_some(())
        .ok_or(NotLinked::Entropy)
}

async fn clock() -> Result<(), NotLinked> {
    let then = web_time::Instant::now();
    advance(LONG).await;
    (then.elapsed() >= LONG).then_some(()).ok_or(NotLinked::Clock)
}

/// With the clock paused time leaps to the next timer of tokio's: if the delay is none of those, the timeout comes first.
async fn timer() -> Result<(), NotLinked> {
    let then = Instant::now();
    let fired = timeout(LONG * 2, futures_timer::Delay::new(LONG)).await.is_ok();
    (fired && then.elapsed() >= LONG).then_some(()).ok_or(NotLinked::Timer)
}
