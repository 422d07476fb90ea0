//! `Accept` and `Content-Type`.
//!
//! Source: RFC 9110, sections 12.5.1 and 8.3; MCP asks clients to accept both JSON and event streams on POST.

use hyper::{HeaderMap, header};

/// A plain JSON answer.
pub(super) const JSON: &str = "application/json";
/// A stream of server-sent events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// Whether the client takes `media_type`. No `Accept` header means anything, wildcards count, weight zero excludes.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default();
        covers(essence, media_type) && !parts.any(is_zero_weight)
    })
}

/// Whether the body is declared to be JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(JSON)
    })
}

fn covers(range: &str, media_type: &str) -> bool {
    let major = media_type.split('/').next().unwrap_or_default();
    range == "*/*"
        || range.eq_ignore_ascii_case(media_type)
        || range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(major))
}

fn is_zero_weight(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.is_some_and(|weight| {
        weight.starts_with('0') && weight.bytes().all(|byte| matches!(byte, b'0' | b'.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept() {
        let cases = [
            (None, true, true),
            (Some("application/json, text/event-stream"), true, true),
            (Some("Application/JSON;charset=utf-8"), true, false),
            (Some("text/event-stream;q=0.5, application/json;q=0"), false, true),
            (Some("*/*"), true, true),
            (Some("application/*, text/plain"), true, false),
            (Some("text/html"), false, false),
            (Some("*/*;q=0.000"), false, false),
            (Some(""), false, false),
        ];
        for (value, json, stream) in cases {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::ACCEPT, value.parse().unwrap());
            }
            assert_eq!(
                (accepts(&headers, JSON), accepts(&headers, EVENT_STREAM)),
                (json, stream),
                "{value:?}"
            );
        }
    }

    #[test]
    fn content_type() {
        for (value, json) in
            [("application/json", true), ("APPLICATION/json ; charset=utf-8", true), ("text/json", false)]
        {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(is_json(&headers), json, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
