//! What a run is given before anything happens: who there is, what lies between them, when each starts, and what goes wrong
//! when. One scenario and one seed set one stage, whichever tier plays on it: the pure machines here, or the real swarm in
//! `simnet/swarm`. That is what makes the two comparable.

use std::sync::Arc;
use std::time::Duration;

use comity_protocol::call::LocalOffer;
use comity_protocol::constraints::DataClass;
use comity_protocol::ids::{CapabilityId, NodeId};
use comity_protocol::mesh::own::{Identity, OwnOffers};
use comity_protocol::rng::Rng;
use comity_protocol::route::{RouteRequest, SiteFacts};
use comity_protocol::trust::Anchors;

use crate::federation::{Federation, NODES_MAX};
use crate::moment::{LocalClock, Moment};
use crate::network::Network;
use crate::run::RunError;
use crate::scenario::{DiskFate, FaultKind, Scenario, SiteId, lawful_sites};
use crate::world::{Change, Step, plan};

/// All that scenario and seed decide beforehand, in the order in which it is drawn.
pub(crate) struct Drawn {
    pub(crate) federation: Federation,
    pub(crate) network: Network,
    pub(crate) calls_seed: u64,
    pub(crate) steps: Vec<Step>,
    pub(crate) starts: Vec<Moment>,
    /// For all that a run still draws.
    pub(crate) rng: Rng,
}

pub(crate) fn draw(scenario: &Arc<Scenario>, seed: u64) -> Drawn {
    let mut rng = Rng::new(seed);
    let federation = Federation::new(scenario, &mut rng);
    let network = Network::new(&federation, rng.next_u64());
    let calls_seed = rng.next_u64();
    let steps = plan(scenario, &federation, &mut Rng::new(rng.next_u64()));
    let within = usize::try_from(scenario.phases.start_within.as_micros()).unwrap_or(usize::MAX - 1);
    let starts = (0..federation.len()).map(|_| Moment(rng.below(within + 1) as u64)).collect();
    Drawn { federation, network, calls_seed, steps, starts, rng }
}

/// The stage of one run, for a tier outside this crate. Nodes are numbers from zero.
pub struct Stage {
    federation: Federation,
    network: Network,
    steps: Vec<Step>,
    starts: Vec<Moment>,
    skew_ms: Vec<i64>,
    rng: Rng,
}

/// What a step of the faults asks of whoever runs the nodes. What it does to the network the stage has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// What lies between nodes has changed: what a cut held back may go on.
    Network,
    /// A node's process is gone; nobody is told.
    Crash {
        /// Which.
        node: usize,
        /// What its disk keeps.
        disk: DiskFate,
    },
    /// A node starts, unless it runs.
    Start {
        /// Which.
        node: usize,
    },
    /// A node leaves in peace.
    Leave {
        /// Which.
        node: usize,
    },
}

impl Stage {
    /// The stage of a scenario and a seed.
    ///
    /// # Errors
    /// [`RunError::TooManyNodes`]; [`RunError::MachinesOnly`] for faults that only the pure machines can have.
    pub fn new(scenario: &Arc<Scenario>, seed: u64) -> Result<Self, RunError> {
        let nodes = scenario.nodes_max();
        if nodes > NODES_MAX {
            return Err(RunError::TooManyNodes(nodes));
        }
        if let Some(kind) = scenario.faults.iter().find_map(|fault| machines_only(&fault.kind)) {
            return Err(RunError::MachinesOnly(kind));
        }
        let Drawn { federation, network, steps, starts, rng, .. } = draw(scenario, seed);
        let skew_ms = federation.members.iter().map(|member| member.skew_ms).collect();
        Ok(Self { federation, network, steps, starts, skew_ms, rng })
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.federation.len()
    }

    /// What people call a node.
    pub fn name(&self, node: usize) -> &str {
        &self.federation.members[node].name
    }

    /// The node's id.
    pub fn id(&self, node: usize) -> NodeId {
        self.federation.id(node)
    }

    /// The node of an id; `None` for one that no org has admitted.
    pub fn find(&self, id: &NodeId) -> Option<usize> {
        self.federation.find(id)
    }

    /// How many orgs there are.
    pub fn orgs(&self) -> usize {
        self.federation.orgs.len()
    }

    /// A node's org.
    pub fn org_of(&self, node: usize) -> usize {
        self.federation.org_of(node)
    }

    /// Whether a node's org has pinned an org.
    pub fn reads(&self, node: usize, org: usize) -> bool {
        self.federation.pins(self.federation.org_of(node), org)
    }

    /// Whether two nodes should know each other: each pinned by the other's org, and neither direction cut.
    pub fn can_meet(&self, one: usize, other: usize) -> bool {
        self.federation.pinned(one, other) && self.is_reachable(one, other)
    }

    /// Whether packets pass both ways.
    pub fn is_reachable(&self, one: usize, other: usize) -> bool {
        !self.network.is_cut(one, other) && !self.network.is_cut(other, one)
    }

