//! What a server answers to a posted request: JSON, an event stream, or a status.

use std::time::Duration;

use comity_protocol::jsonrpc::{Message, RpcError, codes};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Response, StatusCode};
use serde_json::value::RawValue;

use super::super::session::Session;
use super::super::sse::{SseEvent, SseParser};
use super::HttpLink;
use crate::exchange::{Failure, Outcome};

/// Bytes of an error's body that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// The code under which servers after the TypeScript SDK's example refuse a session.
const SESSION_UNKNOWN: i64 = -32000;

/// Bytes that are set aside for a body on the word of its length alone; a longer one grows as it comes.
const RESERVED_BYTES_MAX: usize = 2 << 20;

/// How often in a row a broken stream is resumed without a new event.
const RESUMES_MAX: u32 = 5;

/// Between which bounds a server may set the pause before a stream is resumed.
const RESUME_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(30));

/// The pause where the server sets none.
const RESUME_PAUSE_DEFAULT: Duration = Duration::from_secs(1);

/// What a server answers to a posted request; of a refusal all that there is to know has been read.
pub(super) enum Answer {
    /// The request is being, or has been, processed.
    Accepted(Response),
    /// It is not.
    Refused(Refusal),
}

/// A refusal by HTTP status. The body may hold a JSON-RPC error, which then is the answer whatever id it bears.
pub(super) struct Refusal {
    status: StatusCode,
    error: Option<Box<RawValue>>,
}

impl Answer {
    /// Reads what there is to know at once.
    pub(super) async fn read(session: &Session, response: Response) -> Self {
        let status = response.status();
        if status.is_success() {
            return Self::Accepted(response);
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Self::Refused(Refusal { status, error: None });
        }
        let body = read_body(response, ERROR_BYTES_MAX).await.unwrap_or_default();
        let error = match Message::parse(&body, session.limits()) {
            Ok(Message::Error { error, .. }) => Some(error),
            _ => None,
        };
        Self::Refused(Refusal { status, error })
    }

    /// Whether the server says that it does not know the session, so that nobody processed the request. The
    /// specification's word for it is 404. Servers after the TypeScript SDK's example, which are many, say 400 with
    /// an error of code -32000 that names the session.
    pub(super) fn is_lost_session(&self) -> bool {
        let Self::Refused(refusal) = self else { return false };
        match refusal.status {
            StatusCode::NOT_FOUND => true,
            StatusCode::BAD_REQUEST => {
                refusal.error.as_deref().map(RpcError::from_raw).is_some_and(|error| {
                    error.code == SESSION_UNKNOWN && error.message.to_ascii_lowercase().contains("session")
                })
            }
            _ => false,
        }
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Accepted(response) => response.status(),
            Self::Refused(refusal) => refusal.status,
        }
    }
}

/// Takes in the answer to a posted request.
pub(super) async fn answer(
    session: &Session,
    http: &HttpLink,
    id: i64,
    answer: Answer,
) -> Result<(), Failure> {
    let response = match answer {
        Answer::Accepted(response) => response,
        Answer::Refused(Refusal { error: Some(error), .. }) => {
            session.finish(id, Outcome::Error(error));
            return Ok(());
        }
        Answer::Refused(Refusal { status, error: None }) => return Err(status_failure(status)),
    };
    let status = response.status();
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
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok());
    let mut body = Vec::with_capacity(announced.unwrap_or_default().min(max).min(RESERVED_BYTES_MAX));
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
