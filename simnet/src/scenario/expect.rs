//! What a scenario expects of its calls: the `[[expect]]` tables. Invariants need no table; they always hold.

use std::time::Duration;

use comity_protocol::geo::CountrySet;

use super::read::site_list;
use super::section::Section;
use super::section::Setting;
use super::value::{Share, Span};
use super::{Calls, Scenario, Site, SiteId, Tool};

/// What is expected of some calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The calls, by place.
    pub calls: usize,
    /// Those that begin within this time.
    pub during: Span<Duration>,
    /// What becomes of them: one of these.
    pub outcomes: Vec<Verdict>,
    /// Of how many of them at least.
    pub at_least: Share,
    /// The only sites that may run them; any when empty.
    pub sites: Vec<SiteId>,
}

/// What becomes of a call, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It ran and its answer came, with a receipt that proves it.
    Answered,
    /// It ran, and no receipt proves it.
    Unproved,
    /// Everybody who offers it fails a constraint.
    Denied,
    /// The caller knows of nobody who offers it.
    Unknown,
    /// Somebody lawful offers it and nobody could be reached; nothing ran.
    Unreachable,
    /// It may have run.
    InDoubt,
    /// No answer before the deadline.
    Timeout,
    /// Its caller went down first.
    CallerGone,
}

impl Verdict {
    /// All of them, by the words of scenarios and reports.
    pub const WORDS: [(&'static str, Self); 8] = [
        ("answered", Self::Answered),
        ("unproved", Self::Unproved),
        ("denied", Self::Denied),
        ("unknown", Self::Unknown),
        ("unreachable", Self::Unreachable),
        ("in_doubt", Self::InDoubt),
        ("timeout", Self::Timeout),
        ("caller_gone", Self::CallerGone),
    ];

    /// The word.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, verdict)| *verdict == self).map_or("", |(word, _)| word)
    }
}

/// A stretch of a run, `"10s..20s"`.
struct Stretch(Span<Duration>);

impl Setting for Stretch {
    const EXPECTED: &'static str = "a stretch of the run such as \"10s..20s\"";

    fn read(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
        let span = Span::<Duration>::read(value)?;
        if span.from == span.to { Err("is empty".into()) } else { Ok(Self(span)) }
    }
}

/// A word, or a list of them.
struct OneOrMore(Vec<String>);

impl Setting for OneOrMore {
    const EXPECTED: &'static str = "an outcome such as \"answered\", or a list of them";

    fn read(value: &toml::de::DeValue<'_>) -> Result<Self, String> {
        match value {
            toml::de::DeValue::Array(items) => {
                items.iter().map(|item| String::read(item.get_ref())).collect::<Result<_, _>>().map(Self)
            }
            one => String::read(one).map(|word| Self(vec![word])),
        }
    }
}

pub(super) fn read(root: &mut Section<'_>, scenario: &Scenario) -> Vec<Expectation> {
    let sections = root.sections("expect");
    sections.into_iter().filter_map(|section| read_one(section, scenario)).collect()
}

fn read_one(mut section: Section<'_>, scenario: &Scenario) -> Option<Expectation> {
    let name: Option<String> = section.required("calls");
    let calls = name.and_then(|name| {
        let found = scenario.calls.iter().position(|calls| calls.name == name);
        if found.is_none() {
            let known: Vec<&str> = scenario.calls.iter().map(|calls| calls.name.as_str()).collect();
            let (span, key) = (section.span_of("calls"), section.key_path("calls"));
            section.report().unknown(&span, &key, "group of calls", &name, known);
        }
        found
    });
    let whole = Span { from: Duration::ZERO, to: scenario.phases.total() };
    let expectation = Expectation {
        calls: calls.unwrap_or_default(),
        during: section.get::<Stretch>("during").map_or(whole, |stretch| stretch.0),
        outcomes: outcomes(&mut section),
        at_least: section.or("at_least", Share::ALL),
        sites: site_list(&mut section, "sites", &scenario.sites).unwrap_or_default(),
    };
    if let Some(calls) = calls
        && !section.report().has_mistakes()
    {
        check_possible(&section, &expectation, &scenario.calls[calls], scenario);
    }
    section.finish();
    calls.map(|_| expectation)
}

