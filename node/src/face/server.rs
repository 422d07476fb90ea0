//! The sockets of the MCP face: accepting, bounding and draining connections.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::OwnedSemaphorePermit,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{config::FaceConfig, core::Core, http, line};
use crate::gateway::Gateway;

/// Bytes of a request's header, at most. Above: HTTP 431.
const HEADER_BYTES_MAX: usize = 32 * 1024;

/// Bytes of a connection's read buffer.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// How long sent bytes may stay unacknowledged before the kernel gives a connection up: a client that never reads
/// must not hold a call for ever.
const TCP_UNREAD_MAX: Duration = Duration::from_secs(60);

/// Pause after a failed accept, which usually means that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often idle sessions are looked for.
const COLLECT_EVERY: Duration = Duration::from_secs(30);

/// What a connection too many is told.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

/// An MCP endpoint whose sockets are open.
pub struct Face {
    core: Arc<Core>,
    tcp: Option<TcpListener>,
    unix: Option<LineSocket>,
}

/// Why an endpoint could not be opened.
#[derive(Debug, Error)]
pub enum FaceError {
    /// The TCP address is taken or not ours.
    #[error("cannot listen for MCP on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The Unix socket could not be made, or another process serves it.
    #[error("cannot listen for MCP on {}", path.display())]
    Socket {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Face {
    /// Opens the sockets. Connections wait in the kernel until [`Face::run`].
    ///
    /// # Errors
    /// [`FaceError`], naming the address or path.
    pub async fn bind(config: FaceConfig, gateway: Arc<dyn Gateway>) -> Result<Self, FaceError> {
        let tcp = match config.listen {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let unix = config.unix_socket.clone().map(LineSocket::bind).transpose()?;
        Ok(Self { core: Arc::new(Core::new(config, gateway)), tcp, unix })
    }

    /// The TCP address that was opened, with the port that the system chose if it was asked to.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|tcp| tcp.local_addr().ok())
    }

    /// What is going on here at any time, for `comity status` and the metrics.
    #[must_use]
    pub fn gauges(&self) -> FaceGauges {
        FaceGauges(Arc::clone(&self.core))
    }

    /// Serves until `shutdown`; then takes no more connections, ends streams of notifications, lets calls in flight
    /// finish for [`drain_grace`](super::FaceLimits::drain_grace), and ends what is left. When it returns, no task of
    /// this endpoint lives. Dropping the future ends everything at once.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { core, tcp, unix } = self;
        let _stopped = core.stopped.clone().drop_guard();
        let mut connections = JoinSet::new();
        accept(&core, tcp, unix, &shutdown, &mut connections).await;
        core.draining.cancel();
        // Nobody can bring their input any more.
        core.suspended.clear();
        core.tasks.close();
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                note_panic(ended);
            }
            core.tasks.wait().await;
        };
        if tokio::time::timeout(core.config.limits.drain_grace, drained).await.is_err() {
            tracing::warn!("calls from MCP clients were still in flight when the grace ended");
        }
        core.stopped.cancel();
        connections.shutdown().await;
        core.tasks.wait().await;
    }
}

/// Looks into a running endpoint.
#[derive(Clone)]
pub struct FaceGauges(Arc<Core>);

impl FaceGauges {
    /// Connections open, HTTP and Unix socket together.
    #[must_use]
    pub fn connections(&self) -> usize {
        let room = self.0.http_room.available_permits() + self.0.line_room.available_permits();
        (2 * self.0.config.limits.connections_max).saturating_sub(room)
    }

    /// Legacy sessions over HTTP.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.sessions.len()
    }

    /// Calls in flight, and finished ones whose stream waits to be resumed.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.0.calls_in_flight()
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, FaceError> {
    TcpListener::bind(address).await.map_err(|source| FaceError::Listen { address, source })
}

/// Takes connections until `shutdown`. Dropping the listeners on return closes the sockets.
async fn accept(
    core: &Arc<Core>,
    tcp: Option<TcpListener>,
    unix: Option<LineSocket>,
    shutdown: &CancellationToken,
    connections: &mut JoinSet<()>,
) {
    let limits = &core.config.limits;
    let mut collect = tokio::time::interval(COLLECT_EVERY);
    collect.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = collect.tick() => {
                core.sessions.collect(Instant::now(), limits.session_idle);
                core.suspended.collect(Instant::now());
            }
            Some(ended) = connections.join_next() => note_panic(ended),
            accepted = accept_tcp(tcp.as_ref()) => match (accepted, Arc::clone(&core.http_room).try_acquire_owned()) {
                (Ok(stream), Ok(room)) => { connections.spawn(serve_http(Arc::clone(core), stream, room)); }
                (Ok(stream), Err(_)) => turn_away(&stream),
                (Err(error), _) => pause(&error).await,
            },
            accepted = accept_unix(unix.as_ref()) => match (accepted, Arc::clone(&core.line_room).try_acquire_owned()) {
                (Ok(stream), Ok(room)) => { connections.spawn(serve_lines(Arc::clone(core), stream, room)); }
                (Ok(_), Err(_)) => tracing::warn!("too many connections on the MCP socket"),
                (Err(error), _) => pause(&error).await,
            },
        }
    }
}

/// A connection that panicked is a defect of ours; the others go on.
fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "serving an MCP connection panicked");
    }
}

async fn accept_tcp(tcp: Option<&TcpListener>) -> io::Result<TcpStream> {
    match tcp {
        Some(tcp) => tcp.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn accept_unix(unix: Option<&LineSocket>) -> io::Result<UnixStream> {
    match unix {
        Some(unix) => unix.listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept an MCP connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// A fresh socket has room for these few bytes; a client that gets none of them sees a closed connection.
fn turn_away(stream: &TcpStream) {
    tracing::warn!("too many connections to the MCP endpoint");
    let _ = stream.try_write(BUSY);
}

async fn serve_http(core: Arc<Core>, stream: TcpStream, _room: OwnedSemaphorePermit) {
    tune(&stream);
    let draining = core.draining.clone();
    let header_timeout = core.config.limits.header_timeout;
    let service = service_fn(move |request| {
        let answer = http::serve(Arc::clone(&core), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(READ_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke");
    }
}

/// Without TCP_NODELAY each call would wait some 40 ms for the client's delayed acknowledgement.
fn tune(stream: &TcpStream) {
    let unread = u32::try_from(TCP_UNREAD_MAX.as_millis()).unwrap_or(u32::MAX);
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, unread)?));
    if let Err(error) = tuned {
        tracing::debug!(%error, "cannot tune a connection");
    }
}

async fn serve_lines(core: Arc<Core>, stream: UnixStream, _room: OwnedSemaphorePermit) {
    line::serve(core, stream).await;
}

/// A Unix socket that only its owner can reach; its file goes when it closes.
struct LineSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl LineSocket {
    fn bind(path: PathBuf) -> Result<Self, FaceError> {
        match open_socket(&path) {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(FaceError::Socket { path, source }),
        }
    }
}

impl Drop for LineSocket {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A file that nobody answers is left from a node that was killed; one that somebody answers is in use.
fn open_socket(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_sockets_do_not_wait_to_send() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        tune(&accepted);
        assert!(accepted.nodelay().unwrap());
        assert_eq!(rustix::net::sockopt::tcp_user_timeout(&accepted).unwrap(), 60_000);
    }
}
