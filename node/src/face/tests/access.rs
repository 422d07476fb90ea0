//! Who gets in: Host, Origin, bearer tokens, sessions of others.

use std::collections::BTreeSet;

use comity_protocol::constraints::{Constraints, TrustLevel};
use serde_json::json;

use super::Node;
use crate::face::{FaceConfig, TokenConfig, TokenSecret};

#[tokio::test]
async fn foreign_hosts_and_origins_are_turned_away() {
    let node = Node::with(|config| {
        config.allowed_hosts = vec!["node.example".into()];
        config.allowed_origins = vec!["https://app.example".into()];
    })
    .await;
    let status = |name: &'static str, value: &'static str| {
        let client = node.client.with(name, value);
        async move { client.modern("server/discover", json!({})).await.status }
    };
    for good in ["localhost", "localhost:1", "[::1]:7420", "node.example"] {
        assert_eq!(status("host", good).await, 200, "{good}");
    }
    assert_eq!(status("host", "evil.example").await, 403);
    for good in ["http://localhost:5173", "https://app.example"] {
        assert_eq!(status("origin", good).await, 200, "{good}");
    }
    for bad in ["https://evil.example", "null", "http://app.example"] {
        assert_eq!(status("origin", bad).await, 403, "{bad}");
    }
}

fn with_tokens(config: &mut FaceConfig) {
    let token = |name: &str, token: &str, min_trust| TokenConfig {
        name: name.into(),
        secret: TokenSecret::of_token(token),
        constraints: Constraints { min_trust, ..Constraints::default() },
    };
    config.tokens =
        vec![token("ana", "token-of-ana", TrustLevel::T1), token("ben", "token-of-ben", TrustLevel::T2)];
    config.constraints.deadline_ms = Some(1234);
}

#[tokio::test]
async fn tokens_are_asked_for_and_name_the_caller() {
    let node = Node::with(with_tokens).await;
    let discover = |authorization: &'static str| {
        let client = node.client.with("authorization", authorization);
        async move { client.modern("server/discover", json!({})).await }
    };
    for (authorization, challenge) in [
        ("", r#"Bearer realm="comity""#),
        ("Basic dG9rZW4=", r#"Bearer realm="comity""#),
        ("Bearer token-of-eve", r#"Bearer realm="comity", error="invalid_token""#),
    ] {
        let answer = discover(authorization).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, challenge));
    }
    assert_eq!(node.client.get().await.status, 401);
    let ben = node.client.with("authorization", "Bearer token-of-ben");
    let answer = ben.modern("tools/call", json!({ "name": "echo" })).await.text().await;
    assert!(!answer.contains("token-of-ben"), "a token goes nowhere");
    let caller = node.gateway.next_caller().await;
    assert_eq!(&*caller.principal, "ben");
    assert_eq!(caller.token_constraints.unwrap().min_trust, TrustLevel::T2);
    assert_eq!(caller.endpoint_constraints.deadline_ms, Some(1234));
}

#[tokio::test]
async fn a_session_is_of_no_use_to_another_token() {
    let node = Node::with(with_tokens).await;
    let ana = node.client.with("authorization", "Bearer token-of-ana").initialize("2025-11-25").await;
    assert_eq!(ana.request(json!(1), "ping", json!({})).await.status, 200);
    let ben = ana.with("authorization", "Bearer token-of-ben");
    assert_eq!(ben.request(json!(1), "ping", json!({})).await.status, 404);
    assert_eq!(ben.send(hyper::Method::DELETE, "/mcp", "").await.status, 404);
    assert_eq!(ana.request(json!(1), "ping", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_full_table_of_busy_sessions_is_said_so() {
    let node = Node::with(|config| config.limits.sessions_max = 1).await;
    let first = node.client.initialize("2025-11-25").await;
    let second = node.client.initialize("2025-11-25").await;
    assert_eq!(first.request(json!(1), "ping", json!({})).await.status, 404, "an idle session makes room");
    let _listening = second.get().await;
    let params = json!({ "protocolVersion": "2025-11-25" });
    let refused = node.client.request(json!(1), "initialize", params).await;
    assert_eq!((refused.status, refused.json().await["error"]["code"].clone()), (503, json!(-32005)));
}

#[tokio::test]
async fn too_many_calls_are_refused_and_the_rest_goes_on() {
    let node = Node::with(|config| config.limits.calls_max = 1).await;
    let client = node.client.initialize("2025-11-25").await;
    let mut first = client.call(1, "chat_then_hang", json!({})).await;
    first.message().await.unwrap();
    let refused = client.call(2, "echo", json!({})).await.json().await;
    assert_eq!(refused["error"]["code"], -32005);
    client.notify("notifications/cancelled", json!({ "requestId": 1 })).await;
    assert_eq!(first.message().await.unwrap()["error"]["code"], -32009);
    let mut codes = BTreeSet::new();
    // The bound is free again once the connection has taken the last event; that may be a moment later.
    while codes.last() != Some(&0) {
        codes.insert(
            client.call(3, "echo", json!({})).await.json().await["error"]["code"].as_i64().unwrap_or(0),
        );
    }
}
