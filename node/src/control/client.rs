//! The command line's end of the control socket.

use std::io;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::frame::{FrameError, REPLY_BYTES_MAX, read_line, write_line};
use super::messages::{ControlFault, Event, Reply, Request, Response};
use super::server::with_short_path;
use crate::files::parent;

/// Why a request was not answered.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No node runs with this data directory.
    #[error("no node is running with the data directory {}", .0.display())]
    NotRunning(PathBuf),
    /// The socket cannot be used.
    #[error("cannot talk to the node at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the node did not answer")]
    Frame(#[from] FrameError),
    /// The node said no.
    #[error(transparent)]
    Fault(#[from] ControlFault),
    /// The node answered another question.
    #[error("the node answered something else; do the node and this command have the same version?")]
    Unexpected,
}

/// One connection, which carries one request.
#[derive(Debug)]
pub struct ControlClient {
    stream: BufReader<UnixStream>,
}

impl ControlClient {
    /// Connects to the node that serves the socket at `path`. Call it within a tokio runtime.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let connected = with_short_path(path, |short| BlockingStream::connect(short)).and_then(|stream| {
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        });
        match connected {
            Ok(stream) => Ok(ControlClient { stream: BufReader::new(stream) }),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Err(ClientError::NotRunning(parent(path).to_owned()))
            }
            Err(source) => Err(ClientError::Connect { path: path.to_owned(), source }),
        }
    }

    /// Asks, hands every event to `on_event`, and returns the answer. How long it may take is the caller's to say:
    /// dropping the future closes the connection, and that cancels the request.
    pub async fn request(
        mut self,
        request: &Request,
        mut on_event: impl FnMut(Event),
    ) -> Result<Response, ClientError> {
        write_line(&mut self.stream, request).await?;
        loop {
            match read_line::<Reply, _>(&mut self.stream, REPLY_BYTES_MAX).await? {
                Reply::Event(event) => on_event(event),
                Reply::Done(response) => return Ok(response),
                Reply::Error(fault) => return Err(fault.into()),
            }
        }
    }
}
