//! Whether the nodes agree, with each other and with the ledger.
//!
//! Which nodes must agree follows from the scenario: adverts of an org travel along nodes that have pinned it, between
//! nodes whose orgs have pinned each other and that no cut keeps apart. Within each such group all must know the same of
//! the org, and of those of its nodes that live there the newest that they have signed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_protocol::ids::NodeId;
use comity_protocol::mesh::directory::Version;

use super::Invariant;
use crate::moment::Moment;
use crate::scenario::Verdict;
use crate::world::World;

/// How long a federation that has healed may differ, as when a node renews its advert.
const RELAPSE_MAX: Duration = Duration::from_secs(5);

/// Most differences that one violation lists.
const SHOWN_MAX: usize = 4;

/// Most link messages besides pings that a node may send a second, on average, once all has healed.
const TALK_MAX: u64 = 2;

/// How many seconds of such talk are allowed on top, for what was under way.
const TALK_SETTLES_S: u64 = 200;

/// How long before its end an advert may be known to some and not to others, because their clocks differ.
const EXPIRY_MARGIN: Duration = Duration::from_secs(300);

/// How long after the last fault every circuit has had time to close, if what it led to is well.
const CIRCUITS_CLOSED: Duration = comity_protocol::route::CIRCUIT_OPEN_MAX;

impl World {
    /// Looks whether the federation has converged.
    pub(crate) fn judge_look(&mut self) {
        let faults_end = Moment::after(self.scenario.phases.faults_for);
        if self.now < faults_end {
            if self.judge.converged.is_none() && self.now >= Moment::after(self.scenario.phases.start_within)
            {
                let first_fault = self.faults.first().map(|step| step.at);
                let undisturbed = first_fault.is_none_or(|first| self.now < first);
                self.judge.converged = (undisturbed && self.is_converged()).then_some(self.now);
            }
        } else if self.judge.healed.is_some() {
            self.judge_quiet();
        } else {
            self.judge_healing(faults_end);
        }
    }

    fn is_converged(&self) -> bool {
        self.differences(1).is_empty() && self.false_suspicions(1).is_empty()
    }

    fn judge_healing(&mut self, faults_end: Moment) {
        if self.judge.merged.is_none() && self.differences(1).is_empty() {
            self.judge.merged = Some(self.now);
        }
        if self.is_converged() {
            self.judge.healed = Some(self.now);
            self.figures.talk_when_healed = self.figures.talk();
            self.figures.bytes_when_healed = self.nodes.iter().map(|node| node.bytes_sent).sum();
            return;
        }
        if self.now.since(faults_end) < self.scenario.phases.heal_within {
            return;
        }
        let within = self.scenario.phases.heal_within;
        let differences = self.differences(SHOWN_MAX);
        if !differences.is_empty() {
            let detail = format!("not healed {within:?} after the last fault: {}", differences.join("; "));
            self.violate(Invariant::Converged, None, detail);
        }
        let suspicions = self.false_suspicions(SHOWN_MAX);
        if !suspicions.is_empty() {
            let detail = format!("still {within:?} after the last fault: {}", suspicions.join("; "));
            self.violate(Invariant::Suspected, None, detail);
        }
        // Once told, it is judged like one that has healed.
        self.judge.healed = Some(self.now);
    }

    fn judge_quiet(&mut self) {
        if self.differences(1).is_empty() {
            self.judge.differs_since = None;
            return;
        }
        let since = *self.judge.differs_since.get_or_insert(self.now);
        if self.now.since(since) > RELAPSE_MAX {
            let detail = format!("differs for {RELAPSE_MAX:?}: {}", self.differences(SHOWN_MAX).join("; "));
            self.violate(Invariant::StaysConverged, None, detail);
        }
    }

    /// Looks at the end of a run.
    pub(crate) fn judge_end(&mut self) {
        for node in 0..self.nodes.len() {
            self.judge_directory(node);
        }
        self.judge_quietness();
        self.judge_calls_at_end();
        self.judge_expectations();
    }

    /// Looks at the end of a run whether links were quiet from when all had healed.
    fn judge_quietness(&mut self) {
        let Some(healed) = self.judge.truly_healed() else { return };
        let quiet_s = self.now.since(healed).as_secs();
        let allowed = (quiet_s + TALK_SETTLES_S) * self.nodes.len() as u64 * TALK_MAX;
        let talk = self.figures.talk().saturating_sub(self.figures.talk_when_healed);
        if talk > allowed {
            let detail = format!("{talk} messages besides pings in {quiet_s} s, where {allowed} were plenty");
            self.violate(Invariant::Quiet, None, detail);
        }
    }

    /// When circuits have had time to close after the last fault, if the federation had healed by then.
    pub(super) fn serving_from(&self) -> Option<Moment> {
        let circuits = Moment::after(self.scenario.phases.faults_for + CIRCUITS_CLOSED);
        self.judge.healed.map(|healed| healed.max(circuits))
    }

