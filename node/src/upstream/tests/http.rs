//! Upstreams over streamable HTTP, against a server that can be told to misbehave.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{broadcast, mpsc, watch};

use super::super::config::UpstreamConfig;
use super::super::profile::Era;
use super::super::view::UpstreamState;
use super::{
    apply, call, called, failure, message, outcome, params, ready, result, set_of, tool_names, until,
};
use crate::config::servers::Launch;
use crate::config::setting::{HttpUrl, TextSetting};
use crate::exchange::{Failure, Incoming, Outcome, Outgoing};
use crate::secret::Secret;
use comity_protocol::json;
use comity_protocol::jsonrpc::Message;

/// What the fixture knows and does.
#[derive(Clone)]
struct Fixture(Arc<Inner>);

struct Inner {
    modern: bool,
    state: Mutex<Memory>,
    /// Everything that was posted, for tests to wait on.
    posted: watch::Sender<Vec<(HeaderMap, Value)>>,
    /// Events for whoever listens.
    events: broadcast::Sender<Value>,
}

#[derive(Default)]
struct Memory {
    sessions: BTreeSet<String>,
    unknown_session: UnknownSession,
    opened: usize,
    tools: Vec<&'static str>,
    /// Where the answer to a question of ours must go.
    questions: Vec<mpsc::Sender<Value>>,
}

/// A fixture on a port of its own, and the configuration that reaches it.
struct Site {
    fixture: Fixture,
    config: UpstreamConfig,
    address: SocketAddr,
    /// The server with all its connections, which end with it.
    serving: Option<Runtime>,
}

/// How a server says that it does not know a session: as the specification has it, or as the TypeScript SDK's example.
#[derive(Clone, Copy, Default)]
enum UnknownSession {
    #[default]
    NotFound,
    BadRequest,
}

impl UnknownSession {
    fn response(self) -> Response {
        let error = json!({ "code": -32000, "message": "Bad Request: No valid session ID provided" });
        match self {
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::BadRequest => {
                let body = json!({ "jsonrpc": "2.0", "error": error, "id": null }).to_string();
                (StatusCode::BAD_REQUEST, [("content-type", "application/json")], body).into_response()
            }
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}

fn site(modern: bool) -> Site {
    let memory = Memory { tools: vec!["json", "sse"], ..Memory::default() };
    let fixture = Fixture(Arc::new(Inner {
        modern,
        state: Mutex::new(memory),
        posted: watch::Sender::new(Vec::new()),
        events: broadcast::Sender::new(16),
    }));
    let (serving, address) = serve(fixture.clone(), "127.0.0.1:0".parse().unwrap());
    let headers = [("x-key".to_owned(), Secret::new("s3cret".into()))].into();
    let url = HttpUrl::from_text(&format!("http://{address}/mcp")).unwrap();
    let config = UpstreamConfig::new(Launch::Http { url, headers });
    Site { fixture, config, address, serving: Some(serving) }
}

fn serve(fixture: Fixture, address: SocketAddr) -> (Runtime, SocketAddr) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let router = Router::new().route("/mcp", post(posted).get(listened).delete(deleted)).with_state(fixture);
    let listener = std::net::TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        axum::serve(listener, router).await.unwrap();
    });
    (runtime, address)
}

impl Site {
    /// Cuts every connection.
    fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.shutdown_background();
        }
    }

    /// Serves again where it did before.
    fn restart(&mut self) {
        self.serving = Some(serve(self.fixture.clone(), self.address).0);
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.fixture.0.state.lock().unwrap()
    }

    /// Waits until a message of this method was posted and returns it with its headers.
    async fn posted(&self, method: &str) -> (HeaderMap, Value) {
        let mut posted = self.fixture.0.posted.subscribe();
        let found =
            posted.wait_for(|all| all.iter().any(|(_, message)| message["method"] == method)).await.unwrap();
        found.iter().rfind(|(_, message)| message["method"] == method).unwrap().clone()
    }

    fn count(&self, method: &str) -> usize {
        self.fixture.0.posted.borrow().iter().filter(|(_, message)| message["method"] == method).count()
    }
}

