//! The rest of the node's way into the mesh.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use comity_protocol::ids::{NodeId, OrgName, RootHash};
use comity_protocol::mesh::MeshEvent;
use comity_protocol::mesh::overlay::Seed;
use comity_protocol::mesh::own::OwnOffers;
use comity_protocol::trust::{Membership, RootChain, Verified};
use libp2p::Multiaddr;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use super::connections::{Admitted, Connection, OpenStreamError};
use super::enrol::EnrolStream;
use super::snapshot::MeshSnapshot;
use super::streams::{MeshStream, StreamKind};

/// Commands that may wait for the driver; whoever sends more waits.
pub const COMMANDS_MAX: usize = 256;

/// Events that a slow subscriber may lag behind; the oldest are lost to it then.
pub const EVENTS_MAX: usize = 1024;

/// How long a call's stream may take to open, dialling and admission included.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// Why a stream to a node could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The node could not be reached: nothing was sent.
    #[error("cannot reach {node}: {detail}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What went wrong.
        detail: String,
    },
    /// The node was reached, and one side did not admit the other.
    #[error("{node} and this node do not admit each other: {detail}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Whether it was the other that refused.
        by_peer: bool,
        /// A stable name.
        code: String,
        /// A sentence.
        detail: String,
    },
    /// The node was reached and does not speak the protocol.
    #[error("{node} does not speak {protocol}")]
    Unsupported {
        /// The node.
        node: NodeId,
        /// The protocol.
        protocol: &'static str,
    },
    /// Too many wait for connections already.
    #[error("too many calls wait for connections")]
    Overloaded,
    /// This node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl OpenError {
    /// Whether another node may be tried: true for all that is the other node's or the network's doing. Nothing was handed
    /// over in any case.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    pub(super) fn unreachable(node: NodeId, detail: impl Into<String>) -> Self {
        Self::Unreachable { node, detail: detail.into() }
    }

    pub(super) fn from_stream(node: NodeId, error: OpenStreamError) -> Self {
        match error {
            OpenStreamError::Unsupported(protocol) => Self::Unsupported { node, protocol },
            other => Self::unreachable(node, other.to_string()),
        }
    }
}

/// What the handle asks of the driver.
pub(super) enum Command {
    /// A connection to an admitted node, dialled if need be.
    Connect {
        node: NodeId,
        addresses: Vec<String>,
        reply: oneshot::Sender<Result<Arc<Connection>, OpenError>>,
    },
    /// A connection for an enrolment, to whoever holds the key of `node`.
    Enrol {
        node: NodeId,
        address: Multiaddr,
        reply: oneshot::Sender<Result<EnrolStream, OpenError>>,
    },
    Offers(OwnOffers),
    Pin(OrgName, RootHash),
    Unpin(OrgName),
    Seed(Seed),
    Membership(Box<Verified<Membership>>, RootChain),
    Shutdown {
        done: oneshot::Sender<()>,
    },
}

/// The mesh, for the rest of the node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MeshHandle {
    node: NodeId,
    commands: mpsc::Sender<Command>,
    pub(super) shared: Arc<Shared>,
}

/// What the driver and the handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) admitted: Admitted,
    pub(super) snapshot: ArcSwap<MeshSnapshot>,
    pub(super) events: broadcast::Sender<MeshEvent>,
    /// Rises with every new snapshot.
    pub(super) refreshed: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            admitted: Admitted::default(),
            snapshot: ArcSwap::default(),
            events: broadcast::channel(EVENTS_MAX).0,
            refreshed: watch::channel(0).0,
        })
    }
}

