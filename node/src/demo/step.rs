//! What a step is.

use std::time::Duration;

use futures::future::LocalBoxFuture;
use serde_json::Value;
use thiserror::Error;

use super::client::McpError;
use super::node::NodeError;
use super::receipt::ReceiptFault;
use super::stage::Stage;

/// One step of the demo. They are played in the order of [`STEPS`](super::steps::STEPS).
pub(super) struct Step {
    /// For programs.
    pub(super) name: &'static str,
    /// For people.
    pub(super) title: &'static str,
    /// What is to be seen, in a sentence or two.
    pub(super) about: &'static str,
    /// Plays it, and checks what came of it.
    pub(super) run: for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, Result<Told, Fault>>,
}

/// What came of a step that held.
pub(super) struct Told {
    /// For programs: a JSON object.
    pub(super) detail: Value,
    /// For people: lines and tables.
    pub(super) text: String,
}

/// Why a step did not hold.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// A node did not do what it should.
    #[error("{}: {error}", super::cast::CAST[*at].name)]
    Node {
        /// Which.
        at: usize,
        /// What it did instead.
        error: NodeError,
    },
    /// What was seen is not what should be.
    #[error("{message}")]
    Unexpected {
        /// The node whose doing it is, where it is one's.
        at: Option<usize>,
        /// What was seen.
        message: String,
    },
    /// The client was not answered as it should be.
    #[error(transparent)]
    Client(#[from] McpError),
    /// A receipt does not prove what it should.
    #[error(transparent)]
    Receipt(#[from] ReceiptFault),
    /// It took too long.
    #[error("it took more than {0:?}")]
    TooSlow(Duration),
}

impl Fault {
    /// Something at the node at `at` is not as it should be.
    pub(super) fn at(at: usize, message: impl Into<String>) -> Self {
        Fault::Unexpected { at: Some(at), message: message.into() }
    }

    /// Something is not as it should be.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Fault::Unexpected { at: None, message: message.into() }
    }

    /// The node whose log tells more; `None` for everybody's.
    pub(super) fn node(&self) -> Option<usize> {
        match self {
            Fault::Node { at, .. } => Some(*at),
            Fault::Unexpected { at, .. } => *at,
            Fault::Client(_) => Some(super::cast::HOME),
            Fault::Receipt(_) | Fault::TooSlow(_) => None,
        }
    }
}

/// Makes errors of the node at `at` into faults.
pub(super) fn of(at: usize) -> impl Fn(NodeError) -> Fault {
    move |error| Fault::Node { at, error }
}

/// Fails unless something holds.
pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> Fault) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
