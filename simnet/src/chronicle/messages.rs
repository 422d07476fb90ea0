//! Messages, thinned: of each kind evenly, and all of them around a violation.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::Micros;

/// Most messages of one kind that are kept. When there are more, every second one goes and from then on only every
/// second, fourth, eighth … is taken.
pub const KEPT_PER_KIND_MAX: usize = 4_000;

/// How many messages before a violation are kept whatever their kind.
pub const BEFORE_VIOLATION: usize = 1_500;

/// How many messages after it.
pub const AFTER_VIOLATION: usize = 300;

/// Most messages that are kept for being near a violation.
const NEAR_MAX: usize = crate::judge::VIOLATIONS_MAX * (BEFORE_VIOLATION + AFTER_VIOLATION);

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// A node dials another.
    Dial,
    /// Admission: hello, welcome, refusal, farewell.
    Admission,
    /// A ping or its answer, with the digest of the directory.
    Ping,
    /// Anti-entropy: digests of orgs, buckets and entries, and what is wanted.
    Reconcile,
    /// Adverts and roots over a link.
    Adverts,
    /// An advert over one hop of gossip.
    Gossip,
    /// A pull of offers and descriptors by digest, or its answer.
    Blobs,
    /// A frame of a call, to its executor.
    Call,
    /// A frame of a call, to its caller.
    Answer,
    /// A connection is closed.
    Close,
    /// What no honest node sends.
    Malformed,
}

impl MessageKind {
    /// All of them, in the order in which reports list them.
    pub const ALL: [Self; 11] = [
        Self::Call,
        Self::Answer,
        Self::Gossip,
        Self::Adverts,
        Self::Reconcile,
        Self::Blobs,
        Self::Admission,
        Self::Dial,
        Self::Close,
        Self::Malformed,
        Self::Ping,
    ];
}

/// What comes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It arrives at this moment, if its receiver still listens then.
    Arrives(Micros),
    /// A cut holds it back. If the cut heals in time it is sent again, as a message of its own.
    Held,
    /// It is lost for good.
    Lost,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Its number in the run; the numbers of messages that were left out are missing.
    pub nr: u64,
    /// When it was sent.
    pub at: Micros,
    /// By whom.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// What it is.
    pub kind: MessageKind,
    /// What more exactly: the name of the protocol's message.
    pub what: &'static str,
    /// Bytes, with headers.
    pub bytes: usize,
    /// What came of it.
    pub fate: Fate,
}

/// Every so many-th of one kind.
#[derive(Clone, Debug)]
struct Thinned {
    seen: u64,
    every: u64,
    kept: Vec<Message>,
}

impl Default for Thinned {
    fn default() -> Self {
        Self { seen: 0, every: 1, kept: Vec::new() }
    }
}

impl Thinned {
    fn take(&mut self, message: Message) {
        if self.seen.is_multiple_of(self.every) {
            self.kept.push(message);
        }
        self.seen += 1;
        if self.kept.len() > KEPT_PER_KIND_MAX {
            let mut nth = 0_usize;
            self.kept.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.every *= 2;
        }
    }
}

/// The messages of a run, as many as are kept.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    next: u64,
    kinds: BTreeMap<MessageKind, Thinned>,
    recent: VecDeque<Message>,
    near: Vec<Message>,
    still_near: usize,
}

impl Messages {
    pub(crate) fn take(&mut self, mut message: Message) {
        message.nr = self.next;
        self.next += 1;
        self.kinds.entry(message.kind).or_default().take(message);
        if self.still_near > 0 {
            self.still_near -= 1;
            self.keep_near(message);
        } else {
            if self.recent.len() == BEFORE_VIOLATION {
                self.recent.pop_front();
            }
            self.recent.push_back(message);
        }
    }

    /// Keeps what has just been sent, and what will be next.
    pub(super) fn keep_around(&mut self) {
        for message in core::mem::take(&mut self.recent) {
            self.keep_near(message);
        }
        self.still_near = AFTER_VIOLATION;
    }

    fn keep_near(&mut self, message: Message) {
        if self.near.len() < NEAR_MAX {
            self.near.push(message);
        }
    }

    /// The messages that are kept, in the order in which they were sent.
    pub fn kept(&self) -> impl Iterator<Item = &Message> {
        let thinned = self.kinds.values().flat_map(|kind| &kind.kept);
        let by_number: BTreeMap<u64, &Message> =
            thinned.chain(&self.near).map(|message| (message.nr, message)).collect();
        by_number.into_values()
    }

    /// How many of each kind there were.
    pub fn sent(&self) -> BTreeMap<MessageKind, u64> {
        self.kinds.iter().map(|(kind, thinned)| (*kind, thinned.seen)).collect()
    }

    /// How many were left out.
    pub fn omitted(&self) -> u64 {
        self.next - self.kept().count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: MessageKind, at: Micros) -> Message {
        Message { nr: 0, at, from: 0, to: 1, kind, what: "x", bytes: 1, fate: Fate::Arrives(at + 1) }
    }

    #[test]
    fn a_frequent_kind_is_thinned_evenly_and_a_rare_one_kept_whole() {
        let mut messages = Messages::default();
        for at in 0..100_000 {
            messages.take(message(MessageKind::Ping, at));
            if at % 1000 == 0 {
                messages.take(message(MessageKind::Call, at));
            }
        }
        let kept: Vec<_> = messages.kept().copied().collect();
        assert!(kept.is_sorted_by_key(|message| message.nr));
        assert_eq!(kept.iter().filter(|message| message.kind == MessageKind::Call).count(), 100);
        let pings: Vec<_> = kept.iter().filter(|message| message.kind == MessageKind::Ping).collect();
        assert!((KEPT_PER_KIND_MAX / 2..=KEPT_PER_KIND_MAX).contains(&pings.len()), "{}", pings.len());
        let gaps: Vec<_> = pings.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
        assert!(gaps.iter().all(|gap| *gap == gaps[0]), "evenly over the whole run");
        assert_eq!(messages.omitted() + kept.len() as u64, 100_100);
        assert_eq!(messages.sent()[&MessageKind::Ping], 100_000);
    }

    #[test]
    fn all_that_is_sent_around_a_violation_is_kept_and_memory_is_bounded() {
        let mut messages = Messages::default();
        let violations: Vec<u64> = (1..=20).map(|nth| nth * 40_000).collect();
        for at in 0..900_000 {
            messages.take(message(MessageKind::Gossip, at));
            if violations.contains(&at) {
                messages.keep_around();
            }
        }
        let numbers: std::collections::BTreeSet<u64> = messages.kept().map(|message| message.nr).collect();
        let before = 40_000 - BEFORE_VIOLATION as u64 + 1;
        assert!((before..40_000 + AFTER_VIOLATION as u64).all(|nr| numbers.contains(&nr)));
        assert!(numbers.len() <= KEPT_PER_KIND_MAX + NEAR_MAX, "{}", numbers.len());
    }
}
