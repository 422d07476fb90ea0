//! GET and DELETE of the legacy era: the stream of notifications that belong to no call, resuming a call's stream,
//! and the end of a session.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use hyper::{HeaderMap, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::{
    Who, legacy,
    reply::{self, Body, Refusal},
};
use crate::face::{
    core::{ChangeFeed, Core},
    handshake,
    headers::{self, LAST_EVENT, VERSION},
    media,
    session::{LISTENING, Listener, Session},
    sse::{self, EventId, Source},
};

/// Answers a GET.
pub(super) fn serve(core: &Core, who: Who<'_>, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    legacy_only(headers)?;
    if !media::accepts(headers, media::EVENT_STREAM) {
        return Err(
            reply::text(StatusCode::NOT_ACCEPTABLE, "Not Acceptable: accept text/event-stream").into()
        );
    }
    let session = legacy::session(core, who, headers)?;
    let last = headers.get(LAST_EVENT).map(|value| value.to_str().ok().and_then(EventId::parse));
    match last {
        None => Ok(listen(core, &session, None)),
        Some(Some(last)) if last.stream == LISTENING => Ok(listen(core, &session, Some(last.sequence))),
        Some(last) => Ok(resume(core, &session, last)),
    }
}

/// Answers a DELETE: the session ends, and with it what is in flight.
pub(super) fn delete(core: &Core, who: Who<'_>, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    legacy_only(headers)?;
    let session = legacy::session(core, who, headers)?;
    core.sessions.close(&session);
    tracing::debug!(principal = %who.principal.name, "session closed by its client");
    Ok(reply::text(StatusCode::OK, ""))
}

fn legacy_only(headers: &HeaderMap) -> Result<(), Refusal> {
    let bad = |error| reply::error(StatusCode::BAD_REQUEST, None, &error);
    match headers::sole(headers, &VERSION).map_err(bad)? {
        Some(version) if version >= handshake::MODERN => Err(reply::method_not_allowed().into()),
        Some(version) if handshake::legacy_version(version).is_none() => {
            Err(bad(handshake::unsupported(version)).into())
        }
        _ => Ok(()),
    }
}

/// Goes on with a call's stream. One that is gone, or never was, gives an empty stream: an error would make clients
/// try the same again.
fn resume(core: &Core, session: &Session, last: Option<EventId>) -> Response<Body> {
    let stream = last.and_then(|last| Some((session.stream(last.stream)?, last.sequence)));
    match stream {
        Some((log, after)) => {
            reply::stream(sse::frames(log.attach(Some(after)), core.config.limits.keep_alive))
        }
        None => reply::stream(Box::pin(stream::empty())),
    }
}

/// Opens the stream of notifications that belong to no call, in place of an older one.
fn listen(core: &Core, session: &Arc<Session>, told: Option<u64>) -> Response<Body> {
    let listener = session.listen();
    // Whether the client heard what its last stream was given, nobody knows unless it says so: tell it again.
    if (told.is_some() || !listener.is_first()) && !session.told.resume(told) {
        session.conversation.watches.tell_again();
    }
    let (door, told) = (Arc::clone(&session.door), Arc::clone(&session.told));
    let feed = ChangeFeed::new(core, door, told, Arc::clone(&session.conversation));
    let listening = Listening { feed, listener, draining: core.draining.clone() };
    reply::stream(sse::frames(listening, core.config.limits.keep_alive))
}

struct Listening {
    feed: ChangeFeed,
    listener: Listener,
    draining: CancellationToken,
}

impl Source for Listening {
    async fn next(&mut self) -> Option<Bytes> {
        let session = Arc::clone(&self.listener.session);
        tokio::select! {
            biased;
            () = self.draining.cancelled() => None,
            () = session.closed.cancelled() => None,
            () = self.listener.replaced() => None,
            change = self.feed.next() => change.map(|(sequence, message)| {
                sse::event(Some(EventId { stream: LISTENING, sequence }), &message)
            }),
        }
    }
}
