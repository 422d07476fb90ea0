//! The node's end of the control socket.

use std::fs::{self, File, TryLockError};
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::frame::{FrameError, LINE_DEADLINE, REQUEST_BYTES_MAX, read_line, write_line};
use super::messages::{ControlFault, Event, FaultKind, Reply, Request, Response};
use crate::files::parent;
use crate::telemetry::Chain;

/// Connections served at once; one more is told that the node is busy.
pub const CONNECTIONS_MAX: usize = 32;
/// Connections that are being told so at once; those beyond it are closed without a word.
pub const REFUSALS_MAX: usize = 32;
/// Events of one request that may wait for a slow reader; the handler then waits too.
pub const EVENTS_MAX: usize = 64;
/// How long accepting pauses after it failed: the process is out of descriptors, and time closes some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Does what the command line asks. Implemented by the node.
pub trait ControlHandler: Send + Sync + 'static {
    /// Serves one request. Dropped when the client goes away, so it must leave nothing half done.
    fn handle(
        &self,
        request: Request,
        events: Events,
    ) -> impl Future<Output = Result<Response, ControlFault>> + Send;
}

/// Where a handler tells what happens before it answers.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<Event>);

impl Events {
    /// Tells the client. Waits while it is slow. Cancel-safe: the event is then not sent.
    pub async fn send(&self, event: Event) {
        // A client that has gone drops the handler as well: there is nobody left to tell.
        let _ = self.0.send(event).await;
    }
}

/// Why the socket could not be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another node serves this data directory.
    #[error("a node is already running with the data directory {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// The system refused.
    #[error("cannot open the control socket {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The open socket. While it lives no other node can open one in the same directory.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

impl ControlServer {
    /// Opens the socket at `path`, which only its owner may use. What a node that died left there is removed; the lock
    /// beside it, which the system releases when a process ends, tells the two apart without a race.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        let lock = File::create(path.with_extension("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BindError::AlreadyRunning(parent(path).to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = with_short_path(path, |short| UnixListener::bind(short)).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(ControlServer { listener, path: path.to_owned(), _lock: lock })
    }

    /// Serves until cancelled; requests that are still running then are dropped.
    pub async fn run<H: ControlHandler>(self, handler: Arc<H>, cancel: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => begin(stream, &slots, &handler, &mut tasks),
                    Err(error) => {
                        warn!(%error, "cannot accept on the control socket");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = tasks.join_next() => report_panic(ended),
            }
        }
        tasks.shutdown().await;
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn begin<H: ControlHandler>(
    stream: UnixStream,
    slots: &Arc<Semaphore>,
    handler: &Arc<H>,
    tasks: &mut JoinSet<()>,
) {
    match Arc::clone(slots).try_acquire_owned() {
        Ok(slot) => {
            let handler = Arc::clone(handler);
            tasks.spawn(async move {
                serve(stream, handler).await;
                drop(slot);
            });
        }
        Err(_) if tasks.len() < CONNECTIONS_MAX + REFUSALS_MAX => {
            tasks.spawn(refuse(stream));
        }
        Err(_) => {}
    }
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(error = %Chain(&error), "a control request panicked");
    }
}

async fn refuse(mut stream: UnixStream) {
    let fault = ControlFault::new(FaultKind::Busy, "the node serves as many control requests as it may")
        .next("try again when some have ended");
    let _ = write_line(&mut stream, &Reply::Error(fault)).await;
}

async fn serve<H: ControlHandler>(stream: UnixStream, handler: Arc<H>) {
    if !is_ours(&stream) {
        warn!("refused a control connection of another user");
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let request = timeout(LINE_DEADLINE, read_line::<Request, _>(&mut read, REQUEST_BYTES_MAX)).await;
    let written = match request.unwrap_or(Err(FrameError::Slow)) {
        Ok(request) => answer(request, &*handler, read, &mut write).await,
        Err(FrameError::Ended) => Ok(()),
        Err(error) => {
            let fault = ControlFault::new(FaultKind::Usage, format!("the request cannot be read: {error}"));
            write_line(&mut write, &Reply::Error(fault)).await
        }
    };
    if let Err(error) = written {
        debug!(error = %Chain(&error), "a control client went away");
    }
}

/// Runs the handler and passes its events on, until it has answered or the client has gone.
async fn answer<H: ControlHandler>(
    request: Request,
    handler: &H,
    mut read: BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> Result<(), FrameError> {
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let work = handler.handle(request, Events(sender));
    tokio::pin!(work);
    let answered = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => write_line(write, &Reply::Event(event)).await?,
            answered = &mut work => break answered,
            () = gone(&mut read) => return Err(FrameError::Ended),
        }
    };
    while let Ok(event) = events.try_recv() {
        write_line(write, &Reply::Event(event)).await?;
    }
    write_line(write, &answered.map_or_else(Reply::Error, Reply::Done)).await
}

/// Ends when the client has closed its end, or says more than the one request that it may.
async fn gone(read: &mut (impl AsyncRead + Unpin)) {
    let _ = read.read_u8().await;
}

/// The socket's permissions should keep others out; not every system heeds them, so the kernel is asked as well.
fn is_ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// Calls `with` with a path short enough for a socket's address (108 bytes): a long one is reached through its
/// directory's descriptor.
pub(super) fn with_short_path<T>(path: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    const SOCKET_PATH_BYTES_MAX: usize = 100;
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return with(path);
    }
    let dir = File::open(parent(path))?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    with(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
}
