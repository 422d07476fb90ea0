//! One run: the discrete-event loop over the real machines of `comity-protocol`.
//!
//! [`World`] owns every node, every connection and a queue of events in the order of simulated time; two events of one
//! moment keep the order in which they were made. Taking an event out, feeding a machine and carrying out its effects is
//! one step; the [`Judge`] looks after each. Nothing here depends on a clock, on hash order or on anything but scenario
//! and seed.
//!
//! `notes` is what a chronicle is told. `wires` is connections, `effects` what machines want, `gossip` and `pulls` the two things that libp2p and the shell do
//! for a real node, `faults` what goes wrong, `hostile` those who do it on purpose.

mod effects;
mod faults;
mod gossip;
mod hostile;
mod measure;
mod node;
mod notes;
mod pulls;
mod wires;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::ids::BlobDigest;
use comity_protocol::mesh::{ConnectionId, DialTarget, FetchId, Mesh};
use comity_protocol::rng::Rng;
use comity_protocol::time::Now;

use crate::calls::{CallEvent, Calls};
use crate::chronicle::Chronicle;
use crate::federation::Federation;
use crate::figures::Figures;
use crate::judge::{Invariant, Judge};
use crate::moment::Moment;
use crate::network::Network;
use crate::sabotage::Sabotage;
use crate::scenario::Scenario;
use crate::stage::{Drawn, draw};
use crate::trace::Trace;

pub(crate) use faults::{Change, Step, plan};
pub(crate) use gossip::Control;
pub(crate) use measure::Death;
pub(crate) use node::{Node, Opening};
pub(crate) use wires::{Lane, Side, Wire};

/// How often a run looks whether the federation has converged.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How often every node's whole directory is held against the invariants, besides what has just changed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// In a federation of at most so many nodes all directories are swept at once.
const SWEPT_NODES_MAX: usize = 200;

/// How long the shell holds back a stream of a peer that is accepted and not yet admitted, before it looks again.
pub(crate) const HOLD_BACK: Duration = Duration::from_millis(5);

/// What happens.
pub(crate) enum Event {
    /// A node starts.
    Start(usize),
    /// A node's timer.
    Timer { node: usize, boot: u32 },
    /// A node's group of records is durable.
    Synced { node: usize, boot: u32 },
    /// A dial has come to an end.
    Dialled { node: usize, boot: u32, target: DialTarget },
    /// The first packet of a dial is sent again.
    DialAgain { node: usize, boot: u32, target: DialTarget, resent: usize },
    /// A dial has failed.
    DialFailed { node: usize, boot: u32, target: DialTarget },
    /// The listener hears of a connection.
    Accepted(ConnectionId),
    /// A link frame arrives.
    Frame { connection: ConnectionId, to: Side, bytes: Vec<u8> },
    /// A gossip message arrives.
    Gossip { connection: ConnectionId, to: Side, bytes: Arc<[u8]> },
    /// Something that gossip's peers tell each other arrives.
    Control { connection: ConnectionId, to: Side, control: Control },
    /// A node's gossip looks after itself.
    Heartbeat { node: usize, boot: u32 },
    /// A request for blobs arrives.
    Pull { connection: ConnectionId, to: Side, id: FetchId, digests: Vec<BlobDigest> },
    /// Blobs arrive.
    Blobs { connection: ConnectionId, to: Side, id: FetchId, answers: Vec<Option<Vec<u8>>> },
    /// A pull has come to nothing.
    PullFailed { node: usize, boot: u32, id: FetchId },
    /// One side hears that a connection has gone.
    Gone { connection: ConnectionId, side: Side },
    /// A side that has heard nothing since a moment gives its connection up.
    Idle { connection: ConnectionId, side: Side, since: Moment },
    /// A node that leaves has had its time.
    Left { node: usize, boot: u32 },
    /// Something goes wrong, or ends.
    Fault(usize),
    /// A hostile node acts.
    Hostile { node: usize, boot: u32 },
    /// Something about a call.
    Call(CallEvent),
    /// The judge looks around.
    Look,
    /// The judge looks at every directory whole.
    Sweep,
}

