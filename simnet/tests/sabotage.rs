//! That the judge finds what it is there to find: a rule that honest nodes break is caught, by the invariant that says so,
//! within a stated number of seeds; and that invariant holds in the same run where nobody breaks the rule.

use comity_simnet::judge::Invariant;
use comity_simnet::library;
use comity_simnet::run::{Source, run, run_sabotaged};
use comity_simnet::sabotage::Sabotage;

/// Calls that take seconds, by nodes that die while they run them.
const HANDED_OVER: &str = r#"
name = "handed-over"
[run]
faults_for = "60s"
heal_within = "60s"
quiet_for = "2s"
[[orgs]]
name = "acme.example"
[[sites]]
name = "here"
org = "acme.example"
nodes = 2
processing_locations = ["DE"]
[[sites]]
name = "there"
org = "acme.example"
nodes = 6
processing_locations = ["FR"]
seeds = ["here", "there"]
[[tools]]
name = "payroll/run"
sites = ["there"]
takes = "500ms..3s"
[[calls]]
name = "pay"
tool = "payroll/run"
from = ["here"]
every = "100ms"
deadline = "20s"
[[faults]]
kind = "churn"
sites = ["there"]
at = "8s"
every = "1s..3s"
down = "4s"
"#;

/// Adverts that end as they arrive.
const LAST_MOMENT: &str = r#"
name = "last-moment"
[run]
faults_for = "40s"
heal_within = "1s"
quiet_for = "1s"
[[orgs]]
name = "acme.example"
[[sites]]
name = "here"
org = "acme.example"
nodes = 12
processing_locations = ["DE"]
[[faults]]
kind = "byzantine"
nodes = 2
at = "8s"
acts = ["last_moment"]
"#;

fn source(name: &str) -> Source {
    match name {
        "handed-over" => library::source(name, HANDED_OVER).expect("it has no mistakes"),
        "last-moment" => library::source(name, LAST_MOMENT).expect("it has no mistakes"),
        name => library::find(name).expect("a built-in scenario").source().expect("it has no mistakes"),
    }
}

/// The first of `seeds` that is caught by one of `by`, with what caught it.
fn caught(name: &str, sabotage: Sabotage, seeds: u64) -> Option<(u64, Vec<Invariant>)> {
    let source = source(name);
    (1..=seeds).find_map(|seed| {
        let report = run_sabotaged(&source, seed, sabotage).expect("it can be run");
        let found = report.violations.iter().map(|violation| violation.invariant);
        let found: Vec<_> =
            found.filter(|found| name != "last-moment" || *found == Invariant::Ended).collect();
        (!found.is_empty()).then_some((seed, found))
    })
}

#[track_caller]
fn check(name: &str, sabotage: Sabotage, seeds: u64, by: &[Invariant]) {
    let (seed, found) = caught(name, sabotage, seeds)
        .unwrap_or_else(|| panic!("{sabotage:?} is not caught by {seeds} seeds of {name}"));
    println!("{sabotage:?}: seed {seed} of {name}: {found:?}");
    assert!(found.iter().any(|found| by.contains(found)), "{sabotage:?} is caught by chance: {found:?}");
    let honest = run(&source(name), seed, "test", |_| ()).expect("it can be run");
    let mut broken = honest.violations.iter().map(|violation| violation.invariant);
    assert!(
        broken.all(|broken| !by.contains(&broken)),
        "without it the seed is well: {:?}",
        honest.violations
    );
}

#[test]
fn who_is_never_dialled_again_is_missed() {
    check("split", Sabotage::NeverRedials, 3, &[Invariant::Converged, Invariant::Suspected]);
}

#[test]
fn digests_that_are_never_compared_leave_directories_apart() {
    check("split", Sabotage::NeverReconciles, 3, &[Invariant::Converged]);
}

#[test]
fn an_old_sequence_that_is_taken_is_seen() {
    check("hostile", Sabotage::TakesOldSequences, 20, &[Invariant::SequenceBack]);
}

#[test]
fn a_receiver_that_does_not_check_again_is_seen() {
    check("hostile", Sabotage::SkipsTheRecheck, 5, &[Invariant::LawfulRun]);
}

#[test]
fn an_advert_that_is_taken_in_its_last_moment_is_seen() {
    check("last-moment", Sabotage::TakesTheEnded, 10, &[Invariant::Ended]);
}

#[test]
fn a_call_that_is_sent_again_after_it_was_handed_over_is_seen() {
    check("handed-over", Sabotage::ResendsAfterHandOver, 10, &[Invariant::RunsOnce]);
}
