//! What a request is about, written as the server that it goes to knows it.

use std::borrow::Cow;

use comity_protocol::call::methods;
use comity_protocol::ids::{ItemName, Kind};
use comity_protocol::json::{self, RawObject};
use comity_protocol::jsonrpc::codes;
use comity_protocol::uri_template::UriTemplate;
use serde_json::value::RawValue;

use crate::exchange::Failure;

/// The params in which the item is called `name`. Mostly that is what the client wrote, and then nothing is copied.
///
/// # Errors
/// [`Failure::Refused`] for params that are no object, or say a member twice.
pub(super) fn renamed<'a>(
    params: &'a RawValue,
    method: &str,
    kind: Kind,
    name: &str,
) -> Result<Cow<'a, RawValue>, Failure> {
    match (method, kind) {
        ("completion/complete", Kind::Prompt) => renamed_reference(params, "name", name),
        ("completion/complete", Kind::Template) => renamed_reference(params, "uri", name),
        (_, Kind::Tool | Kind::Prompt) => set(params, "name", name),
        ("resources/read" | methods::SUBSCRIBE, _) => set(params, "uri", name),
        _ => RawObject::parse(params).map(|_| Cow::Borrowed(params)).map_err(wrong),
    }
}

/// The params of a peer's call, in which only what its header names is asked for.
///
/// # Errors
/// [`Failure::Refused`] as [`renamed`], and for a URI that is not one of the template that the header names.
pub(super) fn checked<'a>(
    params: &'a RawValue,
    method: &str,
    kind: Kind,
    name: &ItemName,
) -> Result<Cow<'a, RawValue>, Failure> {
    let reads = matches!(method, "resources/read" | methods::SUBSCRIBE);
    match kind {
        Kind::Template if reads => {
            let uri = json::field(params, "uri").map_err(wrong)?.and_then(json::as_str);
            let template = UriTemplate::parse(name.as_str());
            match (uri, template) {
                (Some(uri), Some(template)) if template.matches(&uri) => Ok(Cow::Borrowed(params)),
                _ => Err(refused(format!("the URI is not one of {name}"))),
            }
        }
        Kind::Server => RawObject::parse(params).map(|_| Cow::Borrowed(params)).map_err(wrong),
        _ => renamed(params, method, kind, name.as_str()),
    }
}

/// A result of `resources/read` in which what the server calls `own` is called `asked`, as its client knows it. Contents
/// under other URIs, and a result that is none, are left alone.
pub(super) fn restored(result: Box<RawValue>, own: &str, asked: &str) -> Box<RawValue> {
    if own == asked {
        return result;
    }
    try_restored(&result, own, asked).unwrap_or(result)
}

fn try_restored(result: &RawValue, own: &str, asked: &str) -> Option<Box<RawValue>> {
    let mut result = RawObject::parse(result).ok()?;
    let contents: Vec<Box<RawValue>> = serde_json::from_str(result.get("contents")?.get()).ok()?;
    let rename = |content: Box<RawValue>| match RawObject::parse(&content) {
        Ok(mut object) if object.get_str("uri").is_some_and(|uri| uri == own) => {
            object.set_str("uri", asked);
            object.to_raw()
        }
        _ => content,
    };
    let contents: Vec<_> = contents.into_iter().map(rename).collect();
    result.set("contents", json::to_raw(&contents));
    Some(result.to_raw())
}

/// A result with the hints that 2026-07-28 requires of what is read: what the server said stands, and where it said
/// nothing nothing may be kept.
pub(super) fn with_cache_hints(result: Box<RawValue>) -> Box<RawValue> {
    let Ok(mut object) = RawObject::parse(&result) else { return result };
    if object.get("ttlMs").is_some() && object.get("cacheScope").is_some() {
        return result;
    }
    if object.get("ttlMs").is_none() {
        object.set("ttlMs", json::to_raw(&0));
    }
    if object.get("cacheScope").is_none() {
        object.set_str("cacheScope", "private");
    }
    object.to_raw()
}

/// The URI under which a client knows what its server calls `uri`, where it knows the server's `own` as `asked`.
pub(super) fn restored_uri(uri: &str, own: &str, asked: &str) -> String {
    uri.strip_prefix(own).map_or_else(|| uri.to_owned(), |rest| format!("{asked}{rest}"))
}

fn set<'a>(params: &'a RawValue, key: &str, value: &str) -> Result<Cow<'a, RawValue>, Failure> {
    let mut object = RawObject::parse(params).map_err(wrong)?;
    if object.get_str(key).is_some_and(|present| present == value) {
        return Ok(Cow::Borrowed(params));
    }
    object.set_str(key, value);
    Ok(Cow::Owned(object.to_raw()))
}

/// What a completion is for stands under `ref`.
fn renamed_reference<'a>(params: &'a RawValue, key: &str, value: &str) -> Result<Cow<'a, RawValue>, Failure> {
    let mut object = RawObject::parse(params).map_err(wrong)?;
    let reference = object.get("ref").ok_or_else(|| refused("`ref` is missing".into()))?;
    let Cow::Owned(reference) = set(reference, key, value)? else { return Ok(Cow::Borrowed(params)) };
    object.set("ref", reference);
    Ok(Cow::Owned(object.to_raw()))
}