    fn live(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.is_honest(*node)).collect()
    }

    /// Up to `limit` things that nodes should know and do not.
    fn differences(&self, limit: usize) -> Vec<String> {
        let live = self.live();
        let mut found = Vec::new();
        for org in 0..self.federation.orgs.len() {
            let readers = live.iter().copied();
            let readers: Vec<usize> =
                readers.filter(|node| self.federation.pins(self.federation.org_of(*node), org)).collect();
            for group in self.groups(&readers) {
                self.compare(org, &group, limit, &mut found);
                if found.len() >= limit {
                    return found;
                }
            }
        }
        found
    }

    /// The groups of `nodes` that can reach each other, directly or over one another.
    fn groups(&self, nodes: &[usize]) -> Vec<Vec<usize>> {
        let all_meet = self.federation.all_pin_all() && !self.network.has_cuts();
        if all_meet {
            return if nodes.is_empty() { Vec::new() } else { vec![nodes.to_vec()] };
        }
        let mut left: BTreeSet<usize> = nodes.iter().copied().collect();
        let mut groups = Vec::new();
        while let Some(first) = left.pop_first() {
            let (mut group, mut next) = (vec![first], vec![first]);
            while let Some(one) = next.pop() {
                let met: Vec<usize> =
                    left.iter().copied().filter(|other| self.can_meet(one, *other)).collect();
                left.retain(|other| !met.contains(other));
                group.extend(&met);
                next.extend(&met);
            }
            groups.push(group);
        }
        groups
    }

    fn compare(&self, org: usize, group: &[usize], limit: usize, found: &mut Vec<String>) {
        let Some((first, others)) = group.split_first() else { return };
        let Some(mesh) = &self.nodes[*first].mesh else { return };
        let known = self.known_of(*first, org);
        self.compare_with_ledger(org, *first, group, &known, limit, found);
        for other in others {
            let Some(there) = &self.nodes[*other].mesh else { continue };
            let same_pins = self.federation.org_of(*first) == self.federation.org_of(*other);
            if found.len() >= limit || (same_pins && mesh.digest() == there.digest()) {
                continue;
            }
            let theirs = self.known_of(*other, org);
            for of in known.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
                if known.get(of) != theirs.get(of)
                    && !self.is_ending(*first, *other, of)
                    && found.len() < limit
                {
                    found.push(self.tell_difference(*first, *other, of, known.get(of), theirs.get(of)));
                }
            }
        }
    }

    fn known_of(&self, node: usize, org: usize) -> BTreeMap<NodeId, Version> {
        let name = &self.federation.orgs[org].name;
        let entries = self.nodes[node].mesh.iter().flat_map(|mesh| mesh.directory().iter());
        let of_org = entries.filter(|(_, entry)| entry.org() == name);
        of_org.map(|(of, entry)| (*of, entry.version())).collect()
    }

    fn compare_with_ledger(
        &self,
        org: usize,
        reader: usize,
        group: &[usize],
        known: &BTreeMap<NodeId, Version>,
        limit: usize,
        found: &mut Vec<String>,
    ) {
        for of in group.iter().copied().filter(|of| self.federation.org_of(*of) == org) {
            let truth = self.judge.ledger.newest.get(&of).map(|(sequence, ..)| *sequence);
            let held = known.get(&self.federation.id(of)).map(|version| version.sequence);
            if found.len() < limit && (truth.is_none() || truth != held) {
                let (reader, of) = (self.name(reader), self.name(of));
                found.push(format!(
                    "{reader} has {} of {of}, which has signed {}",
                    shown(held.map(|held| held.seq)),
                    shown(truth.map(|truth| truth.seq))
                ));
            }
        }
    }

    fn is_ending(&self, one: usize, other: usize, of: &NodeId) -> bool {
        [one, other].into_iter().any(|reader| {
            let entry = self.nodes[reader].mesh.as_ref().and_then(|mesh| mesh.directory().get(of));
            let wall = self.local(reader).wall;
            entry.is_some_and(|entry| entry.trusted.expires() <= wall + EXPIRY_MARGIN)
        })
    }

    fn tell_difference(
        &self,
        one: usize,
        other: usize,
        of: &NodeId,
        ours: Option<&Version>,
        theirs: Option<&Version>,
    ) -> String {
        let of = self.federation.find(of).map_or("a stranger", |of| self.name(of));
        let (one, other) = (self.name(one), self.name(other));
        let seq = |version: Option<&Version>| shown(version.map(|version| version.sequence.seq));
        format!("{one} has {} of {of} and {other} has {}", seq(ours), seq(theirs))
    }

    /// Up to `limit` nodes that are held dead by nodes that could reach them.
    fn false_suspicions(&self, limit: usize) -> Vec<String> {
        let live = self.live();
        let mut found = Vec::new();
        for reader in &live {
            let Some(mesh) = &self.nodes[*reader].mesh else { continue };
            for (of, entry) in
                mesh.directory().suspects().iter().filter_map(|of| Some((of, mesh.directory().get(of)?)))
            {
                let alive = self.federation.find(of).filter(|of| self.is_honest(*of));
                if let Some(of) = alive.filter(|of| self.can_meet(*reader, *of) && !entry.advert().leaving) {
                    found.push(format!("{} holds {} dead", self.name(*reader), self.name(of)));
                }
                if found.len() >= limit {
                    return found;
                }
            }
        }
        found
    }

    pub(super) fn name(&self, node: usize) -> &str {
        &self.federation.members[node].name
    }

    /// Whether somebody could have run a call: a node that lives, may, and can be reached by the caller.
    pub(super) fn somebody_could(&self, call: usize) -> bool {
        let one = &self.calls.list[call];
        let calls = &self.scenario.calls[one.source];
        let tool = &self.scenario.tools[calls.tool];
        let site = self.federation.members[one.caller].site;
        let lawful = crate::scenario::lawful_sites(&self.scenario, tool, calls, site);
        (0..self.nodes.len()).any(|node| {
            let offers = lawful.contains(&self.federation.members[node].site);
            let reaches = node == one.caller || self.can_meet(one.caller, node);
            offers && reaches && self.is_honest(node)
        })
    }

    pub(super) const fn is_unserved(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Unreachable | Verdict::Unknown)
    }
}

fn shown(sequence: Option<u64>) -> String {
    sequence.map_or_else(|| "nothing".to_owned(), |sequence| format!("sequence {sequence}"))
}
