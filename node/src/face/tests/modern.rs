//! 2026-07-28 over HTTP.

use serde_json::{Value, json};

use super::{
    Node,
    client::{Client, MODERN, with_meta},
    gateway::PROGRESS,
};
use crate::gateway::Era;

#[tokio::test]
async fn a_call_is_answered_as_plain_json_and_nothing_in_it_is_rewritten() {
    let node = Node::start().await;
    let body = r#"{"jsonrpc":"2.0","id":"a\u0062","method":"tools/call","params":{"name":"echo","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"x":1}},"z":1, "arguments":{"n":123456789012345678901234567890.10}}}"#;
    let client = node.client.with("mcp-protocol-version", MODERN).with("mcp-method", "tools/call");
    let answer = client.with("mcp-name", "echo").post(body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let params = body.split_once(r#""params":"#).unwrap().1.strip_suffix('}').unwrap();
    let expected =
        format!(r#"{{"jsonrpc":"2.0","id":"ab","result":{{"resultType":"complete", "echo": {params} }}}}"#);
    assert_eq!(answer.text().await, expected);
    let caller = node.gateway.next_caller().await;
    assert_eq!((&*caller.principal, caller.client.era), ("local", Era::Modern));
    assert_eq!(caller.client.capabilities.unwrap().get(), r#"{"x":1}"#);
}

#[tokio::test]
async fn discovery_and_lists_say_how_long_they_last() {
    let node = Node::start().await;
    let discovered = node.client.modern("server/discover", json!({})).await.json().await;
    let result = &discovered["result"];
    assert_eq!(result["resultType"], "complete");
    assert_eq!(result["supportedVersions"][0], MODERN);
    assert_eq!(result["capabilities"]["tools"]["listChanged"], true);
    assert!(result["capabilities"]["resources"].is_null() && result["capabilities"]["prompts"].is_null());
    assert!(result["ttlMs"].is_u64() && result["cacheScope"].is_string());
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "comity");
    let listed = node.client.modern("tools/list", json!({})).await.text().await;
    assert!(listed.contains(r#""x-vendor":1e999"#) && listed.contains(r#""ttlMs":"#), "{listed}");
}

struct Refused {
    why: &'static str,
    change: fn(Client, &mut Value) -> Client,
    status: u16,
    code: i64,
}

#[tokio::test]
async fn what_2026_07_28_demands_is_checked() {
    let node = Node::start().await;
    let cases = [
        Refused {
            why: "unknown method",
            change: |c, b| rename(c, b, "resources/nonsense"),
            status: 404,
            code: -32601,
        },
        Refused { why: "legacy method", change: |c, b| rename(c, b, "ping"), status: 404, code: -32601 },
        Refused {
            why: "no header",
            change: |c, _| c.without("mcp-protocol-version"),
            status: 400,
            code: -32020,
        },
        Refused {
            why: "other version in header",
            change: |c, _| c.with("mcp-protocol-version", "2025-11-25"),
            status: 400,
            code: -32020,
        },
        Refused {
            why: "no method header",
            change: |c, _| c.without("mcp-method"),
            status: 400,
            code: -32020,
        },
        Refused {
            why: "wrong method",
            change: |c, _| c.with("mcp-method", "tools/list"),
            status: 400,
            code: -32020,
        },
        Refused { why: "no name header", change: |c, _| c.without("mcp-name"), status: 400, code: -32020 },
        Refused { why: "wrong name", change: |c, _| c.with("mcp-name", "Echo"), status: 400, code: -32020 },
        Refused {
            why: "unknown version",
            change: |c, b| {
                b["params"] = with_meta(b["params"].take(), "1900-01-01");
                c.with("mcp-protocol-version", "1900-01-01")
            },
            status: 400,
            code: -32022,
        },
        Refused {
            why: "no capabilities",
            change: |c, b| {
                b["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = Value::Null;
                c
            },
            status: 400,
            code: -32602,
        },
        Refused {
            why: "no metadata at all",
            change: |c, b| {
                b["params"]["_meta"] = json!({});
                c
            },
            status: 400,
            code: -32602,
        },
        Refused {
            why: "no name",
            change: |c, b| {
                b["params"]["name"] = json!(7);
                c
            },
            status: 200,
            code: -32602,
        },
        Refused {
            why: "parameter without its header",
            change: |c, b| {
                b["params"]["name"] = json!("routed");
                b["params"]["arguments"] = json!({ "region": "eu" });
                c.with("mcp-name", "routed")
            },
            status: 400,
            code: -32020,
        },
    ];
    for case in cases {
        let mut body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call",
            "params": with_meta(json!({ "name": "echo" }), MODERN) });
        let client = node.client.with("mcp-protocol-version", MODERN).with("mcp-method", "tools/call");
        let client = (case.change)(client.with("mcp-name", "echo"), &mut body);
        let answer = client.post(body.to_string()).await;
        let status = answer.status;
        let answer = answer.json().await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (case.status, &json!(case.code)),
            "{}: {answer}",
            case.why
        );
        assert_eq!(answer["id"], 5, "{}", case.why);
    }
    let answer = node.client.with("mcp-param-region", "eu");
    let answer =
        answer.modern("tools/call", json!({ "name": "routed", "arguments": { "region": "eu" } })).await;
    assert_eq!(answer.status, 200);
}

fn rename(client: Client, body: &mut Value, method: &str) -> Client {
    body["method"] = json!(method);
    client.with("mcp-method", method)
}

#[tokio::test]
async fn an_unknown_version_is_told_the_known_ones() {
    let node = Node::start().await;
    let client = node.client.with("mcp-protocol-version", "2099-01-01").with("mcp-method", "server/discover");
    let answer =
        client.request(json!(1), "server/discover", with_meta(json!({}), "2099-01-01")).await.json().await;
    let data = &answer["error"]["data"];
    assert_eq!(
        (&data["requested"], &data["supported"][0], &data["supported"][1]),
        (&json!("2099-01-01"), &json!(MODERN), &json!("2025-11-25"))
    );
    let answer = node.client.modern("server/discover", json!({})).await;
    assert_eq!(answer.status, 200);
    let bare = node.client.request(json!(1), "server/discover", json!({})).await;
    assert_eq!((bare.status, bare.json().await["error"]["code"].clone()), (400, json!(-32602)));
}

#[tokio::test]
async fn progress_makes_a_stream_and_carries_the_clients_token() {
    let node = Node::start().await;
    for token in [json!("text"), json!(7), json!(0)] {
        let params = json!({ "name": "progress", "_meta": { "progressToken": token } });
        let answer = node.client.modern("tools/call", params).await;
        assert!(answer.is_stream());
        assert_eq!(answer.header("x-accel-buffering"), "no");
        let messages = answer.messages().await;
        assert_eq!(messages.len(), PROGRESS + 1);
        for (n, message) in messages[..PROGRESS].iter().enumerate() {
            assert_eq!(message["params"], json!({ "progressToken": token, "progress": n }));
        }
        assert_eq!(messages[PROGRESS]["result"]["resultType"], "complete");
    }
    let silent = node.client.modern("tools/call", json!({ "name": "progress" })).await;
    assert!(!silent.is_stream(), "progress that nobody asked for is not sent");
    let wrong = json!({ "name": "progress", "_meta": { "progressToken": {} } });
    assert_eq!(node.client.modern("tools/call", wrong).await.json().await["error"]["code"], -32602);
}

#[tokio::test]
async fn logs_come_only_at_the_level_that_the_request_names() {
    let node = Node::start().await;
    let silent = node.client.modern("tools/call", json!({ "name": "log" })).await;
    assert!(!silent.is_stream());
    let meta = json!({ "io.modelcontextprotocol/logLevel": "warning" });
    let messages =
        node.client.modern("tools/call", json!({ "name": "log", "_meta": meta })).await.messages().await;
    let levels: Vec<_> = messages.iter().filter_map(|message| message["params"]["level"].as_str()).collect();
    assert_eq!(levels, ["warning", "error"]);
}

#[tokio::test]
async fn closing_the_connection_cancels() {
    let node = Node::start().await;
    let params = json!({ "name": "chat_then_hang", "_meta": { "progressToken": 1 } });
    let mut streaming = node.client.modern("tools/call", params).await;
    assert_eq!(streaming.message().await.unwrap()["params"]["progress"], 1);
    drop(streaming);
    assert_eq!(node.gateway.next_end().await, "dropped");
    let client = node.client.clone();
    let waiting =
        tokio::spawn(async move { client.modern("tools/call", json!({ "name": "hang" })).await.status });
    node.gateway.next_caller().await;
    node.gateway.next_caller().await;
    waiting.abort();
    assert_eq!(node.gateway.next_end().await, "dropped");
}

#[tokio::test]
async fn failures_have_their_codes_and_statuses() {
    let node = Node::start().await;
    let denied = node.client.modern("tools/call", json!({ "name": "deny" })).await.json().await;
    assert_eq!(denied["error"]["code"], -32001);
    assert_eq!(denied["error"]["data"]["reasons"][1]["code"], "trust");
    let missing = node.client.modern("tools/call", json!({ "name": "unknown_upstream_method" })).await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json().await["error"]["message"], "no such thing upstream");
    let vanished = node.client.modern("tools/call", json!({ "name": "vanish" })).await.json().await;
    assert_eq!(vanished["error"]["code"], -32603);
}

#[tokio::test]
async fn subscriptions_hear_of_changes() {
    let node = Node::start().await;
    let filter = json!({ "notifications": { "toolsListChanged": true, "promptsListChanged": true } });
    let mut stream = node.client.modern("subscriptions/listen", filter).await;
    assert!(stream.is_stream());
    let opened = stream.message().await.unwrap();
    assert_eq!(opened["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(opened["params"]["notifications"], json!({ "toolsListChanged": true }));
    for names in [&["a"][..], &["a", "b"]] {
        node.gateway.set_tools(names);
        let changed = stream.message().await.unwrap();
        assert_eq!(changed["method"], "notifications/tools/list_changed");
        assert_eq!(changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);
    }
    node.shutdown.cancel();
    let last = stream.message().await.unwrap();
    assert_eq!(last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);
    assert!(stream.message().await.is_none());
}

#[tokio::test]
async fn stray_messages_are_taken_and_get_is_gone() {
    let node = Node::start().await;
    let client = node.client.with("mcp-protocol-version", MODERN);
    assert_eq!(client.notify("notifications/cancelled", json!({ "requestId": 1 })).await.status, 202);
    let get = client.get().await;
    assert_eq!((get.status, get.header("allow")), (405, "POST, GET, DELETE"));
}
