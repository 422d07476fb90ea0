//! One call of a client here: decided once, then run candidate by candidate until one has it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::call::{FailedAttempt, Target};
use comity_protocol::ids::{CallId, NodeId};
use comity_protocol::json::RawObject;
use comity_protocol::jsonrpc::codes;
use comity_protocol::route::{Health, Reach, Route, RouteReport, RouteRequest, Verdict};
use comity_protocol::time::{Mono, Now};
use serde_json::value::RawValue;
use tracing::{Instrument, Span, debug, info, info_span};

use super::answer;
use super::demand::Demand;
use super::remote;
use super::{Calls, failed, route_request};
use crate::exchange::{Exchange, ExchangePeer, Failure, Incoming, Outcome, Outgoing};
use crate::gateway::GatewayRequest;
use crate::metrics::Hop;
use crate::upstream::{CallOptions, VerifiedCaller};
use crate::world::ToolRoute;

/// One call with everything that has been found out about it.
pub(super) struct Call {
    /// Its id.
    pub(super) id: CallId,
    /// What the client sent.
    pub(super) request: GatewayRequest,
    /// What it demands.
    pub(super) demand: Demand,
    /// What it calls.
    pub(super) route: Arc<ToolRoute>,
    /// When the client stops waiting.
    pub(super) deadline: Mono,
}

/// A step of a call: here, or at several peers in turn.
enum Step {
    Here,
    There(Vec<Target>),
}

/// Runs a call to its one outcome.
pub(super) async fn run(calls: &Arc<Calls>, request: GatewayRequest, mut peer: ExchangePeer) {
    let began = calls.parts.clock.now();
    let call = match prepare(calls, request, began) {
        Ok(call) => call,
        Err(failure) => return peer.finish(failed(failure)),
    };
    let span = span(&call);
    let (outcome, hop) = attempt(calls, &call, &mut peer).instrument(span.clone()).await;
    let took = calls.parts.clock.now().mono.since(began.mono);
    let capability = call.route.capability.to_string();
    calls.parts.metrics.call_ended(&capability, &outcome, hop, took);
    span.in_scope(|| log_end(&outcome, took));
    peer.finish(outcome);
}

fn span(call: &Call) -> Span {
    let trace = call.demand.trace.as_ref();
    info_span!(
        "call",
        call_id = %call.id,
        capability = %call.route.capability,
        principal = %call.request.caller.principal,
        trace_id = trace.map(|trace| hex(&trace.trace_id())),
    )
}

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn log_end(outcome: &Outcome, took: Duration) {
    let took_ms = took.as_secs_f64() * 1000.0;
    match outcome {
        Outcome::Result(_) => debug!(took_ms, "call answered"),
        Outcome::Error(_) => debug!(took_ms, "the tool's server answered with an error"),
        Outcome::Failed(failure @ Failure::Denied { .. }) => info!(took_ms, %failure, "call denied"),
        Outcome::Failed(failure) => info!(took_ms, %failure, code = failure.code(), "call failed"),
    }
}

fn prepare(calls: &Calls, request: GatewayRequest, now: Now) -> Result<Call, Failure> {
    let demand = calls.demand(&request)?;
    let route = calls.parts.world.load().route(&request.tool).ok_or_else(|| unknown(&request.tool))?;
    let deadline = now.mono + demand.patience;
    Ok(Call { id: request.caller.call_id, request, demand, route, deadline })
}

fn unknown(tool: &str) -> Failure {
    let shown: String = tool.chars().filter(|c| !c.is_control()).take(128).collect();
    Failure::Refused { code: codes::INVALID_PARAMS, detail: format!("unknown tool: {shown}") }
}

async fn attempt(calls: &Arc<Calls>, call: &Call, peer: &mut ExchangePeer) -> (Outcome, Hop) {
    let request = route_request(&call.route, &call.demand);
    let steps = match decide(calls, call, &request) {
        Ok(steps) => steps,
        Err(failure) => return (failed(failure), Hop::Local),
    };
    let params = match with_tool_name(&call.request.params, call.route.tool.as_str()) {
        Ok(params) => params,
        Err(failure) => return (failed(failure), Hop::Local),
    };
    let mut tried = Tried::default();
    for step in steps {
        let outcome = match step {
            Step::Here => {
                here(calls, call, &params, peer, &mut tried).await.map(|outcome| (outcome, Hop::Local))
            }
            Step::There(targets) => there(calls, call, &params, targets, peer, &mut tried)
                .await
                .map(|outcome| (outcome, Hop::Out)),
        };
        if let Some(ended) = outcome {
            return ended;
        }
    }
    (failed(tried.failure()), Hop::Out)
}

/// Decides, and cuts the ranked candidates into steps.
fn decide(calls: &Calls, call: &Call, request: &RouteRequest) -> Result<Vec<Step>, Failure> {
    let now = calls.parts.clock.now();
    calls.with_chooser(|chooser| {
        chooser.call_begins();
        let route = chooser.decide(request, &call.route.candidates, now);
        match route.verdict() {
            Verdict::Routable => Ok(steps(&route)),
            _ => Err(answer::denial(&RouteReport::new(request, &route))),
        }
    })
}

fn steps(route: &Route<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for candidate in &route.ranked {
        match (steps.last_mut(), candidate.reach) {
            (_, Reach::Local) => steps.push(Step::Here),
            (Some(Step::There(targets)), _) => targets.push(Target::from(*candidate)),
            _ => steps.push(Step::There(vec![Target::from(*candidate)])),
        }
    }
    steps
}

