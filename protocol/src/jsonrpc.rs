//! JSON-RPC 2.0 envelopes as MCP uses them, with the payload left as raw JSON.
//!
//! Only the envelope is decoded: `params`, `result` and `error` are carried as the sender wrote
//! them. Batches, which MCP dropped in revision 2025-06-18, are refused by name.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json::{self, JsonError, RawObject};

/// JSON-RPC error codes: those of the standard, those of MCP, and ours in the range that MCP leaves
/// to implementations (-32000 to -32019).
pub mod codes {
    /// Not valid JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// Valid JSON, but no valid request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// The method does not exist or is not available.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The parameters are wrong.
    pub const INVALID_PARAMS: i64 = -32602;
    /// Something broke inside the receiver.
    pub const INTERNAL_ERROR: i64 = -32603;

    /// Comity: no peer may lawfully run the call; `data.reasons` names each rule.
    pub const DENIED: i64 = -32001;
    /// Comity: nobody who offers the tool can be reached.
    pub const UNREACHABLE: i64 = -32010;
    /// Comity: the call may or may not have had its effect.
    pub const IN_DOUBT: i64 = -32003;
    /// Comity: no answer before the deadline.
    pub const TIMEOUT: i64 = -32004;
    /// Comity: a bound was reached; nothing was run.
    pub const OVERLOADED: i64 = -32005;
    /// Comity: the contract is not approved, or has changed since it was.
    pub const UNAPPROVED: i64 = -32006;
    /// Comity: the MCP server died during the call.
    pub const UPSTREAM_DIED: i64 = -32007;
    /// Comity: a message exceeds a size limit.
    pub const TOO_LARGE: i64 = -32008;
    /// Comity: the caller cancelled.
    pub const CANCELLED: i64 = -32009;

    /// MCP 2026-07-28: headers and body disagree.
    pub const HEADER_MISMATCH: i64 = -32020;
    /// MCP 2026-07-28: the client lacks a capability that the request needs.
    pub const MISSING_CLIENT_CAPABILITY: i64 = -32021;
    /// MCP 2026-07-28: the protocol version is not supported; `data.supported` lists those that are.
    pub const UNSUPPORTED_VERSION: i64 = -32022;
}

/// A request's id: chosen by the sender, unique among its requests in flight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// An integer. Fractions and integers beyond `i64` are refused.
    Number(i64),
    /// A string.
    String(String),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}

impl From<i64> for Id {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl Id {
    /// The id that `raw` is; `None` for anything but an integer or a string.
    pub fn from_raw(raw: &RawValue) -> Option<Self> {
        match json::as_str(raw) {
            Some(text) => Some(Self::String(text.into_owned())),
            None => raw.get().parse().ok().map(Self::Number),
        }
    }

