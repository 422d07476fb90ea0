//! The one place that reads the clocks for the core's machines.
//!
//! Monotonic time is tokio's, which is the system's unless a test or a simulator has paused it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comity_protocol::time::{Mono, Now, Wall};
use tokio::time::Instant;

/// Reads both clocks as the core wants them; copies of one clock share its origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    wall: WallSource,
}

/// Where the time of day comes from.
#[derive(Clone, Copy, Debug)]
enum WallSource {
    System,
    /// It was this at the origin and has gone on since, faster by so many millionths.
    Since {
        origin: Wall,
        drift_ppm: i32,
    },
}

impl Clock {
    /// A clock whose monotonic origin is now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now(), wall: WallSource::System }
    }

    /// A clock whose time of day is `wall` now and goes on with the monotonic time, faster by `drift_ppm` millionths: in a
    /// simulation it must not be the machine's.
    #[must_use]
    pub fn simulated(wall: Wall, drift_ppm: i32) -> Self {
        Self { origin: Instant::now(), wall: WallSource::Since { origin: wall, drift_ppm } }
    }

    /// Both readings, taken together.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: self.wall() }
    }

    /// The monotonic reading.
    #[must_use]
    pub fn mono(&self) -> Mono {
        Mono::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn wall(&self) -> Wall {
        match self.wall {
            WallSource::System => system_wall(),
            WallSource::Since { origin, drift_ppm } => {
                origin + Duration::from_micros(drifted(self.mono().as_micros(), drift_ppm))
            }
        }
    }

    /// When `at` comes, for a timer; a reading too far ahead is a day from now, after which one asks again.
    #[must_use]
    pub fn instant(&self, at: Mono) -> Instant {
        const DAY: Duration = Duration::from_secs(86_400);
        let ahead = at.since(self.mono());
        Instant::now() + ahead.min(DAY)
    }
}

fn drifted(micros: u64, drift_ppm: i32) -> u64 {
    let drift = i128::from(micros) * i128::from(drift_ppm) / 1_000_000;
    u64::try_from((i128::from(micros) + drift).max(0)).unwrap_or(u64::MAX)
}

/// The system's wall clock; the epoch itself when it is set to before the epoch.
fn system_wall() -> Wall {
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

    #[test]
    fn simulated_time_of_day_goes_on_from_where_it_was_set_and_drifts() {
        let noon = Wall::from_millis(1_800_000_000_000);
        let clock = Clock::simulated(noon, 0);
        let first = clock.now();
        assert!(first.wall >= noon && first.wall <= noon + Duration::from_micros(clock.mono().as_micros()));
        for (drift_ppm, expected) in [(0, 1_000_000), (1000, 1_001_000), (-2000, 998_000), (-2_000_000, 0)] {
            assert_eq!(drifted(1_000_000, drift_ppm), expected);
        }
    }
}
