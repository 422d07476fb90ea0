//! Which calls an executor has accepted, so that a header that comes twice runs once.
//!
//! A header is fresh for [`CLOCK_SKEW_MAX`] on either side of its own time; an accepted call is remembered for more than
//! twice that, so that it is forgotten only when its header is stale, however long the call itself may take. Memory is bounded: when full, the call accepted longest
//! ago is forgotten early, and from then on its caller's headers must be newer than that one. A busy node therefore never
//! runs a call twice; at worst it refuses one that was long on its way, which the caller then tries elsewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::ids::{CallId, NodeId};
use crate::time::{CLOCK_SKEW_MAX, Mono, Now, Wall};

/// Most calls that are remembered, of all callers together: some 8 MiB.
pub const SEEN_CALLS_MAX: usize = 65_536;

/// Most callers that have a floor because calls of theirs were forgotten early. When full, no call is accepted that would
/// need another.
pub const FLOORS_MAX: usize = 4096;

/// How long an accepted call is remembered: longer than its header can be fresh.
pub const REMEMBERED: Duration = Duration::from_secs(2 * CLOCK_SKEW_MAX.as_secs() + 1);

/// Why a call is not taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeenError {
    /// Its header is older or newer than clocks may differ.
    #[error("the call's header is not fresh: do the clocks of caller and executor differ?")]
    Stale,
    /// It was accepted before.
    #[error("the call was accepted before")]
    Duplicate,
    /// Too many callers at once.
    #[error("too many callers are remembered")]
    Full,
}

/// The calls accepted lately.
#[derive(Clone, Debug)]
pub struct SeenCalls {
    calls: BTreeSet<(NodeId, CallId)>,
    order: VecDeque<Remembered>,
    /// Per caller, the newest header that was forgotten early, and until when that matters.
    floors: BTreeMap<NodeId, (Wall, Mono)>,
    calls_max: usize,
}

#[derive(Clone, Debug)]
struct Remembered {
    until: Mono,
    caller: NodeId,
    call: CallId,
    sent: Wall,
}

impl Default for SeenCalls {
    fn default() -> Self {
        Self::new()
    }
}

impl SeenCalls {
    /// Nothing seen.
    pub fn new() -> Self {
        Self::with_bound(SEEN_CALLS_MAX)
    }

    fn with_bound(calls_max: usize) -> Self {
        Self { calls: BTreeSet::new(), order: VecDeque::new(), floors: BTreeMap::new(), calls_max }
    }

    /// Takes up a call whose header `caller` sent at `sent`, or says why not.
    ///
    /// # Errors
    /// [`SeenError`]; then nothing is remembered of it.
    pub fn accept(&mut self, caller: NodeId, call: CallId, sent: Wall, now: Now) -> Result<(), SeenError> {
        self.forget_expired(now.mono);
        self.check(caller, call, sent, now)?;
        self.make_room()?;
        self.calls.insert((caller, call));
        self.order.push_back(Remembered { until: now.mono + REMEMBERED, caller, call, sent });
        Ok(())
    }