    /// The id as raw JSON.
    pub fn to_raw(&self) -> Box<RawValue> {
        json::to_raw(self)
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::String(text) => json::write_string(out, text),
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::String(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_raw(&raw).ok_or_else(|| serde::de::Error::custom("an id is a string or an integer"))
    }
}

/// What [`Message::parse`] will look at, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message.
    pub bytes_max: usize,
    /// Levels of nested arrays and objects, the envelope included.
    pub depth_max: usize,
}

impl Default for Limits {
    /// 8 MiB (twice rmcp's body limit) and [`json::DEPTH_MAX`] levels.
    fn default() -> Self {
        Self { bytes_max: 8 << 20, depth_max: json::DEPTH_MAX }
    }
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not acceptable as JSON: too large, too deep, no UTF-8, bad syntax.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A JSON array: batches left MCP with revision 2025-06-18.
    #[error("JSON-RPC batches are not part of MCP; send each message by itself")]
    Batch,
    /// JSON, but no JSON-RPC 2.0 message.
    #[error("not a JSON-RPC 2.0 message: {0}")]
    Envelope(&'static str),
}

impl ParseError {
    /// The JSON-RPC code to answer with.
    pub fn code(&self) -> i64 {
        match self {
            Self::Json(JsonError::TooLarge { .. }) => codes::TOO_LARGE,
            Self::Json(JsonError::NotUtf8 { .. } | JsonError::Syntax(_)) => codes::PARSE_ERROR,
            Self::Json(_) | Self::Batch | Self::Envelope(_) => codes::INVALID_REQUEST,
        }
    }
}

/// One JSON-RPC message. Members of the envelope that JSON-RPC does not define are dropped; whatever
/// is inside `params`, `result` and `error` is kept to the byte.
#[derive(Debug, Clone)]
pub enum Message {
    /// Wants an answer.
    Request {
        /// The sender's id for it.
        id: Id,
        /// For example `tools/call`.
        method: String,
        /// An object in MCP, if present.
        params: Option<Box<RawValue>>,
    },
    /// Wants none.
    Notification {
        /// For example `notifications/progress`.
        method: String,
        /// An object in MCP, if present.
        params: Option<Box<RawValue>>,
    },
    /// The answer to a request.
    Response {
        /// The request's id.
        id: Id,
        /// An object in MCP.
        result: Box<RawValue>,
    },
    /// The refusal of a request.
    Error {
        /// The request's id; absent if the receiver could not read it.
        id: Option<Id>,
        /// The JSON-RPC error object; see [`RpcError::from_raw`].
        error: Box<RawValue>,
    },
}

impl Message {
    /// Reads one message. Size and nesting are checked before anything is decoded; leading and
    /// trailing whitespace is allowed, anything else around the message is not.
    pub fn parse(bytes: &[u8], limits: Limits) -> Result<Self, ParseError> {
        if bytes.len() > limits.bytes_max {
            return Err(JsonError::TooLarge { size: bytes.len(), max: limits.bytes_max }.into());
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| JsonError::NotUtf8 { valid_up_to: error.valid_up_to() })?;
        json::check_depth(bytes, limits.depth_max)?;
        match text.trim_ascii_start().as_bytes().first() {
            Some(b'{') => {}
            Some(b'[') => return Err(ParseError::Batch),
            _ if serde_json::from_str::<&RawValue>(text).is_ok() => {
                return Err(ParseError::Envelope("expected an object"));
            }
            _ => return Err(JsonError::Syntax("expected a JSON object".into()).into()),
        }
        serde_json::from_str::<Envelope<'_>>(text).map_err(JsonError::from)?.into_message()
    }

    /// A request.
    pub fn request(id: impl Into<Id>, method: impl Into<String>, params: Option<Box<RawValue>>) -> Self {
        Self::Request { id: id.into(), method: method.into(), params }
    }

    /// A notification.
    pub fn notification(method: impl Into<String>, params: Option<Box<RawValue>>) -> Self {
        Self::Notification { method: method.into(), params }
    }

    /// The refusal of the request `id`.
    pub fn error(id: Option<Id>, error: &RpcError) -> Self {
        Self::Error { id, error: error.to_raw() }
    }

    /// The method of a request or notification.
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request { method, .. } | Self::Notification { method, .. } => Some(method),
            Self::Response { .. } | Self::Error { .. } => None,
        }
    }

    /// The id of a request or of an answer.
    pub fn id(&self) -> Option<&Id> {
        match self {
            Self::Request { id, .. } | Self::Response { id, .. } => Some(id),
            Self::Error { id, .. } => id.as_ref(),
            Self::Notification { .. } => None,
        }
    }

    /// The params of a request or notification.
    pub fn params(&self) -> Option<&RawValue> {
        match self {
            Self::Request { params, .. } | Self::Notification { params, .. } => params.as_deref(),
            Self::Response { .. } | Self::Error { .. } => None,
        }
    }

    /// The bytes of params, result or error: what a message costs to keep.
    pub fn payload_len(&self) -> usize {
        match self {
            Self::Request { params, .. } | Self::Notification { params, .. } => {
                params.as_ref().map_or(0, |raw| raw.get().len())
            }
            Self::Response { result: raw, .. } | Self::Error { error: raw, .. } => raw.get().len(),
        }
    }

    /// The message as JSON text.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload_len() + 96);
        self.write(&mut out);
        out
    }

    /// Appends the message's JSON text to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"jsonrpc":"2.0""#);
        match self {
            Self::Request { id, method, params } => {
                write_id(out, Some(id));
                write_call(out, method, params.as_deref());
            }
            Self::Notification { method, params } => write_call(out, method, params.as_deref()),
            Self::Response { id, result } => {
                write_id(out, Some(id));
                write_member(out, "result", result);
            }
            Self::Error { id, error } => {
                write_id(out, id.as_ref());
                write_member(out, "error", error);
            }
        }
        out.push(b'}');
    }

    /// Appends the message on one line, with its newline: the framing of MCP over stdio. Raw
    /// payloads may contain line breaks between tokens, where they mean nothing (inside strings they
    /// are always escaped), so each becomes a space.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.write(out);
        flatten_lines(&mut out[start..]);
        out.push(b'\n');
    }
}

