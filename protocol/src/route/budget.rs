//! How many second tries a node may make: a fifth of its calls, and ten a second besides.
//!
//! Without it a slow mesh is killed by its own retries: each failing call becomes several (Finagle's `RetryBudget`).

use std::time::Duration;

use crate::time::Mono;

/// What one call adds: a fifth of a retry.
const PER_CALL_MILLI: u64 = 200;

/// What a second adds: ten retries, so that a node with little traffic can fail over too.
const PER_SECOND_MILLI: u64 = 10_000;

/// How long a thousandth takes.
const MICROS_PER_MILLI: u64 = 1_000_000 / PER_SECOND_MILLI;

/// Most retries that can be saved up; what would go beyond is lost.
pub const RETRIES_BANKED_MAX: u64 = 100;

/// A node's allowance for second tries, in thousandths of a retry.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    milli: u64,
    refilled: Mono,
}

impl RetryBudget {
    /// A budget with one second's worth in it.
    pub const fn new(now: Mono) -> Self {
        Self { milli: PER_SECOND_MILLI, refilled: now }
    }

    /// A call begins.
    pub fn deposit(&mut self) {
        self.add(PER_CALL_MILLI);
    }

    /// Takes one retry; `false` when there is none left and the call must fail instead.
    pub fn withdraw(&mut self, now: Mono) -> bool {
        self.refill(now);
        let left = self.milli.checked_sub(1000);
        self.milli = left.unwrap_or(self.milli);
        left.is_some()
    }

    fn refill(&mut self, now: Mono) {
        let micros = u64::try_from(now.since(self.refilled).as_micros()).unwrap_or(u64::MAX);
        let earned = micros / MICROS_PER_MILLI;
        self.add(earned);
        // Only by what was earned, so that frequent refills lose nothing to rounding.
        self.refilled = self.refilled + Duration::from_micros(earned * MICROS_PER_MILLI);
    }

    fn add(&mut self, milli: u64) {
        self.milli = self.milli.saturating_add(milli).min(RETRIES_BANKED_MAX * 1000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(budget: &mut RetryBudget, now: Mono) -> u64 {
        (0..).take_while(|_| budget.withdraw(now)).count() as u64
    }

    #[test]
    fn it_allows_a_fifth_of_the_calls_and_ten_a_second() {
        let start = Mono::ZERO;
        let mut budget = RetryBudget::new(start);
        assert_eq!(drain(&mut budget, start), 10);
        (0..50).for_each(|_| budget.deposit());
        assert_eq!(drain(&mut budget, start), 10);
        assert_eq!(drain(&mut budget, Mono::from_micros(2_000_000)), 20);
    }

    #[test]
    fn frequent_refills_lose_nothing() {
        let mut budget = RetryBudget::new(Mono::ZERO);
        drain(&mut budget, Mono::ZERO);
        let got: u64 = (1..=10_000).map(|i| drain(&mut budget, Mono::from_micros(i * 150))).sum();
        assert_eq!(got, 15);
    }

    #[test]
    fn it_saves_no_more_than_its_bound() {
        let mut budget = RetryBudget::new(Mono::ZERO);
        assert_eq!(drain(&mut budget, Mono::from_micros(u64::MAX)), RETRIES_BANKED_MAX);
    }
}