    /// How many calls are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn check(&self, caller: NodeId, call: CallId, sent: Wall, now: Now) -> Result<(), SeenError> {
        let off = now.wall.since(sent).max(sent.since(now.wall));
        if off > CLOCK_SKEW_MAX {
            return Err(SeenError::Stale);
        }
        if self.calls.contains(&(caller, call)) {
            return Err(SeenError::Duplicate);
        }
        if self.floors.get(&caller).is_some_and(|(floor, _)| sent <= *floor) {
            return Err(SeenError::Stale);
        }
        Ok(())
    }

    fn make_room(&mut self) -> Result<(), SeenError> {
        if self.order.len() < self.calls_max {
            return Ok(());
        }
        let Some(oldest) = self.order.front() else { return Err(SeenError::Full) };
        if self.floors.len() >= FLOORS_MAX && !self.floors.contains_key(&oldest.caller) {
            return Err(SeenError::Full);
        }
        let (caller, call, sent, until) = (oldest.caller, oldest.call, oldest.sent, oldest.until);
        self.order.pop_front();
        self.calls.remove(&(caller, call));
        let floor = self.floors.entry(caller).or_insert((sent, until));
        *floor = (floor.0.max(sent), floor.1.max(until));
        Ok(())
    }

    fn forget_expired(&mut self, now: Mono) {
        while let Some(oldest) = self.order.front().filter(|oldest| oldest.until <= now) {
            self.calls.remove(&(oldest.caller, oldest.call));
            self.order.pop_front();
        }
        if self.floors.len() >= FLOORS_MAX || self.order.is_empty() {
            self.floors.retain(|_, (_, until)| *until > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_795_000_000_000;

    fn now(ms: u64) -> Now {
        Now { mono: Mono::from_micros(ms * 1000), wall: Wall::from_millis(START + ms) }
    }

    fn call(n: u32) -> CallId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        CallId::from_bytes(bytes)
    }

    const CALLER: NodeId = NodeId::from_bytes([1; 32]);
    const OTHER: NodeId = NodeId::from_bytes([2; 32]);

    #[test]
    fn a_header_runs_once_for_as_long_as_it_is_fresh() {
        let mut seen = SeenCalls::new();
        let sent = now(0).wall;
        assert_eq!(seen.accept(CALLER, call(1), sent, now(0)), Ok(()));
        for ms in [0, 1, 60_000, 119_000, 120_000] {
            assert_eq!(seen.accept(CALLER, call(1), sent, now(ms)), Err(SeenError::Duplicate), "{ms}");
        }
        for ms in [120_001, 239_999, 240_000, 10_000_000] {
            assert_eq!(seen.accept(CALLER, call(1), sent, now(ms)), Err(SeenError::Stale), "{ms}");
        }
        assert_eq!(seen.accept(OTHER, call(1), now(0).wall, now(0)), Ok(()), "ids are their caller's own");
    }

    #[test]
    fn a_header_from_the_future_is_not_fresh_and_cannot_outlive_its_memory() {
        let mut seen = SeenCalls::new();
        assert_eq!(seen.accept(CALLER, call(1), now(120_001).wall, now(0)), Err(SeenError::Stale));
        let ahead = now(120_000).wall;
        assert_eq!(seen.accept(CALLER, call(1), ahead, now(0)), Ok(()));
        assert_eq!(seen.accept(CALLER, call(1), ahead, now(239_999)), Err(SeenError::Duplicate));
        assert_eq!(seen.accept(CALLER, call(1), ahead, now(240_000)), Err(SeenError::Duplicate));
        assert_eq!(seen.accept(CALLER, call(1), ahead, now(240_001)), Err(SeenError::Stale));
    }

    #[test]
    fn when_full_the_oldest_is_forgotten_and_still_never_runs_twice() {
        let mut seen = SeenCalls::with_bound(10);
        for n in 0..100 {
            assert_eq!(seen.accept(CALLER, call(n), now(u64::from(n)).wall, now(u64::from(n))), Ok(()));
        }
        assert_eq!((seen.len(), seen.calls.len(), seen.floors.len()), (10, 10, 1));
        for n in 0..100 {
            assert!(seen.accept(CALLER, call(n), now(u64::from(n)).wall, now(100)).is_err(), "{n}");
        }
        assert_eq!(seen.accept(OTHER, call(1), now(0).wall, now(100)), Ok(()), "a floor is its caller's own");
    }

    #[test]
    fn what_is_remembered_is_bounded_in_calls_and_callers() {
        let mut seen = SeenCalls::with_bound(1);
        let caller = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            NodeId::from_bytes(bytes)
        };
        let accepted =
            (0..10_000).filter(|n| seen.accept(caller(*n), call(0), now(0).wall, now(0)).is_ok()).count();
        assert_eq!(accepted, FLOORS_MAX + 1);
        assert_eq!((seen.len(), seen.floors.len()), (1, FLOORS_MAX));
        let later = now(300_000);
        assert_eq!(seen.accept(caller(20_000), call(0), later.wall, later), Ok(()));
        assert!(seen.floors.is_empty());
    }
}
