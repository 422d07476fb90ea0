//! The headers of 2026-07-28 that repeat parts of the body, so that middleboxes can route without reading it.
//! Header and body must agree: otherwise a middlebox and this node would act on different requests.
//!
//! Source: MCP 2026-07-28 "Streamable HTTP", section "Request Metadata".

use std::borrow::Cow;

use comity_protocol::{
    json,
    jsonrpc::{RpcError, codes},
};
use data_encoding::BASE64;
use hyper::{HeaderMap, header::HeaderName};
use serde_json::{Value, value::RawValue};

use super::params::{Head, Request};

/// The revision that a request speaks.
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The legacy session.
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// Where a legacy client wants to resume a stream.
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const PARAM_PREFIX: &str = "mcp-param-";

/// The JSON Schema keyword that names a parameter's header.
const ANNOTATION: &str = "x-mcp-header";

/// Checks `MCP-Protocol-Version` of a modern request against its body.
///
/// # Errors
/// `-32020`.
pub(super) fn check_version(headers: &HeaderMap, version: &RawValue) -> Result<(), RpcError> {
    let body = json::as_str(version).unwrap_or_default();
    match sole(headers, &VERSION)? {
        Some(header) if header == body => Ok(()),
        Some(header) => Err(mismatch(format!("MCP-Protocol-Version is `{header}`, the body says `{body}`"))),
        None => Err(mismatch("the MCP-Protocol-Version header is missing")),
    }
}

/// Checks `Mcp-Method` and `Mcp-Name` of a modern request.
///
/// # Errors
/// `-32020`.
pub(super) fn check_standard(
    headers: &HeaderMap,
    request: &Request,
    head: &Head<'_>,
) -> Result<(), RpcError> {
    match sole(headers, &METHOD)? {
        Some(method) if method == request.method => {}
        Some(method) => {
            return Err(mismatch(format!(
                "Mcp-Method is `{method}`, the body says `{}`",
                shown(&request.method)
            )));
        }
        None => return Err(mismatch("the Mcp-Method header is missing")),
    }
    let named = match request.method.as_str() {
        "tools/call" | "prompts/get" => head.params.name,
        "resources/read" => head.params.uri,
        "tasks/get" | "tasks/update" | "tasks/cancel" => head.params.task_id,
        _ => None,
    };
    let Some(name) = named.and_then(json::as_str) else { return Ok(()) };
    let header = sole(headers, &NAME)?.ok_or_else(|| mismatch("the Mcp-Name header is missing"))?;
    let header = decode(header).ok_or_else(|| mismatch("Mcp-Name is not valid Base64"))?;
    if header == name {
        return Ok(());
    }
    Err(mismatch(format!("Mcp-Name is `{}`, the body says `{}`", shown(&header), shown(&name))))
}

/// Checks the `Mcp-Param-*` headers of a modern `tools/call` against the arguments, as the tool's own schema asks.
/// Headers that the schema does not ask for are ignored.
///
/// # Errors
/// `-32020`.
pub(super) fn check_params(headers: &HeaderMap, tool: &RawValue, head: &Head<'_>) -> Result<(), RpcError> {
    // Nearly no tool uses this: a search for the keyword keeps it off the usual path.
    if memchr::memmem::find(tool.get().as_bytes(), ANNOTATION.as_bytes()).is_none() {
        return Ok(());
    }
    let schema: Value = json::path(tool, &["inputSchema"]).and_then(parse).unwrap_or_default();
    let arguments: Value = head.params.arguments.and_then(parse).unwrap_or_default();
    annotated(&schema, &arguments, &mut |header, argument| check_param(headers, header, argument))
}

fn check_param(headers: &HeaderMap, header: &str, argument: Option<&Value>) -> Result<(), RpcError> {
    let Ok(name) = HeaderName::try_from(format!("{PARAM_PREFIX}{header}")) else {
        return Ok(()); // No header can bear that name; clients must leave such a tool out.
    };
    let expected = argument.and_then(primitive);
    match (sole(headers, &name)?, expected) {
        (None, None) => Ok(()),
        (Some(_), None) => Err(mismatch(format!("{name} is given, its parameter is not"))),
        (None, Some(_)) => Err(mismatch(format!("{name} is missing"))),
        (Some(value), Some(expected)) => {
            let value = decode(value).ok_or_else(|| mismatch(format!("{name} is not valid Base64")))?;
            if same(&value, &expected, argument) {
                return Ok(());
            }
            Err(mismatch(format!("{name} is `{}`, the body says `{}`", shown(&value), shown(&expected))))
        }
    }
}

