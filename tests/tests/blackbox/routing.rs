//! Who runs a call: constraints, denials that name every candidate's reason, failover, and never twice.

use std::thread;

use comity_tests::command::exit;
use comity_tests::config::Settings;
use comity_tests::federation::{self, Org};
use comity_tests::mcp::Mcp;
use comity_tests::node::Node;
use comity_tests::servers::OwnServer;
use serde_json::{Value, json};

use crate::world::{Work, wait_for_providers};

/// JSON-RPC codes, as documented.
const DENIED: i64 = -32001;
const IN_DOUBT: i64 = -32003;
const UPSTREAM_DIED: i64 = -32007;

fn reasons(of: &Value) -> Vec<(&str, &str)> {
    let list = of.as_array().unwrap_or_else(|| panic!("no reasons: {of}"));
    let mut reasons: Vec<_> = list
        .iter()
        .map(|reason| {
            (reason["peer"].as_str().unwrap_or_default(), reason["code"].as_str().unwrap_or_default())
        })
        .collect();
    reasons.sort_unstable();
    reasons
}

/// The same rule, broken by each of these nodes.
fn each<'n>(nodes: &[&'n Node], code: &'n str) -> Vec<(&'n str, &'n str)> {
    let mut each: Vec<_> = nodes.iter().map(|node| (node.id.as_str(), code)).collect();
    each.sort_unstable();
    each
}

