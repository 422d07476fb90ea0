//! Hostile input: each kind costs bounded memory and time, and the node keeps serving.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use comity_tests::config::{Server, Settings};
use comity_tests::federation::Org;
use comity_tests::http::{self, Url};
use comity_tests::mcp::Mcp;
use comity_tests::node::Node;
use comity_tests::process::resident_bytes;
use comity_tests::servers::OwnServer;
use comity_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

const TIMEOUT: i64 = -32004;
const UPSTREAM_DIED: i64 = -32007;

/// More than one request may cost, in bytes, garbage of the allocator included.
const GROWTH_MAX: u64 = 96 << 20;

/// A node with a server `good` that answers, and one `bad` that offers `tools` and takes a second at most.
struct Host {
    node: Node,
    good: OwnServer,
    _state: TempDir,
}

impl Host {
    fn start(tools: &[&str]) -> Self {
        let state = TempDir::new().expect("a temporary directory");
        let good = OwnServer::new(&state.path().join("good"));
        let bad = OwnServer::new(&state.path().join("bad"));
        let mut settings = Settings::new("berlin", &["DE"]).server(good.server("good", &["echo"]));
        if !tools.is_empty() {
            settings = settings.server(bad.server("bad", tools).with("timeout = \"3s\""));
        }
        let (_, mut node) = Org::found("acme.example", &settings);
        node.start();
        node.wait_for_tools(&["echo"]);
        node.wait_for_tools(tools);
        Host { node, good, _state: state }
    }

    /// That it serves, and has not grown.
    #[track_caller]
    fn check(&self, what: &str, before: u64) {
        let answer = Mcp::modern(self.node.mcp_url()).call("echo", json!({ "after": what }));
        assert!(answer.text().contains(what));
        let after = resident_bytes(self.node.pid());
        assert!(after < before + GROWTH_MAX, "{what}: grew from {before} to {after} bytes");
    }
}

#[test]
fn garbage_to_the_mcp_endpoint_is_refused_and_forgotten() {
    let host = Host::start(&[]);
    let url = Url::parse(host.node.mcp_url());
    let client = Mcp::modern(host.node.mcp_url());
    let before = resident_bytes(host.node.pid());

    // No JSON-RPC at all, and nesting that would overflow a stack.
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    let deep_params = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}}"#, deep);
    for body in [
        "",
        "{",
        "null",
        "[]",
        "\u{0}",
        "{\"jsonrpc\":\"1.0\"}",
        r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#,
        &deep,
        &deep_params,
    ] {
        let answer = client.post(body);
        assert_eq!(answer.status, 400, "{:.60}: {}", body, answer.text());
    }
    // Not UTF-8.
    let headers = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    let answer = http::exchange(
        &url,
        &http::request("POST", &url, &headers, b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\xfe\"}"),
    );
    assert_eq!(answer.status, 400, "{}", answer.text());

    // Too large: told before it is read, and when it comes without a length.
    let large = vec![b' '; 5 << 20];
    let announced = http::answer(http::send(&url, &http::request("POST", &url, &headers, &large)));
    assert!(announced.is_none_or(|answer| answer.status == 413));
    let mut chunked = format!("POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n", url.path, url.host).into_bytes();
    for _ in 0..5 {
        chunked.extend_from_slice(b"100000\r\n");
        chunked.extend(std::iter::repeat_n(b' ', 1 << 20));
        chunked.extend_from_slice(b"\r\n");
    }
    assert!(http::answer(http::send(&url, &chunked)).is_none_or(|answer| answer.status == 413));

    // Not HTTP.
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..],
        b"GET\r\n\r\n",
        b"POST /mcp HTTP/9.9\r\n\r\n",
        &[0; 4096],
    ] {
        let socket = http::send(&url, bytes);
        let _ = socket.shutdown(Shutdown::Write);
        assert!(http::answer(socket).is_none_or(|answer| answer.status >= 400), "{bytes:?}");
    }
    host.check("garbage", before);
}

#[test]
fn requests_that_a_browser_was_tricked_into_are_refused() {
    let host = Host::start(&[]);
    let url = Url::parse(host.node.mcp_url());
    let body = Mcp::modern(host.node.mcp_url()).message("tools/list", json!({})).to_string();
    let status = |name: &str, value: &str| {
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            (name, value),
        ];
        http::exchange(&url, &http::request("POST", &url, &headers, body.as_bytes())).status
    };
    for (name, value) in [("host", "evil.example"), ("origin", "https://evil.example"), ("origin", "null")] {
        assert_eq!(status(name, value), 403, "{name}: {value}");
    }
    let admin = Url::parse(host.node.status()["admin_url"].as_str().expect("a URL"));
    let evil = http::request(
        "GET",
        &Url { path: "/metrics".into(), ..admin.clone() },
        &[("host", "evil.example")],
        b"",
    );
    assert_eq!(http::exchange(&admin, &evil).status, 403);
}

