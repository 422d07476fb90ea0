//! From a document to a [`Scenario`]: federation, tools, network and calls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comity_protocol::constraints::{Constraints, DataClass};
use comity_protocol::geo::CountrySet;
use comity_protocol::ids::{ItemName, OrgName, ServerName};
use toml::de::DeTable;

use super::expect;
use super::faults;
use super::import::{self, Files, Import, ImportedTool};
use super::mistake::{Mistakes, Report};
use super::section::Section;
use super::value::{Prose, Share, Span, word};
use super::{
    Calls, DURATION_MAX, Link, ORGS_MAX, Org, Path, Phases, SCENARIO_BYTES_MAX, Scenario, Site, SiteId, Tool,
};

/// What a path is like where the scenario does not say.
pub(super) const PATH: Path = Path {
    latency: Span { from: Duration::from_millis(10), to: Duration::from_millis(100) },
    loss: Share::NONE,
    kilobits: None,
    gossip_loss: Share::NONE,
};

pub(super) fn scenario(text: &str, files: Files<'_>) -> Result<Scenario, Mistakes> {
    let report = Report::new(text);
    if text.len() > SCENARIO_BYTES_MAX {
        let problem = format!("{} bytes", text.len());
        report.mistake(&(0..0), "", problem, format!("a scenario has at most {SCENARIO_BYTES_MAX}"));
        return Err(report.finish().expect_err("a mistake was just noted"));
    }
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let span = error.span().unwrap_or(0..0);
            report.mistake(&span, "", error.message(), "write the file as TOML");
            return Err(report.finish().expect_err("a mistake was just noted"));
        }
    };
    let mut root = Section::root(&report, &document);
    let scenario = read_root(&mut root, files);
    root.finish();
    report.finish()?;
    Ok(scenario)
}

fn read_root(root: &mut Section<'_>, files: Files<'_>) -> Scenario {
    let name = root.required("name").unwrap_or_default();
    let about = root.get::<Prose>("about").map(|prose| prose.0).unwrap_or_default();
    let phases = phases(root.section("run"));
    let imports = import::read(root, files);
    let orgs = orgs(root, &imports);
    let sites = sites(root, &orgs, &imports);
    let mut section = root.section("network");
    let network = path(&mut section, PATH);
    section.finish();
    let links = root.sections("links").into_iter().filter_map(|link| read_link(link, &sites, network));
    let links = links.collect();
    let tools = tools(root, &sites, &imports);
    let faults = faults::read(root, &sites, &phases);
    let calls: Vec<Calls> =
        root.sections("calls").into_iter().filter_map(|calls| read_calls(calls, &sites, &tools)).collect();
    let mut scenario = Scenario {
        name,
        about,
        phases,
        orgs,
        sites,
        tools,
        network,
        links,
        faults,
        calls,
        expectations: Vec::new(),
    };
    scenario.expectations = expect::read(root, &scenario);
    scenario
}

fn phases(mut run: Section<'_>) -> Phases {
    let seconds = Duration::from_secs;
    let phases = Phases {
        start_within: run.or("start_within", seconds(2)),
        faults_for: run.or("faults_for", seconds(60)),
        heal_within: run.or("heal_within", seconds(120)),
        quiet_for: run.or("quiet_for", seconds(10)),
    };
    if phases.start_within > phases.faults_for {
        run.mistake("start_within", "is longer than `faults_for`", "let nodes start before faults end");
    }
    if phases.total() > DURATION_MAX {
        run.mistake("", "the phases add up to more than 6 days", "shorten them");
    }
    run.finish();
    phases
}

