//! Gossip, as an abstraction: a message floods over every admitted connection, and each node passes it on once.
//!
//! The real gossipsub passes a message to some six peers of its mesh and tells others that it has it. Flooding reaches
//! the same nodes over the same connections and sends more copies; so convergence here is as fast as gossipsub's at best,
//! and bytes are an upper bound. docs/simulation.md says what follows from that.

use std::sync::Arc;

use comity_protocol::ids::{NodeId, ObjectDigest};
use comity_protocol::mesh::{Acceptance, ConnectionId};

use super::wires::{Lane, Side};
use super::{Event, World};
use crate::chronicle::Fate;

/// Most bytes of a gossip message; gossipsub carries no larger one.
const GOSSIP_BYTES_MAX: usize = 64 * 1024;

impl World {
    /// A node publishes.
    pub(super) fn publish(&mut self, node: usize, bytes: &Arc<[u8]>) {
        let now = self.now;
        if self.nodes[node].is_fresh(ObjectDigest::of(bytes), now) {
            self.flood(node, None, bytes);
        }
    }

    fn flood(&mut self, node: usize, except: Option<usize>, bytes: &Arc<[u8]>) {
        let mut reached = std::collections::BTreeSet::new();
        let wires: Vec<_> =
            self.nodes[node].wires.iter().map(|(connection, side)| (*connection, *side)).collect();
        for (connection, side) in wires {
            let Some(wire) = self.wires.get(&connection) else { continue };
            let peer = wire.end(side.other()).node;
            let admitted = wire.end(side).open && wire.end(side).admitted.is_some();
            if admitted && Some(peer) != except && reached.insert(peer) {
                self.send_gossip(node, connection, side.other(), bytes.clone());
            }
        }
    }

    /// Sends one gossip message over one connection, unless that hop fails.
    pub(super) fn send_gossip(&mut self, node: usize, connection: ConnectionId, to: Side, bytes: Arc<[u8]>) {
        let Some(peer) = self.wires.get(&connection).map(|wire| wire.end(to).node) else { return };
        let length = bytes.len();
        let event = Event::Gossip { connection, to, bytes };
        if length > GOSSIP_BYTES_MAX || self.network.drops_gossip(node, peer) {
            return self.note_message(node, peer, &event, length, Fate::Lost);
        }
        self.figures.gossip_frames += 1;
        self.transmit(connection, to, Lane::Gossip, length, event);
    }

    pub(super) fn on_gossip(&mut self, connection: ConnectionId, to: Side, bytes: &Arc<[u8]>) {
        let Some(node) = self.receive(connection, to) else { return };
        let Some(wire) = self.wires.get(&connection) else { return };
        let sender = wire.end(to.other()).node;
        let digest = ObjectDigest::of(bytes);
        self.trace.event(self.now, 8, node, digest.as_bytes());
        let now = self.now;
        if !wire.end(to).accepted || !self.nodes[node].is_fresh(digest, now) {
            return;
        }
        self.overhear(node, bytes);
        let from: NodeId = self.federation.id(sender);
        let acceptance = self.feed(node, |mesh, now| mesh.handle_gossip(from, bytes, now));
        if acceptance == Some(Acceptance::Accept) {
            self.flood(node, Some(sender), bytes);
        }
    }
}
