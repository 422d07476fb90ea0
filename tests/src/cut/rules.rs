//! What becomes of a packet between two sites.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Figures;

/// What a link does to packets, in each direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// How late each packet comes. The same for all, so that nothing is reordered.
    pub delay: Duration,
    /// How many of a hundred are lost.
    pub loss_percent: u32,
}

/// The rules of one network, which may change while packets pass.
#[derive(Debug)]
pub struct Rules {
    state: Mutex<State>,
    figures: Figures,
}

#[derive(Debug)]
struct State {
    all: Link,
    cuts: BTreeSet<(usize, usize)>,
    /// A generator of our own: which packets are lost follows from the seed and the order of the packets.
    random: u64,
}

impl Rules {
    /// No delay, no loss, no cut.
    pub fn new(seed: u64) -> Self {
        // Xorshift never leaves 0.
        let state = State { all: Link::default(), cuts: BTreeSet::new(), random: seed | 1 };
        Rules { state: Mutex::new(state), figures: Figures::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> &Figures {
        &self.figures
    }

    pub(super) fn set_all(&self, link: Link) {
        self.lock().all = link;
    }

    pub(super) fn cut(&self, from: usize, to: usize) {
        self.lock().cuts.insert((from, to));
    }

    pub(super) fn heal(&self) {
        self.lock().cuts.clear();
    }

    /// How late a packet from one site to another comes; `None` when it is lost.
    pub fn fate(&self, from: usize, to: usize) -> Option<Duration> {
        let fate = self.lock().fate(from, to);
        let count = if fate.is_some() { &self.figures.carried } else { &self.figures.dropped };
        count.fetch_add(1, Ordering::Relaxed);
        fate
    }

    /// A packet was for nobody here.
    pub(super) fn count_stray(&self) {
        self.figures.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl State {
    fn fate(&mut self, from: usize, to: usize) -> Option<Duration> {
        let lost = self.random() % 100 < u64::from(self.all.loss_percent);
        (!lost && !self.cuts.contains(&(from, to))).then_some(self.all.delay)
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_holds_in_its_direction_until_it_is_mended() {
        let rules = Rules::new(1);
        rules.set_all(Link::delayed(Duration::from_millis(40)));
        rules.cut(0, 1);
        assert_eq!(rules.fate(0, 1), None);
        assert_eq!(rules.fate(1, 0), Some(Duration::from_millis(40)));
        rules.heal();
        assert_eq!(rules.fate(0, 1), Some(Duration::from_millis(40)));
        assert_eq!((rules.figures().carried(), rules.figures().dropped()), (2, 1));
    }

    #[test]
    fn about_as_many_are_lost_as_was_said_and_the_same_for_the_same_seed() {
        let lost = |seed| -> Vec<bool> {
            let rules = Rules::new(seed);
            rules.set_all(Link::default().losing(10));
            (0..10_000).map(|_| rules.fate(0, 1).is_none()).collect()
        };
        let count = lost(7).iter().filter(|lost| **lost).count();
        assert!((800..1200).contains(&count), "{count} of 10,000");
        assert_eq!(lost(7), lost(7));
        assert_ne!(lost(7), lost(9));
    }
}
