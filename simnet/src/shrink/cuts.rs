//! What can be taken away from a scenario. Each cut proposes candidates, largest first, and the search keeps those that
//! still fail.

use std::time::Duration;

use super::{Search, soon_after};
use crate::scenario::{DEGRADED, Fault, FaultKind, Scenario, Share, SiteId, Span, Victims};

/// How long nodes that have just started are given to find each other, a dial that times out included. Less would be a
/// reason of its own for not having healed in time.
const SETTLING: Duration = Duration::from_secs(20);

/// One way of making a scenario smaller.
pub(super) type Cut = fn(&mut Search<'_>);

/// All of them, in the order in which they pay: what makes runs short comes first.
pub(super) const ALL: [Cut; 9] = [
    end_sooner,
    drop_faults,
    drop_sites,
    fewer_nodes,
    drop_calls,
    drop_tools,
    shorter_faults,
    fewer_victims,
    plainer,
];

impl Search<'_> {
    fn try_change(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        self.try_candidate(candidate)
    }

    /// Drops as many entries of a list as it can: half of them at once, then ever smaller parts (the `ddmin` of delta
    /// debugging).
    fn drop_from<T: Clone>(
        &mut self,
        get: impl Fn(&Scenario) -> &Vec<T>,
        set: impl Fn(&mut Scenario, Vec<T>),
    ) {
        let mut part = get(&self.best).len().max(1);
        while part > 0 && !self.is_over() {
            let mut at = 0;
            while at < get(&self.best).len() {
                let mut list = get(&self.best).clone();
                list.drain(at..(at + part).min(list.len()));
                if !self.try_change(|scenario| set(scenario, list)) {
                    at += part;
                }
            }
            part /= 2;
        }
    }
}

/// What needs no time to show ends right after it was seen; what needs time keeps the time to heal and loses others.
fn end_sooner(search: &mut Search<'_>) {
    let phases = search.best.phases;
    let second = Duration::from_secs(1);
    if !search.target.needs_the_end() {
        let end = soon_after(search.violation.at_ms);
        search.try_change(|scenario| {
            scenario.phases.faults_for = phases.faults_for.min(end);
            scenario.phases.heal_within =
                end.saturating_sub(phases.faults_for).max(second).min(phases.heal_within);
            scenario.phases.quiet_for = Duration::ZERO;
            keep_faults_before(scenario);
        });
        return;
    }
    search.try_change(|scenario| scenario.phases.quiet_for = phases.quiet_for.min(second));
    let last = search.best.faults.iter().map(|fault| fault.at.to + fault.lasts.to).max().unwrap_or_default();
    let least = phases.start_within + SETTLING;
    for end in [least, phases.faults_for / 4, phases.faults_for / 2, last + second] {
        let end = Duration::from_secs(end.max(least).as_secs());
        let shortened = end < search.best.phases.faults_for
            && search.try_change(|scenario| {
                scenario.phases.faults_for = end;
                keep_faults_before(scenario);
            });
        if shortened {
            break;
        }
    }
}

/// A fault that begins after the phase of faults is a mistake of the scenario's.
fn keep_faults_before(scenario: &mut Scenario) {
    let end = scenario.phases.faults_for;
    scenario.faults.retain(|fault| fault.at.to < end);
}

fn drop_faults(search: &mut Search<'_>) {
    search.drop_from(|scenario| &scenario.faults, |scenario, faults| scenario.faults = faults);
}

fn drop_sites(search: &mut Search<'_>) {
    for site in (0..search.best.sites.len()).rev() {
        if let Some(candidate) = without_site(&search.best, site) {
            search.try_candidate(candidate);
        }
    }
    for org in (0..search.best.orgs.len()).rev() {
        search.try_change(|scenario| drop_org(scenario, org));
    }
}

