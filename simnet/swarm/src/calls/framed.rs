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
            self.buffer.clear();
            self.at = 0;
            self.buffer.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err("the peer has ended the stream".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(format!("the stream broke: {error}")),
            }
        }
    }

    /// Writes a frame's bytes. Calls are small here, so it waits for them to be taken.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Ends the stream in peace.
    pub(super) async fn finish(mut self) {
        // A stream that cannot be ended has ended.
        let _ = self.stream.shutdown().await;
    }
}
