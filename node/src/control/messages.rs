//! What is asked and answered over the control socket, as JSON.
//!
//! Names of orgs, nodes and tools travel as text; the node parses them. Enums are tagged from outside because raw JSON
//! (a call's arguments and result, carried as they are) does not survive serde's other ways.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::trust::Approve;
use crate::exchange::DenialReason;

pub use super::reports::*;

/// What the command line asks of the node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// How the node is. Answered by [`Response::Status`].
    Status,
    /// Whom it knows. Answered by [`Response::Peers`].
    Peers,
    /// What can be called. Answered by [`Response::Tools`].
    Tools,
    /// Approves contracts. Answered by [`Response::Tools`], those that changed.
    ApproveTools(ToolSelector),
    /// Takes approvals back. Answered by [`Response::Tools`], those that changed.
    RevokeTools(ToolSelector),
    /// Who would run a call. Answered by [`Response::Route`].
    Route(RouteRequest),
    /// Calls a tool. Events: progress and logs. Answered by [`Response::Call`].
    Call(CallRequest),
    /// Makes an invitation. Events: [`Event::Invitation`], then, when waiting, [`Event::Compare`]. Answered by
    /// [`Response::Enrolled`] when waiting, else by [`Response::Done`].
    Invite(InviteRequest),
    /// Accepts an invitation. Events: [`Event::Compare`]. Answered by [`Response::Enrolled`].
    Join(JoinRequest),
    /// Says that the words were compared: lets an enrolment go on, or ends it. Answered by [`Response::Done`].
    Confirm(ConfirmRequest),
    /// The orgs that are believed. Answered by [`Response::Trust`].
    Trust,
    /// The servers that it fronts. Answered by [`Response::Servers`].
    Servers,
}

/// The last line of an answer, unless it is a fault.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is done, and there is nothing more to say.
    Done,
    /// How the node is.
    Status(Box<StatusReport>),
    /// Whom it knows.
    Peers(Vec<PeerInfo>),
    /// What can be called.
    Tools(Vec<ToolInfo>),
    /// Who would run a call.
    Route(RouteReport),
    /// How a call ended.
    Call(CallReport),
    /// Who was enrolled.
    Enrolled(Enrolled),
    /// The orgs that are believed.
    Trust(Vec<TrustInfo>),
    /// The servers that it fronts.
    Servers(Vec<ServerInfo>),
}

/// What happens before an answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A call's progress or log notification, as the server wrote it.
    Notification {
        /// The MCP method.
        method: String,
        /// Its parameters, unchanged.
        params: Option<Box<RawValue>>,
    },
    /// The line to carry to the other side.
    Invitation(Invitation),
    /// Words that both sides show: people compare them aloud.
    Compare(Compare),
    /// Something worth telling while waiting.
    Note(String),
}

/// Every line that the node writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// More follows.
    Event(Event),
    /// The answer; nothing follows.
    Done(Response),
    /// No answer; nothing follows.
    Error(ControlFault),
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ControlFault {
    /// The class, which decides the exit code.
    pub kind: FaultKind,
    /// What is wrong, for people.
    pub message: String,
    /// What to do next.
    pub next: Option<String>,
    /// Every candidate's reason, for a denial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<DenialReason>,
}

/// The class of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The request cannot be read, or asks for something that cannot be.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// Policy or trust forbids it.
    Denied,
    /// Nobody who could do it can be reached.
    Unreachable,
    /// A bound was reached.
    Busy,
    /// It did not work for another reason.
    Failed,
}

impl ControlFault {
    /// A fault of this class.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        ControlFault { kind, message: message.into(), next: None, reasons: Vec::new() }
    }

    /// Says what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// Which contracts are meant. All that is given must match; nothing given matches nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSelector {
    /// Those of this org.
    pub org: Option<String>,
    /// Those of this server.
    pub server: Option<String>,
    /// This tool: its exposed name, its own, or `org/server/tool`.
    pub tool: Option<String>,
    /// This digest.
    pub contract: Option<String>,
}

/// Which call is asked about.
#[derive(Debug, Serialize, Deserialize)]
pub struct RouteRequest {
    /// The tool: its exposed name, or `org/server/tool`.
    pub tool: String,
    /// Constraints in their JSON form.
    pub constraints: Option<Box<RawValue>>,
}

/// One call.
#[derive(Debug, Serialize, Deserialize)]
pub struct CallRequest {
    /// The tool: its exposed name, or `org/server/tool`.
    pub tool: String,
    /// The arguments, a JSON object, carried unchanged.
    pub arguments: Option<Box<RawValue>>,
    /// Constraints in their JSON form.
    pub constraints: Option<Box<RawValue>>,
    /// What to do when nobody who may run it can be reached.
    pub when_offline: WhenOffline,
}

/// What to do with a call that nobody can run now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum WhenOffline {
    /// Fail at once.
    #[default]
    Fail,
    /// Keep it until somebody can.
    Queue,
}

/// What kind of invitation is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRequest {
    /// Whom it lets in.
    pub kind: InviteKind,
    /// How long it holds.
    pub lifetime: Duration,
    /// Whether to answer only when it was used or has expired.
    pub wait: bool,
}

/// Whom an invitation lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InviteKind {
    /// A node, into this org.
    Member {
        /// The most that it may claim as its locations: countries and groups.
        locations: Vec<String>,
    },
    /// Another org, into the federation: both pin each other's root.
    Federation {
        /// Which of the other org's tools are visible at once.
        approve: Approve,
    },
}

/// An invitation that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The line.
    pub line: Line,
    /// Which of the other org's tools are visible at once, when two orgs federate.
    pub approve: Approve,
}

/// The words were compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmRequest {
    /// The enrolment, as [`Compare::id`] named it.
    pub id: String,
    /// Whether they were the same.
    pub same: bool,
}
