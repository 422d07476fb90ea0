//! What a server answers to a posted request: JSON, an event stream, or a status.

use std::time::Duration;

use comity_protocol::jsonrpc::{Message, codes};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Response, StatusCode};

use super::super::session::Session;
use super::super::sse::{SseEvent, SseParser};
use super::HttpLink;
use crate::exchange::{Failure, Outcome};

/// Bytes of an error's body that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// How often in a row a broken stream is resumed without a new event.
const RESUMES_MAX: u32 = 5;

/// Between which bounds a server may set the pause before a stream is resumed.
const RESUME_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(30));

/// The pause where the server sets none.
const RESUME_PAUSE_DEFAULT: Duration = Duration::from_secs(1);

/// Takes in the answer to a posted request.
pub(super) async fn answer(
    session: &Session,
    http: &HttpLink,
    id: i64,
    response: Response,
) -> Result<(), Failure> {
    let status = response.status();
    if !status.is_success() {
        return refused(session, id, response).await;
    }
    if is_event_stream(&response) {
        return read_stream(session, http, id, response).await;
    }
    if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
        // Odd for a request, but the answer may still come on the session's own stream.
        return std::future::pending().await;
    }
    let body = read_body(response, session.limits().bytes_max).await?;
    match Message::parse(&body, session.limits()) {
        Ok(message) => session.receive(message, Some(id)),
        Err(error) => return Err(died(&format!("the MCP server's answer is no message: {error}"))),
    }
    if session.table().contains(id) {
        return Err(died("the MCP server answered something else"));
    }
    Ok(())
}

/// A refusal by HTTP status: the body may hold a JSON-RPC error, which then is the answer whatever
/// id it bears.
async fn refused(session: &Session, id: i64, response: Response) -> Result<(), Failure> {
    let failure = status_failure(response.status());
    if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(failure);
    }
    let body = read_body(response, ERROR_BYTES_MAX).await.map_err(|_| failure.clone())?;
    match Message::parse(&body, session.limits()) {
        Ok(Message::Error { error, .. }) => {
            session.finish(id, Outcome::Error(error));
            Ok(())
        }
        _ => Err(failure),
    }
}

/// Reads a call's event stream to its answer. A stream that ends early is resumed where the server
/// made that possible by numbering its events.
async fn read_stream(
    session: &Session,
    http: &HttpLink,
    id: i64,
    mut response: Response,
) -> Result<(), Failure> {
    let mut parser = SseParser::new(session.limits().bytes_max);
    let (mut resumes, mut resumed_at) = (0, None);
    loop {
        while let Ok(Some(chunk)) = response.chunk().await {
            parser.feed(&chunk, |event| take_event(session, Some(id), event));
            if !session.table().contains(id) {
                return Ok(());
            }
        }
        let broken = || died("the MCP server's stream ended before its answer");
        let last = parser.last_id().map(str::to_owned).ok_or_else(broken)?;
        resumes = if resumed_at.as_ref() == Some(&last) { resumes + 1 } else { 1 };
        if resumes > RESUMES_MAX {
            return Err(broken());
        }
        tokio::time::sleep(resume_pause(&parser)).await;
        (response, _) = http.get(Some(&last)).await.map_err(|_| broken())?;
        if !response.status().is_success() || !is_event_stream(&response) {
            return Err(broken());
        }
        resumed_at = Some(last);
    }
}

/// Takes in one event. An event that was too large ends the call on whose stream it came.
pub(super) fn take_event(session: &Session, origin: Option<i64>, event: SseEvent) {
    match event {
        SseEvent::Data(data) => match Message::parse(&data, session.limits()) {
            Ok(message) => session.receive(message, origin),
            Err(error) => tracing::debug!(server = %session.server(), %error, "an event is no message"),
        },
        SseEvent::TooLarge { size } => {
            let detail = format!("a message of {size} bytes exceeds the limit");
            tracing::warn!(server = %session.server(), size, "discarded an event that is too large");
            if let Some(id) = origin {
                session.finish(id, Outcome::Failed(Failure::TooLarge { handed_over: true, detail }));
            }
        }
    }
}

pub(super) fn resume_pause(parser: &SseParser) -> Duration {
    let wanted = parser.retry_ms().map_or(RESUME_PAUSE_DEFAULT, Duration::from_millis);
    wanted.clamp(RESUME_PAUSE.0, RESUME_PAUSE.1)
}

pub(super) fn is_event_stream(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
}

async fn read_body(mut response: Response, max: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > max => {
                let detail = format!("the MCP server's answer exceeds the limit of {max} bytes");
                return Err(Failure::TooLarge { handed_over: true, detail });
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(_) => return Err(died("the MCP server's answer broke off")),
        }
    }
}

/// What a status means when its body says nothing. Client errors and "not now" say that the request
/// was not processed; a server error says nothing of the kind.
pub(super) fn status_failure(status: StatusCode) -> Failure {
    let detail = format!("the MCP server answered HTTP {}", status.as_u16());
    match status {
        StatusCode::TOO_MANY_REQUESTS => Failure::Overloaded { handed_over: false, detail },
        StatusCode::PAYLOAD_TOO_LARGE => Failure::TooLarge { handed_over: false, detail },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            Failure::Unreachable { detail }
        }
        status if status.is_client_error() => Failure::Refused { code: codes::INTERNAL_ERROR, detail },
        _ => died(&detail),
    }
}

pub(super) fn died(detail: &str) -> Failure {
    Failure::UpstreamDied { handed_over: true, detail: detail.to_owned() }
}
