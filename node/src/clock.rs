//! The one place of the node that reads the clocks for the core's machines.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use comity_protocol::time::{Mono, Now, Wall};

/// Reads both clocks as the core wants them; copies of one clock share its origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic origin is now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Both readings, taken together.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: wall() }
    }

    /// The monotonic reading.
    #[must_use]
    pub fn mono(&self) -> Mono {
        Mono::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// When `at` comes, for a timer; a reading too far ahead is a day from now, after which one asks again.
    #[must_use]
    pub fn instant(&self, at: Mono) -> Instant {
        const DAY: Duration = Duration::from_secs(86_400);
        let ahead = at.since(self.mono());
        Instant::now() + ahead.min(DAY)
    }
}

/// The wall clock; the epoch itself when it is set to before the epoch.
fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_do_not_go_back_and_timers_are_never_beyond_a_day() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(clock.now().mono >= first.mono);
        assert!(first.wall > Wall::from_millis(1_700_000_000_000));
        assert!(clock.instant(Mono::from_micros(u64::MAX)) < Instant::now() + Duration::from_secs(90_000));
        assert!(clock.instant(Mono::ZERO) <= Instant::now());
    }
}
