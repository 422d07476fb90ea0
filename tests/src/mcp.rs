//! MCP over HTTP by hand, in both eras: what no client library would send, and what it would not show.

use serde_json::{Value, json};

use crate::http::{self, Response, Url};

/// The revision of the legacy era that is spoken here.
pub const LEGACY: &str = "2025-11-25";
/// The revision of the modern era that is spoken here.
pub const MODERN: &str = "2026-07-28";

/// A client of one endpoint.
#[derive(Debug, Clone)]
pub struct Mcp {
    url: Url,
    token: Option<String>,
    session: Option<String>,
    era: Era,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

/// What a request brought.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP answer.
    pub http: Response,
    /// The notifications and requests that came before the answer, in order.
    pub before: Vec<Value>,
    /// The JSON-RPC answer.
    pub answer: Value,
}

impl Mcp {
    /// A client that says with each request who it is and what it can.
    pub fn modern(url: &str) -> Self {
        Mcp { url: Url::parse(url), token: None, session: None, era: Era::Modern }
    }

    /// A client with a session, opened by `initialize`.
    pub fn legacy(url: &str) -> Self {
        let mut client = Mcp { url: Url::parse(url), token: None, session: None, era: Era::Legacy };
        let params = json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": { "name": "blackbox", "version": "1" } });
        let reply = client.request("initialize", params);
        client.session = reply.http.header("mcp-session-id").map(str::to_owned);
        client.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string());
        client
    }

    /// It presents this bearer token.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Sends a request and waits for its answer.
    pub fn request(&self, method: &str, params: Value) -> Reply {
        let reply = self.post(&self.message(method, params).to_string());
        self.read(reply)
    }

    /// Calls a tool.
    pub fn call(&self, tool: &str, arguments: Value) -> Reply {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// The request as JSON-RPC, with what the era demands.
    pub fn message(&self, method: &str, mut params: Value) -> Value {
        if self.era == Era::Modern {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
            params["_meta"]["io.modelcontextprotocol/clientInfo"] =
                json!({ "name": "blackbox", "version": "1" });
        }
        json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
    }

    /// Sends a body as it is, with the headers that the era demands.
    pub fn post(&self, body: &str) -> Response {
        http::exchange(&self.url, &self.bytes(body))
    }

    /// Sends a body as it is and leaves the answer unread.
    pub fn open(&self, body: &str) -> http::Answer {
        http::answer(http::send(&self.url, &self.bytes(body))).expect("an answer")
    }

    /// A connection that is kept, for many requests.
    pub fn keep(&self) -> http::Kept {
        http::Kept::open(&self.url)
    }

    /// Sends a request on a kept connection and waits for its answer. No id is used twice on one connection.
    pub fn request_on(&self, kept: &mut http::Kept, method: &str, params: Value) -> Reply {
        let mut message = self.message(method, params);
        message["id"] = json!(kept.posts + 1);
        let body = message.to_string();
        let reply = self.with_headers(&body, |headers| kept.post(headers, body.as_bytes()));
        self.read(reply)
    }

    fn bytes(&self, body: &str) -> Vec<u8> {
        self.with_headers(body, |headers| http::request("POST", &self.url, headers, body.as_bytes()))
    }

    /// The headers that a body needs.
    fn with_headers<T>(&self, body: &str, then: impl FnOnce(&[(&str, &str)]) -> T) -> T {
        let message: Value = serde_json::from_str(body).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = ["name", "uri", "taskId"].map(|key| text(&message["params"][key]));
        let (method, name) = (text(&message["method"]), named.concat());
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", if self.era == Era::Modern { MODERN } else { LEGACY }),
        ];
        headers.extend(self.session.as_deref().map(|session| ("mcp-session-id", session)));
        headers.extend(authorization.as_deref().map(|token| ("authorization", token)));
        if self.era == Era::Modern {
            headers.push(("mcp-method", &method));
            if !name.is_empty() {
                headers.push(("mcp-name", &name));
            }
        }
        then(&headers)
    }

    #[track_caller]
    fn read(&self, http: Response) -> Reply {
        let text = http.text();
        let is_stream = http.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        let mut messages =
            if is_stream { events(&text) } else { serde_json::from_str(&text).into_iter().collect() };
        let answer = messages.pop().unwrap_or_else(|| panic!("no JSON-RPC answer in {http:?}: {text}"));
        Reply { http, before: messages, answer }
    }
}

/// The messages of a stream of server-sent events.
fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter(|data| !data.trim().is_empty())
        .map(|data| {
            serde_json::from_str(data.trim()).unwrap_or_else(|error| panic!("not JSON ({error}): {data}"))
        })
        .collect()
}

impl Reply {
    /// The result, of a request that must have succeeded.
    #[track_caller]
    pub fn result(&self) -> &Value {
        assert!(self.answer.get("result").is_some(), "no result: {}", self.answer);
        &self.answer["result"]
    }

    /// The error, of a request that must have failed.
    #[track_caller]
    pub fn error(&self) -> &Value {
        assert!(self.answer.get("error").is_some(), "no error: {}", self.answer);
        &self.answer["error"]
    }

    /// The text of a tool's result.
    #[track_caller]
    pub fn text(&self) -> &str {
        self.result()["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {}", self.answer))
    }
}