    /// Whether nothing that `from` sends reaches `to`.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.network.is_cut(from, to)
    }

    /// When bytes that are sent now arrive, if no cut holds them back.
    pub fn arrival(&mut self, from: usize, to: usize, bytes: usize, now: Moment) -> Moment {
        self.network.arrival(from, to, bytes, now)
    }

    /// Who a node is.
    pub fn identity(&self, node: usize) -> Identity {
        self.federation.identity(node)
    }

    /// What a node has pinned.
    pub fn anchors(&self, node: usize) -> Anchors {
        self.federation.anchors(node)
    }

    /// The nodes that a node dials first.
    pub fn seeds(&self, node: usize) -> Vec<usize> {
        self.federation.members[node].seeds.iter().copied().filter(|seed| *seed != node).collect()
    }

    /// What a node offers.
    pub fn offers(&self, node: usize) -> OwnOffers {
        self.federation.offers(node)
    }

    /// The clocks of a node that starts at a moment.
    pub fn clock(&self, node: usize, booted: Moment) -> LocalClock {
        LocalClock { skew_ms: self.skew_ms[node], drift_ppm: self.federation.members[node].drift_ppm, booted }
    }

    /// When each node starts for the first time.
    pub fn starts(&self) -> &[Moment] {
        &self.starts
    }

    /// When each step of the faults is due, in order.
    pub fn step_times(&self) -> Vec<Moment> {
        self.steps.iter().map(|step| step.at).collect()
    }

    /// Carries out a step of the faults as far as it concerns the network, and says what it asks of the nodes.
    pub fn carry_out(&mut self, step: usize) -> Happening {
        let Step { fault, change, .. } = self.steps[step].clone();
        match change {
            Change::Cut { inside, outside, direction } => {
                let (inside, outside) = (self.marked(&inside), self.marked(&outside));
                self.network.cut(fault, inside, outside, direction);
            }
            Change::Degrade { nodes, path } => {
                let inside = self.marked(&nodes);
                self.network.degrade(fault, inside, path);
            }
            Change::Mend => self.network.mend(fault),
            Change::Crash { node, disk } => return Happening::Crash { node, disk },
            Change::Start { node } => return Happening::Start { node },
            Change::Leave { node } => return Happening::Leave { node },
            Change::Clock { node, by_ms } => self.skew_ms[node] += by_ms,
            Change::Turn { .. } | Change::Move { .. } => {
                unreachable!("`Stage::new` takes no scenario with hostile nodes or new addresses")
            }
        }
        Happening::Network
    }

    /// The scenario.
    pub fn scenario(&self) -> &Arc<Scenario> {
        &self.federation.scenario
    }

    /// A node's site.
    pub fn site_of(&self, node: usize) -> SiteId {
        self.federation.members[node].site
    }

    /// What a node is held to when it runs a call.
    pub fn facts(&self, node: usize, class_max: DataClass) -> SiteFacts {
        self.federation.facts(node, class_max)
    }

    /// What a node offers under a capability.
    pub fn local_offer(&self, node: usize, capability: &CapabilityId) -> Option<LocalOffer> {
        self.federation.local_offer(node, capability)
    }

    /// What a node asks its router when it makes one of the scenario's calls.
    pub fn request(&self, source: usize, caller: usize) -> RouteRequest {
        self.federation.request(source, caller)
    }

    /// Whether the scenario lets a node run one of its calls: plain sets, and none of the protocol's code.
    pub fn may_run(&self, source: usize, caller: usize, node: usize) -> bool {
        let scenario = &self.federation.scenario;
        let calls = &scenario.calls[source];
        let lawful = lawful_sites(scenario, &scenario.tools[calls.tool], calls, self.site_of(caller));
        lawful.contains(&self.site_of(node))
    }

    /// A number for whatever else a run draws.
    pub fn draw(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Until when nodes start.
    pub fn start_within(&self) -> Duration {
        self.federation.scenario.phases.start_within
    }

    fn marked(&self, nodes: &[usize]) -> Vec<bool> {
        let mut marked = vec![false; self.nodes()];
        nodes.iter().for_each(|node| marked[*node] = true);
        marked
    }
}

/// The word of a fault that needs the machines in the hand: nodes that speak falsely, clocks that are set while they run.
const fn machines_only(kind: &FaultKind) -> Option<&'static str> {
    match kind {
        FaultKind::Byzantine { .. } => Some("byzantine"),
        FaultKind::Chaos { .. } => Some("chaos"),
        FaultKind::NewAddress { .. } => Some("new_address"),
        FaultKind::ClockJump { .. } => Some("clock_jump"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library;

    #[test]
    fn a_stage_is_set_by_scenario_and_seed_alone() {
        let split = library::find("split").unwrap().source().unwrap();
        let set = |seed| {
            let mut stage = Stage::new(&split.scenario, seed).unwrap();
            let (times, starts) = (stage.step_times(), stage.starts().to_vec());
            let arrival = stage.arrival(0, stage.nodes() - 1, 100, Moment::default());
            (stage.nodes(), times, starts, arrival, stage.draw())
        };
        assert_eq!(set(7), set(7));
        assert_ne!(set(7), set(8));
    }

    #[test]
    fn a_cut_holds_until_it_is_mended() {
        let split = library::find("split").unwrap().source().unwrap();
        let mut stage = Stage::new(&split.scenario, 1).unwrap();
        let reaches_all = |stage: &Stage| (1..stage.nodes()).all(|other| stage.is_reachable(0, other));
        let mut seen = Vec::new();
        for step in 0..stage.step_times().len() {
            assert_eq!(stage.carry_out(step), Happening::Network);
            seen.push(reaches_all(&stage));
        }
        assert!(seen.contains(&false) && seen.last() == Some(&true), "{seen:?}");
    }

    #[test]
    fn what_only_machines_can_do_is_refused_by_its_word() {
        for (name, word) in [("hostile", "byzantine"), ("clocks", "clock_jump")] {
            let source = library::find(name).unwrap().source().unwrap();
            let refused = Stage::new(&source.scenario, 1).err();
            assert_eq!(refused, Some(RunError::MachinesOnly(word)));
        }
    }
}
