//! What the MCP face needs from the rest of the node, and nothing more.
//!
//! The face knows HTTP, SSE, sessions and the two eras of MCP. It knows nothing of peers, policy or upstreams: it
//! hands a [`GatewayRequest`] to a [`Gateway`] and holds the [`Exchange`] until the conversation is over.

use std::{fmt, sync::Arc, time::Duration};

use comity_protocol::{
    catalogue::Catalogue,
    constraints::Constraints,
    ids::{CallId, Kind, OrgName, ServerName},
    trace::TraceContext,
};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::exchange::Exchange;

/// The rest of the node, as the MCP face sees it.
pub trait Gateway: Send + Sync + 'static {
    /// What there is at `endpoint` now; `None` when there is no such endpoint. A snapshot: cheap to take, never changes
    /// under the reader.
    fn catalogue(&self, endpoint: &Endpoint) -> Option<Arc<Catalogue>>;

    /// A number that grows whenever any catalogue changes. Clients are then told of the lists that changed for them.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Starts a request and returns at once; whatever goes wrong is told through the exchange.
    /// Dropping the exchange cancels the request.
    ///
    /// A request with the method [`SUBSCRIBE`](comity_protocol::call::methods::SUBSCRIBE) lasts for as long as its exchange:
    /// an acknowledgement comes first, then a notification for each change; where the link to the resource is lost it is
    /// made again, and a change is told because there may have been one.
    fn request(&self, request: GatewayRequest) -> Exchange;
}

/// Which of the node's catalogues a client sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// Everything, under the catalogue's names.
    #[default]
    All,
    /// One server by itself, under its own names.
    Raw {
        /// Whose; `None` for this node's own, or the only one of that name.
        org: Option<OrgName>,
        /// The server, as the nodes that front it name it.
        server: ServerName,
    },
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An item, by the name under which the endpoint's catalogue exposes it. A resource may be one that nobody lists.
    Item(Kind, String),
    /// The server itself, at an endpoint of one server.
    Server,
    /// A task, by the id that this node gave it.
    Task(String),
}

impl Target {
    /// A tool by its exposed name.
    pub fn tool(name: impl Into<String>) -> Self {
        Self::Item(Kind::Tool, name.into())
    }
}

/// For logs and errors.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(kind, name) => {
                let shown: String = name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_SHOWN).collect();
                write!(f, "{kind}: {shown}")
            }
            Self::Server => f.write_str("server"),
            Self::Task(_) => f.write_str("task"),
        }
    }
}

/// How much of a client's name for something is shown.
const NAME_CHARS_SHOWN: usize = 128;

/// One client request that the node must route.
#[derive(Clone, Debug)]
pub struct GatewayRequest {
    /// The MCP method, such as `tools/call`.
    pub method: String,
    /// By which endpoint it came.
    pub endpoint: Endpoint,
    /// What it is about.
    pub target: Target,
    /// The whole `params` as the client wrote them, `_meta` included (its `dev.comity/constraints` too).
    pub params: Box<RawValue>,
    /// Who asks, and under what conditions.
    pub caller: CallerContext,
}

/// Who asks, and what limits apply to all that they ask.
#[derive(Clone, Debug)]
pub struct CallerContext {
    /// Names this call in logs, on the mesh and in the audit log.
    pub call_id: CallId,
    /// The verified name of the caller: [`LOCAL_PRINCIPAL`], or the name of the token that was presented.
    pub principal: Arc<str>,
    /// What the operator demands of every call that comes in by this endpoint.
    pub endpoint_constraints: Arc<Constraints>,
    /// What the operator tied to the caller's token.
    pub token_constraints: Option<Arc<Constraints>>,
    /// The caller's trace; the gateway starts one where there is none.
    pub trace: Option<TraceContext>,
    /// How long the caller will wait, counted from now; the gateway applies its own ceiling.
    pub deadline: Option<Duration>,
    /// What is known of the client program.
    pub client: ClientProfile,
}

/// The principal of a caller who needed no token: the endpoint itself is the proof.
pub const LOCAL_PRINCIPAL: &str = "local";

/// What a client has said of itself. Nothing here is proved.
#[derive(Clone, Debug, Default)]
pub struct ClientProfile {
    /// How it speaks.
    pub era: Era,
    /// The raw `ClientCapabilities` object: from `initialize`, or from the request's own `_meta`.
    pub capabilities: Option<Arc<RawValue>>,
    /// The raw `Implementation` object (`clientInfo`).
    pub info: Option<Arc<RawValue>>,
}

/// The two shapes of MCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Era {
    /// 2025-11-25 and before: `initialize`, sessions, requests from server to client.
    #[default]
    Legacy,
    /// 2026-07-28: stateless, each request carries its own metadata, no request from server to client.
    Modern,
}

/// A fresh name for a call, from the operating system's generator.
///
/// # Errors
/// When the operating system has no randomness to give.
pub fn new_call_id() -> Result<CallId, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(CallId::from_bytes(bytes))
}