#[test]
fn a_call_runs_where_its_constraints_allow_or_is_denied_with_every_reason() {
    let work = Work::start();
    let [berlin, paris, newyork] = work.nodes();

    let cases: [(&[&str], [usize; 3]); 5] = [
        (&["--allow-loc", "DE"], [1, 0, 0]),
        (&["--allow-loc", "FR"], [0, 1, 0]),
        (&["--allow-loc", "US"], [0, 0, 1]),
        (&["--allow-org", "umbrella.example"], [0, 0, 1]),
        (&["--deny-operator", "US", "--deny-operator", "FR"], [1, 0, 0]),
    ];
    let mut ran = [0; 3];
    for (constraints, where_it_runs) in cases {
        let arguments =
            [&["call", "echo", "--args", r#"{"n":18446744073709551616}"#][..], constraints].concat();
        let answer = newyork.json(&arguments);
        assert!(answer.to_string().contains("18446744073709551616"), "carried as written: {answer}");
        ran.iter_mut().zip(where_it_runs).for_each(|(ran, here)| *ran += here);
        assert_eq!(work.runs("echo"), ran, "{constraints:?}");
    }

    let denied: [(&[&str], &str); 3] = [
        (&["--allow-loc", "JP"], "location_not_allowed"),
        (&["--min-trust", "T3"], "trust_too_low"),
        (&["--allow-org", "nobody.example"], "org_not_allowed"),
    ];
    for (constraints, code) in denied {
        let error = newyork.ask(&[&["call", "echo"][..], constraints].concat()).error(exit::DENIED);
        assert_eq!(reasons(&error["reasons"]), each(&[berlin, paris, newyork], code), "{error:#}");
        let shown = newyork.run(&[&["call", "echo"][..], constraints].concat());
        assert_eq!((shown.code, shown.stderr.matches(code).count()), (exit::DENIED, 3), "{}", shown.stderr);
    }
    assert_eq!(work.runs("echo"), ran, "what is denied runs nowhere");

    let route = newyork.route("echo", &["--allow-loc", "EU"]);
    let candidates: Vec<_> =
        route["candidates"].as_array().expect("candidates").iter().map(|node| node["name"].clone()).collect();
    assert!(
        candidates.len() == 2
            && candidates.contains(&json!("berlin"))
            && candidates.contains(&json!("paris")),
        "{route:#}"
    );
    assert_eq!(reasons(&route["rejected"]), each(&[newyork], "location_not_allowed"));
    assert_eq!(work.runs("echo"), ran, "an explanation calls nobody");

    a_client_states_constraints_in_meta(&work);
}

fn a_client_states_constraints_in_meta(work: &Work) {
    let [berlin, paris, newyork] = work.nodes();
    let before = work.runs("echo");
    for client in [Mcp::legacy(newyork.mcp_url()), Mcp::modern(newyork.mcp_url())] {
        let call = |constraints: Value| {
            let meta = json!({ "dev.comity/constraints": constraints });
            client.request("tools/call", json!({ "name": "echo", "arguments": { "a": 1 }, "_meta": meta }))
        };
        let result = call(json!({ "allow_locations": ["FR"] }));
        assert_eq!(result.text(), r#"{"a": 1}"#);
        let denied = call(json!({ "allow_locations": ["JP"] }));
        assert_eq!(denied.error()["code"], DENIED);
        assert_eq!(
            reasons(&denied.error()["data"]["reasons"]),
            each(&[berlin, paris, newyork], "location_not_allowed")
        );
        // A demand that is not understood is never dropped.
        let wrong = call(json!({ "alow_locations": ["FR"] }));
        assert_eq!(wrong.error()["code"], -32602, "{}", wrong.answer);
    }
    let after = work.runs("echo");
    assert_eq!([after[0], after[1] - before[1], after[2]], [before[0], 2, before[2]]);
}

/// A call that was on its way within an instant of its peer's last word may be in doubt, and nobody may send it again but
/// its caller. Here the caller knows that the peer is dead.
fn until_not_in_doubt(node: &Node, call: &[&str]) {
    loop {
        let answer = node.ask(call);
        if answer.code() == exit::DONE {
            return;
        }
        let error = answer.error(exit::FAILED);
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("in doubt"), "{error}");
    }
}

#[test]
fn a_peer_that_cannot_be_reached_is_replaced_by_the_next_lawful_one() {
    let mut work = Work::start();
    work.trio.berlin.kill();
    let newyork = &work.trio.newyork;
    for _ in 0..5 {
        until_not_in_doubt(newyork, &["call", "echo", "--allow-loc", "EU"]);
    }
    assert_eq!(work.runs("echo"), [0, 5, 0]);

    // The one that remains is not widened to when the law asks for the other.
    let error = newyork.ask(&["call", "echo", "--allow-loc", "DE"]);
    assert_eq!(error.code(), exit::UNREACHABLE, "{error:?}");
    assert_eq!(work.runs("echo"), [0, 5, 0]);

    work.trio.berlin.start();
    work.wait_until_whole();
    work.trio.berlin.wait_until_serving();
    work.trio.newyork.json(&["call", "echo", "--allow-loc", "DE"]);
    assert_eq!(work.runs("echo"), [1, 5, 0]);
}

#[test]
fn a_call_that_may_have_run_is_not_sent_again() {
    let mut work = Work::start();
    let url = work.trio.newyork.mcp_url().to_owned();
    let call = |tool: &'static str| {
        let url = url.clone();
        let meta = json!({ "dev.comity/constraints": { "allow_locations": ["EU"] } });
        thread::spawn(move || {
            Mcp::modern(&url)
                .request("tools/call", json!({ "name": tool, "arguments": {}, "_meta": meta }))
                .answer
        })
    };

    // The server dies while it runs the call.
    let answer = call("die").join().expect("an answer");
    assert_eq!(
        (&answer["error"]["code"], &answer["error"]["data"]["handedOver"]),
        (&json!(UPSTREAM_DIED), &json!(true)),
        "{answer}"
    );
    assert_eq!(work.runs("die").iter().sum::<usize>(), 1);

    // The node dies while its server runs the call.
    let waiting = call("wait");
    let runs_at = comity_tests::wait::until("the call runs", || {
        let runs = work.runs("wait");
        runs.iter().position(|count| *count > 0).ok_or(runs)
    });
    let executor =
        [&mut work.trio.berlin, &mut work.trio.paris].into_iter().nth(runs_at).expect("it runs in the EU");
    executor.kill();
    let answer = waiting.join().expect("an answer");
    assert_eq!(answer["error"]["code"], IN_DOUBT, "{answer}");
    assert_eq!(work.runs("wait").iter().sum::<usize>(), 1);
}

#[test]
fn locations_count_as_far_as_the_membership_allows_and_all_of_them_count() {
    let state = tempfile::TempDir::new().expect("a temporary directory");
    let server = |name: &str| OwnServer::new(&state.path().join(name));
    let front = Settings::new("front", &["GB"]);
    let (_, mut front) = Org::found("acme.example", &front);
    let mut liar = Settings::new("liar", &["FR"]);
    liar.servers.push(server("liar").server("work", &["echo"]));
    let mut liar = Org::admit_within(&front, &liar, &["DE"]);
    let mut both = Settings::new("both", &["DE", "US"]);
    both.servers.push(server("both").server("work", &["echo"]));
    let mut both = Org::admit(&front, &both);
    federation::start_around_first(&mut [&mut front, &mut liar, &mut both]);
    front.wait_for_peers(2);
    wait_for_providers(&front, "echo", 1);

    // An advert beyond its node's membership is no advert: even its own node does not publish it, and says why.
    liar.process().stderr.wait_for(&["location_outside_membership", "claims FR"]);
    let warnings = liar.status()["warnings"].to_string();
    assert!(warnings.contains("FR"), "its operator is told: {warnings}");
    front.ask(&["call", "echo", "--allow-loc", "FR"]).error(exit::DENIED);

    // A site that processes in two countries satisfies who allows both, and nobody who allows one.
    let error = front.ask(&["call", "echo", "--allow-loc", "DE"]).error(exit::DENIED);
    assert_eq!(reasons(&error["reasons"]), each(&[&both], "location_not_allowed"), "{error:#}");
    front.json(&["call", "echo", "--allow-loc", "DE", "--allow-loc", "US"]);
    assert_eq!((server("liar").calls().len(), server("both").calls().len()), (0, 1));
}

#[test]
fn what_the_operator_demands_holds_for_every_call() {
    let state = tempfile::TempDir::new().expect("a temporary directory");
    let own = OwnServer::new(state.path());
    let settings = Settings::new("newyork", &["US"])
        .server(own.server("work", &["echo"]))
        .section("[constraints]\nallow_locations = [\"EU\"]");
    let (_, mut node) = Org::found("acme.example", &settings);
    node.start();
    node.wait_for_tools(&["echo"]);
    // What the request allows on top loosens nothing.
    for constraints in [&[][..], &["--allow-loc", "US"]] {
        let error = node.ask(&[&["call", "echo"][..], constraints].concat()).error(exit::DENIED);
        assert_eq!(reasons(&error["reasons"]), each(&[&node], "location_not_allowed"), "{error:#}");
    }
    assert_eq!(own.calls(), Vec::<String>::new());
}
