//! A plain HTTP client that shows everything: status, headers, and events one by one.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle};

use super::soon;

pub(crate) const MODERN: &str = "2026-07-28";

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// Sent with every request.
    pub(crate) headers: Vec<(String, String)>,
    /// The endpoint.
    path: String,
}

/// An answer whose body is still to come.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    text: String,
    connection: JoinHandle<()>,
}

/// An event of a stream.
#[derive(Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new(), path: "/mcp".into() }
    }

    /// The same client at another endpoint.
    pub(crate) fn at(&self, path: &str) -> Self {
        Self { path: path.into(), ..self.clone() }
    }

    /// The same client with one more header on each request, in place of an older value.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.retain(|(known, _)| known != name);
        client.headers.push((name.into(), value.into()));
        client
    }

    /// The same client without a default header.
    pub(crate) fn without(&self, name: &str) -> Self {
        self.with(name, "")
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(async { connection.await.unwrap_or_default() });
        let defaults = [
            ("host", self.address.to_string()),
            ("accept", "application/json, text/event-stream".into()),
            ("content-type", "application/json".into()),
        ];
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in defaults {
            if !self.headers.iter().any(|(known, _)| known == name) {
                request = request.header(name, value);
            }
        }
        for (name, value) in self.headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name, value);
        }
        let answer = soon(sender.send_request(request.body(Full::new(body.into())).unwrap())).await.unwrap();
        let (head, body) = answer.into_parts();
        Answer { status: head.status.as_u16(), headers: head.headers, body, text: String::new(), connection }
    }

    pub(crate) async fn post(&self, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, &self.path, body).await
    }

    /// A request of the legacy era, or one that is wrong on purpose.
    pub(crate) async fn request(&self, id: Value, method: &str, params: Value) -> Answer {
        self.post(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()).await
    }

    pub(crate) async fn notify(&self, method: &str, params: Value) -> Answer {
        self.post(json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()).await
    }

    /// A correct request of 2026-07-28.
    pub(crate) async fn modern(&self, method: &str, params: Value) -> Answer {
        self.modern_able(method, params, json!({ "roots": {} })).await
    }

    /// The same of a client with these capabilities.
    pub(crate) async fn modern_able(&self, method: &str, params: Value, capabilities: Value) -> Answer {
        let mut client = self.with("mcp-protocol-version", MODERN).with("mcp-method", method);
        if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
            client = client.with("mcp-name", name);
        }
        let mut params = with_meta(params, MODERN);
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
        client.request(json!(1), method, params).await
    }

    pub(crate) async fn call(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Answer {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": 7 } });
        self.request(id.into(), "tools/call", params).await
    }

    /// Opens a legacy session.
    pub(crate) async fn initialize(&self, version: &str) -> Self {
        self.initialize_able(version, json!({ "elicitation": {} })).await
    }

    /// The same for a client with these capabilities.
    pub(crate) async fn initialize_able(&self, version: &str, capabilities: Value) -> Self {
        let params = json!({ "protocolVersion": version, "capabilities": capabilities });
        let answer = self.request(json!(0), "initialize", params).await;
        let id = answer.header("mcp-session-id").to_owned();
        let result = answer.json().await;
        let version = result["result"]["protocolVersion"].as_str().unwrap();
        let client = self.with("mcp-session-id", &id).with("mcp-protocol-version", version);
        assert_eq!(client.notify("notifications/initialized", json!({})).await.status, 202);
        client
    }

    pub(crate) async fn get(&self) -> Answer {
        self.send(Method::GET, &self.path, "").await
    }
}

/// Adds what 2026-07-28 requires in `_meta`.
pub(crate) fn with_meta(mut params: Value, version: &str) -> Value {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(version);
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "roots": {} });
    params
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.header("content-type") == "text/event-stream"
    }

    /// The rest of the body.
    pub(crate) async fn text(mut self) -> String {
        while self.more().await {}
        std::mem::take(&mut self.text)
    }

    pub(crate) async fn json(self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
    }

    /// The next event, comments left out; `None` at the end.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                match field("data: ") {
                    Some(data) => return Some(Event { id: field("id: "), data }),
                    None => continue,
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Waits for the next sign of life of a stream on which nothing else comes.
    pub(crate) async fn silence(&mut self) {
        self.text.clear();
        assert!(self.more().await, "the stream ended");
        assert!(self.text.lines().all(|line| line.is_empty() || line == ":"), "{}", self.text);
        self.text.clear();
    }

    /// The next message of a stream; events that only carry an id are passed over.
    pub(crate) async fn message(&mut self) -> Option<Value> {
        loop {
            let event = self.event().await?;
            if !event.data.is_empty() {
                return Some(serde_json::from_str(&event.data).unwrap());
            }
        }
    }

    /// Every message until the end.
    pub(crate) async fn messages(mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(message) = self.message().await {
            all.push(message);
        }
        all
    }

    async fn more(&mut self) -> bool {
        match soon(self.body.frame()).await {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                self.text.push_str(std::str::from_utf8(&data).unwrap());
                true
            }
            _ => false,
        }
    }
}

/// A client that goes away.
impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
