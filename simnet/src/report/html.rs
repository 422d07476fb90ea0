//! A run as one HTML page that needs nothing else: a timeline with nodes as lanes, faults, calls, messages and what was
//! violated.
//!
//! The page is a template, a style and a script that are compiled in, and the run as JSON between them. It fetches
//! nothing, which its own content security policy enforces.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::jsonl::micros;
use crate::chronicle::{CallStory, Chronicle, Fate, Message, MessageKind};
use crate::run::Report;
use crate::scenario::{Scenario, Verdict};

const TEMPLATE: &str = include_str!("timeline.html");
const STYLE: &str = include_str!("timeline.css");
const SCRIPT: &str = include_str!("timeline.js");

/// Most nodes that the page has lanes for. Those that something befell come first.
pub const LANES_MAX: usize = 120;

/// The page.
pub fn page(scenario: &Scenario, report: &Report, chronicle: &Chronicle) -> String {
    let title = format!("{} seed {}", report.scenario, report.seed);
    // What may end the element that holds it does not stand in it, whatever a scenario is called.
    let data = data(scenario, report, chronicle).to_string().replace('<', "\\u003c");
    let mut page = String::with_capacity(TEMPLATE.len() + STYLE.len() + SCRIPT.len() + data.len());
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        page.push_str(before);
        match name {
            "title" => page.push_str(&escaped(&title)),
            "style" => page.push_str(STYLE),
            "script" => page.push_str(SCRIPT),
            "data" => page.push_str(&data),
            _ => {}
        }
        rest = after;
    }
    page.push_str(rest);
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Which nodes have a lane, by their places in the run, in the order of the run.
fn lanes(report: &Report, chronicle: &Chronicle) -> Vec<usize> {
    let everybody = 0..chronicle.actors.len();
    if chronicle.actors.len() <= LANES_MAX {
        return everybody.collect();
    }
    let violated = |node: &usize| {
        let name = &chronicle.actors[*node].name;
        report.violations.iter().any(|violation| {
            violation.node.as_ref() == Some(name)
                || violation.detail.split([' ', ',', ';']).any(|word| word == name)
        })
    };
    let of_violations = everybody.clone().filter(violated);
    let mut sites = BTreeSet::new();
    let first_of_site = everybody.clone().filter(|node| sites.insert(&chronicle.actors[*node].site));
    let first_of_site: Vec<usize> = first_of_site.collect();
    let befallen = chronicle.faults.iter().filter(|fault| fault.nodes.len() == 1).map(|fault| fault.nodes[0]);
    let calling = chronicle.calls().flat_map(|call| [Some(call.caller), call.by]).flatten();
    let by_interest = of_violations.chain(first_of_site).chain(befallen).chain(calling).chain(everybody);
    let mut chosen = BTreeSet::new();
    for node in by_interest {
        if chosen.len() < LANES_MAX {
            chosen.insert(node);
        }
    }
    chosen.into_iter().collect()
}

fn data(scenario: &Scenario, report: &Report, chronicle: &Chronicle) -> Value {
    let shown = lanes(report, chronicle);
    let place: BTreeMap<usize, usize> = shown.iter().enumerate().map(|(lane, node)| (*node, lane)).collect();
    let phases = scenario.phases;
    json!({
        "report": report,
        "about": scenario.about,
        "end": chronicle.end,
        "converged": chronicle.converged,
        "healed": chronicle.healed,
        "phases": { "start": micros(phases.start_within), "faults": micros(phases.faults_for) },
        "sites": scenario.sites.iter().map(|site| json!({
            "name": site.name,
            "org": scenario.orgs[site.org].name.as_str(),
            "places": site.processing.iter().map(|place| place.to_string()).collect::<Vec<_>>(),
            "operator": site.operator.map(|operator| operator.to_string()),
        })).collect::<Vec<_>>(),
        "nodes": shown.iter().map(|node| &chronicle.actors[*node]).collect::<Vec<_>>(),
        "nodesInAll": chronicle.actors.len(),
        "faults": faults(chronicle, &place),
        "turns": chronicle.turns.iter().filter_map(|turn| {
            Some(json!([turn.at, place.get(&turn.node)?, turn.state]))
        }).collect::<Vec<_>>(),
        "kinds": MessageKind::ALL,
        "sent": chronicle.messages.sent(),
        "messages": messages(chronicle, &place),
        "outcomes": Verdict::WORDS.map(|(word, _)| word),
        "calls": chronicle.calls().filter_map(|call| of_call(call, &place)).collect::<Vec<_>>(),
        "leftOut": chronicle.omitted(),
    })
}

fn faults(chronicle: &Chronicle, place: &BTreeMap<usize, usize>) -> Vec<Value> {
    let lanes = |nodes: &[usize]| -> Vec<usize> {
        nodes.iter().filter_map(|node| place.get(node).copied()).collect()
    };
    let of_fault = |fault: &crate::chronicle::FaultStory| {
        json!({
            "kind": fault.kind,
            "nodes": lanes(&fault.nodes),
            "count": fault.nodes.len(),
            "from": lanes(&fault.from),
            "fromCount": fault.from.len(),
            "detail": fault.detail,
            "begin": fault.begin,
            "end": fault.end,
        })
    };
    chronicle.faults.iter().map(of_fault).collect()
}

/// Messages as columns, which take a third of the space of objects. `arrives` is -1 for held, -2 for lost.
fn messages(chronicle: &Chronicle, place: &BTreeMap<usize, usize>) -> Value {
    let on_lanes = |message: &&Message| place.contains_key(&message.from) && place.contains_key(&message.to);
    let kept: Vec<&Message> = chronicle.messages.kept().filter(on_lanes).collect();
    let mut whats: Vec<&str> = kept.iter().map(|message| message.what).collect();
    whats.sort_unstable();
    whats.dedup();
    let column =
        |value: &dyn Fn(&Message) -> i64| kept.iter().map(|message| value(message)).collect::<Vec<_>>();
    let position =
        |index: Option<usize>| index.and_then(|index| i64::try_from(index).ok()).unwrap_or_default();
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    json!({
        "whats": whats,
        "at": column(&|message| number(message.at)),
        "arrives": column(&|message| match message.fate {
            Fate::Arrives(at) => number(at),
            Fate::Held => -1,
            Fate::Lost => -2,
        }),
        "from": column(&|message| position(place.get(&message.from).copied())),
        "to": column(&|message| position(place.get(&message.to).copied())),
        "kind": column(&|message| position(MessageKind::ALL.iter().position(|kind| *kind == message.kind))),
        "what": column(&|message| position(whats.binary_search(&message.what).ok())),
        "bytes": column(&|message| position(Some(message.bytes))),
    })
}

fn of_call(call: &CallStory, place: &BTreeMap<usize, usize>) -> Option<Value> {
    let outcome =
        call.outcome.and_then(|outcome| Verdict::WORDS.iter().position(|(_, known)| *known == outcome));
    let ran = call.ran.iter().filter_map(|(node, at)| Some((*place.get(node)?, *at)));
    Some(json!({
        "nr": call.nr,
        "name": call.calls,
        "caller": place.get(&call.caller)?,
        "begin": call.begin,
        "end": call.end,
        "outcome": outcome,
        "by": call.by.and_then(|by| place.get(&by)),
        "ran": ran.collect::<Vec<_>>(),
        "handed": call.handed.len(),
    }))
}
