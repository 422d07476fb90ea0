//! The mesh as one node lives it: who its neighbours are, what it knows of every other node, and how that converges.
//!
//! [`Mesh`] only dispatches. Each responsibility is a machine of its own: a [`link`] per connection (admission and
//! liveness), the [`directory`] (what has been verified), [`reconcile`] (anti-entropy), the [`overlay`] (whom to dial,
//! keep and let go) and [`fetch`] (offers and descriptors by digest).
//!
//! The drain contract: after every `handle_*` call, take effects from [`Mesh::poll_effect`] until it gives `None`,
//! carry them out, and call [`Mesh::handle_timeout`] no later than [`Mesh::poll_timeout`] says. Effects that concern a
//! connection that has gone meanwhile are dropped by whoever carries them out.

mod admission;
pub mod blobs;
pub mod directory;
pub mod fetch;
pub mod link;
mod neighbours;
pub mod overlay;
pub mod own;
mod publish;
mod pull;
pub mod reconcile;
pub mod rumour;
mod sizes;
mod sync;
pub mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::advert::Sequence;
use crate::ids::{BlobDigest, NodeId, OrgName, RootHash};
use crate::time::{Mono, Now, Wall};
use crate::trust::{Anchors, Membership, RoleSet, RootChain, Verified};

pub use sizes::{Sizes, Table};

use blobs::Blobs;
use directory::Directory;
use fetch::Fetcher;
use link::{Link, Overdue};
use overlay::{Overlay, Seed};
use own::{Identity, Own};
use reconcile::DigestTree;
use wire::LinkMessage;

/// How often a mesh with nothing else to do looks around.
const TICK: Duration = Duration::from_secs(1);

/// How often what nobody refers to any more is dropped.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// One connection, numbered by the shell; a number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Whom to dial: a node, an address, or both. An address alone is a seed whose key is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialTarget {
    /// The node that must answer; anybody may when it is `None`.
    pub node: Option<NodeId>,
    /// Multiaddrs, best first; never empty.
    pub addresses: Vec<String>,
}

/// One pull of blobs, numbered by the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(pub u64);

/// What must become durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshRecord {
    /// The node's own next sequence: [`Mesh`] publishes nothing under it until `handle_persisted` says that it is kept.
    OwnSequence(Sequence),
    /// An advert that has been verified, with its sequence, which outlives it.
    Advert {
        /// The node.
        node: NodeId,
        /// Its place in its history.
        sequence: Sequence,
        /// The envelope as received.
        bytes: Arc<[u8]>,
    },
    /// The advert of a node has ended; its sequence stays.
    Forget(NodeId),
    /// A newer chain of roots of a pinned org.
    Roots {
        /// The org.
        org: OrgName,
        /// The chain.
        bytes: Vec<u8>,
    },
}

/// What should happen in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Dial. The outcome comes back as `handle_connected` or `handle_dial_failed` with the same target.
    Dial(DialTarget),
    /// Send a frame on the link of a connection. Frames of one connection keep their order.
    Send(ConnectionId, Vec<u8>),
    /// The peer is who it says: take its streams. Ours wait until [`Effect::Admit`].
    Accept(ConnectionId),
    /// The peer has accepted us too: open gossip and all else.
    Admit {
        /// The connection.
        connection: ConnectionId,
        /// The peer.
        peer: NodeId,
        /// Its org.
        org: OrgName,
        /// What its org lets it do.
        roles: RoleSet,
    },
    /// Send what is queued, then close.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// Why, for the log.
        reason: String,
        /// Whether calls in flight are let finish first.
        when_idle: bool,
    },
    /// Publish on the gossip topic.
    Publish(Arc<[u8]>),
    /// Pull blobs from a node, dialling it if need be; answer with `handle_blobs`.
    Fetch {
        /// The pull.
        id: FetchId,
        /// From whom.
        from: NodeId,
        /// Where it can be dialled.
        addresses: Vec<String>,
        /// What, at most [`wire::BLOBS_PER_REQUEST_MAX`].
        digests: Vec<BlobDigest>,
    },
    /// Make durable; answer with `handle_persisted` for [`MeshRecord::OwnSequence`].
    Persist(MeshRecord),
    /// Something that the rest of the node or its operator wants to know.
    Event(MeshEvent),
}

