//! The newline binding, which `comity stdio` pipes to.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    Node,
    client::{MODERN, with_meta},
    gateway::PROGRESS,
    soon,
};

struct Line {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Line {
    async fn open(node: &Node) -> Self {
        let (read, write) = UnixStream::connect(&node.socket).await.unwrap().into_split();
        Self { lines: BufReader::new(read).lines(), write }
    }

    async fn initialized(node: &Node) -> Self {
        let mut line = Self::open(node).await;
        let capabilities = json!({ "elicitation": {} });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities });
        line.request(0, "initialize", params).await;
        assert_eq!(line.next().await.unwrap()["result"]["protocolVersion"], "2025-11-25");
        line.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        line
    }

    async fn send(&mut self, message: Value) {
        self.write.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn request(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        self.send(json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params })).await;
    }

    async fn call(&mut self, id: u64, tool: &str) {
        let params = json!({ "name": tool, "arguments": { "call": id }, "_meta": { "progressToken": id } });
        self.request(id, "tools/call", params).await;
    }

    async fn next(&mut self) -> Option<Value> {
        let line = soon(self.lines.next_line()).await.unwrap()?;
        Some(serde_json::from_str(&line).unwrap())
    }
}

#[tokio::test]
async fn a_legacy_session() {
    let node = Node::start().await;
    let mode = std::fs::metadata(&node.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut line = Line::initialized(&node).await;
    line.request("l", "tools/call", json!({ "name": "pretty" })).await;
    assert_eq!(
        line.next().await.unwrap(),
        json!({ "jsonrpc": "2.0", "id": "l", "result": { "content": [] } })
    );
    line.request(1, "initialize", json!({ "protocolVersion": "2025-11-25" })).await;
    assert_eq!(line.next().await.unwrap()["error"]["code"], -32600);
    node.gateway.set_tools(&["new"]);
    assert_eq!(line.next().await.unwrap()["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn both_eras_on_one_connection() {
    let node = Node::start().await;
    let mut line = Line::open(&node).await;
    line.request(1, "tools/list", json!({})).await;
    assert_eq!(line.next().await.unwrap()["error"]["code"], -32600);
    line.request(2, "ping", json!({})).await;
    assert_eq!(line.next().await.unwrap()["result"], json!({}));
    line.request(3, "server/discover", with_meta(json!({}), MODERN)).await;
    assert_eq!(line.next().await.unwrap()["result"]["supportedVersions"][0], MODERN);
    line.request(4, "tools/call", with_meta(json!({ "name": "echo" }), MODERN)).await;
    assert_eq!(line.next().await.unwrap()["result"]["resultType"], "complete");
    line.request(5, "server/discover", json!({})).await;
    assert_eq!(line.next().await.unwrap()["error"]["code"], -32602);
    line.request(6, "tools/list", with_meta(json!({}), "1900-01-01")).await;
    assert_eq!(line.next().await.unwrap()["error"]["code"], -32022);
    line.request(7, "initialize", json!({ "protocolVersion": "2024-11-05" })).await;
    assert_eq!(line.next().await.unwrap()["result"]["protocolVersion"], "2024-11-05");
}

#[tokio::test]
async fn messages_of_concurrent_calls_keep_their_order() {
    let node = Node::start().await;
    let mut line = Line::initialized(&node).await;
    for id in 1..=16 {
        line.call(id, "progress").await;
    }
    let mut heard = [0; 17];
    for _ in 0..16 * (PROGRESS + 1) {
        let message = line.next().await.unwrap();
        match message["params"]["progressToken"].as_u64() {
            Some(call) => {
                assert_eq!(message["params"]["progress"], heard[call as usize]);
                heard[call as usize] += 1;
            }
            None => assert_eq!(heard[message["id"].as_u64().unwrap() as usize], PROGRESS),
        }
    }
}

#[tokio::test]
async fn servers_ask_and_clients_cancel() {
    let node = Node::start().await;
    let mut line = Line::initialized(&node).await;
    line.call(1, "ask").await;
    line.call(2, "ask").await;
    let (one, two) = (line.next().await.unwrap(), line.next().await.unwrap());
    for question in [&two, &one] {
        let result = json!({ "to": question["params"]["call"] });
        line.send(json!({ "jsonrpc": "2.0", "id": question["id"], "result": result })).await;
        let answer = line.next().await.unwrap();
        assert_eq!((&answer["id"], &answer["result"]["answer"]), (&question["params"]["call"], &result));
    }
    line.call(3, "hang").await;
    line.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 3 } }))
        .await;
    assert_eq!(node.gateway.next_end().await, "cancelled: ");
    line.request(4, "ping", json!({})).await;
    assert_eq!(line.next().await.unwrap()["id"], 4, "a cancelled call is heard of no more");
}

