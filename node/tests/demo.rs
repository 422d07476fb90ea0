//! `comity demo` as a user runs it: every step holds, what is promised is left behind, and no process is.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const COMITY: &str = env!("CARGO_BIN_EXE_comity");
/// Only a test that has failed waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

const STEPS: [&str; 9] =
    ["founded", "joined", "approved", "catalogue", "abroad", "residency", "denied", "failover", "returned"];

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(COMITY);
    command.args(["demo", "--json"]).args(arguments);
    // A user's own settings are none of the demo's business.
    command.env("COMITY_DATA_DIR", "/nonexistent").env("COMITY_CONFIG", "/nonexistent/comity.toml");
    command
}

fn path(dir: &Path) -> &str {
    dir.to_str().expect("a path of plain characters")
}

/// One line of the demo: an object of exactly three keys.
fn step(line: &str) -> (String, Value) {
    let mut object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let keys: Vec<_> = object.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, ["detail", "ok", "step"], "{line}");
    assert_eq!(object["ok"], true, "{object:#}");
    (object["step"].as_str().expect("a name").to_owned(), object["detail"].take())
}

fn pids(joined: &Value) -> Vec<Pid> {
    let nodes = joined["nodes"].as_array().expect("nodes").iter();
    let raw = nodes.map(|node| i32::try_from(node["pid"].as_i64().expect("a pid")).expect("a pid"));
    raw.map(|raw| Pid::from_raw(raw).expect("a pid")).collect()
}

/// Waits until a state is there.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn until_gone(pids: &[Pid]) {
    until("the nodes have ended", || pids.iter().all(|pid| test_kill_process(*pid).is_err()));
}

/// A demo that runs, and what it has told. Killed when dropped.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Running { child, lines }
    }

    /// Reads on to the step of that name.
    fn read_to(&mut self, name: &str) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).expect("a line"), 0, "it ended before {name}");
            let (step, detail) = step(&line);
            if step == name {
                return detail;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn every_step_holds_and_the_stores_are_kept() {
    let dir = TempDir::new().expect("a directory");
    let kept = dir.path().join("kept");
    let output = demo(&["--keep", path(&kept)]).output().expect("it runs");
    let stdout = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    let told: Vec<_> = stdout.lines().map(step).collect();
    let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, STEPS);
    let detail = |name: &str| &told.iter().find(|(step, _)| step == name).expect("a step").1;

    assert_eq!(detail("abroad")["receipt"]["locations"], json!(["DE"]));
    assert_eq!(detail("abroad")["answer"]["to"][0]["time"], "2026-11-20T08:30:00-05:00");
    let in_eu =
        |receipt: &Value| receipt["locations"] == json!(["DE"]) || receipt["locations"] == json!(["FR"]);
    let first = &detail("residency")["receipt"];
    assert!(in_eu(first), "{first}");
    assert_eq!(
        (&detail("denied")["code"], detail("denied")["reasons"].as_array().map(Vec::len)),
        (&json!(-32001), Some(4))
    );
    for call in detail("failover")["calls"].as_array().expect("calls") {
        assert!(in_eu(&call["receipt"]) && call["receipt"]["node"] != first["node"], "{call}");
    }
    assert_eq!(detail("returned")["receipt"]["node"], first["node"]);

    for node in ["berlin", "paris", "ashburn"] {
        let data = kept.join(node);
        assert!(data.join("node.key").is_file() && data.join("comity.toml").is_file(), "{node}");
        assert!(data.join("store").is_dir(), "{node}");
        let checked = Command::new(COMITY).args(["--data-dir", path(&data), "config", "check"]).output();
        assert!(checked.expect("it runs").status.success(), "{node}");
    }
    until_gone(&pids(detail("joined")));

    let again = demo(&["--keep", path(&kept)]).output().expect("it runs");
    assert_eq!(again.status.code(), Some(64), "kept data is not overwritten");
    assert!(again.stdout.is_empty());
}

#[test]
fn a_federation_that_stays_serves_others_and_ends_with_a_signal() {
    let temporary = TempDir::new().expect("a directory");
    let mut federation = Running::start(demo(&["--stay"]).env("TMPDIR", temporary.path()));
    let nodes = pids(&federation.read_to("joined"));
    let staying = federation.read_to("staying");

    let server = &staying["config"]["mcpServers"]["comity"];
    let arguments = server["args"].as_array().expect("arguments").iter().filter_map(Value::as_str);
    let stdio = Command::new(server["command"].as_str().expect("a program")).args(arguments).converse(&[
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } } }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
            "name": "convert_units", "arguments": { "value": 1, "from": "km", "to": "m" } } }),
    ]);
    assert_eq!(stdio["result"]["structuredContent"]["value"], 1000.0, "{stdio}");
    assert_eq!(stdio["result"]["_meta"]["dev.comity/receipt"]["processing_locations"], json!(["FR"]));

    federation.signal(Signal::INT);
    assert_eq!(federation.child.wait().expect("it ends").code(), Some(0));
    until_gone(&nodes);
    let left: Vec<_> = fs::read_dir(temporary.path()).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_demo_that_is_killed_leaves_no_node_behind() {
    let dir = TempDir::new().expect("a directory");
    let mut demo = Running::start(&mut demo(&["--keep", path(dir.path())]));
    let nodes = pids(&demo.read_to("joined"));
    demo.signal(Signal::KILL);
    until_gone(&nodes);
}

#[test]
fn the_demo_server_tells_a_mistake_to_the_model() {
    let answer = Command::new(COMITY).args(["demo-server", "time"]).converse(&[
        json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } } }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
            "name": "current_time", "arguments": { "zone": "Berlin" } } }),
    ]);
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    let text = answer["result"]["content"][0]["text"].as_str().expect("text");
    assert!(text.contains("Europe/Berlin"), "{text}");
}

/// A program that speaks JSON-RPC in lines.
trait Converse {
    /// Says all of `messages` and returns the answer to the last.
    fn converse(&mut self, messages: &[Value]) -> Value;
}

impl Converse for Command {
    fn converse(&mut self, messages: &[Value]) -> Value {
        let mut child = self.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        for message in messages {
            writeln!(stdin, "{message}").expect("it listens");
        }
        let wanted = &messages.last().expect("a message")["id"];
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut answers = lines.map(|line| serde_json::from_str(&line.expect("text")).expect("JSON"));
        let answer = answers.find(|answer: &Value| answer["id"] == *wanted).expect("an answer");
        drop(stdin);
        child.wait().expect("it ends");
        answer
    }
}
