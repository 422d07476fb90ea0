//! Order, concurrency, resumption and notifications on legacy streams.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::{Node, client::Client, gateway::PROGRESS, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_calls_lose_and_reorder_nothing() {
    let node = Node::start().await;
    let legacy = node.client.initialize("2025-11-25").await;
    let calls = (0..16).map(|n| {
        let (legacy, modern) = (legacy.clone(), node.client.clone());
        tokio::spawn(async move {
            let stream = if n % 2 == 0 {
                let params = json!({ "name": "progress", "_meta": { "progressToken": n } });
                legacy.request(json!(n), "tools/call", params).await
            } else {
                modern
                    .modern("tools/call", json!({ "name": "progress", "_meta": { "progressToken": n } }))
                    .await
            };
            (n, stream.messages().await)
        })
    });
    let calls: Vec<_> = calls.collect();
    for call in futures::future::join_all(calls).await {
        let (n, messages) = call.unwrap();
        let (last, progress) = messages.split_last().unwrap();
        let order: Vec<_> =
            progress.iter().map(|message| message["params"]["progress"].as_u64().unwrap()).collect();
        assert_eq!(order, (0..PROGRESS as u64).collect::<Vec<_>>());
        assert!(progress.iter().all(|message| message["params"]["progressToken"] == n));
        assert!(last["result"].is_object());
    }
    soon(async {
        // Streams end a moment after their last event has been read.
        while node.gauges.calls() + node.gauges.connections() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Starts a call that asks its client something, and waits for the question.
async fn asked(client: &Client, id: u64) -> (super::client::Answer, Value) {
    let mut stream = client.call(id, "ask", json!({ "call": id })).await;
    let question = stream.message().await.unwrap();
    assert_eq!(
        (&question["method"], &question["params"]["call"]),
        (&json!("elicitation/create"), &json!(id))
    );
    (stream, question["id"].clone())
}

#[tokio::test]
async fn answers_to_servers_do_not_cross() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    let (mut one, ask_one) = asked(&client, 1).await;
    let (mut two, ask_two) = asked(&client, 2).await;
    assert_ne!(ask_one, ask_two, "both servers asked under the same id");
    let stranger = node.client.initialize("2025-11-25").await;
    let answer = |client: &Client, id: &Value, key: &str, value: Value| {
        let mut body = json!({ "jsonrpc": "2.0", "id": id });
        body[key] = value;
        let client = client.clone();
        async move { client.post(body.to_string()).await.status }
    };
    assert_eq!(answer(&stranger, &ask_one, "result", json!("stranger")).await, 202);
    assert_eq!(answer(&client, &json!("same"), "result", json!("guess")).await, 202);
    assert_eq!(answer(&client, &ask_two, "error", json!({ "code": -1, "message": "no" })).await, 202);
    assert_eq!(answer(&client, &ask_one, "result", json!({ "for": 1 })).await, 202);
    assert_eq!(one.message().await.unwrap()["result"]["answer"], json!({ "for": 1 }));
    assert_eq!(two.message().await.unwrap()["result"]["answer"]["message"], "no");
}

#[tokio::test]
async fn silence_ends_no_call() {
    let node = Node::with(|config| {
        let limits = &mut config.limits;
        for timer in [&mut limits.keep_alive, &mut limits.session_idle, &mut limits.json_hold] {
            *timer = Duration::from_millis(1);
        }
        limits.header_timeout = Duration::from_millis(200);
    })
    .await;
    let client = node.client.initialize("2025-11-25").await;
    let (mut stream, question) = asked(&client, 1).await;
    // Hundreds of times as long as any of these timers.
    for _ in 0..500 {
        stream.silence().await;
    }
    let body = json!({ "jsonrpc": "2.0", "id": question, "result": { "ok": 1 } });
    assert_eq!(client.post(body.to_string()).await.status, 202, "the session is still there");
    assert_eq!(stream.message().await.unwrap()["result"]["answer"]["ok"], 1);
    let mut modern = node.client.modern("tools/call", json!({ "name": "hang" })).await;
    for _ in 0..500 {
        modern.silence().await;
    }
    drop(modern);
    assert_eq!(node.gateway.next_end().await, "dropped");
}

#[tokio::test]
async fn a_broken_stream_is_resumed_where_it_broke() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    let (stream, question) = {
        let mut stream = client.call(9, "ask", json!({})).await;
        let priming = stream.event().await.unwrap();
        let event = stream.event().await.unwrap();
        let question: Value = serde_json::from_str(&event.data).unwrap();
        (stream, (priming.id.unwrap(), event.id.unwrap(), question["id"].clone()))
    };
    let (primed_at, asked_at, ask) = question;
    drop(stream);
    let mut replayed = client.with("last-event-id", &primed_at).get().await;
    assert_eq!(replayed.event().await.unwrap().id.as_deref(), Some(asked_at.as_str()));
    let mut resumed = client.with("last-event-id", &asked_at).get().await;
    assert!(replayed.event().await.is_none(), "the newer connection has taken the stream over");
    let body = json!({ "jsonrpc": "2.0", "id": ask, "result": { "ok": 1 } });
    assert_eq!(client.post(body.to_string()).await.status, 202);
    assert_eq!(resumed.message().await.unwrap()["result"]["answer"]["ok"], 1);
    assert!(resumed.event().await.is_none());
    for gone in [asked_at.as_str(), "77-1", "nonsense"] {
        let empty = client.with("last-event-id", gone).get().await;
        assert_eq!((empty.status, empty.is_stream()), (200, true));
        assert_eq!(empty.text().await, "", "{gone}");
    }
}

