//! Connections: how they are made, what they carry in which order, and how they end.
//!
//! As with QUIC, frames of one stream keep their order and streams do not wait for each other; a connection over which one
//! side hears nothing for [`TRANSPORT_IDLE`] ends for that side alone; and a process that is gone answers nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_protocol::ids::{NodeId, OrgName};
use comity_protocol::mesh::{ConnectionId, DialTarget};
use comity_protocol::trust::RoleSet;

use super::node::Opening;
use super::{Event, World};
use crate::calls::StreamId;
use crate::chronicle::Fate;
use crate::federation::node_at;
use crate::moment::Moment;
use crate::network::FRAME_OVERHEAD_BYTES;

/// How long a connection may carry nothing before the side that hears nothing ends it: the shell's `QUIC_IDLE_TIMEOUT`.
const TRANSPORT_IDLE: Duration = Duration::from_secs(20);

/// How long an acknowledgement waits for something to go with (RFC 9000, `max_ack_delay`), and the bytes of one that goes
/// alone: IP, UDP, a short header, one range, the seal.
const ACK_DELAY: Duration = Duration::from_millis(25);
const ACK_BYTES: u64 = 20 + 8 + 11 + 5 + 16;

/// When the first packet of a dial is sent again: after a probe timeout from no knowledge of the path (RFC 9002, 6.2.2),
/// doubled each time.
const DIAL_RESENDS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(7)];

/// How long a dial to nowhere takes to fail: the shell's `QUIC_HANDSHAKE_TIMEOUT`.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Dialler,
    Listener,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }
}

/// A stream of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Link,
    Gossip,
    Pull(u64),
    Call(StreamId),
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) node: usize,
    boot: u32,
    /// Whether this side still uses it.
    pub(crate) open: bool,
    /// Whether this side's machine has heard that it is gone.
    told: bool,
    /// Whether this side takes the peer's streams.
    pub(crate) accepted: bool,
    /// The peer's org and roles, once admitted here.
    pub(crate) admitted: Option<(OrgName, RoleSet)>,
    /// Whether the peer has subscribed to gossip before it was admitted here.
    pub(crate) subscribed: bool,
    /// Since when something that came is to be acknowledged.
    unacknowledged: Option<Moment>,
    /// When bytes last came.
    pub(crate) heard: Moment,
    /// Since when nothing can come.
    dark: Option<Moment>,
    /// Whether this side closes as soon as no call and no pull runs.
    draining: bool,
}

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    dialler: End,
    listener: End,
    /// Calls and pulls that run over it.
    pub(crate) busy: u32,
    arrivals: BTreeMap<(Side, Lane), Moment>,
}

/// A frame that a cut holds back.
pub(super) struct Stalled {
    connection: ConnectionId,
    to: Side,
    lane: Lane,
    bytes: usize,
    event: Event,
}

impl Wire {
    pub(crate) const fn end(&self, side: Side) -> &End {
        match side {
            Side::Dialler => &self.dialler,
            Side::Listener => &self.listener,
        }
    }

    pub(crate) const fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Dialler => &mut self.dialler,
            Side::Listener => &mut self.listener,
        }
    }

    fn is_over(&self) -> bool {
        [&self.dialler, &self.listener].into_iter().all(|end| !end.open && end.told)
    }
}

impl World {
    /// Dials: what comes of it is known after a round trip, or after a timeout when nobody answers.
    pub(super) fn dial(&mut self, node: usize, target: DialTarget) {
        if let Some(peer) = target.node {
            *self.nodes[node].dialling.entry(peer).or_default() += 1;
        }
        let boot = self.nodes[node].boot;
        let to =
            target.addresses.first().and_then(|address| node_at(address)).filter(|to| *to < self.nodes.len());
        let Some(to) = to.filter(|to| self.is_reachable(node, *to)) else {
            if let Some(to) = to {
                self.note_dial(node, to, None);
            }
            return self.later(DIAL_RESENDS[0], Event::DialAgain { node, boot, target, resent: 0 });
        };
        self.answer_dial(node, to, target);
    }

    /// The first packet of a dial is sent again, because nothing has answered it.
    pub(super) fn on_dial_again(&mut self, node: usize, boot: u32, target: DialTarget, resent: usize) {
        if !self.is_boot(node, boot) {
            return;
        }
        let to = target.addresses.first().and_then(|address| node_at(address));
        if let Some(to) = to.filter(|to| *to < self.nodes.len() && self.is_reachable(node, *to)) {
            return self.answer_dial(node, to, target);
        }
        let since = DIAL_RESENDS[resent];
        match DIAL_RESENDS.get(resent + 1) {
            Some(next) => {
                self.later(*next - since, Event::DialAgain { node, boot, target, resent: resent + 1 });
            }
            None => self.later(DIAL_TIMEOUT - since, Event::DialFailed { node, boot, target }),
        }
    }

