//! Requests of the legacy era over HTTP: sessions, and streams that a client can resume.
//!
//! A broken connection is not a cancellation in this era. A call then goes on for
//! [`resume_grace`](crate::face::FaceLimits::resume_grace); if its client has not come back for it by then, there is
//! nobody to tell the result to, and it is cancelled. The same holds for a call whose connection broke before its
//! first event, which cannot be resumed.

use std::{sync::Arc, time::Duration};

use comity_protocol::jsonrpc::{Message, RpcError, codes};
use hyper::{HeaderMap, Response, StatusCode, header::HeaderValue};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Who, post,
    reply::{self, Body, Refusal},
};
use crate::{
    face::{
        auth::Principal,
        call::{Call, Wire},
        core::{self, Answer, Caller, Core, Plan, Told},
        handshake,
        headers::{self, SESSION},
        params::{Head, Request},
        session::{OpenError, Opening, Session},
        sse,
        stream_log::StreamLog,
    },
    gateway::Era,
};

/// Opens a session.
pub(super) fn initialize(core: &Core, who: Who<'_>, request: &Request) -> Result<Response<Body>, Refusal> {
    let handshake = handshake::initialize(request).map_err(|error| post::bad(request, &error))?;
    let version = handshake.version;
    let (catalogue, about) = core.about(who.door).map_err(|error| post::bad(request, &error))?;
    let (door, told) = (Arc::clone(who.door), Told::all(who.door, &catalogue));
    let session = core
        .sessions
        .open(&who.principal.name, Opening { handshake, door, told })
        .map_err(|error| full(request, &error))?;
    let result = handshake::initialize_result(version, &about);
    let mut response = reply::message(StatusCode::OK, &Message::Response { id: request.id.clone(), result });
    let id = HeaderValue::from_str(&session.id).expect("a session id is hexadecimal");
    response.headers_mut().insert(SESSION, id);
    tracing::debug!(principal = %who.principal.name, version, "session opened");
    Ok(response)
}

/// The session that a request belongs to.
///
/// # Errors
/// 400 without the header, 404 for a session that has ended or is another client's: the client then opens a new one.
pub(super) fn session(core: &Core, who: Who<'_>, headers: &HeaderMap) -> Result<Arc<Session>, Refusal> {
    let id = headers::sole(headers, &SESSION)
        .map_err(|error| reply::error(StatusCode::BAD_REQUEST, None, &error))?;
    let id =
        id.ok_or_else(|| reply::text(StatusCode::BAD_REQUEST, "Bad Request: Mcp-Session-Id is required"))?;
    let session = core.sessions.find(id, &who.principal.name, who.door);
    session.ok_or_else(|| reply::text(StatusCode::NOT_FOUND, "Not Found: no such session").into())
}

/// Understands a request. In this era JSON-RPC errors are ordinary answers with status 200.
pub(super) fn plan(
    who: Who<'_>,
    headers: &HeaderMap,
    request: &Request,
    head: &Head<'_>,
) -> Result<Plan, Refusal> {
    let plan = Plan::of(&request.method, Era::Legacy, head, who.door);
    let plan = plan.map_err(|error| reply::error(StatusCode::OK, Some(request.id.clone()), &error))?;
    Ok(plan.with_trace(|| post::trace(headers)))
}

/// Answers a request of a session.
pub(super) async fn request(
    core: &Arc<Core>,
    principal: &Principal,
    session: Arc<Session>,
    plan: Plan,
    request: Request,
) -> Response<Body> {
    let id = request.id.clone();
    let client = &session.handshake.client;
    let door = &session.door;
    let caller = Caller { principal, client, door, conversation: Some(&session.conversation) };
    match core.answer(plan, request, caller) {
        Err(error) => reply::error(StatusCode::OK, Some(id), &error),
        Ok(Answer::Ready(result)) => reply::message(StatusCode::OK, &Message::Response { id, result }),
        Ok(Answer::Call(call)) => answer_call(core, session, call).await,
        // The table of methods keeps subscriptions out of this era.
        Ok(Answer::Subscription(_)) => {
            let error = RpcError::new(codes::METHOD_NOT_FOUND, "no subscriptions in this era");
            reply::error(StatusCode::OK, Some(id), &error)
        }
    }
}

