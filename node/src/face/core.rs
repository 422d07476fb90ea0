//! What both transports share: from a request and its caller to an answer.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use comity_protocol::{
    call::methods::{SUBSCRIBE, is_vendors},
    catalogue::Catalogue,
    ids::Kind,
    json::{self, RawObject},
    jsonrpc::{Id, Message, RpcError, codes},
    trace::TraceContext,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    about::About,
    auth::{Principal, Tokens},
    call::{Call, CallParts, Link, Logs, Waiting},
    config::FaceConfig,
    conversation::Conversation,
    door::{Door, Doors},
    find,
    guard::Guard,
    handshake,
    listing::{self, Page},
    logging::Threshold,
    methods::{self, List, Method},
    params::{self, Head, Request},
    session::Sessions,
    suspended::{self, Suspended},
    watches::{Holds, WATCHES_MAX, Watches},
};
use crate::{
    exchange::{Outcome, Outgoing, exchange},
    gateway::{CallerContext, ClientProfile, Era, Gateway, GatewayRequest, Target, new_call_id},
    input::Ability,
};

mod feed;

pub(super) use feed::{ChangeFeed, Filter, Subscription, Told};

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
    doors: Doors,
    calls: Arc<Semaphore>,
}

/// Who sent a request.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) principal: &'a Principal,
    pub(super) client: &'a ClientProfile,
    /// By which endpoint.
    pub(super) door: &'a Arc<Door>,
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
    Listen(Filter),
    List { list: List, cursor: Option<Box<RawValue>> },
    Subscribe { uri: String },
    Unsubscribe { uri: String },
    Request(CallPlan),
}

/// What a request that is routed asks for, besides what is passed on unread.
pub(super) struct CallPlan {
    target: Target,
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
    pub(super) fn of(method: &str, era: Era, head: &Head<'_>, door: &Door) -> Result<Self, RpcError> {
        let known = match methods::find(method, era) {
            Ok(known) => known,
            // What the node does not know, the server may.
            Err(_) if door.is_raw() && !methods::is_known(method) && is_vendors(method) => {
                return CallPlan::of(era, head, Target::Server).map(Self::Request);
            }
            Err(error) => return Err(error),
        };
        let item = |kind, name, member| {
            let target = Target::Item(kind, params::text(name, member)?.into_owned());
            CallPlan::of(era, head, target).map(Self::Request)
        };
        let uri = || params::text(head.params.uri, "uri").map(Cow::into_owned);
        Ok(match known {
            Method::FollowTask => return CallPlan::of_task(head).map(Self::Request),
            Method::CallTool => return item(Kind::Tool, head.params.name, "name"),
            Method::GetPrompt => return item(Kind::Prompt, head.params.name, "name"),
            Method::ReadResource => return item(Kind::Resource, head.params.uri, "uri"),
            Method::Complete => return CallPlan::of(era, head, completed(head)?).map(Self::Request),
            Method::List(list) => Self::List { list, cursor: head.params.cursor.map(RawValue::to_owned) },
            Method::Subscribe => Self::Subscribe { uri: uri()? },
            Method::Unsubscribe => Self::Unsubscribe { uri: uri()? },
            Method::Ping => Self::Ping,
            Method::SetLevel => {
                let level = head.params.level.and_then(Threshold::from_raw);
                Self::SetLevel(
                    level.ok_or_else(|| params::invalid("`level` must be one of the eight of RFC 5424"))?,
                )
            }
            Method::Discover => Self::Discover,
            Method::Listen => Self::Listen(filter(head)?),
            Method::Initialize => {
                return Err(RpcError::new(codes::INVALID_REQUEST, "this session is initialized already"));
            }
        })
    }

    /// The tool that is to be called, if the request calls one.
    pub(super) fn tool(&self) -> Option<&str> {
        match self {
            Self::Request(CallPlan { target: Target::Item(Kind::Tool, name), .. }) => Some(name),
            _ => None,
        }
    }

