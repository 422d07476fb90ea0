//! What a run measures. Everything here follows from scenario and seed; how long the machine took does not, and is told
//! apart.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_protocol::mesh::Sizes;
use serde::Serialize;

use crate::moment::Moment;
use crate::scenario::Verdict;
use crate::world::Death;

/// Most samples of one figure that are kept; beyond them every further one is left out.
const SAMPLES_MAX: usize = 4_000_000;

/// Collects while a run goes on.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) link_frames: u64,
    pub(crate) by_number: BTreeMap<u8, u64>,
    pub(crate) gossip_frames: u64,
    pub(crate) adverts_published: u64,
    pub(crate) adverts_refused: u64,
    pub(crate) peers_refused: u64,
    pub(crate) equivocations_seen: u64,
    pub(crate) bytes_when_healed: u64,
    pub(crate) talk_when_healed: u64,
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    /// Newcomers that do not know all yet, and since when.
    pub(crate) newcomers: BTreeMap<usize, Moment>,
    /// Nodes that are dead, where that is timed.
    pub(crate) deaths: Vec<Death>,
    newcomer_ms: Vec<u32>,
    death_ms: Vec<u32>,
    to_dead_ms: Vec<u32>,
    spread_ms: Vec<u32>,
    call_ms: Vec<u32>,
    outcomes: BTreeMap<Verdict, u64>,
    largest: BTreeMap<&'static str, usize>,
}

/// What a run has measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Nodes of the federation.
    pub nodes: usize,
    /// Events that the loop has handled.
    pub events: u64,
    /// When all had converged for the first time, in milliseconds; none when faults began before.
    pub converged_ms: Option<u64>,
    /// How long after the last fault all had healed.
    pub healed_ms: Option<u64>,
    /// How long an advert that was published after all had converged took to one node.
    pub advert_spread_ms: Option<Percentiles>,
    /// How long after the last fault all knew the same, whether or not somebody was still held dead.
    pub merged_ms: Option<u64>,
    /// How long a node that started into a federation at work took to know all.
    pub newcomer_ms: Option<Percentiles>,
    /// How long a node's silent death took to be known to one other.
    pub death_ms: Option<Percentiles>,
    /// How long after a node's silent death calls still went to it first.
    pub to_dead_ms: Option<Percentiles>,
    /// How long answered calls took.
    pub call_ms: Option<Percentiles>,
    /// What became of calls.
    pub calls: BTreeMap<&'static str, u64>,
    /// Bytes a second that one node sent on average, from when all had healed to the end.
    pub quiet_bytes_per_node_s: Option<u64>,
    /// Frames on links.
    pub link_frames: u64,
    /// The same by the number of the message in docs/protocol.md.
    pub link_frames_by_number: BTreeMap<u8, u64>,
    /// Gossip messages over one hop.
    pub gossip_frames: u64,
    /// Adverts published.
    pub adverts_published: u64,
    /// Adverts refused, whose senders should not have sent them.
    pub adverts_refused: u64,
    /// The same by reason.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Peers refused, by either side.
    pub peers_refused: u64,
    /// How often a node noticed that another had signed two adverts with one sequence.
    pub equivocations_seen: u64,
    /// The largest that each table of a node was, looked at once a second.
    pub largest: BTreeMap<&'static str, usize>,
}

/// A distribution in three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: u32,
    /// The 99th percentile.
    pub p99: u32,
    /// The most.
    pub max: u32,
}

impl Figures {
    /// Link messages that are neither ping nor pong.
    pub(crate) fn talk(&self) -> u64 {
        let pings: u64 = [3, 4].iter().filter_map(|number| self.by_number.get(number)).sum();
        self.link_frames - pings
    }

    pub(crate) fn spread(&mut self, took: Duration) {
        push(&mut self.spread_ms, took);
    }

    pub(crate) fn newcomer(&mut self, took: Duration) {
        push(&mut self.newcomer_ms, took);
    }

    pub(crate) fn death_noticed(&mut self, took: Duration) {
        push(&mut self.death_ms, took);
    }

    pub(crate) fn routed_to_dead(&mut self, took: Duration) {
        push(&mut self.to_dead_ms, took);
    }

    pub(crate) fn call_ended(&mut self, verdict: Verdict, took: Duration) {
        *self.outcomes.entry(verdict).or_default() += 1;
        if verdict == Verdict::Answered {
            push(&mut self.call_ms, took);
        }
    }

    /// Looks at one node's tables.
    pub(crate) fn see(&mut self, sizes: &Sizes, links: usize) {
        let tables = sizes.tables.into_iter().map(|table| (table.name, table.size));
        for (name, size) in tables.chain([("links", links)]) {
            let largest = self.largest.entry(name).or_default();
            *largest = size.max(*largest);
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary {
            advert_spread_ms: percentiles(&self.spread_ms),
            newcomer_ms: percentiles(&self.newcomer_ms),
            death_ms: percentiles(&self.death_ms),
            to_dead_ms: percentiles(&self.to_dead_ms),
            refusals: self.refusals.clone(),
            call_ms: percentiles(&self.call_ms),
            calls: self.outcomes.iter().map(|(verdict, count)| (verdict.word(), *count)).collect(),
            link_frames: self.link_frames,
            link_frames_by_number: self.by_number.clone(),
            gossip_frames: self.gossip_frames,
            adverts_published: self.adverts_published,
            adverts_refused: self.adverts_refused,
            peers_refused: self.peers_refused,
            equivocations_seen: self.equivocations_seen,
            largest: self.largest.clone(),
            ..Summary::default()
        }
    }
}

fn push(samples: &mut Vec<u32>, took: Duration) {
    if samples.len() < SAMPLES_MAX {
        samples.push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
    }
}

fn percentiles(samples: &[u32]) -> Option<Percentiles> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = |share: usize| sorted.get((sorted.len().saturating_sub(1)) * share / 100).copied();
    Some(Percentiles { p50: at(50)?, p99: at(99)?, max: at(100)? })
}
