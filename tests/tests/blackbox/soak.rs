//! Many calls of many kinds over two hops, 64 at a time: none may fail, and the nodes may not grow.
//!
//! The whole soak, against an optimised binary, which a bench or `cargo build --release` leaves behind:
//!
//! ```sh
//! COMITY_TEST_BINARY=target/release/comity cargo test -p comity-tests --test blackbox -- --ignored --nocapture soak
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use comity_tests::config::Server;
use comity_tests::conformance::Fixture;
use comity_tests::federation::Pair;
use comity_tests::http::Kept;
use comity_tests::mcp::{Mcp, Reply};
use comity_tests::process::resident_bytes;
use comity_tests::wait;
use serde_json::{Value, json};

/// Callers at work at the same time.
const CALLERS: usize = 64;
/// Calls of one round; after each, memory is looked at.
const ROUNDS: usize = 10;
/// What a node may grow from the second round to the last: pages that the allocator keeps are not a leak, and what
/// leaks by the call grows by more.
const GROWTH_MAX: u64 = 12 << 20;

#[test]
fn a_short_soak() {
    soak(3_000);
}

#[test]
#[ignore = "takes minutes; see the module's documentation"]
fn a_soak_of_100_000_calls() {
    soak(100_000);
}

fn soak(calls: usize) {
    let fixture = Fixture::start();
    let mut pair = Pair::start(
        ["legacy", "modern"].map(|era| Server::http(era, &fixture.url).with(&format!("era = \"{era}\""))),
    );
    pair.near.wait_for_tools(&["legacy__greet", "modern__greet"]);
    let mut memory: Vec<[u64; 2]> = Vec::new();
    let started = Instant::now();
    for _ in 0..ROUNDS {
        round(pair.near.mcp_url(), calls / ROUNDS);
        memory.push([&pair.near, &pair.far].map(|node| resident_bytes(node.pid())));
    }
    let mib = |bytes: u64| bytes >> 20;
    let shown: Vec<_> = memory.iter().map(|both| both.map(mib)).collect();
    eprintln!(
        "{calls} calls in {:.1} s; MiB of both nodes after each round: {shown:?}",
        started.elapsed().as_secs_f64()
    );
    let (second, last) = (memory[1], memory[ROUNDS - 1]);
    for node in [0, 1] {
        assert!(last[node].saturating_sub(second[node]) <= GROWTH_MAX, "a node grows: {shown:?}");
    }
    for node in [&mut pair.near, &mut pair.far] {
        wait::until_true("no call is left", || {
            let left = node.metric("comity_calls_in_flight", &[]);
            (left == 0.0, left)
        });
        let errors = node.process().stderr.containing("\"level\":\"ERROR\"");
        assert!(errors.is_empty(), "{errors:#?}");
    }
}

fn round(url: &str, calls: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let next = &next;
            scope.spawn(move || {
                let mut caller = Caller::open(url, caller % 2 == 0);
                while next.fetch_add(1, Ordering::Relaxed) < calls {
                    caller.call();
                }
            });
        }
    });
}

/// One client that makes each kind of call in turn.
struct Caller {
    client: Mcp,
    kept: Kept,
    /// The server whose era is the client's own, and the other.
    servers: [&'static str; 2],
    made: usize,
}

impl Caller {
    fn open(url: &str, is_modern: bool) -> Self {
        let (client, servers) = match is_modern {
            true => (Mcp::modern(url), ["modern", "legacy"]),
            false => (Mcp::legacy(url), ["legacy", "modern"]),
        };
        Caller { kept: client.keep(), client, servers, made: 0 }
    }

    fn call(&mut self) {
        const KINDS: [fn(&mut Caller); 6] =
            [Caller::greet, Caller::echo, Caller::progress, Caller::error, Caller::odd, Caller::cancel];
        // Most calls are the plain ones.
        let kind = match self.made % 16 {
            0..6 => 0,
            6..10 => 1,
            10..12 => 2,
            12..14 => 3,
            14 => 4,
            _ => 5,
        };
        KINDS[kind](self);
        self.made += 1;
    }

    fn tool(&mut self, tool: &str, arguments: Value) -> Reply {
        let name = format!("{}__{tool}", self.servers[self.made / 16 % 2]);
        let params = json!({ "name": name, "arguments": arguments, "_meta": { "progressToken": self.made } });
        self.client.request_on(&mut self.kept, "tools/call", params)
    }

    fn greet(&mut self) {
        let name = self.made.to_string();
        assert_eq!(self.tool("greet", json!({ "name": name })).text(), format!("Hello, {name}!"));
    }

    fn echo(&mut self) {
        let value = json!({ "text": "\u{1F980}".repeat(300), "number": self.made });
        let reply = self.tool("probe_echo", json!({ "value": value }));
        assert_eq!(reply.result()["structuredContent"]["value"], value);
    }

    fn progress(&mut self) {
        let reply = self.tool("probe_progress", json!({ "steps": 10 }));
        assert_eq!(reply.text(), "10 steps");
        let told = reply.before.iter().filter(|message| message["method"] == "notifications/progress");
        let steps: Vec<_> = told.filter_map(|step| step["params"]["progress"].as_u64()).collect();
        assert_eq!(steps, (1..=10).collect::<Vec<_>>());
    }

    fn error(&mut self) {
        assert_eq!(self.tool("test_error_handling", json!({})).result()["isError"], true);
    }

    fn odd(&mut self) {
        let reply = self.tool("probe_odd_result", json!({}));
        assert!(reply.http.text().contains("123456789012345678901234567890"), "{}", reply.answer);
    }

    /// Goes away while the server works. A legacy client's going away cancels nothing, so only a modern one does.
    fn cancel(&mut self) {
        if self.servers[0] == "legacy" {
            return self.greet();
        }
        let params =
            json!({ "name": "modern__probe_wait", "arguments": {}, "_meta": { "progressToken": self.made } });
        let mut answer = self.client.open(&self.client.message("tools/call", params).to_string());
        let first = String::from_utf8(answer.chunk().expect("the server begins")).expect("text");
        assert!(first.contains("waiting") || first.starts_with(':'), "{first}");
    }
}
