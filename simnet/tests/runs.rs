//! Whole runs: that one seed gives one trace, and that many seeds of many scenarios keep every invariant.

use comity_simnet::library;
use comity_simnet::run::{Report, Source, run, run_recorded};

fn source(name: &str) -> Source {
    library::find(name).expect("a built-in scenario").source().expect("it has no mistakes")
}

fn once(source: &Source, seed: u64) -> Report {
    run(source, seed, "test", |_| ()).expect("it can be run")
}

/// Runs seeds and shows the line that replays the first that fails.
#[track_caller]
fn all_well(name: &str, seeds: impl IntoIterator<Item = u64>) -> Vec<Report> {
    let source = source(name);
    let run = |seed| {
        let report = once(&source, seed);
        let told: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
        assert!(report.is_ok(), "{}\nsimnet replay '{}'", told.join("\n"), report.replay);
        report
    };
    seeds.into_iter().map(run).collect()
}

#[test]
fn every_built_in_scenario_reads_and_names_itself() {
    for built_in in library::BUILT_IN {
        let source = built_in.source().unwrap_or_else(|mistakes| panic!("{}: {mistakes}", built_in.name));
        assert_eq!(source.scenario.name, built_in.name);
        assert!(!source.scenario.about.is_empty());
    }
}

/// What docs/simulation.md teaches works as it stands.
#[test]
fn the_scenarios_of_the_documentation_run_and_their_answers_are_true() {
    let text = include_str!("../../docs/simulation.md");
    let blocks: Vec<&str> =
        text.split("```toml\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    let [frankfurt, edge, ..] = blocks[..] else { panic!("two scenarios that stand alone") };
    for scenario in [frankfurt, edge] {
        let source = library::source("docs", scenario).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        for seed in 1..=4 {
            let report = once(&source, seed);
            assert!(report.is_ok(), "{seed}: {:?}", report.violations);
        }
    }
    for (from, to) in
        [("\"frankfurt\", \"paris\"", "\"frankfurt\""), ("every = \"500ms\"", "evry = \"500ms\"")]
    {
        assert!(frankfurt.contains(from), "{from}");
        let told = library::source("docs", &frankfurt.replace(from, to)).expect_err("a mistake").to_string();
        assert!(text.contains(&told), "the documentation does not say: {told}");
    }
}

#[test]
fn one_seed_gives_one_run_and_another_seed_another() {
    let source = source("mixed");
    let first = once(&source, 7);
    assert_eq!(first, once(&source, 7));
    assert_ne!(first.trace_hash, once(&source, 8).trace_hash);
}

#[test]
fn mixed_seeds_keep_every_invariant() {
    let reports = all_well("mixed", 1..=16);
    let sizes: std::collections::BTreeSet<usize> =
        reports.iter().map(|report| report.figures.nodes).collect();
    assert!(sizes.len() > 8 && sizes.iter().all(|size| (5..=60).contains(size)), "{sizes:?}");
    let figures = reports.iter().map(|report| &report.figures);
    let answered: u64 = figures.clone().filter_map(|figures| figures.calls.get("answered")).sum();
    let refused: u64 = figures.map(|figures| figures.adverts_refused).sum();
    assert!(
        answered > 1000 && refused > 100,
        "the runs exercise what they are meant to: {answered} {refused}"
    );
}

#[test]
fn more_mixed_seeds_keep_every_invariant() {
    all_well("mixed", 17..=30);
}

#[test]
fn hostile_nodes_are_believed_nothing() {
    let reports = all_well("hostile", 1..=4);
    assert!(reports.iter().all(|report| report.figures.adverts_refused > 50));
}

#[test]
fn expectations_of_the_worked_scenarios_are_met() {
    for name in ["calm", "residency", "edge", "split", "lossy"] {
        all_well(name, 1..=2);
    }
}

#[test]
fn clocks_disks_and_narrow_trust_keep_every_invariant() {
    for name in ["clocks", "disks", "narrow-trust"] {
        all_well(name, 1..=2);
    }
}

#[test]
fn what_is_noted_of_a_run_does_not_change_it() {
    let source = source("mixed");
    let plain = once(&source, 3);
    let (recorded, chronicle) = run_recorded(&source, 3, "test", |_| ()).expect("it can be run");
    assert_eq!(plain, recorded);
    assert_eq!(chronicle.actors.len(), plain.figures.nodes);
    let ended = chronicle.calls().filter(|call| call.outcome.is_some()).count() as u64;
    assert_eq!(ended, plain.figures.calls.values().sum::<u64>());
    let kinds: std::collections::BTreeSet<_> = chronicle.faults.iter().map(|fault| fault.kind).collect();
    assert!(kinds.len() > 2, "{kinds:?}");
    let ended = chronicle.faults.iter().filter(|fault| fault.end.is_some()).count();
    assert_eq!(ended, chronicle.faults.len(), "every fault of this scenario ends");
    assert!(chronicle.messages.kept().count() > 1000 && chronicle.omitted().messages > 0);
}
