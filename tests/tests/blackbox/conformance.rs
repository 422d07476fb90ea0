//! The conformance suites: against our fixture directly, and against the fixture through two nodes of two orgs.
//!
//! The negative controls matter as much: a suite that passes whatever it is shown shows nothing.

use std::thread;

use comity_tests::conformance::{Fixture, Judgement, Suite};

/// Every suite against one endpoint, at the same time.
fn judge(url: &str) -> [Judgement; 3] {
    let running = Suite::ALL.map(|suite| {
        let url = url.to_owned();
        thread::spawn(move || suite.run(&url))
    });
    running.map(|suite| suite.join().expect("a suite ends"))
}

#[test]
fn the_fixture_passes_every_suite() {
    let fixture = Fixture::start();
    for judgement in judge(&fixture.url) {
        judgement.assert_green("directly");
    }
}

#[test]
fn suites_fail_where_something_is_missing() {
    let whole = Fixture::start();
    let cases = [
        (Suite::First, "test_tool_with_progress", "tools-call-with-progress"),
        (Suite::Legacy, "test_simple_prompt", "prompts-get-simple"),
        (Suite::Modern, "test://static-binary", "resources-read-binary"),
    ];
    for (suite, name, scenario) in cases {
        suite.run_scenario(&whole.url, scenario).assert_none_fail();
        let lacking = Fixture::start_without(name);
        let judgement = suite.run_scenario(&lacking.url, scenario);
        assert_eq!((judgement.failing(), judgement.exit), (vec![scenario], Some(1)), "{judgement}");
    }
    // Nobody there.
    let url = whole.stop();
    let judgement = Suite::First.run(&url);
    assert_eq!((judgement.passed(), judgement.exit), (0, Some(1)), "{judgement}");
}
