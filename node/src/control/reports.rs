//! What the node tells of itself: the data behind `status`, `peers`, `tools`, `route`, `servers` and `trust`, and what
//! `--json` prints.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::servers::Share;
use crate::config::trust::Approve;
use crate::exchange::{DenialReason, Failure};

/// How the node is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub node: String,
    /// The release that runs.
    pub version: String,
    /// How long it has run, in seconds.
    pub uptime_s: u64,
    /// Its org.
    pub org: Option<String>,
    /// How its membership stands.
    pub membership: Option<MembershipInfo>,
    /// Where it processes data, as far as its membership allows.
    pub locations: Vec<String>,
    /// Whose law binds its operator.
    pub operator_country: Option<String>,
    /// The mesh's name.
    pub mesh: String,
    /// Addresses at which others can reach it, `/p2p` included.
    pub addresses: Vec<String>,
    /// The endpoint for clients.
    pub mcp_url: Option<String>,
    /// The endpoint for operators.
    pub admin_url: Option<String>,
    /// Peers connected and admitted.
    pub peers_connected: usize,
    /// Adverts in the directory.
    pub directory_size: usize,
    /// The digest of the directory, in hexadecimal: two nodes with the same pins that show the same know the same.
    #[serde(default)]
    pub directory_digest: Option<String>,
    /// Tools that clients see.
    pub tools: usize,
    /// Tools that wait for an approval.
    pub tools_pending: usize,
    /// The servers that it fronts.
    pub servers: Vec<ServerInfo>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
    /// What to do next.
    pub next: String,
}

/// How a membership stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipInfo {
    /// When it ends, as RFC 3339.
    pub expires: String,
    /// Until then, in seconds; 0 once it has ended.
    pub expires_in_s: u64,
    /// The most that the node may claim as its locations.
    pub locations_max: Vec<String>,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its identity.
    pub node: String,
    /// Its name, where it advertises one.
    pub name: Option<String>,
    /// Its org.
    pub org: String,
    /// Whether a connection is open.
    pub connected: bool,
    /// The address in use, or the best that is known.
    pub address: Option<String>,
    /// The round trip, in milliseconds, while connected.
    pub rtt_ms: Option<f64>,
    /// Where it processes data, as far as its membership allows.
    pub locations: Vec<String>,
    /// Whose law binds its operator.
    pub operator_country: Option<String>,
    /// How far it is trusted here, `T0` to `T3`.
    pub trust: String,
    /// Tools that it offers us.
    pub offers: usize,
    /// When what it said last ends, in seconds.
    pub advert_expires_in_s: Option<u64>,
}

/// One tool, or another item that a server offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolInfo {
    /// The name that clients see; absent while it is hidden.
    pub name: Option<String>,
    /// The org that serves it.
    pub org: String,
    /// The server, as its node names it.
    pub server: String,
    /// `tool`, `prompt`, `resource`, `template` or `server`.
    pub kind: String,
    /// The item, as its server names it.
    pub tool: String,
    /// All of it in one text, which `comity tools approve` takes: `org/server/tool`, or `kind:org/server/name`.
    pub capability: String,
    /// The digest of its contract.
    pub contract: String,
    /// What it is for.
    pub description: Option<String>,
    /// Whether this node serves it.
    pub local: bool,
    /// How many nodes serve it.
    pub providers: usize,
    /// Whether clients may call it.
    pub state: ToolState,
}

/// Whether clients may call a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolState {
    /// They may.
    Approved,
    /// The operator has not approved it yet.
    Pending,
    /// Its contract changed after it was approved.
    Quarantined,
}

/// Who would run a call, and who would not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteReport {
    /// The capability, `org/server/tool`.
    pub capability: String,
    /// The digest of its contract.
    pub contract: String,
    /// What holds after the operator's constraints and the request's, for people.
    pub constraints: String,
    /// Who may, the chosen one first.
    pub candidates: Vec<RouteCandidate>,
    /// Who may not, and why.
    pub rejected: Vec<DenialReason>,
}

/// One who may run a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteCandidate {
    /// Its identity.
    pub node: String,
    /// Its name, where known.
    pub name: Option<String>,
    /// Its org.
    pub org: String,
    /// Where it processes data.
    pub locations: Vec<String>,
    /// Whose law binds its operator.
    pub operator_country: Option<String>,
    /// How far it is trusted here.
    pub trust: String,
    /// Whether it is this node.
    pub local: bool,
    /// What the choice weighs: lower is better.
    pub cost: Option<f64>,
}

/// How a call ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallReport {
    /// The JSON-RPC result, unchanged. Its `isError` says whether the tool failed.
    Result(Box<RawValue>),
    /// The server's JSON-RPC error object, unchanged.
    Error(Box<RawValue>),
    /// Comity's own failure.
    Failed(Failure),
    /// It waits in the outbox.
    Queued {
        /// The job's id.
        job: String,
    },
}

/// An invite's line: whoever has it can use it. It goes to people through the control socket; its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Line(String);

impl Line {
    /// The text: hand it to people, and to nothing that logs.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<invite>")
    }
}

/// An invitation that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The line to carry over. Whoever has it may use it once.
    pub line: Line,
    /// When it ends, as RFC 3339.
    pub expires: String,
}

/// Words to compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Which enrolment this is.
    pub id: String,
    /// The words, the same on both sides.
    pub words: Vec<String>,
    /// Who is at the other side, as far as it says.
    pub other: String,
    /// Whether the node waits for [`Request::Confirm`](super::messages::Request::Confirm).
    pub confirm: bool,
}

/// Who was enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The org: the one joined, or the one federated with.
    pub org: String,
    /// The digest of its root.
    pub root: String,
    /// The node that was enrolled, or that answered.
    pub node: String,
    /// What to do next.
    pub next: String,
}

/// One org that is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustInfo {
    /// The org.
    pub org: String,
    /// The pinned digest.
    pub root: String,
    /// The version of its newest root, once it has arrived.
    pub root_version: Option<u32>,
    /// When that root ends, as RFC 3339.
    pub root_expires: Option<String>,
    /// Which of its tools are visible at once.
    pub approve: Approve,
    /// Nodes of it in the directory; unknown where no node runs.
    pub nodes: Option<usize>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Its name.
    pub name: String,
    /// The program or URL, without anything secret.
    pub launch: String,
    /// Who may call it.
    pub share: Share,
    /// The file that defines it.
    pub defined_in: Option<String>,
    /// How it is; absent where no node runs.
    pub state: Option<ServerState>,
    /// Tools that it has.
    pub tools: Option<usize>,
    /// How often it was started again.
    pub restarts: Option<u64>,
    /// What went wrong last.
    pub error: Option<String>,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// Being started.
    Starting,
    /// Answering.
    Ready,
    /// Failed, and to be started again.
    Backoff,
    /// Being ended.
    Stopping,
}