/// Something that the rest of the node or its operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshEvent {
    /// A peer has been admitted on a connection, the first to it.
    PeerUp {
        /// The peer.
        peer: NodeId,
        /// Its org.
        org: OrgName,
    },
    /// The last connection to a peer has gone.
    PeerDown {
        /// The peer.
        peer: NodeId,
        /// Why.
        reason: String,
    },
    /// We refused a peer, or it refused us.
    Refused {
        /// The peer.
        peer: NodeId,
        /// Whether we were the one refused.
        by_peer: bool,
        /// A stable name.
        code: String,
        /// A sentence.
        detail: String,
    },
    /// An advert was refused.
    AdvertRefused {
        /// Who passed it on.
        from: NodeId,
        /// A stable name.
        code: &'static str,
        /// A sentence.
        detail: String,
    },
    /// The directory, the offers or the descriptors have changed: derive the catalogue and the routes anew.
    Changed,
    /// A node has signed two adverts with one sequence number.
    Equivocated(NodeId),
    /// The clock of a peer differs from ours by more than a minute.
    ClockDiffers {
        /// The peer.
        peer: NodeId,
        /// By how many seconds its clock is ahead; negative when it is behind.
        ahead_s: i64,
    },
}

/// How gossip should treat a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Pass it on.
    Accept,
    /// Do not pass it on, and blame nobody.
    Ignore,
    /// Do not pass it on; who sent it should not have.
    Reject,
}

/// What the shell kept from earlier runs.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The node's own newest durable sequence.
    pub own: Sequence,
    /// The highest sequence taken from each node.
    pub sequences: BTreeMap<NodeId, Sequence>,
    /// Adverts, as they were received; each is verified anew.
    pub adverts: Vec<Vec<u8>>,
}

/// The mesh as one node lives it. See the module for its contract.
#[derive(Clone, Debug)]
pub struct Mesh {
    anchors: Anchors,
    own: Own,
    directory: Directory,
    digests: DigestTree,
    blobs: Blobs,
    own_blobs: BTreeSet<BlobDigest>,
    fetcher: Fetcher,
    overlay: Overlay,
    rumours: rumour::Rumours,
    relays: sync::Relays,
    links: BTreeMap<ConnectionId, Link>,
    next_sweep: Mono,
    changed: bool,
    effects: VecDeque<Effect>,
}

impl Mesh {
    /// A node that knows its identity, its pins, its seeds and what it kept from earlier runs. `seed` fixes its choices.
    pub fn new(
        identity: Identity,
        mut anchors: Anchors,
        seeds: Vec<Seed>,
        restored: Restored,
        seed: u64,
        now: Now,
    ) -> Self {
        if let Some(pin) = identity.roots.pin() {
            anchors.pin(identity.membership.org.clone(), pin);
            // A node whose own root does not verify finds out when nobody admits it; `comity doctor` says it sooner.
            let _ = anchors.learn(identity.roots.clone());
        }
        let mut mesh = Self {
            anchors,
            own: Own::new(identity, restored.own),
            directory: Directory::new(restored.sequences),
            digests: DigestTree::default(),
            blobs: Blobs::default(),
            own_blobs: BTreeSet::new(),
            fetcher: Fetcher::new(seed.wrapping_add(1)),
            overlay: Overlay::new(seeds, seed, now.mono),
            rumours: rumour::Rumours::default(),
            relays: sync::Relays::default(),
            links: BTreeMap::new(),
            next_sweep: now.mono + SWEEP_INTERVAL,
            changed: false,
            effects: VecDeque::new(),
        };
        for advert in restored.adverts {
            // What no longer verifies, because it has ended or its org is pinned no more, is simply not restored.
            let _ = mesh.take_advert(&advert, None, now);
        }
        mesh.own.touch(now.mono);
        if restored.own != Sequence::default() {
            mesh.own.hold(now.mono + own::OFFERS_WAIT);
        }
        mesh.act(now);
        mesh
    }

    /// A connection was made; `dialled` is the target when we made it.
    pub fn handle_connected(
        &mut self,
        connection: ConnectionId,
        peer: NodeId,
        dialled: Option<&DialTarget>,
        now: Now,
    ) {
        let link = Link::new(connection, peer, dialled.is_some(), now.mono);
        self.links.insert(connection, link);
        if let Some(target) = dialled {
            self.overlay.connected(target, peer);
            self.say_hello(connection, now);
        }
        self.act(now);
    }

    /// A dial has failed.
    pub fn handle_dial_failed(&mut self, target: &DialTarget, now: Now) {
        self.overlay.failed(target, now.mono);
        if let Some(node) = target.node {
            // Who has been known to be dead and is dialled in vain again is still dead: others may go on believing it.
            let still = self.directory.is_known_dead(&node);
            self.mark_suspected(&node);
            if still {
                self.begin_rumour(&node, now);
            }
        }
        self.act(now);
    }

    /// A connection has gone.
    pub fn handle_disconnected(&mut self, connection: ConnectionId, reason: &str, now: Now) {
        if let Some(link) = self.links.remove(&connection) {
            self.link_gone(&link, reason);
        }
        self.act(now);
    }

