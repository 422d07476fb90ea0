//! The one behaviour of the node's swarm: limits for everybody, our streams, and, behind the gate, what libp2p brings.

use std::time::Duration;

use comity_protocol::ids::MeshName;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::upgrade::Version;
use libp2p::identity::{Keypair, PublicKey};
use libp2p::swarm::{self, ConnectionId, NetworkBehaviour, Swarm};
use libp2p::{identify, memory_connection_limits, ping};
use prometheus_client::registry::Registry;

use super::gate::Gated;
use super::gossip::{self, Gossip};
use super::streams::Streams;
use super::transport::MeshTransport;

/// Connections to one peer: two are normal when both dialled at once; the core closes one of them.
const PER_PEER_MAX: u32 = 4;

/// Handshakes under way at once, in each direction; more are refused or fail.
const PENDING_MAX: u32 = 128;

/// A connection on which nothing happens is closed after so long. A link keeps its connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Inbound streams of one connection whose protocol is being settled; more are reset.
const NEGOTIATING_MAX: usize = 256;

/// How often the libp2p ping measures a connection; liveness is the link's business.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// What libp2p brings, for admitted peers only.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(super) struct Application {
    /// Gossip of adverts.
    pub gossip: Gossip,
    /// Tells us from which address a peer sees us.
    pub identify: identify::Behaviour,
    /// Round-trip times for libp2p's own metrics.
    pub ping: ping::Behaviour,
}

/// The swarm's behaviour. Those that may deny a connection come first; the gate comes last, so that when it says that it
/// has opened our streams have heard of it too.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(super) struct MeshBehaviour {
    limits: connection_limits::Behaviour,
    memory: memory_connection_limits::Behaviour,
    /// Our own protocols.
    pub streams: Streams,
    /// The rest.
    pub gated: Gated<Application>,
}

/// Bounds on what the mesh may take of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most connections at once, in and out.
    pub connections_max: u32,
    /// Neighbours that it looks for.
    pub neighbours: usize,
    /// No new connection is taken while the process uses more memory than this.
    pub memory_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: 512,
            neighbours: comity_protocol::mesh::overlay::NEIGHBOURS_TARGET,
            memory_bytes_max: 2 * 1024 * 1024 * 1024,
        }
    }
}

impl MeshBehaviour {
    fn new(
        public: PublicKey,
        mesh: &MeshName,
        bounds: Bounds,
        streams: Streams,
        registry: &mut Registry,
    ) -> Self {
        let gossip = gossip::gossip(mesh, registry);
        let identify = identify::Config::new("/comity/1".to_owned(), public)
            .with_agent_version(concat!("comity/", env!("CARGO_PKG_VERSION")).to_owned())
            .with_hide_listen_addrs(true)
            .with_cache_size(0);
        let application = Application {
            gossip,
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
        };
        Self {
            limits: connection_limits::Behaviour::new(limits(bounds)),
            memory: memory_connection_limits::Behaviour::with_max_bytes(bounds.memory_bytes_max),
            streams,
            gated: Gated::new(application),
        }
    }

    /// Takes the peer's streams on the connection; ours wait for [`Self::admit`].
    pub(super) fn accept(&mut self, connection: ConnectionId) {
        self.gated.accept(connection);
        self.streams.accept(connection);
    }

    /// Lets everything through on the connection.
    pub(super) fn admit(&mut self, connection: ConnectionId) {
        self.gated.accept(connection);
        self.gated.admit(connection);
        self.streams.accept(connection);
        self.streams.admit(connection);
    }
}

fn limits(bounds: Bounds) -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_established(Some(bounds.connections_max))
        .with_max_established_per_peer(Some(PER_PEER_MAX))
        .with_max_pending_incoming(Some(PENDING_MAX))
        .with_max_pending_outgoing(Some(PENDING_MAX))
}

/// A swarm of one node over `transport`.
#[must_use]
pub(super) fn swarm(
    transport: MeshTransport,
    keypair: &Keypair,
    mesh: &MeshName,
    bounds: Bounds,
    streams: Streams,
    registry: &mut Registry,
) -> Swarm<MeshBehaviour> {
    let behaviour = MeshBehaviour::new(keypair.public(), mesh, bounds, streams, registry);
    Swarm::new(transport, behaviour, keypair.public().to_peer_id(), swarm_config())
}

/// Streams are negotiated without a round trip of their own, and QUIC is tried a moment before TCP.
pub(super) fn swarm_config() -> swarm::Config {
    swarm::Config::with_tokio_executor()
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
        .with_smart_dial()
        .with_idle_connection_timeout(IDLE_TIMEOUT)
        .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
}