/// Calls `found` for each annotated property with the argument at the same place. Only chains of `properties` count.
/// Depth is bounded by that of the parsed schema.
fn annotated(
    schema: &Value,
    arguments: &Value,
    found: &mut impl FnMut(&str, Option<&Value>) -> Result<(), RpcError>,
) -> Result<(), RpcError> {
    let Some(Value::Object(properties)) = schema.get("properties") else { return Ok(()) };
    for (key, property) in properties {
        let argument = arguments.get(key);
        if let Some(header) =
            property.get(ANNOTATION).and_then(Value::as_str).filter(|header| !header.is_empty())
        {
            found(header, argument)?;
        }
        annotated(property, argument.unwrap_or(&Value::Null), found)?;
    }
    Ok(())
}

fn parse(raw: &RawValue) -> Option<Value> {
    serde_json::from_str(raw.get()).ok()
}

fn primitive(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Numbers are compared as numbers: `42.0` is `42`.
fn same(header: &str, body: &str, argument: Option<&Value>) -> bool {
    let as_number = |text: &str| text.parse::<f64>().ok();
    header == body
        || matches!(argument, Some(Value::Number(_)))
            && as_number(header).is_some()
            && as_number(header) == as_number(body)
}

/// Undoes the encoding of values that no header can hold: `=?base64?…?=`.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    let Some(inner) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Some(Cow::Borrowed(value));
    };
    let bytes = BASE64.decode(inner.as_bytes()).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The only value of a header.
///
/// # Errors
/// `-32020` when it is given twice (two readers may choose differently) or holds characters that are no text.
pub(super) fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, RpcError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(mismatch(format!("{name} is given twice")));
    }
    let text =
        first.map(|value| value.to_str().map_err(|_| mismatch(format!("{name} has invalid characters"))));
    text.transpose()
}

fn mismatch(detail: impl AsRef<str>) -> RpcError {
    RpcError::new(codes::HEADER_MISMATCH, format!("Header mismatch: {}", detail.as_ref()))
}

/// Enough of a foreign value for a message.
fn shown(value: &str) -> String {
    const CHARS_SHOWN: usize = 100;
    value.chars().take(CHARS_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use comity_protocol::jsonrpc::Id;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, hyper::header::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn call(method: &str, params: &str) -> Request {
        let params = Some(RawValue::from_string(params.into()).unwrap());
        Request { id: Id::Number(1), method: method.into(), params }
    }

    #[test]
    fn standard_headers() {
        let check = |pairs: &[(&'static str, &str)], method: &str, params: &str| {
            let request = call(method, params);
            check_standard(&headers(pairs), &request, &request.head().unwrap()).map_err(|error| error.code)
        };
        let bad = Err(codes::HEADER_MISMATCH);
        assert_eq!(check(&[("mcp-method", "tools/list")], "tools/list", "{}"), Ok(()));
        assert_eq!(check(&[("mcp-method", "tools/list"), ("mcp-name", "x")], "tools/list", "{}"), Ok(()));
        assert_eq!(check(&[], "tools/list", "{}"), bad);
        assert_eq!(check(&[("mcp-method", "Tools/List")], "tools/list", "{}"), bad);
        assert_eq!(
            check(&[("mcp-method", "tools/list"), ("mcp-method", "tools/list")], "tools/list", "{}"),
            bad
        );
        let tool = r#"{"name":"héllo"}"#;
        let method = ("mcp-method", "tools/call");
        assert_eq!(check(&[method, ("mcp-name", "=?base64?aMOpbGxv?=")], "tools/call", tool), Ok(()));
        for wrong in ["hello", "=?base64?!!?=", "=?base64?aMOpbGx?=", "h\u{e9}llo"] {
            assert_eq!(check(&[method, ("mcp-name", wrong)], "tools/call", tool), bad, "{wrong}");
        }
        assert_eq!(check(&[method], "tools/call", tool), bad);
    }

    #[test]
    fn parameter_headers() {
        let tool = r#"{"name":"t","inputSchema":{"properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "deep":{"properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}}}"#;
        let tool = RawValue::from_string(tool.into()).unwrap();
        let check = |pairs: &[(&'static str, &str)], arguments: &str| {
            let request = call("tools/call", &format!(r#"{{"name":"t","arguments":{arguments}}}"#));
            check_params(&headers(pairs), &tool, &request.head().unwrap()).is_ok()
        };
        assert!(check(&[("mcp-param-region", "eu"), ("mcp-param-other", "?")], r#"{"region":"eu"}"#));
        assert!(check(&[], r#"{"region":null}"#) && check(&[], "{}") && check(&[], "[]"));
        assert!(check(&[("mcp-param-n", "42.0")], r#"{"deep":{"n":42}}"#));
        assert!(!check(&[], r#"{"region":"eu"}"#));
        assert!(!check(&[("mcp-param-region", "eu")], "{}"));
        assert!(!check(&[("mcp-param-region", "us")], r#"{"region":"eu"}"#));
        assert!(!check(&[("mcp-param-n", "43")], r#"{"deep":{"n":42}}"#));
    }
}
