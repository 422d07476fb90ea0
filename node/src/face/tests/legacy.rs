//! The legacy era over HTTP.

use hyper::Method;
use serde_json::json;

use super::{Node, client::MODERN, gateway::PROGRESS};
use crate::gateway::Era;

#[tokio::test]
async fn initialize_opens_a_session_in_any_known_revision() {
    let node = Node::start().await;
    for (asked, agreed) in
        [("2025-11-25", "2025-11-25"), ("2024-11-05", "2024-11-05"), (MODERN, "2025-11-25")]
    {
        let params = json!({ "protocolVersion": asked, "capabilities": {}, "clientInfo": { "name": "t" } });
        let answer = node.client.request(json!("i"), "initialize", params).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        assert_eq!(answer.header("mcp-session-id").len(), 32);
        let answer = answer.json().await;
        assert_eq!((&answer["id"], &answer["result"]["protocolVersion"]), (&json!("i"), &json!(agreed)));
        assert_eq!(answer["result"]["serverInfo"]["name"], "comity");
        assert_eq!(
            answer["result"]["capabilities"],
            json!({ "logging": {}, "tools": { "listChanged": true } })
        );
    }
    let wrong = node.client.request(json!(1), "initialize", json!({})).await;
    assert_eq!((wrong.status, wrong.json().await["error"]["code"].clone()), (400, json!(-32602)));
}

#[tokio::test]
async fn requests_need_a_living_session() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-06-18").await;
    assert_eq!(client.request(json!(1), "ping", json!({})).await.json().await["result"], json!({}));
    assert_eq!(client.without("mcp-session-id").request(json!(1), "ping", json!({})).await.status, 400);
    assert_eq!(client.with("mcp-session-id", "guess").request(json!(1), "ping", json!({})).await.status, 404);
    assert_eq!(client.send(Method::DELETE, "/mcp", "").await.status, 200);
    assert_eq!(client.request(json!(1), "ping", json!({})).await.status, 404);
    assert_eq!(client.send(Method::DELETE, "/mcp", "").await.status, 404);
}

#[tokio::test]
async fn a_call_is_answered_as_plain_json_and_nothing_in_it_is_rewritten() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    let params = r#"{"name":"echo","arguments":{"big":123456789012345678901234567890,"z":1.0,"a":"\u00e9"}}"#;
    let answer =
        client.post(format!(r#"{{"jsonrpc":"2.0","id":-3,"method":"tools/call","params":{params}}}"#)).await;
    assert_eq!(
        answer.text().await,
        format!(r#"{{"jsonrpc":"2.0","id":-3,"result":{{ "echo": {params} }}}}"#)
    );
    let caller = node.gateway.next_caller().await;
    assert_eq!(caller.client.era, Era::Legacy);
    assert_eq!(caller.client.capabilities.unwrap().get(), r#"{"elicitation":{}}"#);
}

#[tokio::test]
async fn unknown_methods_are_named() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    for method in
        ["resources/nonsense", "tasks/get", "completion/nonsense", "server/nonsense", "subscriptions/listen"]
    {
        let answer = client.request(json!(1), method, json!({})).await;
        assert_eq!(answer.status, 200);
        let error = answer.json().await["error"].clone();
        assert_eq!(
            (&error["code"], &error["message"]),
            (&json!(-32601), &json!(format!("Method not found: {method}")))
        );
    }
    let again = client.request(json!(1), "logging/setLevel", json!({ "level": "loud" })).await.json().await;
    assert_eq!(again["error"]["code"], -32602);
}

#[tokio::test]
async fn headers_name_a_known_revision_or_none() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-03-26").await;
    let ping = |version: &'static str| {
        let client = client.with("mcp-protocol-version", version);
        async move { client.request(json!(1), "ping", json!({})).await }
    };
    for version in ["", "2025-06-18", "2025-11-25"] {
        assert_eq!(ping(version).await.status, 200, "{version}");
    }
    let unknown = ping("2025-01-01").await;
    assert_eq!((unknown.status, unknown.json().await["error"]["code"].clone()), (400, json!(-32022)));
    let modern = ping(MODERN).await;
    assert_eq!((modern.status, modern.json().await["error"]["code"].clone()), (400, json!(-32602)));
}