    fn answer_dial(&mut self, node: usize, to: usize, target: DialTarget) {
        let boot = self.nodes[node].boot;
        let there = self.network.arrival(node, to, FRAME_OVERHEAD_BYTES, self.now);
        let back = self.network.arrival(to, node, FRAME_OVERHEAD_BYTES, there);
        self.note_dial(node, to, Some(there));
        self.at(back, Event::Dialled { node, boot, target });
    }

    fn is_reachable(&self, from: usize, to: usize) -> bool {
        from != to
            && self.nodes[to].mesh.is_some()
            && !self.network.is_cut(from, to)
            && !self.network.is_cut(to, from)
    }

    pub(super) fn on_dialled(&mut self, node: usize, boot: u32, target: DialTarget) {
        if !self.is_boot(node, boot) {
            return;
        }
        let Some(to) = target.addresses.first().and_then(|address| node_at(address)) else { return };
        if !self.is_reachable(node, to) {
            return self.later(DIAL_TIMEOUT, Event::DialFailed { node, boot, target });
        }
        let peer = self.federation.id(to);
        if target.node.is_some_and(|wanted| wanted != peer) {
            return self.on_dial_failed(node, boot, &target);
        }
        self.undial(node, &target);
        let connection = self.connect(node, to);
        self.trace.event(self.now, 3, node, &connection.0.to_le_bytes());
        let heard_of = self.network.arrival(node, to, FRAME_OVERHEAD_BYTES, self.now);
        if let Some(wire) = self.wires.get_mut(&connection) {
            for lane in [Lane::Link, Lane::Gossip] {
                wire.arrivals.insert((Side::Listener, lane), heard_of);
            }
        }
        self.at(heard_of, Event::Accepted(connection));
        self.feed(node, |mesh, now| mesh.handle_connected(connection, peer, Some(&target), now));
    }

    fn connect(&mut self, dialler: usize, listener: usize) -> ConnectionId {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        let end = |node: usize| End {
            node,
            boot: self.nodes[node].boot,
            open: true,
            told: false,
            accepted: false,
            admitted: None,
            subscribed: false,
            unacknowledged: None,
            heard: self.now,
            dark: None,
            draining: false,
        };
        let wire =
            Wire { dialler: end(dialler), listener: end(listener), busy: 0, arrivals: BTreeMap::new() };
        self.wires.insert(connection, wire);
        self.nodes[dialler].wires.insert(connection, Side::Dialler);
        self.nodes[listener].wires.insert(connection, Side::Listener);
        connection
    }

    fn undial(&mut self, node: usize, target: &DialTarget) {
        if let Some(peer) = target.node
            && let Some(dials) = self.nodes[node].dialling.get_mut(&peer)
        {
            *dials -= 1;
            if *dials == 0 {
                self.nodes[node].dialling.remove(&peer);
            }
        }
    }

    pub(super) fn on_dial_failed(&mut self, node: usize, boot: u32, target: &DialTarget) {
        if !self.is_boot(node, boot) {
            return;
        }
        self.trace.event(self.now, 4, node, &[]);
        self.undial(node, target);
        self.feed(node, |mesh, now| mesh.handle_dial_failed(target, now));
        self.nodes[node].lost.extend(target.addresses.first().and_then(|address| node_at(address)));
        if let Some(peer) = target.node {
            self.give_up_if_hopeless(node, peer);
        }
    }

    pub(super) fn on_accepted(&mut self, connection: ConnectionId) {
        let Some(wire) = self.wires.get(&connection) else { return };
        let (node, peer) = (wire.listener.node, self.federation.id(wire.dialler.node));
        if self.hears(connection, Side::Listener) {
            self.feed(node, |mesh, now| mesh.handle_connected(connection, peer, None, now));
        }
    }

    /// Whether a side still uses a connection, and is still the same start of its node.
    pub(crate) fn hears(&self, connection: ConnectionId, side: Side) -> bool {
        let Some(end) = self.wires.get(&connection).map(|wire| wire.end(side)) else { return false };
        end.open && self.is_boot(end.node, end.boot)
    }

    /// Sends one frame of a stream. `event` is what arrives.
    pub(crate) fn transmit(
        &mut self,
        connection: ConnectionId,
        to: Side,
        lane: Lane,
        bytes: usize,
        event: Event,
    ) {
        let Some(wire) = self.wires.get(&connection).filter(|wire| wire.end(to.other()).open) else { return };
        let (from, target) = (wire.end(to.other()).node, wire.end(to).node);
        let bytes = bytes + FRAME_OVERHEAD_BYTES;
        self.nodes[from].bytes_sent += bytes as u64;
        self.acknowledge(connection, to.other(), false);
        if self.network.is_cut(from, target) {
            self.note_message(from, target, &event, bytes, Fate::Held);
            let stalled = Stalled { connection, to, lane, bytes, event };
            self.stalled.entry((from, target)).or_default().push(stalled);
        } else {
            self.carry(Stalled { connection, to, lane, bytes, event }, from, target);
        }
    }

