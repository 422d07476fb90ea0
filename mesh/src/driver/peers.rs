//! The connections that stand, as the driver keeps them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use comity_protocol::ids::NodeId;
use comity_protocol::mesh::ConnectionId;
use libp2p::swarm;
use tokio::sync::{Semaphore, oneshot};

use crate::connections::{Connection, OpenStreamError};
use crate::link::{Link, SendError};
use crate::streams::MeshStream;

/// Pulls that one connection is served at once; more are refused.
const PULLS_MAX: usize = 4;

/// Frames that wait for the gate of one connection to take effect; more end it.
const HELD_MAX: usize = 1024;

/// One connection.
pub(super) struct Peer {
    pub(super) swarm_id: swarm::ConnectionId,
    pub(super) shared: Arc<Connection>,
    /// The link; `None` once it is to end, and for an enrolment.
    pub(super) link: Option<Link>,
    /// Where the link's stream goes when the peer opens it. Once: a second stream finds nobody.
    pub(super) link_stream: Option<oneshot::Sender<Result<MeshStream, OpenStreamError>>>,
    /// Frames that must not go out before the gate has taken effect, while it has not.
    pub(super) held: Option<Vec<Vec<u8>>>,
    pub(super) role: Role,
    pub(super) closing: Option<Closing>,
    pub(super) pulls: Arc<Semaphore>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The machine knows it: it is being admitted, or has been.
    Member,
    /// An enrolment, of which the machine knows nothing.
    Enrolment,
}

/// A connection that is on its way out.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    pub(super) reason: String,
    pub(super) when_idle: bool,
}

impl Peer {
    pub(super) fn new(swarm_id: swarm::ConnectionId, shared: Arc<Connection>, role: Role) -> Self {
        Self {
            swarm_id,
            shared,
            link: None,
            link_stream: None,
            held: None,
            role,
            closing: None,
            pulls: Arc::new(Semaphore::new(PULLS_MAX)),
        }
    }

    /// Queues a frame, or holds it back while the gate has not taken effect.
    pub(super) fn send(&mut self, frame: Vec<u8>) -> Result<(), SendError> {
        match (&mut self.held, &self.link) {
            (Some(held), _) if held.len() >= HELD_MAX => Err(SendError::TooSlow),
            (Some(held), _) => {
                held.push(frame);
                Ok(())
            }
            (None, Some(link)) => link.send(frame),
            (None, None) => Ok(()),
        }
    }

    /// Queues what was held back.
    pub(super) fn release(&mut self) -> Result<(), SendError> {
        let held = self.held.take().into_iter().flatten();
        self.link.as_ref().map_or(Ok(()), |link| held.into_iter().try_for_each(|frame| link.send(frame)))
    }

    /// Writes what is queued on the link and ends it.
    pub(super) fn end_link(&mut self) {
        let _ends_anyway = self.release();
        (self.link, self.link_stream) = (None, None);
    }
}

/// All of them. Bounded by the limit on connections.
#[derive(Default)]
pub(super) struct Peers {
    by_id: BTreeMap<ConnectionId, Peer>,
    by_swarm_id: HashMap<swarm::ConnectionId, ConnectionId>,
}

impl Peers {
    pub(super) fn insert(&mut self, peer: Peer) {
        self.by_swarm_id.insert(peer.swarm_id, peer.shared.id);
        self.by_id.insert(peer.shared.id, peer);
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Peer> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Peer> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn by_swarm_id(&mut self, swarm_id: swarm::ConnectionId) -> Option<&mut Peer> {
        self.by_id.get_mut(self.by_swarm_id.get(&swarm_id)?)
    }

    pub(super) fn remove(&mut self, swarm_id: swarm::ConnectionId) -> Option<Peer> {
        let id = self.by_swarm_id.remove(&swarm_id)?;
        self.by_id.remove(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether any connection to `node` stands.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.by_id.values().any(|peer| peer.shared.peer == node)
    }

    /// Whether a connection to `node` stands that may still be admitted, or has been.
    pub(super) fn has_hope_for(&self, node: NodeId) -> bool {
        let hopeful = |peer: &Peer| peer.role == Role::Member && peer.closing.is_none();
        self.by_id.values().any(|peer| peer.shared.peer == node && hopeful(peer))
    }

    /// The connections over which a call or a pull runs.
    pub(super) fn busy(&self) -> Vec<ConnectionId> {
        self.by_id.iter().filter(|(_, peer)| peer.shared.busy() > 0).map(|(id, _)| *id).collect()
    }
}
