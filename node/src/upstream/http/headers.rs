//! The headers that repeat parts of a request for intermediaries, as 2026-07-28 requires them:
//! `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*`.

use std::borrow::Cow;
use std::collections::HashMap;

use comity_protocol::json::{self, RawObject};
use data_encoding::BASE64;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use serde_json::value::RawValue;

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// Annotated arguments of one tool; more are ignored.
const PARAMS_MAX: usize = 64;

/// Which arguments of which tools must be repeated in headers: those whose schema says `x-mcp-header`.
#[derive(Debug, Default)]
pub(super) struct ParamHeaders {
    tools: HashMap<String, Vec<ParamHeader>>,
}

#[derive(Debug, PartialEq, Eq)]
struct ParamHeader {
    path: Vec<String>,
    header: HeaderName,
}

impl ParamHeaders {
    /// Reads the schemas of a server's tools.
    pub(super) fn read<'a>(tools: impl Iterator<Item = &'a RawValue>) -> Self {
        // Most tools have no such annotation: a search is much cheaper than a parse.
        let annotated = tools.filter(|tool| tool.get().contains("x-mcp-header"));
        Self { tools: annotated.filter_map(annotations).collect() }
    }

    /// The headers of one request.
    pub(super) fn of(&self, method: &str, params: &RawObject) -> HeaderMap {
        let mut headers = HeaderMap::new();
        insert(&mut headers, METHOD, method);
        let name = name_key(method).and_then(|key| params.get_str(key));
        if let Some(name) = &name {
            insert(&mut headers, NAME, name);
        }
        if method == "tools/call" {
            let annotated = name.and_then(|name| self.tools.get(&*name));
            for param in annotated.into_iter().flatten() {
                if let Some(value) = param.value(params) {
                    insert(&mut headers, param.header.clone(), &value);
                }
            }
        }
        headers
    }
}

impl ParamHeader {
    fn value<'a>(&self, params: &'a RawObject) -> Option<Cow<'a, str>> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let value = json::path(params.get("arguments")?, &path)?;
        match value.get().as_bytes().first()? {
            b'"' => json::as_str(value),
            b'{' | b'[' | b'n' => None,
            _ => Some(Cow::Borrowed(value.get())),
        }
    }
}

/// The param that names what a request is about.
fn name_key(method: &str) -> Option<&'static str> {
    match method {
        "tools/call" | "prompts/get" => Some("name"),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => Some("uri"),
        "tasks/get" | "tasks/update" | "tasks/cancel" => Some("taskId"),
        _ => None,
    }
}

fn annotations(tool: &RawValue) -> Option<(String, Vec<ParamHeader>)> {
    let name = json::as_str(json::path(tool, &["name"])?)?.into_owned();
    let schema: Value = serde_json::from_str(json::path(tool, &["inputSchema"])?.get()).ok()?;
    let mut found = Vec::new();
    collect(&schema, &mut Vec::new(), &mut found);
    Some((name, found))
}

/// Annotations count on the `properties` of the schema and of their properties; nowhere else.
fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<ParamHeader>) {
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        path.push(name.clone());
        let header = property.get("x-mcp-header").and_then(Value::as_str).unwrap_or_default();
        let name = HeaderName::from_bytes(format!("mcp-param-{header}").as_bytes());
        if let (false, Ok(header), true) = (header.is_empty(), name, found.len() < PARAMS_MAX) {
            found.push(ParamHeader { path: path.clone(), header });
        }
        collect(property, path, found);
        path.pop();
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(&encode(value)) {
        headers.insert(name, value);
    }
}

/// The value itself, or `=?base64?…?=` where it could not travel as a header or would be read as such.
fn encode(value: &str) -> Cow<'_, str> {
    let plain = value.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    let trimmed = value.trim_matches([' ', '\t']).len() == value.len();
    let sentinel = value.starts_with("=?base64?") && value.ends_with("?=");
    if plain && trimmed && !sentinel {
        return Cow::Borrowed(value);
    }
    Cow::Owned(format!("=?base64?{}?=", BASE64.encode(value.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn headers(tools: &str, method: &str, params: &str) -> Vec<(String, String)> {
        let tool = raw(tools);
        let known = ParamHeaders::read(std::iter::once(&*tool));
        let headers = known.of(method, &RawObject::parse(&raw(params)).unwrap());
        let mut list: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        list.sort();
        list
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    const TOOL: &str = r#"{"name":"t","inputSchema":{"properties":{
        "region":{"type":"string","x-mcp-header":"Region"},
        "deep":{"properties":{"n":{"type":"integer","x-mcp-header":"N"}}},
        "list":{"items":{"properties":{"no":{"x-mcp-header":"No"}}}},
        "bad":{"x-mcp-header":"not a token"}}}}"#;

    #[test]
    fn annotated_arguments_are_repeated() {
        let params = r#"{"name":"t","arguments":{"region":"eu west","deep":{"n":9007199254740993},"bad":1}}"#;
        let expected = [
            pair("mcp-method", "tools/call"),
            pair("mcp-name", "t"),
            pair("mcp-param-n", "9007199254740993"),
            pair("mcp-param-region", "eu west"),
        ];
        assert_eq!(headers(TOOL, "tools/call", params), expected);
    }

    #[test]
    fn absent_and_structured_arguments_are_not() {
        let params = r#"{"name":"t","arguments":{"region":null,"deep":{"n":[1]}}}"#;
        assert_eq!(headers(TOOL, "tools/call", params).len(), 2);
        assert_eq!(headers(TOOL, "tools/list", "{}"), [pair("mcp-method", "tools/list")]);
        assert_eq!(
            headers(TOOL, "resources/read", r#"{"uri":"test://x"}"#),
            [pair("mcp-method", "resources/read"), pair("mcp-name", "test://x")]
        );
    }

    #[test]
    fn what_no_header_can_hold_is_encoded() {
        assert_eq!(encode("plain text"), "plain text");
        assert_eq!(encode("é"), "=?base64?w6k=?=");
        assert_eq!(encode(" x"), "=?base64?IHg=?=");
        assert_eq!(encode("a\r\nb: c"), "=?base64?YQ0KYjogYw==?=");
        assert_eq!(encode("=?base64?x?="), "=?base64?PT9iYXNlNjQ/eD89?=");
        assert_eq!(encode(""), "");
    }
}
