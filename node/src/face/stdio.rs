//! `comity stdio`: MCP over stdin and stdout, for clients that start a process.
//!
//! The process is a pipe to the Unix socket of the node that runs already; it understands nothing of what it carries,
//! so it can neither lose nor reorder anything. When the client closes stdin, the node finishes the calls in flight,
//! closes its side, and the pipe ends.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
};

/// Bytes carried at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Pieces of input that may wait for the node; then reading stdin waits.
const PIECES_MAX: usize = 8;

/// Why the bridge ended badly.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// No node answers at the socket.
    #[error("no Comity node is running here ({} does not answer): start one with `comity up`", socket.display())]
    NotRunning {
        /// Where it was expected.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The node went away while the client still spoke.
    #[error("the node closed the connection: it was stopped, or a message was too large")]
    NodeGone,
    /// The client stopped reading.
    #[error("cannot write to stdout")]
    Output(#[source] io::Error),
}

/// Bridges this process's stdin and stdout to the node that serves `socket`; returns when the client is done.
///
/// Stdin is read on a thread of its own, which ends with the process: a read from a terminal cannot be interrupted.
///
/// # Errors
/// [`BridgeError`]; its text is meant for stderr.
pub async fn bridge(socket: &Path) -> Result<(), BridgeError> {
    let (pieces, input) = mpsc::channel(PIECES_MAX);
    let stream = connect(socket).await?;
    std::thread::spawn(move || read_pieces(io::stdin().lock(), &pieces));
    pipe(stream, input, tokio::io::stdout()).await
}

async fn connect(socket: &Path) -> Result<UnixStream, BridgeError> {
    let refused = |source| BridgeError::NotRunning { socket: socket.to_owned(), source };
    UnixStream::connect(socket).await.map_err(refused)
}

/// Reads until the end, an error, or nobody wants more.
fn read_pieces(mut input: impl Read, pieces: &mpsc::Sender<Bytes>) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = input.read(&mut buffer) {
        if pieces.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() {
            return;
        }
    }
}

/// Carries bytes both ways until the node has nothing more to say.
async fn pipe(
    mut stream: UnixStream,
    mut input: mpsc::Receiver<Bytes>,
    mut output: impl AsyncWrite + Unpin,
) -> Result<(), BridgeError> {
    let (mut from_node, mut to_node) = stream.split();
    let mut ended = false;
    let mut buffer = vec![0; PIECE_BYTES];
    let up = async {
        while let Some(piece) = input.recv().await {
            to_node.write_all(&piece).await?;
        }
        ended = true;
        to_node.shutdown().await?;
        // The node now finishes: the other direction says when.
        std::future::pending::<io::Result<()>>().await
    };
    let down = async {
        loop {
            match from_node.read(&mut buffer).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(read) => {
                    output.write_all(&buffer[..read]).await.map_err(BridgeError::Output)?;
                    output.flush().await.map_err(BridgeError::Output)?;
                }
            }
        }
    };
    tokio::select! {
        biased;
        down = down => down?,
        _ = up => {}
    }
    if ended { Ok(()) } else { Err(BridgeError::NodeGone) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_is_passed_on() {
        let (client, mut node) = UnixStream::pair().unwrap();
        let (pieces, input) = mpsc::channel(PIECES_MAX);
        let mut output = Vec::new();
        let node = async {
            let mut heard = Vec::new();
            node.read_to_end(&mut heard).await.unwrap();
            node.write_all(b"late answer\n").await.unwrap();
            drop(node);
            heard
        };
        let speak = async {
            read_in_thread(b"one\ntwo\n".to_vec(), pieces).await;
        };
        let (bridged, heard, ()) = tokio::join!(pipe(client, input, &mut output), node, speak);
        bridged.unwrap();
        assert_eq!((heard.as_slice(), output.as_slice()), (&b"one\ntwo\n"[..], &b"late answer\n"[..]));
    }

    async fn read_in_thread(bytes: Vec<u8>, pieces: mpsc::Sender<Bytes>) {
        tokio::task::spawn_blocking(move || read_pieces(&bytes[..], &pieces)).await.unwrap();
    }

    #[tokio::test]
    async fn a_node_that_leaves_first_is_an_error() {
        let (client, node) = UnixStream::pair().unwrap();
        let (_pieces, input) = mpsc::channel(PIECES_MAX);
        drop(node);
        assert!(matches!(pipe(client, input, Vec::new()).await, Err(BridgeError::NodeGone)));
    }

    #[tokio::test]
    async fn no_node_is_said_plainly() {
        let dir = tempfile::tempdir().unwrap();
        let error = connect(&dir.path().join("mcp.sock")).await.unwrap_err();
        assert!(error.to_string().contains("comity up"));
    }
}