/// Takes a notification or an answer.
pub(super) async fn message(
    core: &Core,
    who: Who<'_>,
    headers: &HeaderMap,
    message: Message,
) -> Result<Response<Body>, Refusal> {
    let session = session(core, who, headers)?;
    let taken = core::take(&session.conversation, message);
    if tokio::time::timeout(core.config.limits.body_timeout, taken).await.is_err() {
        let why = "Service Unavailable: the server that asked does not read";
        return Err(reply::text(StatusCode::SERVICE_UNAVAILABLE, why).into());
    }
    Ok(reply::accepted())
}

/// A quick answer goes out as plain JSON. Whatever comes first otherwise, a message or a long silence, makes a stream.
async fn answer_call(core: &Arc<Core>, session: Arc<Session>, call: Call) -> Response<Body> {
    let mut held = Held { core: Arc::clone(core), session, call: Some(call) };
    let first = match tokio::time::timeout(core.config.limits.json_hold, held.next()).await {
        Ok(Wire::Last(last)) => {
            held.call = None;
            return reply::message(StatusCode::OK, &last.message);
        }
        Ok(Wire::Message(message)) => Some(message),
        Err(_silence) => None,
    };
    held.into_stream(first)
}

/// A call whose client waits for its first sign of life. If the client goes, the call does not go with it.
struct Held {
    core: Arc<Core>,
    session: Arc<Session>,
    /// Taken when something else answers for it.
    call: Option<Call>,
}

impl Held {
    async fn next(&mut self) -> Wire {
        match &mut self.call {
            Some(call) => call.next().await,
            None => std::future::pending().await,
        }
    }

    fn into_stream(mut self, first: Option<Message>) -> Response<Body> {
        let (number, log) = self.session.open_stream();
        let frames = sse::frames(log.attach(None), self.core.config.limits.keep_alive);
        if let Some(call) = self.call.take() {
            let task = pump(Arc::clone(&self.core), Arc::clone(&self.session), number, log, call, first);
            self.core.tasks.spawn(task);
        }
        reply::stream(frames)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let (Some(call), Ok(runtime)) = (self.call.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let task = see_out(Arc::clone(&self.core), Arc::clone(&self.session), call);
        self.core.tasks.spawn_on(task, &runtime);
    }
}

/// Moves a call's messages to its stream until it ends, its session ends, or its client has been away for too long;
/// then keeps the stream until it is read.
async fn pump(
    core: Arc<Core>,
    session: Arc<Session>,
    number: u64,
    log: Arc<StreamLog>,
    call: Call,
    first: Option<Message>,
) {
    let moved = async {
        // Unread streams count as calls in flight, so that there are never more of them than of those.
        let _place = copy(call, &log, first).await;
        linger(&core, &log).await;
    };
    tokio::select! {
        () = moved => {}
        () = log.abandoned(core.config.limits.resume_grace) => tracing::debug!("a client did not resume its call"),
        () = session.closed.cancelled() => {}
        () = core.stopped.cancelled() => {}
    }
    log.finish();
    session.close_stream(number);
}

/// Waits until a finished stream has been read, or nobody will come to read it. A large one is not kept for a client
/// that is away.
async fn linger(core: &Core, log: &StreamLog) {
    let grace = if log.is_oversized() { Duration::ZERO } else { core.config.limits.resume_grace };
    let nobody_can_come = async {
        core.draining.cancelled().await;
        log.abandoned(Duration::ZERO).await;
    };
    tokio::select! {
        () = log.read_out() => {}
        () = log.abandoned(grace) => {}
        () = nobody_can_come => {}
    }
}

async fn copy(mut call: Call, log: &StreamLog, first: Option<Message>) -> OwnedSemaphorePermit {
    if let Some(first) = first {
        log.append(&first).await;
    }
    loop {
        match call.next().await {
            Wire::Message(message) => log.append(&message).await,
            Wire::Last(last) => {
                log.append(&last.message).await;
                log.finish();
                return call.into_permit();
            }
        }
    }
}

/// Lets a call end whose answer nobody can receive any more.
async fn see_out(core: Arc<Core>, session: Arc<Session>, mut call: Call) {
    let ended = async { while !matches!(call.next().await, Wire::Last(_)) {} };
    tokio::select! {
        () = ended => {}
        () = tokio::time::sleep(core.config.limits.resume_grace) => {}
        () = session.closed.cancelled() => {}
        () = core.stopped.cancelled() => {}
    }
}

fn full(request: &Request, error: &OpenError) -> Refusal {
    let error = RpcError::new(codes::OVERLOADED, error.to_string());
    reply::error(StatusCode::SERVICE_UNAVAILABLE, Some(request.id.clone()), &error).into()
}
