//! Requests that follow an earlier one: they must reach the node that the earlier one reached.
//!
//! Two kinds there are: the retry that brings a 2026-07-28 server the input it asked for ([`super::pins`]), and what
//! follows up a task ([`super::tasks`]).

use std::sync::Arc;

use comity_protocol::ids::NodeId;
use comity_protocol::json;
use comity_protocol::jsonrpc::{RpcError, codes};
use serde_json::value::RawValue;

use super::Calls;
use super::outgoing::Call;
use super::pins::PinKey;
use super::tasks::{self, TaskRef};
use crate::exchange::{Failure, Outcome};
use crate::gateway::{Era, GatewayRequest, Target};
use crate::input::Ability;
use crate::world::ItemRoute;

/// What a request follows.
#[derive(Debug)]
pub(super) enum Follow {
    /// Nothing.
    Nothing,
    /// A question that this node asked.
    Question(NodeId),
    /// A task.
    Task(Box<TaskRef>),
}

impl Follow {
    /// What `request` follows.
    ///
    /// # Errors
    /// [`Failure::Refused`] for a task that is not known, or another principal's: the two look the same.
    pub(super) fn of(calls: &Calls, request: &GatewayRequest) -> Result<Self, Failure> {
        if let Target::Task(id) = &request.target {
            let task = calls.task_ids.open(id, &request.caller.principal).ok_or_else(unknown_task)?;
            return Ok(Self::Task(Box::new(task)));
        }
        if request.caller.client.era == Era::Legacy {
            return Ok(Self::Nothing);
        }
        let key = PinKey::of_retry(&request.caller.principal, &about(request), &request.params);
        let now = calls.parts.clock.mono();
        let node = key.and_then(|key| calls.pins().get(&key, now));
        Ok(node.map_or(Self::Nothing, Self::Question))
    }

    /// The route to the one node that is meant, under the contract that it has now.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] when it offers the tool no more.
    pub(super) fn narrow(&self, route: Arc<ItemRoute>) -> Result<Arc<ItemRoute>, Failure> {
        let node = match self {
            Self::Nothing => return Ok(route),
            Self::Question(node) => node,
            Self::Task(task) => &task.executor,
        };
        let Some(candidate) = route.candidate(node).cloned() else {
            let detail =
                format!("the node that has what this follows, {node}, offers {} no more", route.name);
            return Err(Failure::Unreachable { detail });
        };
        let mut narrow = ItemRoute::clone(&route);
        narrow.contract = candidate.contract;
        narrow.candidates = vec![candidate];
        Ok(Arc::new(narrow))
    }

    /// The params under the id by which the next one on the way knows the task; `None` when it is about none.
    pub(super) fn params(&self, params: &RawValue) -> Option<Box<RawValue>> {
        match self {
            Self::Task(task) => Some(tasks::with_id(params, &task.task)),
            Self::Nothing | Self::Question(_) => None,
        }
    }
}

/// What a question and its retry are about.
fn about(request: &GatewayRequest) -> String {
    format!("{} {:?} {:?}", request.method, request.endpoint, request.target)
}

/// A task that nobody may follow up: never given out, forged, or another's.
pub(super) fn unknown_task() -> Failure {
    Failure::Refused { code: codes::INVALID_PARAMS, detail: "unknown task".into() }
}

/// The outcome as the client is to have it, with whatever may follow it provided for. `node` ran the call.
pub(super) fn provide(calls: &Calls, call: &Call, outcome: Outcome, node: Option<NodeId>) -> Outcome {
    let client = &call.request.caller.client;
    let (Outcome::Result(result), Some(node), Era::Modern) = (&outcome, node, client.era) else {
        return outcome;
    };
    if let Target::Task(id) = &call.request.target {
        // The ids on the way are nobody's business but the nodes'.
        return Outcome::Result(match tasks::id_of(result) {
            Some(_) => tasks::with_id(result, id),
            None => result.clone(),
        });
    }
    match super::rounds::result_type(result).as_deref() {
        Some("input_required") => {
            let (principal, about) = (&call.request.caller.principal, about(&call.request));
            let state = json::path(result, &["requestState"]);
            let key = PinKey::of(principal, &about, state, &call.request.params);
            calls.pins().note(key, node, calls.parts.clock.mono());
            outcome
        }
        Some("task") if !Ability::Tasks.is_among(client.capabilities.as_deref()) => {
            let text =
                "the tool's server answered with a task, which the client has not said it can follow up";
            Outcome::Error(RpcError::new(codes::INTERNAL_ERROR, text).to_raw())
        }
        Some("task") => Outcome::Result(handed_out(calls, call, result, node)),
        _ => outcome,
    }
}

fn handed_out(calls: &Calls, call: &Call, result: &RawValue, node: NodeId) -> Box<RawValue> {
    let Some(task) = tasks::id_of(result) else { return result.to_owned() };
    // The executor's org, which need not be the one that stands for the tool in reports.
    let org = call.route.candidate(&node).map(|candidate| candidate.site.org.clone());
    let capability = org.map_or_else(|| call.route.capability.clone(), |org| call.route.capability_of(&org));
    let holder = call.request.caller.principal.to_string();
    tasks::with_id(result, &calls.task_ids.seal(&TaskRef { holder, executor: node, capability, task }))
}
