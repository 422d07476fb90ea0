//! One stream of ours.
//!
//! Streams are negotiated lazily (multistream-select `V1Lazy`): our first bytes travel together with the protocol's
//! name, which saves a round trip on every call. Two traps of that are closed here:
//! - A negotiation that fails poisons the library's stream: the next operation on it *panics*, and a peer can bring that
//!   about. A stream that has failed is let go at once, and answers every later operation with an error.
//! - Until the peer has consented, reading also flushes, so reader and writer would take each other's place as the one
//!   to wake. Until then both are woken.
//!
//! A stream whose connection has ended says so, whatever the multiplexer says: see [`super::ending`].

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use libp2p::futures::io::{AsyncRead as _, AsyncWrite as _};
use libp2p::futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::StreamKind;
use super::ending::BothHalves;
use crate::connections::{Busy, Connection};

/// A stream to a peer, as tokio's I/O traits have it. Dropping it resets it; to end it in peace, shut it down first.
pub struct MeshStream {
    inner: Option<libp2p::Stream>,
    halves: Arc<BothHalves>,
    /// Whether the peer has consented to the protocol.
    confirmed: bool,
    connection: Arc<Connection>,
    /// Its number among those that hear of the connection's end.
    number: u64,
    kind: StreamKind,
    _busy: Option<Busy>,
}

impl MeshStream {
    /// Of calls that come in one after another on the stream, each counts as work by itself: see [`Connection::work`].
    pub(super) fn inbound(stream: libp2p::Stream, connection: Arc<Connection>, kind: StreamKind) -> Self {
        connection.note_heard();
        let busy = (kind.is_work() && kind != StreamKind::Call).then(|| connection.work());
        Self::new(stream, connection, kind, true, busy)
    }

    pub(super) fn outbound(stream: libp2p::Stream, connection: Arc<Connection>, kind: StreamKind) -> Self {
        let busy = kind.is_work().then(|| connection.work());
        Self::new(stream, connection, kind, false, busy)
    }

    /// A stream that has carried calls before.
    pub(crate) fn again(stream: libp2p::Stream, connection: Arc<Connection>) -> Self {
        let busy = Some(connection.work());
        Self::new(stream, connection, StreamKind::Call, true, busy)
    }

    fn new(
        stream: libp2p::Stream,
        connection: Arc<Connection>,
        kind: StreamKind,
        confirmed: bool,
        busy: Option<Busy>,
    ) -> Self {
        let halves = Arc::<BothHalves>::default();
        let number = connection.ending.enter(halves.clone());
        Self { inner: Some(stream), halves, confirmed, connection, number, kind, _busy: busy }
    }

    /// Keeps the stream, which this node has opened, for its next call to the same peer. To be used only when the call has
    /// ended in such a way that neither side has anything more of it on its way.
    pub fn keep_for_another(mut self) {
        if self.confirmed
            && let Some(inner) = self.inner.take()
        {
            self.connection.keep_idle(inner);
        }
    }

    /// The connection that carries the stream.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Does `operation` for one half. What has arrived is still read after the connection's end; who would have to wait
    /// hears of it.
    fn poll_half<T>(
        &mut self,
        half: impl FnOnce(&BothHalves) -> &AtomicWaker,
        cx: &mut Context<'_>,
        operation: impl FnOnce(Pin<&mut libp2p::Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        half(&self.halves).register(cx.waker());
        let result = if self.confirmed {
            operation(Pin::new(inner), cx)
        } else {
            operation(Pin::new(inner), &mut Context::from_waker(&Waker::from(self.halves.clone())))
        };
        if result.is_pending() && self.connection.ending.is_over() {
            self.inner = None;
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection closed",
            )));
        }
        result
    }
}

impl Drop for MeshStream {
    fn drop(&mut self) {
        self.connection.ending.leave(self.number);
    }
}

impl fmt::Debug for MeshStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.kind.protocol(), self.connection.peer.short())
    }
}

impl AsyncRead for MeshStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = buf.initialize_unfilled();
        let result = this.poll_half(|halves| &halves.reader, cx, |stream, cx| stream.poll_read(cx, room));
        match ready!(result) {
            Ok(count) => {
                this.confirmed = true;
                if count > 0 {
                    this.connection.note_heard();
                }
                buf.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                this.inner = None;
                Poll::Ready(Err(error))
            }
        }
    }
}

impl AsyncWrite for MeshStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_half(|halves| &halves.writer, cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_half(|halves| &halves.writer, cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_half(|halves| &halves.writer, cx, |stream, cx| stream.poll_close(cx))
    }
}
