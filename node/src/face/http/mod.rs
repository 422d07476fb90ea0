//! The HTTP binding of both eras, on one path.
//!
//! Every request passes the same gates in the same order: path, `Host` and `Origin`, bearer token, method. POST then
//! reads one JSON-RPC message and decides the era by it; GET and DELETE exist for the legacy era only.

mod body;
mod get;
mod legacy;
mod modern;
mod post;
mod reply;

use std::sync::Arc;

use hyper::{Method, Request, Response, StatusCode, body::Incoming};

use super::core::Core;
use reply::{Body, Refusal};

/// Answers one HTTP request.
pub(super) async fn serve(core: Arc<Core>, request: Request<Incoming>) -> Response<Body> {
    match route(&core, request).await {
        Ok(response) => response,
        Err(Refusal(response)) => *response,
    }
}

async fn route(core: &Arc<Core>, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() != core.config.path {
        return Err(reply::text(StatusCode::NOT_FOUND, "Not Found: MCP is served elsewhere").into());
    }
    core.guard.check(&parts.uri, &parts.headers).map_err(|forbidden| {
        tracing::info!(?forbidden, "turned an HTTP request away");
        reply::text(StatusCode::FORBIDDEN, forbidden.text())
    })?;
    let principal = core.tokens.identify(&parts.headers).map_err(|unauthorized| {
        tracing::info!(?unauthorized, "turned an HTTP request away");
        reply::unauthorized(unauthorized)
    })?;
    match parts.method {
        Method::POST => post::serve(core, principal, &parts.headers, body).await,
        Method::GET => get::serve(core, principal, &parts.headers),
        Method::DELETE => get::delete(core, principal, &parts.headers),
        _ => Err(reply::method_not_allowed().into()),
    }
}