fn orgs(root: &mut Section<'_>, imports: &[Import]) -> Vec<Org> {
    let mut sections = root.sections("orgs");
    let names: Vec<Option<OrgName>> = sections.iter_mut().map(|org| org.required("name")).collect();
    let imported = import::orgs(imports);
    let known: BTreeSet<OrgName> = names.iter().flatten().chain(&imported).cloned().collect();
    if known.is_empty() && sections.is_empty() {
        root.mistake("orgs", "there is no org", "begin one with [[orgs]] and give it a name");
    }
    if sections.len() > ORGS_MAX {
        root.mistake("orgs", format!("{} orgs", sections.len()), format!("at most {ORGS_MAX} fit a run"));
    }
    let mut taken = BTreeSet::new();
    let mut orgs = Vec::new();
    for (mut section, name) in sections.into_iter().zip(names) {
        let of_files = name.as_ref().filter(|_| !section.has("pins"));
        let of_files = of_files.and_then(|name| import::pins(root, name, imports, &known));
        let pins = pins(&mut section, &known, of_files);
        if let Some(name) = name {
            if !taken.insert(name.clone()) {
                section.mistake("name", format!("`{name}` is named twice"), "name each org once");
            }
            let pins = pins.into_iter().chain([name.clone()]).collect();
            orgs.push(Org { name, pins });
        }
        section.finish();
    }
    for name in imported.into_iter().filter(|name| !taken.contains(name)) {
        let pins = import::pins(root, &name, imports, &known).unwrap_or_default();
        let pins = pins.into_iter().chain([name.clone()]).collect();
        orgs.push(Org { name, pins });
    }
    orgs
}

/// The orgs that an org has pinned: those that it says, else those that the files of its nodes say, else all of the
/// scenario's. Who is pinned and not in the scenario has no part in it.
fn pins(
    section: &mut Section<'_>,
    known: &BTreeSet<OrgName>,
    of_files: Option<BTreeSet<OrgName>>,
) -> BTreeSet<OrgName> {
    let Some(pins) = section.list::<OrgName>("pins") else {
        return of_files.unwrap_or_else(|| known.clone());
    };
    for pin in pins.iter().filter(|pin| !known.contains(*pin)) {
        let (span, key) = (section.span_of("pins"), section.key_path("pins"));
        section.report().unknown(&span, &key, "org", pin.as_str(), known.iter().map(OrgName::as_str));
    }
    pins.into_iter().collect()
}

fn sites(root: &mut Section<'_>, orgs: &[Org], imports: &[Import]) -> Vec<Site> {
    let mut sections = root.sections("sites");
    let mut names: Vec<String> =
        sections.iter_mut().map(|site| site.required("name").unwrap_or_default()).collect();
    names.extend(imports.iter().map(|import| import.site.clone()));
    if names.is_empty() {
        root.mistake("sites", "there is no site", "begin one with [[sites]]: a name, an org, nodes");
    }
    let mut sites = Vec::new();
    for (at, mut section) in sections.into_iter().enumerate() {
        if names[..at].contains(&names[at]) {
            section.mistake("name", format!("`{}` is named twice", names[at]), "name each site once");
        }
        sites.push(read_site(&mut section, &names, at, orgs));
        section.finish();
    }
    for import in imports {
        if names[..sites.len()].contains(&import.site) {
            let problem = format!("`{}` of {} is the name of another site too", import.site, import.path);
            root.mistake("nodes", problem, "tell them apart with `site`");
        }
        sites.push(imported_site(import, orgs));
    }
    sites
}

fn imported_site(import: &Import, orgs: &[Org]) -> Site {
    Site {
        name: import.site.clone(),
        org: orgs.iter().position(|org| org.name == import.org).unwrap_or_default(),
        nodes: import.nodes,
        processing: import.file.processing,
        operator: import.file.operator,
        seeds: vec![0],
        clock_skew: Duration::ZERO,
        clock_drift_ppm: 0,
        constraints: import.file.constraints.clone(),
    }
}

