//! The binary from outside: exit codes, JSON, replay lines.

use std::process::{Command, Output};

fn simnet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simnet")).args(arguments).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const LONELY: &str = r#"
name = "lonely"
[run]
faults_for = "5s"
heal_within = "5s"
quiet_for = "5s"
[[orgs]]
name = "a.example"
[[sites]]
name = "here"
org = "a.example"
processing_locations = ["DE"]
[[sites]]
name = "there"
org = "a.example"
processing_locations = ["FR"]
seeds = []
[[tools]]
name = "crm/search"
sites = ["there"]
[[calls]]
name = "search"
tool = "crm/search"
from = ["here"]
start = "2s"
[[expect]]
calls = "search"
"#;

/// A file in a directory that is gone at the end of the test.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str, content: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("simnet-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join("scenario.toml"), content).expect("a file");
        Self(directory)
    }

    fn path(&self) -> String {
        self.0.join("scenario.toml").display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_good_run_ends_with_0_and_reports_in_json() {
    let output = simnet(&["run", "calm", "--seed", "3", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for key in ["seed", "commit", "scenario", "scenario_hash", "trace_hash", "violations", "figures"] {
        assert!(report.get(key).is_some(), "{key}");
    }
    assert_eq!(report["seed"], 3);
}

#[test]
fn a_violation_ends_with_1_and_its_line_runs_it_again() {
    let scratch = Scratch::new("violation", LONELY);
    let output = simnet(&["run", &scratch.path(), "--seed", "5"]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    let line = told.lines().find_map(|line| line.strip_prefix("simnet replay '")).expect("a line");
    let again = simnet(&["replay", line.trim_end_matches('\'')]);
    assert_eq!((again.status.code(), text(&again.stdout)), (Some(1), told.clone()));
    std::fs::write(scratch.path(), LONELY.replace("start", " start")).expect("a file");
    let changed = simnet(&["replay", line.trim_end_matches('\'')]);
    assert_eq!(changed.status.code(), Some(64));
    assert!(text(&changed.stderr).contains("has changed"));
}

#[test]
fn a_soak_stops_at_the_first_violation() {
    let scratch = Scratch::new("soak", LONELY);
    let output = simnet(&["soak", &scratch.path(), "--seeds", "50"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("1 runs"), "{}", text(&output.stdout));
    assert_eq!(simnet(&["soak", "calm", "--seeds", "2"]).status.code(), Some(0));
}

#[test]
fn what_is_wrong_ends_with_64_and_is_named() {
    let scratch = Scratch::new("wrong", &LONELY.replace("from =", "form ="));
    let path = scratch.path();
    for (arguments, part) in [
        (vec!["run", "clam"], "did you mean `calm`?"),
        (vec!["run", path.as_str()], "line 24: calls[0].form: unknown key; did you mean `from`?"),
        (vec!["replay", "seed=1"], "no replay line"),
        (vec!["run"], "required"),
        (vec!["show", "nothing-like-it"], "simnet list"),
    ] {
        let output = simnet(&arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(text(&output.stderr).contains(part), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn what_is_listed_can_be_shown() {
    let listed = text(&simnet(&["list", "--json"]).stdout);
    let first: serde_json::Value = serde_json::from_str(listed.lines().next().expect("one")).expect("JSON");
    let shown = simnet(&["show", first["name"].as_str().expect("a name")]);
    assert!(text(&shown.stdout).starts_with("name = "));
}
