//! A session over in-memory pipes, with the test itself as the server.

use comity_protocol::json;
use comity_protocol::jsonrpc::{Id, Limits, Message, RpcError, codes};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, split};
use tokio::task::JoinSet;

use super::super::config::{EraChoice, UpstreamConfig};
use super::super::negotiate::{First, negotiate};
use super::super::profile::Era;
use super::super::session::{Patience, Request, Session};
use super::super::stdio::over_pipes;
use super::{caller, failure, message, params, result};
use crate::config::servers::Launch;
use crate::exchange::{Exchange, Failure, Incoming, Outcome, Outgoing};

/// The server's end of a session.
struct Server {
    reader: BufReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
}

/// A session, the server's end and the tasks between them.
struct Bench {
    session: Session,
    server: Server,
    _tasks: JoinSet<()>,
}

impl Bench {
    /// Before any handshake.
    fn fresh(change: impl FnOnce(&mut UpstreamConfig)) -> Self {
        let launch =
            Launch::Command { program: String::new(), args: vec![], env: Default::default(), cwd: None };
        let mut config = UpstreamConfig::new(launch);
        change(&mut config);
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (reader, writer) = split(ours);
        let (session, tasks) = over_pipes("bench".parse().unwrap(), &config, reader, writer);
        let (reader, writer) = split(theirs);
        Self { session, server: Server { reader: BufReader::new(reader), writer }, _tasks: tasks }
    }

    /// After the handshake of the legacy era.
    async fn legacy() -> Self {
        Self::legacy_with(|_| {}).await
    }

    async fn legacy_with(change: impl FnOnce(&mut UpstreamConfig)) -> Self {
        let mut bench = Self::fresh(change);
        let shake = negotiate(&bench.session, EraChoice::Legacy, First::Discover, PATIENCE);
        let (shaken, ()) = tokio::join!(shake, async {
            let request = bench.server.expect("initialize").await;
            bench.server.result(request["id"].as_i64().unwrap(), initialized()).await;
        });
        shaken.unwrap();
        bench.server.expect("notifications/initialized").await;
        bench
    }

    async fn modern() -> Self {
        let mut bench = Self::fresh(|_| {});
        let shake = negotiate(&bench.session, EraChoice::Modern, First::Discover, PATIENCE);
        let (shaken, ()) = tokio::join!(shake, async {
            let request = bench.server.expect("server/discover").await;
            bench.server.result(request["id"].as_i64().unwrap(), discovered()).await;
        });
        shaken.unwrap();
        bench
    }

    /// Calls a tool with a progress token and returns the exchange and the request's id on the wire.
    async fn call(&mut self, token: &str) -> (Exchange, i64) {
        let exchange = self.open(&json!({ "name": "t", "_meta": { "progressToken": token } }), None);
        let request = self.server.expect("tools/call").await;
        (exchange, request["id"].as_i64().unwrap())
    }

    fn open(&self, params: &Value, deadline: Option<Duration>) -> Exchange {
        self.session.open(Request {
            method: "tools/call",
            params: Some(&json::to_raw(params)),
            caller: Some(&caller()),
            traceparent: None,
            capabilities: None,
            patience: Patience { silence: Some(self.session.timeout()), total: deadline },
        })
    }
}

impl Server {
    async fn next(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).expect("one message a line")
    }

    /// The next message, which must be of this method.
    async fn expect(&mut self, method: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["method"], method, "{message}");
        message
    }

    async fn raw(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).await.unwrap();
    }

    async fn send(&mut self, message: Value) {
        self.raw(&format!("{message}\n")).await;
    }

    async fn result(&mut self, id: i64, result: Value) {
        self.send(json!({ "jsonrpc": "2.0", "id": id, "result": result })).await;
    }

    async fn notify(&mut self, method: &str, params: Value) {
        self.send(json!({ "jsonrpc": "2.0", "method": method, "params": params })).await;
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

fn initialized() -> Value {
    json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {} }, "serverInfo": { "name": "s" } })
}

