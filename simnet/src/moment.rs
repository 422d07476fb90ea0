//! Simulated time, and the clocks by which nodes see it: each a little wrong, as clocks are.

use core::ops::Add;
use std::time::Duration;

use comity_protocol::time::{Mono, Now, Wall};

/// What true wall clocks show when a run begins.
pub const START: Wall = Wall::from_millis(1_795_000_000_000);

/// A true moment of a run: microseconds since its beginning. No node ever sees one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment `duration` after the beginning.
    pub fn after(duration: Duration) -> Self {
        Self::default() + duration
    }

    /// Milliseconds since the beginning.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// One node's clocks. The monotonic one begins at zero with each start of the node; the wall clock goes on.
#[derive(Clone, Copy, Debug)]
pub struct LocalClock {
    /// By how many milliseconds the wall clock is ahead.
    pub skew_ms: i64,
    /// By how many millionths both run fast.
    pub drift_ppm: i32,
    /// When the node started.
    pub booted: Moment,
}

const MILLION: i128 = 1_000_000;

impl LocalClock {
    /// What both clocks show at a true moment.
    pub fn now(&self, at: Moment) -> Now {
        let mono = self.stretched(at.0.saturating_sub(self.booted.0));
        let wall =
            i64::try_from(self.stretched(at.0) / 1000).unwrap_or(i64::MAX).saturating_add(self.skew_ms);
        let start = i64::try_from(START.as_millis()).unwrap_or(i64::MAX);
        let wall = Wall::from_millis(u64::try_from(start.saturating_add(wall)).unwrap_or(0));
        Now { mono: Mono::from_micros(mono), wall }
    }

    /// The first true moment at which the monotonic clock shows at least `mono`.
    pub fn when(&self, mono: Mono) -> Moment {
        let rate = MILLION + i128::from(self.drift_ppm);
        let true_micros = (i128::from(mono.as_micros()) * MILLION + rate - 1) / rate;
        self.booted + Duration::from_micros(u64::try_from(true_micros).unwrap_or(u64::MAX))
    }

    fn stretched(&self, micros: u64) -> u64 {
        let rate = MILLION + i128::from(self.drift_ppm);
        u64::try_from(i128::from(micros) * rate / MILLION).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_never_fires_early_whatever_the_drift() {
        for drift_ppm in [-500, -7, 0, 3, 500] {
            let clock = LocalClock { skew_ms: 0, drift_ppm, booted: Moment(1_234_567) };
            for micros in [2, 3, 999, 1_000_000, 86_400_000_003] {
                let mono = Mono::from_micros(micros);
                let at = clock.when(mono);
                assert!(clock.now(at).mono >= mono, "{drift_ppm} {micros}");
                assert!(clock.now(Moment(at.0 - 2)).mono < mono, "{drift_ppm} {micros}");
            }
        }
    }

    #[test]
    fn the_wall_clock_goes_on_over_a_restart_and_shows_its_skew() {
        let mut clock = LocalClock { skew_ms: -5000, drift_ppm: 0, booted: Moment(0) };
        let before = clock.now(Moment(10_000_000));
        clock.booted = Moment(10_000_000);
        let after = clock.now(Moment(10_000_000));
        assert_eq!(
            (before.wall, after.wall),
            (START + Duration::from_secs(5), START + Duration::from_secs(5))
        );
        assert_eq!(after.mono, Mono::ZERO);
    }
}
