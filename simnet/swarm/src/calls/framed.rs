//! A call's stream as frames.

use std::io;

use comity_mesh::MeshStream;
use comity_protocol::call::{Frame, FrameDecoder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes read at once.
const READ_BYTES: usize = 4096;

/// A stream with what has been read of it and is no whole frame yet.
pub(super) struct Framed {
    stream: MeshStream,
    decoder: FrameDecoder,
    buffer: Vec<u8>,
    at: usize,
}

impl Framed {
    pub(super) fn new(stream: MeshStream) -> Self {
        Self { stream, decoder: FrameDecoder::new(), buffer: Vec::new(), at: 0 }
    }

    /// The next frame, or why none comes. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Frame, String> {
        loop {
            let mut rest = &self.buffer[self.at..];
            let frame = self.decoder.push(&mut rest).map_err(|error| error.to_string())?;
            self.at = self.buffer.len() - rest.len();
            if let Some(frame) = frame {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Waits until the next call begins on the stream. Cancel-safe.
    pub(super) async fn readable(&mut self) -> Result<(), String> {
        if self.at < self.buffer.len() { Ok(()) } else { self.fill().await }
    }

    /// Reads on, once all that was read has been taken.
    async fn fill(&mut self) -> Result<(), String> {
        self.buffer.clear();
        self.at = 0;
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err("the peer has ended the stream".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the stream broke: {error}")),
        }
    }

    /// Writes a frame's bytes. Calls are small here, so it waits for them to be taken.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Keeps the stream, which this node has opened, for its next call to the same peer.
    pub(super) fn keep_for_another(self) {
        self.stream.keep_for_another();
    }

    /// Ends the stream in peace.
    pub(super) async fn finish(mut self) {
        // A stream that cannot be ended has ended.
        let _ = self.stream.shutdown().await;
    }
}
