//! An MCP client of 2026-07-28: JSON-RPC over HTTP, no session. It knows of Comity what its documentation says of
//! `_meta`, and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::exchange::DenialReason;

/// The revision that is spoken.
pub(super) const REVISION: &str = "2026-07-28";
/// How long an answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Largest answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// The `_meta` keys of Comity.
const CONSTRAINTS: &str = "dev.comity/constraints";
const RECEIPT: &str = "dev.comity/receipt";

/// The JSON-RPC code that says: nobody may run it.
pub(super) const DENIED: i64 = -32001;
/// The JSON-RPC code that says: nobody who may run it can be reached.
pub(super) const UNREACHABLE: i64 = -32002;

/// Why the client was not answered.
#[derive(Debug, Error)]
pub(super) enum McpError {
    /// The endpoint cannot be reached, or broke off.
    #[error("the client cannot talk to the node: {0}")]
    Http(#[from] reqwest::Error),
    /// The answer is larger than it may be.
    #[error("the answer has more than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    /// What came is not the answer to what was asked.
    #[error("the node did not answer {method} in MCP (HTTP {status})")]
    NotMcp { method: &'static str, status: u16 },
    /// The answer is an error.
    #[error("{method} was answered with the error {}: {}", error.code, error.message)]
    Rpc { method: &'static str, error: RpcFault },
}

/// A JSON-RPC error.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RpcFault {
    pub(super) code: i64,
    pub(super) message: String,
    #[serde(default)]
    pub(super) data: ErrorData,
}

/// What Comity puts into an error's `data`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ErrorData {
    #[serde(default)]
    pub(super) reasons: Vec<DenialReason>,
}

/// A tool as it is listed.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ListedTool {
    pub(super) name: String,
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
}

/// The result of a tool.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolResult {
    #[serde(default)]
    pub(super) is_error: bool,
    #[serde(default)]
    pub(super) structured_content: Value,
    #[serde(rename = "_meta", default)]
    meta: Value,
}

impl ToolResult {
    /// The receipt of whoever ran it, if it was another node.
    pub(super) fn receipt(&self) -> Option<&Value> {
        self.meta.get(RECEIPT)
    }
}

/// The client.
pub(super) struct McpClient {
    http: reqwest::Client,
    url: String,
    next_id: AtomicU64,
}

impl McpClient {
    /// A client of the endpoint at `url`.
    pub(super) fn new(url: String) -> Result<Self, McpError> {
        let http =
            reqwest::Client::builder().no_proxy().tcp_nodelay(true).timeout(ANSWER_DEADLINE).build()?;
        Ok(Self { http, url, next_id: AtomicU64::new(1) })
    }

    /// Where it connects.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Asks the server who it is: its name and version.
    pub(super) async fn discover(&self) -> Result<String, McpError> {
        let found = self.request("server/discover", "", json!({})).await?;
        let info = &found["_meta"]["io.modelcontextprotocol/serverInfo"];
        let [name, version] = ["name", "version"].map(|key| info[key].as_str().unwrap_or("?"));
        Ok(format!("{name} {version}"))
    }

    /// Every tool.
    pub(super) async fn list_tools(&self) -> Result<Vec<ListedTool>, McpError> {
        const METHOD: &str = "tools/list";
        let mut tools = Vec::new();
        let mut cursor = Value::Null;
        loop {
            let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
            let mut page = self.request(METHOD, "", params).await?;
            let listed: Vec<ListedTool> = read(METHOD, page["tools"].take())?;
            tools.extend(listed);
            cursor = page["nextCursor"].take();
            if cursor.is_null() {
                return Ok(tools);
            }
        }
    }

    /// Calls a tool under `constraints`, a JSON object that may be empty.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: &Value,
        constraints: &Value,
    ) -> Result<ToolResult, McpError> {
        const METHOD: &str = "tools/call";
        let meta = json!({ CONSTRAINTS: constraints });
        let params = json!({ "name": tool, "arguments": arguments, "_meta": meta });
        read(METHOD, self.request(METHOD, tool, params).await?)
    }

    async fn request(&self, method: &'static str, name: &str, mut params: Value) -> Result<Value, McpError> {
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(REVISION);
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        params["_meta"]["io.modelcontextprotocol/clientInfo"] =
            json!({ "name": "comity-demo", "version": env!("CARGO_PKG_VERSION") });
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let mut request = self
            .http
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .header("mcp-protocol-version", REVISION)
            .header("mcp-method", method)
            .body(body.to_string());
        if !name.is_empty() {
            request = request.header("mcp-name", name);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let messages = messages(&whole(response).await?);
        let not_mcp = McpError::NotMcp { method, status };
        let mut answer = messages.into_iter().find(|message| message["id"] == id).ok_or(not_mcp)?;
        match answer.get_mut("error") {
            Some(error) => Err(McpError::Rpc { method, error: read(method, error.take())? }),
            None => Ok(answer["result"].take()),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(method: &'static str, value: Value) -> Result<T, McpError> {
    serde_json::from_value(value).map_err(|_| McpError::NotMcp { method, status: 200 })
}

async fn whole(mut response: reqwest::Response) -> Result<Vec<u8>, McpError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(McpError::TooLarge);
        }
    }
    Ok(body)
}

/// The messages of a body: one JSON document, or a stream of events with one each.
fn messages(body: &[u8]) -> Vec<Value> {
    if let Ok(message) = serde_json::from_slice(body) {
        return vec![message];
    }
    let text = String::from_utf8_lossy(body);
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_found_in_a_document_and_in_a_stream() {
        let answer = json!({ "jsonrpc": "2.0", "id": 7, "result": {} });
        assert_eq!(messages(answer.to_string().as_bytes()), vec![answer.clone()]);
        let note = json!({ "jsonrpc": "2.0", "method": "notifications/progress" });
        let stream = format!(": hello\n\nid: 1\ndata:\n\ndata: {note}\n\ndata: {answer}\n\n");
        assert_eq!(messages(stream.as_bytes()), vec![note, answer]);
        assert_eq!(messages(b"<html>"), Vec::<Value>::new());
    }
}
