//! Call streams of one connection that wait for their next call.
//!
//! A new stream costs both nodes several wakings, a timer's thread among them; one that is there costs none. The caller
//! keeps them, the last used on top, and lets go what was not used for [`STREAM_KEPT`].

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use comity_protocol::call::STREAM_KEPT;
use comity_protocol::time::Mono;
use libp2p::futures::io::AsyncRead as _;

/// Streams of one connection that are kept; beyond it the one unused for longest ends.
pub const IDLE_STREAMS_MAX: usize = 256;

/// The streams. Closed for good once the connection no longer stands for calls.
#[derive(Debug)]
pub(crate) struct IdleStreams(Mutex<Option<VecDeque<Idle>>>);

#[derive(Debug)]
struct Idle {
    stream: libp2p::Stream,
    since: Mono,
}

impl Default for IdleStreams {
    fn default() -> Self {
        Self(Mutex::new(Some(VecDeque::new())))
    }
}

impl IdleStreams {
    /// The stream used last that still stands.
    pub(crate) fn take(&self, now: Mono) -> Option<libp2p::Stream> {
        self.shed(now);
        loop {
            let mut idle = self.lock().as_mut()?.pop_back()?;
            if is_quiet(&mut idle.stream) {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps a stream on which both sides have said everything.
    pub(crate) fn put(&self, stream: libp2p::Stream, now: Mono) {
        let mut streams = self.lock();
        let Some(streams) = streams.as_mut() else { return };
        if streams.len() >= IDLE_STREAMS_MAX {
            streams.pop_front();
        }
        streams.push_back(Idle { stream, since: now });
    }

    /// Ends what has not been used for too long.
    pub(crate) fn shed(&self, now: Mono) {
        if let Some(streams) = self.lock().as_mut() {
            while streams.front().is_some_and(|oldest| now.since(oldest.since) >= STREAM_KEPT) {
                streams.pop_front();
            }
        }
    }

    /// Ends all, and keeps none any more.
    pub(crate) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Idle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the peer has said nothing since the last call: an end, a reset or bytes out of turn all make a stream useless.
fn is_quiet(stream: &mut libp2p::Stream) -> bool {
    Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut [0; 1]).is_pending()
}