fn outcomes(section: &mut Section<'_>) -> Vec<Verdict> {
    let Some(OneOrMore(given)) = section.get("outcome") else { return vec![Verdict::Answered] };
    let (span, key) = (section.span_of("outcome"), section.key_path("outcome"));
    let found = given.iter().filter_map(|word| {
        let verdict = Verdict::WORDS.iter().find(|(known, _)| known == word).map(|(_, verdict)| *verdict);
        if verdict.is_none() {
            section.report().unknown(&span, &key, "outcome", word, Verdict::WORDS.map(|(known, _)| known));
        }
        verdict
    });
    found.collect()
}

/// An expectation that no run can meet is a mistake of the scenario's and not of the federation's.
fn check_possible(section: &Section<'_>, wanted: &Expectation, calls: &Calls, scenario: &Scenario) {
    let impossible = |key: &str, problem: String| {
        section.mistake(key, format!("cannot be met: {problem}"), "change the expectation or the federation");
    };
    let end = scenario.phases.total();
    if wanted.during.from >= end || wanted.during.to <= calls.start {
        let problem = format!("`{}` are made from {:?} to {end:?}", calls.name, calls.start);
        return impossible("during", problem);
    }
    if !wanted.outcomes.iter().all(|outcome| matches!(outcome, Verdict::Answered | Verdict::Unproved)) {
        return;
    }
    let tool = &scenario.tools[calls.tool];
    for caller in &calls.from {
        let lawful = lawful_sites(scenario, tool, calls, *caller);
        let name = &scenario.sites[*caller].name;
        if lawful.is_empty() {
            let problem = format!("no site may lawfully run {} for {name}", tool.text());
            return impossible("outcome", problem);
        }
        if !wanted.sites.is_empty() && !wanted.sites.iter().any(|site| lawful.contains(site)) {
            let names: Vec<&str> = lawful.iter().map(|site| scenario.sites[*site].name.as_str()).collect();
            let problem = format!("only {} may lawfully run {} for {name}", names.join(", "), tool.text());
            return impossible("sites", problem);
        }
    }
}

/// The sites that may run a call by what the scenario says of them: plain sets, and none of the protocol's code.
pub(crate) fn lawful_sites(scenario: &Scenario, tool: &Tool, calls: &Calls, caller: SiteId) -> Vec<SiteId> {
    let lawful = |site: &&SiteId| {
        let executor = &scenario.sites[**site];
        let known = pinned(scenario, caller, **site)
            && (!tool.org_only || executor.org == scenario.sites[caller].org);
        known && satisfies(scenario, tool, executor, &scenario.demands(calls, caller))
    };
    tool.sites.iter().filter(lawful).copied().collect()
}

/// Whether each of two sites' orgs has pinned the other's.
fn pinned(scenario: &Scenario, one: SiteId, other: SiteId) -> bool {
    let (one, other) = (&scenario.orgs[scenario.sites[one].org], &scenario.orgs[scenario.sites[other].org]);
    one.pins.contains(&other.name) && other.pins.contains(&one.name)
}

/// The constraints, checked by hand against what is true of a site.
pub(crate) fn satisfies(
    scenario: &Scenario,
    tool: &Tool,
    site: &Site,
    constraints: &comity_protocol::constraints::Constraints,
) -> bool {
    let countries =
        |set: &CountrySet| -> Vec<String> { set.iter().map(|country| country.to_string()).collect() };
    let runs_in = countries(&site.processing);
    let places = constraints.allow_locations.as_ref().is_none_or(|allowed| {
        let allowed = countries(allowed);
        !runs_in.is_empty() && runs_in.iter().all(|country| allowed.contains(country))
    });
    let denied = countries(&constraints.deny_operator_countries);
    let operator = match site.operator {
        Some(country) => !denied.contains(&country.to_string()),
        None => denied.is_empty(),
    };
    let org = &scenario.orgs[site.org].name;
    let orgs = constraints.allow_orgs.as_ref().is_none_or(|orgs| orgs.0.iter().any(|allowed| allowed == org));
    let class = constraints.class.level() <= tool.class_max.level();
    // Nobody attests anything yet, so T1 is the most that anybody has.
    let trust = constraints.min_trust <= comity_protocol::constraints::TrustLevel::T1;
    places && operator && orgs && class && trust && constraints.require_certifications.0.is_empty()
}
