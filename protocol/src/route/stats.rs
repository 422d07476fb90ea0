//! How each peer has been doing: the measured side of choosing one.
//!
//! The load of a peer is *peak EWMA* (Finagle's `PeakEwma`): a moving average of its times that jumps to a worse one at
//! once and forgets it slowly. By itself it makes a hung peer look better and better, because nothing completes and the
//! average decays; so the age of the oldest call in flight counts when it is worse. What peers say of their own load
//! is never used: in simulation the peer that gossip calls least loaded collapses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{CallId, CapabilityId, NodeId};
use crate::time::Mono;

use super::breaker::Breaker;

/// Most peers of which statistics are kept; when full, the one longest unused without a call in flight is forgotten.
pub const PEERS_MAX: usize = 4096;

/// Most capabilities of one peer of which failures are counted; when full, a further one counts for the peer alone.
pub const CAPABILITIES_MAX: usize = 64;

/// Most calls in flight at one peer of which the beginning is remembered. When more are, the oldest matter, and those
/// are the ones that are remembered.
pub const IN_FLIGHT_TRACKED_MAX: usize = 256;

/// How long an average takes to lose half of its value.
const HALF_LIFE: Duration = Duration::from_secs(7);

/// The least load: without it, pending calls at a peer that was never measured would count for nothing.
const LOAD_MIN: Duration = Duration::from_millis(1);

/// What a recent failure adds to a peer's score, halved each [`HALF_LIFE`].
const FAILURE_PENALTY: Duration = Duration::from_millis(500);

/// How a try ended, as far as it tells about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered, whatever the tool said.
    Answered,
    /// The peer could not be reached, broke the protocol or never answered.
    PeerFault,
    /// The peer works and the capability's upstream does not.
    CapabilityFault,
    /// It says nothing: refused for a rule, cancelled by the caller.
    Neutral,
}

/// A try in flight, from [`PeerStats::begin`] to [`PeerStats::finish`]. One that is dropped instead keeps counting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a try that is never finished makes its peer look hung"]
pub struct Attempt {
    node: NodeId,
    capability: CapabilityId,
    call: CallId,
    began: Mono,
}

/// Statistics of every peer that this node has called lately.
#[derive(Clone, Debug, Default)]
pub struct PeerStats {
    peers: BTreeMap<NodeId, PeerRecord>,
    /// Peers with a circuit that is not closed: few, so that asking costs next to nothing for all others.
    tripped: BTreeSet<TrippedKey>,
}

/// A node behind the first bytes of its key, which tell nearly all nodes apart in one comparison.
type TrippedKey = (u64, NodeId);

fn tripped_key(node: NodeId) -> TrippedKey {
    let (head, _) = node.as_bytes().split_first_chunk().expect("a key is longer than its head");
    (u64::from_be_bytes(*head), node)
}

#[derive(Clone, Debug, Default)]
struct PeerRecord {
    load: PeakEwma,
    penalty: Decaying,
    pending: u32,
    in_flight: BTreeSet<(Mono, CallId)>,
    circuit: Breaker,
    capability_circuits: BTreeMap<CapabilityId, Breaker>,
    used: Mono,
}

impl PeerStats {
    /// Nothing known of anybody.
    pub fn new() -> Self {
        Self::default()
    }

    /// A call of `capability` is about to be tried at `node`.
    pub fn begin(&mut self, node: NodeId, capability: &CapabilityId, call: CallId, now: Mono) -> Attempt {
        if let Some(record) = self.record(node) {
            record.begin(capability, call, now);
        }
        Attempt { node, capability: capability.clone(), call, began: now }
    }

    /// The try has ended.
    pub fn finish(&mut self, attempt: Attempt, health: Health, now: Mono) {
        // A peer that was forgotten meanwhile had nothing in flight as far as the table knew.
        let Some(record) = self.peers.get_mut(&attempt.node) else { return };
        record.finish(&attempt, health, now);
        if record.circuits_are_closed() {
            self.tripped.remove(&tripped_key(attempt.node));
        } else {
            self.tripped.insert(tripped_key(attempt.node));
        }
    }

    /// Whether neither the peer nor this capability of it has failed too often lately.
    pub fn circuit_allows(&self, node: &NodeId, capability: &CapabilityId, now: Mono) -> bool {
        if self.tripped.is_empty() || !self.tripped.contains(&tripped_key(*node)) {
            return true;
        }
        self.peers.get(node).is_none_or(|record| record.allows(capability, now))
    }

    /// The peer's score in microseconds, lower is better:
    /// `max(peak EWMA, age of the oldest in flight) x (pending + 1) + penalty`.
    pub fn score(&self, node: &NodeId, now: Mono) -> u64 {
        let Some(record) = self.peers.get(node) else { return micros(LOAD_MIN) };
        let load = record.load.read(now).max(record.oldest_age(now)).max(LOAD_MIN);
        let waiting = u64::from(record.pending) + 1;
        micros(load).saturating_mul(waiting).saturating_add(micros(record.penalty.read(now)))
    }

