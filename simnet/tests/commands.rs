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

    fn in_it(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
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
    let output = simnet(&["run", &scratch.path(), "--seed", "5", "--no-shrink"]);
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
fn a_violation_is_made_smaller_and_saved_as_a_case_that_fails_alike() {
    // A site that finds the rest and one that nobody looks for, among others and with a fault that has no part in it.
    let more = LONELY
        .replace("processing_locations = [\"DE\"]", "nodes = \"3..6\"\nprocessing_locations = [\"DE\"]");
    let fault = "[[faults]]\nkind = \"churn\"\nsites = [\"here\"]\nat = \"1s\"\nevery = \"500ms\"\n";
    let scratch = Scratch::new("shrink", &(more + fault));
    let cases = scratch.in_it("cases");
    let output = simnet(&["run", &scratch.path(), "--seed", "5", "--cases", &cases, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    let case = &report["case"];
    assert!(case["to"]["nodes"].as_u64() < case["from"]["nodes"].as_u64(), "{case}");
    assert_eq!((&case["to"]["faults"], &case["complete"]), (&0.into(), &true.into()), "{case}");
    let file = case["file"].as_str().expect("a file");
    assert!(file.starts_with(&cases) && file.ends_with("lonely-5.toml"), "{file}");
    assert!(std::path::Path::new(case["timeline"].as_str().expect("a page")).is_file());
    let seed = case["seed"].to_string();
    let run = simnet(&["run", file, "--seed", &seed, "--no-shrink", "--json"]);
    let replayed = simnet(&["replay", case["replay"].as_str().expect("a line"), "--json"]);
    assert_eq!((run.status.code(), &run.stdout), (Some(1), &replayed.stdout));
    let again: serde_json::Value = serde_json::from_slice(&run.stdout).expect("JSON");
    let violations = again["violations"].as_array().expect("a list");
    assert!(violations.contains(&case["violation"]), "{violations:?}");
    assert_eq!(case["violation"]["invariant"], report["violations"][0]["invariant"]);
}

#[test]
fn a_report_in_json_lines_has_everything_that_matters() {
    let scratch = Scratch::new("jsonl", "");
    let path = scratch.in_it("made/for/it/run.jsonl");
    let output = simnet(&["run", "mixed", "--seed", "5", "--report-jsonl", &path]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = std::fs::read_to_string(path).expect("a file");
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (first, last) = (&lines[0], &lines[lines.len() - 1]);
    assert_eq!((&first["type"], &last["type"]), (&"run".into(), &"figures".into()));
    let events = &lines[1..lines.len() - 1];
    assert!(events.is_sorted_by_key(|event| event["at_us"].as_u64().expect("a time")));
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).count();
    assert!(of("node") >= first["nodes"].as_array().expect("nodes").len());
    assert!(of("fault") > 5 && of("call") > 100 && of("violation") == 0);
    let sent: u64 = first["sent"].as_object().expect("kinds").values().filter_map(|sent| sent.as_u64()).sum();
    assert_eq!(of("message") as u64 + first["left_out"]["messages"].as_u64().expect("a number"), sent);
    let answered = events.iter().filter(|event| event["outcome"] == "answered").count() as u64;
    assert_eq!(Some(answered), last["figures"]["calls"]["answered"].as_u64());
}

#[test]
fn a_soak_stops_at_the_first_violation() {
    let scratch = Scratch::new("soak", LONELY);
    let page = scratch.in_it("soak.html");
    let output = simnet(&["soak", &scratch.path(), "--seeds", "50", "--no-shrink", "--report-html", &page]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("1 run,"), "{}", text(&output.stdout));
    assert!(std::fs::read_to_string(page).expect("the run that failed").contains("\"expectation\""));
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
        (vec!["run", "calm", "--report-html", "/proc/nowhere/x.html"], "cannot write /proc/nowhere/x.html"),
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
