//! What must hold, looked at from outside: the nodes' snapshots, against the stage.
//!
//! The rules are the first tier's. Which nodes must agree follows from the scenario: adverts of an org travel along nodes that
//! have pinned it, between nodes whose orgs have pinned each other and that no cut keeps apart. Within each such group all must
//! know the same of the org, and of those of its nodes that live there the newest that they have published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use comity_mesh::MeshSnapshot;
use comity_protocol::advert::Sequence;
use comity_protocol::ids::NodeId;
use comity_simnet::judge::{Invariant, Violation};
use comity_simnet::moment::Moment;
use comity_simnet::scenario::Phases;
use comity_simnet::stage::Stage;

/// How long a federation that has healed may differ, as when a node renews its advert.
const RELAPSE_MAX: Duration = Duration::from_secs(5);

/// Most differences that one violation lists.
const SHOWN_MAX: usize = 4;

/// What the nodes know at one moment; `None` for those that are down.
pub(crate) type Sight = Vec<Option<Arc<MeshSnapshot>>>;

/// Looks at a run from time to time.
pub(crate) struct Judge {
    pub(crate) violations: Vec<Violation>,
    /// When all agreed for the first time, unless a fault came before.
    pub(crate) converged: Option<Moment>,
    /// When all agreed again after the last fault.
    pub(crate) healed: Option<Moment>,
    phases: Phases,
    first_fault: Option<Moment>,
    differs_since: Option<Moment>,
    /// The highest sequence that each node has shown of every other since its disk was last lost.
    highest: Vec<BTreeMap<NodeId, Sequence>>,
}

impl Judge {
    pub(crate) fn new(stage: &Stage, phases: Phases) -> Self {
        Self {
            violations: Vec::new(),
            converged: None,
            healed: None,
            phases,
            first_fault: stage.step_times().first().copied(),
            differs_since: None,
            highest: vec![BTreeMap::new(); stage.nodes()],
        }
    }

    /// A node has lost its disk: whatever it shows from now on is new to it.
    pub(crate) fn forgot(&mut self, node: usize) {
        self.highest[node].clear();
    }

    /// Something else did not hold.
    pub(crate) fn violate(&mut self, invariant: Invariant, at: Moment, node: Option<&str>, detail: String) {
        violate(&mut self.violations, invariant, at, node, detail);
    }

    /// Looks at what all know.
    pub(crate) fn look(&mut self, stage: &Stage, sight: &Sight, now: Moment) {
        self.look_at_sequences(stage, sight, now);
        let faults_end = Moment::after(self.phases.faults_for);
        if now < faults_end {
            let undisturbed = self.first_fault.is_none_or(|first| now < first);
            let started = now >= Moment::after(self.phases.start_within);
            if self.converged.is_none() && undisturbed && started && agree(stage, sight) {
                self.converged = Some(now);
            }
        } else if self.healed.is_none() {
            self.look_at_healing(stage, sight, now, now.since(faults_end));
        } else {
            self.look_at_quiet(stage, sight, now);
        }
    }

    fn look_at_sequences(&mut self, stage: &Stage, sight: &Sight, now: Moment) {
        for (node, snapshot) in sight.iter().enumerate() {
            for (of, entry) in snapshot.iter().flat_map(|snapshot| &snapshot.nodes) {
                let sequence = entry.version().sequence;
                let highest = self.highest[node].entry(*of).or_insert(sequence);
                if sequence < *highest {
                    let detail = format!("shows {sequence:?} of a node of which it had shown {highest:?}");
                    violate(
                        &mut self.violations,
                        Invariant::SequenceBack,
                        now,
                        Some(stage.name(node)),
                        detail,
                    );
                }
                *highest = sequence.max(*highest);
            }
        }
    }

    fn look_at_healing(&mut self, stage: &Stage, sight: &Sight, now: Moment, since: Duration) {
        if agree(stage, sight) {
            self.healed = Some(now);
            return;
        }
        let within = self.phases.heal_within;
        if since < within {
            return;
        }
        let told = [
            (Invariant::Converged, differences(stage, sight, SHOWN_MAX)),
            (Invariant::Suspected, false_suspicions(stage, sight, SHOWN_MAX)),
        ];
        for (invariant, found) in told.into_iter().filter(|(_, found)| !found.is_empty()) {
            let detail = format!("not healed {within:?} after the last fault: {}", found.join("; "));
            violate(&mut self.violations, invariant, now, None, detail);
        }
        // Once told, it is judged like one that has healed.
        self.healed = Some(now);
    }