fn discovered() -> Value {
    json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}, "ttlMs": 0 })
}

#[tokio::test]
async fn a_call_reaches_the_server_with_its_caller_and_its_bytes() {
    let mut bench = Bench::legacy().await;
    let text = r#"{"name":"t","arguments":{"big":123456789012345678901234567890,
        "z" : 1.0},"_meta":{"dev.comity/caller":"forged","traceparent":"00-a"}}"#;
    let params = RawValue::from_string(text.to_owned()).unwrap();
    let exchange = bench.session.open(Request {
        method: "tools/call",
        params: Some(&params),
        caller: Some(&caller()),
        traceparent: None,
        capabilities: None,
        patience: Patience::total(PATIENCE),
    });
    let mut line = String::new();
    bench.server.reader.read_line(&mut line).await.unwrap();
    assert!(line.contains(r#""big":123456789012345678901234567890,"#), "{line}");
    let request: Value = serde_json::from_str(&line).unwrap();
    let meta = &request["params"]["_meta"];
    assert_eq!(meta["dev.comity/caller"]["org"], "acme.example");
    assert_eq!(meta["dev.comity/caller"]["node"], caller().node.to_string());
    assert_eq!(meta["traceparent"], "00-a");
    let id = request["id"].as_i64().unwrap();
    bench.server.raw(&format!("{{\"id\":{id},\"jsonrpc\":\"2.0\",\"result\":{{ \"n\":1e400 }} }}\n")).await;
    match exchange.outcome().await {
        Outcome::Result(raw) => assert_eq!(raw.get(), r#"{ "n":1e400 }"#),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn progress_of_many_calls_is_neither_lost_nor_reordered() {
    const CALLS: usize = 16;
    const STEPS: usize = 50;
    let mut bench = Bench::legacy().await;
    let mut calls = Vec::new();
    for n in 0..CALLS {
        calls.push(bench.call(&format!("token-{n}")).await);
    }
    let ids: Vec<i64> = calls.iter().map(|(_, id)| *id).collect();
    let server = &mut bench.server;
    let serve = async {
        for step in 0..STEPS {
            for id in &ids {
                server
                    .notify("notifications/progress", json!({ "progressToken": id, "progress": step }))
                    .await;
            }
        }
        for id in ids.iter().rev() {
            server.result(*id, json!({ "call": id })).await;
        }
    };
    let read = async {
        for (n, (exchange, id)) in calls.iter_mut().enumerate() {
            for step in 0..STEPS {
                let got = params(&message(exchange).await);
                assert_eq!(got, json!({ "progressToken": format!("token-{n}"), "progress": step }));
            }
            let Incoming::Done(outcome) = exchange.next().await else { panic!("one too many") };
            assert_eq!(result(outcome), json!({ "call": id }));
        }
    };
    tokio::join!(serve, read);
    assert_eq!(bench.session.stray(), 0);
}

#[tokio::test]
async fn what_names_no_call_goes_to_a_lone_call_and_otherwise_to_nobody() {
    let mut bench = Bench::legacy().await;
    let (mut first, first_id) = bench.call("a").await;
    bench.server.notify("notifications/message", json!({ "level": "info", "data": 1 })).await;
    assert_eq!(params(&message(&mut first).await)["data"], 1);
    let (mut second, second_id) = bench.call("b").await;
    bench.server.notify("notifications/message", json!({ "level": "info", "data": "secret" })).await;
    bench.server.send(json!({ "jsonrpc": "2.0", "id": 9, "method": "sampling/createMessage" })).await;
    let refusal = bench.server.next().await;
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!(9), &json!(codes::METHOD_NOT_FOUND)));
    assert!(refusal["error"]["message"].as_str().unwrap().contains("sampling/createMessage"), "{refusal}");
    for (exchange, id) in [(&mut first, first_id), (&mut second, second_id)] {
        bench.server.result(id, json!({})).await;
        assert!(matches!(exchange.next().await, Incoming::Done(_)), "neither heard of the other's");
    }
    assert_eq!(bench.session.stray(), 1);
}

#[tokio::test]
async fn a_servers_request_is_answered_by_its_caller_and_nobody_else() {
    let mut bench = Bench::legacy().await;
    let (mut asked, asked_id) = bench.call("a").await;
    bench
        .server
        .send(json!({ "jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {} }))
        .await;
    let question = message(&mut asked).await;
    assert_eq!(
        (question.method(), question.id()),
        (Some("elicitation/create"), Some(&Id::String("q".into())))
    );
    let (other, other_id) = bench.call("b").await;
    let answer = |n: i64| {
        Outgoing::Message(Message::Response { id: Id::String("q".into()), result: json::to_raw(&n) })
    };
    other.outgoing.send(answer(1)).await.unwrap();
    let forged = json!({ "requestId": asked_id });
    let forged = Message::notification("notifications/cancelled", Some(json::to_raw(&forged)));
    other.outgoing.send(Outgoing::Message(forged)).await.unwrap();
    // When its cancellation is read, everything that it said before has been.
    other.outgoing.send(Outgoing::Cancel { reason: None }).await.unwrap();
    assert_eq!(bench.server.expect("notifications/cancelled").await["params"]["requestId"], other_id);
    asked.outgoing.send(answer(2)).await.unwrap();
    assert_eq!(bench.server.next().await, json!({ "jsonrpc": "2.0", "id": "q", "result": 2 }));
    bench.server.result(asked_id, json!({})).await;
    assert!(matches!(asked.outcome().await, Outcome::Result(_)));
}

#[tokio::test]
async fn what_a_call_leaves_unanswered_is_refused_at_its_end() {
    let mut bench = Bench::legacy().await;
    let (mut call, id) = bench.call("a").await;
    bench.server.send(json!({ "jsonrpc": "2.0", "id": 3, "method": "roots/list" })).await;
    message(&mut call).await;
    drop(call);
    assert_eq!(bench.server.expect("notifications/cancelled").await["params"]["requestId"], id);
    let refusal = bench.server.next().await;
    assert_eq!((&refusal["id"], refusal["error"].is_object()), (&json!(3), true));
}

#[tokio::test]
async fn cancellation_reaches_the_server_and_ends_the_call() {
    let mut bench = Bench::legacy().await;
    let (call, id) = bench.call("a").await;
    call.outgoing.send(Outgoing::Cancel { reason: Some("enough".into()) }).await.unwrap();
    let cancelled = bench.server.expect("notifications/cancelled").await;
    assert_eq!(cancelled["params"], json!({ "requestId": id, "reason": "enough" }));
    assert_eq!(failure(call.outcome().await), Failure::Cancelled { handed_over: true });
    assert_eq!(bench.session.table().in_flight(), 0);
}

#[tokio::test]
async fn a_deadline_ends_a_call_and_tells_the_server() {
    let mut bench = Bench::legacy().await;
    let call = bench.open(&json!({ "name": "t" }), Some(Duration::from_millis(20)));
    let id = bench.server.expect("tools/call").await["id"].clone();
    let cancelled = bench.server.expect("notifications/cancelled").await;
    assert_eq!(cancelled["params"]["requestId"], id);
    assert!(matches!(failure(call.outcome().await), Failure::Timeout { handed_over: true, .. }));
}

#[tokio::test]
async fn silence_beyond_the_limit_ends_a_call_and_casts_suspicion() {
    let mut bench = Bench::legacy_with(|config| config.timeout = Duration::from_millis(20)).await;
    let (call, _) = bench.call("a").await;
    assert!(matches!(failure(call.outcome().await), Failure::Timeout { handed_over: true, .. }));
    bench.session.signals().suspect.notified().await;
}

#[tokio::test]
async fn noise_is_skipped_and_pings_are_answered() {
    let mut bench = Bench::legacy().await;
    let (call, id) = bench.call("a").await;
    let noise = "Listening on stdio…\n\n[]\n{\"jsonrpc\":\"1.0\"}\n\x1b[31m{\n[{\"jsonrpc\":\"2.0\"}]\n";
    bench.server.raw(noise).await;
    bench.server.raw(&format!("{}\n", "[".repeat(100_000))).await;
    bench.server.send(json!({ "jsonrpc": "2.0", "id": 5, "method": "ping" })).await;
    assert_eq!(bench.server.next().await, json!({ "jsonrpc": "2.0", "id": 5, "result": {} }));
    bench.server.result(99, json!({})).await;
    bench.server.result(id, json!({ "ok": true })).await;
    assert_eq!(result(call.outcome().await), json!({ "ok": true }));
    assert_eq!(bench.session.stray(), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_fails_its_own_call_only() {
    let mut bench = Bench::legacy_with(|config| config.message_bytes_max = 1000).await;
    let (huge, huge_id) = bench.call("a").await;
    let (small, small_id) = bench.call("b").await;
    bench.server.result(huge_id, json!({ "text": "x".repeat(100_000) })).await;
    bench.server.result(small_id, json!({ "ok": true })).await;
    assert!(matches!(failure(huge.outcome().await), Failure::TooLarge { handed_over: true, .. }));
    assert_eq!(result(small.outcome().await), json!({ "ok": true }));
    let request = bench.open(&json!({ "name": "t", "x": "y".repeat(2000) }), None);
    assert!(matches!(failure(request.outcome().await), Failure::TooLarge { handed_over: false, .. }));
}

#[tokio::test]
async fn an_error_without_an_id_ends_a_lone_call() {
    let mut bench = Bench::legacy().await;
    let (call, _) = bench.call("a").await;
    bench
        .server
        .send(json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32700, "message": "?" } }))
        .await;
    assert!(matches!(call.outcome().await, Outcome::Error(error) if error.get().contains("-32700")));
}

#[tokio::test]
async fn a_server_that_dies_fails_every_call_at_once_and_the_next_ones() {
    let mut bench = Bench::legacy().await;
    let (one, _) = bench.call("a").await;
    let (two, _) = bench.call("b").await;
    drop(bench.server);
    for call in [one, two] {
        assert!(matches!(failure(call.outcome().await), Failure::UpstreamDied { handed_over: true, .. }));
    }
    let late = bench.session.open(Request {
        method: "tools/call",
        params: None,
        caller: Some(&caller()),
        traceparent: None,
        capabilities: None,
        patience: Patience::total(PATIENCE),
    });
    assert!(matches!(failure(late.outcome().await), Failure::UpstreamDied { handed_over: false, .. }));
}

#[tokio::test]
async fn a_request_that_the_server_never_read_was_not_handed_over() {
    let bench = Bench::legacy().await;
    // More than the pipe holds: the last request cannot have been begun.
    let filler = bench.open(&json!({ "name": "t", "x": "y".repeat(1 << 20) }), None);
    tokio::task::yield_now().await;
    let waiting = bench.open(&json!({ "name": "t" }), None);
    bench.session.close("gone");
    assert!(matches!(failure(filler.outcome().await), Failure::UpstreamDied { .. }));
    assert_eq!(
        failure(waiting.outcome().await),
        Failure::UpstreamDied { handed_over: false, detail: "gone".into() }
    );
}

#[tokio::test]
async fn calls_beyond_the_bound_are_refused() {
    let mut bench = Bench::legacy_with(|config| config.in_flight_max = 2).await;
    let (_one, _) = bench.call("a").await;
    let (_two, _) = bench.call("b").await;
    let third = bench.open(&json!({ "name": "t" }), None);
    assert!(matches!(failure(third.outcome().await), Failure::Overloaded { handed_over: false, .. }));
}

#[tokio::test]
async fn params_that_are_no_object_are_refused() {
    let bench = Bench::legacy().await;
    for wrong in [json!([]), json!("x"), json!({ "_meta": 1 })] {
        let call = bench.open(&wrong, None);
        let refused = failure(call.outcome().await);
        assert!(matches!(refused, Failure::Refused { code: codes::INVALID_PARAMS, .. }), "{refused:?}");
    }
}

#[tokio::test]
async fn a_modern_server_is_given_the_envelope() {
    let mut bench = Bench::modern().await;
    assert_eq!(bench.session.era(), Some(Era::Modern));
    let _call = bench.open(&json!({ "name": "t" }), None);
    let request = bench.server.expect("tools/call").await;
    let meta = &request["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert!(meta["io.modelcontextprotocol/clientCapabilities"].is_object());
}

/// Negotiates with a server whose answer to each question is scripted; returns what came of it.
async fn negotiated(first: First, discover: Option<Value>, initialize: Option<Value>) -> Option<Era> {
    let mut bench = Bench::fresh(|_| {});
    let shake = negotiate(&bench.session, EraChoice::Auto, first, PATIENCE);
    let server = &mut bench.server;
    let serve = async {
        loop {
            let message = server.next().await;
            let answer = match message["method"].as_str().unwrap() {
                "server/discover" => &discover,
                "initialize" => &initialize,
                _ => continue,
            };
            if let Some(answer) = answer {
                let mut answer = answer.clone();
                answer["jsonrpc"] = "2.0".into();
                answer["id"] = message["id"].clone();
                server.send(answer).await;
            }
        }
    };
    tokio::select! {
        shaken = shake => shaken.ok()?,
        () = serve => unreachable!(),
    }
    bench.session.era()
}

#[tokio::test]
async fn eras_are_found_out_whatever_the_server_does() {
    let no = |code: i64| {
        let error = Message::error(Some(Id::Number(0)), &RpcError::new(code, "no"));
        Some(serde_json::from_slice(&error.to_vec()).unwrap())
    };
    let yes = |result: Value| Some(json!({ "result": result }));
    for first in [First::Discover, First::Initialize] {
        // A legacy server that refuses the unknown, and one that ignores it.
        for discover in [no(codes::METHOD_NOT_FOUND), no(codes::INVALID_PARAMS), None] {
            let era = negotiated(first, discover.clone(), yes(initialized())).await;
            assert_eq!(era, Some(Era::Legacy), "{first:?} {discover:?}");
        }
        // A modern server that refuses the handshake.
        let era = negotiated(first, yes(discovered()), no(codes::UNSUPPORTED_VERSION)).await;
        assert_eq!(era, Some(Era::Modern), "{first:?}");
        // A server of some other kind.
        assert_eq!(negotiated(first, no(codes::METHOD_NOT_FOUND), no(codes::METHOD_NOT_FOUND)).await, None);
        let future = yes(json!({ "protocolVersion": "2099-01-01", "capabilities": {} }));
        assert_eq!(negotiated(first, no(codes::METHOD_NOT_FOUND), future).await, None);
    }
    assert_eq!(negotiated(First::Discover, yes(discovered()), None).await, Some(Era::Modern));
    assert_eq!(negotiated(First::Initialize, None, yes(initialized())).await, Some(Era::Legacy));
}

#[tokio::test]
async fn what_outgrows_the_parser_is_no_message() {
    let limits = Limits::default();
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{}}}"#, "[".repeat(limits.depth_max));
    let mut bench = Bench::legacy().await;
    let (call, id) = bench.call("a").await;
    bench.server.raw(&format!("{deep}\n")).await;
    bench.server.result(id, json!({})).await;
    assert!(matches!(call.outcome().await, Outcome::Result(_)));
}
