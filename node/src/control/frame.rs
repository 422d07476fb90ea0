//! Lines of JSON with a bound on their length and a deadline.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Longest request line, in bytes: a call's arguments are in it.
pub const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Longest reply line, in bytes: a call's result is in it.
pub const REPLY_BYTES_MAX: usize = 256 << 20;
/// How long the node waits for a request, and either side for the other to take a line.
pub const LINE_DEADLINE: Duration = Duration::from_secs(30);

/// Why a line could not be exchanged.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The connection failed.
    #[error("the control connection failed")]
    Io(#[from] io::Error),
    /// The line is longer than allowed.
    #[error("a line of more than {0} bytes")]
    TooLong(usize),
    /// The line is not what was expected.
    #[error("not a message of this version of Comity: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The other side was too slow.
    #[error("the other side took longer than {LINE_DEADLINE:?}")]
    Slow,
    /// The connection ended before the line did.
    #[error("the connection ended early")]
    Ended,
}

/// Reads one line. Not cancel-safe: what was read so far is lost.
pub async fn read_line<T, R>(reader: &mut R, bytes_max: usize) -> Result<T, FrameError>
where
    T: DeserializeOwned,
    R: AsyncBufRead + Unpin,
{
    let mut line = Vec::new();
    reader.take(bytes_max as u64 + 1).read_until(b'\n', &mut line).await?;
    match line.last() {
        Some(b'\n') => Ok(serde_json::from_slice(&line)?),
        _ if line.len() > bytes_max => Err(FrameError::TooLong(bytes_max)),
        _ => Err(FrameError::Ended),
    }
}

/// Writes one line. Not cancel-safe: part of it may have been written.
pub async fn write_line<T, W>(writer: &mut W, message: &T) -> Result<(), FrameError>
where
    T: Serialize,
    W: AsyncWrite + Unpin,
{
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let write = async {
        writer.write_all(&line).await?;
        writer.flush().await
    };
    Ok(timeout(LINE_DEADLINE, write).await.map_err(|_| FrameError::Slow)??)
}
