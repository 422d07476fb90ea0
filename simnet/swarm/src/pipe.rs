//! One end of a connection, as libp2p's I/O traits have it.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use libp2p::futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::net::{Read, Shared, Side, Write};

/// One end of a connection. Dropping it closes it, unless its process is gone: then nobody is told.
pub(crate) struct Pipe {
    net: Shared,
    wire: u64,
    side: Side,
    /// Set for when the next bytes arrive.
    timer: Pin<Box<Sleep>>,
}

impl Pipe {
    pub(crate) fn new(net: Shared, wire: u64, side: Side) -> Self {
        Self { net, wire, side, timer: Box::pin(sleep_until(Instant::now())) }
    }

    /// The node that dialled.
    pub(crate) fn dialler(&self) -> usize {
        self.net.dialler(self.wire)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.net.read(self.wire, self.side, buffer, cx.waker()) {
                Read::Got(count) => return Poll::Ready(Ok(count)),
                Read::Wait => return Poll::Pending,
                Read::Gone => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                Read::NotBefore(at) => {
                    let at = self.net.instant(at);
                    self.timer.as_mut().reset(at);
                    ready!(self.timer.as_mut().poll(cx));
                }
            }
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.net.write(self.wire, self.side, bytes, cx.waker()) {
            Write::Took(count) => Poll::Ready(Ok(count)),
            Write::Wait => Poll::Pending,
            Write::Broken => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.end(self.wire, self.side);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.net.drop_end(self.wire, self.side);
    }
}