#[tokio::test]
async fn a_subscription_lasts_until_it_is_cancelled() {
    let node = Node::start().await;
    let mut line = Line::open(&node).await;
    let filter = json!({ "notifications": { "toolsListChanged": true } });
    line.request("sub", "subscriptions/listen", with_meta(filter, MODERN)).await;
    assert_eq!(line.next().await.unwrap()["method"], "notifications/subscriptions/acknowledged");
    node.gateway.set_tools(&["new"]);
    let changed = line.next().await.unwrap();
    assert_eq!(changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "sub");
    line.send(
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "sub" } }),
    )
    .await;
    // The id is free again once the subscription has ended.
    soon(async {
        loop {
            line.request("sub", "tools/call", with_meta(json!({ "name": "echo" }), MODERN)).await;
            let answer = line.next().await.unwrap();
            if answer["result"].is_object() {
                return;
            }
            assert_eq!(answer["error"]["code"], -32600);
        }
    })
    .await;
}

#[tokio::test]
async fn the_end_of_input_lets_calls_finish() {
    let node = Node::start().await;
    let mut line = Line::initialized(&node).await;
    line.call(1, "progress").await;
    line.call(2, "echo").await;
    let Line { mut lines, write } = line;
    drop(write);
    let mut answers = 0;
    while let Some(message) = soon(lines.next_line()).await.unwrap() {
        answers += usize::from(message.contains("\"result\""));
    }
    assert_eq!(answers, 2);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_calls_along() {
    let node = Node::start().await;
    let mut line = Line::initialized(&node).await;
    line.call(1, "chat_then_hang").await;
    line.next().await.unwrap();
    let Line { lines, write } = line;
    drop(lines);
    drop(write);
    // It only shows when the node next writes.
    node.gateway.set_tools(&["new"]);
    assert_eq!(node.gateway.next_end().await, "dropped");
}

#[tokio::test]
async fn lines_that_are_no_message() {
    let node = Node::with(|config| config.limits.body_bytes_max = 1000).await;
    let mut line = Line::open(&node).await;
    line.write.write_all(b"\n  \nnonsense\n[]\n\xff\n").await.unwrap();
    for code in [-32700, -32600, -32700] {
        assert_eq!(line.next().await.unwrap()["error"]["code"], code);
    }
    line.request(1, "ping", json!({})).await;
    assert_eq!(line.next().await.unwrap()["id"], 1);
    line.write.write_all(&[b'x'; 1001]).await.unwrap();
    assert_eq!(line.next().await.unwrap()["error"]["code"], -32008);
    assert!(line.next().await.is_none());
}

#[tokio::test]
async fn a_node_that_goes_down_says_so_to_subscriptions_and_closes() {
    let mut node = Node::start().await;
    let mut line = Line::open(&node).await;
    let filter = json!({ "notifications": {} });
    line.request(1, "subscriptions/listen", with_meta(filter, MODERN)).await;
    line.next().await.unwrap();
    let mut idle = Line::initialized(&node).await;
    idle.request(1, "ping", json!({})).await;
    idle.next().await.unwrap();
    node.shutdown.cancel();
    assert_eq!(line.next().await.unwrap()["result"]["resultType"], "complete");
    assert!(line.next().await.is_none() && idle.next().await.is_none());
    soon(&mut node.running).await.unwrap();
}
