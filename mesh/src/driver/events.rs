//! What happens on the swarm and on the links, as the machine hears it.

use std::sync::Arc;

use comity_protocol::mesh::{ConnectionId, DialTarget};
use libp2p::core::ConnectedPoint;
use libp2p::metrics::Recorder as _;
use libp2p::swarm::{self, SwarmEvent};
use libp2p::{PeerId, gossipsub, identify};
use tokio::sync::oneshot;

use super::peers::{Closing, Peer, Role};
use super::reach::{Dial, Purpose};
use super::tasks::Done;
use super::{Driver, Stale};
use crate::behaviour::{ApplicationEvent, MeshBehaviourEvent};
use crate::connections::{Connection, OpenStreamError};
use crate::gate::GateEvent;
use crate::gossip::verdict;
use crate::link::{self, LinkEnd, LinkEvent};
use crate::metrics::Direction;
use crate::peer;
use crate::streams::{Inbound, MeshStream, StreamKind};

impl Driver {
    pub(super) fn on_swarm_event(&mut self, event: SwarmEvent<MeshBehaviourEvent>) {
        self.libp2p_metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(MeshBehaviourEvent::Streams(inbound)) => self.on_inbound(inbound),
            SwarmEvent::Behaviour(MeshBehaviourEvent::Gated(event)) => match event {
                GateEvent::Accepted(connection) => self.on_accepted(connection),
                GateEvent::Inner(event) => self.on_application(event),
            },
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(connection_id, peer_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                self.on_closed(connection_id, cause.map(|cause| cause.to_string()));
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_error(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                tracing::debug!(from = %send_back_addr, %error, "an incoming connection failed");
            }
            other => self.on_listener(other),
        }
    }