    /// A call or a pull runs over a connection. Say so before [`Self::handle_timeout`] for as long as it does: a link
    /// that nobody needs as a neighbour's is closed otherwise, and closing cuts what runs over it.
    pub fn handle_used(&mut self, connection: ConnectionId, now: Now) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.used(now.mono);
        }
    }

    /// A frame came on a connection's link.
    pub fn handle_frame(&mut self, connection: ConnectionId, bytes: &[u8], now: Now) {
        let Some(link) = self.links.get_mut(&connection).filter(|link| link.phase != link::Phase::Closed)
        else {
            return;
        };
        let peer = link.peer;
        if link.heard(now.mono) {
            self.mark_alive(&peer);
            self.tell_of_rumour(connection, &peer);
        }
        match LinkMessage::decode(bytes) {
            Ok(message) => self.dispatch(connection, message, now),
            Err(error) => self.refuse(connection, "bad_frame", &format!("a link message {error}"), now),
        }
        self.act(now);
    }

    fn dispatch(&mut self, connection: ConnectionId, message: LinkMessage, now: Now) {
        let up = self.links.get(&connection).is_some_and(Link::is_up);
        match message {
            LinkMessage::Hello(hello) => self.on_hello(connection, hello, now),
            LinkMessage::Welcome(welcome) => self.on_welcome(connection, welcome, now),
            LinkMessage::Refuse(refusal) => self.on_refused(connection, refusal, now),
            _ if !up => self.refuse(connection, "not_admitted", "it spoke before it was admitted", now),
            LinkMessage::Ping { nonce, digest } => self.on_ping(connection, nonce, digest, now),
            LinkMessage::Pong { nonce, digest } => self.on_pong(connection, nonce, digest, now),
            LinkMessage::Orgs(orgs) => self.on_orgs(connection, &orgs),
            LinkMessage::Buckets(buckets) => self.on_buckets(connection, &buckets),
            LinkMessage::Entries(entries) => self.on_entries(connection, &entries),
            LinkMessage::Want(nodes) => self.send_adverts(connection, &nodes),
            LinkMessage::Adverts(adverts) => self.on_adverts(connection, &adverts, now),
            LinkMessage::Roots(chains) => self.on_roots(&chains, now),
            LinkMessage::Update(update) => self.on_update(connection, update, now),
            LinkMessage::Rumours(rumours) => self.on_rumours(connection, &rumours, now),
            LinkMessage::Bye(bye) => self.close(connection, &format!("the peer says: {}", bye.detail), true),
        }
    }

    /// A message came by gossip. The answer says whether to pass it on.
    pub fn handle_gossip(&mut self, from: NodeId, bytes: &[u8], now: Now) -> Acceptance {
        let acceptance = self.on_gossip(from, bytes, now);
        self.act(now);
        acceptance
    }

    /// A pull has ended: the answers in the order asked, or `None` when the peer could not be asked.
    pub fn handle_blobs(&mut self, id: FetchId, answers: Option<Vec<Option<Vec<u8>>>>, now: Now) {
        self.on_blobs(id, answers, now);
        self.act(now);
    }

    /// The node's own sequence is durable.
    pub fn handle_persisted(&mut self, sequence: Sequence, now: Now) {
        self.on_persisted(sequence, now);
        self.act(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.end_overdue_links(now);
        self.forget_ended(now);
        self.changed |= self.directory.end_rumours(now.mono);
        if now.mono >= self.next_sweep {
            self.next_sweep = now.mono + SWEEP_INTERVAL;
            self.sweep();
        }
        self.act(now);
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    pub fn poll_timeout(&self, now: Now) -> Mono {
        let links = self.links.values().filter_map(Link::next_timeout);
        let own = self.own.next_timeout();
        let fetches = self.fetcher.next_timeout(now.mono);
        let overlay = self.overlay.next_timeout(now.mono);
        let soonest = links.chain(own).chain(fetches).fold(overlay, Mono::min);
        soonest.min(now.mono + TICK).max(now.mono + Duration::from_millis(1))
    }

    /// The next thing to do in the world.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Does what has become due, after every input: pings, publication, pulls and dials.
    fn act(&mut self, now: Now) {
        self.raise_doubts(now);
        self.send_pings(now);
        if let Some(sequence) = self.own.take_due(now) {
            self.effects.push_back(Effect::Persist(MeshRecord::OwnSequence(sequence)));
        }
        self.begin_pulls(now);
        self.dial_more(now);
        if core::mem::take(&mut self.changed) {
            self.event(MeshEvent::Changed);
        }
    }

    fn end_overdue_links(&mut self, now: Now) {
        let overdue: Vec<_> = self
            .links
            .values()
            .filter_map(|link| link.overdue(now.mono, now.wall).map(|why| (link.connection, link.peer, why)))
            .collect();
        for (connection, peer, why) in overdue {
            match why {
                Overdue::Admission => {
                    self.refuse(connection, "admission_timeout", "it said no hello in time", now)
                }
                Overdue::Membership => {
                    self.refuse(connection, "membership_expired", "its membership ended", now)
                }
                Overdue::Spare => {
                    self.part(connection, "neither side needs this connection as a neighbour's")
                }
                Overdue::Silence => {
                    self.close(connection, "it was silent for three pings", false);
                    if self.mark_suspected(&peer) {
                        self.begin_rumour(&peer, now);
                    }
                }
            }
        }
    }

    fn forget_ended(&mut self, now: Now) {
        for entry in self.directory.remove_ended(now.wall) {
            self.forget(&entry);
        }
    }

    fn forget(&mut self, entry: &directory::Entry) {
        let node = entry.advert().node;
        if let Some(pin) = self.pin_of(entry.org()) {
            self.digests.remove(&pin, &node);
        }
        self.changed = true;
        self.effects.push_back(Effect::Persist(MeshRecord::Forget(node)));
    }

    fn pin_of(&self, org: &OrgName) -> Option<RootHash> {
        self.anchors.orgs().get(org).map(|pinned| pinned.pin)
    }

    /// Marks a node as one that did not answer. It ranks last and is removed by nothing but its own word or time. A node
    /// that answers on another link is none such: after a restart the old link falls silent while the new one works.
    /// Returns whether it is news.
    pub fn mark_suspected(&mut self, node: &NodeId) -> bool {
        let news = !self.answers(node) && self.directory.suspect(node, true);
        self.changed |= news;
        news
    }

    /// Whether a node is linked and answers there.
    fn answers(&self, node: &NodeId) -> bool {
        self.links.values().any(|link| link.is_up() && link.peer == *node && !link.is_doubted())
    }

    /// Marks a node as one that answers.
    pub fn mark_alive(&mut self, node: &NodeId) {
        self.changed |= self.directory.suspect(node, false);
    }

    fn send(&mut self, connection: ConnectionId, message: &LinkMessage) {
        self.effects.push_back(Effect::Send(connection, message.encode()));
    }

    fn event(&mut self, event: MeshEvent) {
        self.effects.push_back(Effect::Event(event));
    }

    /// Where this node can be dialled.
    pub fn set_addresses(&mut self, addresses: Vec<String>, now: Now) {
        self.own.set_addresses(addresses, now.mono);
        self.act(now);
    }

    /// A new membership of this node. Links are told, so that they outlive the old one.
    pub fn set_membership(&mut self, membership: Verified<Membership>, roots: RootChain, now: Now) {
        self.own.set_membership(membership, now.mono);
        self.own.identity.roots = roots.clone();
        let _ = self.anchors.learn(roots);
        let up: Vec<_> =
            self.links.values().filter(|link| link.is_up()).map(|link| link.connection).collect();
        for connection in up {
            self.say_hello(connection, now);
        }
        self.act(now);
    }

    /// Looks for `target` neighbours from now on.
    pub fn set_neighbours(&mut self, target: usize, now: Now) {
        self.overlay.set_target(target);
        self.act(now);
    }

    /// Adds a seed.
    pub fn add_seed(&mut self, seed: Seed, now: Now) {
        self.overlay.add_seed(seed);
        self.act(now);
    }

    /// Withdraws all offers and parts from every peer.
    pub fn leave(&mut self, now: Now) {
        self.own.leave(now.mono);
        self.act(now);
    }

    /// Every advert that is known, this node's own among them.
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What this node has pinned.
    pub const fn anchors(&self) -> &Anchors {
        &self.anchors
    }

    /// Offer sets and descriptors.
    pub const fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// A blob for a node of `org`, if it may have it.
    pub fn blob_for(&self, org: &OrgName, digest: &BlobDigest) -> Option<Arc<[u8]>> {
        self.blobs.get_for(org, digest)
    }

    /// All links, in the order in which they were made.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.own.node()
    }

    /// The digest of all that is known, for tests and for people who compare two nodes.
    pub fn digest(&self) -> u64 {
        let pins: BTreeSet<RootHash> = self.anchors.orgs().values().map(|pinned| pinned.pin).collect();
        self.digests.digest(&pins.into_iter().collect::<Vec<_>>())
    }
}

/// How far two clocks are apart in whole seconds; positive when `theirs` is ahead.
fn ahead_s(theirs: Wall, ours: Wall) -> i64 {
    let (theirs, ours) = (theirs.as_millis() / 1000, ours.as_millis() / 1000);
    i64::try_from(theirs).unwrap_or(i64::MAX) - i64::try_from(ours).unwrap_or(i64::MAX)
}