#[test]
fn an_upstream_that_hangs_floods_dies_or_talks_nonsense_harms_nobody_else() {
    let host = Host::start(&["hang", "noise", "die", "flood", "oversized", "wait"]);
    let client = Mcp::modern(host.node.mcp_url());
    let before = resident_bytes(host.node.pid());

    let noisy = client.call("noise", json!({}));
    assert_eq!(noisy.text(), "after the noise");

    let error = |answer: &Value| answer["error"]["code"].as_i64();
    let hung = client.call("hang", json!({})).answer;
    assert_eq!(error(&hung), Some(TIMEOUT), "{hung}");
    host.check("hang", before);

    for tool in ["die", "oversized", "flood"] {
        host.node.wait_for_tools(&[tool]);
        let answer = client.call(tool, json!({})).answer;
        assert!(error(&answer).is_some_and(|code| (-32019..=-32000).contains(&code)), "{tool}: {answer}");
        if tool == "die" {
            assert_eq!(error(&answer), Some(UPSTREAM_DIED), "{answer}");
        }
        host.check(tool, before);
    }

    // It comes back by itself.
    let recovered = wait::until("the server that died answers again", || {
        let answer = client.call("noise", json!({})).answer;
        answer["result"]["content"][0]["text"].as_str().map(str::to_owned).ok_or(answer)
    });
    assert_eq!(recovered, "after the noise");
    assert!(host.good.calls().len() >= 4);
}

#[test]
fn a_server_that_cannot_start_hides_no_other() {
    let state = TempDir::new().expect("a temporary directory");
    let good = OwnServer::new(&state.path().join("good"));
    let settings = Settings::new("berlin", &["DE"])
        .server(Server::command("absent", ["/nonexistent/program"]))
        .server(Server::command("silent", ["sleep", "1000"]))
        .server(Server::command("brief", ["true"]))
        .server(Server::http("nowhere", "http://127.0.0.1:1/mcp"))
        .server(good.server("good", &["echo"]));
    let (_, mut node) = Org::found("acme.example", &settings);
    node.start();
    node.wait_for_tools(&["echo"]);
    node.json(&["call", "echo"]);
    let status = node.wait_for_status("the broken servers say what is wrong", |status| {
        let servers = status["servers"].as_array().expect("a list of servers");
        let broken = servers
            .iter()
            .filter(|server| matches!(server["name"].as_str(), Some("absent" | "brief" | "nowhere")));
        broken.clone().count() == 3 && broken.into_iter().all(|server| server["error"].is_string())
    });
    assert_eq!(status["servers"].as_array().map(Vec::len), Some(5), "{status:#}");
}

#[test]
fn garbage_to_the_mesh_and_to_the_control_socket_is_refused_and_forgotten() {
    let host = Host::start(&[]);
    let before = resident_bytes(host.node.pid());
    let addresses = host.node.addresses();
    let port = |protocol: &str| comity_tests::node::port(&addresses, protocol);

    // TCP: noise instead of a handshake, an endless multistream line, and silence.
    let multistream = b"\x13/multistream/1.0.0\n";
    let endless = [&multistream[..], &[0xff; 1 << 16]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 1 << 16], multistream, &endless] {
        let mut socket = TcpStream::connect(("127.0.0.1", port("/tcp/"))).expect("the port is open");
        socket.set_read_timeout(Some(wait::DEADLINE)).expect("a timeout can be set");
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(Shutdown::Write);
        let begun = Instant::now();
        let _ = socket.read_to_end(&mut Vec::new());
        assert!(begun.elapsed() < wait::DEADLINE, "a peer that ends its side is left waiting");
    }
    // QUIC: datagrams of every shape.
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for size in [0, 1, 7, 600, 1200, 1452] {
        for first in [0x00, 0x40, 0xc0, 0xff] {
            let _ = socket.send_to(&vec![first; size], ("127.0.0.1", port("/udp/")));
        }
    }
    // Control: noise, an unknown request, and a line that is too long.
    let path = host.node.data_dir().join("comity.sock");
    for bytes in [&b"\xff\xfe\n"[..], b"{\"no_such_request\":{}}\n", b"[[[[\n", &[b'x'; 64 << 10]] {
        let mut socket = UnixStream::connect(&path).expect("the control socket is there");
        socket.set_read_timeout(Some(wait::DEADLINE)).expect("a timeout can be set");
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(Shutdown::Write);
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.contains("error"), "{answer}");
    }
    host.node.status();
    host.check("garbage to the mesh", before);
}

/// A client that opens calls and reads nothing must not make the node hold their answers without bound, and a client
/// that goes away ends its calls.
#[test]
fn clients_that_do_not_read_cost_little() {
    const CLIENTS: usize = 4;
    let host = Host::start(&["flood"]);
    let before = resident_bytes(host.node.pid());
    let client = Mcp::modern(host.node.mcp_url());
    let arguments = json!({ "name": "flood", "arguments": {}, "_meta": { "progressToken": 1 } });
    let message = client.message("tools/call", arguments).to_string();
    let unread: Vec<_> = (0..CLIENTS).map(|_| client.open(&message)).collect();
    let in_flight = || host.node.metric("comity_calls_in_flight", &[]);
    host.check("clients that do not read", before);
    assert!(in_flight() > 0.0, "nothing was going on");
    drop(unread);
    wait::until("their calls have ended", || if in_flight() == 0.0 { Ok(()) } else { Err(in_flight()) });
    host.check("clients that have gone", before);
}
