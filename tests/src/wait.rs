//! Waiting for a state. A test that sleeps and then looks is wrong on a busy machine; one that looks until it sees is not.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// How long a state may take before the test fails. Nothing here takes a tenth of it; a busy machine may.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often a state is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` finds what it is looking for; `Err` says what it saw instead, for the failure's message.
///
/// # Panics
/// After [`DEADLINE`], with what was seen last.
pub fn until<T, E: Debug>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= end => panic!("waited {DEADLINE:?} until {what}; saw {seen:#?}"),
            Err(_) => thread::sleep(EVERY),
        }
    }
}

/// Looks until `holds` does; it returns whether, and what it saw.
pub fn until_true<S: Debug>(what: &str, mut holds: impl FnMut() -> (bool, S)) {
    until(what, || match holds() {
        (true, _) => Ok(()),
        (false, seen) => Err(seen),
    });
}