impl MeshHandle {
    pub(super) fn new(node: NodeId, shared: Arc<Shared>) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        (Self { node, commands, shared }, receiver)
    }

    /// This node.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The mesh as it was a moment ago.
    #[must_use]
    pub fn snapshot(&self) -> Arc<MeshSnapshot> {
        self.shared.snapshot.load_full()
    }

    /// Rises with every new snapshot.
    #[must_use]
    pub fn refreshed(&self) -> watch::Receiver<u64> {
        self.shared.refreshed.subscribe()
    }

    /// What happens from now on. A subscriber that lags by more than [`EVENTS_MAX`] loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<MeshEvent> {
        self.shared.events.subscribe()
    }

    /// Waits for a snapshot that `holds`. `None` when the mesh has stopped. Cancel-safe.
    pub async fn wait_until(&self, holds: impl Fn(&MeshSnapshot) -> bool) -> Option<Arc<MeshSnapshot>> {
        let mut refreshed = self.refreshed();
        loop {
            refreshed.mark_unchanged();
            let snapshot = self.snapshot();
            if holds(&snapshot) {
                return Some(snapshot);
            }
            tokio::select! {
                changed = refreshed.changed() => changed.ok()?,
                () = self.commands.closed() => return None,
            }
        }
    }

    /// How long ago bytes last came from `node` on a link or a call; `None` when it is not connected.
    #[must_use]
    pub fn last_heard(&self, node: NodeId) -> Option<Duration> {
        self.shared.admitted.best(node).map(|connection| connection.silence())
    }

    /// A stream for one call to `node`, over a connection that stands or over a new one to `addresses` (those of its advert
    /// when empty). One that has carried calls is used again ([`MeshStream::keep_for_another`]). Bytes flow at once; that the peer does not take the call shows as an error of the first read.
    /// Cancel-safe: a stream that nobody waits for is dropped.
    ///
    /// # Errors
    /// [`OpenError`]; nothing has been handed over then.
    pub async fn open_call(&self, node: NodeId, addresses: &[String]) -> Result<MeshStream, OpenError> {
        self.open(node, addresses, StreamKind::Call).await
    }

    pub(super) async fn open(
        &self,
        node: NodeId,
        addresses: &[String],
        kind: StreamKind,
    ) -> Result<MeshStream, OpenError> {
        let opened = timeout(OPEN_DEADLINE, self.open_unbounded(node, addresses, kind)).await;
        opened.unwrap_or_else(|_| Err(OpenError::unreachable(node, "it took too long")))
    }

    /// A connection may close just when it is chosen; one more is tried then.
    async fn open_unbounded(
        &self,
        node: NodeId,
        addresses: &[String],
        kind: StreamKind,
    ) -> Result<MeshStream, OpenError> {
        if let Some(connection) = self.shared.admitted.best(node) {
            match open_on(&connection, kind).await {
                Err(OpenStreamError::Closed) => {}
                opened => return opened.map_err(|error| OpenError::from_stream(node, error)),
            }
        }
        let connection = self.connect(node, addresses).await?;
        open_on(&connection, kind).await.map_err(|error| OpenError::from_stream(node, error))
    }

    async fn connect(&self, node: NodeId, addresses: &[String]) -> Result<Arc<Connection>, OpenError> {
        let addresses = addresses.to_vec();
        self.ask(|reply| Command::Connect { node, addresses, reply }).await?
    }

    /// Opens an enrolment stream to whoever holds the key of `node` at `address`. Neither side needs to be a member; the
    /// connection carries nothing else and ends with the stream.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open_enrol(&self, node: NodeId, address: Multiaddr) -> Result<EnrolStream, OpenError> {
        let asked = self.ask(|reply| Command::Enrol { node, address, reply });
        let opened = timeout(OPEN_DEADLINE, asked).await;
        opened.unwrap_or_else(|_| Err(OpenError::unreachable(node, "it took too long")))?
    }

    /// What this node offers from now on.
    pub async fn set_offers(&self, offers: OwnOffers) {
        self.tell(Command::Offers(offers)).await;
    }

    /// Pins an org's root from now on.
    pub async fn pin(&self, org: OrgName, pin: RootHash) {
        self.tell(Command::Pin(org, pin)).await;
    }

    /// Takes a pin back; the org's nodes are sent away.
    pub async fn unpin(&self, org: OrgName) {
        self.tell(Command::Unpin(org)).await;
    }

    /// Adds a seed, which is dialled and re-dialled for ever.
    pub async fn add_seed(&self, seed: Seed) {
        self.tell(Command::Seed(seed)).await;
    }

    /// A renewed membership of this node.
    pub async fn set_membership(&self, membership: Verified<Membership>, roots: RootChain) {
        self.tell(Command::Membership(Box::new(membership), roots)).await;
    }

    /// Withdraws what this node offers, says goodbye to every peer, and stops. Returns when that is done, or has taken too
    /// long. Further calls return at once.
    pub async fn shut_down(&self) {
        let _stopped_already = self.ask(|done| Command::Shutdown { done }).await;
    }

    async fn tell(&self, command: Command) {
        let _stopped = self.commands.send(command).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, OpenError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| OpenError::ShuttingDown)?;
        answer.await.map_err(|_| OpenError::ShuttingDown)
    }
}

async fn open_on(connection: &Arc<Connection>, kind: StreamKind) -> Result<MeshStream, OpenStreamError> {
    match kind {
        StreamKind::Call => connection.open_call().await,
        _ => connection.open(kind).await,
    }
}
