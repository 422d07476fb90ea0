//! What both transports share: from a request and its caller to an answer.

use std::sync::Arc;

use comity_protocol::{
    constraints::Constraints,
    json,
    jsonrpc::{Id, Message, RpcError, codes},
    trace::TraceContext,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    auth::{Principal, Tokens},
    call::{Call, CallParts, Link, Logs, Waiting},
    config::FaceConfig,
    conversation::Conversation,
    guard::Guard,
    handshake, listing,
    logging::Threshold,
    methods::{self, Method},
    params::{self, Head, Request},
    session::Sessions,
    suspended::{self, Suspended},
};
use crate::{
    exchange::Outgoing,
    gateway::{CallerContext, ClientProfile, Era, Gateway, GatewayRequest, new_call_id},
};

mod feed;

pub(super) use feed::{ChangeFeed, Subscription};

/// The state of one MCP endpoint.
pub(super) struct Core {
    pub(super) gateway: Arc<dyn Gateway>,
    pub(super) config: FaceConfig,
    pub(super) tokens: Tokens,
    pub(super) guard: Guard,
    pub(super) sessions: Sessions,
    /// Calls that wait for a 2026-07-28 client's input.
    pub(super) suspended: Arc<Suspended>,
    /// Calls that outlive the connection that brought them.
    pub(super) tasks: TaskTracker,
    /// The node is going down: open streams of notifications end, calls in flight go on.
    pub(super) draining: CancellationToken,
    /// The grace is over: everything ends.
    pub(super) stopped: CancellationToken,
    /// Room for connections over TCP.
    pub(super) http_room: Arc<Semaphore>,
    /// Room for connections over the Unix socket.
    pub(super) line_room: Arc<Semaphore>,
    constraints: Arc<Constraints>,
    calls: Arc<Semaphore>,
}

/// Who sent a request.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) principal: &'a Principal,
    pub(super) client: &'a ClientProfile,
    /// Absent for 2026-07-28 over HTTP, where closing the stream is all that a client can say.
    pub(super) conversation: Option<&'a Arc<Conversation>>,
}

/// What a request is answered with.
pub(super) enum Answer {
    /// A result, here and now.
    Ready(Box<RawValue>),
    /// A call in flight.
    Call(Call),
    /// A stream of notifications that lasts until somebody ends it.
    Subscription(Subscription),
}

/// A request whose parameters have been understood.
pub(super) enum Plan {
    Ping,
    SetLevel(Threshold),
    Discover,
    Listen { tools: bool },
    ListTools { cursor: Option<Box<RawValue>> },
    CallTool(CallPlan),
}

/// What `tools/call` asks for, besides what is passed on unread.
pub(super) struct CallPlan {
    tool: String,
    progress_token: Option<Box<RawValue>>,
    logs: Logs,
    trace: Option<TraceContext>,
    retry: Option<Retry>,
}

/// A 2026-07-28 request that brings input which a call before it was answered to ask for.
struct Retry {
    state: String,
    responses: Option<Box<RawValue>>,
}

impl Plan {
    /// Understands a request.
    ///
    /// # Errors
    /// `-32601` for a method that does not exist in this era, `-32602` for parameters that make no sense.
    pub(super) fn of(method: &str, era: Era, head: &Head<'_>) -> Result<Self, RpcError> {
        Ok(match methods::find(method, era)? {
            Method::CallTool => Self::CallTool(CallPlan::of(era, head)?),
            Method::ListTools => Self::ListTools { cursor: head.params.cursor.map(RawValue::to_owned) },
            Method::Ping => Self::Ping,
            Method::SetLevel => {
                let level = head.params.level.and_then(Threshold::from_raw);
                Self::SetLevel(
                    level.ok_or_else(|| params::invalid("`level` must be one of the eight of RFC 5424"))?,
                )
            }
            Method::Discover => Self::Discover,
            Method::Listen => Self::Listen { tools: wants_tools(head)? },
            Method::Initialize => {
                return Err(RpcError::new(codes::INVALID_REQUEST, "this session is initialized already"));
            }
        })
    }

