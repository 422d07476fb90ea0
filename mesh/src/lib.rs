//! The mesh as libp2p carries it: the shell around [`comity_protocol::mesh::Mesh`], which decides.
//!
//! `start` makes it run over QUIC and TCP (the feature `sockets`), [`start_over`] over any transport;
//! [`MeshHandle`] is the rest of the node's way in. Read in this order: [`driver`] is the task that
//! owns the swarm and the machine; [`behaviour`] is what the swarm speaks; [`gate`] keeps it from strangers; [`streams`]
//! are our own protocols and [`link`] and [`blobs`] two of them; [`transport`] is what they travel on.
//!
//! Invariant: no byte of gossip, identify, ping, calls or blobs passes between this node and a peer that the machine has
//! not admitted. [`gate`] and [`streams`] see to it, connection by connection.

mod addresses;
pub mod behaviour;
pub mod blobs;
pub mod clock;
pub mod connections;
pub mod driver;
pub mod enrol;
pub mod frame;
pub mod gate;
pub mod gossip;
pub mod handle;
pub mod link;
pub mod metrics;
pub mod peer;
pub mod persist;
mod snapshot;
#[cfg(feature = "sockets")]
pub mod stranger;
pub mod streams;
pub mod transport;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::mesh::overlay::Seed;
use comity_protocol::mesh::own::Identity;
use comity_protocol::mesh::{Mesh, Restored};
use comity_protocol::trust::Anchors;
use libp2p::Multiaddr;
use libp2p::core::transport::{ListenerId, TransportError};
use libp2p::futures::StreamExt as _;
use libp2p::swarm::{Swarm, SwarmEvent};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::metrics::Metrics;

use addresses::OwnAddresses;
pub use behaviour::Bounds;
use behaviour::MeshBehaviour;
pub use driver::{MeshError, MeshTask};
pub use enrol::{EnrolStream, IncomingEnrolment};
pub use handle::{MeshHandle, OpenError};
pub use persist::{MemoryPersister, PersistError, Persister};
pub use snapshot::{MeshSnapshot, PeerStage, PeerState};
pub use streams::{IncomingCall, MeshStream};
use transport::MeshTransport;

/// Calls of peers that may wait for the executor; more are refused.
pub const INCOMING_CALLS_MAX: usize = 256;

/// How long listeners may take to say where they listen.
const LISTEN_DEADLINE: Duration = Duration::from_secs(5);

/// All that a mesh needs to run.
pub struct MeshSetup {
    /// Who this node is.
    pub identity: Identity,
    /// What it has pinned.
    pub anchors: Anchors,
    /// Whom it dials first, and for ever.
    pub seeds: Vec<Seed>,
    /// What it kept from earlier runs.
    pub restored: Restored,
    /// Where to listen; port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// At which addresses others reach it; those it listens on when empty.
    pub external: Vec<Multiaddr>,
    /// What it may take of the machine.
    pub bounds: Bounds,
    /// Where it keeps what it must not forget.
    pub persister: Arc<dyn Persister>,
    /// What it counts.
    pub metrics: Metrics,
    /// The node's clock.
    pub clock: Clock,
    /// From the system's random generator: it decides whom to probe and to evict, nothing secret.
    pub seed: u64,
}

/// What peers and strangers begin.
#[derive(Debug)]
pub struct Incoming {
    /// Calls of admitted peers.
    pub calls: mpsc::Receiver<IncomingCall>,
    /// Enrolments, of anybody.
    pub enrolments: mpsc::Receiver<IncomingEnrolment>,
}

/// Why the mesh could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A transport could not be made.
    #[error("cannot make the mesh's transport")]
    Transport(#[source] io::Error),
    /// An address could not be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system said.
        source: TransportError<io::Error>,
    },
}

/// Starts the mesh over QUIC and TCP. It listens when this returns. libp2p's metrics go to `registry`.
///
/// # Errors
/// [`StartError`].
#[cfg(feature = "sockets")]
pub async fn start(
    setup: MeshSetup,
    registry: &mut Registry,
) -> Result<(MeshHandle, Incoming, MeshTask), StartError> {
    let keypair = peer::keypair(&setup.identity.key);
    let transport = transport::transport(&keypair).map_err(StartError::Transport)?;
    start_over(transport, setup, registry).await
}

/// Starts the mesh over a transport of the caller's, which proves keys and carries streams.
///
/// # Errors
/// [`StartError::Listen`].
pub async fn start_over(
    transport: MeshTransport,
    setup: MeshSetup,
    registry: &mut Registry,
) -> Result<(MeshHandle, Incoming, MeshTask), StartError> {
    let (calls_sender, calls) = mpsc::channel(INCOMING_CALLS_MAX);
    let (enrolments_sender, enrolments) = mpsc::channel(enrol::ENROLMENTS_MAX);
    let keypair = peer::keypair(&setup.identity.key);
    let mesh_name = setup.anchors.mesh().clone();
    let streams = streams::Streams::new(setup.clock, calls_sender);
    let mut swarm = behaviour::swarm(transport, &keypair, &mesh_name, setup.bounds, streams, registry);
    let mut addresses = OwnAddresses::new(setup.external);
    listen(&mut swarm, setup.listen, &mut addresses).await?;
    let now = setup.clock.now();
    let mut mesh = Mesh::new(setup.identity, setup.anchors, setup.seeds, setup.restored, setup.seed, now);
    mesh.set_neighbours(setup.bounds.neighbours, now);
    let (handle, commands) = MeshHandle::new(mesh.node(), handle::Shared::new());
    let task = driver::spawn(driver::Parts {
        swarm,
        mesh,
        mesh_name,
        clock: setup.clock,
        addresses,
        persister: setup.persister,
        metrics: setup.metrics,
        libp2p_metrics: libp2p::metrics::Metrics::new(registry),
        handle: handle.clone(),
        commands,
        enrolments: enrolments_sender,
    });
    Ok((handle, Incoming { calls, enrolments }, task))
}

/// Binds every address and waits until each listener has said where it listens, so that the first advert is true.
async fn listen(
    swarm: &mut Swarm<MeshBehaviour>,
    listen: Vec<Multiaddr>,
    addresses: &mut OwnAddresses,
) -> Result<(), StartError> {
    let mut silent: Vec<ListenerId> = Vec::new();
    for address in listen {
        let listener = swarm.listen_on(address.clone());
        silent.push(listener.map_err(|source| StartError::Listen { address, source })?);
    }
    let heard = async {
        while !silent.is_empty() {
            if let SwarmEvent::NewListenAddr { listener_id, address } = swarm.select_next_some().await {
                tracing::info!(%address, "listening");
                addresses.listening(address);
                silent.retain(|listener| *listener != listener_id);
            }
        }
    };
    if timeout(LISTEN_DEADLINE, heard).await.is_err() {
        tracing::warn!("a listener has not said where it listens; going on");
    }
    Ok(())
}
