//! Sessions and supervisors against servers that behave, misbehave and die.

mod children;
mod http;
mod pipes;

use std::collections::BTreeMap;
use std::time::Duration;

use comity_protocol::ids::{NodeId, ServerName};
use comity_protocol::json;
use serde_json::Value;

use super::config::UpstreamConfig;
use super::meta::VerifiedCaller;
use super::set::{CallOptions, UpstreamSet};
use super::view::{UpstreamState, UpstreamView};
use crate::exchange::{Exchange, Failure, Incoming, Outcome};
use comity_protocol::jsonrpc::Message;

/// Longer than anything here takes on a busy machine: reached only when a test fails.
const FOREVER: Duration = Duration::from_secs(60);

fn caller() -> VerifiedCaller {
    VerifiedCaller {
        org: "acme.example".parse().unwrap(),
        node: NodeId::from_bytes([7; 32]),
        principal: "local".into(),
    }
}

fn name(text: &str) -> ServerName {
    text.parse().unwrap()
}

fn set_of(configs: impl IntoIterator<Item = (&'static str, UpstreamConfig)>) -> UpstreamSet {
    let set = UpstreamSet::new();
    apply(&set, configs);
    set
}

fn apply(set: &UpstreamSet, configs: impl IntoIterator<Item = (&'static str, UpstreamConfig)>) {
    let configs: BTreeMap<_, _> = configs.into_iter().map(|(text, config)| (name(text), config)).collect();
    set.apply(&configs);
}

/// Waits until the upstream's view satisfies `wanted`.
async fn until(set: &UpstreamSet, server: &str, wanted: impl Fn(&UpstreamView) -> bool) -> UpstreamView {
    let mut changes = set.changes();
    let wait = async {
        loop {
            changes.mark_unchanged();
            if let Some(view) = set.snapshot().get(&name(server)).filter(|view| wanted(view)) {
                return view.clone();
            }
            changes.changed().await.unwrap();
        }
    };
    match tokio::time::timeout(FOREVER, wait).await {
        Ok(view) => view,
        Err(_) => panic!("{server} never got there: {:?}", set.snapshot().get(&name(server))),
    }
}

async fn ready(set: &UpstreamSet, server: &str) -> UpstreamView {
    until(set, server, |view| view.state == UpstreamState::Ready).await
}

/// Starts a tool call with the progress token "p".
fn call(set: &UpstreamSet, server: &str, tool: &str, arguments: Value) -> Exchange {
    let params = serde_json::json!({
        "name": tool, "arguments": arguments, "_meta": { "progressToken": "p" }
    });
    set.open(&name(server), "tools/call", &json::to_raw(&params), &caller(), &CallOptions::default())
}

/// Calls a tool and returns its result.
async fn called(set: &UpstreamSet, server: &str, tool: &str) -> Value {
    result(outcome(call(set, server, tool, Value::Null)).await)
}

async fn outcome(exchange: Exchange) -> Outcome {
    tokio::time::timeout(FOREVER, exchange.outcome()).await.expect("an outcome")
}

async fn message(exchange: &mut Exchange) -> Message {
    match tokio::time::timeout(FOREVER, exchange.next()).await.expect("a message") {
        Incoming::Message(message) => message,
        Incoming::Done(outcome) => panic!("ended early: {outcome:?}"),
    }
}

fn params(message: &Message) -> Value {
    serde_json::from_str(message.params().unwrap().get()).unwrap()
}

fn result(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Result(result) => serde_json::from_str(result.get()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn tool_names(view: &UpstreamView) -> Vec<String> {
    view.offerings.tools.iter().map(|tool| tool.name.to_string()).collect()
}
