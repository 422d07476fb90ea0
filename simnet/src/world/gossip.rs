//! Gossip, as gossipsub v1.1 does it (libp2p specifications, pubsub/gossipsub; parameters and byte layout of libp2p-gossipsub
//! 0.50, `config.rs` and `behaviour.rs`, as the node configures it).
//!
//! Modelled: subscriptions; a mesh of some six peers a node, made by GRAFT when a peer subscribes and at heartbeats, cut by
//! PRUNE when too large, with backoff; publication to all peers (`flood_publish`); passing on to the mesh after the core's
//! verdict; the cache of five heartbeats; IHAVE at each heartbeat to six peers outside the mesh or a quarter of them, IWANT
//! and its answer; the memory of what was seen; the bytes of every RPC. Not modelled: scores (the core's verdict stops what
//! they would punish later), opportunistic grafting (it goes by scores), IDONTWANT (for messages of 1,000 bytes and more;
//! adverts are smaller).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::ids::{NodeId, ObjectDigest};
use comity_protocol::mesh::{Acceptance, ConnectionId};
use comity_protocol::rng::Rng;

use super::wires::{Lane, Side};
use super::{Event, World};
use crate::chronicle::Fate;
use crate::moment::Moment;

/// Most bytes of a gossip message; gossipsub carries no larger one.
const GOSSIP_BYTES_MAX: usize = 64 * 1024;

/// The size of the mesh that is sought, and the least and the most before something is done about it.
const MESH: usize = 6;
const MESH_LOW: usize = 5;
const MESH_HIGH: usize = 12;

const HEARTBEAT: Duration = Duration::from_secs(1);
const HEARTBEAT_DELAY: Duration = Duration::from_secs(5);

/// For how many heartbeats messages are kept, and for how many of these they are told of.
const CACHE_HEARTBEATS: usize = 5;
const TOLD_HEARTBEATS: usize = 3;

/// How many peers outside the mesh are told at least, and which part of them.
const TOLD_PEERS: usize = 6;
const TOLD_PART: usize = 4;

/// How long a pruned peer is not grafted again.
const BACKOFF: Duration = Duration::from_secs(60);

/// How long gossip remembers what has come, as the node sets it.
const SEEN_FOR: Duration = Duration::from_secs(120);

/// Bytes of an RPC besides its content: field tags and lengths, and the topic's name, `comity/<mesh>/advert/1`.
const RPC_BYTES: usize = 8;
const TOPIC_BYTES: usize = 24;
const ID_BYTES: usize = 22;

/// What gossipsub's peers tell each other besides messages.
#[derive(Clone, Debug)]
pub(crate) enum Control {
    Subscribe,
    Graft,
    Prune,
    Have(Vec<ObjectDigest>),
    Want(Vec<ObjectDigest>),
}

impl Control {
    const fn bytes(&self) -> usize {
        let content = match self {
            Self::Subscribe | Self::Graft => 0,
            // The backoff, in seconds.
            Self::Prune => 4,
            Self::Have(ids) | Self::Want(ids) => ids.len() * ID_BYTES,
        };
        RPC_BYTES + TOPIC_BYTES + content
    }
}

/// One node's gossip.
#[derive(Default)]
pub(crate) struct Gossip {
    peers: BTreeSet<usize>,
    mesh: BTreeSet<usize>,
    backoff: BTreeMap<usize, Moment>,
    seen: BTreeSet<ObjectDigest>,
    seen_order: VecDeque<(Moment, ObjectDigest)>,
    cache: BTreeMap<ObjectDigest, Arc<[u8]>>,
    /// What came in each of the last heartbeats, the newest first.
    history: VecDeque<Vec<ObjectDigest>>,
    /// What has been asked for since the last heartbeat.
    asked: BTreeSet<ObjectDigest>,
}

impl Gossip {
    /// Whether a message is news.
    fn is_fresh(&mut self, digest: ObjectDigest, now: Moment) -> bool {
        while let Some((_, old)) = self.seen_order.pop_front_if(|(at, _)| now.since(*at) >= SEEN_FOR) {
            self.seen.remove(&old);
        }
        let fresh = self.seen.insert(digest);
        if fresh {
            self.seen_order.push_back((now, digest));
        }
        fresh
    }

    fn cache(&mut self, digest: ObjectDigest, bytes: &Arc<[u8]>) {
        self.cache.insert(digest, bytes.clone());
        if self.history.is_empty() {
            self.history.push_front(Vec::new());
        }
        self.history[0].push(digest);
    }

    fn forget(&mut self, peer: usize) {
        self.peers.remove(&peer);
        self.mesh.remove(&peer);
    }

    fn may_graft(&self, peer: usize, now: Moment) -> bool {
        self.backoff.get(&peer).is_none_or(|until| *until <= now)
    }

