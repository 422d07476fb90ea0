//! The suites' scenarios for clients: here two nodes are the client, with a library's client in front of them.
//!
//! Of what the suite requires of a client, this is what an intermediary does: it opens sessions, repeats arguments in headers,
//! resumes streams, carries state and schemas. What is left out, and why:
//!
//! - `auth/*`: a node does not authorize itself towards servers by OAuth; its operator gives a header.
//! - `sep-2243-client-omit-null` of `http-custom-headers`: its call brings `null` for an argument whose schema says boolean, and a
//!   node refuses arguments that do not fit before they leave. That `null` makes no header is tested where headers are made.
//! - `elicitation-sep1034-client-defaults`: filling in a form's defaults is the end client's, and a node has no user.

use comity_tests::clients::{Client, LEGACY as LEGACY_MODE, Library};
use comity_tests::config::Server;
use comity_tests::conformance::judge_client;
use comity_tests::federation::Pair;
use comity_tests::mcp::{LEGACY, MODERN};
use comity_tests::wait;
use serde_json::{Value, json};

/// What the client at the near node does once the nodes have found the scenario's server.
type Act = fn(&mut Client, &Value);

/// Nothing: what the nodes did to get there is what is judged.
fn nothing(_: &mut Client, _: &Value) {}

fn add_numbers(client: &mut Client, _: &Value) {
    let answer = client.call("add_numbers", json!({ "a": 5, "b": 3 }));
    assert!(
        answer["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains('8')),
        "{answer}"
    );
}

fn call_what_is_listed(client: &mut Client, _: &Value) {
    for tool in client.tools() {
        client.call(tool["name"].as_str().expect("a name"), json!({ "region": "eu", "value": "v" }));
    }
}

fn call_as_told(client: &mut Client, context: &Value) {
    client.tools();
    for call in context["toolCalls"].as_array().unwrap_or_else(|| panic!("no calls: {context}")) {
        let answer = client.call(call["name"].as_str().expect("a name"), call["arguments"].clone());
        let has_null = call["arguments"].as_object().is_some_and(|given| given.values().any(Value::is_null));
        assert_eq!(answer["result"]["isError"] == true, has_null, "{answer}");
    }
}

fn answer_questions(client: &mut Client, _: &Value) {
    for tool in
        ["test_mrtr_echo_state", "test_mrtr_unrelated", "test_mrtr_no_state", "test_mrtr_no_result_type"]
    {
        client.call(tool, json!({}));
    }
}

fn reconnect(client: &mut Client, _: &Value) {
    client.call("test_reconnection", json!({}));
}

fn echo_schema(client: &mut Client, _: &Value) {
    let tools = client.tools();
    let focal = tools.iter().find(|tool| tool["name"] == "json_schema_2020_12_tool").expect("it is listed");
    client.call("json_schema_echo", json!({ "schema": focal["inputSchema"] }));
}

const SCENARIOS: [(&str, &str, Act); 12] = [
    (LEGACY, "initialize", nothing),
    (LEGACY, "tools_call", add_numbers),
    (LEGACY, "sse-retry", reconnect),
    (LEGACY, "json-schema-2020-12-preservation", echo_schema),
    (MODERN, "tools_call", add_numbers),
    (MODERN, "request-metadata", nothing),
    (MODERN, "sep-2322-client-request-state", answer_questions),
    (MODERN, "http-standard-headers", call_what_is_listed),
    (MODERN, "http-custom-headers", call_as_told),
    (MODERN, "http-invalid-tool-headers", call_what_is_listed),
    (MODERN, "json-schema-ref-no-deref", call_what_is_listed),
    (MODERN, "json-schema-2020-12-preservation", echo_schema),
];

/// See above.
const REFUSED: &str = "sep-2243-client-omit-null";

#[test]
fn two_nodes_are_a_conforming_client() {
    let mut pair = Pair::start([]);
    pair.far.stop();
    let mut wrong = Vec::new();
    for (revision, scenario, act) in SCENARIOS {
        let judgement = judge_client(revision, scenario, |url, context| {
            let (era, library, mode) = match revision {
                LEGACY => ("legacy", Library::TypeScript1, LEGACY_MODE),
                _ => ("modern", Library::TypeScript2, "auto"),
            };
            let server = Server::http("mock", url).with(&format!("era = \"{era}\""));
            pair.far.edit_in_server(&server);
            pair.far.start();
            pair.far.wait_until_serving_one();
            pair.near.wait_for_peers(1);
            let count = pair.far.tool_names().len();
            wait::until_true("the near node shows what the far one has", || {
                let seen = pair.near.tool_names();
                (seen.len() == count, seen)
            });
            act(&mut library.connect(&pair.near.target(), mode), context);
            // The scenario's server waits until nobody is connected to it.
            pair.far.stop();
            pair.far.edit_config(|text| text.replace(&server.to_toml(), ""));
        });
        eprintln!("{revision} {scenario}: {judgement}");
        let faults = judgement.faults().into_iter().filter(|((_, check, _), _)| check != REFUSED).count();
        if faults > 0 || judgement.passed() == 0 {
            wrong.push(format!("{revision} {scenario}: {judgement}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