fn read_site(section: &mut Section<'_>, names: &[String], at: SiteId, orgs: &[Org]) -> Site {
    let org = section.required::<OrgName>("org").and_then(|name| {
        let found = orgs.iter().position(|org| org.name == name);
        if found.is_none() {
            let known = orgs.iter().map(|org| org.name.as_str());
            let (span, key) = (section.span_of("org"), section.key_path("org"));
            section.report().unknown(&span, &key, "org", name.as_str(), known);
        }
        found
    });
    let places = section.list::<CountrySet>("processing_locations").unwrap_or_default();
    // Everybody is told of the first node of the first site, which itself begins alone.
    let seeds = named(section, "seeds", names).unwrap_or_else(|| vec![0]);
    Site {
        name: names[at].clone(),
        org: org.unwrap_or_default(),
        nodes: section.or("nodes", Span::just(1)),
        processing: places.iter().fold(CountrySet::EMPTY, |all, place| all.union(place)),
        operator: section.get("operator_country"),
        seeds,
        clock_skew: section.or("clock_skew", Duration::ZERO),
        clock_drift_ppm: section.or("clock_drift_ppm", 0),
        constraints: constraints(section.section("constraints")),
    }
}

/// A list of sites by name; `None` when the key is absent.
fn named(section: &mut Section<'_>, key: &'static str, names: &[String]) -> Option<Vec<SiteId>> {
    let given = section.list::<String>(key)?;
    let (span, path) = (section.span_of(key), section.key_path(key));
    let found = given.iter().filter_map(|name| {
        let at = names.iter().position(|known| known == name);
        if at.is_none() {
            section.report().unknown(&span, &path, "site", name, names.iter().map(String::as_str));
        }
        at
    });
    Some(found.collect())
}

/// A list of sites by name; `None` when the key is absent.
pub(super) fn site_list(section: &mut Section<'_>, key: &'static str, sites: &[Site]) -> Option<Vec<SiteId>> {
    let names: Vec<String> = sites.iter().map(|site| site.name.clone()).collect();
    named(section, key, &names)
}

/// The keys of a path; what is absent is as in `default`.
pub(super) fn path(section: &mut Section<'_>, default: Path) -> Path {
    let path = Path {
        latency: section.or("latency", default.latency),
        loss: section.or("loss", default.loss),
        kilobits: section.get("kilobits").or(default.kilobits),
        gossip_loss: section.or("gossip_loss", default.gossip_loss),
    };
    if path.kilobits == Some(0) {
        section.mistake("kilobits", "is 0", "cut the link with a fault of kind \"partition\" instead");
    }
    if path.loss > Share(900_000) {
        section.mistake(
            "loss",
            "is more than 90%",
            "cut the link with a fault of kind \"partition\" instead",
        );
    }
    path
}

fn read_link(mut section: Section<'_>, sites: &[Site], network: Path) -> Option<Link> {
    let between = site_list(&mut section, "between", sites);
    let path = path(&mut section, network);
    let link = match between.as_deref() {
        Some([one, other]) => Some(Link { between: (*one, *other), path }),
        _ => {
            section.mistake(
                "between",
                "does not name two sites",
                "give two names, twice the same for inside",
            );
            None
        }
    };
    section.finish();
    link
}

/// How long a call takes where the scenario does not say.
const TAKES: Span<Duration> = Span { from: Duration::from_millis(5), to: Duration::from_millis(50) };

type ImportedTools = BTreeMap<(ServerName, ItemName), ImportedTool>;

/// The tools of the scenario, and those of imported nodes that it does not name.
fn tools(root: &mut Section<'_>, sites: &[Site], imports: &[Import]) -> Vec<Tool> {
    let mut imported = import::tools(root, imports);
    let sections = root.sections("tools").into_iter();
    let mut tools: Vec<Tool> =
        sections.filter_map(|section| read_tool(section, sites, &mut imported)).collect();
    let place = |name: &String| sites.iter().position(|site| site.name == *name);
    tools.extend(imported.into_iter().map(|((server, tool), of_files)| Tool {
        server,
        tool,
        sites: of_files.sites.iter().filter_map(place).collect(),
        org_only: of_files.org_only,
        class_max: of_files.class_max,
        takes: TAKES,
        breaks: Share::NONE,
        repeatable: of_files.repeatable,
    }));
    tools
}

