//! A call's stream as both machines use it: frames in, frames out, neither waiting for the other.

use std::io;

use comity_protocol::call::frame::{self, FrameKind};
use comity_protocol::call::{Frame, FrameDecoder, FrameError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::mesh::MeshStream;

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// Bytes that may wait to be written before nothing more is taken in for the peer: one largest body and some.
pub(super) const UNSENT_BYTES_MAX: usize = frame::PAYLOAD_BYTES_MAX + 256 * 1024;

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
}

/// The reading half.
pub(super) struct FrameReader {
    half: ReadHalf<MeshStream>,
    decoder: FrameDecoder,
    buffer: Vec<u8>,
    at: usize,
}

impl FrameReader {
    /// The next frame. Cancel-safe: bytes that have arrived are kept.
    pub(super) async fn next(&mut self) -> Result<Frame, StreamError> {
        loop {
            let mut rest = &self.buffer[self.at..];
            let frame = self.decoder.push(&mut rest)?;
            self.at = self.buffer.len() - rest.len();
            if let Some(frame) = frame {
                return Ok(frame);
            }
            self.buffer.clear();
            self.at = 0;
            self.buffer.reserve(READ_BYTES);
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Err(StreamError::Ended);
            }
        }
    }
}

/// The writing half, with what waits to be written.
pub(super) struct FrameWriter {
    half: WriteHalf<MeshStream>,
    unsent: Vec<u8>,
    sent: usize,
    flushed: bool,
}

impl FrameWriter {
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
            self.sent += self.half.write(&self.unsent[self.sent..]).await?;
        }
        self.half.flush().await?;
        self.unsent.clear();
        (self.sent, self.flushed) = (0, true);
        // A large body should not stay allocated for the rest of a long call.
        self.unsent.shrink_to(READ_BYTES);
        Ok(())
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
    let reader = FrameReader { half: read, decoder: FrameDecoder::new(), buffer: Vec::new(), at: 0 };
    (reader, FrameWriter { half: write, unsent: Vec::new(), sent: 0, flushed: true })
}