    /// How many calls are in flight at `node`.
    pub fn pending(&self, node: &NodeId) -> u32 {
        self.peers.get(node).map_or(0, |record| record.pending)
    }

    /// How many peers are known.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The record of `node`, made if need be; `None` when the table is full of peers with calls in flight.
    fn record(&mut self, node: NodeId) -> Option<&mut PeerRecord> {
        if !self.peers.contains_key(&node) && self.peers.len() >= PEERS_MAX {
            let idle = self.peers.iter().filter(|(_, record)| record.pending == 0);
            let oldest = *idle.min_by_key(|(_, record)| record.used)?.0;
            self.peers.remove(&oldest);
            self.tripped.remove(&tripped_key(oldest));
        }
        Some(self.peers.entry(node).or_default())
    }
}

impl PeerRecord {
    fn begin(&mut self, capability: &CapabilityId, call: CallId, now: Mono) {
        self.used = now;
        self.pending = self.pending.saturating_add(1);
        if self.in_flight.len() < IN_FLIGHT_TRACKED_MAX {
            self.in_flight.insert((now, call));
        }
        self.circuit.begin(now);
        if let Some(circuit) = self.capability_circuits.get_mut(capability) {
            circuit.begin(now);
        }
    }

    fn finish(&mut self, attempt: &Attempt, health: Health, now: Mono) {
        self.pending = self.pending.saturating_sub(1);
        self.in_flight.remove(&(attempt.began, attempt.call));
        match health {
            Health::Answered => {
                self.load.record(now.since(attempt.began), now);
                self.circuit.succeed(now);
                self.settle_capability(&attempt.capability, |circuit| circuit.succeed(now));
            }
            Health::PeerFault => {
                self.penalty.add(FAILURE_PENALTY, now);
                self.circuit.fail(now);
                self.settle_capability(&attempt.capability, |circuit| circuit.ignore(now));
            }
            Health::CapabilityFault => {
                self.penalty.add(FAILURE_PENALTY, now);
                self.circuit.succeed(now);
                self.fail_capability(&attempt.capability, now);
            }
            Health::Neutral => {
                self.circuit.ignore(now);
                self.settle_capability(&attempt.capability, |circuit| circuit.ignore(now));
            }
        }
    }

    fn settle_capability(&mut self, capability: &CapabilityId, settle: impl FnOnce(&mut Breaker)) {
        if let Some(circuit) = self.capability_circuits.get_mut(capability) {
            settle(circuit);
        }
    }

    fn fail_capability(&mut self, capability: &CapabilityId, now: Mono) {
        if let Some(circuit) = self.capability_circuits.get_mut(capability) {
            return circuit.fail(now);
        }
        if self.capability_circuits.len() >= CAPABILITIES_MAX {
            self.capability_circuits.retain(|_, circuit| !circuit.is_closed());
        }
        if self.capability_circuits.len() < CAPABILITIES_MAX {
            self.capability_circuits.entry(capability.clone()).or_default().fail(now);
        } else {
            self.circuit.fail(now);
        }
    }

    fn allows(&self, capability: &CapabilityId, now: Mono) -> bool {
        let capability = self.capability_circuits.get(capability);
        self.circuit.allows(now) && capability.is_none_or(|circuit| circuit.allows(now))
    }

    fn circuits_are_closed(&self) -> bool {
        self.circuit.is_closed() && self.capability_circuits.values().all(Breaker::is_closed)
    }

    fn oldest_age(&self, now: Mono) -> Duration {
        self.in_flight.first().map_or(Duration::ZERO, |(began, _)| now.since(*began))
    }
}

/// A duration that loses half of itself each [`HALF_LIFE`]. Integers only, so that every machine computes the same.
#[derive(Clone, Copy, Debug, Default)]
struct Decaying {
    value: Duration,
    at: Mono,
}

impl Decaying {
    fn read(&self, now: Mono) -> Duration {
        let (half, age) = (micros(HALF_LIFE), micros(now.since(self.at)));
        let halvings = age / half;
        if halvings >= 63 {
            return Duration::ZERO;
        }
        // Halved once for each whole half-life, and a straight line within one.
        let whole = micros(self.value) >> halvings;
        Duration::from_micros(whole - (whole / 2).saturating_mul(age % half) / half)
    }

    fn set(&mut self, value: Duration, now: Mono) {
        *self = Self { value: value.min(VALUE_MAX), at: now };
    }

    fn add(&mut self, value: Duration, now: Mono) {
        self.set(self.read(now) + value, now);
    }
}

/// Longest duration that is averaged: a day, beyond which nothing is decided differently.
const VALUE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A moving average that jumps up and comes down slowly.
#[derive(Clone, Copy, Debug, Default)]
struct PeakEwma(Decaying);

impl PeakEwma {
    fn read(&self, now: Mono) -> Duration {
        self.0.read(now)
    }

    fn record(&mut self, took: Duration, now: Mono) {
        let current = self.read(now);
        // A worse time counts at once; of a better one, the decay since the last has made room for part of it already.
        let next = if took >= current { took } else { (current * 7 + took) / 8 };
        self.0.set(next, now);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
