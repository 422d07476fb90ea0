//! The conformance suites of the protocol's makers, and the server of our own that passes all of them.
//!
//! Two releases are pinned: one that knows 2025-11-25 only, and one that knows both eras. Neither is told of a failure to
//! expect. What they judge is read from the files that they write, check by check, so that the same suite run directly
//! and through nodes can be compared: a scenario that runs fewer checks has not passed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::fixture_file;
use crate::fixtures::Npm;
use crate::mcp::LEGACY;
use crate::process::{Background, run_within};
use crate::wait;

/// One suite takes ten seconds where all is well; every scenario that hangs takes half a minute more.
const SUITE_DEADLINE: Duration = Duration::from_secs(300);

/// A set of scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// All of release 0.1.16: revision 2025-11-25.
    First,
    /// What release 0.2.0-alpha.12 requires of 2025-11-25.
    Legacy,
    /// What release 0.2.0-alpha.12 requires of 2026-07-28, the extension for tasks with it.
    Modern,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Suite; 3] = [Suite::First, Suite::Legacy, Suite::Modern];

    /// How many checks a server that offers everything passes. Fewer means that something was not looked at.
    pub fn checks(self) -> usize {
        match self {
            Suite::First => 47,
            Suite::Legacy => 84,
            Suite::Modern => 197,
        }
    }

    /// Whether its client speaks 2026-07-28.
    pub fn is_modern(self) -> bool {
        self == Suite::Modern
    }

    fn script(self) -> &'static str {
        match self {
            Suite::First => "mcp-conformance-0.1/dist/index.js",
            Suite::Legacy | Suite::Modern => "mcp-conformance-0.2/dist/index.js",
        }
    }

    fn selection(self) -> [&'static str; 2] {
        match self {
            Suite::First => ["--suite", "all"],
            Suite::Legacy => ["--requirements", "2025-11-25"],
            Suite::Modern => ["--requirements", "2026-07-28"],
        }
    }

    /// Runs it against an endpoint.
    ///
    /// # Panics
    /// When it does not end, or leaves no judgement behind.
    pub fn run(self, url: &str) -> Judgement {
        self.judge(url, &self.selection())
    }

    /// Runs one of its scenarios against an endpoint.
    pub fn run_scenario(self, url: &str, scenario: &str) -> Judgement {
        let version = if self.is_modern() { "2026-07-28" } else { "2025-11-25" };
        let revision: &[&str] = if self == Suite::First { &[] } else { &["--spec-version", version] };
        self.judge(url, &[&["--scenario", scenario], revision].concat())
    }

    fn judge(self, url: &str, selection: &[&str]) -> Judgement {
        let results = TempDir::new().expect("a temporary directory can be made");
        let mut command = Command::new(Npm::get().node());
        command.arg(Npm::get().script(self.script())).args(["server", "--url", url, "--output-dir"]);
        command.arg(results.path()).args(selection).env("NO_PROXY", "127.0.0.1").env("NO_COLOR", "1");
        command.current_dir(results.path()).env("HOME", results.path());
        let ended = run_within(&mut command, "", SUITE_DEADLINE);
        let checks = checks_in(results.path());
        assert!(!checks.is_empty(), "{self:?} judged nothing: {ended:?}");
        Judgement { suite: self, exit: ended.code, checks }
    }
}

/// Runs one of the scenarios that the second release has for clients, at a revision. It opens a server; `act` is given its
/// URL and what the scenario says should be done there, and does it.
pub fn judge_client(revision: &str, scenario: &str, act: impl FnOnce(&str, &Value)) -> Judgement {
    let [meeting, results] = [(); 2].map(|()| TempDir::new().expect("a temporary directory can be made"));
    let script = fixture_file("conformance/rendezvous.sh");
    let client = format!("sh {} {}", script.display(), meeting.path().display());
    let mut command = Command::new(Npm::get().node());
    command.arg(Npm::get().script(Suite::Modern.script())).args(["client", "--command", &client]);
    command.args(["--scenario", scenario, "--spec-version", revision, "--timeout", "60000", "--output-dir"]);
    command.arg(results.path()).env("NO_PROXY", "127.0.0.1").env("HOME", results.path());
    let mut suite = Background::start("the suite", command.current_dir(results.path()));
    let url = wait::until(&format!("{scenario} opens its server"), || {
        assert!(suite.ended().is_none(), "the suite ended before it opened a server");
        fs::read_to_string(meeting.path().join("url"))
    });
    let context = fs::read_to_string(meeting.path().join("context")).unwrap_or_default();
    act(&url, &serde_json::from_str(&context).unwrap_or_default());
    fs::write(meeting.path().join("done"), "").expect("a file can be written");
    let exit = suite.wait().code();
    let suite = if revision == LEGACY { Suite::Legacy } else { Suite::Modern };
    Judgement { suite, exit, checks: checks_in(results.path()) }
}

/// One thing that a scenario looked at: the scenario, the check's id, and which of several of that id in that scenario.
pub type Check = (String, String, usize);

/// What a suite found.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// The suite.
    pub suite: Suite,
    /// Its exit code.
    pub exit: Option<i32>,
    /// What each check found, notes left out.
    pub checks: BTreeMap<Check, Finding>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `SUCCESS`, `FAILURE`, `WARNING` or `SKIPPED`.
    pub status: String,
    /// What was wrong.
    pub message: String,
}

