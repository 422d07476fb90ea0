//! Server-sent events: the framing, and bodies that pull their events.
//!
//! Source: WHATWG HTML, section "Server-sent events".

use std::{convert::Infallible, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use comity_protocol::jsonrpc::{self, Message};
use futures::{Stream, stream};
use hyper::body::Frame;

/// How long a client should wait before it resumes a broken stream, in milliseconds.
const RETRY_MS: u64 = 3000;

/// A line that means nothing, to show that the connection is alive.
const COMMENT: &[u8] = b":\n\n";

/// Names an event: the stream within its session, and the place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventId {
    pub(super) stream: u64,
    pub(super) sequence: u64,
}

impl EventId {
    /// Reads what `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (stream, sequence) = text.split_once('-')?;
        Some(Self { stream: stream.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}-{}", self.stream, self.sequence)
    }
}

/// One message as one event.
pub(super) fn event(id: Option<EventId>, message: &Message) -> Bytes {
    let mut out = id.map(|id| format!("id: {id}\n").into_bytes()).unwrap_or_default();
    out.reserve(message.payload_len() + 128);
    out.extend_from_slice(b"data: ");
    let start = out.len();
    message.write(&mut out);
    // A line break would end the field.
    jsonrpc::flatten_lines(&mut out[start..]);
    out.extend_from_slice(b"\n\n");
    out.into()
}

/// An event without a message: gives the client an id from which it can resume.
pub(super) fn priming(id: EventId) -> Bytes {
    format!("id: {id}\nretry: {RETRY_MS}\ndata: \n\n").into()
}

/// What a body is made from.
pub(super) trait Source: Send + 'static {
    /// The next event; `None` ends the stream. Must be cancel-safe.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// The frames of an HTTP body.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>;

/// Pulls `source` as fast as the client reads; silences are filled with comments. Dropping it drops the source.
pub(super) fn frames(source: impl Source, keep_alive: Duration) -> Frames {
    Box::pin(stream::unfold(source, move |mut source| async move {
        let event = match tokio::time::timeout(keep_alive, source.next()).await {
            Ok(event) => event?,
            Err(_silence) => Bytes::from_static(COMMENT),
        };
        Some((Ok(Frame::data(event)), source))
    }))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn events_are_one_line() {
        let raw = RawValue::from_string("{\r\n\"a\":\n\"\\n\"}".into()).unwrap();
        let message = Message::notification("n", Some(raw));
        let id = EventId { stream: 3, sequence: 9 };
        let expected =
            "id: 3-9\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":{  \"a\": \"\\n\"}}\n\n";
        assert_eq!(event(Some(id), &message), expected);
        assert_eq!(EventId::parse("3-9"), Some(id));
        for wrong in ["", "3", "3-", "-9", "3-9-1", "x-9", "99999999999999999999-1"] {
            assert_eq!(EventId::parse(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn silence_is_filled_and_the_end_is_passed_on() {
        struct Silent(Option<Bytes>);
        impl Source for Silent {
            async fn next(&mut self) -> Option<Bytes> {
                match self.0.take() {
                    Some(event) => Some(event),
                    None => std::future::pending().await,
                }
            }
        }
        let frames = frames(Silent(Some("event".into())), Duration::from_millis(1));
        let frames: Vec<_> = frames.take(3).map(|frame| frame.unwrap().into_data().unwrap()).collect().await;
        assert_eq!(frames, [Bytes::from("event"), Bytes::from(COMMENT), Bytes::from(COMMENT)]);

        struct Ended;
        impl Source for Ended {
            async fn next(&mut self) -> Option<Bytes> {
                None
            }
        }
        assert_eq!(super::frames(Ended, Duration::MAX).count().await, 0);
    }
}
