//! One run: the scenario's agenda, played on tokio's paused clock, which leaps from one thing that is due to the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use comity_simnet::moment::Moment;
use comity_simnet::scenario::{DiskFate, Scenario, SiteId};
use comity_simnet::stage::{Happening, Stage};
use tokio::time::sleep_until;

use crate::calls::{Book, Order};
use crate::judge::{Judge, Sight};
use crate::net::Shared;
use crate::nodes::{Node, StartError};

/// How often a run looks whether the federation has converged, as in the first tier.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Kinds of traced events; [`crate::net`] has those below ten, [`crate::nodes`] those from sixteen.
const STARTED: u8 = 10;
const FAULT: u8 = 11;
const LOOKED: u8 = 12;

#[derive(Clone, Copy)]
enum Item {
    Start(usize),
    Fault(usize),
    /// A site makes one of the scenario's calls.
    Call {
        source: usize,
        site: SiteId,
    },
    Look,
}

/// One run.
pub(crate) struct World {
    scenario: Arc<Scenario>,
    net: Shared,
    pub(crate) book: Book,
    nodes: Vec<Node>,
    agenda: BTreeMap<(Moment, u64), Item>,
    serial: u64,
    pub(crate) judge: Judge,
    /// Bytes that all had sent when they had healed.
    healed_bytes: u64,
}

/// What a run has come to, besides the judge's.
pub(crate) struct Outcome {
    pub(crate) trace_hash: String,
    pub(crate) events: u64,
    pub(crate) ended: Moment,
    pub(crate) nodes: usize,
    pub(crate) running: u64,
    pub(crate) bytes_sent: u64,
    /// Bytes that were sent after all had healed.
    pub(crate) quiet_bytes: u64,
    /// How many nodes each node knows that it does not hold dead, summed up.
    pub(crate) known: u64,
}

impl World {
    pub(crate) fn new(scenario: Arc<Scenario>, mut stage: Stage) -> Self {
        let judge = Judge::new(&stage, scenario.phases);
        let nodes = (0..stage.nodes()).map(|_| Node::default()).collect();
        let (starts, steps) = (stage.starts().to_vec(), stage.step_times());
        let calls_seed = stage.draw();
        let net = Shared::new(stage);
        let book = Book::new(net.clone(), scenario.clone(), calls_seed);
        let agenda = BTreeMap::new();
        let mut world = Self { scenario, net, book, nodes, agenda, serial: 0, judge, healed_bytes: 0 };
        starts.into_iter().enumerate().for_each(|(node, at)| world.at(at, Item::Start(node)));
        steps.into_iter().enumerate().for_each(|(step, at)| world.at(at, Item::Fault(step)));
        world.at(Moment::after(LOOK_INTERVAL), Item::Look);
        world.begin_calls();
        world
    }

    /// Puts the first call of each source and site on the agenda.
    fn begin_calls(&mut self) {
        let scenario = self.scenario.clone();
        for (source, calls) in scenario.calls.iter().enumerate() {
            for site in &calls.from {
                let first = calls.start + self.book.draw(|rng| calls.every.draw(rng));
                self.at(Moment::after(first), Item::Call { source, site: *site });
            }
        }
    }

    fn at(&mut self, at: Moment, item: Item) {
        self.serial += 1;
        self.agenda.insert((at, self.serial), item);
    }

    /// Plays the run to its end. `progress` is told the moment at every look.
    pub(crate) async fn run(&mut self, mut progress: impl FnMut(Moment)) -> Result<Outcome, StartError> {
        while let Some(((at, _), item)) = self.agenda.pop_first() {
            if at > self.end() {
                break;
            }
            sleep_until(self.net.instant(at)).await;
            match item {
                Item::Start(node) => self.start(node).await?,
                Item::Fault(step) => self.fault(step).await?,
                Item::Call { source, site } => self.call(at, source, site),
                Item::Look => {
                    self.look(at);
                    progress(at);
                    self.at(at + LOOK_INTERVAL, Item::Look);
                }
            }
        }
        let now = self.net.lock().now();
        self.book.close(now);
        self.judge_book();
        Ok(self.outcome())
    }