#[tokio::test]
async fn a_call_whose_client_never_returns_is_cancelled_at_last() {
    let node = Node::with(|config| config.limits.resume_grace = Duration::from_millis(1)).await;
    let client = node.client.initialize("2025-11-25").await;
    let mut stream = client.call(1, "chat_then_hang", json!({})).await;
    stream.message().await.unwrap();
    drop(stream);
    assert_eq!(node.gateway.next_end().await, "dropped");
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call(2, "hang", json!({})).await.status }
    });
    node.gateway.next_caller().await;
    node.gateway.next_caller().await;
    waiting.abort();
    assert_eq!(node.gateway.next_end().await, "dropped");
}

#[tokio::test]
async fn a_disconnected_call_goes_on_and_can_still_be_cancelled() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    let mut stream = client.call(1, "chat_then_hang", json!({})).await;
    stream.message().await.unwrap();
    drop(stream);
    client.notify("notifications/cancelled", json!({ "requestId": 1, "reason": "later" })).await;
    assert_eq!(node.gateway.next_end().await, "cancelled: later");
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_calls_and_streams() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    let mut call = client.call(1, "chat_then_hang", json!({})).await;
    call.message().await.unwrap();
    let mut listening = client.get().await;
    assert_eq!(client.send(Method::DELETE, "/mcp", "").await.status, 200);
    assert_eq!(node.gateway.next_end().await, "dropped");
    assert!(call.event().await.is_none() && listening.event().await.is_none());
}

#[tokio::test]
async fn listeners_hear_of_changes_even_those_that_came_while_they_were_away() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    let changed = |event: super::client::Event| {
        assert!(event.data.contains("notifications/tools/list_changed"), "{event:?}");
        event.id.unwrap()
    };
    node.gateway.set_tools(&["before_the_first_stream"]);
    let mut first = client.get().await;
    assert_eq!((first.status, first.is_stream()), (200, true));
    let told = changed(first.event().await.unwrap());
    node.gateway.set_tools(&["during"]);
    changed(first.event().await.unwrap());
    let mut resumed = client.with("last-event-id", &told).get().await;
    changed(resumed.event().await.unwrap());
    assert!(first.event().await.is_none(), "one listener at a time");
    drop(resumed);
    let mut again = client.get().await;
    changed(again.event().await.unwrap());
    let stranger = client.without("mcp-session-id").get().await;
    assert_eq!(stranger.status, 400);
    let deaf = client.with("accept", "application/json").get().await;
    assert_eq!(deaf.status, 406);
}