    fn on_listener(&mut self, event: SwarmEvent<MeshBehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
                self.addresses.listening(address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.addresses.expired(&address),
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::error!(?addresses, ?reason, "no longer listening");
                addresses.iter().for_each(|address| self.addresses.expired(address));
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listener failed to accept");
                return;
            }
            _ => return,
        }
        self.advertise_addresses();
    }

    fn on_application(&mut self, event: ApplicationEvent) {
        match event {
            ApplicationEvent::Gossip(event) => {
                self.libp2p_metrics.record(&event);
                if let gossipsub::Event::Message { propagation_source, message_id, message } = event {
                    self.on_gossip(&propagation_source, &message_id, &message.data);
                }
            }
            ApplicationEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                if let Some(node) = peer::node_id(&peer_id) {
                    self.addresses.seen_at(node, info.observed_addr);
                    self.advertise_addresses();
                }
            }
            // Its metrics would take a label's value from what each peer says of itself.
            ApplicationEvent::Identify(_) => {}
            ApplicationEvent::Ping(event) => self.libp2p_metrics.record(&event),
        }
    }

    fn on_gossip(&mut self, from: &PeerId, id: &gossipsub::MessageId, bytes: &[u8]) {
        self.metrics.gossip(Direction::Received, bytes.len() as u64);
        let Some(node) = peer::node_id(from) else { return };
        let acceptance = self.mesh.handle_gossip(node, bytes, self.clock.now());
        let gossip = &mut self.swarm.behaviour_mut().gated.inner_mut().gossip;
        gossip.report_message_validation_result(id, from, verdict(acceptance));
    }

    fn on_established(&mut self, id: swarm::ConnectionId, peer: PeerId, endpoint: &ConnectedPoint) {
        let dial = self.reach.take_dial(id);
        let connection = self.swarm.behaviour().streams.connection(id).cloned();
        let Some(connection) = connection.filter(|_| self.leaving.is_none()) else {
            tracing::debug!(%peer, "closed a new connection: this node is leaving");
            self.swarm.close_connection(id);
            return;
        };
        match dial {
            Some(Dial { purpose: Purpose::Enrol(reply), .. }) => self.enrol_out(id, connection, reply),
            dial => self.begin_link(id, connection, endpoint, dial.map(|dial| dial.target)),
        }
        self.mark_stale(Stale::Peers);
    }

    /// Both sides run the same link; the dialler opens its stream, the listener waits for it.
    fn begin_link(
        &mut self,
        id: swarm::ConnectionId,
        connection: Arc<Connection>,
        endpoint: &ConnectedPoint,
        target: Option<DialTarget>,
    ) {
        let node = connection.peer;
        let dialled = endpoint.is_dialer().then(|| {
            let addresses = vec![endpoint.get_remote_address().to_string()];
            target.unwrap_or(DialTarget { node: Some(node), addresses })
        });
        let mut peer = Peer::new(id, connection.clone(), Role::Member);
        let opener = dialled.is_some().then(|| connection.clone());
        let (arrives, waiting) = oneshot::channel();
        let stream = async move {
            match opener {
                Some(connection) => connection.open(StreamKind::Link).await,
                None => waiting.await.unwrap_or(Err(OpenStreamError::Closed)),
            }
        };
        peer.link_stream = dialled.is_none().then_some(arrives);
        let (link, io) = link::link(connection.id, stream, self.link_sender.clone());
        peer.link = Some(link);
        self.tasks.spawn(async move {
            io.await;
            Done::Nothing
        });
        self.peers.insert(peer);
        self.mesh.handle_connected(connection.id, node, dialled.as_ref(), self.clock.now());
    }

    fn on_closed(&mut self, id: swarm::ConnectionId, cause: Option<String>) {
        let Some(peer) = self.peers.remove(id) else { return };
        let node = peer.shared.peer;
        self.shared.admitted.remove(&peer.shared);
        let reason = peer.closing.map(|closing| closing.reason).or(cause);
        let reason = reason.unwrap_or_else(|| "the connection closed".to_owned());
        tracing::debug!(peer = %node, connection = peer.shared.id.0, reason, "a connection closed");
        if peer.role == Role::Member {
            self.mesh.handle_disconnected(peer.shared.id, &reason, self.clock.now());
        }
        if !self.peers.has(node) {
            self.addresses.gone(&node);
        }
        self.give_up_if_hopeless(node, &reason);
        self.mark_stale(Stale::Peers);
    }

    pub(super) fn on_link_event(&mut self, connection: ConnectionId, event: LinkEvent) {
        match event {
            LinkEvent::Frame(frame) => {
                if self.peers.get(connection).is_some_and(|peer| peer.link.is_some()) {
                    self.mesh.handle_frame(connection, &frame, self.clock.now());
                }
            }
            LinkEvent::Ended(end) => self.on_link_end(connection, &end),
        }
    }

    fn on_link_end(&mut self, connection: ConnectionId, end: &LinkEnd) {
        let member = self.peers.get(connection).filter(|peer| peer.role == Role::Member);
        let Some(peer) = member else { return };
        tracing::debug!(peer = %peer.shared.peer, connection = connection.0, %end, "a link ended");
        match &peer.closing {
            Some(Closing { when_idle: true, .. }) if peer.shared.busy() > 0 => {
                self.close_when_idle(peer.shared.clone());
            }
            Some(_) => self.close_now(connection),
            None => self.cut(connection, &end.to_string()),
        }
    }

    fn on_inbound(&mut self, inbound: Inbound) {
        let Inbound { connection, kind, stream } = inbound;
        match kind {
            StreamKind::Link => self.on_link_stream(&connection, stream),
            StreamKind::Blob => self.serve(&connection, stream),
            StreamKind::Enrol => self.enrol_in(&connection, stream),
            // Calls go to the executor straight from their connection.
            StreamKind::Call => {}
        }
    }

    fn on_link_stream(&mut self, connection: &Arc<Connection>, stream: MeshStream) {
        let waiting = self.peers.get_mut(connection.id).and_then(|peer| peer.link_stream.take());
        match waiting {
            Some(waiting) => {
                let _link_has_ended = waiting.send(Ok(stream));
            }
            None => tracing::debug!(peer = %connection.peer, "refused a second link on one connection"),
        }
    }
}
