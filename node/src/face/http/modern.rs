//! Requests of 2026-07-28 over HTTP: each stands for itself, and its stream is its life. When the client closes it,
//! the request is cancelled.

use bytes::Bytes;
use comity_protocol::jsonrpc::{Message, RpcError, codes};
use hyper::{HeaderMap, Response, StatusCode};

use super::{
    Who, post,
    reply::{self, Body, Refusal},
};
use crate::{
    face::{
        call::{Call, Wire},
        core::{Answer, Caller, Core, Plan, Subscription},
        door::Door,
        handshake, headers,
        params::{Head, Request},
        sse::{self, Source},
    },
    gateway::{ClientProfile, Era},
};

/// Checks all that 2026-07-28 demands of a request, in the order that gives the most useful error first.
pub(super) fn plan(
    core: &Core,
    who: Who<'_>,
    headers: &HeaderMap,
    request: &Request,
    head: &Head<'_>,
) -> Result<(Plan, ClientProfile), Refusal> {
    let client = client(headers, request, head).map_err(|error| post::bad(request, &error))?;
    let plan = Plan::of(&request.method, Era::Modern, head, who.door);
    let plan =
        plan.map_err(|error| reply::error(status(Some(error.code)), Some(request.id.clone()), &error))?;
    if let Some(tool) = plan.tool() {
        check_params(core, who.door, tool, headers, head).map_err(|error| post::bad(request, &error))?;
    }
    Ok((plan.with_trace(|| post::trace(headers)), client))
}

fn client(headers: &HeaderMap, request: &Request, head: &Head<'_>) -> Result<ClientProfile, RpcError> {
    if let Some(version) = head.meta.version {
        headers::check_version(headers, version)?;
    }
    let client = handshake::modern_client(&head.meta)?;
    headers::check_standard(headers, request, head)?;
    Ok(client)
}

fn check_params(
    core: &Core,
    door: &Door,
    tool: &str,
    headers: &HeaderMap,
    head: &Head<'_>,
) -> Result<(), RpcError> {
    let Some(catalogue) = door.catalogue(&*core.gateway) else { return Ok(()) };
    // An unknown tool is the gateway's to refuse.
    catalogue.by_name(tool).map_or(Ok(()), |tool| headers::check_params(headers, &tool.object, head))
}

/// Answers a request whose headers and metadata are in order.
pub(super) async fn request(
    core: &Core,
    who: Who<'_>,
    plan: Plan,
    request: Request,
    client: &ClientProfile,
) -> Response<Body> {
    let id = request.id.clone();
    let caller = Caller { principal: who.principal, client, door: who.door, conversation: None };
    match core.answer(plan, request, caller) {
        Err(error) => reply::error(status(Some(error.code)), Some(id), &error),
        Ok(Answer::Ready(result)) => reply::message(StatusCode::OK, &Message::Response { id, result }),
        Ok(Answer::Call(call)) => answer_call(core, call).await,
        Ok(Answer::Subscription(subscription)) => {
            reply::stream(sse::frames(subscription, core.config.limits.keep_alive))
        }
    }
}

/// A quick answer goes out as plain JSON. Whatever comes first otherwise, a message or a long silence, makes a stream.
async fn answer_call(core: &Core, mut call: Call) -> Response<Body> {
    let limits = &core.config.limits;
    let first = match tokio::time::timeout(limits.json_hold, call.next()).await {
        Ok(Wire::Last(last)) => return reply::message(status(last.code), &last.message),
        Ok(Wire::Message(message)) => Some(sse::event(None, &message)),
        Err(_silence) => None,
    };
    reply::stream(sse::frames(CallStream { first, call: Some(call) }, limits.keep_alive))
}

/// The HTTP status that 2026-07-28 asks for.
fn status(code: Option<i64>) -> StatusCode {
    match code {
        Some(codes::HEADER_MISMATCH | codes::MISSING_CLIENT_CAPABILITY | codes::UNSUPPORTED_VERSION) => {
            StatusCode::BAD_REQUEST
        }
        Some(codes::METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

/// A call whose events the connection pulls; dropped with the connection, which cancels it.
struct CallStream {
    first: Option<Bytes>,
    call: Option<Call>,
}

impl Source for CallStream {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        match self.call.as_mut()?.next().await {
            Wire::Message(message) => Some(sse::event(None, &message)),
            Wire::Last(last) => {
                self.call = None;
                Some(sse::event(None, &last.message))
            }
        }
    }
}

impl Source for Subscription {
    async fn next(&mut self) -> Option<Bytes> {
        Subscription::next(self).await.map(|message| sse::event(None, &message))
    }
}
