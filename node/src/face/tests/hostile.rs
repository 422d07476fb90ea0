//! Clients that are broken or mean harm: bounded cost, a plain answer, and the node serves on.

use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Node, client::MODERN, soon};

async fn still_serves(node: &Node) {
    assert_eq!(node.client.modern("server/discover", json!({})).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_no_message() {
    let node = Node::start().await;
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{}1{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let cases: [(&[u8], i64); 12] = [
        (b"", -32700),
        (b"\xff\xfe", -32700),
        (b"{", -32700),
        (b"null", -32600),
        (b"[]", -32600),
        (br#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600),
        (br#"{"id":1,"method":"ping"}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":1}"#, -32600),
        (br#"{"jsonrpc":"2.0","id":1,"method":"ping"}{"#, -32700),
        (deep.as_bytes(), -32600),
    ];
    for (body, code) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = node.client.post(body.to_vec()).await;
        assert_eq!(answer.status, 400, "{shown}");
        let answer = answer.json().await;
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &json!(null)), "{shown}");
    }
    still_serves(&node).await;
}

#[tokio::test]
async fn params_of_the_wrong_shape() {
    let node = Node::start().await;
    let client = node.client.initialize("2025-11-25").await;
    for params in ["[]", "7", "\"x\"", r#"["echo"]"#, r#"{"_meta":[]}"#, r#"{"name":"a","name":"b"}"#] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let answer = client.post(body).await.json().await;
        assert_eq!(answer["error"]["code"], -32602, "{params}");
    }
    let bare = client.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#).await.json().await;
    assert_eq!(bare["error"]["code"], -32602);
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let node = Node::with(|config| config.limits.body_bytes_max = 1000).await;
    assert_eq!(node.client.post(vec![b' '; 1001]).await.status, 413);
    let fits = format!("{:1000}", r#"{"jsonrpc":"2.0","id":1,"method":"nonsense"}"#);
    assert_eq!(
        node.client.post(fits).await.status,
        400,
        "a body of the very limit is read (and lacks its session)"
    );
    let mut raw = TcpStream::connect(node.client.address).await.unwrap();
    let head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    raw.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..3 {
        raw.write_all(format!("1f4\r\n{}\r\n", " ".repeat(500)).as_bytes()).await.unwrap();
    }
    assert!(
        answer(&mut raw).await.starts_with("HTTP/1.1 413 "),
        "an undeclared length is bounded all the same"
    );
    still_serves(&node).await;
}

/// What the node sends until it closes the connection or is done with one answer.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = vec![0; 4096];
    let read = soon(stream.read(&mut text)).await.unwrap_or(0);
    String::from_utf8_lossy(&text[..read]).into_owned()
}

#[tokio::test]
async fn slow_headers_and_slow_bodies() {
    let node = Node::with(|config| {
        config.limits.header_timeout = Duration::from_millis(400);
        config.limits.body_timeout = Duration::from_millis(400);
    })
    .await;
    let mut slow_header = TcpStream::connect(node.client.address).await.unwrap();
    slow_header.write_all(b"POST /mcp HT").await.unwrap();
    let said = answer(&mut slow_header).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
    let mut slow_body = TcpStream::connect(node.client.address).await.unwrap();
    let head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{";
    slow_body.write_all(head.as_bytes()).await.unwrap();
    assert!(answer(&mut slow_body).await.starts_with("HTTP/1.1 408 "));
    let mut silent = TcpStream::connect(node.client.address).await.unwrap();
    assert_eq!(answer(&mut silent).await, "");
    still_serves(&node).await;
}

#[tokio::test]
async fn more_connections_than_there_is_room_for() {
    let node = Node::with(|config| config.limits.connections_max = 2).await;
    let held = [
        TcpStream::connect(node.client.address).await.unwrap(),
        TcpStream::connect(node.client.address).await.unwrap(),
    ];
    let mut third = TcpStream::connect(node.client.address).await.unwrap();
    assert!(answer(&mut third).await.starts_with("HTTP/1.1 503 "));
    drop(held);
    // Room comes back when the node has noticed.
    soon(async {
        loop {
            let mut stream = TcpStream::connect(node.client.address).await.unwrap();
            // A connection that was turned away may be reset before this is written.
            let _ = stream.write_all(b"GET /other HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
            if answer(&mut stream).await.starts_with("HTTP/1.1 404 ") {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_mcp_over_http() {
    let node = Node::start().await;
    assert_eq!(node.client.send(Method::POST, "/other", "{}").await.status, 404);
    assert_eq!(node.client.send(Method::PUT, "/mcp", "{}").await.status, 405);
    assert_eq!(node.client.send(Method::OPTIONS, "/mcp", "").await.status, 405);
    assert_eq!(node.client.with("content-type", "text/plain").post("{}").await.status, 415);
    assert_eq!(node.client.without("content-type").post("{}").await.status, 415);
    for accept in ["application/json", "text/event-stream", "text/html", "application/json;q=0, */*;q=0"] {
        assert_eq!(node.client.with("accept", accept).post("{}").await.status, 406, "{accept}");
    }
    assert_eq!(node.client.with("accept", "*/*").modern("server/discover", json!({})).await.status, 200);
    let mut garbage = TcpStream::connect(node.client.address).await.unwrap();
    garbage.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    garbage.write_all(b"\r\n\r\n").await.unwrap();
    assert!(answer(&mut garbage).await.starts_with("HTTP/1.1 400 "));
    let mut long = TcpStream::connect(node.client.address).await.unwrap();
    let header = format!("GET /mcp HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    // The node may close before all of it is written.
    let _ = long.write_all(header.as_bytes()).await;
    let said = answer(&mut long).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431 "), "{said}");
    still_serves(&node).await;
}

#[tokio::test]
async fn headers_that_contradict_themselves() {
    let node = Node::start().await;
    let mut raw = TcpStream::connect(node.client.address).await.unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         mcp-protocol-version: 2025-11-25\r\nmcp-protocol-version: {MODERN}\r\n\r\n{body}",
        body.len()
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    let said = answer(&mut raw).await;
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("-32020"), "{said}");
}
