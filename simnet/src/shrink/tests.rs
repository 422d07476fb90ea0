use std::sync::Arc;

use super::*;
use crate::library::{self, BUILT_IN};
use crate::run::{Report, Source, run};

fn parsed(text: &str) -> Arc<Scenario> {
    Arc::new(Scenario::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}")))
}

fn run_of(scenario: &Arc<Scenario>, seed: u64) -> Report {
    let source = Source { place: "test".into(), hash: String::new(), scenario: scenario.clone() };
    run(&source, seed, "test", |_| ()).expect("it can be run")
}

/// What is written reads back as the same, whatever a seed has made of it.
#[test]
fn every_scenario_and_what_a_seed_makes_of_it_reads_back_as_it_was() {
    for built_in in BUILT_IN {
        let scenario = built_in.source().expect("no mistakes").scenario;
        assert_eq!(*parsed(&scenario.to_toml()), *scenario, "{}", built_in.name);
        for seed in 0..40 {
            let pinned = pin(&scenario, seed);
            let text = pinned.to_toml();
            assert_eq!(parsed(&text).to_toml(), text, "{} {seed}", built_in.name);
            assert_eq!(*parsed(&text), pinned, "{} {seed}", built_in.name);
        }
    }
}

/// Pinning changes the text and not the run, down to the hash of all that happens.
#[test]
fn a_pinned_scenario_runs_as_the_one_that_it_comes_from() {
    for (name, seed) in [("mixed", 3), ("disks", 1), ("edge", 2), ("clocks", 1)] {
        let scenario = library::find(name).expect("built in").source().expect("no mistakes").scenario;
        let pinned = parsed(&pin(&scenario, seed).to_toml());
        assert_ne!(*pinned, *scenario);
        assert_eq!(run_of(&pinned, seed).trace_hash, run_of(&scenario, seed).trace_hash, "{name} {seed}");
    }
}

/// Two sites that never meet, hidden among much that has nothing to do with it.
const HIDDEN: &str = r#"
name = "hidden"
[run]
faults_for = "30s"
heal_within = "10s"
quiet_for = "5s"
[[orgs]]
name = "a.example"
[[orgs]]
name = "b.example"
[[sites]]
name = "here"
org = "a.example"
nodes = "3..5"
processing_locations = ["DE"]
[[sites]]
name = "other"
org = "b.example"
nodes = "2..4"
processing_locations = ["FR"]
[[sites]]
name = "island"
org = "a.example"
nodes = 2
processing_locations = ["NO"]
seeds = ["island"]
[[tools]]
name = "crm/search"
sites = ["here", "other"]
takes = "5ms..90ms"
[[calls]]
name = "search"
tool = "crm/search"
every = "1s..2s"
[[faults]]
kind = "chaos"
sites = ["here", "other"]
every = "3s..5s"
"#;

#[test]
fn a_failure_is_made_smaller_and_stays_the_same_failure() {
    let scenario = parsed(HIDDEN);
    let report = run_of(&scenario, 1);
    let violation = report.violations.first().expect("the island is never found").clone();
    assert_eq!(violation.invariant, Invariant::Converged);
    let mut asked = 0;
    let shrunk = shrink(&scenario, 1, &violation, &mut |_| {
        asked += 1;
        true
    })
    .expect("it fails again");
    let small = parsed(&shrunk.text);
    assert!(small.nodes_max() <= 2 && small.faults.is_empty() && small.calls.is_empty(), "{}", shrunk.text);
    assert!(shrunk.complete && shrunk.attempts <= ATTEMPTS_MAX && asked > 0);
    let again = run_of(&small, shrunk.seed);
    assert!(again.violations.contains(&shrunk.violation), "{:?}", again.violations);
    assert!(Target::of(&violation).is_met_by(&shrunk.violation));
}

#[test]
fn a_search_ends_when_it_is_told_to_with_what_it_has() {
    let scenario = parsed(HIDDEN);
    let violation = run_of(&scenario, 1).violations.first().expect("one").clone();
    let whole = shrink(&scenario, 1, &violation, &mut |status| status.attempts < 6).expect("it fails again");
    assert!(!whole.complete && whole.attempts <= 6);
    assert!(shrink(&scenario, 1, &violation, &mut |_| false).is_none());
}

#[test]
fn an_expectation_stays_that_of_the_same_calls() {
    let violation = |detail: &str| Violation {
        invariant: Invariant::Expectation,
        at_ms: 1,
        node: None,
        detail: detail.to_owned(),
    };
    let target =
        Target::of(&violation("of 12 calls of `x` from 5s to 9s, 3 were answered as expected: 9 denied"));
    assert!(
        target
            .is_met_by(&violation("of 4 calls of `x` from 5s to 9s, 0 were answered as expected: 4 denied"))
    );
    assert!(!target.is_met_by(&violation("of 12 calls of `y` from 5s to 9s, 3 were answered as expected")));
    assert!(!target.is_met_by(&violation("no call of `x` was made from 5s to 9s")));
}
