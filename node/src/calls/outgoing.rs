//! One call of a client here: decided once, then run candidate by candidate until one has it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::call::frame::PAYLOAD_BYTES_MAX;
use comity_protocol::call::methods;
use comity_protocol::call::outcome::PATIENCE_FAIR;
use comity_protocol::call::{CallOutcome, FailedAttempt, Target};
use comity_protocol::ids::{CallId, Kind, NodeId};
use comity_protocol::json::{self, RawObject};
use comity_protocol::jsonrpc::{Message, RpcError, codes};
use comity_protocol::route::{Health, Reach, Route, RouteReport, RouteRequest, Verdict};
use comity_protocol::time::{Mono, Now};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span, debug, info, info_span};

use super::answer;
use super::contract;
use super::demand::Demand;
use super::follow::{self, Follow};
use super::remote;
use super::rename::{renamed, restored, with_cache_hints};
use super::rounds::{self, Rounds};
use super::{Calls, counted_as, failed, route_request};
use crate::exchange::{Exchange, ExchangePeer, ExchangeSender, Failure, Incoming, Outcome, Outgoing};
use crate::gateway::{self, Endpoint, Era, GatewayRequest};
use crate::input;
use crate::metrics::Hop;
use crate::upstream::meta::CAPABILITIES_KEY;
use crate::upstream::{CallOptions, VerifiedCaller};
use crate::world::{Found, ItemRoute};

/// The code of MCP 2025-11-25 for a resource that is not there.
const RESOURCE_NOT_FOUND: i64 = -32002;

/// One call with everything that has been found out about it.
pub(super) struct Call {
    /// Its id.
    pub(super) id: CallId,
    /// What the client sent.
    pub(super) request: GatewayRequest,
    /// What it demands.
    pub(super) demand: Demand,
    /// Where it may run.
    pub(super) route: Arc<ItemRoute>,
    /// What the server calls what it is about.
    name: String,
    /// What it follows.
    pub(super) follow: Follow,
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
    let outcome = in_clients_terms(&call, outcome);
    let took = calls.parts.clock.now().mono.since(began.mono);
    let capability = counted_as(&call.route.capability);
    calls.parts.metrics.call_ended(&capability, &outcome, hop, took);
    span.in_scope(|| log_end(&outcome, took));
    peer.finish(outcome);
}

/// What was read, as its client's era and its catalogue know it.
fn in_clients_terms(call: &Call, outcome: Outcome) -> Outcome {
    let gateway::Target::Item(Kind::Resource, asked) = &call.request.target else { return outcome };
    let modern = call.request.caller.client.era == Era::Modern;
    match outcome {
        Outcome::Result(result) => {
            let result = restored(result, &call.name, asked);
            Outcome::Result(if modern { with_cache_hints(result) } else { result })
        }
        Outcome::Error(error) if modern && RpcError::from_raw(&error).code == RESOURCE_NOT_FOUND => {
            Outcome::Error(with_code(error, codes::INVALID_PARAMS))
        }
        outcome => outcome,
    }
}

/// The error as its server wrote it, under another code.
fn with_code(error: Box<RawValue>, code: i64) -> Box<RawValue> {
    let Ok(mut object) = RawObject::parse(&error) else { return error };
    object.set("code", json::to_raw(&code));
    object.to_raw()
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
        Outcome::Error(_) => debug!(took_ms, "the server answered with an error"),
        Outcome::Failed(failure @ Failure::Denied { .. }) => info!(took_ms, %failure, "call denied"),
        Outcome::Failed(failure) => info!(took_ms, %failure, code = failure.code(), "call failed"),
    }
}

fn prepare(calls: &Calls, request: GatewayRequest, now: Now) -> Result<Call, Failure> {
    let demand = calls.demand(&request)?;
    let follow = Follow::of(calls, &request)?;
    let Found { route, name } = find(calls, &request, &follow).ok_or_else(|| unknown(&request))?;
    if !methods::is_routed(route.kind, &request.method) {
        let detail = format!("{} cannot be asked of a {}", request.method, route.kind);
        return Err(Failure::Refused { code: codes::METHOD_NOT_FOUND, detail });
    }
    let route = follow.narrow(route)?;
    let deadline = now.mono + demand.patience;
    Ok(Call { id: request.caller.call_id, request, demand, route, name, follow, deadline })
}