fn wrong(error: json::JsonError) -> Failure {
    refused(format!("params: {error}"))
}

fn refused(detail: String) -> Failure {
    Failure::Refused { code: codes::INVALID_PARAMS, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn the_tool_is_named_as_its_server_knows_it_and_ambiguous_params_are_refused() {
        let params =
            raw(r#"{"z": 1e400,"name":"acme__tool","arguments":{ "b":99999999999999999999, "a":[1.0]}}"#);
        let expected = r#"{"z":1e400,"name":"tool","arguments":{ "b":99999999999999999999, "a":[1.0]}}"#;
        let renamed =
            |params: &RawValue| renamed(params, "tools/call", Kind::Tool, "tool").map(Cow::into_owned);
        assert_eq!(renamed(&params).unwrap().get(), expected);
        for wrong in [r#"{"name":"a","name":"b"}"#, "[]", "7"] {
            assert!(matches!(renamed(&raw(wrong)), Err(Failure::Refused { .. })), "{wrong}");
        }
    }

    #[test]
    fn each_kind_is_named_where_its_method_names_it() {
        for (method, kind, params, expected) in [
            ("prompts/get", Kind::Prompt, r#"{"name":"x"}"#, r#"{"name":"own"}"#),
            ("resources/read", Kind::Resource, r#"{"uri":"x"}"#, r#"{"uri":"own"}"#),
            ("resources/read", Kind::Template, r#"{"uri":"x"}"#, r#"{"uri":"own"}"#),
            ("resources/read", Kind::Server, r#"{"uri":"x"}"#, r#"{"uri":"own"}"#),
            (
                "completion/complete",
                Kind::Prompt,
                r#"{"ref":{"type":"ref/prompt","name":"x"},"argument":{"name":"a"}}"#,
                r#"{"ref":{"type":"ref/prompt","name":"own"},"argument":{"name":"a"}}"#,
            ),
            (
                "completion/complete",
                Kind::Template,
                r#"{"ref":{"type":"ref/resource","uri":"x"}}"#,
                r#"{"ref":{"type":"ref/resource","uri":"own"}}"#,
            ),
            ("vendor/x", Kind::Server, r#"{"name":"x"}"#, r#"{"name":"x"}"#),
        ] {
            assert_eq!(renamed(&raw(params), method, kind, "own").unwrap().get(), expected, "{method}");
        }
        assert!(renamed(&raw("{}"), "completion/complete", Kind::Prompt, "own").is_err());
    }

    #[test]
    fn a_result_bears_the_uri_that_was_asked_for() {
        let result = raw(r#"{"x": 1e400,"contents":[{"uri":"f:a","text":"t"},{"uri":"f:b" , "n":1.0}]}"#);
        let expected =
            r#"{"x":1e400,"contents":[{"uri":"comity://o/s/f:a","text":"t"},{"uri":"f:b" , "n":1.0}]}"#;
        assert_eq!(restored(result, "f:a", "comity://o/s/f:a").get(), expected);
        for odd in ["7", "{}", r#"{"contents":7}"#, r#"{"contents":[7]}"#] {
            assert_eq!(restored(raw(odd), "f:a", "g:a").get(), odd);
        }
        assert_eq!(restored_uri("f:a/b", "f:a", "comity://o/s/f:a"), "comity://o/s/f:a/b");
        assert_eq!(restored_uri("g:a", "f:a", "x"), "g:a");
    }

    #[test]
    fn hints_are_never_wider_than_what_was_given() {
        for (given, expected) in [
            (r#"{"ttlMs":7,"cacheScope":"public"}"#, r#"{"ttlMs":7,"cacheScope":"public"}"#),
            (r#"{"ttlMs":7}"#, r#"{"ttlMs":7,"cacheScope":"private"}"#),
            (r#"{"n":1e400}"#, r#"{"n":1e400,"ttlMs":0,"cacheScope":"private"}"#),
            ("7", "7"),
        ] {
            assert_eq!(with_cache_hints(raw(given)).get(), expected);
        }
    }

    #[test]
    fn a_peer_reads_only_what_its_header_names() {
        let name = |text: &str| text.parse::<ItemName>().unwrap();
        let read = |kind, of: &str, uri: &str| {
            checked(&raw(&format!(r#"{{"uri":"{uri}"}}"#)), "resources/read", kind, &name(of))
                .map(|params| params.get().to_owned())
        };
        assert_eq!(read(Kind::Resource, "f:a", "f:secret").unwrap(), r#"{"uri":"f:a"}"#);
        assert_eq!(read(Kind::Template, "f:log/{x}", "f:log/1").unwrap(), r#"{"uri":"f:log/1"}"#);
        assert!(read(Kind::Template, "f:log/{x}", "f:secret").is_err());
        assert!(read(Kind::Template, "f:{", "f:{").is_err());
    }
}
