//! HTTP answers.

use bytes::Bytes;
use comity_protocol::jsonrpc::{Id, Message, RpcError};
use http_body_util::{Either, Full, StreamBody};
use hyper::{
    Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use crate::face::{auth::Unauthorized, media, sse::Frames};

/// The body of an answer: whole, or a stream of events.
pub(in crate::face) type Body = Either<Full<Bytes>, StreamBody<Frames>>;

/// An answer that ends the handling of a request early. Boxed: it is large, and rare.
pub(super) struct Refusal(pub(super) Box<Response<Body>>);

impl From<Response<Body>> for Refusal {
    fn from(response: Response<Body>) -> Self {
        Self(Box::new(response))
    }
}

/// A JSON-RPC message as plain JSON.
pub(super) fn message(status: StatusCode, message: &Message) -> Response<Body> {
    whole(status, Some(media::JSON), message.to_vec().into())
}

/// A JSON-RPC error as plain JSON; without an id where none could be read.
pub(super) fn error(status: StatusCode, id: Option<Id>, error: &RpcError) -> Response<Body> {
    message(status, &Message::error(id, error))
}

/// A stream of events. Proxies are asked not to buffer it.
pub(super) fn stream(frames: Frames) -> Response<Body> {
    let mut response = Response::new(Either::Right(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media::EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Taken note of; there is nothing to say.
pub(super) fn accepted() -> Response<Body> {
    whole(StatusCode::ACCEPTED, None, Bytes::new())
}

/// A sentence for whoever reads the answer; for faults of HTTP, not of JSON-RPC.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    whole(status, Some("text/plain; charset=utf-8"), Bytes::from_static(text.as_bytes()))
}

/// A challenge for a token.
pub(super) fn unauthorized(why: Unauthorized) -> Response<Body> {
    let mut response = text(StatusCode::UNAUTHORIZED, "Unauthorized: a bearer token is needed");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(why.challenge()));
    response
}

/// Only the three methods of MCP exist.
pub(super) fn method_not_allowed() -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST, GET, DELETE"));
    response
}

fn whole(status: StatusCode, content_type: Option<&'static str>, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}
