//! `POST /mcp`: one JSON-RPC message, of either era.
//!
//! A request is modern when it says so: by the revision in its `_meta`, by a method that only that revision has, or by
//! a header of 2026-07-28 or later. `initialize` without that metadata is legacy whatever the header says.

use std::sync::Arc;

use comity_protocol::{
    jsonrpc::{Limits, Message, RpcError},
    trace::TraceContext,
};
use hyper::{HeaderMap, Response, StatusCode, body::Incoming};

use super::{
    Who, body, legacy, modern,
    reply::{self, Body, Refusal},
};
use crate::{
    face::{
        core::Core,
        handshake,
        headers::{self, VERSION},
        media,
        params::{self, Head, Request},
    },
    gateway::Era,
};

/// Answers a POST.
pub(super) async fn serve(
    core: &Arc<Core>,
    who: Who<'_>,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    check_media(headers)?;
    let limits = &core.config.limits;
    let bytes = body::read(body, limits.body_bytes_max, limits.body_timeout).await?;
    let parse_limits = Limits { bytes_max: limits.body_bytes_max, ..Limits::default() };
    let message = Message::parse(&bytes, parse_limits).map_err(|fault| {
        let error = RpcError::new(fault.code(), fault.to_string());
        reply::error(StatusCode::BAD_REQUEST, None, &error)
    })?;
    drop(bytes);
    match message {
        Message::Request { id, method, params } => {
            request(core, who, headers, Request { id, method, params }).await
        }
        message => match header_era(headers, &message)? {
            // No message of this kind means anything there, and the specification asks for nothing else.
            Era::Modern => Ok(reply::accepted()),
            Era::Legacy => legacy::message(core, who, headers, message).await,
        },
    }
}

async fn request(
    core: &Arc<Core>,
    who: Who<'_>,
    headers: &HeaderMap,
    request: Request,
) -> Result<Response<Body>, Refusal> {
    let head = request.head().map_err(|error| bad(&request, &error))?;
    if request.method == "initialize" && head.meta.version.is_none() {
        return legacy::initialize(core, who, &request);
    }
    match request_era(&request, &head, headers)? {
        Era::Modern => {
            let (plan, client) = modern::plan(core, who, headers, &request, &head)?;
            Ok(modern::request(core, who, plan, request, &client).await)
        }
        Era::Legacy => {
            let session = legacy::session(core, who, headers)?;
            let plan = legacy::plan(who, headers, &request, &head)?;
            Ok(legacy::request(core, who.principal, session, plan, request).await)
        }
    }
}

fn request_era(request: &Request, head: &Head<'_>, headers: &HeaderMap) -> Result<Era, Refusal> {
    if head.meta.version.is_some() || request.method == "server/discover" {
        return Ok(Era::Modern);
    }
    era_of(headers).map_err(|error| bad(request, &error))
}

/// The era of a notification or an answer.
fn header_era(headers: &HeaderMap, message: &Message) -> Result<Era, Refusal> {
    let id = message.id().cloned();
    era_of(headers).map_err(|error| reply::error(StatusCode::BAD_REQUEST, id, &error).into())
}

/// The era that the version header names. None is the legacy one: revisions before 2025-06-18 did not have it.
fn era_of(headers: &HeaderMap) -> Result<Era, RpcError> {
    match headers::sole(headers, &VERSION)? {
        None => Ok(Era::Legacy),
        // Revisions are dates, which sort as text.
        Some(version) if version >= handshake::MODERN => Ok(Era::Modern),
        Some(version) if handshake::legacy_version(version).is_some() => Ok(Era::Legacy),
        Some(version) => Err(handshake::unsupported(version)),
    }
}

fn check_media(headers: &HeaderMap) -> Result<(), Refusal> {
    if !media::accepts(headers, media::JSON) || !media::accepts(headers, media::EVENT_STREAM) {
        let why = "Not Acceptable: accept both application/json and text/event-stream";
        return Err(reply::text(StatusCode::NOT_ACCEPTABLE, why).into());
    }
    if !media::is_json(headers) {
        let why = "Unsupported Media Type: send application/json";
        return Err(reply::text(StatusCode::UNSUPPORTED_MEDIA_TYPE, why).into());
    }
    Ok(())
}

/// A 400 that carries a JSON-RPC error under the request's id.
pub(super) fn bad(request: &Request, error: &RpcError) -> Refusal {
    reply::error(StatusCode::BAD_REQUEST, Some(request.id.clone()), error).into()
}

/// The trace in the HTTP headers, if it is a valid one.
pub(super) fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    params::trace(text("traceparent")?, text("tracestate"))
}