async fn posted(State(fixture): State<Fixture>, headers: HeaderMap, body: Bytes) -> Response {
    let message: Value = serde_json::from_slice(&body).unwrap();
    fixture.0.posted.send_modify(|all| all.push((headers.clone(), message.clone())));
    if headers.get("x-key").is_none_or(|key| key != "s3cret") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if fixture.0.modern { modern(&fixture, &headers, &message) } else { legacy(&fixture, &headers, &message) }
}

fn legacy(fixture: &Fixture, headers: &HeaderMap, message: &Value) -> Response {
    let session = headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
    let mut memory = fixture.0.state.lock().unwrap();
    match (message["method"].as_str(), session) {
        (Some("initialize"), None) => {
            memory.opened += 1;
            let id = format!("session-{}", memory.opened);
            memory.sessions.insert(id.clone());
            let result = json!({ "protocolVersion": "2025-06-18", "capabilities": { "tools": {} } });
            ([("mcp-session-id", id)], json_answer(message, result)).into_response()
        }
        (_, None) => (StatusCode::BAD_REQUEST, "no session").into_response(),
        (_, Some(id)) if !memory.sessions.contains(&id) => memory.unknown_session.response(),
        (Some("tools/list"), _) => json_answer(message, list(&memory)),
        (Some("tools/call"), _) => tool(fixture, &mut memory, message),
        (Some("ping"), _) => json_answer(message, json!({})),
        (Some(_), _) => StatusCode::ACCEPTED.into_response(),
        (None, _) => {
            for question in memory.questions.drain(..) {
                question.try_send(message.clone()).unwrap();
            }
            StatusCode::ACCEPTED.into_response()
        }
    }
}

fn modern(fixture: &Fixture, headers: &HeaderMap, message: &Value) -> Response {
    let method = message["method"].as_str().unwrap_or_default();
    if headers.get("mcp-method").is_none_or(|named| named != method) {
        return (StatusCode::BAD_REQUEST, "headers and body disagree").into_response();
    }
    let mut memory = fixture.0.state.lock().unwrap();
    match method {
        "server/discover" => json_answer(
            message,
            json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": { "listChanged": true } } }),
        ),
        "tools/list" => json_answer(message, list(&memory)),
        "tools/call" => tool(fixture, &mut memory, message),
        "subscriptions/listen" => stream(subscribed(fixture)),
        _ => {
            let error = json!({ "code": -32601, "message": "unknown" });
            let body = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
            (StatusCode::NOT_FOUND, [("content-type", "application/json")], body.to_string()).into_response()
        }
    }
}

fn list(memory: &Memory) -> Value {
    let schema = json!({ "type": "object", "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } });
    json!({ "tools": memory.tools.iter().map(|name| json!({ "name": name, "inputSchema": schema })).collect::<Vec<_>>() })
}

fn tool(fixture: &Fixture, memory: &mut Memory, message: &Value) -> Response {
    let token = &message["params"]["_meta"]["progressToken"];
    let progress = |n: i64| {
        let params = json!({ "progressToken": token, "progress": n });
        event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }))
    };
    let done = event(&answer(message, json!({ "done": true })));
    match message["params"]["name"].as_str().unwrap() {
        "json" => json_answer(message, json!({ "done": true })),
        "sse" => stream(futures::stream::iter([progress(1), progress(2), done])),
        "broken" => stream(futures::stream::iter([progress(1)])),
        "resumed" => {
            let later = json!({ "jsonrpc": "2.0", "method": "resume", "params": answer(message, json!({ "resumed": true })) });
            memory.tools.push("resumed");
            fixture.0.posted.send_modify(|all| all.push((HeaderMap::new(), later)));
            stream(futures::stream::iter([
                format!("id: 41\nretry: 10\n{}", progress(1)),
                "id: 42\n\n".to_owned(),
            ]))
        }
        "ask" => {
            let (question, mut reply) = mpsc::channel(1);
            memory.questions.push(question);
            let asked = json!({ "jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": {} });
            let request = message.clone();
            let rest = futures::stream::once(async move {
                let reply = reply.recv().await.unwrap();
                event(&answer(&request, json!({ "reply": reply })))
            });
            stream(futures::stream::iter([event(&asked)]).chain(rest))
        }
        "hang" => {
            let closed = OnDrop(fixture.clone());
            stream(futures::stream::iter([progress(1)]).chain(futures::stream::once(async move {
                let _closed = closed;
                std::future::pending().await
            })))
        }
        "huge" => json_answer(message, json!({ "text": "x".repeat(200_000) })),
        "huge_event" => stream(futures::stream::iter([event(&answer(message, json!("x".repeat(200_000))))])),
        "garbage" => ([("content-type", "application/json")], "<html>").into_response(),
        "busy" => StatusCode::TOO_MANY_REQUESTS.into_response(),
        "error500" => (StatusCode::INTERNAL_SERVER_ERROR, "oops").into_response(),
        "rpc_error" => {
            let error = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32602, "message": "no" } });
            (StatusCode::BAD_REQUEST, error.to_string()).into_response()
        }
        other => panic!("no tool {other}"),
    }
}

