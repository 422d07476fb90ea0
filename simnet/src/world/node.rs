//! One node of a run: its machine, its clocks, its disk, and what its shell would remember.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_protocol::ids::{BlobDigest, NodeId};
use comity_protocol::mesh::{ConnectionId, FetchId, Mesh};
use comity_protocol::trust::RootChain;

use super::gossip::Gossip;
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
    pub(crate) gossip: Gossip,
    /// Whether its directory has changed since the judge looked.
    pub(crate) changed: bool,
    /// Bytes that it has sent.
    pub(crate) bytes_sent: u64,
    /// Peers that it has lost or dialled in vain, by number.
    pub(crate) lost: BTreeSet<usize>,
    /// How often its address has changed.
    pub(crate) moves: u32,
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
            gossip: Gossip::default(),
            changed: false,
            bytes_sent: 0,
            lost: BTreeSet::new(),
            moves: 0,
        }
    }

    pub(crate) const fn is_tainted(&self) -> bool {
        self.tainted
    }

    pub(super) fn turn(&mut self, hostile: Hostile) {
        self.tainted = true;
        self.hostile = Some(hostile);
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
        let restored = self.told_restored(self.nodes[at].disk.restored());
        let kept = restored.adverts.iter().map(|advert| advert.as_slice().into()).collect::<Vec<_>>();
        let mut mesh =
            Mesh::new(self.federation.identity(at), anchors, self.federation.seeds(at), restored, seed, now);
        mesh.set_addresses(addresses(at, self.nodes[at].moves), now);
        mesh.set_offers(self.federation.offers(at), now);
        self.nodes[at].mesh = Some(mesh);
        self.nodes[at].changed = true;
        self.trace.event(self.now, 0, at, &[]);
        self.begin_gossip(at);
        self.note_state(at, State::Up);
        self.judge.started(at, self.nodes[at].disk.sequences());
        let sequences = self.nodes[at].disk.sequences().iter();
        let sequences = sequences.filter_map(|(of, sequence)| Some((self.federation.find(of)?, *sequence)));
        self.model_started(at, &kept, sequences.collect());
        self.newcomer_started(at);
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
        node.gossip = Gossip::default();
        node.lost.clear();
        node.hostile = None;
        let wires: Vec<_> = core::mem::take(&mut node.wires).into_iter().collect();
        self.rng = rng;
        for (connection, side) in wires {
            self.vanish(connection, side);
        }
        self.judge.stopped(at);
        self.node_died(at);
        self.calls_of_crashed(at);
    }

    /// A node's address changes, and it says so.
    pub(super) fn move_away(&mut self, at: usize) {
        self.nodes[at].moves += 1;
        let moved = addresses(at, self.nodes[at].moves);
        self.feed(at, |mesh, now| mesh.set_addresses(moved, now));
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

/// Where a node says that it can be dialled after so many moves. The first address leads to it whatever it says last.
fn addresses(at: usize, moves: u32) -> Vec<String> {
    let moved = (moves > 0).then(|| format!("{}/{moves}", address(at)));
    [address(at)].into_iter().chain(moved).collect()
}