    /// Adds the trace that came outside the message; one inside it is closer to the caller and wins.
    pub(super) fn with_trace(mut self, outer: impl FnOnce() -> Option<TraceContext>) -> Self {
        if let Self::Request(plan) = &mut self
            && plan.trace.is_none()
        {
            plan.trace = outer();
        }
        self
    }
}

impl CallPlan {
    /// What follows up a task names it and nothing else.
    fn of_task(head: &Head<'_>) -> Result<Self, RpcError> {
        if !Ability::Tasks.is_among(head.meta.capabilities) {
            return Err(Ability::Tasks.missing());
        }
        let target = Target::Task(params::text(head.params.task_id, "taskId")?.into_owned());
        let logs = Logs::Fixed(Threshold::NOTHING);
        Ok(Self { target, progress_token: None, logs, trace: head.meta.trace(), retry: None })
    }

    fn of(era: Era, head: &Head<'_>, target: Target) -> Result<Self, RpcError> {
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
        Ok(Self { target, progress_token, logs, trace: head.meta.trace(), retry })
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
            doors: Doors::new(&config),
            http_room: Arc::new(Semaphore::new(config.limits.connections_max)),
            line_room: Arc::new(Semaphore::new(config.limits.connections_max)),
            calls: Arc::new(Semaphore::new(config.limits.calls_max)),
            gateway,
            config,
        }
    }

    /// The endpoint at `path`, if there is one and something behind it.
    pub(super) fn door(&self, path: &str) -> Option<Arc<Door>> {
        self.doors.at(path).filter(|door| !door.is_raw() || door.catalogue(&*self.gateway).is_some())
    }

    /// What the endpoint shows and says of itself now.
    ///
    /// # Errors
    /// `-32002` when its server has gone away.
    pub(super) fn about(&self, door: &Door) -> Result<(Arc<Catalogue>, About), RpcError> {
        let gone = || RpcError::new(codes::UNREACHABLE, "nobody here or known offers this server any more");
        let catalogue = door.catalogue(&*self.gateway).ok_or_else(gone)?;
        let about = door.about(&catalogue);
        Ok((catalogue, about))
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
            Plan::Request(plan) => self.routed(plan, request, caller),
            Plan::List { list, cursor } => {
                let (catalogue, about) = self.about(caller.door)?;
                let listed = caller.door.listed(&catalogue, list.kind());
                let items_max = self.config.limits.page_items_max;
                let page = Page { list, cursor: cursor.as_deref(), items_max, era };
                listing::page(&listed, &about, page).map(Answer::Ready)
            }
            Plan::Ping => Ok(Answer::Ready(empty())),
            Plan::SetLevel(threshold) => {
                caller.conversation.inspect(|conversation| conversation.threshold.set(threshold));
                Ok(Answer::Ready(empty()))
            }
            Plan::Discover => {
                let (_, about) = self.about(caller.door)?;
                Ok(Answer::Ready(handshake::discover_result(&about)))
            }
            Plan::Subscribe { uri } => self.subscribe(uri, request, caller).map(Answer::Call),
            Plan::Unsubscribe { uri } => {
                caller.conversation.inspect(|conversation| conversation.watches.unwatch(&uri));
                Ok(Answer::Ready(empty()))
            }
            Plan::Listen(filter) => self.listen(filter, request, caller).map(Answer::Subscription),
        }
    }

    /// The endpoint that needs no path.
    pub(super) fn main_door(&self) -> &Arc<Door> {
        self.doors.main()
    }

    /// How many calls hold a place.
    pub(super) fn calls_in_flight(&self) -> usize {
        self.config.limits.calls_max.saturating_sub(self.calls.available_permits())
    }

    /// The number that grows with each change of the catalogue.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.gateway.changes()
    }

    /// A request for the gateway, unless it is for one of the node's own tools.
    fn routed(
        &self,
        mut plan: CallPlan,
        mut request: Request,
        caller: Caller<'_>,
    ) -> Result<Answer, RpcError> {
        let own = match &plan.target {
            Target::Item(Kind::Tool, name) if !caller.door.is_raw() => name.as_str(),
            _ => "",
        };
        match own {
            find::FIND => {
                let (catalogue, _) = self.about(caller.door)?;
                let head = request.head()?;
                return find::find(&catalogue, head.params.arguments, caller.client.era).map(Answer::Ready);
            }
            find::CALL => {
                let (name, params) = find::unwrapped(&request.params.unwrap_or_else(empty))?;
                plan.target = Target::tool(name);
                request.params = Some(params);
            }
            _ => {}
        }
        if !caller.door.admits(&plan.target, &*self.gateway) {
            return Err(params::invalid(format!("unknown {}", plan.target)));
        }
        self.call(plan, request, caller).map(Answer::Call)
    }

    fn call(&self, plan: CallPlan, request: Request, caller: Caller<'_>) -> Result<Call, RpcError> {
        let permit = self.place()?;
        let link =
            caller.conversation.map(|conversation| Link::begin(conversation, &request.id)).transpose()?;
        let CallPlan { target, progress_token, logs, trace, retry } = plan;
        let what = format!("{} {target:?} at {:?}", request.method, caller.door.key);
        let waiting = (caller.client.era == Era::Modern).then(|| Waiting {
            suspended: Arc::clone(&self.suspended),
            principal: Arc::clone(&caller.principal.name),
            what: what.clone(),
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
            let mut parked = self.suspended.take(&retry.state, &caller.principal.name, &what)?;
            parked.answer(responses);
            return Ok(Call::resume(parts, parked, link));
        }
        let context = self.context(caller, trace)?;
        tracing::debug!(call_id = %context.call_id, principal = %context.principal, method = %request.method, %target, "call");
        let exchange = self.gateway.request(GatewayRequest {
            method: request.method,
            endpoint: caller.door.endpoint.clone(),
            target,
            params: request.params.unwrap_or_else(empty),
            caller: context,
        });
        Ok(Call::new(parts, exchange, link))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, RpcError> {
        let overloaded = |_| RpcError::new(codes::OVERLOADED, "this node has too many calls in flight");
        Arc::clone(&self.calls).try_acquire_owned().map_err(overloaded)
    }

    /// A legacy client's subscription: answered once it holds, or with why it does not.
    fn subscribe(&self, uri: String, request: Request, caller: Caller<'_>) -> Result<Call, RpcError> {
        let none = || RpcError::new(codes::METHOD_NOT_FOUND, "no subscriptions without a session");
        let conversation = Arc::clone(caller.conversation.ok_or_else(none)?);
        let permit = self.place()?;
        let link = Some(Link::begin(&conversation, &request.id)?);
        let params = request.params.unwrap_or_else(empty);
        let holds = self.watch(&conversation.watches, uri.clone(), params, caller)?;
        let (exchange, peer) = exchange();
        self.tasks.spawn(async move {
            match holds.await {
                Ok(Ok(())) => peer.finish(Outcome::Result(empty())),
                Ok(Err(outcome)) => {
                    conversation.watches.unwatch(&uri);
                    peer.finish(outcome);
                }
                // Replaced by a later one before it was known: its answer stands for both.
                Err(_) => peer.finish(Outcome::Result(empty())),
            }
        });
        let parts = CallParts {
            id: request.id,
            client: caller.client.clone(),
            progress_token: None,
            logs: Logs::AsConversation,
            waiting: None,
            permit,
        };
        Ok(Call::new(parts, exchange, link))
    }

    /// Begins to watch a resource on behalf of a client.
    fn watch(
        &self,
        watches: &Watches,
        uri: String,
        params: Box<RawValue>,
        caller: Caller<'_>,
    ) -> Result<Holds, RpcError> {
        if !watches.has_room() {
            let text = format!("{WATCHES_MAX} resources are watched already");
            return Err(RpcError::new(codes::OVERLOADED, text));
        }
        let target = Target::Item(Kind::Resource, uri.clone());
        if !caller.door.admits(&target, &*self.gateway) {
            return Err(params::invalid(format!("unknown {target}")));
        }
        let exchange = self.gateway.request(GatewayRequest {
            method: SUBSCRIBE.to_owned(),
            endpoint: caller.door.endpoint.clone(),
            target,
            params,
            caller: self.context(caller, None)?,
        });
        Ok(watches.watch(uri, exchange))
    }

    /// A modern client's stream of notifications. A resource that cannot be watched is left out of what it is told of.
    fn listen(&self, filter: Filter, request: Request, caller: Caller<'_>) -> Result<Subscription, RpcError> {
        let meta = request.head()?.params.meta.map(RawValue::to_owned);
        let link =
            caller.conversation.map(|conversation| Link::begin(conversation, &request.id)).transpose()?;
        let (watches, mut asked) = (Watches::default(), VecDeque::new());
        for uri in filter.uris {
            let mut params = RawObject::new();
            params.set_str("uri", &uri);
            if let Some(meta) = &meta {
                params.set("_meta", meta.clone());
            }
            if let Ok(holds) = self.watch(&watches, uri.clone(), params.to_raw(), caller) {
                asked.push_back((uri, holds));
            }
        }
        let door = Arc::clone(caller.door);
        Ok(Subscription::new(request.id, filter.lists, (watches, asked), link, self, door))
    }

    fn context(&self, caller: Caller<'_>, trace: Option<TraceContext>) -> Result<CallerContext, RpcError> {
        let no_randomness =
            |_| RpcError::new(codes::INTERNAL_ERROR, "the operating system has no randomness");
        Ok(CallerContext {
            call_id: new_call_id().map_err(no_randomness)?,
            principal: Arc::clone(&caller.principal.name),
            endpoint_constraints: Arc::clone(&caller.door.constraints),
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

/// What a completion is for: a prompt, or a template of resources.
fn completed(head: &Head<'_>) -> Result<Target, RpcError> {
    #[derive(Deserialize)]
    struct Reference<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<&'a RawValue>,
        #[serde(borrow, default)]
        name: Option<&'a RawValue>,
        #[serde(borrow, default)]
        uri: Option<&'a RawValue>,
    }
    let reference = head.params.reference.ok_or_else(|| params::invalid("`ref` must be an object"))?;
    let reference: Reference<'_> = params::object(reference)?;
    match params::text(reference.kind, "ref.type")?.as_ref() {
        "ref/prompt" => {
            Ok(Target::Item(Kind::Prompt, params::text(reference.name, "ref.name")?.into_owned()))
        }
        "ref/resource" => {
            Ok(Target::Item(Kind::Template, params::text(reference.uri, "ref.uri")?.into_owned()))
        }
        _ => Err(params::invalid("`ref.type` must be ref/prompt or ref/resource")),
    }
}

fn filter(head: &Head<'_>) -> Result<Filter, RpcError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wanted {
        #[serde(default)]
        tools_list_changed: Option<bool>,
        #[serde(default)]
        prompts_list_changed: Option<bool>,
        #[serde(default)]
        resources_list_changed: Option<bool>,
        #[serde(default)]
        resource_subscriptions: Option<Vec<String>>,
    }
    let wanted =
        head.params.notifications.ok_or_else(|| params::invalid("`notifications` must be an object"))?;
    let wanted = params::object::<Wanted>(wanted)?;
    let uris = wanted.resource_subscriptions.unwrap_or_default();
    if uris.len() > WATCHES_MAX {
        return Err(params::invalid(format!("at most {WATCHES_MAX} resources can be watched")));
    }
    let lists = [wanted.tools_list_changed, wanted.prompts_list_changed, wanted.resources_list_changed];
    Ok(Filter { lists: lists.map(|list| list == Some(true)), uris })
}