#[tokio::test]
async fn a_stream_is_primed_numbered_and_ends_with_the_answer() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    let mut stream = client.call(4, "progress", json!({})).await;
    assert!(stream.is_stream());
    let priming = stream.event().await.unwrap();
    assert_eq!((priming.id.as_deref(), priming.data.as_str()), (Some("1-0"), ""));
    for n in 0..PROGRESS {
        let event = stream.event().await.unwrap();
        assert_eq!(event.id, Some(format!("1-{}", n + 1)));
        assert!(event.data.contains(&format!(r#"{{"progressToken":7,"progress":{n}}}"#)), "{}", event.data);
    }
    assert_eq!(
        stream.message().await.unwrap(),
        json!({ "jsonrpc": "2.0", "id": 4, "result": { "content": [] } })
    );
    assert!(stream.event().await.is_none());
    let older = node.client.initialize("2025-06-18").await;
    let first = older.call(1, "progress", json!({})).await.event().await.unwrap();
    assert!(!first.data.is_empty(), "clients before 2025-11-25 do not expect an event without a message");
}

#[tokio::test]
async fn a_long_silence_makes_a_stream_too() {
    let node = Node::with(|config| {
        config.limits.json_hold = std::time::Duration::from_millis(1);
        config.limits.keep_alive = std::time::Duration::from_millis(1);
    })
    .await;
    let client = node.client.initialize("2025-06-18").await;
    let mut stream = client.call(1, "hang", json!({})).await;
    assert!(stream.is_stream());
    let cancelled =
        client.notify("notifications/cancelled", json!({ "requestId": 1, "reason": "bored" })).await;
    assert_eq!(cancelled.status, 202);
    assert_eq!(node.gateway.next_end().await, "cancelled: bored");
    let last = stream.message().await.unwrap();
    assert_eq!((&last["id"], &last["error"]["code"]), (&json!(1), &json!(-32009)));
    assert!(stream.message().await.is_none());
}

#[tokio::test]
async fn cancelling_ends_a_call_that_has_said_nothing() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    let other = node.client.initialize("2025-11-25").await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call("x", "hang", json!({})).await.json().await }
    });
    node.gateway.next_caller().await;
    for (who, id) in [(&other, json!("x")), (&client, json!("y")), (&client, json!({}))] {
        assert_eq!(who.notify("notifications/cancelled", json!({ "requestId": id })).await.status, 202);
    }
    let duplicate = client.call("x", "echo", json!({})).await.json().await;
    assert_eq!(
        duplicate["error"]["code"], -32600,
        "another session's or another id's cancellation must not count"
    );
    client.notify("notifications/cancelled", json!({ "requestId": "x" })).await;
    assert_eq!(node.gateway.next_end().await, "cancelled: ");
    assert_eq!(call.await.unwrap()["error"]["code"], -32009);
}

#[tokio::test]
async fn the_level_of_a_session_filters_its_logs() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    let levels = |messages: Vec<serde_json::Value>| -> Vec<String> {
        messages.iter().filter_map(|message| message["params"]["level"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(levels(client.call(1, "log", json!({})).await.messages().await).len(), 4);
    let set = client.request(json!(2), "logging/setLevel", json!({ "level": "error" })).await.json().await;
    assert_eq!(set["result"], json!({}));
    assert_eq!(levels(client.call(3, "log", json!({})).await.messages().await), ["error"]);
    let other = node.client.initialize("2025-11-25").await;
    assert_eq!(levels(other.call(3, "log", json!({})).await.messages().await).len(), 4);
}

#[tokio::test]
async fn line_breaks_in_an_answer_do_not_break_the_stream() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-06-18").await;
    let mut stream = client.call(1, "pretty", json!({})).await;
    assert_eq!(stream.message().await.unwrap()["params"]["progressToken"], 7);
    assert_eq!(stream.message().await.unwrap()["result"], json!({ "content": [] }));
}

#[tokio::test]
async fn tools_come_in_pages() {
    let node = Node::with(|config| config.limits.page_items_max = 2).await;
    node.gateway.set_tools(&["a", "b", "c"]);
    let client = node.client.initialize("2025-11-25").await;
    let list = |params: serde_json::Value| {
        let client = client.clone();
        async move {
            let text = client.request(json!(1), "tools/list", params).await.text().await;
            assert!(text.contains("1e999"), "a vendor's own members stay as they were");
            serde_json::from_str::<serde_json::Value>(&text.replace("1e999", "1")).unwrap()["result"].clone()
        }
    };
    let first = list(json!({})).await;
    assert_eq!((&first["tools"][0]["name"], &first["tools"][1]["name"]), (&json!("a"), &json!("b")));
    assert!(first["resultType"].is_null() && first["ttlMs"].is_null());
    let second = list(json!({ "cursor": first["nextCursor"] })).await;
    assert_eq!((&second["tools"][0]["name"], &second["nextCursor"]), (&json!("c"), &json!(null)));
}

#[tokio::test]
async fn a_trace_comes_from_the_header_or_from_the_message() {
    let node = Node::start().await;
    let outer = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let inner = "00-1af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let client = node.client.initialize("2025-11-25").await;
    client.call(1, "echo", json!({})).await;
    assert_eq!(node.gateway.next_caller().await.trace, None);
    let client = client.with("traceparent", outer).with("tracestate", "a=b");
    client.call(1, "echo", json!({})).await;
    let trace = node.gateway.next_caller().await.trace.unwrap();
    assert_eq!((trace.to_string().as_str(), trace.state()), (outer, Some("a=b")));
    client
        .request(json!(1), "tools/call", json!({ "name": "echo", "_meta": { "traceparent": inner } }))
        .await;
    assert_eq!(node.gateway.next_caller().await.trace.unwrap().to_string(), inner);
    client.with("traceparent", "nonsense").call(1, "echo", json!({})).await;
    assert_eq!(node.gateway.next_caller().await.trace, None);
}