/// Says that a stream was closed by its reader.
struct OnDrop(Fixture);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let closed = (HeaderMap::new(), json!({ "method": "closed" }));
        self.0.0.posted.send_modify(|all| all.push(closed));
    }
}

async fn listened(State(fixture): State<Fixture>, headers: HeaderMap) -> Response {
    if fixture.0.modern {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    match headers.get("last-event-id").map(|id| id.to_str().unwrap()) {
        Some("42") => {
            let all = fixture.0.posted.borrow();
            let later =
                all.iter().rfind(|(_, message)| message["method"] == "resume").unwrap().1["params"].clone();
            stream(futures::stream::iter([event(&later)]))
        }
        _ => stream(subscribed(&fixture)),
    }
}

async fn deleted(State(fixture): State<Fixture>, headers: HeaderMap) -> StatusCode {
    let id = headers.get("mcp-session-id").unwrap().to_str().unwrap().to_owned();
    fixture.0.state.lock().unwrap().sessions.remove(&id);
    StatusCode::NO_CONTENT
}

fn subscribed(fixture: &Fixture) -> impl futures::Stream<Item = String> + Send + use<> {
    let events = fixture.0.events.subscribe();
    futures::stream::unfold(events, |mut events| async move {
        let message = events.recv().await.ok()?;
        Some((event(&message), events))
    })
}

fn answer(request: &Value, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": request["id"], "result": result })
}

fn json_answer(request: &Value, result: Value) -> Response {
    ([("content-type", "application/json")], answer(request, result).to_string()).into_response()
}

fn event(message: &Value) -> String {
    format!("event: message\ndata: {message}\n\n")
}

fn stream(events: impl futures::Stream<Item = String> + Send + 'static) -> Response {
    let body = Body::from_stream(events.map(Ok::<_, Infallible>));
    ([("content-type", "text/event-stream; charset=utf-8")], body).into_response()
}

#[tokio::test]
async fn both_eras_are_found_out_and_called() {
    for (modern, era) in [(false, Era::Legacy), (true, Era::Modern)] {
        let site = site(modern);
        let set = set_of([("a", site.config.clone())]);
        let view = ready(&set, "a").await;
        assert_eq!(view.profile.as_ref().unwrap().era, era);
        assert_eq!(tool_names(&view), ["json", "sse"]);
        assert_eq!(called(&set, "a", "json").await, json!({ "done": true }));
        let mut streamed = call(&set, "a", "sse", Value::Null);
        for step in [1, 2] {
            assert_eq!(
                params(&message(&mut streamed).await),
                json!({ "progressToken": "p", "progress": step })
            );
        }
        assert_eq!(result(outcome(streamed).await), json!({ "done": true }));
    }
}

#[tokio::test]
async fn modern_requests_repeat_their_arguments_in_headers() {
    let site = site(true);
    let set = set_of([("a", site.config.clone())]);
    ready(&set, "a").await;
    let (headers, _) = site.posted("server/discover").await;
    assert_eq!(headers["mcp-protocol-version"], "2026-07-28", "from the first request on");
    outcome(call(&set, "a", "json", json!({ "region": "eu" }))).await;
    let (headers, body) = site.posted("tools/call").await;
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(header("mcp-name").as_deref(), Some("json"));
    assert_eq!(header("mcp-param-region").as_deref(), Some("eu"));
    assert_eq!(header("mcp-protocol-version").as_deref(), Some("2026-07-28"));
    assert_eq!(header("mcp-session-id"), None);
    assert_eq!(body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(body["params"]["_meta"]["dev.comity/caller"]["org"], "acme.example");
}

#[tokio::test]
async fn an_expired_session_is_renewed_once_and_nobody_notices() {
    for unknown_session in [UnknownSession::NotFound, UnknownSession::BadRequest] {
        let site = site(false);
        site.memory().unknown_session = unknown_session;
        renewed_once(site).await;
    }
}

async fn renewed_once(site: Site) {
    let set = set_of([("a", site.config.clone())]);
    ready(&set, "a").await;
    assert_eq!(site.memory().opened, 1);
    site.memory().sessions.clear();
    let calls: Vec<_> = (0..8).map(|_| call(&set, "a", "json", Value::Null)).collect();
    for call in calls {
        assert_eq!(result(outcome(call).await), json!({ "done": true }));
    }
    assert_eq!(site.memory().opened, 2, "one renewal served all of them");
    let (headers, _) = site.posted("tools/call").await;
    assert_eq!(headers["mcp-session-id"], "session-2");
    assert_eq!(headers["mcp-protocol-version"], "2025-06-18");
}

#[tokio::test]
async fn a_stream_that_breaks_is_resumed_if_the_server_allows_it() {
    let site = site(false);
    let set = set_of([("a", site.config.clone())]);
    ready(&set, "a").await;
    assert_eq!(called(&set, "a", "resumed").await, json!({ "resumed": true }));
    assert_eq!(site.count("tools/call"), 1, "the request itself is not sent again");
    let broken = failure(outcome(call(&set, "a", "broken", Value::Null)).await);
    assert!(matches!(broken, Failure::UpstreamDied { handed_over: true, .. }), "{broken:?}");
    assert_eq!(site.count("tools/call"), 2, "nor here, where it may have had an effect");
}

#[tokio::test]
async fn a_question_on_a_calls_stream_is_tied_to_the_call() {
    let site = site(false);
    let set = set_of([("a", site.config.clone())]);
    ready(&set, "a").await;
    let mut asked = call(&set, "a", "ask", Value::Null);
    // Another call in flight: over HTTP that makes nothing ambiguous.
    let mut other = call(&set, "a", "hang", Value::Null);
    message(&mut other).await;
    let question = message(&mut asked).await;
    assert_eq!(question.method(), Some("elicitation/create"));
    let reply =
        Message::Response { id: question.id().unwrap().clone(), result: json::to_raw(&json!({ "yes": 1 })) };
    asked.outgoing.send(Outgoing::Message(reply)).await.unwrap();
    let answered = result(outcome(asked).await);
    assert_eq!(answered["reply"], json!({ "jsonrpc": "2.0", "id": 7, "result": { "yes": 1 } }));
}

#[tokio::test]
async fn cancelling_closes_the_stream_and_tells_legacy_servers() {
    for modern in [false, true] {
        let site = site(modern);
        let set = set_of([("a", site.config.clone())]);
        ready(&set, "a").await;
        let mut hanging = call(&set, "a", "hang", Value::Null);
        message(&mut hanging).await;
        hanging.outgoing.send(Outgoing::Cancel { reason: None }).await.unwrap();
        assert_eq!(failure(outcome(hanging).await), Failure::Cancelled { handed_over: true });
        site.posted("closed").await;
        if !modern {
            let (_, request) = site.posted("tools/call").await;
            let (_, cancelled) = site.posted("notifications/cancelled").await;
            assert_eq!(cancelled["params"]["requestId"], request["id"]);
        }
    }
}

#[tokio::test]
async fn changed_lists_are_heard_of_in_both_eras() {
    for modern in [false, true] {
        let site = site(modern);
        let set = set_of([("a", site.config.clone())]);
        ready(&set, "a").await;
        site.memory().tools.push("new");
        let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
        // The listener connects on its own time; until it has, there is nobody to tell.
        while site.fixture.0.events.send(changed.clone()).is_err() {
            tokio::task::yield_now().await;
        }
        until(&set, "a", |view| view.offerings.tools.len() == 3).await;
    }
}

#[tokio::test]
async fn what_a_server_may_have_processed_is_told_from_what_it_did_not() {
    let site = site(false);
    let mut config = site.config.clone();
    config.message_bytes_max = 100_000;
    let set = set_of([("a", config)]);
    ready(&set, "a").await;
    for (tool, code, handed_over) in [
        ("huge", -32008, true),
        ("huge_event", -32008, true),
        ("garbage", -32007, true),
        ("busy", -32005, false),
        ("error500", -32007, true),
    ] {
        let failed = failure(outcome(call(&set, "a", tool, Value::Null)).await);
        assert_eq!((failed.code(), failed.handed_over()), (code, handed_over), "{tool}: {failed:?}");
    }
    let refused = outcome(call(&set, "a", "rpc_error", Value::Null)).await;
    assert!(matches!(&refused, Outcome::Error(error) if error.get().contains("-32602")), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_goes_away_is_noticed_and_found_again() {
    let mut site = site(false);
    let set = set_of([("a", site.config.clone())]);
    ready(&set, "a").await;
    let mut hanging = call(&set, "a", "hang", Value::Null);
    message(&mut hanging).await;
    site.stop();
    let cut = failure(outcome(hanging).await);
    assert!(matches!(cut, Failure::UpstreamDied { handed_over: true, .. }), "{cut:?}");
    let down = until(&set, "a", |view| view.state == UpstreamState::Down).await;
    assert_eq!(tool_names(&down), ["json", "sse"], "known tools stay known");
    let refused = failure(outcome(call(&set, "a", "json", Value::Null)).await);
    assert!(matches!(refused, Failure::Unreachable { .. }), "{refused:?}");
    assert!(!refused.to_string().contains("127.0.0.1"), "callers learn nothing of this network");
    site.memory().sessions.clear();
    site.restart();
    ready(&set, "a").await;
    assert_eq!(called(&set, "a", "json").await, json!({ "done": true }));
}

#[tokio::test]
async fn a_wrong_key_is_reported_to_the_operator_and_not_to_callers() {
    let site = site(false);
    let mut config = site.config.clone();
    let Launch::Http { headers, .. } = &mut config.launch else { unreachable!() };
    headers.insert("x-key".into(), Secret::new("wr0ng".into()));
    let set = set_of([("a", config)]);
    let view = until(&set, "a", |view| view.last_error.is_some()).await;
    assert!(view.last_error.as_ref().unwrap().contains("401"), "{view:?}");
    assert!(!format!("{view:?}").contains("wr0ng"));
    assert!(matches!(
        failure(outcome(call(&set, "a", "json", Value::Null)).await),
        Failure::Unreachable { .. }
    ));
}

#[tokio::test]
async fn a_session_is_ended_politely() {
    let site = site(false);
    let set = set_of([("a", site.config.clone())]);
    ready(&set, "a").await;
    let mut streamed = call(&set, "a", "sse", Value::Null);
    while !matches!(streamed.next().await, Incoming::Done(_)) {}
    assert_eq!(site.memory().sessions.len(), 1);
    apply(&set, []);
    set.shutdown().await;
    let mut tries = 0;
    while !site.memory().sessions.is_empty() {
        tries += 1;
        assert!(tries < 5000, "the session was not ended");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}
