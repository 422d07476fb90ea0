//! A run as lines of JSON, one object each, in the order of time: what a program needs to find out what happened.
//!
//! The first line is the run, the last its figures; between them each line has `type` and `at_us`, the microsecond of the
//! run. Nodes are named. How many messages are left out the first line says; see [`crate::chronicle`] for which.

use serde_json::{Value, json};

use crate::chronicle::{
    AFTER_VIOLATION, BEFORE_VIOLATION, CALLS_MAX, CallStory, Chronicle, Fate, FaultStory, KEPT_PER_KIND_MAX,
    Message, Micros, Turn,
};
use crate::judge::Violation;
use crate::run::Report;
use crate::scenario::Scenario;

/// The lines, each with its end.
pub fn lines(scenario: &Scenario, report: &Report, chronicle: &Chronicle) -> String {
    let names: Vec<&str> = chronicle.actors.iter().map(|actor| actor.name.as_str()).collect();
    let mut events: Vec<(Micros, Value)> = Vec::new();
    events.extend(chronicle.turns.iter().map(|turn| (turn.at, of_turn(turn, &names))));
    events.extend(chronicle.faults.iter().map(|fault| (fault.begin, of_fault(fault, &names))));
    events.extend(chronicle.calls().map(|call| (call.begin, of_call(call, &names))));
    events.extend(chronicle.messages.kept().map(|message| (message.at, of_message(message, &names))));
    events
        .extend(report.violations.iter().map(|violation| (violation.at_ms * 1000, of_violation(violation))));
    // Stable: what happens in one moment keeps the order above.
    events.sort_by_key(|(at, _)| *at);
    let figures = json!({ "type": "figures", "figures": report.figures });
    let all = [of_run(scenario, report, chronicle)].into_iter();
    let all = all.chain(events.into_iter().map(|(_, event)| event)).chain([figures]);
    all.map(|line| line.to_string() + "\n").collect()
}

fn of_run(scenario: &Scenario, report: &Report, chronicle: &Chronicle) -> Value {
    json!({
        "type": "run",
        "scenario": report.scenario,
        "scenario_hash": report.scenario_hash,
        "seed": report.seed,
        "commit": report.commit,
        "trace_hash": report.trace_hash,
        "simulated_us": chronicle.end,
        "converged_us": chronicle.converged,
        "healed_us": chronicle.healed,
        "faults_for_us": micros(scenario.phases.faults_for),
        "replay": report.replay,
        "nodes": chronicle.actors,
        "sent": chronicle.messages.sent(),
        "left_out": chronicle.omitted(),
        "bounds": {
            "messages_per_kind": KEPT_PER_KIND_MAX,
            "messages_before_violation": BEFORE_VIOLATION,
            "messages_after_violation": AFTER_VIOLATION,
            "calls": CALLS_MAX,
        },
    })
}

/// A duration in microseconds.
pub(super) fn micros(duration: std::time::Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn of_turn(turn: &Turn, names: &[&str]) -> Value {
    json!({ "type": "node", "at_us": turn.at, "node": names[turn.node], "state": turn.state })
}

fn of_fault(fault: &FaultStory, names: &[&str]) -> Value {
    let named = |nodes: &[usize]| -> Vec<&str> { nodes.iter().map(|node| names[*node]).collect() };
    json!({
        "type": "fault",
        "at_us": fault.begin,
        "end_us": fault.end,
        "id": fault.id,
        "kind": fault.kind,
        "nodes": named(&fault.nodes),
        "from": named(&fault.from),
        "detail": fault.detail,
    })
}

fn of_call(call: &CallStory, names: &[&str]) -> Value {
    let times = |times: &[(usize, Micros)]| -> Vec<Value> {
        times.iter().map(|(node, at)| json!({ "node": names[*node], "at_us": at })).collect()
    };
    json!({
        "type": "call",
        "at_us": call.begin,
        "end_us": call.end,
        "nr": call.nr,
        "calls": call.calls,
        "caller": names[call.caller],
        "outcome": call.outcome,
        "by": call.by.map(|by| names[by]),
        "handed": times(&call.handed),
        "ran": times(&call.ran),
    })
}

fn of_message(message: &Message, names: &[&str]) -> Value {
    let (fate, arrives) = match message.fate {
        Fate::Arrives(at) => ("arrives", Some(at)),
        Fate::Held => ("held", None),
        Fate::Lost => ("lost", None),
    };
    json!({
        "type": "message",
        "at_us": message.at,
        "nr": message.nr,
        "from": names[message.from],
        "to": names[message.to],
        "kind": message.kind,
        "what": message.what,
        "bytes": message.bytes,
        "fate": fate,
        "arrives_us": arrives,
    })
}

fn of_violation(violation: &Violation) -> Value {
    json!({
        "type": "violation",
        "at_us": violation.at_ms * 1000,
        "invariant": violation.invariant,
        "node": violation.node,
        "detail": violation.detail,
    })
}