struct Queued {
    at: Moment,
    serial: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

/// One run. See the module.
pub(crate) struct World {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) federation: Federation,
    pub(crate) now: Moment,
    queue: BinaryHeap<Reverse<Queued>>,
    serial: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) wires: BTreeMap<ConnectionId, Wire>,
    connections: u64,
    stalled: BTreeMap<(usize, usize), Vec<wires::Stalled>>,
    pub(crate) faults: Vec<Step>,
    pub(crate) calls: Calls,
    pub(crate) judge: Judge,
    pub(crate) figures: Figures,
    pub(crate) trace: Trace,
    pub(crate) rng: Rng,
    /// What is missing from the rules that honest nodes keep, in a test of the judge.
    pub(crate) sabotage: Option<Sabotage>,
    /// What happened, when somebody wants to see it.
    pub(crate) chronicle: Option<Box<Chronicle>>,
}

impl World {
    /// The world of one scenario and one seed, at its beginning.
    pub(crate) fn new(scenario: Arc<Scenario>, seed: u64) -> Self {
        let Drawn { federation, network, calls_seed, steps: faults, starts, rng } = draw(&scenario, seed);
        let nodes = (0..federation.len()).map(|at| Node::new(&federation.members[at])).collect();
        let calls = Calls::new(&scenario, federation.len(), calls_seed);
        let judge = Judge::new(federation.len());
        let mut world = Self {
            scenario,
            federation,
            now: Moment::default(),
            queue: BinaryHeap::new(),
            serial: 0,
            nodes,
            network,
            wires: BTreeMap::new(),
            connections: 0,
            stalled: BTreeMap::new(),
            faults,
            calls,
            judge,
            figures: Figures::default(),
            trace: Trace::default(),
            rng,
            sabotage: None,
            chronicle: None,
        };
        world.schedule_beginning(starts);
        world
    }

    fn schedule_beginning(&mut self, starts: Vec<Moment>) {
        for (node, at) in starts.into_iter().enumerate() {
            self.at(at, Event::Start(node));
        }
        for step in 0..self.faults.len() {
            self.at(self.faults[step].at, Event::Fault(step));
        }
        self.later(LOOK_INTERVAL, Event::Look);
        self.later(SWEEP_INTERVAL, Event::Sweep);
        self.begin_calls();
    }

    /// Puts an event into the queue.
    pub(crate) fn at(&mut self, at: Moment, event: Event) {
        self.serial += 1;
        self.queue.push(Reverse(Queued { at: at.max(self.now), serial: self.serial, event }));
    }

    /// Puts an event into the queue, some time from now.
    pub(crate) fn later(&mut self, after: Duration, event: Event) {
        self.at(self.now + after, event);
    }

    /// Runs to the end, or to where the judge has seen enough. `progress` is told the moment from time to time.
    pub(crate) fn run(&mut self, mut progress: impl FnMut(Moment)) {
        self.run_while(|moment| {
            progress(moment);
            ControlFlow::Continue(())
        });
    }

    /// The same, and breaks off when `progress` says so.
    pub(crate) fn run_while(&mut self, mut progress: impl FnMut(Moment) -> ControlFlow<()>) {
        let mut told = 0_u64;
        while let Some(Reverse(next)) = self.queue.pop() {
            if next.at > self.end() || self.judge.has_seen_enough() {
                break;
            }
            self.now = next.at;
            self.step(next.event);
            told += 1;
            if told.is_multiple_of(4096) && progress(self.now).is_break() {
                return;
            }
        }
        if !self.judge.has_seen_enough() {
            self.judge_end();
        }
    }