/// Reads one tool. What it does not say is as the imported nodes that have it say.
fn read_tool(mut section: Section<'_>, sites: &[Site], imported: &mut ImportedTools) -> Option<Tool> {
    let name = section.required::<String>("name").and_then(|name| tool_name(&section, &name));
    let of_files = name.as_ref().and_then(|name| imported.remove(name));
    let share = word(&mut section, "share", &[("federation", false), ("org", true)]);
    let offering = site_list(&mut section, "sites", sites).unwrap_or_else(|| {
        let names = of_files.iter().flat_map(|tool| &tool.sites);
        names.filter_map(|name| sites.iter().position(|site| site.name == *name)).collect()
    });
    if offering.is_empty() {
        section.mistake("sites", "nobody offers the tool", "name the sites that do");
    }
    let class_max = of_files.as_ref().map_or(DataClass::Restricted, |tool| tool.class_max);
    let tool = name.map(|(server, tool)| Tool {
        server,
        tool,
        sites: offering,
        org_only: share.unwrap_or(of_files.as_ref().is_some_and(|tool| tool.org_only)),
        class_max: section.or("class_max", class_max),
        takes: section.or("takes", TAKES),
        breaks: section.or("breaks", Share::NONE),
        repeatable: section.or("repeatable", of_files.as_ref().is_some_and(|tool| tool.repeatable)),
    });
    section.finish();
    tool
}

fn tool_name(section: &Section<'_>, name: &str) -> Option<(ServerName, ItemName)> {
    let parsed =
        name.split_once('/').and_then(|(server, tool)| Some((server.parse().ok()?, tool.parse().ok()?)));
    if parsed.is_none() {
        section.mistake("name", format!("`{name}` is no tool"), "write it as \"server/tool\"");
    }
    parsed
}

fn read_calls(mut section: Section<'_>, sites: &[Site], tools: &[Tool]) -> Option<Calls> {
    let name = section.required::<String>("name").unwrap_or_default();
    let tool = section.required::<String>("tool").and_then(|name| {
        let found = tools.iter().position(|tool| tool.text() == name);
        if found.is_none() {
            let known: Vec<String> = tools.iter().map(Tool::text).collect();
            let (span, key) = (section.span_of("tool"), section.key_path("tool"));
            section.report().unknown(&span, &key, "tool", &name, known.iter().map(String::as_str));
        }
        found
    });
    let from = site_list(&mut section, "from", sites).unwrap_or_else(|| (0..sites.len()).collect());
    let every = section.or("every", Span::just(Duration::from_secs(1)));
    if every.from < Duration::from_millis(1) {
        section.mistake("every", "is less than a millisecond", "give a longer time");
    }
    let start = section.or("start", Duration::from_secs(5));
    let deadline = section.or("deadline", Duration::from_secs(10));
    let constraints = constraints(section.section("constraints"));
    section.finish();
    tool.map(|tool| Calls { name, from, tool, every, start, constraints, deadline })
}

/// Reads constraints with the protocol's own reader, so that both mean the same.
fn constraints(section: Section<'_>) -> Constraints {
    Constraints::from_json(&section.to_json()).unwrap_or_else(|error| {
        let known = comity_protocol::constraints::KEYS;
        let hint = match super::mistake::nearest(&error.key, known) {
            Some(near) if near != error.key => format!("did you mean `{near}`?"),
            _ => "see the constraints in docs/glossary.md".to_owned(),
        };
        let key = error.key.clone();
        section.report().mistake(&section.span_of(&key), &section.key_path(&key), error.detail, hint);
        Constraints::default()
    })
}
