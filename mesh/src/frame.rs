//! Frames on a stream: a length as four big-endian bytes, then so many bytes.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer announced more than it may send. Nothing of it was read.
    #[error("a frame of {actual} bytes where at most {max} are allowed")]
    TooLong {
        /// Bytes announced.
        actual: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The peer was too slow.
    #[error("the peer took longer than {} s over a frame", .0.as_secs())]
    TooSlow(Duration),
    /// The transport failed.
    #[error("the stream failed: {0}")]
    Io(#[from] io::Error),
}

impl FrameError {
    /// Whether the peer broke the protocol, rather than the network the stream.
    pub const fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::Truncated)
    }
}

/// Reads one frame of at most `max()` bytes; `None` at the end of the stream between frames. The wait for a frame to
/// begin has no bound: whoever calls has one. Once begun, the frame must be there within `deadline`.
/// `max` is asked when the length is known. Not cancel-safe: the stream must be dropped after a cancelled call.
///
/// # Errors
/// [`FrameError`], before anything is allocated for a frame that is too long.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    max: impl Fn() -> usize,
    deadline: Duration,
) -> Result<Option<Vec<u8>>, FrameError> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    let rest = async {
        stream.read_exact(&mut length[1..]).await.map_err(ended)?;
        let actual = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if actual > max() {
            return Err(FrameError::TooLong { actual, max: max() });
        }
        let mut frame = vec![0; actual];
        stream.read_exact(&mut frame).await.map_err(ended)?;
        Ok(Some(frame))
    };
    timeout(deadline, rest).await.unwrap_or(Err(FrameError::TooSlow(deadline)))
}

/// Writes one frame within `deadline`, without flushing. Not cancel-safe: the stream must be dropped after a cancelled
/// call.
///
/// # Errors
/// [`FrameError::TooSlow`] and [`FrameError::Io`].
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
    deadline: Duration,
) -> Result<(), FrameError> {
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let all = async {
        // One buffer, one write: over TCP a length of its own would be a packet of its own.
        let mut bytes = Vec::with_capacity(4 + frame.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(frame);
        stream.write_all(&bytes).await?;
        Ok(())
    };
    timeout(deadline, all).await.unwrap_or(Err(FrameError::TooSlow(deadline)))
}

/// Flushes within `deadline`.
///
/// # Errors
/// [`FrameError::TooSlow`] and [`FrameError::Io`].
pub async fn flush(stream: &mut (impl AsyncWrite + Unpin), deadline: Duration) -> Result<(), FrameError> {
    timeout(deadline, stream.flush()).await.map_err(|_| FrameError::TooSlow(deadline))?.map_err(Into::into)
}

fn ended(error: io::Error) -> FrameError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Truncated,
        _ => FrameError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn frames_go_through_and_the_stream_ends_between_them() {
        let (mut a, mut b) = tokio::io::duplex(64);
        let writer = async {
            for frame in [&b"one"[..], b"", &[7; 300]] {
                write(&mut a, frame, SOON).await.unwrap();
            }
            drop(a);
        };
        let reader = async {
            let mut frames = Vec::new();
            while let Some(frame) = read(&mut b, || 300, SOON).await.unwrap() {
                frames.push(frame);
            }
            frames
        };
        let ((), frames) = tokio::join!(writer, reader);
        assert_eq!(frames, [b"one".to_vec(), Vec::new(), vec![7; 300]]);
    }

    #[tokio::test]
    async fn what_is_too_long_or_cut_short_is_refused() {
        for (bytes, expected) in [
            (&[0, 0, 1, 45][..], "a frame of 301 bytes where at most 300 are allowed"),
            (&[255, 255, 255, 255, 0], "a frame of 4294967295 bytes where at most 300 are allowed"),
            (&[0, 0], "the stream ended within a frame"),
            (&[0, 0, 0, 9, 1, 2], "the stream ended within a frame"),
        ] {
            let mut input = bytes;
            let error = read(&mut input, || 300, SOON).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(error.is_misbehaviour());
        }
    }

    #[tokio::test]
    async fn a_peer_that_stalls_within_a_frame_is_given_up() {
        let deadline = Duration::from_millis(20);
        let (mut a, mut b) = tokio::io::duplex(64);
        a.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
        let error = read(&mut b, || 300, deadline).await.unwrap_err();
        assert!(matches!(error, FrameError::TooSlow(_)), "{error}");
        let error = write(&mut a, &[0; 100], deadline).await.unwrap_err();
        assert!(matches!(error, FrameError::TooSlow(_)), "{error}");
    }
}