    /// A site makes a call, from a node of it that runs, and the next one goes on the agenda.
    fn call(&mut self, at: Moment, source: usize, site: SiteId) {
        let every = self.scenario.calls[source].every;
        self.at(at + self.book.draw(|rng| every.draw(rng)), Item::Call { source, site });
        let here: Vec<usize> = {
            let stage = &self.net.lock().stage;
            let nodes = self.nodes.iter().enumerate().filter(|(_, node)| node.running.is_some());
            nodes.map(|(at, _)| at).filter(|at| stage.site_of(*at) == site).collect()
        };
        if let Some(caller) = self.book.draw(|rng| rng.pick(&here).copied()) {
            let (number, id) = self.book.begin(source, caller);
            self.nodes[caller].order(Order { number, id, source });
        }
    }

    fn judge_book(&mut self) {
        for (invariant, at, node, detail) in self.book.take_faults() {
            let net = self.net.lock();
            self.judge.violate(invariant, at, node.map(|node| net.stage.name(node)), detail);
        }
    }

    /// When the run ends: after it has been quiet for long enough since all had healed, and after all that is expected of calls
    /// could happen.
    fn end(&self) -> Moment {
        let phases = self.scenario.phases;
        let latest = Moment::after(phases.total());
        let Some(healed) = self.judge.healed else { return latest };
        let ends = self.scenario.expectations.iter().map(|wanted| Moment::after(wanted.during.to));
        // One that names no time means the whole run, however long that is.
        ends.filter(|end| *end < latest).fold(healed + phases.quiet_for, Moment::max).min(latest)
    }

    async fn start(&mut self, node: usize) -> Result<(), StartError> {
        self.trace(STARTED, node, &[]);
        self.nodes[node].start(&self.net, &self.book, node).await
    }

    async fn fault(&mut self, step: usize) -> Result<(), StartError> {
        self.trace(FAULT, step, &[]);
        let happening = self.net.lock().stage.carry_out(step);
        match happening {
            Happening::Network => self.net.mended(),
            Happening::Crash { node, disk } => {
                self.nodes[node].crash(&self.net, node, disk);
                self.book.caller_gone(node);
                if disk == DiskFate::Lost {
                    self.judge.forgot(node);
                }
            }
            Happening::Start { node } => self.start(node).await?,
            Happening::Leave { node } => {
                self.nodes[node].leave(&self.net, node).await;
                self.book.caller_gone(node);
            }
        }
        Ok(())
    }

    fn look(&mut self, at: Moment) {
        let sight: Sight = self.nodes.iter().map(Node::snapshot).collect();
        for (node, snapshot) in sight.iter().enumerate() {
            if let Some(snapshot) = snapshot {
                self.trace(LOOKED, node, &snapshot.digest.to_le_bytes());
            }
        }
        self.judge_book();
        let healed = self.judge.healed;
        let net = self.net.lock();
        self.judge.look(&net.stage, &sight, at);
        if healed.is_none() && self.judge.healed.is_some() {
            self.healed_bytes = net.bytes_sent();
        }
    }

    fn trace(&self, kind: u8, node: usize, payload: &[u8]) {
        let net = &mut *self.net.lock();
        let now = net.now();
        net.trace.event(now, kind, node, payload);
    }

    fn outcome(&self) -> Outcome {
        let net = &*self.net.lock();
        let bytes_sent = net.bytes_sent();
        let snapshots = || self.nodes.iter().filter_map(Node::snapshot);
        let alive = |snapshot: Arc<comity_mesh::MeshSnapshot>| {
            snapshot.nodes.values().filter(|entry| !entry.suspected).count() as u64
        };
        Outcome {
            trace_hash: net.trace.hash(),
            events: net.trace.events(),
            ended: net.now(),
            nodes: self.nodes.len(),
            running: snapshots().count() as u64,
            bytes_sent,
            quiet_bytes: bytes_sent.saturating_sub(self.healed_bytes),
            known: snapshots().map(alive).sum(),
        }
    }
}