fn find(calls: &Calls, request: &GatewayRequest, follow: &Follow) -> Option<Found> {
    let world = calls.parts.world.load();
    if let Follow::Task(task) = follow {
        let route = world.route(&task.capability.to_string())?;
        return Some(Found { name: route.name.to_string(), route });
    }
    let found = world.view(&request.endpoint).and_then(|view| view.find(&request.target, &world));
    found.or_else(|| match (&request.endpoint, &request.target) {
        // The operator and those who know whom they want may name a tool by its path.
        (Endpoint::All, gateway::Target::Item(Kind::Tool, name)) => {
            let route = world.route(name)?;
            Some(Found { name: route.name.to_string(), route })
        }
        _ => None,
    })
}

fn unknown(request: &GatewayRequest) -> Failure {
    let code = match (&request.target, request.caller.client.era) {
        // MCP 2025-11-25 "Resources", Error Handling; later revisions say invalid params.
        (gateway::Target::Item(Kind::Resource, _), Era::Legacy) => RESOURCE_NOT_FOUND,
        _ => codes::INVALID_PARAMS,
    };
    Failure::Refused { code, detail: format!("unknown {}", request.target) }
}

async fn attempt(calls: &Arc<Calls>, call: &Call, peer: &mut ExchangePeer) -> (Outcome, Hop) {
    let request = route_request(&call.route, &call.demand);
    let steps = match decide(calls, call, &request) {
        Ok(steps) => steps,
        Err(failure) => return (failed(failure), Hop::Local),
    };
    let params = match call.follow.params(&call.request.params) {
        Some(params) => Ok(Cow::Owned(params)),
        None => renamed(&call.request.params, &call.request.method, call.route.kind, &call.name),
    };
    let params = match params {
        Ok(params) => params,
        Err(failure) => return (failed(failure), Hop::Local),
    };
    if let Err(unfit) = contract::check_arguments(calls, call).await {
        return (unfit, Hop::Local);
    }
    let (outcome, hop, node) = run_steps(calls, call, &params, steps, peer).await;
    let outcome = follow::provide(calls, call, outcome, node);
    (contract::check_result(calls, call, outcome).await, hop)
}

async fn run_steps(
    calls: &Arc<Calls>,
    call: &Call,
    params: &RawValue,
    steps: Vec<Step>,
    peer: &mut ExchangePeer,
) -> (Outcome, Hop, Option<NodeId>) {
    let mut tried = Tried::default();
    for step in steps {
        if let Some(failure) = over(calls, call, peer) {
            return (failed(failure), Hop::Out, None);
        }
        let outcome = match step {
            Step::Here => {
                here(calls, call, params, peer, &mut tried).await.map(|outcome| (outcome, Hop::Local))
            }
            Step::There(targets) => {
                there(calls, call, params, targets, peer, &mut tried).await.map(|outcome| (outcome, Hop::Out))
            }
        };
        if let Some((outcome, hop)) = outcome {
            return (outcome, hop, tried.ran_at);
        }
    }
    (failed(tried.failure()), Hop::Out, None)
}

/// Why nothing more is to be tried: a server is never given what nobody waits for any more.
fn over(calls: &Calls, call: &Call, peer: &ExchangePeer) -> Option<Failure> {
    if calls.parts.clock.mono() >= call.deadline {
        return Some(Failure::Timeout { handed_over: false, after: call.demand.patience });
    }
    peer.sender.is_closed().then_some(Failure::Cancelled { handed_over: false })
}

