//! Upstreams that are real child processes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::super::config::UpstreamConfig;
use super::super::profile::Era;
use super::super::set::UpstreamSet;
use super::super::view::UpstreamState;
use super::{
    apply, call, called, caller, failure, message, name, outcome, params, ready, result, set_of, tool_names,
    until,
};
use crate::config::servers::Launch;
use crate::exchange::{Failure, Incoming};
use crate::secret::Secret;

const SERVER: &str = include_str!("server.py");

fn program(program: &str, args: &[&str]) -> UpstreamConfig {
    let args = args.iter().map(|arg| Secret::new(arg.to_string())).collect();
    UpstreamConfig::new(Launch::Command { program: program.into(), args, env: Default::default(), cwd: None })
}

fn server(mode: &str) -> UpstreamConfig {
    program("python3", &["-c", SERVER, mode])
}

fn pids(result: &Value) -> Vec<i32> {
    result["pids"].as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap() as i32).collect()
}

/// Whether a process runs; one that has ended but is not yet reaped does not.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    state.is_some_and(|state| state != b'Z' && state != b'X')
}

async fn gone(pids: &[i32]) {
    for _ in 0..6000 {
        if !pids.iter().any(|pid| runs(*pid)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still running: {pids:?}");
}

#[tokio::test]
async fn a_server_is_started_listed_page_by_page_and_called() {
    let set = set_of([("a", server(""))]);
    let view = ready(&set, "a").await;
    let names = ["echo", "pid", "die", "hang", "flood", "add_tool", "spawn", "steps", "last_words"];
    assert_eq!(tool_names(&view), names);
    assert!(view.offerings.tools[0].raw.get().contains("12345678901234567890123"), "kept as written");
    assert_eq!(view.profile.unwrap().era, Era::Legacy);
    let echoed = called(&set, "a", "echo").await;
    assert_eq!(echoed["params"]["_meta"]["dev.comity/caller"]["principal"], caller().principal);
    let mut steps = call(&set, "a", "steps", Value::Null);
    for step in 0..50 {
        assert_eq!(params(&message(&mut steps).await), json!({ "progressToken": "p", "progress": step }));
    }
    assert!(matches!(steps.next().await, Incoming::Done(_)));
}

#[tokio::test]
async fn a_server_that_dies_fails_its_calls_and_comes_back() {
    let set = set_of([("a", server(""))]);
    let before = ready(&set, "a").await;
    let waiting = call(&set, "a", "hang", Value::Null);
    let fatal = call(&set, "a", "die", Value::Null);
    for call in [waiting, fatal] {
        match failure(outcome(call).await) {
            Failure::UpstreamDied { handed_over: true, detail } => {
                assert!(detail.contains('7'), "{detail}");
                assert!(!detail.contains("luck"), "what the server wrote is for the operator only");
            }
            other => panic!("{other:?}"),
        }
    }
    let down =
        until(&set, "a", |view| view.last_error.as_ref().is_some_and(|error| error.contains("luck"))).await;
    assert_eq!(tool_names(&down), tool_names(&before), "known tools stay known");
    let back = until(&set, "a", |view| view.state == UpstreamState::Ready && view.restarts > 0).await;
    assert_eq!(back.last_error, None);
    called(&set, "a", "echo").await;
}

#[tokio::test]
async fn a_server_that_dies_of_the_first_question_is_asked_the_other() {
    let set = set_of([("a", server("dies-of-discover"))]);
    let view = ready(&set, "a").await;
    assert_eq!((view.profile.unwrap().era, view.restarts), (Era::Legacy, 1));
}

#[tokio::test]
async fn changed_lists_are_fetched_anew() {
    let set = set_of([("a", server(""))]);
    let before = ready(&set, "a").await.offerings.tools.len();
    called(&set, "a", "add_tool").await;
    let view = until(&set, "a", |view| view.offerings.tools.len() > before).await;
    assert_eq!(tool_names(&view).last().unwrap(), "added_9");
}

#[tokio::test]
async fn a_flood_of_noise_is_survived() {
    let mut config = server("");
    config.message_bytes_max = 64 << 10;
    let set = set_of([("a", config), ("b", server(""))]);
    ready(&set, "a").await;
    ready(&set, "b").await;
    let flooding = call(&set, "a", "flood", Value::Null);
    called(&set, "b", "echo").await;
    assert!(result(outcome(flooding).await)["params"].is_object());
    called(&set, "a", "echo").await;
}

#[tokio::test]
async fn a_dead_and_a_mute_server_delay_nobody() {
    let configs =
        [("dead", program("/nonexistent/server", &[])), ("mute", server("mute")), ("good", server(""))];
    let set = set_of(configs);
    ready(&set, "good").await;
    called(&set, "good", "echo").await;
    let dead = until(&set, "dead", |view| view.state == UpstreamState::Down).await;
    assert!(dead.last_error.unwrap().contains("/nonexistent/server"));
    for server in ["dead", "mute"] {
        let refused = failure(outcome(call(&set, server, "echo", Value::Null)).await);
        assert!(matches!(refused, Failure::Unreachable { .. }), "{refused:?}");
        assert!(!refused.to_string().contains("nonexistent"), "callers learn nothing of this machine");
    }
    let unknown = failure(outcome(call(&set, "unknown", "echo", Value::Null)).await);
    assert!(matches!(unknown, Failure::Unreachable { .. }), "it may have been removed just now: {unknown:?}");
}

#[tokio::test]
async fn a_new_configuration_touches_only_what_changed() {
    let set = set_of([("kept", server("")), ("changed", server("")), ("removed", server(""))]);
    let mut before = Vec::new();
    for server in ["kept", "changed", "removed"] {
        ready(&set, server).await;
        before.push(pids(&called(&set, server, "spawn").await));
    }
    apply(&set, [("kept", server("")), ("changed", server("new")), ("added", server(""))]);
    assert!(!set.snapshot().contains_key(&name("removed")));
    ready(&set, "added").await;
    ready(&set, "changed").await;
    gone(&before[1]).await;
    gone(&before[2]).await;
    assert_eq!(called(&set, "kept", "pid").await["pid"], before[0][0]);
    assert_ne!(called(&set, "changed", "pid").await["pid"], before[1][0]);
}

#[tokio::test]
async fn shutting_down_and_dropping_leave_no_process_behind() {
    for gently in [true, false] {
        let set = set_of([("a", server(""))]);
        ready(&set, "a").await;
        let pids = pids(&called(&set, "a", "spawn").await);
        assert!(pids.iter().all(|pid| runs(*pid)));
        if gently {
            set.shutdown().await;
            assert!(set.snapshot().is_empty());
            assert!(!runs(pids[0]));
        }
        drop(set);
        gone(&pids).await;
    }
}

#[tokio::test]
async fn a_node_that_is_killed_leaves_no_process_behind() {
    let mut node = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "upstream::tests::children::a_node_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(node.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.map(|line| line.replace("test upstream", "")).find_map(|line| {
        line.split_once("PIDS ").and_then(|(_, pids)| serde_json::from_str::<Value>(pids).ok())
    });
    let pids = pids(&said.expect("the node says what it started"));
    assert!(pids.iter().all(|pid| runs(*pid)));
    kill_process(Pid::from_child(&node), Signal::KILL).unwrap();
    node.wait().unwrap();
    gone(&pids).await;
}

/// Not a test: the process that the test above kills.
#[tokio::test]
#[ignore = "run by another test, as a process of its own"]
async fn a_node_to_be_killed() {
    let set: UpstreamSet = set_of([("a", server(""))]);
    ready(&set, "a").await;
    let spawned = called(&set, "a", "spawn").await;
    println!("PIDS {spawned}");
    std::future::pending::<()>().await;
}
