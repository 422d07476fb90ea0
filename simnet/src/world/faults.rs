//! What goes wrong, and when: the scenario's faults turned into steps by the seed, and the steps carried out.

use std::time::Duration;

use comity_protocol::rng::Rng;

use super::hostile::Hostile;
use super::{Event, World};
use crate::chronicle::State;
use crate::federation::{Federation, either_way};
use crate::moment::Moment;
use crate::network::FaultId;
use crate::scenario::{Act, Direction, DiskFate, Fault, FaultKind, Jump, Path, Scenario, Span, Victims};

/// One thing that happens at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) at: Moment,
    /// The fault that it belongs to.
    pub(crate) fault: FaultId,
    /// The fault of the scenario that it comes from, by place.
    pub(crate) source: usize,
    pub(crate) change: Change,
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// These are cut off from those.
    Cut { inside: Vec<usize>, outside: Vec<usize>, direction: Direction },
    /// The paths of these become worse.
    Degrade { nodes: Vec<usize>, path: Path },
    /// A cut or a degradation ends.
    Mend,
    /// A node goes down.
    Crash { node: usize, disk: DiskFate },
    /// A node starts.
    Start { node: usize },
    /// A node leaves in peace.
    Leave { node: usize },
    /// A node's wall clock is set forward by so much; back when negative.
    Clock { node: usize, by_ms: i64 },
    /// A node is found under a new address.
    Move { node: usize },
    /// A node turns on the others.
    Turn { node: usize, acts: Vec<Act> },
}

struct Planner<'a> {
    federation: &'a Federation,
    rng: &'a mut Rng,
    end: Moment,
    next_fault: FaultId,
    source: usize,
    steps: Vec<Step>,
}

/// Every step of a run, in order.
pub(crate) fn plan(scenario: &Scenario, federation: &Federation, rng: &mut Rng) -> Vec<Step> {
    let end = Moment::after(scenario.phases.faults_for);
    let mut planner = Planner { federation, rng, end, next_fault: 0, source: 0, steps: Vec::new() };
    for (at, fault) in scenario.faults.iter().enumerate() {
        planner.source = at;
        planner.plan(fault);
    }
    let mut steps = planner.steps;
    steps.sort_by_key(|step| step.at);
    steps
}

