//! What the MCP face needs from the rest of the node, and nothing more.
//!
//! The face knows HTTP, SSE, sessions and the two eras of MCP. It knows nothing of peers, policy or upstreams: it
//! hands a [`GatewayRequest`] to a [`Gateway`] and holds the [`Exchange`] until the conversation is over.

use std::{sync::Arc, time::Duration};

use comity_protocol::{catalogue::Catalogue, constraints::Constraints, ids::CallId, trace::TraceContext};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::exchange::Exchange;

/// The rest of the node, as the MCP face sees it.
pub trait Gateway: Send + Sync + 'static {
    /// The present catalogue. A snapshot: cheap to take, never changes under the reader.
    fn catalogue(&self) -> Arc<Catalogue>;

    /// A number that grows whenever the catalogue changes. Clients are then told `tools/list_changed`.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Starts a request and returns at once; whatever goes wrong is told through the exchange.
    /// Dropping the exchange cancels the request.
    fn request(&self, request: GatewayRequest) -> Exchange;
}

/// One client request that the node must route.
#[derive(Debug)]
pub struct GatewayRequest {
    /// The MCP method, `tools/call`.
    pub method: String,
    /// The name under which the catalogue exposes the target.
    pub tool: String,
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
