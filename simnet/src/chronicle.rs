//! What happened in a run, kept for its reports: who was there, what went wrong when, who sent what to whom, what became
//! of calls.
//!
//! The world tells a [`Chronicle`] through a handful of notes (`world::notes`); nothing that is noted can change the run,
//! which is the same with and without one. Memory is bounded whatever the scenario: messages are thinned evenly, kind by
//! kind, and all of them are kept around what was violated; [`Chronicle::omitted`] says what was left out.

mod messages;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::moment::Moment;
use crate::scenario::Verdict;

pub use messages::{
    AFTER_VIOLATION, BEFORE_VIOLATION, Fate, KEPT_PER_KIND_MAX, Message, MessageKind, Messages,
};

/// Most calls that are kept; those that begin later are counted.
pub const CALLS_MAX: usize = 20_000;

/// Most faults that are kept; those that begin later are counted.
pub const FAULTS_MAX: usize = 5_000;

/// Most times for which nodes' being up or down is kept; later ones are counted.
pub const STATES_MAX: usize = 20_000;

/// A moment of a run in microseconds.
pub type Micros = u64;

/// One node of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Actor {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Its org.
    pub org: String,
}

/// Something that went wrong, from when to when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultStory {
    /// Its number in the run.
    pub id: u64,
    /// What kind.
    pub kind: &'static str,
    /// The nodes that it befell.
    pub nodes: Vec<usize>,
    /// From whom a partition cut them off; empty when from everybody else, and for other kinds.
    pub from: Vec<usize>,
    /// What else there is to say: the direction of a cut, what a hostile node does.
    pub detail: String,
    /// When it began.
    pub begin: Micros,
    /// When it ended; `None` when it lasted to the end of the run.
    pub end: Option<Micros>,
}

/// What a node is for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It runs.
    Up,
    /// It does not.
    Down,
    /// It runs and has turned on the others.
    Hostile,
}

/// A node's change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// When.
    pub at: Micros,
    /// Which node.
    pub node: usize,
    /// What it is from then on.
    pub state: State,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallStory {
    /// Its number in the run.
    pub nr: usize,
    /// The scenario's name for calls of its kind.
    pub calls: String,
    /// The node that called.
    pub caller: usize,
    /// When.
    pub begin: Micros,
    /// When it had its outcome; `None` when the run ended before.
    pub end: Option<Micros>,
    /// What became of it.
    pub outcome: Option<Verdict>,
    /// Who answered.
    pub by: Option<usize>,
    /// Who was given the request, and when.
    pub handed: Vec<(usize, Micros)>,
    /// Who ran it, and when each began.
    pub ran: Vec<(usize, Micros)>,
}

/// How much of each thing a chronicle does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Omitted {
    /// Messages.
    pub messages: u64,
    /// Calls.
    pub calls: u64,
    /// Faults.
    pub faults: u64,
    /// Nodes' changes of state.
    pub turns: u64,
}

/// What happened in a run. See the module.
#[derive(Clone, Debug, Default)]
pub struct Chronicle {
    /// The nodes, by place.
    pub actors: Vec<Actor>,
    /// What went wrong, in the order of its beginning.
    pub faults: Vec<FaultStory>,
    /// When nodes started, stopped and turned.
    pub turns: Vec<Turn>,
    /// Who sent what.
    pub messages: Messages,
    /// When all nodes agreed for the first time, and when they did after the last fault.
    pub converged: Option<Micros>,
    /// When all had healed after the last fault.
    pub healed: Option<Micros>,
    /// When the run ended.
    pub end: Micros,
    calls: BTreeMap<usize, CallStory>,
    omitted: Omitted,
}

impl Chronicle {
    /// An empty one of a run of these nodes.
    pub(crate) fn of(actors: Vec<Actor>) -> Self {
        Self { actors, ..Self::default() }
    }

    /// The calls, in the order of their beginning.
    pub fn calls(&self) -> impl Iterator<Item = &CallStory> {
        self.calls.values()
    }

    /// What was left out.
    pub fn omitted(&self) -> Omitted {
        Omitted { messages: self.messages.omitted(), ..self.omitted }
    }

    pub(crate) fn fault_began(&mut self, fault: FaultStory) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        } else {
            self.omitted.faults += 1;
        }
    }

    /// A fault ends, for all that it befell.
    pub(crate) fn fault_ended(&mut self, id: u64, at: Moment) {
        let open = self.faults.iter_mut().rev().find(|fault| fault.id == id && fault.end.is_none());
        if let Some(fault) = open {
            fault.end = Some(at.0);
        }
    }

    pub(crate) fn turned(&mut self, node: usize, state: State, at: Moment) {
        if self.turns.len() < STATES_MAX {
            self.turns.push(Turn { at: at.0, node, state });
        } else {
            self.omitted.turns += 1;
        }
    }

    pub(crate) fn call_began(&mut self, nr: usize, calls: &str, caller: usize, at: Moment) {
        if self.calls.len() >= CALLS_MAX {
            self.omitted.calls += 1;
            return;
        }
        let story = CallStory {
            nr,
            calls: calls.to_owned(),
            caller,
            begin: at.0,
            end: None,
            outcome: None,
            by: None,
            handed: Vec::new(),
            ran: Vec::new(),
        };
        self.calls.insert(nr, story);
    }

    pub(crate) fn call_handed(&mut self, nr: usize, node: usize, at: Moment) {
        if let Some(call) = self.calls.get_mut(&nr) {
            call.handed.push((node, at.0));
        }
    }

    pub(crate) fn call_ran(&mut self, nr: usize, node: usize, at: Moment) {
        if let Some(call) = self.calls.get_mut(&nr) {
            call.ran.push((node, at.0));
        }
    }

    pub(crate) fn call_ended(&mut self, nr: usize, outcome: Verdict, by: Option<usize>, at: Moment) {
        if let Some(call) = self.calls.get_mut(&nr) {
            (call.end, call.outcome, call.by) = (Some(at.0), Some(outcome), by);
        }
    }

    /// An invariant did not hold: what is sent around this moment is kept whole.
    pub(crate) fn violated(&mut self) {
        self.messages.keep_around();
    }
}
