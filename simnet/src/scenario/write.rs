//! From a [`Scenario`] to TOML text that reads back as the same one: how a case that was made smaller is saved.
//!
//! What stands in the text is what a reader needs to see: keys that have their default are left out where the default
//! does not depend on the rest of the scenario.

use core::fmt::{Display, Write as _};
use std::time::Duration;

use comity_protocol::constraints::{Constraints, DataClass};
use comity_protocol::geo::{CountrySet, GROUPS};

use super::faults::{DIRECTIONS, Direction};
use super::read::PATH;
use super::{
    Act, Calls, Expectation, Fault, FaultKind, Jump, Org, Path, Phases, Scenario, Share, Site, SiteId, Span,
    Tool, Victims,
};

pub(super) fn toml(scenario: &Scenario) -> String {
    let mut out = Text(String::new());
    out.key("name", quoted(&scenario.name));
    if !scenario.about.is_empty() {
        out.key("about", quoted(&scenario.about));
    }
    phases(&mut out, &scenario.phases);
    if scenario.network != PATH {
        out.table("[network]");
        path(&mut out, &scenario.network, &PATH);
    }
    scenario.orgs.iter().for_each(|one| org(&mut out, one, scenario));
    scenario.sites.iter().for_each(|one| site(&mut out, one, scenario));
    for link in &scenario.links {
        out.table("[[links]]");
        out.key("between", sites(&[link.between.0, link.between.1], scenario));
        path(&mut out, &link.path, &scenario.network);
    }
    scenario.tools.iter().for_each(|one| tool(&mut out, one, scenario));
    scenario.calls.iter().for_each(|one| calls(&mut out, one, scenario));
    scenario.faults.iter().for_each(|one| fault(&mut out, one, scenario));
    scenario.expectations.iter().for_each(|one| expectation(&mut out, one, scenario));
    out.0
}

/// The text so far.
struct Text(String);

impl Text {
    fn table(&mut self, header: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "\n{header}");
    }

    fn key(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.0, "{key} = {value}");
    }

    fn key_unless<T: PartialEq>(&mut self, key: &str, value: T, default: T, show: impl Fn(T) -> String) {
        if value != default {
            self.key(key, show(value));
        }
    }
}

fn phases(out: &mut Text, phases: &Phases) {
    out.table("[run]");
    out.key("start_within", quoted(&duration(phases.start_within)));
    out.key("faults_for", quoted(&duration(phases.faults_for)));
    out.key("heal_within", quoted(&duration(phases.heal_within)));
    out.key("quiet_for", quoted(&duration(phases.quiet_for)));
}

fn org(out: &mut Text, org: &Org, scenario: &Scenario) {
    out.table("[[orgs]]");
    out.key("name", quoted(org.name.as_str()));
    if scenario.orgs.iter().any(|other| !org.pins.contains(&other.name)) {
        let pins = org.pins.iter().filter(|pin| **pin != org.name);
        out.key("pins", list(pins.map(|pin| quoted(pin.as_str()))));
    }
}

fn site(out: &mut Text, site: &Site, scenario: &Scenario) {
    out.table("[[sites]]");
    out.key("name", quoted(&site.name));
    out.key("org", quoted(scenario.orgs[site.org].name.as_str()));
    out.key_unless("nodes", site.nodes, Span::just(1), count);
    if !site.processing.is_empty() {
        out.key("processing_locations", places(&site.processing));
    }
    if let Some(operator) = site.operator {
        out.key("operator_country", quoted(&operator.to_string()));
    }
    if site.seeds != [0] {
        out.key("seeds", sites(&site.seeds, scenario));
    }
    out.key_unless("clock_skew", site.clock_skew, Duration::ZERO, |skew| quoted(&duration(skew)));
    out.key_unless("clock_drift_ppm", site.clock_drift_ppm, 0, |drift| drift.to_string());
    if !site.constraints.is_empty() {
        out.key("constraints", constraints(&site.constraints));
    }
}