    /// Adds the trace that came outside the message; one inside it is closer to the caller and wins.
    pub(super) fn with_trace(mut self, outer: impl FnOnce() -> Option<TraceContext>) -> Self {
        if let Self::CallTool(plan) = &mut self
            && plan.trace.is_none()
        {
            plan.trace = outer();
        }
        self
    }
}

impl CallPlan {
    fn of(era: Era, head: &Head<'_>) -> Result<Self, RpcError> {
        let tool = params::text(head.params.name, "name")?.into_owned();
        let progress_token = head.meta.progress_token.map(progress_token).transpose()?;
        let logs = match era {
            Era::Legacy => Logs::AsConversation,
            Era::Modern => {
                let level = head.meta.log_level.and_then(Threshold::from_raw);
                Logs::Fixed(level.unwrap_or(Threshold::NOTHING))
            }
        };
        let state = suspended::state_of(head.params.request_state).filter(|_| era == Era::Modern);
        let retry = state.map(|state| Retry {
            state: state.into_owned(),
            responses: head.params.input_responses.map(RawValue::to_owned),
        });
        Ok(Self { tool, progress_token, logs, trace: head.meta.trace(), retry })
    }
}

impl Core {
    pub(super) fn new(config: FaceConfig, gateway: Arc<dyn Gateway>) -> Self {
        Self {
            tokens: Tokens::new(&config.tokens),
            guard: Guard::new(config.listen, &config.allowed_hosts, &config.allowed_origins),
            sessions: Sessions::new(config.limits.sessions_max),
            suspended: Arc::new(Suspended::new(&config.state_tag, config.limits.input_wait)),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            stopped: CancellationToken::new(),
            constraints: Arc::new(config.constraints.clone()),
            http_room: Arc::new(Semaphore::new(config.limits.connections_max)),
            line_room: Arc::new(Semaphore::new(config.limits.connections_max)),
            calls: Arc::new(Semaphore::new(config.limits.calls_max)),
            gateway,
            config,
        }
    }

    /// Answers a request. Never waits.
    ///
    /// # Errors
    /// The JSON-RPC error to answer with instead.
    pub(super) fn answer(
        &self,
        plan: Plan,
        request: Request,
        caller: Caller<'_>,
    ) -> Result<Answer, RpcError> {
        let era = caller.client.era;
        match plan {
            Plan::CallTool(plan) => self.call(plan, request, caller).map(Answer::Call),
            Plan::ListTools { cursor } => {
                let tools_max = self.config.limits.page_tools_max;
                listing::page(&self.gateway.catalogue(), cursor.as_deref(), tools_max, era).map(Answer::Ready)
            }
            Plan::Ping => Ok(Answer::Ready(empty())),
            Plan::SetLevel(threshold) => {
                caller.conversation.inspect(|conversation| conversation.threshold.set(threshold));
                Ok(Answer::Ready(empty()))
            }
            Plan::Discover => {
                Ok(Answer::Ready(handshake::discover_result(self.config.instructions.as_deref())))
            }
            Plan::Listen { tools } => {
                let link = caller
                    .conversation
                    .map(|conversation| Link::begin(conversation, &request.id))
                    .transpose()?;
                Ok(Answer::Subscription(Subscription::new(request.id, tools, link, self)))
            }
        }
    }

    /// How many calls hold a place.
    pub(super) fn calls_in_flight(&self) -> usize {
        self.config.limits.calls_max.saturating_sub(self.calls.available_permits())
    }