/// Appends a request whose params are still in parts, which saves the validation that making them a
/// [`RawValue`] would cost. Empty params are left out.
pub fn write_request(out: &mut Vec<u8>, id: &Id, method: &str, params: &RawObject) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0""#);
    write_id(out, Some(id));
    write_call(out, method, None);
    if !params.is_empty() {
        out.extend_from_slice(br#","params":"#);
        params.write(out);
    }
    out.push(b'}');
}

/// Turns each line break of a JSON text into a space, which leaves its meaning alone.
pub fn flatten_lines(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

fn write_id(out: &mut Vec<u8>, id: Option<&Id>) {
    out.extend_from_slice(br#","id":"#);
    match id {
        Some(id) => id.write(out),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_call(out: &mut Vec<u8>, method: &str, params: Option<&RawValue>) {
    out.extend_from_slice(br#","method":"#);
    json::write_string(out, method);
    if let Some(params) = params {
        write_member(out, "params", params);
    }
}

fn write_member(out: &mut Vec<u8>, key: &str, value: &RawValue) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(value.get().as_bytes());
}

/// The members of a message, borrowed; serde refuses each of them twice.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Tells a member that is `null` from one that is absent.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Envelope<'_> {
    fn into_message(self) -> Result<Message, ParseError> {
        if self.jsonrpc.as_deref() != Some("2.0") {
            return Err(ParseError::Envelope("\"jsonrpc\" must be \"2.0\""));
        }
        match (self.method, self.result, self.error) {
            (Some(method), None, None) => call(self.id, method.into_owned(), self.params),
            (None, Some(result), None) => {
                let id = self.id.ok_or(ParseError::Envelope("a response needs an id"))?;
                Ok(Message::Response { id: parse_id(id)?, result: result.to_owned() })
            }
            (None, None, Some(error)) => {
                let id = self.id.filter(|id| id.get() != "null").map(parse_id).transpose()?;
                Ok(Message::Error { id, error: error.to_owned() })
            }
            (None, None, None) => {
                Err(ParseError::Envelope("neither \"method\" nor \"result\" nor \"error\""))
            }
            _ => Err(ParseError::Envelope("more than one of \"method\", \"result\" and \"error\"")),
        }
    }
}

fn call(id: Option<&RawValue>, method: String, params: Option<&RawValue>) -> Result<Message, ParseError> {
    let params = params.map(RawValue::to_owned);
    match id {
        Some(id) => Ok(Message::Request { id: parse_id(id)?, method, params }),
        None => Ok(Message::Notification { method, params }),
    }
}

fn parse_id(raw: &RawValue) -> Result<Id, ParseError> {
    Id::from_raw(raw).ok_or(ParseError::Envelope("an id is a string or a 64-bit integer"))
}

/// A JSON-RPC error object of ours, or one that was read.
#[derive(Debug, Clone)]
pub struct RpcError {
    /// See [`codes`].
    pub code: i64,
    /// One sentence.
    pub message: String,
    /// Details for programs.
    pub data: Option<Box<RawValue>>,
}

impl RpcError {
    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// The same with data.
    pub fn with_data(mut self, data: Box<RawValue>) -> Self {
        self.data = Some(data);
        self
    }

    /// The error object as raw JSON.
    pub fn to_raw(&self) -> Box<RawValue> {
        #[derive(Serialize)]
        struct Object<'a> {
            code: i64,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<&'a RawValue>,
        }
        json::to_raw(&Object { code: self.code, message: &self.message, data: self.data.as_deref() })
    }

    /// Reads an error object, leniently: an error whose own shape is wrong must still reach its
    /// caller, so a missing code is [`codes::INTERNAL_ERROR`] and a missing message is empty.
    pub fn from_raw(raw: &RawValue) -> Self {
        let code = json::path(raw, &["code"]).and_then(|code| code.get().parse().ok());
        let message = json::path(raw, &["message"]).and_then(json::as_str);
        Self {
            code: code.unwrap_or(codes::INTERNAL_ERROR),
            message: message.unwrap_or_default().into_owned(),
            data: json::path(raw, &["data"]).map(RawValue::to_owned),
        }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for RpcError {}

#[cfg(test)]
mod tests;