fn path(out: &mut Text, path: &Path, default: &Path) {
    out.key_unless("latency", path.latency, default.latency, span);
    out.key_unless("loss", path.loss, default.loss, share);
    if let Some(kilobits) = path.kilobits {
        out.key("kilobits", kilobits);
    }
    out.key_unless("gossip_loss", path.gossip_loss, default.gossip_loss, share);
}

fn tool(out: &mut Text, tool: &Tool, scenario: &Scenario) {
    out.table("[[tools]]");
    out.key("name", quoted(&tool.text()));
    out.key("sites", sites(&tool.sites, scenario));
    if tool.org_only {
        out.key("share", quoted("org"));
    }
    out.key_unless("class_max", tool.class_max.level(), DataClass::Restricted.level(), |class| {
        class.to_string()
    });
    out.key("takes", span(tool.takes));
    out.key_unless("breaks", tool.breaks, Share::NONE, share);
    if tool.repeatable {
        out.key("repeatable", true);
    }
}

fn calls(out: &mut Text, calls: &Calls, scenario: &Scenario) {
    out.table("[[calls]]");
    out.key("name", quoted(&calls.name));
    out.key("tool", quoted(&scenario.tools[calls.tool].text()));
    out.key("from", sites(&calls.from, scenario));
    out.key("every", span(calls.every));
    out.key("start", quoted(&duration(calls.start)));
    out.key("deadline", quoted(&duration(calls.deadline)));
    if !calls.constraints.is_empty() {
        out.key("constraints", constraints(&calls.constraints));
    }
}

/// Constraints as the reader of their JSON form takes them.
fn constraints(wanted: &Constraints) -> String {
    let default = Constraints::default();
    let mut keys = Vec::new();
    if let Some(allowed) = &wanted.allow_locations {
        keys.push(format!("allow_locations = {}", places(allowed)));
    }
    if !wanted.deny_operator_countries.is_empty() {
        keys.push(format!("deny_operator_countries = {}", places(&wanted.deny_operator_countries)));
    }
    if wanted.class != default.class {
        keys.push(format!("class = {}", wanted.class.level()));
    }
    if wanted.min_trust != default.min_trust {
        keys.push(format!("min_trust = {}", quoted(&wanted.min_trust.to_string())));
    }
    if let Some(orgs) = &wanted.allow_orgs {
        keys.push(format!("allow_orgs = {}", list(orgs.0.iter().map(|org| quoted(org.as_str())))));
    }
    if !wanted.require_certifications.0.is_empty() {
        let certifications = wanted.require_certifications.0.iter().map(|name| quoted(name));
        keys.push(format!("require_certs = {}", list(certifications)));
    }
    if let Some(deadline) = wanted.deadline_ms {
        keys.push(format!("deadline_ms = {deadline}"));
    }
    format!("{{ {} }}", keys.join(", "))
}

fn fault(out: &mut Text, fault: &Fault, scenario: &Scenario) {
    out.table("[[faults]]");
    out.key("kind", quoted(fault.kind.word()));
    match &fault.nodes {
        Victims::Named(names) => out.key("nodes", list(names.iter().map(|name| quoted(name)))),
        Victims::All => victims_sites(out, fault, scenario),
        Victims::Drawn(number) => {
            victims_sites(out, fault, scenario);
            out.key("nodes", count(*number));
        }
    }
    out.key("at", span(fault.at));
    out.key("for", span(fault.lasts));
    if fault.for_good {
        out.key("for_good", true);
    }
    kind(out, &fault.kind, scenario);
}

fn victims_sites(out: &mut Text, fault: &Fault, scenario: &Scenario) {
    if !(0..scenario.sites.len()).eq(fault.sites.iter().copied()) {
        out.key("sites", sites(&fault.sites, scenario));
    }
}

