//! What operators rely on: drain, health, metrics, tokens, logs, and servers that come and go while the node runs.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use comity_tests::clients::{AUTO, Client, LEGACY, PythonClient};
use comity_tests::command::exit;
use comity_tests::config::{Server, Settings};
use comity_tests::federation::Org;
use comity_tests::fixtures::Npm;
use comity_tests::http;
use comity_tests::mcp::Mcp;
use comity_tests::node::Node;
use comity_tests::process::{Background, children_of, signal};
use comity_tests::servers::OwnServer;
use comity_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::Work;

/// A token of the length that is asked for.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn lone(tools: &[&str], settings: impl FnOnce(Settings) -> Settings) -> (Node, OwnServer, TempDir) {
    let state = TempDir::new().expect("a temporary directory");
    let own = OwnServer::new(state.path());
    let (_, mut node) = Org::found(
        "acme.example",
        &settings(Settings::new("berlin", &["DE"]).server(own.server("work", tools))),
    );
    node.start();
    node.wait_for_tools(tools);
    (node, own, state)
}

#[test]
fn a_call_in_flight_is_finished_before_the_node_stops() {
    let mut work = Work::start();
    // Each end of a call is stopped in its turn: the node that runs it, and the node where it entered.
    for stop_executor in [true, false] {
        let url = work.trio.newyork.mcp_url().to_owned();
        let meta = json!({ "dev.comity/constraints": { "allow_locations": ["DE"] } });
        let call = thread::spawn(move || {
            Mcp::modern(&url).request("tools/call", json!({ "name": "wait", "arguments": {}, "_meta": meta }))
        });
        work.servers[0].wait_for_call("wait");
        let node = if stop_executor { &mut work.trio.berlin } else { &mut work.trio.newyork };
        node.process().terminate();
        node.process().stderr.wait_for(&["stopping"]);
        assert_eq!(node.admin("/healthz/live").status, 200);
        assert_eq!(node.admin("/healthz/ready").status, 503);
        work.servers[0].release();
        assert_eq!(call.join().expect("an answer").text(), "released");
        let node = if stop_executor { &mut work.trio.berlin } else { &mut work.trio.newyork };
        assert_eq!(node.process().wait().code(), Some(0));
        if stop_executor {
            node.kill();
            work.servers[0].reset();
            work.trio.berlin.start();
            work.wait_until_whole();
            work.trio.berlin.wait_until_serving();
        }
    }
}

#[test]
fn health_and_metrics_tell_what_happened() {
    let work = Work::start();
    let [berlin, _, newyork] = work.nodes();
    for path in ["/healthz/live", "/healthz/ready"] {
        assert_eq!(newyork.admin(path).status, 200, "{path}");
    }
    for _ in 0..3 {
        newyork.json(&["call", "echo", "--allow-loc", "DE"]);
    }
    newyork.json(&["call", "echo", "--allow-loc", "US"]);
    assert_eq!(newyork.ask(&["call", "fail", "--allow-loc", "DE"]).code(), exit::FAILED);
    newyork.ask(&["call", "echo", "--allow-loc", "JP"]).error(exit::DENIED);

    let calls = |node: &Node, labels: &[&str]| node.metric("comity_calls_total", labels);
    assert_eq!(
        calls(newyork, &["work/echo", "hop=\"out\"", "outcome=\"ok\""]),
        3.0,
        "{}",
        newyork.admin("/metrics").text()
    );
    assert_eq!(calls(newyork, &["work/echo", "hop=\"local\"", "outcome=\"ok\""]), 1.0);
    assert_eq!(calls(newyork, &["outcome=\"denied\""]), 1.0);
    assert_eq!(calls(berlin, &["work/echo", "hop=\"in\"", "outcome=\"ok\""]), 3.0);
    assert_eq!(newyork.metric("comity_peers", &[]), 2.0);
    assert_eq!(newyork.metric("comity_directory_size", &[]), 3.0);
    assert!(newyork.metric("comity_gossip_bytes_total", &[]) > 0.0);
    assert!(newyork.admin("/metrics").text().contains("libp2p_"), "libp2p counts too");
}

