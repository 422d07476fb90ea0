//! `/comity/enrol/1`: the one protocol that a stranger is served. What is said on it is the enrolment's business; here it
//! is bounded: so many at once, so long, and nothing else on the connection.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use comity_protocol::ids::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::streams::MeshStream;

/// Enrolments at once, in each direction; more are refused.
pub const ENROLMENTS_MAX: usize = 8;

/// How long an enrolment may take, people comparing words aloud included.
pub const ENROLMENT_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// The stream of one enrolment. Its connection ends soon after it is dropped. Shut it down before, so that what was
/// written last arrives.
pub struct EnrolStream {
    stream: MeshStream,
    _permit: OwnedSemaphorePermit,
    _ended: oneshot::Sender<()>,
}

impl EnrolStream {
    /// A stream that holds both for as long as it lives.
    pub(super) const fn new(
        stream: MeshStream,
        permit: OwnedSemaphorePermit,
        ended: oneshot::Sender<()>,
    ) -> Self {
        Self { stream, _permit: permit, _ended: ended }
    }

    /// The node at the other end, as its key proves; of no org yet.
    pub fn peer(&self) -> NodeId {
        self.stream.connection().peer
    }
}

/// Somebody has come to enrol.
#[derive(Debug)]
pub struct IncomingEnrolment {
    /// The node, as its key proves. It may be anybody.
    pub peer: NodeId,
    /// The stream.
    pub stream: EnrolStream,
}

impl fmt::Debug for EnrolStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

impl AsyncRead for EnrolStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for EnrolStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