/// The scenario without one site, and without what needs it; `None` when nothing would be left.
fn without_site(scenario: &Scenario, gone: SiteId) -> Option<Scenario> {
    let mut rest = scenario.clone();
    rest.sites.remove(gone);
    let kept = |sites: &[SiteId]| -> Vec<SiteId> {
        let others = sites.iter().filter(|site| **site != gone);
        others.map(|site| site - usize::from(*site > gone)).collect()
    };
    for site in &mut rest.sites {
        let seeds = kept(&site.seeds);
        site.seeds = if seeds.is_empty() && !site.seeds.is_empty() { vec![0] } else { seeds };
    }
    rest.links.retain(|link| link.between.0 != gone && link.between.1 != gone);
    for link in &mut rest.links {
        let between = kept(&[link.between.0, link.between.1]);
        link.between = (between[0], between[1]);
    }
    rest.tools.iter_mut().for_each(|tool| tool.sites = kept(&tool.sites));
    rest.calls.iter_mut().for_each(|calls| calls.from = kept(&calls.from));
    for fault in &mut rest.faults {
        fault.sites = kept(&fault.sites);
        if let FaultKind::Partition { from, .. } = &mut fault.kind {
            *from = kept(from);
        }
    }
    rest.faults.retain(|fault| !fault.sites.is_empty());
    for expectation in &mut rest.expectations {
        expectation.sites = kept(&expectation.sites);
    }
    drop_idle(&mut rest);
    spare_the_missing(&mut rest);
    (!rest.sites.is_empty()).then_some(rest)
}

fn drop_org(scenario: &mut Scenario, gone: usize) {
    if scenario.sites.iter().any(|site| site.org == gone) {
        return;
    }
    let org = scenario.orgs.remove(gone);
    scenario.sites.iter_mut().for_each(|site| site.org -= usize::from(site.org > gone));
    scenario.orgs.iter_mut().for_each(|other| {
        other.pins.remove(&org.name);
    });
}

/// Calls that nobody makes and tools that nobody offers go.
fn drop_idle(scenario: &mut Scenario) {
    for calls in (0..scenario.calls.len()).rev() {
        let idle = scenario.calls[calls].from.is_empty()
            || scenario.tools[scenario.calls[calls].tool].sites.is_empty();
        if idle {
            remove_calls(scenario, calls);
        }
    }
    for tool in (0..scenario.tools.len()).rev() {
        if scenario.tools[tool].sites.is_empty() {
            remove_tool(scenario, tool);
        }
    }
}

fn remove_calls(scenario: &mut Scenario, gone: usize) {
    scenario.calls.remove(gone);
    scenario.expectations.retain(|expectation| expectation.calls != gone);
    for expectation in &mut scenario.expectations {
        expectation.calls -= usize::from(expectation.calls > gone);
    }
}

fn remove_tool(scenario: &mut Scenario, gone: usize) {
    scenario.tools.remove(gone);
    scenario.calls.iter_mut().for_each(|calls| calls.tool -= usize::from(calls.tool > gone));
}

/// Faults name only nodes that there are.
fn spare_the_missing(scenario: &mut Scenario) {
    let exists = |name: &String| {
        scenario
            .sites
            .iter()
            .any(|site| (1..=site.nodes.to).any(|nth| *name == format!("{}-{nth}", site.name)))
    };
    for fault in &mut scenario.faults {
        if let Victims::Named(names) = &mut fault.nodes {
            names.retain(exists);
        }
    }
    let most =
        |fault: &Fault| -> usize { fault.sites.iter().map(|site| scenario.sites[*site].nodes.to).sum() };
    scenario.faults.retain(|fault| match &fault.nodes {
        Victims::Named(names) => !names.is_empty(),
        Victims::Drawn(count) => count.from <= most(fault),
        Victims::All => true,
    });
}

fn fewer_nodes(search: &mut Search<'_>) {
    for site in 0..search.best.sites.len() {
        for fewer in [|_| 1, |nodes| nodes / 2, |nodes| nodes * 3 / 4, |nodes| nodes - 1] {
            let nodes = search.best.sites[site].nodes.to;
            let fewer = fewer(nodes).max(1);
            if fewer < nodes {
                search.try_change(|scenario| {
                    scenario.sites[site].nodes = Span::just(fewer);
                    spare_the_missing(scenario);
                });
            }
        }
    }
}

