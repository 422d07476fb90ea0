//! What every task may know of a connection: who is at the other end, when it was last heard, what runs over it, and
//! how to open a stream on it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use comity_protocol::ids::{NodeId, OrgName};
use comity_protocol::mesh::ConnectionId;
use comity_protocol::time::Mono;
use comity_protocol::trust::{Role, RoleSet};
use tokio::sync::{Notify, mpsc, oneshot};

use super::streams::{Ending, IdleStreams, MeshStream, StreamKind};
use crate::clock::Clock;

/// Streams that tasks have asked a connection to open and that it has not yet begun; whoever asks for more waits.
pub const OPEN_QUEUE: usize = 64;

/// One connection, shared by the tasks that use it.
#[derive(Debug)]
pub struct Connection {
    /// Its number in the core.
    pub id: ConnectionId,
    /// Who is at the other end.
    pub peer: NodeId,
    /// The peer's org and what that lets it do, once it is admitted.
    standing: OnceLock<(OrgName, RoleSet)>,
    clock: Clock,
    heard_micros: AtomicU64,
    busy: AtomicUsize,
    idle: Notify,
    requests: mpsc::Sender<OpenRequest>,
    /// How its streams hear that it is over.
    pub(super) ending: Ending,
    /// Call streams that wait for their next call.
    pub(super) idle_streams: IdleStreams,
}

impl Connection {
    /// A connection, and the requests for streams that its handler serves.
    pub(super) fn new(
        id: ConnectionId,
        peer: NodeId,
        clock: Clock,
    ) -> (Arc<Self>, mpsc::Receiver<OpenRequest>) {
        let (requests, receiver) = mpsc::channel(OPEN_QUEUE);
        let connection = Self {
            id,
            peer,
            standing: OnceLock::new(),
            heard_micros: AtomicU64::new(clock.mono().as_micros()),
            clock,
            busy: AtomicUsize::new(0),
            idle: Notify::new(),
            requests,
            ending: Ending::default(),
            idle_streams: IdleStreams::default(),
        };
        (Arc::new(connection), receiver)
    }

    /// The peer's org; `None` until the peer is admitted.
    pub fn org(&self) -> Option<&OrgName> {
        self.standing.get().map(|(org, _)| org)
    }

    /// Whether the peer's org lets it do that; nobody may do anything before being admitted.
    pub fn has_role(&self, role: Role) -> bool {
        self.standing.get().is_some_and(|(_, roles)| roles.has(role))
    }

    pub(super) fn set_standing(&self, org: OrgName, roles: RoleSet) {
        let _already_known = self.standing.set((org, roles));
    }

    /// Notes that bytes have come from the peer.
    pub(super) fn note_heard(&self) {
        self.heard_micros.store(self.clock.mono().as_micros(), Ordering::Relaxed);
    }

    /// How long ago bytes last came from the peer on one of our streams.
    pub fn silence(&self) -> Duration {
        self.clock.mono().since(Mono::from_micros(self.heard_micros.load(Ordering::Relaxed)))
    }

    /// Calls and pulls that run over the connection now.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::Acquire)
    }

    /// Waits until no call and no pull runs over the connection. Cancel-safe.
    pub async fn idle(&self) {
        loop {
            let mut notified = std::pin::pin!(self.idle.notified());
            notified.as_mut().enable();
            if self.busy() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// A stream for a call: one that has carried calls before, or a new one. Cancel-safe.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_call(self: &Arc<Self>) -> Result<MeshStream, OpenStreamError> {
        match self.idle_streams.take(self.clock.mono()) {
            Some(stream) => Ok(MeshStream::again(stream, self.clone())),
            None => self.open(StreamKind::Call).await,
        }
    }

    /// Ends the idle streams that have not been used for too long.
    pub(super) fn shed_idle_streams(&self) {
        self.idle_streams.shed(self.clock.mono());
    }

    /// Keeps a stream on which both sides have said everything.
    pub(super) fn keep_idle(&self, stream: libp2p::Stream) {
        self.idle_streams.put(stream, self.clock.mono());
    }

    /// Counts a call or a pull as running over this connection for as long as what it returns lives.
    pub fn work(self: &Arc<Self>) -> Busy {
        Busy::new(self.clone())
    }

    /// Opens a stream. The peer's consent to the protocol arrives with its first bytes: a refusal shows as a failed
    /// read. Cancel-safe: a stream opened for nobody is dropped.
    ///
    /// # Errors
    /// [`OpenStreamError`].
    pub async fn open(&self, kind: StreamKind) -> Result<MeshStream, OpenStreamError> {
        let (reply, opened) = oneshot::channel();
        self.requests.send(OpenRequest { kind, reply }).await.map_err(|_| OpenStreamError::Closed)?;
        opened.await.unwrap_or(Err(OpenStreamError::Closed))
    }
}

/// Counts a call or a pull as running over its connection for as long as it lives.
#[derive(Debug)]
pub struct Busy(Arc<Connection>);

impl Busy {
    fn new(connection: Arc<Connection>) -> Self {
        connection.busy.fetch_add(1, Ordering::AcqRel);
        Self(connection)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// A wish for a stream on a connection.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub(super) kind: StreamKind,
    pub(super) reply: oneshot::Sender<Result<MeshStream, OpenStreamError>>,
}

/// Why a stream could not be opened on a connection that stood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenStreamError {
    /// The connection has gone.
    #[error("the connection closed")]
    Closed,
    /// The peer gave no stream in time.
    #[error("the peer gave no stream in time")]
    TimedOut,
    /// The peer does not speak the protocol, or not with us.
    #[error("the peer does not speak {0}")]
    Unsupported(&'static str),
    /// The transport failed.
    #[error("the stream failed: {0}")]
    Io(String),
}

/// The connections over which calls may go: those of admitted peers. Bounded by the limit on connections.
#[derive(Debug, Default)]
pub struct Admitted(Mutex<BTreeMap<NodeId, Vec<Arc<Connection>>>>);

impl Admitted {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<Arc<Connection>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, connection: Arc<Connection>) {
        let mut peers = self.lock();
        let connections = peers.entry(connection.peer).or_default();
        if connections.iter().all(|known| known.id != connection.id) {
            connections.push(connection);
        }
    }

    pub(super) fn remove(&self, connection: &Connection) {
        connection.idle_streams.close();
        let mut peers = self.lock();
        if let Some(connections) = peers.get_mut(&connection.peer) {
            connections.retain(|known| known.id != connection.id);
            if connections.is_empty() {
                peers.remove(&connection.peer);
            }
        }
    }

    /// The connection to `peer` that was heard last.
    pub fn best(&self, peer: NodeId) -> Option<Arc<Connection>> {
        self.lock().get(&peer)?.iter().min_by_key(|connection| connection.silence()).cloned()
    }

    /// All connections.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.lock().values().flatten().cloned().collect()
    }
}
