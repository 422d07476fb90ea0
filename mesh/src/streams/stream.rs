//! One stream of ours.
//!
//! Streams are negotiated lazily (multistream-select `V1Lazy`): our first bytes travel together with the protocol's
//! name, which saves a round trip on every call. Two traps of that are closed here:
//! - A negotiation that fails poisons the library's stream: the next operation on it *panics*, and a peer can bring that
//!   about. A stream that has failed is let go at once, and answers every later operation with an error.
//! - Until the peer has consented, reading also flushes, so reader and writer would take each other's place as the one
//!   to wake. Until then both are woken.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use libp2p::futures::io::{AsyncRead as _, AsyncWrite as _};
use libp2p::futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::StreamKind;
use crate::connections::{Busy, Connection};

/// A stream to a peer, as tokio's I/O traits have it. Dropping it resets it; to end it in peace, shut it down first.
pub struct MeshStream {
    inner: Option<libp2p::Stream>,
    unconfirmed: Option<Arc<BothHalves>>,
    connection: Arc<Connection>,
    kind: StreamKind,
    _busy: Option<Busy>,
}

impl MeshStream {
    pub(super) fn inbound(stream: libp2p::Stream, connection: Arc<Connection>, kind: StreamKind) -> Self {
        connection.note_heard();
        Self::new(stream, connection, kind, None)
    }

    pub(super) fn outbound(stream: libp2p::Stream, connection: Arc<Connection>, kind: StreamKind) -> Self {
        Self::new(stream, connection, kind, Some(Arc::default()))
    }

    fn new(
        stream: libp2p::Stream,
        connection: Arc<Connection>,
        kind: StreamKind,
        unconfirmed: Option<Arc<BothHalves>>,
    ) -> Self {
        let busy = kind.is_work().then(|| Busy::new(connection.clone()));
        Self { inner: Some(stream), unconfirmed, connection, kind, _busy: busy }
    }

    /// The connection that carries the stream.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn write_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        operation: impl FnOnce(Pin<&mut libp2p::Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let Some(both) = &self.unconfirmed else { return operation(Pin::new(inner), cx) };
        both.writer.register(cx.waker());
        operation(Pin::new(inner), &mut Context::from_waker(&Waker::from(both.clone())))
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
        let Some(inner) = &mut this.inner else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let room = buf.initialize_unfilled();
        let result = match &this.unconfirmed {
            None => Pin::new(inner).poll_read(cx, room),
            Some(both) => {
                both.reader.register(cx.waker());
                Pin::new(inner).poll_read(&mut Context::from_waker(&Waker::from(both.clone())), room)
            }
        };
        match ready!(result) {
            Ok(count) => {
                this.unconfirmed = None;
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
        self.get_mut().write_with(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write_with(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write_with(cx, |stream, cx| stream.poll_close(cx))
    }
}

/// Wakes the reader and the writer of a stream, whichever of them wait.
#[derive(Default)]
struct BothHalves {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for BothHalves {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}
