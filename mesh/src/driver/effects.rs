//! Carrying out what the machine wants.

use comity_protocol::ids::{NodeId, OrgName};
use comity_protocol::mesh::{ConnectionId, Effect, MeshEvent};
use comity_protocol::trust::RoleSet;
use libp2p::gossipsub::PublishError;
use libp2p::swarm;

use super::peers::Closing;
use super::reach::Purpose;
use super::{Driver, Stale};
use crate::handle::OpenError;
use crate::metrics::Direction;

/// What refusals by a peer count as: its codes are its own words.
const REFUSED_BY_PEER: &str = "by_peer";

impl Driver {
    /// Takes effects until there are none.
    pub(super) fn carry_out(&mut self) {
        while let Some(effect) = self.mesh.poll_effect() {
            self.carry(effect);
        }
        self.persist_waiting();
    }

    fn carry(&mut self, effect: Effect) {
        match effect {
            Effect::Dial(target) => self.dial(target, Purpose::Link),
            Effect::Send(connection, frame) => self.send(connection, frame),
            Effect::Accept(connection) => self.accept(connection),
            Effect::Admit { connection, peer, org, roles } => self.admit(connection, peer, org, roles),
            Effect::Close { connection, reason, when_idle } => self.close(connection, reason, when_idle),
            Effect::Publish(bytes) => self.publish(&bytes),
            Effect::Fetch { id, from, addresses, digests } => self.fetch(id, from, addresses, digests),
            Effect::Persist(record) => self.backlog.push(record),
            Effect::Event(event) => self.on_mesh_event(event),
        }
    }

    fn send(&mut self, connection: ConnectionId, frame: Vec<u8>) {
        let Some(peer) = self.peers.get_mut(connection) else { return };
        if let Err(error) = peer.send(frame) {
            self.cut(connection, &error.to_string());
        }
    }

    /// Opens the gate for the peer's streams. What the machine says next makes the peer open some, so it is held back
    /// until the connection's task has heard of it too.
    fn accept(&mut self, connection: ConnectionId) {
        let Some(peer) = self.peers.get_mut(connection) else { return };
        if let Some(link) = &peer.link {
            link.accept();
        }
        peer.held.get_or_insert_default();
        self.swarm.behaviour_mut().accept(peer.swarm_id);
    }

    /// The gate has opened for the peer's streams.
    pub(super) fn on_accepted(&mut self, id: swarm::ConnectionId) {
        let Some(peer) = self.peers.by_swarm_id(id) else { return };
        let connection = peer.shared.id;
        if let Err(error) = peer.release() {
            self.cut(connection, &error.to_string());
        }
    }

    fn admit(&mut self, connection: ConnectionId, node: NodeId, org: OrgName, roles: RoleSet) {
        let Some(peer) = self.peers.get(connection) else { return };
        debug_assert_eq!(peer.shared.peer, node, "the machine admits the peer of the connection");
        peer.shared.set_standing(org, roles);
        self.swarm.behaviour_mut().admit(peer.swarm_id);
        self.shared.admitted.insert(peer.shared.clone());
        self.reach.reached(&peer.shared);
        self.mark_stale(Stale::Peers);
    }

    /// The machine is done with the connection: what is queued on the link goes out, and when the link has ended the
    /// connection is closed.
    fn close(&mut self, connection: ConnectionId, reason: String, when_idle: bool) {
        let Some(peer) = self.peers.get_mut(connection) else { return };
        let node = peer.shared.peer;
        peer.end_link();
        peer.closing = Some(Closing { reason: reason.clone(), when_idle });
        self.shared.admitted.remove(&peer.shared);
        self.give_up_if_hopeless(node, &reason);
        self.mark_stale(Stale::Peers);
    }

    /// Ends a connection at once, for a reason that the machine learns when it is gone.
    pub(super) fn cut(&mut self, connection: ConnectionId, reason: &str) {
        let Some(peer) = self.peers.get_mut(connection) else { return };
        peer.end_link();
        if peer.closing.is_none() {
            peer.closing = Some(Closing { reason: reason.to_owned(), when_idle: false });
        }
        self.shared.admitted.remove(&peer.shared);
        self.close_now(connection);
    }

    pub(super) fn close_now(&mut self, connection: ConnectionId) {
        if let Some(peer) = self.peers.get(connection) {
            self.swarm.close_connection(peer.swarm_id);
        }
    }

    fn publish(&mut self, bytes: &[u8]) {
        let gossip = &mut self.swarm.behaviour_mut().gated.inner_mut().gossip;
        match gossip.publish(self.topic.clone(), bytes) {
            Ok(_) => self.metrics.gossip(Direction::Sent, bytes.len() as u64),
            // Anti-entropy brings it to whoever comes later.
            Err(PublishError::NoPeersSubscribedToTopic | PublishError::Duplicate) => {}
            Err(error) => tracing::debug!(%error, "gossip did not take an advert"),
        }
    }

    fn on_mesh_event(&mut self, event: MeshEvent) {
        log(&event);
        match &event {
            MeshEvent::Changed => return self.mark_stale(Stale::Directory),
            MeshEvent::PeerUp { .. } | MeshEvent::PeerDown { .. } => self.mark_stale(Stale::Peers),
            MeshEvent::Refused { peer, by_peer, code, detail } => {
                self.metrics.admission_refused(if *by_peer { REFUSED_BY_PEER } else { code });
                let (node, by_peer) = (*peer, *by_peer);
                let refused =
                    OpenError::Refused { node, by_peer, code: code.clone(), detail: detail.clone() };
                self.reach.gave_up(node, &refused);
            }
            _ => {}
        }
        let _nobody_listens = self.shared.events.send(event);
    }
}

fn log(event: &MeshEvent) {
    match event {
        MeshEvent::PeerUp { peer, org } => tracing::info!(%peer, %org, "connected"),
        MeshEvent::PeerDown { peer, reason } => tracing::info!(%peer, reason, "disconnected"),
        MeshEvent::Refused { peer, by_peer: false, code, detail } => {
            tracing::warn!(%peer, code, detail, "refused a peer");
        }
        MeshEvent::Refused { peer, by_peer: true, code, detail } => {
            tracing::warn!(%peer, code, detail, "a peer refused this node");
        }
        MeshEvent::AdvertRefused { from, code, detail } => {
            tracing::warn!(%from, code, detail, "refused an advert");
        }
        MeshEvent::Equivocated(node) => tracing::warn!(%node, "a node signed two adverts as one"),
        MeshEvent::ClockDiffers { peer, ahead_s } => {
            tracing::warn!(%peer, ahead_s, "a peer's clock differs from this node's");
        }
        MeshEvent::Changed => {}
    }
}
