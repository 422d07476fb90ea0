//! How long to wait before trying again.

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(250);

/// The longest wait: a server that is down is tried again at this rate for ever.
const LONGEST: Duration = Duration::from_secs(60);

/// Exponential backoff with jitter: each wait is drawn from the upper half of a ceiling that doubles,
/// so that servers which fell together do not rise together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Without randomness the wait is merely less well spread.
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        ceiling.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
    }

    /// Starts anew after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_start_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..100).map(|_| backoff.next()).collect();
        for (n, wait) in waits.iter().enumerate() {
            let ceiling = FIRST.saturating_mul(1 << n.min(16)).min(LONGEST);
            assert!(*wait <= ceiling && *wait >= ceiling / 2, "{n}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