impl Judgement {
    /// The checks that found what they looked for.
    pub fn passed(&self) -> usize {
        self.checks.values().filter(|found| found.status == "SUCCESS").count()
    }

    /// The checks that found something wrong, warnings with them.
    pub fn faults(&self) -> Vec<(&Check, &Finding)> {
        let is_fault = |found: &&Finding| matches!(found.status.as_str(), "FAILURE" | "WARNING");
        self.checks.iter().filter(|(_, found)| is_fault(found)).collect()
    }

    /// The scenarios with a fault.
    pub fn failing(&self) -> Vec<&str> {
        let mut scenarios: Vec<_> =
            self.faults().into_iter().map(|((scenario, ..), _)| scenario.as_str()).collect();
        scenarios.dedup();
        scenarios
    }

    /// It found nothing wrong and looked at everything.
    #[track_caller]
    pub fn assert_green(&self, what: &str) {
        let complete = self.passed() == self.suite.checks();
        assert!(self.faults().is_empty() && complete && self.exit == Some(0), "{what}\n{self}");
    }

    /// It found nothing wrong, of one scenario.
    #[track_caller]
    pub fn assert_none_fail(&self) {
        assert!(self.faults().is_empty() && self.passed() > 0 && self.exit == Some(0), "{self}");
    }

    /// The checks of which it found something else than the other, a line for each; empty where there are none. Checks of
    /// the ids in `unless_looked_at` count only where both looked.
    pub fn difference(&self, other: &Judgement, unless_looked_at: &[&str]) -> String {
        let missing = Finding { status: "not looked at".to_owned(), message: String::new() };
        let finding = |of: &Judgement, check| of.checks.get(check).unwrap_or(&missing).clone();
        let all: BTreeSet<_> = self.checks.keys().chain(other.checks.keys()).collect();
        let both_looked = |check: &Check| self.checks.contains_key(check) && other.checks.contains_key(check);
        let counts = |check: &&Check| both_looked(check) || !unless_looked_at.contains(&check.1.as_str());
        let differ =
            all.into_iter().filter(counts).map(|check| (check, finding(self, check), finding(other, check)));
        differ
            .filter(|(_, ours, theirs)| ours.status != theirs.status)
            .map(|((scenario, check, number), ours, theirs)| {
                let told = format!("{} for {}: {}", ours.status, theirs.status, ours.message);
                format!("{:?} {scenario} {check} {number}: {told}\n", self.suite)
            })
            .collect()
    }
}

/// What failed, a line for each check, grouped by scenario.
impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, expected) = (self.passed(), self.suite.checks());
        writeln!(f, "{:?}: exit {:?}, {passed} of {expected} checks passed", self.suite, self.exit)?;
        let mut shown = "";
        for ((scenario, check, _), found) in self.faults() {
            if shown != scenario {
                writeln!(f, "  {scenario}")?;
                shown = scenario;
            }
            writeln!(f, "    {} {check}: {}", found.status, found.message)?;
        }
        Ok(())
    }
}

/// Reads what a suite wrote: a directory for each scenario, `server-SCENARIO-TIME`, each with `checks.json`.
fn checks_in(results: &Path) -> BTreeMap<Check, Finding> {
    let mut checks = BTreeMap::new();
    for entry in fs::read_dir(results).expect("the results can be listed").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(entry.path().join("checks.json")) else { continue };
        let found: Vec<Value> = serde_json::from_str(&text).expect("a list of checks");
        let scenario = scenario_of(&name);
        for check in found.iter().filter(|check| check["status"] != "INFO") {
            let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            let number = (0..).find(|number| !checks.contains_key(&(scenario.clone(), text("id"), *number)));
            let key = (scenario.clone(), text("id"), number.expect("there is always another number"));
            checks.insert(key, Finding { status: text("status"), message: text("errorMessage") });
        }
    }
    checks
}

/// `server-tools-list-2026-11-20T15-46-03-162Z` is of `tools-list`.
fn scenario_of(directory: &str) -> String {
    const TIME: usize = "-2026-11-20T15-46-03-162Z".len();
    let end = directory.len().saturating_sub(TIME);
    directory[..end].trim_start_matches("server-").to_owned()
}

/// The server that passes all suites: `fixtures/conformance/server.mjs`, both eras at one URL.
#[derive(Debug)]
pub struct Fixture {
    process: Background,
    /// Its endpoint.
    pub url: String,
}

impl Fixture {
    /// Starts it.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts it without this tool, prompt or resource.
    pub fn start_without(name: &str) -> Self {
        Self::start_with(&["--without", name])
    }

    /// Starts it with these arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut command = Command::new(Npm::get().node());
        command.arg(fixture_file("conformance/server.mjs")).args(arguments);
        let process = Background::start("the conformance fixture", &mut command);
        let line = process.stdout.wait_for(&["\"url\""]);
        let said: Value = serde_json::from_str(&line).expect("it prints JSON");
        let url = said["url"].as_str().expect("it prints where it listens").to_owned();
        Fixture { process, url }
    }

    /// Ends it.
    pub fn stop(mut self) -> String {
        self.process.kill();
        self.url
    }
}