impl Planner<'_> {
    fn plan(&mut self, fault: &Fault) {
        let begin = Moment::after(fault.at.draw(self.rng)).min(self.end);
        let end = (begin + fault.lasts.draw(self.rng)).min(self.end);
        let nodes = self.draw_nodes(fault);
        self.plan_kind(&fault.kind, nodes, begin, end, fault.for_good);
    }

    fn draw_nodes(&mut self, fault: &Fault) -> Vec<usize> {
        let members = self.federation.members.iter().enumerate();
        if let Victims::Named(names) = &fault.nodes {
            return members.filter(|(_, member)| names.contains(&member.name)).map(|(at, _)| at).collect();
        }
        let mut nodes: Vec<usize> =
            members.filter(|(_, member)| fault.sites.contains(&member.site)).map(|(at, _)| at).collect();
        if let Victims::Drawn(count) = fault.nodes {
            let count = count.draw(self.rng);
            self.rng.shuffle(&mut nodes);
            nodes.truncate(count);
        }
        nodes
    }

    fn plan_kind(&mut self, kind: &FaultKind, nodes: Vec<usize>, begin: Moment, end: Moment, for_good: bool) {
        match kind {
            FaultKind::Partition { direction, from } => {
                let outside = self.outside(&nodes, from);
                let change = Change::Cut { inside: nodes, outside, direction: *direction };
                self.lasting(change, begin, end, for_good);
            }
            FaultKind::Flap { down, up } => self.flap(&nodes, *down, *up, begin, end),
            FaultKind::Crash { disk } => {
                for node in nodes {
                    self.down(node, Change::Crash { node, disk: *disk }, begin, end, for_good);
                }
            }
            FaultKind::Leave => {
                for node in nodes {
                    self.down(node, Change::Leave { node }, begin, end, for_good);
                }
            }
            FaultKind::Churn { every, down, disk } => self.churn(&nodes, *every, *down, *disk, begin, end),
            FaultKind::Degrade { path } => {
                self.lasting(Change::Degrade { nodes, path: *path }, begin, end, false);
            }
            FaultKind::ClockJump { by } => {
                for node in nodes {
                    self.clock_jump(node, *by, begin, end);
                }
            }
            FaultKind::NewAddress { every } => self.new_addresses(&nodes, *every, begin, end),
            FaultKind::Byzantine { acts } => {
                for node in nodes {
                    self.turn(node, acts.clone(), begin, end);
                }
            }
            FaultKind::Chaos { every } => self.chaos(&nodes, *every, begin, end),
        }
    }

    fn push(&mut self, at: Moment, fault: FaultId, change: Change) {
        self.steps.push(Step { at, fault, source: self.source, change });
    }

    fn fault(&mut self) -> FaultId {
        self.next_fault += 1;
        self.next_fault
    }

    fn outside(&self, inside: &[usize], from: &[usize]) -> Vec<usize> {
        let members = self.federation.members.iter().enumerate();
        let there = members
            .filter(|(at, member)| !inside.contains(at) && (from.is_empty() || from.contains(&member.site)));
        there.map(|(at, _)| at).collect()
    }

    fn lasting(&mut self, change: Change, begin: Moment, end: Moment, for_good: bool) {
        let fault = self.fault();
        self.push(begin, fault, change);
        if !for_good {
            self.push(end, fault, Change::Mend);
        }
    }

    fn down(&mut self, node: usize, change: Change, begin: Moment, end: Moment, for_good: bool) {
        let fault = self.fault();
        self.push(begin, fault, change);
        if !for_good {
            self.push(end, fault, Change::Start { node });
        }
    }

    fn flap(
        &mut self,
        nodes: &[usize],
        down: Span<Duration>,
        up: Span<Duration>,
        begin: Moment,
        end: Moment,
    ) {
        let mut at = begin;
        while at < end {
            let back = (at + down.draw(self.rng)).min(end);
            let change = Change::Cut {
                inside: nodes.to_vec(),
                outside: self.outside(nodes, &[]),
                direction: Direction::Both,
            };
            self.lasting(change, at, back, false);
            at = back + up.draw(self.rng).max(Duration::from_millis(1));
        }
    }

    fn churn(
        &mut self,
        nodes: &[usize],
        every: Span<Duration>,
        down: Span<Duration>,
        disk: DiskFate,
        begin: Moment,
        end: Moment,
    ) {
        let mut at = begin;
        while at < end {
            if let Some(node) = self.rng.pick(nodes).copied() {
                let back = (at + down.draw(self.rng)).min(end);
                self.down(node, Change::Crash { node, disk }, at, back, false);
            }
            at = at + every.draw(self.rng).max(Duration::from_millis(1));
        }
    }

    fn new_addresses(&mut self, nodes: &[usize], every: Span<Duration>, begin: Moment, end: Moment) {
        let mut at = begin;
        while at < end {
            if let Some(node) = self.rng.pick(nodes).copied() {
                let fault = self.fault();
                self.push(at, fault, Change::Move { node });
            }
            at = at + every.draw(self.rng).max(Duration::from_millis(1));
        }
    }

    fn clock_jump(&mut self, node: usize, by: Jump, begin: Moment, end: Moment) {
        let by_ms = match by {
            Jump::AtMost(by) => either_way(self.rng, i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
            Jump::Exactly(by_ms) => by_ms,
        };
        let fault = self.fault();
        self.push(begin, fault, Change::Clock { node, by_ms });
        self.push(end, fault, Change::Clock { node, by_ms: -by_ms });
    }

    fn turn(&mut self, node: usize, acts: Vec<Act>, begin: Moment, end: Moment) {
        let fault = self.fault();
        self.push(begin, fault, Change::Turn { node, acts });
        self.push(end, fault, Change::Crash { node, disk: DiskFate::Lost });
    }

    /// One fault after another, each of a kind that the seed draws and for two to fifteen seconds.
    fn chaos(&mut self, nodes: &[usize], every: Span<Duration>, begin: Moment, end: Moment) {
        let mut hostile_left = nodes.len() / 5;
        let mut at = begin;
        while at < end {
            let seconds = 2 + self.rng.below(14) as u64;
            let until = (at + Duration::from_secs(seconds)).min(end);
            let kind = self.draw_kind(&mut hostile_left);
            let some = self.draw_some(nodes, &kind);
            self.plan_kind(&kind, some, at, until, false);
            at = at + every.draw(self.rng).max(Duration::from_millis(100));
        }
    }

    fn draw_kind(&mut self, hostile_left: &mut usize) -> FaultKind {
        let direction = *self.rng.pick(&Direction::ALL).unwrap_or(&Direction::Both);
        let disk = *self.rng.pick(&DiskFate::ALL).unwrap_or(&DiskFate::Kept);
        let second = |n| Duration::from_secs(n);
        match self.rng.below(9) {
            0 | 1 => FaultKind::Partition { direction, from: Vec::new() },
            2 | 3 => FaultKind::Crash { disk },
            4 => FaultKind::Flap {
                down: Span { from: second(1), to: second(4) },
                up: Span { from: second(1), to: second(3) },
            },
            8 => FaultKind::NewAddress { every: Span { from: second(1), to: second(4) } },
            5 => FaultKind::Degrade { path: crate::scenario::DEGRADED },
            6 => FaultKind::ClockJump { by: Jump::AtMost(second(30)) },
            _ if *hostile_left > 0 => {
                *hostile_left -= 1;
                FaultKind::Byzantine { acts: Act::usual() }
            }
            _ => FaultKind::Leave,
        }
    }

    /// Up to half of the nodes for what lies between them, one or two for what befalls nodes, one hostile.
    fn draw_some(&mut self, nodes: &[usize], kind: &FaultKind) -> Vec<usize> {
        let most = match kind {
            FaultKind::Partition { .. } | FaultKind::Degrade { .. } => (nodes.len() / 2).max(1),
            FaultKind::Byzantine { .. } => 1,
            _ => 2,
        };
        let mut some = nodes.to_vec();
        self.rng.shuffle(&mut some);
        some.truncate(1 + self.rng.below(most));
        some
    }
}

