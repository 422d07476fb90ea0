//! Carrying out what a node's machine wants.

use std::time::Duration;

use comity_protocol::mesh::{ConnectionId, Effect, Mesh, MeshEvent, MeshRecord};

use super::node::Opening;
use super::wires::{Lane, Side};
use super::{Event, World};
use crate::judge::Invariant;

/// How long a group of records takes to become durable: an fsync of a good disk, and of a bad one.
const FSYNC_MIN: Duration = Duration::from_millis(1);
const FSYNC_SPREAD_MICROS: usize = 9_000;

impl World {
    /// Takes effects until there are none.
    pub(super) fn drain(&mut self, node: usize) {
        while let Some(effect) = self.nodes[node].mesh.as_mut().and_then(Mesh::poll_effect) {
            self.carry_out(node, effect);
        }
        if self.nodes[node].disk.begin_group() {
            let spread = Duration::from_micros(self.rng.below(FSYNC_SPREAD_MICROS) as u64);
            let boot = self.nodes[node].boot;
            self.later(FSYNC_MIN + spread, Event::Synced { node, boot });
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Dial(target) if self.leaves_undialled(node, &target) => {}
            Effect::Dial(target) => self.dial(node, target),
            Effect::Send(connection, frame) => self.send(node, connection, frame),
            Effect::Accept(connection) => {
                if let Some((wire, side)) = self.wire_of(node, connection) {
                    wire.end_mut(side).accepted = true;
                }
            }
            Effect::Admit { connection, peer, org, roles } => {
                let Some((wire, side)) = self.wire_of(node, connection) else { return };
                wire.end_mut(side).admitted = Some((org, roles));
                self.gossip_opened(node, connection, side);
                self.reached(node, connection, side, peer);
            }
            Effect::Close { connection, when_idle, .. } => {
                if let Some(side) = self.nodes[node].wires.get(&connection).copied() {
                    self.close(connection, side, when_idle);
                }
            }
            Effect::Publish(bytes) => {
                self.ledger_published(node, &bytes);
                self.publish(node, &bytes);
            }
            Effect::Fetch { id, from, addresses, digests } => {
                self.open(node, from, addresses, Opening::Pull(id, digests));
            }
            Effect::Persist(record) => self.persist(node, record),
            Effect::Event(event) => self.on_mesh_event(node, event),
        }
    }

    fn wire_of(&mut self, node: usize, connection: ConnectionId) -> Option<(&mut super::Wire, Side)> {
        let side = *self.nodes[node].wires.get(&connection)?;
        Some((self.wires.get_mut(&connection)?, side))
    }

    fn send(&mut self, node: usize, connection: ConnectionId, frame: Vec<u8>) {
        let Some(side) = self.nodes[node].wires.get(&connection) else { return };
        let to = side.other();
        self.figures.link_frames += 1;
        // The second byte of a message is its number in docs/protocol.md.
        *self.figures.by_number.entry(frame.get(1).copied().unwrap_or(u8::MAX)).or_default() += 1;
        let bytes = frame.len();
        self.transmit(connection, to, Lane::Link, bytes, Event::Frame { connection, to, bytes: frame });
    }

    pub(super) fn on_frame(&mut self, connection: ConnectionId, to: Side, bytes: &[u8]) {
        let Some(node) = self.receive(connection, to) else { return };
        self.trace.event(self.now, 6, node, bytes);
        self.judge_frame(node, connection, bytes);
        if self.sabotage.is_none() {
            self.feed(node, |mesh, now| mesh.handle_frame(connection, bytes, now));
        } else if let Some(told) = self.told_frame(node, bytes) {
            self.feed(node, |mesh, now| mesh.handle_frame(connection, &told, now));
        }
    }

    /// Bytes have come: the node that hears them, if it still does.
    pub(crate) fn receive(&mut self, connection: ConnectionId, to: Side) -> Option<usize> {
        if !self.hears(connection, to) {
            return None;
        }
        self.acknowledge(connection, to, true);
        let now = self.now;
        let end = self.wires.get_mut(&connection)?.end_mut(to);
        end.heard = now;
        Some(end.node)
    }

    fn persist(&mut self, node: usize, record: MeshRecord) {
        if let MeshRecord::Advert { node: of, sequence, bytes } = &record {
            self.judge_taken(node, *of, *sequence, bytes);
        }
        self.nodes[node].disk.write(record);
    }

    pub(super) fn on_synced(&mut self, node: usize, boot: u32) {
        if !self.is_boot(node, boot) {
            return;
        }
        self.trace.event(self.now, 7, node, &[]);
        let own = self.nodes[node].disk.end_group();
        self.feed(node, |mesh, now| {
            if let Some(sequence) = own {
                mesh.handle_persisted(sequence, now);
            }
        });
    }

    fn on_mesh_event(&mut self, node: usize, event: MeshEvent) {
        match event {
            MeshEvent::Changed => self.nodes[node].changed = true,
            MeshEvent::Equivocated(of) => {
                let honest = self.federation.find(&of).is_some_and(|of| !self.nodes[of].is_tainted());
                if honest {
                    let detail =
                        format!("{of:?} is said to have signed two adverts with one sequence and has not");
                    self.violate(Invariant::Equivocation, Some(node), detail);
                }
                self.figures.equivocations_seen += 1;
            }
            MeshEvent::AdvertRefused { code, .. } => {
                self.figures.adverts_refused += 1;
                *self.figures.refusals.entry(code).or_default() += 1;
            }
            MeshEvent::Refused { .. } => self.figures.peers_refused += 1,
            MeshEvent::PeerUp { .. } | MeshEvent::PeerDown { .. } | MeshEvent::ClockDiffers { .. } => {}
        }
    }
}
