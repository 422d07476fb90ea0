//! Pulls of blobs: the stream that the shell opens for a machine's [`Effect::Fetch`](comity_protocol::mesh::Effect).

use comity_protocol::ids::BlobDigest;
use comity_protocol::mesh::{ConnectionId, FetchId};

use super::wires::{Lane, Side};
use super::{Event, World};

impl World {
    pub(super) fn begin_pull(
        &mut self,
        connection: ConnectionId,
        side: Side,
        id: FetchId,
        digests: Vec<BlobDigest>,
    ) {
        let to = side.other();
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        wire.busy += 1;
        let node = wire.end(side).node;
        self.nodes[node].pulls.insert(id, connection);
        let bytes = digests.len() * 34;
        self.transmit(connection, to, Lane::Pull(id.0), bytes, Event::Pull { connection, to, id, digests });
    }

    pub(super) fn on_pull(
        &mut self,
        connection: ConnectionId,
        to: Side,
        id: FetchId,
        digests: &[BlobDigest],
    ) {
        let Some(node) = self.receive(connection, to) else { return };
        self.trace.event(self.now, 9, node, &id.0.to_le_bytes());
        let Some(wire) = self.wires.get(&connection) else { return };
        let Some((org, _)) = wire.end(to).admitted.clone() else {
            // The peer's welcome is on its way on another stream; the shell holds the pull back until then.
            if wire.end(to).accepted {
                let digests = digests.to_vec();
                self.later(super::HOLD_BACK, Event::Pull { connection, to, id, digests });
            }
            return;
        };
        let Some(mesh) = &self.nodes[node].mesh else { return };
        let answers: Vec<_> =
            digests.iter().map(|digest| mesh.blob_for(&org, digest).map(|blob| blob.to_vec())).collect();
        let bytes = answers.iter().flatten().map(Vec::len).sum();
        let to = to.other();
        self.transmit(connection, to, Lane::Pull(id.0), bytes, Event::Blobs { connection, to, id, answers });
    }

    pub(super) fn on_blobs(
        &mut self,
        connection: ConnectionId,
        to: Side,
        id: FetchId,
        answers: Vec<Option<Vec<u8>>>,
    ) {
        let Some(node) = self.receive(connection, to) else { return };
        self.trace.event(self.now, 10, node, &id.0.to_le_bytes());
        self.forget_lane(connection, Lane::Pull(id.0));
        if self.nodes[node].pulls.remove(&id).is_some() {
            self.unbusy(connection);
            self.feed(node, |mesh, now| mesh.handle_blobs(id, Some(answers), now));
        }
    }

    pub(super) fn on_pull_failed(&mut self, node: usize, boot: u32, id: FetchId) {
        if self.is_boot(node, boot) {
            self.trace.event(self.now, 11, node, &id.0.to_le_bytes());
            self.feed(node, |mesh, now| mesh.handle_blobs(id, None, now));
        }
    }

    /// Pulls over a connection that is gone have come to nothing.
    pub(super) fn pulls_of_gone(&mut self, connection: ConnectionId, node: usize) {
        let boot = self.nodes[node].boot;
        let lost: Vec<_> = self.nodes[node]
            .pulls
            .iter()
            .filter(|(_, over)| **over == connection)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.nodes[node].pulls.remove(&id);
            self.at(self.now, Event::PullFailed { node, boot, id });
        }
    }
}
