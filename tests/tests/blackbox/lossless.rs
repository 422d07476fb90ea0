//! Real MCP servers two hops away, and the same servers at the end of a pipe: what they list and what they say must be the
//! same bytes, and what a client says must arrive as it was written.

use std::collections::BTreeMap;
use std::fs;

use comity_tests::config::Server;
use comity_tests::conformance::Fixture;
use comity_tests::federation::Pair;
use comity_tests::mcp::Mcp;
use comity_tests::raw::{self, Pipe, members, said};
use comity_tests::{servers, wait};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A server, the files that it works on, and calls in the order in which they are made.
struct Case {
    name: &'static str,
    command: Vec<String>,
    calls: Vec<(&'static str, Value)>,
}

impl Case {
    /// All servers, working in `dir`.
    fn all(dir: &TempDir) -> Vec<Case> {
        let repository = dir.path().join("repository");
        servers::repository(&repository);
        let files = dir.path().join("files");
        fs::create_dir_all(files.join("inner")).expect("a directory can be made");
        fs::write(files.join("grüße.txt"), "eins\nzwei\n").expect("a file can be written");
        let path = |path: &std::path::Path| path.to_str().expect("a path is text").to_owned();
        let entity =
            json!({ "name": "Ada", "entityType": "person", "observations": ["wrote \u{1F980} & <b>"] });
        vec![
            Case {
                name: "time",
                command: servers::time(),
                calls: vec![(
                    "convert_time",
                    json!({ "source_timezone": "Europe/Berlin", "time": "10:00", "target_timezone": "Asia/Tokyo" }),
                )],
            },
            Case {
                name: "git",
                command: servers::git(&repository),
                calls: vec![
                    ("git_log", json!({ "repo_path": path(&repository), "max_count": 2 })),
                    ("git_show", json!({ "repo_path": path(&repository), "revision": "HEAD" })),
                ],
            },
            // Its tool would read from the network.
            Case { name: "fetch", command: servers::fetch(), calls: vec![] },
            Case {
                name: "everything",
                command: servers::everything(),
                calls: vec![
                    ("echo", json!({ "message": "\u{e9}\u{1F980}\u{2028}\\/\"" })),
                    ("get-tiny-image", json!({})),
                    ("get-structured-content", json!({ "location": "Chicago" })),
                    ("get-annotated-message", json!({ "messageType": "error", "includeImage": true })),
                    ("get-resource-links", json!({ "count": 3 })),
                ],
            },
            Case {
                name: "filesystem",
                command: servers::filesystem(&files),
                calls: vec![
                    ("list_directory", json!({ "path": path(&files) })),
                    ("directory_tree", json!({ "path": path(&files) })),
                    ("read_text_file", json!({ "path": path(&files.join("grüße.txt")) })),
                    ("read_text_file", json!({ "path": "/etc/hostname" })),
                ],
            },
            Case {
                name: "memory",
                command: servers::memory(&dir.path().join("graph")),
                calls: vec![
                    ("create_entities", json!({ "entities": [entity] })),
                    ("search_nodes", json!({ "query": "wrote" })),
                    ("read_graph", json!({})),
                ],
            },
        ]
    }
}

/// The descriptors of a list of tools by name, each as it was written.
fn tools(result: &str) -> BTreeMap<String, String> {
    let tools: Vec<Box<RawValue>> = serde_json::from_str(members(result)["tools"].get()).expect("a list");
    let name = |tool: &RawValue| {
        let name = members(tool.get())["name"].get().to_owned();
        serde_json::from_str::<String>(&name).expect("a name is text")
    };
    tools.into_iter().map(|tool| (name(&tool), tool.get().to_owned())).collect()
}

#[test]
fn what_real_servers_say_arrives_as_they_said_it() {
    // The servers with state have one directory each way: both start from nothing.
    let [direct, behind] = [(); 2].map(|()| TempDir::new().expect("a temporary directory"));
    let cases = Case::all(&direct);
    // Some of them write the same differently in the modern era; the pipe speaks the legacy one.
    let server = |case: &Case| Server::command(case.name, &case.command).with("era = \"legacy\"");
    let pair = Pair::start(Case::all(&behind).iter().map(server));
    let path = |dir: &TempDir| dir.path().to_str().expect("a path is text").to_owned();
    let moved = |text: &str| text.replace(&path(&behind), &path(&direct));
    pair.near.wait_for_tools(&["convert_time", "git_log", "fetch", "echo", "list_directory", "read_graph"]);
    let clients = [Mcp::legacy(pair.near.mcp_url()), Mcp::modern(pair.near.mcp_url())];
    let listed = clients.each_ref().map(|client| tools(&raw::result(client, "tools/list", json!({}))));
    for case in &cases {
        let mut pipe = Pipe::start(&case.command);
        for (name, tool) in tools(&pipe.result("tools/list", json!({}))) {
            for listed in &listed {
                assert_eq!(listed.get(&name), Some(&tool), "{name} of {}", case.name);
            }
        }
        for (tool, arguments) in &case.calls {
            let expected = said(&pipe.result("tools/call", json!({ "name": tool, "arguments": arguments })));
            let arguments: Value =
                serde_json::from_str(&arguments.to_string().replace(&path(&direct), &path(&behind)))
                    .expect("still JSON");
            let heard =
                raw::result(&clients[0], "tools/call", json!({ "name": tool, "arguments": arguments }));
            assert_eq!(said(&moved(&heard)), expected, "{tool} of {}", case.name);
            // What changes nothing can be asked again.
            if *tool != "create_entities" {
                let heard =
                    raw::result(&clients[1], "tools/call", json!({ "name": tool, "arguments": arguments }));
                assert_eq!(said(&moved(&heard)), expected, "{tool} of {} in the modern era", case.name);
            }
        }
    }
}

/// What no library would write, in both directions.
#[test]
fn what_nobody_understands_is_carried_as_it_is() {
    let fixture = Fixture::start();
    let eras = ["legacy", "modern"];
    let pair = Pair::start(eras.map(|era| Server::http(era, &fixture.url).with(&format!("era = \"{era}\""))));
    let tool = |era: &str, tool: &str| format!("{era}__{tool}");
    pair.near.wait_for_tools(&eras.map(|era| tool(era, "probe_request")).each_ref().map(String::as_str));
    for client in [Mcp::legacy(pair.near.mcp_url()), Mcp::modern(pair.near.mcp_url())] {
        for era in eras {
            let direct = match era {
                "legacy" => Mcp::legacy(&fixture.url),
                _ => Mcp::modern(&fixture.url),
            };
            let odd =
                |client: &Mcp, name: &str| said(&raw::result(client, "tools/call", json!({ "name": name })));
            assert_eq!(
                odd(&client, &tool(era, "probe_odd_result")),
                odd(&direct, "probe_odd_result"),
                "{era}"
            );
            a_request_arrives_as_it_was_written(&client, &tool(era, "probe_request"));
        }
    }
}

fn a_request_arrives_as_it_was_written(client: &Mcp, tool: &str) {
    const ARGUMENTS: &str = r#"{"z":1.10,"a":123456789012345678901234567890,"deep":{"é":"\u00e9\ud83e\udd80","e":1e-400,"n":null}}"#;
    let mut message =
        client.message("tools/call", json!({ "name": tool, "arguments": "HERE", "x-vendor": [1.0] }));
    message["params"]["_meta"]["com.example/trace"] = json!(["z", "a"]);
    let body = message.to_string().replace("\"HERE\"", ARGUMENTS);
    let reply = client.post(&body);
    let text = reply.text();
    let line = text
        .lines()
        .map(|line| line.trim_start_matches("data:").trim())
        .rfind(|line| line.contains("result"));
    let answer: Value = serde_json::from_str(line.expect("an answer")).expect("JSON");
    let received =
        answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer}"));
    let params = members(members(received)["params"].get());
    assert_eq!(params["arguments"].get(), ARGUMENTS, "{received}");
    assert_eq!(params["x-vendor"].get(), "[1.0]", "{received}");
    assert_eq!(members(params["_meta"].get())["com.example/trace"].get(), r#"["z","a"]"#, "{received}");
}

/// Nothing lost, nothing out of order, and nothing of one call told to another.
#[test]
fn progress_of_many_calls_at_once_arrives_whole_and_in_order() {
    const STEPS: usize = 50;
    const CALLS: usize = 16;
    const ROUNDS: usize = 7;
    let fixture = Fixture::start();
    let pair = Pair::start([Server::http("fixture", &fixture.url)]);
    pair.near.wait_for_tools(&["probe_progress"]);
    for _ in 0..ROUNDS {
        let calls: Vec<_> = (0..CALLS)
            .map(|call| {
                let url = pair.near.mcp_url().to_owned();
                std::thread::spawn(move || {
                    let client = if call % 2 == 0 { Mcp::legacy(&url) } else { Mcp::modern(&url) };
                    let token = format!("token-{call}");
                    let params = json!({ "name": "probe_progress", "arguments": { "steps": STEPS }, "_meta": { "progressToken": token } });
                    (token, client.request("tools/call", params))
                })
            })
            .collect();
        for call in calls {
            let (token, reply) = call.join().expect("a call does not panic");
            assert_eq!(reply.text(), format!("{STEPS} steps"));
            let told: Vec<_> =
                reply.before.iter().filter(|message| message["method"] == "notifications/progress").collect();
            let steps: Vec<_> = told.iter().filter_map(|step| step["params"]["progress"].as_u64()).collect();
            assert_eq!(steps, (1..=STEPS as u64).collect::<Vec<_>>());
            assert!(told.iter().all(|step| step["params"]["progressToken"] == token), "{told:?}");
        }
    }
    wait::until_true("no call is left", || {
        let left = pair.near.metric("comity_calls_in_flight", &[]);
        (left == 0.0, left)
    });
}
