//! One node of a run: its machine, its clocks, its disk, and what its shell would remember.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use comity_protocol::ids::{BlobDigest, NodeId, ObjectDigest};
use comity_protocol::mesh::{ConnectionId, FetchId, Mesh};
use comity_protocol::trust::RootChain;

use super::hostile::Hostile;
use super::wires::Side;
use super::{Event, World};
use crate::calls::StreamId;
use crate::chronicle::State;
use crate::disk::Disk;
use crate::federation::{Member, address};
use crate::moment::{LocalClock, Moment};
use crate::scenario::DiskFate;

/// How long a node that leaves may take before its process ends, as in the shell.
const LEAVE_GRACE: Duration = Duration::from_secs(5);

/// How long gossip remembers what has come, as gossipsub's duplicate cache does.
const GOSSIP_MEMORY: Duration = Duration::from_secs(60);

/// What waits for a connection to a peer.
pub(crate) enum Opening {
    /// A pull of blobs.
    Pull(FetchId, Vec<BlobDigest>),
    /// A call's stream.
    Call(StreamId),
}

/// One node.
pub(crate) struct Node {
    /// Its machine; `None` while it is down.
    pub(crate) mesh: Option<Mesh>,
    /// How often it has started.
    pub(crate) boot: u32,
    pub(crate) clock: LocalClock,
    pub(crate) disk: Disk,
    /// When its timer is set for.
    pub(crate) timer: Option<Moment>,
    /// Its connections, with the side that it is.
    pub(crate) wires: BTreeMap<ConnectionId, Side>,
    /// What waits for a connection to each peer.
    pub(crate) openings: BTreeMap<NodeId, Vec<Opening>>,
    /// Its pulls under way, with the connection that each goes over.
    pub(crate) pulls: BTreeMap<FetchId, ConnectionId>,
    /// Peers that are being dialled, with how many dials.
    pub(crate) dialling: BTreeMap<NodeId, u32>,
    pub(crate) hostile: Option<Hostile>,
    /// Whether it has ever been hostile: nothing is promised of it any more.
    tainted: bool,
    gossiped: BTreeSet<ObjectDigest>,
    gossip_order: VecDeque<(Moment, ObjectDigest)>,
    /// Whether its directory has changed since the judge looked.
    pub(crate) changed: bool,
    /// Bytes that it has sent.
    pub(crate) bytes_sent: u64,
}

impl Node {
    pub(crate) fn new(member: &Member) -> Self {
        let clock =
            LocalClock { skew_ms: member.skew_ms, drift_ppm: member.drift_ppm, booted: Moment::default() };
        Self {
            mesh: None,
            boot: 0,
            clock,
            disk: Disk::default(),
            timer: None,
            wires: BTreeMap::new(),
            openings: BTreeMap::new(),
            pulls: BTreeMap::new(),
            dialling: BTreeMap::new(),
            hostile: None,
            tainted: false,
            gossiped: BTreeSet::new(),
            gossip_order: VecDeque::new(),
            changed: false,
            bytes_sent: 0,
        }
    }

    pub(crate) const fn is_tainted(&self) -> bool {
        self.tainted
    }

    pub(super) fn turn(&mut self, hostile: Hostile) {
        self.tainted = true;
        self.hostile = Some(hostile);
    }

    /// Whether a gossip message is news to this node's gossip.
    pub(super) fn is_fresh(&mut self, digest: ObjectDigest, now: Moment) -> bool {
        while let Some((_, old)) = self.gossip_order.pop_front_if(|(at, _)| now.since(*at) >= GOSSIP_MEMORY) {
            self.gossiped.remove(&old);
        }
        let fresh = self.gossiped.insert(digest);
        if fresh {
            self.gossip_order.push_back((now, digest));
        }
        fresh
    }
}

impl World {
    /// Starts a node that is down, from what its disk has.
    pub(super) fn start(&mut self, at: usize) {
        if self.nodes[at].mesh.is_some() {
            return;
        }
        let seed = self.rng.next_u64();
        let node = &mut self.nodes[at];
        node.boot += 1;
        node.clock.booted = self.now;
        node.timer = None;
        let now = node.clock.now(self.now);
        let mut anchors = self.federation.anchors(at);
        for roots in self.nodes[at].disk.roots() {
            if let Ok(chain) = RootChain::decode(roots) {
                // A chain that no longer verifies is learned anew from peers.
                let _ = anchors.learn(chain);
            }
        }
        let restored = self.nodes[at].disk.restored();
        let mut mesh =
            Mesh::new(self.federation.identity(at), anchors, self.federation.seeds(at), restored, seed, now);
        mesh.set_addresses(vec![address(at)], now);
        mesh.set_offers(self.federation.offers(at), now);
        self.nodes[at].mesh = Some(mesh);
        self.nodes[at].changed = true;
        self.trace.event(self.now, 0, at, &[]);
        self.note_state(at, State::Up);
        self.judge.started(at, self.nodes[at].disk.sequences());
        self.calls.node_started(at, seed, now);
        self.feed(at, |_, _| ());
    }

    /// A node goes down at once. Nobody is told: a process that is gone says nothing, and its machine's packets stop.
    pub(super) fn crash(&mut self, at: usize, fate: DiskFate) {
        if self.nodes[at].mesh.take().is_none() {
            return;
        }
        self.trace.event(self.now, 2, at, &[fate as u8]);
        self.note_state(at, State::Down);
        let mut rng = core::mem::replace(&mut self.rng, comity_protocol::rng::Rng::new(0));
        let node = &mut self.nodes[at];
        node.disk.crash(fate, &mut rng);
        node.timer = None;
        node.openings.clear();
        node.pulls.clear();
        node.dialling.clear();
        node.gossiped.clear();
        node.gossip_order.clear();
        node.hostile = None;
        let wires: Vec<_> = core::mem::take(&mut node.wires).into_iter().collect();
        self.rng = rng;
        for (connection, side) in wires {
            self.vanish(connection, side);
        }
        self.judge.stopped(at);
        self.calls_of_crashed(at);
    }

    /// A node leaves in peace.
    pub(super) fn leave(&mut self, at: usize) {
        let boot = self.nodes[at].boot;
        if self.feed(at, |mesh, now| mesh.leave(now)).is_some() {
            self.later(LEAVE_GRACE, Event::Left { node: at, boot });
        }
    }

    pub(super) fn on_left(&mut self, node: usize, boot: u32) {
        if self.is_boot(node, boot) {
            self.crash(node, DiskFate::Kept);
        }
    }
}