#[test]
fn an_upstream_is_told_who_calls_and_nobody_can_pretend() {
    let work = Work::start();
    let [_, _, newyork] = work.nodes();
    let forged = json!({ "org": "acme.example", "node": "forged", "principal": "root" });
    let meta = json!({ "dev.comity/caller": forged, "dev.comity/constraints": { "allow_locations": ["DE"] }, "vendor.example/kept": { "z": 1, "a": 2 } });
    let reply = Mcp::modern(newyork.mcp_url())
        .request("tools/call", json!({ "name": "whoami", "arguments": {}, "_meta": meta }));
    let told: Value = serde_json::from_str(reply.text()).expect("JSON");
    assert_eq!(
        told["dev.comity/caller"],
        json!({ "org": "umbrella.example", "node": newyork.id, "principal": "local" })
    );
    assert_eq!(told["vendor.example/kept"], json!({ "z": 1, "a": 2 }));
    assert!(told["traceparent"].as_str().is_some_and(|trace| trace.len() == 55), "{told}");
}

#[test]
fn one_trace_and_one_call_id_run_through_both_logs() {
    let mut work = Work::start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let meta = json!({ "traceparent": format!("00-{trace}-00f067aa0ba902b7-01"), "dev.comity/constraints": { "allow_locations": ["DE"] } });
    Mcp::modern(work.trio.newyork.mcp_url())
        .request("tools/call", json!({ "name": "echo", "arguments": {}, "_meta": meta }))
        .result();
    let call_id = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a log line is JSON");
        let in_spans = line["spans"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|span| span["call_id"].as_str().map(str::to_owned));
        in_spans
            .or_else(|| line["call_id"].as_str().map(str::to_owned))
            .or_else(|| line["span"]["call_id"].as_str().map(str::to_owned))
    };
    let there = call_id(&work.trio.berlin.process().stderr.wait_for(&[trace, "call_id"]));
    let here = call_id(&work.trio.newyork.process().stderr.wait_for(&[trace, "call_id"]));
    assert!(here.is_some() && here == there, "{here:?} {there:?}");
}

#[test]
fn tokens_say_who_a_client_is_and_what_it_may_do() {
    let tokens = format!(
        "[[mcp.tokens]]\nname = \"alice\"\ntoken = \"{TOKEN}\"\n\n\
         [[mcp.tokens]]\nname = \"bob\"\ntoken = \"{TOKEN}-of-bob\"\nconstraints = {{ allow_locations = [\"JP\"] }}\n"
    );
    let (mut node, own, _state) = lone(&["echo", "whoami"], |settings| settings.section(&tokens));
    let client = Mcp::modern(node.mcp_url());
    let list = client.message("tools/list", json!({})).to_string();
    for client in [client.clone(), client.clone().with_token("0123456789abcdef0123456789abcdeF")] {
        let refused = client.post(&list);
        assert_eq!(refused.status, 401);
        assert!(
            refused.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Bearer")),
            "{refused:?}"
        );
    }
    let told = client.clone().with_token(TOKEN).call("whoami", json!({}));
    assert!(told.text().contains("\"principal\": \"alice\""), "{}", told.text());
    assert!(!told.text().contains(TOKEN), "a token is never passed on");
    for mode in [LEGACY, AUTO] {
        let mut python = PythonClient::connect_with(&node.target(), mode, Some(TOKEN));
        assert_eq!(python.call("echo", json!({ "a": 1 }))["result"]["content"][0]["text"], "{\"a\": 1}");
    }

    let ran = own.calls().len();
    let denied = client.with_token(&format!("{TOKEN}-of-bob")).call("echo", json!({}));
    assert_eq!(denied.error()["data"]["reasons"][0]["code"], "location_not_allowed", "{}", denied.answer);
    assert_eq!(own.calls().len(), ran);
    let log = node.process().stderr.all().join("\n");
    assert!(!log.contains(TOKEN), "a token is in the log");
}

#[test]
fn two_nodes_do_not_share_a_data_directory() {
    let (node, _own, _state) = lone(&["echo"], |settings| settings);
    let second = node.ask(&["up"]);
    assert_ne!(second.code(), exit::DONE, "{second:?}");
    assert!(
        second.finished.stderr.contains("already") || second.finished.stderr.contains("in use"),
        "{second:?}"
    );
    node.json(&["call", "echo"]);
}