    /// Acknowledgements of what came to a side. They go with what it sends within [`ACK_DELAY`], and alone after that.
    pub(super) fn acknowledge(&mut self, connection: ConnectionId, side: Side, came: bool) {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        let end = wire.end_mut(side);
        let node = end.node;
        let waits = end.unacknowledged.is_some_and(|since| now.since(since) <= ACK_DELAY);
        let alone = end.unacknowledged.is_some() && !waits;
        end.unacknowledged = match came {
            true if waits => end.unacknowledged,
            true => Some(now),
            false => None,
        };
        if alone {
            self.nodes[node].bytes_sent += ACK_BYTES;
        }
    }

    fn carry(&mut self, frame: Stalled, from: usize, to: usize) {
        let arrival = self.network.arrival(from, to, frame.bytes, self.now);
        let Some(wire) = self.wires.get_mut(&frame.connection) else { return };
        let last = wire.arrivals.entry((frame.to, frame.lane)).or_default();
        *last = arrival.max(*last);
        let at = *last;
        self.note_message(from, to, &frame.event, frame.bytes, Fate::Arrives(at.0));
        self.at(at, frame.event);
    }

    /// The network has changed: what was held back goes on, and whoever hears nothing any more begins to count.
    pub(super) fn network_changed(&mut self) {
        let mended: Vec<_> =
            self.stalled.keys().copied().filter(|(from, to)| !self.network.is_cut(*from, *to)).collect();
        for (from, to) in mended {
            for frame in self.stalled.remove(&(from, to)).unwrap_or_default() {
                self.carry(frame, from, to);
            }
        }
        let connections: Vec<_> = self.wires.keys().copied().collect();
        for connection in connections {
            self.watch(connection, Side::Dialler);
            self.watch(connection, Side::Listener);
        }
    }

