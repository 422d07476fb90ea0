//! The client libraries of the protocol's makers, each in each mode that it has, over HTTP and over `comity stdio`, through
//! two nodes of two orgs.

use comity_tests::clients::{Client, ERAS, Library, Target, inspect, inspect_call, said};
use comity_tests::config::Server;
use comity_tests::conformance::Fixture;
use comity_tests::federation::Pair;
use comity_tests::mcp::Mcp;
use comity_tests::wait;
use serde_json::{Value, json};

/// The fixture behind the far node, spoken to in either era.
struct World {
    fixture: Fixture,
    pair: Pair,
}

impl World {
    fn start() -> Self {
        let fixture = Fixture::start();
        let pair = Pair::start(
            ["legacy", "modern"].map(|era| Server::http(era, &fixture.url).with(&format!("era = \"{era}\""))),
        );
        pair.near.wait_for_tools(&["legacy__greet", "modern__greet"]);
        World { fixture, pair }
    }

    /// The ways in to the near node.
    fn ways(&self) -> [Target; 2] {
        [self.pair.near.target(), self.pair.near.bridge()]
    }

    /// How many waiting calls the server saw cancelled.
    fn cancelled(&self) -> u64 {
        let counted = Mcp::modern(&self.fixture.url).call("probe_cancelled", json!({}));
        counted.text().parse().expect("a number")
    }
}

#[track_caller]
fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer}"))
}

#[test]
fn every_library_finds_through_two_nodes_what_the_server_offers() {
    let world = World::start();
    for (library, mode, revision) in Library::MODES {
        for way in world.ways() {
            let mut client = library.connect(&way, mode);
            assert_eq!(client.protocol, revision, "{library:?} in mode {mode}");
            for server in ["legacy", "modern"] {
                let tool = |name: &str| format!("{server}__{name}");
                tools_answer(&mut client, tool);
                progress_is_told(&mut client, &tool("probe_progress"));
                cancelling_reaches_the_server(&world, &mut client, &tool("probe_wait"));
                the_server_asks_back(&mut client, tool);
                prompts_and_resources_answer(&mut client, server);
            }
        }
    }
}

fn tools_answer(client: &mut Client, tool: impl Fn(&str) -> String) {
    let listed = client.tools();
    assert!(listed.iter().any(|listed| listed["name"] == tool("probe_echo")), "{listed:#?}");
    assert_eq!(text(&client.call(&tool("greet"), json!({ "name": "Ada" }))), "Hello, Ada!");
    let value = json!({ "grüße": [1, null, { "a": "\u{1F980}" }] });
    let echoed = client.call(&tool("probe_echo"), json!({ "value": value }));
    assert_eq!(echoed["result"]["structuredContent"]["value"], value, "{echoed}");
    let failed = client.call(&tool("test_error_handling"), json!({}));
    assert_eq!(failed["result"]["isError"], true, "{failed}");
    let content = client.call(&tool("test_multiple_content_types"), json!({}));
    let kinds = content["result"]["content"].as_array().expect("a list").iter().map(|part| &part["type"]);
    assert_eq!(kinds.collect::<Vec<_>>(), ["text", "image", "resource"], "{content}");
    let unknown = client.call(&tool("no_such_tool"), json!({}));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
}

/// The TypeScript libraries handle a notification later than an answer that they read at the same time, and then drop it:
/// over a pipe the answer must keep its distance.
fn progress_is_told(client: &mut Client, tool: &str) {
    const STEPS: u64 = 30;
    const SETTLE_MS: u64 = 200;
    let answer = client.call(tool, json!({ "steps": STEPS, "settle_ms": SETTLE_MS }));
    let told = answer["progress"].as_array().unwrap_or_else(|| panic!("no progress: {answer}"));
    let steps: Vec<_> =
        told.iter().filter_map(|step| step["progress"].as_f64()).map(|step| step as u64).collect();
    assert_eq!(steps, (1..=STEPS).collect::<Vec<_>>(), "{answer}");
}

fn cancelling_reaches_the_server(world: &World, client: &mut Client, tool: &str) {
    let before = world.cancelled();
    let answer = client.call_and_cancel(tool, json!({}), 1);
    assert_eq!(answer["cancelled"], true, "{answer}");
    wait::until_true("the server's call is cancelled", || {
        let cancelled = world.cancelled();
        (cancelled == before + 1, cancelled)
    });
}

fn prompts_and_resources_answer(client: &mut Client, server: &str) {
    let prompt = format!("{server}__test_prompt_with_arguments");
    assert!(client.list("prompts").iter().any(|listed| listed["name"] == prompt));
    let filled = client.prompt(&prompt, json!({ "arg1": "one", "arg2": "two" }));
    let said = filled["result"]["messages"][0]["content"]["text"].as_str();
    assert!(said.is_some_and(|text| text.contains("'one'") && text.contains("'two'")), "{filled}");
    let reference = json!({ "type": "ref/prompt", "name": prompt });
    let completed = client.complete(reference, "arg1", "par");
    assert_eq!(completed["result"]["completion"]["values"], json!(["paris", "park", "party"]), "{completed}");

    // Both servers have resources of these names, so each has them under its own.
    let uri = |uri: &str| format!("comity://umbrella.example/{server}/{uri}");
    assert!(client.list("resources").iter().any(|listed| listed["uri"] == uri("test://static-text")));
    assert!(!client.list("templates").is_empty());
    for (name, part) in [("test://static-text", "static text"), ("test://template/7/data", "\"id\":\"7\"")] {
        let read = client.read(&uri(name));
        let text = read["result"]["contents"][0]["text"].as_str();
        assert!(text.is_some_and(|text| text.contains(part)), "{name}: {read}");
    }
    assert!(client.read(&uri("test://nothing"))["error"]["code"].is_i64());
}

/// In the legacy era by a request of its own, in the modern by an answer that asks for more; each client is asked in the
/// way of its own era.
fn the_server_asks_back(client: &mut Client, tool: impl Fn(&str) -> String) {
    let answer = client.call(&tool("test_elicitation"), json!({ "message": "Who?" }));
    assert!(text(&answer).contains("my username"), "{answer}");
    let answer = client.call(&tool("test_sampling"), json!({ "prompt": "What?" }));
    assert!(text(&answer).contains("a sampled answer"), "{answer}");
}

#[test]
fn the_inspector_finds_through_two_nodes_what_the_server_offers() {
    let world = World::start();
    for era in ERAS {
        for way in world.ways() {
            let listed = inspect(&way, era, &["--method", "tools/list"]);
            assert!(listed.success().contains("modern__probe_echo"), "{listed:?}");
            for server in ["legacy", "modern"] {
                let echoed =
                    inspect_call(&way, era, &format!("{server}__probe_echo"), &json!({ "value": [1, "a"] }));
                assert_eq!(said(&echoed)["structuredContent"]["value"], json!([1, "a"]));
                let tool = format!("{server}__test_error_handling");
                let failed = inspect(&way, era, &["--method", "tools/call", "--tool-name", &tool]);
                assert!(failed.code != Some(0) && failed.stdout.contains("intentionally"), "{failed:?}");
            }
        }
    }
}
