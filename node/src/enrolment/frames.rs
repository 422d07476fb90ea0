//! Frames of an enrolment: a length as four big-endian bytes, then so many bytes. Unlike the mesh's, reading is
//! cancel-safe, because a side that waits for a frame also waits for its operator.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use comity_protocol::enrol::STEP_TIMEOUT;

use crate::mesh::frame::{self, FrameError};

const LENGTH_BYTES: usize = 4;

/// The frames of one stream.
#[derive(Debug)]
pub(crate) struct Frames<S> {
    stream: S,
    /// What has come of the next frame.
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next frame, of at most `max` bytes; `None` when the stream ends between frames. How long it may take is the
    /// caller's to say. Cancel-safe.
    ///
    /// # Errors
    /// [`FrameError`], before anything is allocated for a frame that is too long.
    pub(crate) async fn next(&mut self, max: usize) -> Result<Option<Vec<u8>>, FrameError> {
        loop {
            let missing = match self.announced() {
                None => LENGTH_BYTES - self.buffer.len(),
                Some(actual) if actual > max => return Err(FrameError::TooLong { actual, max }),
                Some(actual) => LENGTH_BYTES + actual - self.buffer.len(),
            };
            if missing == 0 {
                let frame = self.buffer.split_off(LENGTH_BYTES);
                self.buffer.clear();
                return Ok(Some(frame));
            }
            let mut rest = (&mut self.stream).take(missing as u64);
            if rest.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }

    /// Sends one frame. Not cancel-safe.
    ///
    /// # Errors
    /// [`FrameError`], also when the other side takes longer than a step may.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        frame::write(&mut self.stream, bytes, STEP_TIMEOUT).await?;
        frame::flush(&mut self.stream, STEP_TIMEOUT).await
    }

    /// Ends this side and waits until the other has ended its own, for as long as a step may take: what was sent last
    /// has arrived then.
    pub(crate) async fn finish(mut self) {
        let end = async {
            // A stream that has failed has nothing left to deliver.
            if self.stream.shutdown().await.is_ok() {
                let mut rest = [0; 256];
                while matches!(self.stream.read(&mut rest).await, Ok(count) if count > 0) {}
            }
        };
        let _in_time = timeout(STEP_TIMEOUT, end).await;
    }

    /// How long the next frame is, once its length has come.
    fn announced(&self) -> Option<usize> {
        let (length, _) = self.buffer.split_first_chunk::<LENGTH_BYTES>()?;
        Some(usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancelled_read_loses_nothing() {
        let (a, mut b) = tokio::io::duplex(64);
        let mut frames = Frames::new(a);
        for piece in [&[0, 0][..], &[0, 3, 1], &[2]] {
            b.write_all(piece).await.unwrap();
            // The piece is taken in, and then the wait for the rest is given up.
            tokio::select! {
                biased;
                frame = frames.next(8) => panic!("{frame:?}"),
                () = std::future::ready(()) => {}
            }
        }
        b.write_all(&[3, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(frames.next(8).await.unwrap(), Some(vec![1, 2, 3]));
        assert_eq!(frames.next(8).await.unwrap(), Some(vec![]));
        drop(b);
        assert_eq!(frames.next(8).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_too_long_or_cut_short_is_refused() {
        for (bytes, expected) in [
            (&[0, 0, 0, 9][..], "a frame of 9 bytes where at most 8 are allowed"),
            (&[255; 4], "a frame of 4294967295 bytes where at most 8 are allowed"),
            (&[0, 0, 0], "the stream ended within a frame"),
            (&[0, 0, 0, 2, 1], "the stream ended within a frame"),
        ] {
            let (a, mut b) = tokio::io::duplex(64);
            b.write_all(bytes).await.unwrap();
            drop(b);
            let error = Frames::new(a).next(8).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[tokio::test]
    async fn what_is_sent_arrives_before_the_end() {
        let (a, b) = tokio::io::duplex(64);
        let (mut ours, mut theirs) = (Frames::new(a), Frames::new(b));
        ours.send(b"last words").await.unwrap();
        let heard = async {
            let frame = theirs.next(64).await.unwrap();
            assert_eq!(theirs.next(64).await.unwrap(), None);
            theirs.finish().await;
            frame
        };
        let ((), heard) = tokio::join!(ours.finish(), heard);
        assert_eq!(heard, Some(b"last words".to_vec()));
    }
}
