//! Calls that are under way when something happens to the line, or to the node that runs them.

use std::time::Duration;

use comity_tests::cut::{Backend, Link};
use comity_tests::process::Background;
use comity_tests::wait;
use serde_json::{Value, json};

use crate::lab::{BERLIN, Ended, Lab, NEWYORK, PARIS, ended};

/// Progress notifications of one call.
const PROGRESS: u64 = 50;

/// Berlin's process is killed while its server runs a call of New York's.
pub(crate) fn a_node_killed_in_a_call_leaves_it_in_doubt_and_comes_back_as_itself(
    backend: Backend,
) -> String {
    let mut lab = Lab::start(backend, 7, Link::delayed(Duration::from_millis(20)));
    let identity = lab.node(BERLIN).status()["node"].clone();
    let waiting = {
        let mut command =
            lab.node(NEWYORK).command(&["--json", "call", "wait", "--allow-loc", "DE", "--deadline", "100"]);
        std::thread::spawn(move || comity_tests::process::run(&mut command))
    };
    lab.servers[BERLIN].wait_for_call("wait");
    lab.node_mut(BERLIN).kill();
    let finished = waiting.join().expect("it ends");
    assert_eq!(ended(&comity_tests::command::Answer { finished }), Ended::InDoubt);
    lab.calls_end_at(PARIS, 2, NEWYORK, "meanwhile", &["DE", "FR"]);

    // What waits there now would be run again if anybody sent it again.
    lab.servers[BERLIN].release();
    lab.start_at(BERLIN);
    lab.wait_until_whole();
    assert_eq!(lab.node(BERLIN).status()["node"], identity);
    let runs: Vec<_> = [BERLIN, PARIS, NEWYORK]
        .into_iter()
        .flat_map(|site| lab.servers[site].calls())
        .filter(|tool| tool == "wait")
        .collect();
    assert_eq!(runs.len(), 1, "it was run again");

    // Its sequence went on: what it says now is believed by those who remember what it said before.
    let late = lab.server("late");
    lab.node(BERLIN).edit_in_server(&late.server("late", &["noise"]));
    lab.node(NEWYORK).wait_for_tools(&["noise"]);
    assert_eq!(lab.call(NEWYORK, "again", &["DE"]), Ended::Done);
    assert_eq!(lab.ran("again"), [BERLIN]);
    lab.nothing_ran_twice();
    "in doubt, run once".to_owned()
}

/// 200 ms each way and one packet in ten lost: a call's progress comes whole and in order, and then its result.
pub(crate) fn progress_arrives_whole_and_in_order_over_a_bad_line(backend: Backend) -> String {
    let lab = Lab::start(backend, 8, Link::default());
    lab.network.all_links(Link::delayed(Duration::from_millis(200)).losing(10));
    let mut client = lab.stdio(NEWYORK);
    let mut read = 0;
    send(
        &mut client,
        &json!({ "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t3", "version": "1" } } }),
    );
    let hello = next(&mut client, &mut read);
    assert_eq!(hello["result"]["protocolVersion"], "2025-11-25", "{hello}");
    send(&mut client, &json!({ "method": "notifications/initialized" }));
    for round in 1..=3 {
        let meta = json!({ "progressToken": round, "dev.comity/constraints": { "allow_locations": ["DE"] } });
        let params = json!({ "name": "count", "arguments": { "total": PROGRESS }, "_meta": meta });
        send(&mut client, &json!({ "id": round, "method": "tools/call", "params": params }));
        for expected in 1..=PROGRESS {
            let message = next(&mut client, &mut read);
            let params = &message["params"];
            assert_eq!(
                (&params["progressToken"], &params["progress"]),
                (&json!(round), &json!(expected)),
                "{message}"
            );
        }
        let result = next(&mut client, &mut read);
        assert_eq!(result["id"], round, "{result}");
        assert_eq!(result["result"]["content"][0]["text"], format!("counted to {PROGRESS}"), "{result}");
    }
    let figures = lab.network.figures();
    let (carried, dropped) = (figures.carried(), figures.dropped());
    assert!(dropped > 0, "the network lost nothing");
    assert_eq!(lab.servers[BERLIN].calls().len(), 3);
    format!("{carried} packets carried, {dropped} lost")
}

fn send(client: &mut Background, message: &Value) {
    let mut message = message.clone();
    message["jsonrpc"] = json!("2.0");
    client.write_line(&message.to_string());
}

/// The next message, other than that the list of tools has changed, which is nobody's answer.
fn next(client: &mut Background, read: &mut usize) -> Value {
    wait::until("the next message", || {
        while let Some(line) = client.stdout.all().get(*read) {
            *read += 1;
            let message: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if message["method"] != "notifications/tools/list_changed" {
                return Ok(message);
            }
        }
        assert!(client.ended().is_none(), "the bridge ended");
        Err("nothing yet")
    })
}