fn drop_calls(search: &mut Search<'_>) {
    for at in (0..search.best.expectations.len()).rev() {
        search.try_change(|scenario| {
            scenario.expectations.remove(at);
        });
    }
    for at in (0..search.best.calls.len()).rev() {
        search.try_change(|scenario| remove_calls(scenario, at));
    }
    for at in 0..search.best.calls.len() {
        for from in search.best.calls[at].from.clone() {
            search.try_change(|scenario| scenario.calls[at].from.retain(|site| *site == from));
        }
        for slower in [16, 4, 2] {
            let every = search.best.calls[at].every;
            let rarer = Span { from: every.from * slower, to: every.to * slower };
            if rarer.to <= Duration::from_secs(10) {
                search.try_change(|scenario| scenario.calls[at].every = rarer);
            }
        }
    }
}

fn drop_tools(search: &mut Search<'_>) {
    for at in (0..search.best.tools.len()).rev() {
        if search.best.calls.iter().all(|calls| calls.tool != at) {
            search.try_change(|scenario| remove_tool(scenario, at));
        }
    }
}

/// Parts of a second matter to nobody who reads a case, unless they matter.
fn shorter_faults(search: &mut Search<'_>) {
    for at in 0..search.best.faults.len() {
        for shorter in [8, 4, 2] {
            let lasts = search.best.faults[at].lasts.to / shorter;
            let lasts = Duration::from_secs(lasts.as_secs());
            if lasts > Duration::ZERO {
                search.try_change(|scenario| scenario.faults[at].lasts = Span::just(lasts));
            }
        }
    }
    search.try_change(|scenario| {
        for fault in &mut scenario.faults {
            let whole = |time: Duration| Duration::from_secs(time.as_secs());
            fault.at = Span { from: whole(fault.at.from), to: whole(fault.at.to) };
            let up = |time: Duration| Duration::from_secs(time.as_secs().max(1));
            fault.lasts = Span { from: up(fault.lasts.from), to: up(fault.lasts.to) };
        }
    });
}

fn fewer_victims(search: &mut Search<'_>) {
    for at in 0..search.best.faults.len() {
        let mut part = named(&search.best, at).map_or(0, |names| names.len() / 2);
        while part > 0 && !search.is_over() {
            let mut from = 0;
            while let Some(names) =
                named(&search.best, at).filter(|names| from < names.len() && names.len() > 1)
            {
                let mut names = names.clone();
                names.drain(from..(from + part).min(names.len()));
                let taken = !names.is_empty()
                    && search.try_change(|scenario| scenario.faults[at].nodes = Victims::Named(names));
                if !taken {
                    from += part;
                }
            }
            part /= 2;
        }
        drop_acts(search, at);
    }
}

fn named(scenario: &Scenario, fault: usize) -> Option<&Vec<String>> {
    match &scenario.faults.get(fault)?.nodes {
        Victims::Named(names) => Some(names),
        Victims::All | Victims::Drawn(_) => None,
    }
}

fn drop_acts(search: &mut Search<'_>, fault: usize) {
    let acts = |scenario: &Scenario| match &scenario.faults[fault].kind {
        FaultKind::Byzantine { acts } => acts.clone(),
        _ => Vec::new(),
    };
    for act in acts(&search.best) {
        search.try_change(|scenario| {
            if let FaultKind::Byzantine { acts } = &mut scenario.faults[fault].kind
                && acts.len() > 1
            {
                acts.retain(|other| *other != act);
            }
        });
    }
}

/// What is special about links, clocks and tools becomes ordinary.
fn plainer(search: &mut Search<'_>) {
    search.drop_from(|scenario| &scenario.links, |scenario, links| scenario.links = links);
    search.try_change(|scenario| {
        scenario.network.loss = Share::NONE;
        scenario.network.gossip_loss = Share::NONE;
        scenario.network.kilobits = None;
    });
    search.try_change(|scenario| {
        for site in &mut scenario.sites {
            (site.clock_skew, site.clock_drift_ppm) = (Duration::ZERO, 0);
        }
    });
    search.try_change(|scenario| scenario.tools.iter_mut().for_each(|tool| tool.breaks = Share::NONE));
    search.try_change(|scenario| {
        for fault in &mut scenario.faults {
            if let FaultKind::Degrade { path } = &mut fault.kind {
                *path = DEGRADED;
            }
        }
    });
    search.try_change(|scenario| {
        scenario.sites.iter_mut().for_each(|site| site.constraints = Default::default());
        scenario.calls.iter_mut().for_each(|calls| calls.constraints = Default::default());
    });
}
