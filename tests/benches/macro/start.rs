//! How long a node takes from being started to answering `tools/list`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use comity_tests::config::Settings;
use comity_tests::federation::Org;
use comity_tests::node::Node;
use comity_tests::process::Background;
use serde::Serialize;

use crate::site::{HttpServer, tool};
use crate::upstream::Era;

/// Starts that are measured after the first.
const STARTS: usize = 9;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_micros(250);

/// When a start has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// From exec, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Start {
    /// Until `tools/list` was answered.
    pub(crate) answered_ms: f64,
    /// Until the answer held the tool of the server behind the node.
    pub(crate) complete_ms: f64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Starts {
    /// The first start, which makes the store.
    pub(crate) first: Start,
    /// The others, in order.
    pub(crate) again: Vec<Start>,
}

/// Starts a node, which is a member of an org and has one server over HTTP, again and again.
pub(crate) fn measure() -> Starts {
    let server = HttpServer::start();
    let settings = Settings::new("start", &["DE"]).server(server.server("near", Era::Modern));
    let (_, node) = Org::found("acme.example", &settings);
    let address = free_address();
    node.edit_config(|text| {
        text.replacen("[mcp]\nlisten = \"127.0.0.1:0\"", &format!("[mcp]\nlisten = \"{address}\""), 1)
    });
    let first = start(&node, address);
    Starts { first, again: (0..STARTS).map(|_| start(&node, address)).collect() }
}

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound")
}

fn start(node: &Node, address: SocketAddr) -> Start {
    let began = Instant::now();
    let mut process = Background::start("start", &mut node.command(&["up"]));
    let tool = tool("near", "http", Era::Modern);
    let answered_ms = until(began, address, "\"tools\":");
    let complete_ms = until(began, address, &tool);
    process.terminate();
    process.wait();
    Start { answered_ms, complete_ms }
}

fn until(began: Instant, address: SocketAddr, part: &str) -> f64 {
    while !tools_list(address).is_some_and(|answer| answer.contains(part)) {
        assert!(began.elapsed() < PATIENCE, "{address} did not answer tools/list with {part}");
        thread::sleep(LOOK_EVERY);
    }
    began.elapsed().as_secs_f64() * 1000.0
}

fn tools_list(address: SocketAddr) -> Option<String> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\nconnection: close\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
         mcp-method: tools/list\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}