    fn look_at_quiet(&mut self, stage: &Stage, sight: &Sight, now: Moment) {
        let found = differences(stage, sight, SHOWN_MAX);
        if found.is_empty() {
            self.differs_since = None;
        } else if now.since(*self.differs_since.get_or_insert(now)) > RELAPSE_MAX {
            let detail = format!("differs for {RELAPSE_MAX:?}: {}", found.join("; "));
            violate(&mut self.violations, Invariant::StaysConverged, now, None, detail);
        }
    }
}

/// Notes that an invariant does not hold, once for each node.
fn violate(
    violations: &mut Vec<Violation>,
    invariant: Invariant,
    at: Moment,
    node: Option<&str>,
    detail: String,
) {
    let known = |known: &Violation| known.invariant == invariant && known.node.as_deref() == node;
    if violations.len() < comity_simnet::judge::VIOLATIONS_MAX && !violations.iter().any(known) {
        let node = node.map(str::to_owned);
        violations.push(Violation { invariant, at_ms: at.as_millis(), node, detail });
    }
}

fn agree(stage: &Stage, sight: &Sight) -> bool {
    differences(stage, sight, 1).is_empty() && false_suspicions(stage, sight, 1).is_empty()
}

/// Up to `limit` things that nodes should know and do not.
fn differences(stage: &Stage, sight: &Sight, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    for org in 0..stage.orgs() {
        let readers = (0..sight.len()).filter(|node| sight[*node].is_some() && stage.reads(*node, org));
        for group in groups(stage, readers.collect()) {
            compare(stage, sight, org, &group, limit, &mut found);
        }
    }
    found
}

/// The groups of nodes that can reach each other, directly or over one another.
fn groups(stage: &Stage, nodes: BTreeSet<usize>) -> Vec<Vec<usize>> {
    let (mut left, mut groups) = (nodes, Vec::new());
    while let Some(first) = left.pop_first() {
        let (mut group, mut next) = (vec![first], vec![first]);
        while let Some(one) = next.pop() {
            let met: Vec<usize> = left.iter().copied().filter(|other| stage.can_meet(one, *other)).collect();
            left.retain(|other| !met.contains(other));
            group.extend(&met);
            next.extend(&met);
        }
        groups.push(group);
    }
    groups
}

/// What a reader knows of an org's nodes.
fn known_of<'a>(
    stage: &'a Stage,
    snapshot: &'a MeshSnapshot,
    org: usize,
) -> impl Iterator<Item = (NodeId, Sequence)> + 'a {
    let of_org = move |of: &NodeId| stage.find(of).is_some_and(|of| stage.org_of(of) == org);
    let entries = snapshot.nodes.iter().filter(move |(of, _)| of_org(of));
    entries.map(|(of, entry)| (*of, entry.version().sequence))
}

fn compare(stage: &Stage, sight: &Sight, org: usize, group: &[usize], limit: usize, found: &mut Vec<String>) {
    let known: Vec<BTreeMap<NodeId, Sequence>> = group
        .iter()
        .map(|node| sight[*node].iter().flat_map(|snapshot| known_of(stage, snapshot, org)).collect())
        .collect();
    let Some(first) = known.first() else { return };
    for (reader, theirs) in group.iter().zip(&known) {
        for of in group.iter().copied().filter(|of| stage.org_of(*of) == org) {
            let id = stage.id(of);
            let truth = sight[of].iter().find_map(|own| own.nodes.get(&id)).map(|own| own.version().sequence);
            if truth.is_none() || theirs.get(&id).copied() != truth {
                tell(found, limit, || {
                    let (reader, of) = (stage.name(*reader), stage.name(of));
                    format!("{reader} has {:?} of {of}, which has published {truth:?}", theirs.get(&id))
                });
            }
        }
        if theirs != first {
            tell(found, limit, || {
                format!("{} and {} know different nodes", stage.name(group[0]), stage.name(*reader))
            });
        }
    }
}

fn tell(found: &mut Vec<String>, limit: usize, difference: impl FnOnce() -> String) {
    if found.len() < limit {
        found.push(difference());
    }
}

/// Up to `limit` nodes that are held dead by nodes that could reach them.
fn false_suspicions(stage: &Stage, sight: &Sight, limit: usize) -> Vec<String> {
    let mut found = Vec::new();
    for (reader, snapshot) in sight.iter().enumerate() {
        for (of, entry) in snapshot.iter().flat_map(|snapshot| &snapshot.nodes) {
            let Some(node) = stage.find(of).filter(|_| entry.suspected && !entry.advert().leaving) else {
                continue;
            };
            if sight[node].is_some() && stage.can_meet(reader, node) {
                tell(&mut found, limit, || format!("{} holds {} dead", stage.name(reader), stage.name(node)));
            }
        }
    }
    found
}