    /// The mesh is kept up: whom to graft and whom to prune.
    fn keep_mesh(&mut self, rng: &mut Rng, now: Moment) -> (Vec<usize>, Vec<usize>) {
        self.backoff.retain(|_, until| *until > now);
        let (mut graft, mut prune) = (Vec::new(), Vec::new());
        if self.mesh.len() < MESH_LOW {
            let others = self.peers.difference(&self.mesh).copied();
            graft = others.filter(|peer| self.may_graft(*peer, now)).collect();
            rng.shuffle(&mut graft);
            graft.truncate(MESH - self.mesh.len());
            self.mesh.extend(&graft);
        } else if self.mesh.len() >= MESH_HIGH {
            prune = self.mesh.iter().copied().collect();
            rng.shuffle(&mut prune);
            prune.truncate(self.mesh.len() - MESH);
            for peer in &prune {
                self.mesh.remove(peer);
                self.backoff.insert(*peer, now + BACKOFF);
            }
        }
        (graft, prune)
    }

    /// Whom to tell of which messages, and on to the next heartbeat.
    fn tell(&mut self, rng: &mut Rng) -> (Vec<usize>, Vec<ObjectDigest>) {
        let ids: Vec<_> = self.history.iter().take(TOLD_HEARTBEATS).flatten().copied().collect();
        let mut others: Vec<_> = self.peers.difference(&self.mesh).copied().collect();
        rng.shuffle(&mut others);
        others.truncate(TOLD_PEERS.max(others.len() / TOLD_PART));
        self.history.push_front(Vec::new());
        if self.history.len() > CACHE_HEARTBEATS {
            for old in self.history.pop_back().unwrap_or_default() {
                self.cache.remove(&old);
            }
        }
        self.asked.clear();
        (others, ids)
    }
}

impl World {
    /// A node's gossip begins with it.
    pub(super) fn begin_gossip(&mut self, node: usize) {
        self.nodes[node].gossip = Gossip::default();
        let boot = self.nodes[node].boot;
        self.later(HEARTBEAT_DELAY, Event::Heartbeat { node, boot });
    }

    pub(super) fn on_heartbeat(&mut self, node: usize, boot: u32) {
        if !self.is_boot(node, boot) {
            return;
        }
        self.later(HEARTBEAT, Event::Heartbeat { node, boot });
        let now = self.now;
        let gossip = &mut self.nodes[node].gossip;
        let (graft, prune) = gossip.keep_mesh(&mut self.rng, now);
        let (told, ids) = gossip.tell(&mut self.rng);
        graft.into_iter().for_each(|peer| self.tell_peer(node, peer, Control::Graft));
        prune.into_iter().for_each(|peer| self.tell_peer(node, peer, Control::Prune));
        if !ids.is_empty() {
            told.into_iter().for_each(|peer| self.tell_peer(node, peer, Control::Have(ids.clone())));
        }
    }

    /// A connection has been admitted: the gate opens, and subscriptions go over it.
    pub(super) fn gossip_opened(&mut self, node: usize, connection: ConnectionId, side: Side) {
        self.control(connection, side.other(), Control::Subscribe);
        let Some(peer) = self.wires.get(&connection).map(|wire| wire.end(side.other()).node) else { return };
        // The peer may have subscribed already, on this connection, before this side let it in.
        if self.wires.get(&connection).is_some_and(|wire| wire.end(side).subscribed) {
            self.on_subscribed(node, peer);
        }
    }

    /// A connection has gone: without another one the peer is no peer of gossip's any more.
    pub(super) fn gossip_gone(&mut self, node: usize, peer: usize) {
        if self.admitted_wire(node, peer).is_none() {
            self.nodes[node].gossip.forget(peer);
        }
    }

    fn tell_peer(&mut self, node: usize, peer: usize, control: Control) {
        match self.admitted_wire(node, peer) {
            Some((connection, side)) => self.control(connection, side.other(), control),
            None => self.nodes[node].gossip.forget(peer),
        }
    }

    fn control(&mut self, connection: ConnectionId, to: Side, control: Control) {
        let bytes = control.bytes();
        self.transmit(connection, to, Lane::Gossip, bytes, Event::Control { connection, to, control });
    }

    pub(super) fn on_control(&mut self, connection: ConnectionId, to: Side, control: Control) {
        let Some(node) = self.receive(connection, to) else { return };
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        let peer = wire.end(to.other()).node;
        let admitted = wire.end(to).admitted.is_some();
        self.trace.event(self.now, 14, node, &[control.bytes() as u8]);
        match control {
            Control::Subscribe if !admitted => wire.end_mut(to).subscribed = true,
            Control::Subscribe => self.on_subscribed(node, peer),
            Control::Graft => self.on_graft(node, peer),
            Control::Prune => {
                let until = self.now + BACKOFF;
                self.nodes[node].gossip.mesh.remove(&peer);
                self.nodes[node].gossip.backoff.insert(peer, until);
            }
            Control::Have(ids) => self.on_have(node, peer, ids),
            Control::Want(ids) => self.on_want(node, peer, &ids),
        }
    }

    fn on_subscribed(&mut self, node: usize, peer: usize) {
        let now = self.now;
        let gossip = &mut self.nodes[node].gossip;
        gossip.peers.insert(peer);
        let graft = gossip.mesh.len() < MESH_LOW && gossip.may_graft(peer, now) && gossip.mesh.insert(peer);
        if graft {
            self.tell_peer(node, peer, Control::Graft);
        }
    }

