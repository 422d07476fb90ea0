//! The stream of what a legacy HTTP server says unasked: changed lists, log messages, requests.

use std::time::Duration;

use reqwest::StatusCode;

use super::super::backoff::Backoff;
use super::super::session::{Link, Session};
use super::super::sse::SseParser;
use super::answer::{Answer, is_event_stream, resume_pause, take_event};
use super::renew;

/// A stream that lived this long was a good one: the next attempt does not wait longer than the last.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// Listens for as long as the session lasts. Returns if the server offers no such stream.
pub(in super::super) async fn listen(session: Session) {
    let Link::Http(http) = session.link() else { return };
    let mut parser = SseParser::new(session.limits().bytes_max);
    let mut backoff = Backoff::default();
    loop {
        let opened = tokio::time::Instant::now();
        match http.get(parser.last_id()).await {
            Ok((response, generation)) => match Answer::read(&session, response).await {
                answer if answer.is_lost_session() && http.has_session() => {
                    // A new session numbers its events anew.
                    parser = SseParser::new(session.limits().bytes_max);
                    if let Err(error) = renew(&session, generation).await {
                        tracing::debug!(server = %session.server(), %error, "cannot renew the session");
                    }
                }
                Answer::Accepted(response) if is_event_stream(&response) => {
                    read(&session, &mut parser, response).await;
                    if opened.elapsed() >= GOOD_LIFE {
                        backoff.reset();
                    }
                    // The server may end the stream at will and say when to come back.
                    tokio::time::sleep(resume_pause(&parser)).await;
                }
                answer if is_for_now(answer.status()) => {}
                answer => {
                    let status = answer.status();
                    tracing::debug!(server = %session.server(), %status, "the server offers no stream");
                    return;
                }
            },
            Err(failure) => session.suspect(&failure),
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Whether a refusal may be otherwise in a while.
fn is_for_now(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

async fn read(session: &Session, parser: &mut SseParser, mut response: reqwest::Response) {
    while let Ok(Some(chunk)) = response.chunk().await {
        parser.feed(&chunk, |event| take_event(session, None, event));
    }
}