    /// When the run ends: after it has been quiet for long enough since all had healed, and after all that is expected of
    /// calls could happen.
    fn end(&self) -> Moment {
        let latest = Moment::after(self.scenario.phases.total());
        let Some(healed) = self.judge.healed else { return latest };
        let ends = self.scenario.expectations.iter().map(|expectation| Moment::after(expectation.during.to));
        // One that names no time means the whole run, however long that is.
        let expected = ends.filter(|end| *end < latest);
        expected.fold(healed + self.scenario.phases.quiet_for, Moment::max).min(latest)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Start(node) => self.start(node),
            Event::Timer { node, boot } => self.on_timer(node, boot),
            Event::Synced { node, boot } => self.on_synced(node, boot),
            Event::Dialled { node, boot, target } => self.on_dialled(node, boot, target),
            Event::DialAgain { node, boot, target, resent } => {
                self.on_dial_again(node, boot, target, resent);
            }
            Event::Control { connection, to, control } => self.on_control(connection, to, control),
            Event::Heartbeat { node, boot } => self.on_heartbeat(node, boot),
            Event::DialFailed { node, boot, target } => self.on_dial_failed(node, boot, &target),
            Event::Accepted(connection) => self.on_accepted(connection),
            Event::Frame { connection, to, bytes } => self.on_frame(connection, to, &bytes),
            Event::Gossip { connection, to, bytes } => self.on_gossip(connection, to, &bytes),
            Event::Pull { connection, to, id, digests } => self.on_pull(connection, to, id, &digests),
            Event::Blobs { connection, to, id, answers } => self.on_blobs(connection, to, id, answers),
            Event::PullFailed { node, boot, id } => self.on_pull_failed(node, boot, id),
            Event::Gone { connection, side } => self.on_gone(connection, side),
            Event::Idle { connection, side, since } => self.on_idle(connection, side, since),
            Event::Left { node, boot } => self.on_left(node, boot),
            Event::Fault(step) => self.on_fault(step),
            Event::Hostile { node, boot } => self.on_hostile(node, boot),
            Event::Call(event) => self.on_call(event),
            Event::Look => self.on_look(),
            Event::Sweep => self.on_sweep(),
        }
    }

    /// What a node's clocks show now.
    pub(crate) fn local(&self, node: usize) -> Now {
        self.nodes[node].clock.now(self.now)
    }

    /// Whether a node runs and this is still the same start of it.
    pub(crate) fn is_boot(&self, node: usize, boot: u32) -> bool {
        self.nodes[node].mesh.is_some() && self.nodes[node].boot == boot
    }

    /// Feeds a node's machine, carries out what it wants and lets the judge look. `None` when the node is down.
    pub(crate) fn feed<R>(&mut self, node: usize, feed: impl FnOnce(&mut Mesh, Now) -> R) -> Option<R> {
        let now = self.told_time(self.local(node));
        let result = feed(self.nodes[node].mesh.as_mut()?, now);
        self.drain(node);
        self.judge_step(node);
        self.arm(node);
        Some(result)
    }

    /// Sets a node's timer, unless one that is early enough is set already.
    fn arm(&mut self, node: usize) {
        let now = self.local(node);
        let Some(mesh) = &self.nodes[node].mesh else { return };
        let due = self.nodes[node].clock.when(mesh.poll_timeout(now)).max(self.now);
        if self.nodes[node].timer.is_none_or(|set| due < set) {
            self.nodes[node].timer = Some(due);
            let boot = self.nodes[node].boot;
            self.at(due, Event::Timer { node, boot });
        }
    }

    fn on_timer(&mut self, node: usize, boot: u32) {
        if !self.is_boot(node, boot) || self.nodes[node].timer.is_none_or(|set| set > self.now) {
            return;
        }
        self.trace.event(self.now, 1, node, &[]);
        self.nodes[node].timer = None;
        let busy = self.busy_wires(node);
        self.feed(node, |mesh, now| {
            busy.into_iter().for_each(|connection| mesh.handle_used(connection, now));
            mesh.handle_timeout(now);
        });
    }

    fn on_look(&mut self) {
        self.judge_look();
        self.later(LOOK_INTERVAL, Event::Look);
    }

    fn on_sweep(&mut self) {
        let second = usize::try_from(self.now.as_millis() / 1000).unwrap_or(0);
        for node in 0..self.nodes.len() {
            // In a large federation the whole of each directory is looked at once a minute, each second a part of them.
            if self.nodes.len() <= SWEPT_NODES_MAX || (node + second).is_multiple_of(60) {
                self.judge_directory(node);
            }
            if let Some(mesh) = &self.nodes[node].mesh {
                self.figures.see(&mesh.sizes(), mesh.links().count());
            }
        }
        self.later(SWEEP_INTERVAL, Event::Sweep);
    }

    /// Whether a node runs and has not turned on the others.
    pub(crate) fn is_honest(&self, node: usize) -> bool {
        self.nodes[node].mesh.is_some() && !self.nodes[node].is_tainted()
    }

    /// Whether two nodes should know each other: each pinned by the other's org, and neither direction cut.
    pub(crate) fn can_meet(&self, one: usize, other: usize) -> bool {
        self.federation.pinned(one, other)
            && !self.network.is_cut(one, other)
            && !self.network.is_cut(other, one)
    }

    /// Notes that an invariant does not hold.
    pub(crate) fn violate(&mut self, invariant: Invariant, node: Option<usize>, detail: String) {
        let name = node.map(|node| self.federation.members[node].name.clone());
        let known = self.judge.violations.len();
        self.judge.violate(invariant, self.now, name, detail);
        if self.judge.violations.len() > known {
            self.note(|chronicle, _| chronicle.violated());
        }
    }
}