    fn on_graft(&mut self, node: usize, peer: usize) {
        let now = self.now;
        let gossip = &mut self.nodes[node].gossip;
        if gossip.mesh.contains(&peer) {
            return;
        }
        if gossip.may_graft(peer, now) && gossip.mesh.len() < MESH_HIGH {
            gossip.mesh.insert(peer);
        } else {
            self.tell_peer(node, peer, Control::Prune);
        }
    }

    fn on_have(&mut self, node: usize, peer: usize, ids: Vec<ObjectDigest>) {
        let gossip = &mut self.nodes[node].gossip;
        let unseen = ids.into_iter().filter(|id| !gossip.seen.contains(id) && gossip.asked.insert(*id));
        let unseen: Vec<_> = unseen.collect();
        if !unseen.is_empty() {
            self.tell_peer(node, peer, Control::Want(unseen));
        }
    }

    fn on_want(&mut self, node: usize, peer: usize, ids: &[ObjectDigest]) {
        let cache = &self.nodes[node].gossip.cache;
        let messages: Vec<_> = ids.iter().filter_map(|id| cache.get(id).cloned()).collect();
        for message in messages {
            self.pass_to(node, peer, message);
        }
    }

    /// A node publishes.
    pub(super) fn publish(&mut self, node: usize, bytes: &Arc<[u8]>) {
        let (now, digest) = (self.now, ObjectDigest::of(bytes));
        let gossip = &mut self.nodes[node].gossip;
        // As the real one it forgets at once what it could send to nobody, so that it may be published again.
        if gossip.peers.is_empty() || !gossip.is_fresh(digest, now) {
            return;
        }
        gossip.cache(digest, bytes);
        let peers: Vec<_> = gossip.peers.iter().copied().collect();
        peers.into_iter().for_each(|peer| self.pass_to(node, peer, bytes.clone()));
    }

    fn pass_to(&mut self, node: usize, peer: usize, bytes: Arc<[u8]>) {
        match self.admitted_wire(node, peer) {
            Some((connection, side)) => self.send_gossip(node, connection, side.other(), bytes),
            None => self.nodes[node].gossip.forget(peer),
        }
    }

    /// Sends one gossip message over one connection, unless that hop fails.
    pub(super) fn send_gossip(&mut self, node: usize, connection: ConnectionId, to: Side, bytes: Arc<[u8]>) {
        let Some(peer) = self.wires.get(&connection).map(|wire| wire.end(to).node) else { return };
        let length = bytes.len() + RPC_BYTES + TOPIC_BYTES;
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
        if !wire.end(to).accepted || !self.nodes[node].gossip.is_fresh(digest, now) {
            return;
        }
        let from: NodeId = self.federation.id(sender);
        self.judge_offered(node, bytes);
        let acceptance = self.feed(node, |mesh, now| mesh.handle_gossip(from, bytes, now));
        if acceptance == Some(Acceptance::Accept) {
            let gossip = &mut self.nodes[node].gossip;
            gossip.cache(digest, bytes);
            let mesh: Vec<_> = gossip.mesh.iter().copied().filter(|peer| *peer != sender).collect();
            mesh.into_iter().for_each(|peer| self.pass_to(node, peer, bytes.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_peers(count: usize) -> Gossip {
        Gossip { peers: (0..count).collect(), ..Gossip::default() }
    }

    #[test]
    fn a_mesh_is_filled_to_six_and_cut_to_six() {
        let (mut gossip, mut rng) = (with_peers(20), Rng::new(1));
        let (graft, prune) = gossip.keep_mesh(&mut rng, Moment(0));
        assert_eq!((graft.len(), prune.len(), gossip.mesh.len()), (MESH, 0, MESH));
        gossip.mesh.extend(0..MESH_HIGH);
        let (graft, prune) = gossip.keep_mesh(&mut rng, Moment(0));
        assert!(graft.is_empty() && !prune.is_empty() && gossip.mesh.len() == MESH);
        gossip.mesh.clear();
        let (again, _) = gossip.keep_mesh(&mut rng, Moment(0));
        assert!(again.iter().all(|peer| !prune.contains(peer)), "who was pruned is left alone for a while");
    }

    #[test]
    fn what_came_is_told_for_three_heartbeats_and_kept_for_five() {
        let (mut gossip, mut rng) = (with_peers(40), Rng::new(1));
        let message: Arc<[u8]> = b"x".as_slice().into();
        let digest = ObjectDigest::of(&message);
        assert!(gossip.is_fresh(digest, Moment(0)) && !gossip.is_fresh(digest, Moment(1)));
        gossip.cache(digest, &message);
        let told: Vec<usize> = (0..6).map(|_| gossip.tell(&mut rng).1.len()).collect();
        assert_eq!(told, [1, 1, 1, 0, 0, 0]);
        assert!(gossip.cache.is_empty() && gossip.tell(&mut rng).0.len() == 10);
        assert!(gossip.is_fresh(digest, Moment(0) + SEEN_FOR));
    }
}
