//! The conformance suites: against our fixture directly, and against the fixture through two nodes of two orgs.
//!
//! The negative controls matter as much: a suite that passes whatever it is shown shows nothing.

use std::thread;

use comity_tests::config::Server;
use comity_tests::conformance::{Fixture, Judgement, Suite};
use comity_tests::federation::Pair;

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

/// A node that loses one notification, in builds that have such a fault; a lost message must not go unnoticed.
#[test]
fn a_suite_fails_where_a_node_loses_one_notification() {
    const SCENARIO: &str = "tools-call-with-progress";
    let fixture = Fixture::start();
    let mut pair = Pair::start([Server::http("fixture", &fixture.url)]);
    pair.near.wait_for_tools(&["test_tool_with_progress"]);
    let suites = [Suite::Legacy, Suite::Modern];
    for suite in suites {
        suite.run_scenario(pair.near.mcp_url(), SCENARIO).assert_none_fail();
    }
    pair.far.variable("COMITY_TEST_LOSE_PROGRESS", "2");
    for suite in suites {
        pair.far.stop();
        pair.far.start();
        pair.far.wait_until_serving();
        pair.near.wait_for_peers(1);
        let judgement = suite.run_scenario(pair.near.mcp_url(), SCENARIO);
        assert_eq!((judgement.failing(), judgement.exit), (vec![SCENARIO], Some(1)), "{judgement}");
    }
}
