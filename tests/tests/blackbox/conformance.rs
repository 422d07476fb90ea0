//! The conformance suites: against our fixture directly, and against the fixture through two nodes of two orgs.
//!
//! The negative controls matter as much: a suite that passes whatever it is shown shows nothing.

use std::thread;

use comity_tests::config::Server;
use comity_tests::conformance::{Fixture, Judgement, Suite};
use comity_tests::federation::Pair;

/// Every suite against its endpoint, at the same time.
fn judge(endpoint: impl Fn(Suite) -> String) -> [Judgement; 3] {
    let running = Suite::ALL.map(|suite| {
        let url = endpoint(suite);
        thread::spawn(move || suite.run(&url))
    });
    running.map(|suite| suite.join().expect("a suite ends"))
}

#[test]
fn the_fixture_passes_every_suite() {
    let fixture = Fixture::start();
    for judgement in judge(|_| fixture.url.clone()) {
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

/// Whether and how an answer is streamed is between a client and whom it speaks to. The fixture streams whatever the
/// client would rather have streamed; a node streams what takes long, and what the suite would say of a stream it then does
/// not say.
const OF_THE_STREAM: [&str; 4] = [
    "server-sse-streams-functional",
    "server-sse-priming-event",
    "server-sse-retry-field",
    "server-sse-disconnect-resume",
];

/// The suites against one server's own names at the near node, with the server behind the far one: what passes directly
/// passes through both, check by check. The server is spoken to in the era of the suite's client.
#[test]
fn what_passes_directly_passes_through_two_nodes() {
    let fixture = Fixture::start();
    let pair = Pair::start(both_eras(&fixture));
    pair.near.wait_for_tools(&["legacy__greet", "modern__greet"]);
    let direct = judge(|_| fixture.url.clone());
    let through = judge(|suite| pair.near.raw_url(if suite.is_modern() { "modern" } else { "legacy" }));
    let mut faults = String::new();
    for (through, direct) in through.iter().zip(&direct) {
        faults.push_str(&through.difference(direct, &OF_THE_STREAM));
        assert!(through.exit == Some(0) || !faults.is_empty(), "{through}");
    }
    assert!(faults.is_empty(), "{faults}");
    direct.iter().for_each(|judgement| judgement.assert_green("directly"));
}

/// The fixture as two servers, spoken to in one era each.
fn both_eras(fixture: &Fixture) -> [Server; 2] {
    ["legacy", "modern"].map(|era| Server::http(era, &fixture.url).with(&format!("era = \"{era}\"")))
}
