//! A call's stream as both machines use it: frames in, frames out, neither waiting for the other. Both halves outlive a
//! call: the stream may carry the next one.

use std::io;

use comity_protocol::call::frame::{self, FrameKind};
use comity_protocol::call::{Frame, FrameDecoder, FrameError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::mesh::MeshStream;

/// Bytes read at once. Most calls and answers fit; it is also what an idle stream holds.
const READ_BYTES: usize = 2 * 1024;

/// Bytes read at once while more comes than [`READ_BYTES`].
const READ_MORE_BYTES: usize = 16 * 1024;

/// Bytes that may wait to be written before nothing more is taken in for the peer: one largest body and some.
pub(super) const UNSENT_BYTES_MAX: usize = frame::PAYLOAD_BYTES_MAX + 256 * 1024;

/// Bytes already written that may stay in the buffer while more is queued behind them.
const WRITTEN_KEPT_MAX: usize = 64 * 1024;

/// Why nothing more will come.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The peer has ended the stream.
    #[error("the peer has ended the stream")]
    Ended,
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// What came first is no header.
    #[error("the stream does not begin with a header")]
    NoHeader,
}

/// The reading half.
pub(super) struct FrameReader<R = ReadHalf<MeshStream>> {
    half: R,
    decoder: FrameDecoder,
    buffer: Vec<u8>,
    at: usize,
    /// Whether the first frame must be a header: nothing larger is held of a stream that has not shown one.
    header_first: bool,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    fn new(half: R) -> Self {
        Self { half, decoder: FrameDecoder::new(), buffer: Vec::new(), at: 0, header_first: false }
    }

    /// Takes nothing but a header as the next frame.
    pub(super) fn header_first(&mut self) {
        self.header_first = true;
    }

    /// The next frame. Cancel-safe: bytes that have arrived are kept.
    pub(super) async fn next(&mut self) -> Result<Frame, StreamError> {
        loop {
            if let Some(frame) = self.arrived()? {
                return Ok(frame);
            }
            self.read_more().await?;
        }
    }

    /// The next frame, if it has been read already.
    pub(super) fn arrived(&mut self) -> Result<Option<Frame>, StreamError> {
        if self.is_drained() {
            return Ok(None);
        }
        let mut rest = &self.buffer[self.at..];
        let frame = self.decoder.push(&mut rest)?;
        self.at = self.buffer.len() - rest.len();
        self.check_first(frame.as_ref())?;
        Ok(frame)
    }

    /// Waits until there are bytes of a next frame. Cancel-safe.
    pub(super) async fn readable(&mut self) -> Result<(), StreamError> {
        if self.is_drained() { self.read_more().await } else { Ok(()) }
    }

    /// Whether nothing has been read of a next frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.is_drained() && self.decoder.is_between_frames()
    }

    fn is_drained(&self) -> bool {
        self.at == self.buffer.len()
    }

    /// Reads into the drained buffer.
    async fn read_more(&mut self) -> Result<(), StreamError> {
        let full = self.buffer.len() >= READ_BYTES;
        self.buffer.clear();
        self.at = 0;
        self.buffer.reserve(if full { READ_MORE_BYTES } else { READ_BYTES });
        match self.half.read_buf(&mut self.buffer).await? {
            0 => Err(StreamError::Ended),
            _ => Ok(()),
        }
    }

    /// To be told when a call has ended and the next has not begun: lets go what its large frames took.
    pub(super) fn rest(&mut self) {
        if self.is_drained() {
            self.buffer.clear();
            self.at = 0;
            self.buffer.shrink_to(READ_BYTES);
        }
    }

    fn check_first(&mut self, frame: Option<&Frame>) -> Result<(), StreamError> {
        if !self.header_first {
            return Ok(());
        }
        let kind = frame.map(Frame::kind).or(self.decoder.arriving());
        if kind.is_some_and(|kind| kind != FrameKind::Header) {
            return Err(StreamError::NoHeader);
        }
        self.header_first = frame.is_none();
        Ok(())
    }
}

/// The writing half, with what waits to be written.
pub(super) struct FrameWriter<W = WriteHalf<MeshStream>> {
    half: W,
    unsent: Vec<u8>,
    sent: usize,
    flushed: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    fn new(half: W) -> Self {
        Self { half, unsent: Vec::new(), sent: 0, flushed: true }
    }

