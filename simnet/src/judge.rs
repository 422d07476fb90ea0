//! The invariants, and the plain model beside the machines that says what should be.
//!
//! The model is a `Ledger` of what was truly signed, sets of sites that the scenario calls lawful, and for each node the
//! highest sequence that it has seen of every other. None of it uses the code that it judges: places are compared as
//! texts, adverts by the bytes that went into the ledger when they were signed.
//!
//! `directories` judges what nodes know, `convergence` whether they agree, `calls` what became of calls.

mod calls;
mod convergence;
mod directories;
mod model;

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use comity_protocol::advert::Sequence;
use comity_protocol::ids::{NodeId, ObjectDigest};
use serde::Serialize;

use crate::moment::Moment;
use crate::shrink::Target;

/// After how many violations a run ends.
pub const VIOLATIONS_MAX: usize = 8;

/// What must hold in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// No advert is believed that its node did not sign under a membership of its org.
    ForgedAdvert,
    /// No advert is believed that claims a place beyond its membership.
    FalseLocation,
    /// No advert is taken that has ended.
    Ended,
    /// A directory is what the plain model says it is.
    Directory,
    /// No `(epoch, seq)` goes back, over a restart either where the disk was kept.
    SequenceBack,
    /// No honest node signs two adverts with one sequence.
    SequenceReused,
    /// No honest node is said to have signed two adverts with one sequence.
    Equivocation,
    /// Every table is within its bound.
    Bound,
    /// Once faults stop, nodes that can reach each other know the same and the truth, within the scenario's time.
    Converged,
    /// Nodes that have converged stay so.
    StaysConverged,
    /// Once faults stop, no node that lives and can be reached is held dead, within the scenario's time.
    Suspected,
    /// A federation that has healed is quiet: besides pings its links carry next to nothing.
    Quiet,
    /// The router overlooks nobody of whom the caller knows that it offers the tool.
    WholeRoute,
    /// The router takes those whom the law allows, and rejects by law only others.
    LawfulRoute,
    /// No request is given to a node that may not run it.
    LawfulRun,
    /// A tool that may not run twice runs at most once.
    RunsOnce,
    /// Nothing runs of which its caller is told that it did not.
    NothingHidden,
    /// A call has exactly one outcome.
    OneOutcome,
    /// A receipt that is not true is not believed.
    TrueReceipt,
    /// Once faults have stopped and circuits have closed, a call that somebody lawful can run is not unreachable.
    Served,
    /// What the scenario expects of its calls.
    Expectation,
}

/// One invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, in milliseconds of the run.
    pub at_ms: u64,
    /// At which node, by name.
    pub node: Option<String>,
    /// What was the case.
    pub detail: String,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).ok();
        f.write_str(name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}.{:03} s", self.invariant, self.at_ms / 1000, self.at_ms % 1000)?;
        if let Some(node) = &self.node {
            write!(f, ", {node}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// Most replaced adverts that are kept for hostile nodes to send again.
const PAST_MAX: usize = 4096;

/// The newest advert that a node has signed: its sequence, its digest, its bytes and when it went out.
type Newest = (Sequence, ObjectDigest, Arc<[u8]>, Moment);

/// What was truly signed.
#[derive(Default)]
struct Ledger {
    /// Every advert that is no forgery.
    genuine: BTreeSet<ObjectDigest>,
    /// The newest advert of each node, and when it went out.
    newest: BTreeMap<usize, Newest>,
    /// What each honest node has signed under each sequence.
    signed: BTreeMap<(usize, Sequence), ObjectDigest>,
    /// Adverts that newer ones have replaced, at most [`PAST_MAX`].
    past: Vec<Arc<[u8]>>,
    /// What each genuine advert of an honest node says, in plain values.
    truths: BTreeMap<ObjectDigest, model::Truth>,
}

/// Looks at every step of a run.
pub(crate) struct Judge {
    pub(crate) violations: Vec<Violation>,
    ledger: Ledger,
    /// The highest sequence that each node has seen of every other since its disk was last lost.
    highest: Vec<BTreeMap<NodeId, Sequence>>,
    /// What each node should know by the plain model.
    models: Vec<model::Known>,
    /// When the federation had converged for the first time.
    pub(crate) converged: Option<Moment>,
    /// When all knew the same after the last fault, whether or not somebody was still held dead.
    pub(crate) merged: Option<Moment>,
    /// When it had healed after the last fault.
    pub(crate) healed: Option<Moment>,
    /// Since when it is not converged, once it was healed.
    differs_since: Option<Moment>,
    /// What ends the run as soon as it is seen.
    wanted: Option<Target>,
}

impl Judge {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            violations: Vec::new(),
            ledger: Ledger::default(),
            highest: vec![BTreeMap::new(); nodes],
            models: vec![model::Known::default(); nodes],
            converged: None,
            merged: None,
            healed: None,
            differs_since: None,
            wanted: None,
        }
    }

    pub(crate) fn violate(&mut self, invariant: Invariant, at: Moment, node: Option<String>, detail: String) {
        let known = |violation: &Violation| violation.invariant == invariant && violation.node == node;
        if !self.has_seen_enough() && !self.violations.iter().any(known) {
            self.violations.push(Violation { invariant, at_ms: at.as_millis(), node, detail });
        }
    }

    /// Whether nothing more is to be learned from this run.
    pub(crate) fn has_seen_enough(&self) -> bool {
        let found = |wanted: &Target| self.violations.iter().any(|violation| wanted.is_met_by(violation));
        self.violations.len() >= VIOLATIONS_MAX || self.wanted.as_ref().is_some_and(found)
    }

    /// Ends the run as soon as this is seen.
    pub(crate) fn look_for(&mut self, target: Target) {
        self.wanted = Some(target);
    }

    /// When the federation had healed after the last fault; `None` when its time to heal ended before.
    pub(crate) fn truly_healed(&self) -> Option<Moment> {
        let gave_up = |at: Moment| {
            let ending = |violation: &&Violation| violation.at_ms == at.as_millis();
            let kinds = [Invariant::Converged, Invariant::Suspected];
            self.violations.iter().filter(ending).any(|violation| kinds.contains(&violation.invariant))
        };
        self.healed.filter(|at| !gave_up(*at))
    }

    /// The newest advert that a node has signed, and when.
    pub(crate) fn newest_of(&self, node: usize) -> Option<(Sequence, Moment)> {
        self.ledger.newest.get(&node).map(|(sequence, .., at)| (*sequence, *at))
    }

    /// Adverts that newer ones have replaced.
    pub(crate) fn past_adverts(&self) -> &[Arc<[u8]>] {
        &self.ledger.past
    }

    /// A hostile node has signed an advert that is no forgery.
    pub(crate) fn signed(&mut self, _node: usize, digest: ObjectDigest) {
        self.ledger.genuine.insert(digest);
    }

    /// A node starts with these sequences on its disk.
    pub(crate) fn started(&mut self, node: usize, durable: &BTreeMap<NodeId, Sequence>) {
        self.highest[node] = durable.clone();
    }

    /// A node goes down.
    pub(crate) fn stopped(&mut self, node: usize) {
        self.models[node] = model::Known::default();
        self.highest[node].clear();
    }
}