fn kind(out: &mut Text, kind: &FaultKind, scenario: &Scenario) {
    match kind {
        FaultKind::Partition { direction, from } => {
            if *direction != Direction::Both {
                let word =
                    DIRECTIONS.iter().find(|(_, known)| known == direction).map_or("", |(word, _)| word);
                out.key("direction", quoted(word));
            }
            if !from.is_empty() {
                out.key("from", sites(from, scenario));
            }
        }
        FaultKind::Flap { down, up } => {
            out.key("down", span(*down));
            out.key("up", span(*up));
        }
        FaultKind::Crash { disk } => out.key("disk", quoted(disk.word())),
        FaultKind::Churn { every, down, disk } => {
            out.key("every", span(*every));
            out.key("down", span(*down));
            out.key("disk", quoted(disk.word()));
        }
        FaultKind::Degrade { path: worse } => path(out, worse, &super::DEGRADED),
        FaultKind::ClockJump { by: Jump::AtMost(by) } => out.key("by", quoted(&duration(*by))),
        FaultKind::ClockJump { by: Jump::Exactly(ms) } => {
            let key = if *ms < 0 { "behind" } else { "ahead" };
            out.key(key, quoted(&duration(Duration::from_millis(ms.unsigned_abs()))));
        }
        FaultKind::Leave => {}
        FaultKind::NewAddress { every } => out.key("every", span(*every)),
        FaultKind::Byzantine { acts } => {
            out.key("acts", list(acts.iter().map(|act| quoted(Act::word(*act)))));
        }
        FaultKind::Chaos { every } => out.key("every", span(*every)),
    }
}

fn expectation(out: &mut Text, expectation: &Expectation, scenario: &Scenario) {
    out.table("[[expect]]");
    out.key("calls", quoted(&scenario.calls[expectation.calls].name));
    let Span { from, to } = expectation.during;
    if from != Duration::ZERO || to != scenario.phases.total() {
        out.key("during", span(expectation.during));
    }
    out.key("outcome", list(expectation.outcomes.iter().map(|outcome| quoted(outcome.word()))));
    out.key_unless("at_least", expectation.at_least, Share::ALL, share);
    if !expectation.sites.is_empty() {
        out.key("sites", sites(&expectation.sites, scenario));
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn sites(sites: &[SiteId], scenario: &Scenario) -> String {
    list(sites.iter().map(|site| quoted(&scenario.sites[*site].name)))
}

/// Countries, and groups where all of their members are meant.
fn places(places: &CountrySet) -> String {
    let mut left = *places;
    let mut names = Vec::new();
    // The largest group first: what it covers needs no smaller one.
    let mut groups: Vec<_> = GROUPS.iter().collect();
    groups.sort_by_key(|group| core::cmp::Reverse(group.members.len()));
    for group in groups {
        if group.members.is_subset(&left) {
            left = left.difference(&group.members);
            names.push(group.name.to_owned());
        }
    }
    names.extend(left.iter().map(|country| country.to_string()));
    list(names.iter().map(|name| quoted(name)))
}

fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        _ if micros.is_multiple_of(1_000_000) => format!("{}s", micros / 1_000_000),
        _ if micros.is_multiple_of(1000) => format!("{}ms", micros / 1000),
        _ => format!("{micros}us"),
    }
}

fn span(span: Span<Duration>) -> String {
    if span.from == span.to {
        quoted(&duration(span.from))
    } else {
        quoted(&format!("{}..{}", duration(span.from), duration(span.to)))
    }
}

fn count(count: Span<usize>) -> String {
    if count.from == count.to {
        count.from.to_string()
    } else {
        quoted(&format!("{}..{}", count.from, count.to))
    }
}

fn share(share: Share) -> String {
    let (whole, fraction) = (share.0 / 10_000, share.0 % 10_000);
    match fraction {
        0 => quoted(&format!("{whole}%")),
        _ => quoted(&format!("{}%", format!("{whole}.{fraction:04}").trim_end_matches('0'))),
    }
}
