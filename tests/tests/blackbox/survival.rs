//! What must outlive a crash: the directory, sequence numbers, approvals and pins; and what must not: children.

use comity_tests::command::exit;
use comity_tests::config::Settings;
use comity_tests::federation::{self, Org, pin_without_approval};
use comity_tests::process::{children_of, is_alive};
use comity_tests::servers::OwnServer;
use comity_tests::wait;
use serde_json::Value;
use tempfile::TempDir;

use crate::world::{Work, wait_for_providers};

/// What a node knows, without what moves by itself.
fn knows(node: &comity_tests::node::Node) -> Value {
    let mut tools = node.json(&["tools"]);
    let mut trust = node.json(&["trust", "list"]);
    let mut peers: Vec<Value> = node.json(&["peers"]).as_array().expect("a list").clone();
    for peer in &mut peers {
        for volatile in ["connected", "rtt_ms", "address", "advert_expires_in_s", "offers"] {
            peer[volatile] = Value::Null;
        }
    }
    peers.sort_by_key(|peer| peer["node"].to_string());
    for list in [&mut tools, &mut trust] {
        list.as_array_mut().expect("a list").sort_by_key(Value::to_string);
    }
    serde_json::json!({ "tools": tools, "trust": trust, "peers": peers })
}

#[test]
fn directory_approvals_and_pins_survive_a_crash_of_everybody() {
    let state = TempDir::new().expect("a temporary directory");
    let own = OwnServer::new(state.path());
    let (acme, mut berlin) = Org::found(
        "acme.example",
        &Settings::new("berlin", &["DE"]).server(own.server("work", &["echo", "whoami"])),
    );
    let (umbrella, mut newyork) = Org::found("umbrella.example", &Settings::new("newyork", &["US"]));
    federation::pin(&berlin, &umbrella);
    pin_without_approval(&newyork, &acme);
    federation::start_around_first(&mut [&mut berlin, &mut newyork]);
    newyork.wait_for_status("two tools wait for approval", |status| status["tools_pending"] == 2);
    newyork.json(&["tools", "approve", "acme.example/work/echo"]);
    newyork.wait_for_tools(&["echo"]);
    let before = knows(&newyork);
    assert_eq!(before["peers"].as_array().map(Vec::len), Some(1), "{before:#}");

    berlin.kill();
    newyork.kill();
    newyork.start();
    // The other is not there to tell it anything.
    wait::until("it knows whom it knew and what it believed", || {
        let after = knows(&newyork);
        let same = |key: &str| after[key] == before[key];
        if same("peers") && same("trust") { Ok(()) } else { Err(after) }
    });

    // Its sequence went on where it was: what it says now is believed.
    berlin.edit_in_server(&OwnServer::new(&state.path().join("more")).server("more", &["fail"]));
    berlin.start();
    newyork.wait_for_status("the new tool is seen", |status| status["tools_pending"] == 2);
    newyork.json(&["call", "echo"]);
    assert_eq!(
        newyork.ask(&["call", "whoami"]).code(),
        exit::USAGE,
        "what was not approved is still not there"
    );
}

#[test]
fn a_node_that_is_killed_again_and_again_comes_back_and_is_believed() {
    let mut work = Work::start();
    work.trio.paris.keep_addresses();
    for round in 0..5 {
        // While it publishes a change, and while it starts.
        let server = OwnServer::new(&work.trio.paris.scratch().join(format!("s{round}")));
        let command = server.command(&["noise"]);
        let name = format!("extra{round}");
        let add = [
            &["servers", "add", &name, "--share", "federation", "--"][..],
            &command.iter().map(String::as_str).collect::<Vec<_>>(),
        ]
        .concat();
        work.trio.paris.json(&add);
        work.trio.paris.kill();
        work.trio.paris.spawn(&[]);
        work.trio.paris.kill();
        work.trio.paris.start();
    }
    for node in [&work.trio.berlin, &work.trio.newyork] {
        wait::until(&format!("{} knows every server that Paris was given", node.name), || {
            let tools = node.json(&["tools"]);
            let known = |round: i32| {
                tools.as_array().expect("a list").iter().any(|tool| tool["server"] == format!("extra{round}"))
            };
            if (0..5).all(known) { Ok(()) } else { Err(tools) }
        });
    }
    work.wait_until_whole();
    work.trio.newyork.json(&["call", "echo", "--allow-loc", "FR"]);
}

#[test]
fn no_child_outlives_its_node() {
    for crash in [true, false] {
        let state = TempDir::new().expect("a temporary directory");
        let own = OwnServer::new(state.path());
        // One that does not end when its input does.
        let stubborn = comity_tests::config::Server::command("stubborn", ["sleep", "100000"]);
        let settings =
            Settings::new("berlin", &["DE"]).server(own.server("work", &["echo"])).server(stubborn);
        let (_, mut node) = Org::found("acme.example", &settings);
        node.start();
        node.wait_for_tools(&["echo"]);
        let children = children_of(node.pid());
        assert!(children.len() >= 2, "{children:?}");
        if crash {
            node.kill()
        } else {
            assert_eq!(node.stop().code(), Some(0))
        }
        wait::until("its children are gone", || {
            let alive: Vec<_> = children.iter().copied().filter(|pid| is_alive(*pid)).collect();
            if alive.is_empty() { Ok(()) } else { Err(alive) }
        });
    }
}

#[test]
fn a_node_that_was_away_learns_what_it_missed() {
    let mut work = Work::start();
    assert_eq!(work.trio.newyork.stop().code(), Some(0));
    let late = OwnServer::new(&work.trio.paris.scratch().join("late"));
    work.trio.paris.edit_in_server(&late.server("late", &["noise"]));
    work.trio.berlin.wait_for_tools(&["noise"]);
    work.trio.newyork.start();
    work.trio.newyork.wait_for_tools(&["noise"]);
    wait_for_providers(&work.trio.newyork, "echo", 3);
    work.trio.newyork.json(&["call", "noise"]);
    assert_eq!(late.calls(), ["noise"]);
}
