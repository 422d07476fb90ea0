//! Whom a call tries, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::{NodeId, OrgName, PayloadDigest};
use crate::route::{Candidate, Health, Reach};
use crate::trust::Verified;

use super::admit::RefuseCode;
use super::frame::{ExecutionFailure, Refusal};
use super::receipt::{Receipt, ReceiptError, ReceiptOutcome};

/// One candidate to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node.
    pub node: NodeId,
    /// Its org, which the receipt must name.
    pub org: OrgName,
    /// What people call it.
    pub name: Arc<str>,
    /// Whether there is a connection to it.
    pub connected: bool,
}

impl From<&Candidate> for Target {
    fn from(candidate: &Candidate) -> Self {
        Self {
            node: candidate.site.node,
            org: candidate.site.org.clone(),
            name: candidate.name.clone(),
            connected: matches!(candidate.reach, Reach::Local | Reach::Connected),
        }
    }
}

/// How long a caller must have waited at least for its giving up to tell anything about whom it called. Otherwise one
/// hasty client would open circuits for all others.
pub const PATIENCE_FAIR: Duration = Duration::from_secs(5);

/// What became of a call.
#[derive(Clone, Debug)]
pub enum CallOutcome {
    /// An executor ran it to its end.
    Answered {
        /// Who ran it.
        executor: Target,
        /// What it answered.
        answer: Answer,
        /// Its receipt, or why there is none that proves the call.
        receipt: Result<Verified<Receipt>, ReceiptError>,
    },
    /// It was not run, or nobody knows.
    Failed(CallFailure),
}

/// What an executor answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The JSON-RPC `result`, raw.
    Result(Vec<u8>),
    /// The JSON-RPC `error`, raw.
    Error(Vec<u8>),
    /// The upstream had the request and gave no answer.
    Failed(ExecutionFailure),
}

impl Answer {
    pub(super) fn outcome(&self) -> ReceiptOutcome {
        match self {
            Self::Result(_) => ReceiptOutcome::Result,
            Self::Error(_) => ReceiptOutcome::Error,
            Self::Failed(_) => ReceiptOutcome::Failed,
        }
    }

    pub(super) fn digest(&self) -> Option<PayloadDigest> {
        match self {
            Self::Result(bytes) | Self::Error(bytes) => Some(PayloadDigest::of(bytes)),
            Self::Failed(_) => None,
        }
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// No candidate took it. Nothing was run.
    #[error("no candidate took the call")]
    Exhausted {
        /// Every try, in order.
        attempts: Vec<FailedAttempt>,
        /// Whether candidates were left and the retry budget was not.
        budget_spent: bool,
    },
    /// The request went out to `executor` and what became of it is unknown.
    #[error("{} ({}) may have run the call: {detail}", executor.name, executor.org)]
    InDoubt {
        /// Who may have run it.
        executor: Target,
        /// What happened.
        detail: String,
    },
    /// The deadline has passed.
    #[error("no answer before the deadline")]
    Timeout {
        /// Whether an upstream may have begun to run it.
        handed_over: bool,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled {
        /// Whether an upstream may have begun to run it.
        handed_over: bool,
    },
}

/// A try that failed before anything was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Who was tried.
    pub target: Target,
    /// Why it failed.
    pub cause: AttemptFailure,
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttemptFailure {
    /// The stream could not be opened, or broke.
    #[error("{0}")]
    Lost(String),
    /// No answer in time.
    #[error("no answer while {0}")]
    Silent(&'static str),
    /// The executor refused.
    #[error("refused: {}", .0.detail)]
    Refused(Refusal),
    /// The executor accepted and could not hand it to its upstream, or a tool that may run twice failed there.
    #[error("failed: {}", .0.detail)]
    Failed(ExecutionFailure),
}

impl AttemptFailure {
    /// A stable name, for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::Lost(_) | Self::Silent(_) => "unreachable",
            Self::Refused(refusal) => &refusal.code,
            Self::Failed(failure) => &failure.code,
        }
    }

    /// What a failed try tells about its peer. A refusal for a rule tells nothing; one for want of room does.
    pub(super) fn health(&self) -> Health {
        match self {
            Self::Lost(_) | Self::Silent(_) => Health::PeerFault,
            Self::Refused(refusal) if refusal.code == RefuseCode::Overloaded.as_str() => {
                Health::CapabilityFault
            }
            Self::Refused(_) => Health::Neutral,
            Self::Failed(failure) => failure_health(failure),
        }
    }
}

/// What a failure that an executor reports tells about its upstream. A request that is wrong or too large, and a caller
/// that cancelled or did not keep up, are no fault of it.
pub(super) fn failure_health(failure: &ExecutionFailure) -> Health {
    match (failure.code.as_str(), failure.handed_over) {
        ("refused" | "too_large" | "cancelled", _) | ("overloaded", true) => Health::Neutral,
        _ => Health::CapabilityFault,
    }
}
