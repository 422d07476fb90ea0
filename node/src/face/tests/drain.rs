//! Going down without breaking what is under way.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;

use super::{Node, soon};

#[tokio::test]
async fn calls_in_flight_finish_and_listeners_end() {
    let mut node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    let mut listening = client.get().await;
    let mut stream = client.call(1, "ask", json!({})).await;
    let question = stream.message().await.unwrap();
    // A second connection stays open, for the answer; new ones are refused from now on.
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": {} });
    assert_eq!(client.post(answer.to_string()).await.status, 202);
    node.shutdown.cancel();
    assert!(listening.event().await.is_none());
    assert!(stream.message().await.unwrap()["result"].is_object());
    soon(&mut node.running).await.unwrap();
    assert!(TcpStream::connect(node.client.address).await.is_err());
    assert!(!node.socket.exists());
}

#[tokio::test]
async fn what_does_not_end_is_ended() {
    let mut node = Node::with(|config| config.limits.drain_grace = Duration::from_millis(1)).await;
    let client = node.client.initialize("2025-11-25").await;
    let mut legacy = client.call(1, "chat_then_hang", json!({})).await;
    legacy.message().await.unwrap();
    let params = json!({ "name": "chat_then_hang", "_meta": { "progressToken": 1 } });
    let mut modern = node.client.modern("tools/call", params).await;
    modern.message().await.unwrap();
    node.shutdown.cancel();
    soon(&mut node.running).await.unwrap();
    assert_eq!(node.gateway.next_end().await, "dropped");
    assert_eq!(node.gateway.next_end().await, "dropped");
}

#[tokio::test]
async fn a_stream_that_nobody_can_resume_any_more_does_not_hold_the_node() {
    let mut node = Node::with(|config| config.limits.drain_grace = super::PATIENCE * 2).await;
    let client = node.client.initialize("2025-11-25").await;
    let mut stream = client.call(1, "ask", json!({})).await;
    let question = stream.message().await.unwrap();
    drop(stream);
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": {} });
    assert_eq!(client.post(answer.to_string()).await.status, 202);
    assert_eq!(node.gauges.calls(), 1, "the answer waits to be fetched");
    node.shutdown.cancel();
    soon(&mut node.running).await.unwrap();
    assert_eq!((node.gauges.calls(), node.gauges.connections()), (0, 0));
}

#[tokio::test]
async fn a_socket_left_behind_is_taken_over_and_one_in_use_is_not() {
    let node = Node::start().await;
    let bind = |socket: std::path::PathBuf| {
        let config =
            crate::face::FaceConfig { listen: None, unix_socket: Some(socket), ..Default::default() };
        crate::face::Face::bind(config, std::sync::Arc::clone(&node.gateway) as _)
    };
    assert!(bind(node.socket.clone()).await.is_err(), "another node serves it");
    let stale = node.socket.with_file_name("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let face = bind(stale.clone()).await.unwrap();
    drop(face);
    assert!(!stale.exists());
}