impl World {
    pub(super) fn on_fault(&mut self, step: usize) {
        let Step { fault, change, .. } = self.faults[step].clone();
        self.trace.event(self.now, 12, step, &fault.to_le_bytes());
        self.note_fault(fault, &change);
        match change {
            Change::Cut { inside, outside, direction } => {
                let (inside, outside) = (self.marked(&inside), self.marked(&outside));
                self.network.cut(fault, inside, outside, direction);
                self.network_changed();
            }
            Change::Degrade { nodes, path } => {
                let inside = self.marked(&nodes);
                self.network.degrade(fault, inside, path);
            }
            Change::Mend => {
                self.network.mend(fault);
                self.network_changed();
            }
            Change::Crash { node, disk } => self.crash(node, disk),
            // A node that was switched off for good stays so, whatever else befell it.
            Change::Start { node } if self.nodes[node].is_tainted() => {}
            Change::Start { node } => self.start(node),
            Change::Leave { node } => self.leave(node),
            Change::Clock { node, by_ms } => self.nodes[node].clock.skew_ms += by_ms,
            Change::Move { node } => self.move_away(node),
            Change::Turn { node, acts } => self.turn(node, acts),
        }
    }

    fn marked(&self, nodes: &[usize]) -> Vec<bool> {
        let mut marked = vec![false; self.nodes.len()];
        nodes.iter().for_each(|node| marked[*node] = true);
        marked
    }

    fn turn(&mut self, node: usize, acts: Vec<Act>) {
        if self.nodes[node].mesh.is_none() {
            return;
        }
        let hostile = Hostile::new(acts, Rng::new(self.rng.next_u64()));
        self.nodes[node].turn(hostile);
        self.note_state(node, State::Hostile);
        let boot = self.nodes[node].boot;
        self.at(self.now, Event::Hostile { node, boot });
    }
}