    /// The number that grows with each change of the catalogue.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.gateway.changes()
    }

    fn call(&self, plan: CallPlan, request: Request, caller: Caller<'_>) -> Result<Call, RpcError> {
        let overloaded = |_| RpcError::new(codes::OVERLOADED, "this node has too many calls in flight");
        let permit = Arc::clone(&self.calls).try_acquire_owned().map_err(overloaded)?;
        let link =
            caller.conversation.map(|conversation| Link::begin(conversation, &request.id)).transpose()?;
        let CallPlan { tool, progress_token, logs, trace, retry } = plan;
        let principal = Arc::clone(&caller.principal.name);
        let waiting = (caller.client.era == Era::Modern).then(|| Waiting {
            suspended: Arc::clone(&self.suspended),
            principal,
            tool: tool.clone(),
        });
        let parts = CallParts {
            id: request.id,
            client: caller.client.clone(),
            progress_token,
            logs,
            waiting,
            permit,
        };
        if let Some(retry) = retry.filter(|retry| self.suspended.is_ours(&retry.state)) {
            let responses = suspended::responses(retry.responses.as_deref())?;
            let mut parked = self.suspended.take(&retry.state, &caller.principal.name, &tool)?;
            parked.answer(responses);
            return Ok(Call::resume(parts, parked, link));
        }
        let context = self.context(caller, trace)?;
        tracing::debug!(call_id = %context.call_id, principal = %context.principal, tool, "call");
        let params = request.params.unwrap_or_else(empty);
        let exchange =
            self.gateway.request(GatewayRequest { method: request.method, tool, params, caller: context });
        Ok(Call::new(parts, exchange, link))
    }

    fn context(&self, caller: Caller<'_>, trace: Option<TraceContext>) -> Result<CallerContext, RpcError> {
        let no_randomness =
            |_| RpcError::new(codes::INTERNAL_ERROR, "the operating system has no randomness");
        Ok(CallerContext {
            call_id: new_call_id().map_err(no_randomness)?,
            principal: Arc::clone(&caller.principal.name),
            endpoint_constraints: Arc::clone(&self.constraints),
            token_constraints: caller.principal.constraints.clone(),
            trace,
            deadline: None,
            client: caller.client.clone(),
        })
    }
}

/// Takes a client's notification or answer. Cancellation is the only notification that concerns anybody yet; an
/// answer goes to the server that asked, and is ignored when it answers nothing or comes after its call ended.
///
/// Waits while that server does not read. Dropping the future then loses the answer.
pub(super) async fn take(conversation: &Conversation, message: Message) {
    let answer = match message {
        Message::Notification { method, params } => {
            if method == "notifications/cancelled"
                && let Some((id, reason)) = params.as_deref().and_then(cancelled_request)
            {
                conversation.cancel(&id, reason);
            }
            return;
        }
        Message::Request { .. } => return,
        answer => answer,
    };
    let Some(asked) = answer.id().and_then(|id| conversation.answered(id)) else { return };
    let Some(outgoing) = asked.outgoing.upgrade() else { return };
    let answer = match answer {
        Message::Error { error, .. } => Message::Error { id: Some(asked.id), error },
        Message::Response { result, .. } => Message::Response { id: asked.id, result },
        other => other,
    };
    // Fails only if the call ended meanwhile.
    let _ = outgoing.send(Outgoing::Message(answer)).await;
}

/// The id that a client's `notifications/cancelled` names, and its reason.
fn cancelled_request(params: &RawValue) -> Option<(Id, Option<String>)> {
    let id = json::path(params, &["requestId"]).and_then(Id::from_raw)?;
    let reason = json::path(params, &["reason"]).and_then(json::as_str);
    Some((id, reason.map(|reason| reason.chars().take(REASON_CHARS_MAX).collect())))
}

/// How much of a client's reason for cancelling is passed on.
const REASON_CHARS_MAX: usize = 1000;

/// Raw `{}`.
pub(super) fn empty() -> Box<RawValue> {
    json::to_raw(&serde_json::Map::new())
}

/// A progress token is a string or a number.
fn progress_token(raw: &RawValue) -> Result<Box<RawValue>, RpcError> {
    let first = raw.get().as_bytes().first();
    match first {
        Some(b'"' | b'-' | b'0'..=b'9') => Ok(raw.to_owned()),
        _ => Err(params::invalid("`progressToken` must be a string or a number")),
    }
}

fn wants_tools(head: &Head<'_>) -> Result<bool, RpcError> {
    #[derive(Deserialize)]
    struct Filter {
        #[serde(rename = "toolsListChanged", default)]
        tools: Option<bool>,
    }
    let filter =
        head.params.notifications.ok_or_else(|| params::invalid("`notifications` must be an object"))?;
    Ok(params::object::<Filter>(filter)?.tools == Some(true))
}