#[test]
fn a_server_that_dies_is_started_again() {
    let (mut node, own, _state) = lone(&["echo"], |settings| settings);
    for _ in 0..2 {
        let servers = own_servers(node.pid());
        assert_eq!(servers.len(), 1, "{servers:?}");
        signal(servers[0], "KILL");
        wait::until("another runs", || {
            let now = own_servers(node.pid());
            if now.len() == 1 && now != servers { Ok(()) } else { Err(now) }
        });
        node.wait_until_serving();
        node.wait_for_tools(&["echo"]);
        node.json(&["call", "echo"]);
    }
    assert_eq!(own.calls().len(), 2);
    assert!(node.process().ended().is_none());
}

/// Its children that run our server; a watchdog is among the others.
fn own_servers(node: u32) -> Vec<u32> {
    let runs_it = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("server.py"))
    };
    children_of(node).into_iter().filter(runs_it).collect()
}

#[test]
fn servers_come_from_a_desktop_clients_file_and_follow_its_edits() {
    let (node, _own, state) = lone(&["echo"], |settings| settings);
    let file = state.path().join("claude_desktop_config.json");
    let write = |servers: Value| {
        let edited = file.with_extension("edited");
        fs::write(&edited, json!({ "mcpServers": servers }).to_string()).expect("a file can be written");
        fs::rename(&edited, &file).expect("a file can be replaced");
    };
    let entry = |tool: &str| {
        let command = OwnServer::new(&state.path().join(tool)).command(&[tool]);
        json!({ "command": command[0], "args": command[1..], "env": { "KEY": "value" } })
    };
    write(json!({ "desktop": entry("noise") }));
    node.edit_config(|text| format!("{text}\n[[servers_from]]\npath = {}\n", json!(file)));
    node.wait_for_tools(&["echo", "noise"]);
    node.json(&["call", "noise"]);
    write(json!({ "desktop": entry("fail") }));
    node.wait_for_tools(&["echo", "fail"]);
    // A file that is broken for a moment takes nothing away.
    fs::write(&file, "{ \"mcpServers\": {").expect("a file can be written");
    node.json(&["call", "echo"]);
    write(json!({}));
    wait::until("its tools are gone", || {
        let names = node.tool_names();
        if names == ["echo"] { Ok(()) } else { Err(names) }
    });
}

/// `server-everything` over streamable HTTP, restarted under the node: its sessions are gone, and no client notices.
#[test]
fn an_http_server_that_restarts_is_taken_up_again() {
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let start = || {
        let script = Npm::get().script("@modelcontextprotocol/server-everything/dist/index.js");
        let mut command = Command::new(Npm::get().node());
        let server = Background::start(
            "server-everything",
            command.arg(script).arg("streamableHttp").env("PORT", port.to_string()),
        );
        server.stderr.wait_for(&["listening"]);
        server
    };
    let mut server = start();
    let settings = Settings::new("berlin", &["DE"])
        .server(Server::http("everything", &format!("http://127.0.0.1:{port}/mcp")));
    let (_, mut node) = Org::found("acme.example", &settings);
    node.start();
    node.wait_for_tools(&["get-sum"]);
    let mut client = PythonClient::connect(&node.target(), LEGACY);
    let sum = |client: &mut Client| {
        client.call("get-sum", json!({ "a": 20, "b": 22 }))["result"]["content"][0]["text"].to_string()
    };
    assert!(sum(&mut client).contains("42"));
    server.kill();
    server = start();
    assert!(sum(&mut client).contains("42"), "the first call after the restart");
    drop(server);
}

#[test]
fn status_ends_with_what_to_do_next() {
    let mut node = Node::init(&Settings::new("berlin", &["DE"]));
    node.start();
    let next = node.status()["next"].as_str().expect("a next step").to_owned();
    assert!(next.contains("comity join") && next.contains("comity org create"), "{next}");
    let shown = node.run(&["status"]);
    assert!(shown.success().trim_end().ends_with(&next), "{}", shown.stdout);
    assert_eq!(http::get(&http::Url::parse(node.status()["admin_url"].as_str().expect("a URL"))).status, 404);
}
