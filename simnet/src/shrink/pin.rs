//! What a seed drew, written out as a scenario that draws as little as can be.

use std::sync::Arc;
use std::time::Duration;

use crate::federation::Federation;
use crate::moment::Moment;
use crate::scenario::{DURATION_MAX, Fault, FaultKind, Jump, Scenario, SiteId, Span, Victims};
use crate::world::{Change, Step, World};

/// The scenario with the sizes and the faults that `seed` draws. A run of it with the same seed is the same run, except
/// where a fault cannot be written out.
pub fn pin(scenario: &Arc<Scenario>, seed: u64) -> Scenario {
    let world = World::new(scenario.clone(), seed);
    let mut pinned = Scenario::clone(scenario);
    for (at, site) in pinned.sites.iter_mut().enumerate() {
        let nodes = world.federation.members.iter().filter(|member| member.site == at).count();
        site.nodes = Span::just(nodes);
    }
    let faults = scenario.faults.iter().enumerate();
    pinned.faults = faults.flat_map(|(at, fault)| pin_fault(at, fault, &world)).collect();
    pinned
}

fn pin_fault(at: usize, fault: &Fault, world: &World) -> Vec<Fault> {
    if !is_drawn(fault) {
        return vec![fault.clone()];
    }
    let mut steps: Vec<&Step> = world.faults.iter().filter(|step| step.source == at).collect();
    // In the order in which the planner made them, so that the numbers of faults stay what they are.
    steps.sort_by_key(|step| step.fault);
    let begins =
        steps.iter().enumerate().filter(|(nth, step)| *nth == 0 || steps[nth - 1].fault != step.fault);
    begins.filter_map(|(nth, begin)| written_out(fault, begin, steps.get(nth + 1).copied(), world)).collect()
}

/// Whether the seed decides anything of a fault.
fn is_drawn(fault: &Fault) -> bool {
    let drawn_kind = matches!(
        fault.kind,
        FaultKind::Flap { .. }
            | FaultKind::Churn { .. }
            | FaultKind::Chaos { .. }
            | FaultKind::ClockJump { by: Jump::AtMost(_) }
    );
    let fixed = fault.at.from == fault.at.to && fault.lasts.from == fault.lasts.to;
    drawn_kind || !fixed || matches!(fault.nodes, Victims::Drawn(_))
}

fn written_out(fault: &Fault, begin: &Step, next: Option<&Step>, world: &World) -> Option<Fault> {
    let end = next.filter(|next| next.fault == begin.fault).map(|next| next.at);
    let (kind, nodes) = kind_of(&begin.change, world)?;
    let names = nodes.iter().map(|node| world.federation.members[*node].name.clone()).collect();
    let lasts = end.map_or(fault.lasts.to, |end| end.since(begin.at));
    Some(Fault {
        kind,
        sites: (0..world.scenario.sites.len()).collect(),
        nodes: Victims::Named(names),
        at: Span::just(begin.at.since(Moment::default())),
        lasts: Span::just(lasts),
        for_good: fault.for_good && end.is_none(),
    })
    .filter(|_| !nodes.is_empty() && begin.at.since(Moment::default()) < world.scenario.phases.faults_for)
    .filter(|fault| fault.lasts.to > Duration::ZERO || fault.for_good)
}

fn kind_of(change: &Change, world: &World) -> Option<(FaultKind, Vec<usize>)> {
    Some(match change {
        Change::Cut { inside, outside, direction } => {
            let from = sites_outside(&world.federation, inside, outside);
            (FaultKind::Partition { direction: *direction, from }, inside.clone())
        }
        Change::Degrade { nodes, path } => (FaultKind::Degrade { path: *path }, nodes.clone()),
        Change::Crash { node, disk } => (FaultKind::Crash { disk: *disk }, vec![*node]),
        Change::Leave { node } => (FaultKind::Leave, vec![*node]),
        Change::Clock { node, by_ms } => (FaultKind::ClockJump { by: Jump::Exactly(*by_ms) }, vec![*node]),
        Change::Turn { node, acts } => (FaultKind::Byzantine { acts: acts.clone() }, vec![*node]),
        // One that moves at once, and not again before the end of time.
        Change::Move { node } => (FaultKind::NewAddress { every: Span::just(DURATION_MAX) }, vec![*node]),
        Change::Mend | Change::Start { .. } => return None,
    })
}

/// The sites on the other side of a cut; none when it is everybody else.
fn sites_outside(federation: &Federation, inside: &[usize], outside: &[usize]) -> Vec<SiteId> {
    if inside.len() + outside.len() == federation.len() {
        return Vec::new();
    }
    let mut sites: Vec<SiteId> = outside.iter().map(|node| federation.members[*node].site).collect();
    sites.sort_unstable();
    sites.dedup();
    sites
}