/// The params under the tool's own name, which is what its server knows. Mostly that is the name that the client used,
/// and then nothing is copied.
pub(super) fn with_tool_name<'a>(params: &'a RawValue, tool: &str) -> Result<Cow<'a, RawValue>, Failure> {
    let wrong = |detail: String| Failure::Refused { code: codes::INVALID_PARAMS, detail };
    let mut object = RawObject::parse(params).map_err(|error| wrong(format!("params: {error}")))?;
    if object.get_str("name").is_some_and(|name| name == tool) {
        return Ok(Cow::Borrowed(params));
    }
    object.set_str("name", tool);
    Ok(Cow::Owned(object.to_raw()))
}

/// What has been tried without anything being handed over.
#[derive(Default)]
struct Tried {
    here: Option<Failure>,
    there: Vec<FailedAttempt>,
    budget_spent: bool,
}

impl Tried {
    fn failure(self) -> Failure {
        match self.here {
            Some(failure) if self.there.is_empty() => failure,
            _ => answer::exhausted(&self.there, self.budget_spent),
        }
    }
}

/// Runs the call at a server here. `None` when it was not handed over and may go elsewhere.
async fn here(
    calls: &Calls,
    call: &Call,
    params: &RawValue,
    peer: &mut ExchangePeer,
    tried: &mut Tried,
) -> Option<Outcome> {
    let me = calls.me();
    let now = calls.parts.clock.now();
    let capability = call.route.capability_of(&me.org);
    let attempt = calls.with_chooser(|chooser| chooser.begin(me.node, &capability, call.id, now.mono));
    let caller = VerifiedCaller {
        org: me.org.clone(),
        node: me.node,
        principal: call.request.caller.principal.to_string(),
    };
    let options = CallOptions {
        deadline: Some(call.deadline.since(now.mono)),
        traceparent: call.demand.trace.as_ref().map(ToString::to_string),
    };
    let exchange =
        calls.parts.upstreams.open(&call.route.server, &call.request.method, params, &caller, &options);
    let outcome = forward(exchange, peer).await;
    let now = calls.parts.clock.now();
    calls.with_chooser(|chooser| chooser.finish(attempt, health(&outcome), now.mono));
    match outcome {
        Outcome::Failed(failure) if may_go_elsewhere(&failure) => {
            tried.here = Some(failure);
            None
        }
        outcome => Some(outcome),
    }
}

/// Passes messages both ways until the outcome. A requester that leaves cancels by dropping the exchange.
async fn forward(mut exchange: Exchange, peer: &mut ExchangePeer) -> Outcome {
    loop {
        tokio::select! {
            incoming = exchange.next() => match incoming {
                Incoming::Done(outcome) => return outcome,
                Incoming::Message(message) => {
                    if peer.sender.send(message).await.is_err() {
                        return failed(Failure::Cancelled { handed_over: true });
                    }
                }
            },
            outgoing = peer.outgoing.recv() => match outgoing {
                None => return failed(Failure::Cancelled { handed_over: true }),
                // An upstream that has ended the call takes nothing more; its outcome is on its way.
                Some(outgoing) => drop(exchange.outgoing.send(outgoing).await),
            },
        }
    }
}

fn health(outcome: &Outcome) -> Health {
    match outcome {
        Outcome::Result(_) | Outcome::Error(_) => Health::Answered,
        Outcome::Failed(Failure::Cancelled { .. } | Failure::Refused { .. }) => Health::Neutral,
        Outcome::Failed(_) => Health::CapabilityFault,
    }
}

/// Whether a failure of a server here leaves the call free to go to somebody else.
fn may_go_elsewhere(failure: &Failure) -> bool {
    !failure.handed_over()
        && !matches!(failure, Failure::Cancelled { .. } | Failure::Timeout { .. } | Failure::TooLarge { .. })
}

/// Runs the call at peers. `None` when none of them took it.
async fn there(
    calls: &Arc<Calls>,
    call: &Call,
    params: &RawValue,
    targets: Vec<Target>,
    peer: &mut ExchangePeer,
    tried: &mut Tried,
) -> Option<Outcome> {
    let again = tried.here.is_some() || !tried.there.is_empty();
    let outcome = remote::run(calls, call, params, targets, again, peer).await;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(failure) => return Some(failed(failure)),
    };
    match answer::outcome(outcome, &call.demand) {
        Ok(outcome) => Some(outcome),
        Err((attempts, budget_spent)) => {
            tried.there.extend(attempts);
            tried.budget_spent |= budget_spent;
            None
        }
    }
}

/// Where a candidate can be dialled is in the directory; the mesh looks it up when this is empty.
pub(super) fn addresses(calls: &Calls, node: &NodeId) -> Vec<String> {
    let snapshot = calls.parts.mesh.snapshot();
    snapshot.nodes.get(node).map(|entry| entry.advert().addresses.clone()).unwrap_or_default()
}

/// What a requester says, as the mesh carries it.
pub(super) fn to_frame_bytes(outgoing: Outgoing) -> Result<Vec<u8>, Option<String>> {
    match outgoing {
        Outgoing::Message(message) => Ok(message.to_vec()),
        Outgoing::Cancel { reason } => Err(reason),
    }
}
