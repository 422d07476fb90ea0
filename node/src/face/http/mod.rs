//! The HTTP binding of both eras, on one path.
//!
//! Every request passes the same gates in the same order: `Host` and `Origin`, bearer token, path, method. POST then
//! reads one JSON-RPC message and decides the era by it; GET and DELETE exist for the legacy era only.

mod body;
mod get;
mod legacy;
mod modern;
mod post;
mod reply;

use std::sync::Arc;

use hyper::{Method, Request, Response, StatusCode, body::Incoming};

use super::{auth::Principal, core::Core, door::Door};
use reply::{Body, Refusal};

/// Who sent a request, and to which endpoint.
#[derive(Clone, Copy)]
struct Who<'a> {
    principal: &'a Arc<Principal>,
    door: &'a Arc<Door>,
}

/// Answers one HTTP request.
pub(super) async fn serve(core: Arc<Core>, request: Request<Incoming>) -> Response<Body> {
    match route(&core, request).await {
        Ok(response) => response,
        Err(Refusal(response)) => *response,
    }
}

async fn route(core: &Arc<Core>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let (parts, body) = request.into_parts();
    core.guard.check(&parts.uri, &parts.headers).map_err(|forbidden| {
        tracing::info!(?forbidden, "turned an HTTP request away");
        reply::text(StatusCode::FORBIDDEN, forbidden.text())
    })?;
    let principal = core.tokens.identify(&parts.headers).map_err(|unauthorized| {
        tracing::info!(?unauthorized, "turned an HTTP request away");
        reply::unauthorized(unauthorized)
    })?;
    // Only now: a stranger does not learn which servers there are.
    let door = core.door(parts.uri.path());
    let door = door.ok_or_else(|| reply::text(StatusCode::NOT_FOUND, "Not Found: no MCP endpoint here"))?;
    let who = Who { principal, door: &door };
    match parts.method {
        Method::POST => post::serve(core, who, &parts.headers, body).await,
        Method::GET => get::serve(core, who, &parts.headers),
        Method::DELETE => get::delete(core, who, &parts.headers),
        _ => Err(reply::method_not_allowed().into()),
    }
}
