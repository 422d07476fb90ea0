//! A circuit breaker over a sliding window.
//!
//! Closed, it counts. When enough of the last calls failed it opens, and nobody tries for a while; then one probe is let
//! through, whose outcome closes it or opens it for twice as long (Nygard, "Release It!", chapter 5, with a two-bucket
//! sliding window so that memory is constant).

use std::time::Duration;

use crate::time::Mono;

/// Length of one bucket; outcomes count for one to two buckets.
const BUCKET: Duration = Duration::from_secs(10);

/// Fewest outcomes on which a breaker opens.
pub const CIRCUIT_SAMPLES_MIN: u32 = 5;

/// Shortest time for which a breaker is open.
pub const CIRCUIT_OPEN_MIN: Duration = Duration::from_secs(2);

/// Longest time for which a breaker is open.
pub const CIRCUIT_OPEN_MAX: Duration = Duration::from_secs(60);

/// How long a probe may be out before another may be sent.
const PROBE_WAIT: Duration = Duration::from_secs(30);

/// Whether one thing that can fail should be tried.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    state: State,
    window: Window,
    /// How often it opened since it last closed.
    trips: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until: Mono,
    },
    Probing {
        until: Mono,
    },
}

impl Breaker {
    /// Whether a try is allowed now.
    pub fn allows(&self, now: Mono) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } | State::Probing { until } => now >= until,
        }
    }

    /// Whether it has nothing against anybody.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// A try begins; after an open time it is the probe, and further tries wait for its outcome.
    pub fn begin(&mut self, now: Mono) {
        if !self.is_closed() && self.allows(now) {
            self.state = State::Probing { until: now + PROBE_WAIT };
        }
    }

    /// A try succeeded. A success that began before the breaker opened does not close it.
    pub fn succeed(&mut self, now: Mono) {
        match self.state {
            State::Closed => self.window.at(now).succeeded += 1,
            State::Probing { .. } => *self = Self::default(),
            State::Open { .. } => {}
        }
    }

    /// A try failed.
    pub fn fail(&mut self, now: Mono) {
        match self.state {
            State::Closed => {
                self.window.at(now).failed += 1;
                if self.window.is_bad() {
                    self.open(now);
                }
            }
            State::Probing { .. } => self.open(now),
            State::Open { .. } => {}
        }
    }

    /// A try ended and says nothing; a probe may be sent again at once.
    pub fn ignore(&mut self, now: Mono) {
        if let State::Probing { .. } = self.state {
            self.state = State::Open { until: now };
        }
    }

    fn open(&mut self, now: Mono) {
        let open_for = CIRCUIT_OPEN_MIN.saturating_mul(1 << self.trips.min(16)).min(CIRCUIT_OPEN_MAX);
        self.state = State::Open { until: now + open_for };
        self.trips = self.trips.saturating_add(1);
        self.window = Window::default();
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    succeeded: u32,
    failed: u32,
}

#[derive(Clone, Debug, Default)]
struct Window {
    began: Mono,
    current: Bucket,
    before: Bucket,
}

impl Window {
    /// The bucket that counts at `now`.
    fn at(&mut self, now: Mono) -> &mut Bucket {
        let age = now.since(self.began);
        if age >= BUCKET {
            let follows = age < 2 * BUCKET;
            self.before = if follows { self.current } else { Bucket::default() };
            self.current = Bucket::default();
            self.began = now;
        }
        &mut self.current
    }

    /// Half or more of enough outcomes failed.
    fn is_bad(&self) -> bool {
        let failed = self.current.failed.saturating_add(self.before.failed);
        let succeeded = self.current.succeeded.saturating_add(self.before.succeeded);
        failed.saturating_add(succeeded) >= CIRCUIT_SAMPLES_MIN && failed >= succeeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::from_micros(ms * 1000)
    }

    fn opened(now: Mono) -> Breaker {
        let mut breaker = Breaker::default();
        (0..CIRCUIT_SAMPLES_MIN).for_each(|_| breaker.fail(now));
        breaker
    }

    #[test]
    fn it_opens_on_enough_failures_and_not_before() {
        let mut breaker = Breaker::default();
        (1..CIRCUIT_SAMPLES_MIN).for_each(|_| breaker.fail(at(0)));
        assert!(breaker.allows(at(0)));
        breaker.fail(at(0));
        assert!(!breaker.allows(at(0)));
        assert!(!breaker.allows(at(1999)));
        assert!(breaker.allows(at(2000)));
    }

    #[test]
    fn a_minority_of_failures_leaves_it_closed() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.succeed(at(1));
            breaker.succeed(at(1));
            breaker.fail(at(1));
        }
        assert!(breaker.is_closed());
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut breaker = Breaker::default();
        (1..CIRCUIT_SAMPLES_MIN).for_each(|_| breaker.fail(at(0)));
        breaker.fail(at(25_000));
        assert!(breaker.is_closed());
    }

    #[test]
    fn one_probe_decides_and_a_failing_one_doubles_the_wait() {
        let mut breaker = opened(at(0));
        breaker.begin(at(2000));
        assert!(!breaker.allows(at(2001)), "only one probe");
        breaker.fail(at(2001));
        assert!(!breaker.allows(at(2001 + 3999)));
        assert!(breaker.allows(at(2001 + 4000)));
        breaker.begin(at(7000));
        breaker.succeed(at(7001));
        assert!(breaker.is_closed());
    }

    #[test]
    fn a_probe_that_never_ends_or_says_nothing_is_followed_by_another() {
        let mut breaker = opened(at(0));
        breaker.begin(at(2000));
        assert!(breaker.allows(at(2000) + PROBE_WAIT));
        breaker.ignore(at(2500));
        assert!(breaker.allows(at(2500)));
        assert!(!breaker.is_closed());
    }

    #[test]
    fn the_open_time_is_bounded() {
        let mut breaker = opened(at(0));
        let mut now = at(0);
        for _ in 0..100 {
            now = now + CIRCUIT_OPEN_MAX;
            assert!(breaker.allows(now));
            breaker.begin(now);
            breaker.fail(now);
        }
        assert!(breaker.allows(now + CIRCUIT_OPEN_MAX));
    }
}