    /// Queues a frame; [`Self::drive`] writes it.
    pub(super) fn queue(&mut self, frame: &Frame) -> Result<(), FrameError> {
        self.flushed = false;
        frame.write(&mut self.unsent)
    }

    /// Queues a frame of raw bytes without a copy in between.
    pub(super) fn queue_payload(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), FrameError> {
        self.flushed = false;
        self.unsent.extend_from_slice(&frame::prefix(kind, payload.len())?);
        self.unsent.extend_from_slice(payload);
        Ok(())
    }

    /// Whether anything waits to be written.
    pub(super) const fn is_idle(&self) -> bool {
        self.flushed
    }

    /// Whether more may be taken in for the peer.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.len() - self.sent < UNSENT_BYTES_MAX
    }

    /// Writes until nothing waits. Cancel-safe: what was written is not written again.
    pub(super) async fn drive(&mut self) -> io::Result<()> {
        while self.sent < self.unsent.len() {
            let written = self.half.write(&self.unsent[self.sent..]).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent += written;
            self.let_go();
        }
        self.half.flush().await?;
        self.unsent.clear();
        (self.sent, self.flushed) = (0, true);
        // A large body should not stay allocated for the rest of a long call.
        self.unsent.shrink_to(READ_MORE_BYTES);
        Ok(())
    }

    /// Drops what was written once it is the larger part: a writer that never quite catches up must not keep it all.
    fn let_go(&mut self) {
        if self.sent >= WRITTEN_KEPT_MAX && self.sent >= self.unsent.len() - self.sent {
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Writes what waits and ends the stream.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        self.drive().await?;
        self.half.shutdown().await
    }
}

/// Both halves of a call's stream.
pub(super) fn split(stream: MeshStream) -> (FrameReader, FrameWriter) {
    let (read, write) = tokio::io::split(stream);
    (FrameReader::new(read), FrameWriter::new(write))
}

/// The stream whose halves these are, if nothing waits in either.
pub(super) fn join(reader: FrameReader, writer: FrameWriter) -> Option<MeshStream> {
    let idle = reader.is_between_frames() && writer.is_idle();
    idle.then(|| reader.half.unsplit(writer.half))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Frame {
        Frame::Message(vec![b'm'; bytes])
    }

    #[tokio::test]
    async fn a_frame_that_was_half_read_or_half_written_when_dropped_goes_on_where_it_was() {
        let (ours, theirs) = tokio::io::duplex(7);
        let (mut reader, mut writer) = (FrameReader::new(theirs), FrameWriter::new(ours));
        for bytes in [0, 1, 100, 3000] {
            writer.queue(&message(bytes)).unwrap();
        }
        let mut read = Vec::new();
        while read.len() < 4 {
            // Each poll makes a little progress and is dropped. A task that never waits is made to, or stands still.
            tokio::task::yield_now().await;
            let _ = futures::poll!(std::pin::pin!(writer.drive()));
            if let std::task::Poll::Ready(frame) = futures::poll!(std::pin::pin!(reader.next())) {
                read.push(frame.unwrap());
            }
        }
        assert_eq!(read, [message(0), message(1), message(100), message(3000)]);
        writer.drive().await.unwrap();
        assert!(writer.is_idle());
    }

    #[tokio::test]
    async fn a_writer_that_never_catches_up_keeps_no_more_than_what_waits() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut writer = FrameWriter::new(ours);
        let mut sink = vec![0; 1 << 16];
        writer.queue(&message(1 << 20)).unwrap();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
            writer.queue(&message((1 << 16) - 6)).unwrap();
            assert!(futures::poll!(std::pin::pin!(writer.drive())).is_pending(), "it is always behind");
            let _ = theirs.read(&mut sink).await.unwrap();
            assert!(writer.unsent.len() < 4 << 20, "{} bytes are kept", writer.unsent.len());
        }
    }

    #[tokio::test]
    async fn a_stream_that_does_not_begin_with_a_header_is_not_read_on() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        ours.write_all(&frame::prefix(FrameKind::Body, 8_000_000).unwrap()).await.unwrap();
        let mut reader = FrameReader::new(theirs);
        reader.header_first();
        assert!(matches!(reader.next().await, Err(StreamError::NoHeader)));
        let (mut ours, theirs) = tokio::io::duplex(64);
        ours.write_all(&Frame::Accept.to_vec().unwrap()).await.unwrap();
        let mut reader = FrameReader::new(theirs);
        reader.header_first();
        assert!(matches!(reader.next().await, Err(StreamError::NoHeader)));
    }
}