/// Decides, and cuts the ranked candidates into steps.
fn decide(calls: &Calls, call: &Call, request: &RouteRequest) -> Result<Vec<Step>, Failure> {
    let now = calls.parts.clock.now();
    let route = calls.with_chooser(|chooser| {
        chooser.call_begins();
        chooser.decide(request, &call.route.candidates, now)
    });
    match route.verdict() {
        Verdict::Routable => Ok(steps(&route)),
        _ => Err(answer::denial(&RouteReport::new(request, &route))),
    }
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

/// What has been tried without anything being handed over.
#[derive(Default)]
struct Tried {
    here: Option<Failure>,
    there: Vec<FailedAttempt>,
    budget_spent: bool,
    /// Who answered in the end.
    ran_at: Option<NodeId>,
}

impl Tried {
    fn failure(self) -> Failure {
        match self.here {
            Some(failure) if self.there.is_empty() => failure,
            here => answer::exhausted(here.as_ref(), &self.there, self.budget_spent),
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
    // A subscription that lasts must not look like a call that hangs.
    let trying =
        (call.request.method != methods::SUBSCRIBE).then(|| calls.begin_try(me.node, &capability, call.id));
    let caller = VerifiedCaller {
        org: me.org.clone(),
        node: me.node,
        principal: call.request.caller.principal.to_string(),
    };
    let options = CallOptions {
        deadline: Some(call.deadline.since(now.mono)),
        traceparent: call.demand.trace.as_ref().map(ToString::to_string),
        capabilities: legacy_abilities(call).map(Into::into),
    };
    let exchange =
        calls.parts.upstreams.open(&call.route.server, &call.request.method, params, &caller, &options);
    let deadline = calls.parts.clock.instant(call.deadline);
    let mut outcome = forward(exchange, peer, deadline, call.demand.patience).await;
    if options.capabilities.is_some() && rounds::is_asking(&outcome) {
        let rounds = Rounds {
            upstreams: calls.parts.upstreams.clone(),
            server: call.route.server.clone(),
            method: call.request.method.clone(),
            params: params.to_owned(),
            caller,
            options,
            deadline,
            patience: call.demand.patience,
        };
        outcome = match rounds.go_on(outcome) {
            Ok(exchange) => forward(exchange, peer, deadline, call.demand.patience).await,
            Err(outcome) => outcome,
        };
    }
    if let Some(trying) = trying {
        trying.end(health(&outcome, call.demand.patience));
    }
    match outcome {
        Outcome::Failed(failure) if may_go_elsewhere(&failure) => {
            tried.here = Some(failure);
            None
        }
        outcome => {
            tried.ran_at = Some(me.node);
            Some(outcome)
        }
    }
}

/// What a legacy client said it can do, as a server of 2026-07-28 is to be told. A modern client's request says it itself.
fn legacy_abilities(call: &Call) -> Option<Box<RawValue>> {
    let client = &call.request.caller.client;
    let capabilities = client.capabilities.as_deref().filter(|_| client.era == Era::Legacy)?;
    input::modern_capabilities(capabilities)
}

/// The params with what a legacy client can do, for a node that has nobody else to learn it from.
fn with_abilities<'a>(params: &'a RawValue, call: &Call) -> Cow<'a, RawValue> {
    let Some(abilities) = legacy_abilities(call) else { return Cow::Borrowed(params) };
    let set = || {
        let mut object = RawObject::parse(params).ok()?;
        let mut meta = object.get_object("_meta").ok()?.unwrap_or_default();
        meta.set(CAPABILITIES_KEY, abilities);
        object.set("_meta", meta.to_raw());
        Some(object.to_raw())
    };
    set().map_or(Cow::Borrowed(params), Cow::Owned)
}

/// Passes messages both ways until the outcome. A requester that leaves cancels by dropping the exchange; one that does
/// not keep up holds up its own call, no longer than its deadline, and can still cancel it.
pub(super) async fn forward(
    mut exchange: Exchange,
    peer: &mut ExchangePeer,
    deadline: Instant,
    patience: Duration,
) -> Outcome {
    let ExchangePeer { sender, outgoing } = peer;
    let mut waiting: Option<Message> = None;
    loop {
        let full = waiting.is_some();
        tokio::select! {
            delivered = deliver(sender, &mut waiting), if full => {
                if delivered.is_err() {
                    return failed(Failure::Cancelled { handed_over: true });
                }
            }
            () = sleep_until(deadline), if full => {
                return failed(Failure::Timeout { handed_over: true, after: patience });
            }
            incoming = exchange.next(), if !full => match incoming {
                Incoming::Done(outcome) => return outcome,
                Incoming::Message(message) if sender.has_room(&message) => {
                    // A requester that has gone shows at the other half.
                    let _ = sender.try_send(message);
                }
                Incoming::Message(message) => waiting = Some(message),
            },
            said = outgoing.recv() => match said {
                None => return failed(Failure::Cancelled { handed_over: true }),
                // An upstream that has ended the call takes nothing more; its outcome is on its way.
                Some(said) => drop(exchange.outgoing.send(said).await),
            },
        }
    }
}

/// Gives the requester the message that waits for it, once there is room. Cancel-safe: it is given whole or still waits.
pub(super) async fn deliver(
    sender: &ExchangeSender,
    waiting: &mut Option<Message>,
) -> Result<(), crate::exchange::SendError> {
    let Some(message) = waiting.as_ref() else { return std::future::pending().await };
    sender.room_for(message).await?;
    waiting.take().map_or(Ok(()), |message| sender.try_send(message))
}

/// What the end of a call here tells about its server. What is the requester's own doing tells nothing: one client's
/// haste or size must not keep the tool from the others.
fn health(outcome: &Outcome, patience: Duration) -> Health {
    match outcome {
        Outcome::Result(_) | Outcome::Error(_) => Health::Answered,
        Outcome::Failed(failure) => match failure {
            Failure::Cancelled { .. } | Failure::Refused { .. } | Failure::TooLarge { .. } => Health::Neutral,
            Failure::Overloaded { handed_over: true, .. } => Health::Neutral,
            Failure::Timeout { .. } if patience < PATIENCE_FAIR => Health::Neutral,
            _ => Health::CapabilityFault,
        },
    }
}

/// Whether a failure of a server here leaves the call free to go to somebody else.
fn may_go_elsewhere(failure: &Failure) -> bool {
    !failure.handed_over()
        && !matches!(
            failure,
            Failure::Cancelled { .. }
                | Failure::Timeout { .. }
                | Failure::TooLarge { .. }
                | Failure::Refused { .. }
        )
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
    let params = &*with_abilities(params, call);
    if params.get().len() > PAYLOAD_BYTES_MAX {
        let detail = format!("{} bytes where {PAYLOAD_BYTES_MAX} may go to a peer", params.get().len());
        return Some(failed(Failure::TooLarge { handed_over: false, detail }));
    }
    let again = tried.here.is_some() || !tried.there.is_empty();
    let outcome = remote::run(calls, call, params, targets, again, peer).await;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(failure) => return Some(failed(failure)),
    };
    if let CallOutcome::Answered { executor, .. } = &outcome {
        tried.ran_at = Some(executor.node);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{INCOMING_MAX, exchange};

    const FOREVER: Duration = Duration::from_secs(3600);

    fn far() -> Instant {
        Instant::now() + FOREVER
    }

    fn note() -> Message {
        Message::notification("n", None)
    }

    /// A conversation whose requester has read nothing of more than it may leave unread.
    async fn stalled() -> (Exchange, ExchangePeer, Exchange, ExchangePeer) {
        let ((requester, peer), (upstream, server)) = (exchange(), exchange());
        for _ in 0..INCOMING_MAX {
            peer.sender.try_send(note()).unwrap();
        }
        server.sender.try_send(note()).unwrap();
        (requester, peer, upstream, server)
    }

    #[tokio::test]
    async fn a_requester_that_does_not_read_can_still_cancel() {
        let (requester, mut peer, upstream, mut server) = stalled().await;
        let forwarding = tokio::spawn(async move { forward(upstream, &mut peer, far(), FOREVER).await });
        requester.outgoing.send(Outgoing::Cancel { reason: None }).await.unwrap();
        assert!(matches!(server.outgoing.recv().await, Some(Outgoing::Cancel { .. })));
        drop(requester);
        let outcome = forwarding.await.unwrap();
        assert!(matches!(outcome, Outcome::Failed(Failure::Cancelled { handed_over: true })), "{outcome:?}");
        assert!(server.outgoing.recv().await.is_none(), "the server's end is let go");
    }

    #[tokio::test]
    async fn a_requester_that_does_not_read_waits_no_longer_than_its_deadline() {
        let (_requester, mut peer, upstream, _server) = stalled().await;
        let deadline = Instant::now() + Duration::from_millis(10);
        let outcome = forward(upstream, &mut peer, deadline, FOREVER).await;
        assert!(
            matches!(outcome, Outcome::Failed(Failure::Timeout { handed_over: true, .. })),
            "{outcome:?}"
        );
    }

    #[tokio::test]
    async fn what_waited_for_room_comes_in_order_and_once() {
        let (mut requester, mut peer, upstream, server) = stalled().await;
        let forwarding = tokio::spawn(async move { forward(upstream, &mut peer, far(), FOREVER).await });
        server.finish(Outcome::Failed(Failure::Cancelled { handed_over: true }));
        for _ in 0..=INCOMING_MAX {
            assert!(matches!(requester.next().await, Incoming::Message(_)));
        }
        assert!(matches!(forwarding.await.unwrap(), Outcome::Failed(Failure::Cancelled { .. })));
    }

    #[test]
    fn what_a_requester_brought_about_is_not_held_against_the_server() {
        let short = PATIENCE_FAIR / 2;
        let timeout = || Failure::Timeout { handed_over: true, after: short };
        for (failure, patience, expected) in [
            (timeout(), short, Health::Neutral),
            (timeout(), PATIENCE_FAIR, Health::CapabilityFault),
            (Failure::TooLarge { handed_over: false, detail: String::new() }, FOREVER, Health::Neutral),
            (Failure::Overloaded { handed_over: true, detail: String::new() }, FOREVER, Health::Neutral),
            (
                Failure::Overloaded { handed_over: false, detail: String::new() },
                FOREVER,
                Health::CapabilityFault,
            ),
            (
                Failure::UpstreamDied { handed_over: true, detail: String::new() },
                FOREVER,
                Health::CapabilityFault,
            ),
            (Failure::Refused { code: 0, detail: String::new() }, FOREVER, Health::Neutral),
        ] {
            assert_eq!(health(&failed(failure.clone()), patience), expected, "{failure:?}");
        }
    }
}
