//! Our own protocols on raw streams: `/comity/link/1`, `/comity/call/1`, `/comity/blob/1`, `/comity/enrol/1`.
//!
//! [`Streams`] is a behaviour that opens streams on a *given connection* and says on which connection a stream came in.
//! The `libp2p-stream` crate does neither: it picks any connection of a peer, which admission by connection cannot use;
//! it also drops an inbound stream when another came in the same instant (a channel of one), keeps one entry for each
//! connection that ever was, and opens one stream at a time. So this is ours.
//!
//! A stranger may negotiate the link and enrolment; calls and blobs are on offer once the gate has accepted the peer.
//! Streams go straight from the connection's task to whoever asked, and inbound calls straight to the executor's queue:
//! no byte of a call passes the driver.

mod ending;
mod handler;
mod idle;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use comity_protocol::ids::OrgName;
use comity_protocol::mesh::ConnectionId;
use comity_protocol::mesh::wire::{BLOB_PROTOCOL, LINK_PROTOCOL};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    self, ConnectionDenied, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::mpsc;

use super::connections::Connection;
use super::peer;
use crate::clock::Clock;

pub(super) use ending::Ending;
pub use handler::{StageChange, StreamsHandler};
pub use idle::IDLE_STREAMS_MAX;
pub(super) use idle::IdleStreams;
pub use stream::MeshStream;

/// The name of the call protocol.
pub const CALL_PROTOCOL: &str = "/comity/call/1";

/// The name of the protocol by which a machine without a membership asks for one.
pub const ENROL_PROTOCOL: &str = "/comity/enrol/1";

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// Admission, liveness, anti-entropy: one on each connection.
    Link,
    /// Calls, one after another.
    Call,
    /// A pull of blobs.
    Blob,
    /// An enrolment: the only one that a stranger is served.
    Enrol,
}

impl StreamKind {
    /// The protocol's name on the wire.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Link => LINK_PROTOCOL,
            Self::Call => CALL_PROTOCOL,
            Self::Blob => BLOB_PROTOCOL,
            Self::Enrol => ENROL_PROTOCOL,
        }
    }

    /// Whether the connection counts as busy while such a stream is open.
    const fn is_work(self) -> bool {
        matches!(self, Self::Call | Self::Blob)
    }
}

impl AsRef<str> for StreamKind {
    fn as_ref(&self) -> &str {
        self.protocol()
    }
}

/// A stream for calls that an admitted peer has opened.
#[derive(Debug)]
pub struct IncomingCall {
    /// The calling node.
    pub peer: comity_protocol::ids::NodeId,
    /// Its org, as its membership proves.
    pub org: OrgName,
    /// Whether its org lets it make calls.
    pub is_client: bool,
    /// The stream: it carries one call after another.
    pub stream: MeshStream,
}

/// A stream that came in, other than a call's.
pub struct Inbound {
    /// On which connection.
    pub connection: Arc<Connection>,
    /// What for.
    pub kind: StreamKind,
    /// The stream.
    pub stream: MeshStream,
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {:?}", self.kind.protocol(), self.connection.id)
    }
}

/// The behaviour. See the module.
pub struct Streams {
    clock: Clock,
    calls: mpsc::Sender<IncomingCall>,
    next: u64,
    connections: HashMap<swarm::ConnectionId, Arc<Connection>>,
    events: VecDeque<ToSwarm<Inbound, StageChange>>,
}

impl Streams {
    /// Streams whose inbound calls go to `calls`; a call that comes while that queue is full is refused.
    pub fn new(clock: Clock, calls: mpsc::Sender<IncomingCall>) -> Self {
        Self { clock, calls, next: 0, connections: HashMap::new(), events: VecDeque::new() }
    }

    /// The connection behind libp2p's number.
    pub fn connection(&self, id: swarm::ConnectionId) -> Option<&Arc<Connection>> {
        self.connections.get(&id)
    }

    /// Offers calls and blobs on the connection; calls are held until the peer is admitted.
    pub fn accept(&mut self, id: swarm::ConnectionId) {
        self.notify(id, StageChange::Accept);
    }

    /// Lets the calls of the connection in. The peer's standing must be set on the connection before.
    pub fn admit(&mut self, id: swarm::ConnectionId) {
        self.notify(id, StageChange::Admit);
    }

    fn notify(&mut self, id: swarm::ConnectionId, event: StageChange) {
        if let Some(connection) = self.connections.get(&id) {
            let peer_id = peer::peer_id(connection.peer);
            self.events.push_back(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::One(id), event });
        }
    }

    fn established(
        &mut self,
        id: swarm::ConnectionId,
        peer: PeerId,
    ) -> Result<StreamsHandler, ConnectionDenied> {
        let node = peer::node_id(&peer).ok_or_else(|| ConnectionDenied::new(NotANode(peer)))?;
        self.next += 1;
        let (connection, requests) = Connection::new(ConnectionId(self.next), node, self.clock);
        self.connections.insert(id, connection.clone());
        Ok(StreamsHandler::new(connection, requests, self.calls.clone()))
    }
}

/// A peer whose key is not of the kind that nodes have.
#[derive(Debug, thiserror::Error)]
#[error("{0} has no ed25519 key, so it is no node")]
struct NotANode(PeerId);

impl NetworkBehaviour for Streams {
    type ConnectionHandler = StreamsHandler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        id: swarm::ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.established(id, peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: swarm::ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.established(id, peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let gone = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            FromSwarm::DialFailure(failure) => failure.connection_id,
            FromSwarm::ListenFailure(failure) => failure.connection_id,
            _ => return,
        };
        self.connections.remove(&gone);
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: swarm::ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.events.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