    /// Begins or ends the count of a side that can hear nothing.
    fn watch(&mut self, connection: ConnectionId, side: Side) {
        let Some(wire) = self.wires.get(&connection) else { return };
        let (me, peer) = (wire.end(side), wire.end(side.other()));
        let silent = !peer.open || self.network.is_cut(peer.node, me.node);
        let (open, dark) = (me.open, me.dark);
        match (open && silent, dark) {
            (true, None) => {
                let since = self.now;
                if let Some(wire) = self.wires.get_mut(&connection) {
                    wire.end_mut(side).dark = Some(since);
                }
                self.later(TRANSPORT_IDLE, Event::Idle { connection, side, since });
            }
            (false, Some(_)) => {
                if let Some(wire) = self.wires.get_mut(&connection) {
                    wire.end_mut(side).dark = None;
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_idle(&mut self, connection: ConnectionId, side: Side, since: Moment) {
        let still = self.wires.get(&connection).is_some_and(|wire| wire.end(side).dark == Some(since));
        if still && self.hears(connection, side) {
            self.on_gone(connection, side);
        }
    }

    /// One side closes: at once, or when nothing runs over it any more. The other hears of it after all that was sent.
    pub(super) fn close(&mut self, connection: ConnectionId, side: Side, when_idle: bool) {
        let Some(wire) = self.wires.get_mut(&connection).filter(|wire| wire.end(side).open) else { return };
        if when_idle && wire.busy > 0 {
            wire.end_mut(side).draining = true;
            wire.end_mut(side).admitted = None;
            return;
        }
        let (me, peer) = (wire.end(side).node, wire.end(side.other()).node);
        self.transmit(
            connection,
            side.other(),
            Lane::Link,
            0,
            Event::Gone { connection, side: side.other() },
        );
        if self.network.is_cut(me, peer) {
            // The goodbye does not outlive the socket that sent it.
            if let Some(held) = self.stalled.get_mut(&(me, peer)) {
                held.retain(|frame| frame.connection != connection);
            }
        }
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.end_mut(side).open = false;
        }
        self.watch(connection, side.other());
        self.at(self.now, Event::Gone { connection, side });
    }

    /// A stream of a connection has ended; its order matters no more.
    pub(crate) fn forget_lane(&mut self, connection: ConnectionId, lane: Lane) {
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.arrivals.remove(&(Side::Dialler, lane));
            wire.arrivals.remove(&(Side::Listener, lane));
        }
    }

    /// A call or a pull over a connection has ended.
    pub(crate) fn unbusy(&mut self, connection: ConnectionId) {
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        wire.busy = wire.busy.saturating_sub(1);
        if wire.busy > 0 {
            return;
        }
        for side in [Side::Dialler, Side::Listener] {
            if self.wires.get(&connection).is_some_and(|wire| wire.end(side).draining) {
                self.close(connection, side, false);
            }
        }
    }

    /// A side hears that a connection is gone, or gives it up.
    pub(super) fn on_gone(&mut self, connection: ConnectionId, side: Side) {
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        let end = wire.end_mut(side);
        if core::mem::replace(&mut end.told, true) {
            return;
        }
        end.open = false;
        let (node, boot, peer) = (end.node, end.boot, wire.end(side.other()).node);
        let over = wire.is_over();
        self.trace.event(self.now, 5, node, &connection.0.to_le_bytes());
        if self.is_boot(node, boot) {
            self.nodes[node].wires.remove(&connection);
            self.streams_of_gone(connection, side);
            self.nodes[node].lost.insert(peer);
            self.gossip_gone(node, peer);
            self.pulls_of_gone(connection, node);
            self.feed(node, |mesh, now| mesh.handle_disconnected(connection, "the connection closed", now));
            self.give_up_if_hopeless(node, self.federation.id(peer));
        }
        if over {
            self.wires.remove(&connection);
        } else {
            self.watch(connection, side.other());
        }
    }

    /// A side's process is gone.
    pub(super) fn vanish(&mut self, connection: ConnectionId, side: Side) {
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        let end = wire.end_mut(side);
        (end.open, end.told) = (false, true);
        if wire.is_over() {
            self.wires.remove(&connection);
        } else {
            self.watch(connection, side.other());
        }
    }

    /// The admitted connection of `node` to `peer` that was heard last.
    pub(crate) fn admitted_wire(&self, node: usize, peer: usize) -> Option<(ConnectionId, Side)> {
        let wires = self.nodes[node].wires.iter().filter_map(|(connection, side)| {
            let wire = self.wires.get(connection)?;
            let (me, other) = (wire.end(*side), wire.end(side.other()));
            (other.node == peer && me.open && me.admitted.is_some()).then_some((me.heard, *connection, *side))
        });
        wires.max().map(|(_, connection, side)| (connection, side))
    }

    /// Connections of a node over which something runs.
    pub(super) fn busy_wires(&self, node: usize) -> Vec<ConnectionId> {
        let busy = |connection: &&ConnectionId| self.wires.get(connection).is_some_and(|wire| wire.busy > 0);
        self.nodes[node].wires.keys().filter(busy).copied().collect()
    }

    /// Something wants a connection to a peer: it gets one that stands, or waits for one that is made.
    pub(crate) fn open(&mut self, node: usize, peer: NodeId, addresses: Vec<String>, opening: Opening) {
        let Some(to) = self.federation.find(&peer) else { return self.opening_failed(node, opening) };
        if let Some((connection, side)) = self.admitted_wire(node, to) {
            return self.opened(node, connection, side, opening);
        }
        if addresses.is_empty() && !self.has_hope(node, peer) {
            return self.opening_failed(node, opening);
        }
        let hope = self.has_hope(node, peer);
        self.nodes[node].openings.entry(peer).or_default().push(opening);
        if !hope {
            self.dial(node, DialTarget { node: Some(peer), addresses });
        }
    }

    /// Whether a connection to a peer is being made or admitted.
    fn has_hope(&self, node: usize, peer: NodeId) -> bool {
        let coming = self.nodes[node].wires.iter().any(|(connection, side)| {
            self.wires.get(connection).is_some_and(|wire| {
                let (me, other) = (wire.end(*side), wire.end(side.other()));
                me.open && !me.draining && self.federation.id(other.node) == peer
            })
        });
        coming || self.nodes[node].dialling.contains_key(&peer)
    }

    pub(super) fn give_up_if_hopeless(&mut self, node: usize, peer: NodeId) {
        if self.has_hope(node, peer) {
            return;
        }
        for opening in self.nodes[node].openings.remove(&peer).unwrap_or_default() {
            self.opening_failed(node, opening);
        }
    }

    /// A connection has been admitted: what waited for it goes on.
    pub(super) fn reached(&mut self, node: usize, connection: ConnectionId, side: Side, peer: NodeId) {
        for opening in self.nodes[node].openings.remove(&peer).unwrap_or_default() {
            self.opened(node, connection, side, opening);
        }
    }

    fn opened(&mut self, node: usize, connection: ConnectionId, side: Side, opening: Opening) {
        match opening {
            Opening::Pull(id, digests) => self.begin_pull(connection, side, id, digests),
            Opening::Call(stream) => self.call_opened(node, connection, side, stream),
        }
    }

    fn opening_failed(&mut self, node: usize, opening: Opening) {
        let boot = self.nodes[node].boot;
        match opening {
            Opening::Pull(id, _) => self.at(self.now, Event::PullFailed { node, boot, id }),
            Opening::Call(stream) => self.call_not_opened(stream),
        }
    }
}
