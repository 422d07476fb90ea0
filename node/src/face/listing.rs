//! The lists of the catalogue, page by page.
//!
//! The order is that of exposed names, and a cursor is the last name of its page. An item that comes or goes between
//! two pages therefore neither repeats nor hides another.

use comity_protocol::{catalogue::Catalogue, ids::ITEM_NAME_BYTES_MAX, jsonrpc::RpcError};
use data_encoding::BASE64URL_NOPAD;
use serde_json::value::RawValue;

use super::{about::About, methods::List, params};
use crate::gateway::Era;

/// Bytes of items on one page, at most, unless a single item is larger.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes of a cursor in its encoded form: more than the longest name takes.
const CURSOR_BYTES_MAX: usize = 2 * ITEM_NAME_BYTES_MAX;

/// Which page of which list is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a> {
    pub(super) list: List,
    pub(super) cursor: Option<&'a RawValue>,
    /// Items on one page, at most.
    pub(super) items_max: usize,
    pub(super) era: Era,
}

/// One page as a raw result.
///
/// # Errors
/// `-32602` for a cursor that we did not write.
pub(super) fn page(catalogue: &Catalogue, about: &About, page: Page<'_>) -> Result<Box<RawValue>, RpcError> {
    let after = page.cursor.map(|cursor| read_cursor(page.list, cursor)).transpose()?;
    let all = catalogue.of_kind(page.list.kind());
    let start = after.map_or(0, |after| all.partition_point(|entry| entry.name <= after));
    let rest = all.get(start..).unwrap_or_default();
    let mut out = format!(r#"{{"{}":["#, page.list.key());
    let mut taken = 0;
    for entry in rest.iter().take(page.items_max.max(1)) {
        if taken > 0 && out.len() + entry.object.get().len() > PAGE_BYTES_MAX {
            break;
        }
        if taken > 0 {
            out.push(',');
        }
        out.push_str(entry.object.get());
        taken += 1;
    }
    out.push(']');
    if let Some(last) = rest.get(..taken).and_then(<[_]>::last).filter(|_| taken < rest.len()) {
        out.push_str(&format!(r#","nextCursor":"{}""#, write_cursor(page.list, &last.name)));
    }
    if page.era == Era::Modern {
        let (ttl_ms, meta) = (about.ttl_ms, about.meta());
        out.push_str(&format!(
            r#","resultType":"complete","ttlMs":{ttl_ms},"cacheScope":"private","_meta":{meta}"#
        ));
    }
    out.push('}');
    Ok(RawValue::from_string(out).expect("valid values joined by commas"))
}

/// Opaque to clients. It begins with its list, so that it is of no use in another.
fn write_cursor(list: List, name: &str) -> String {
    BASE64URL_NOPAD.encode(format!("{}/{name}", list.key()).as_bytes())
}

fn read_cursor(list: List, cursor: &RawValue) -> Result<String, RpcError> {
    let refuse = || params::invalid("unknown cursor");
    if cursor.get().len() > CURSOR_BYTES_MAX {
        return Err(refuse());
    }
    let text = params::text(Some(cursor), "cursor")?;
    let text = BASE64URL_NOPAD.decode(text.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let name = text.as_deref().and_then(|text| text.strip_prefix(list.key())?.strip_prefix('/'));
    name.map(str::to_owned).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use comity_protocol::{json, jsonrpc::codes};

    use super::*;
    use crate::face::tests::catalogue;

    fn names(page: &RawValue) -> Vec<String> {
        let tools: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_str(&json::path(page, &["tools"]).unwrap().get().replace("1e999", "1")).unwrap();
        tools.into_iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    fn tools(catalogue: &Catalogue, cursor: Option<&RawValue>, era: Era) -> Result<Box<RawValue>, RpcError> {
        page(
            catalogue,
            &About::of_node(catalogue, None),
            Page { list: List::Tools, cursor, items_max: 10, era },
        )
    }

    #[test]
    fn pages_survive_changes_between_them() {
        let mut all: BTreeSet<String> = (0..25).map(|n| format!("tool_{n:02}")).collect();
        let first = tools(&catalogue(&all), None, Era::Legacy).unwrap();
        assert!(first.get().contains("1e999") && !first.get().contains("resultType"));
        all.remove("tool_09");
        all.insert("tool_00a".into());
        let cursor = json::path(&first, &["nextCursor"]).unwrap();
        let second = tools(&catalogue(&all), Some(cursor), Era::Legacy).unwrap();
        assert_eq!(names(&second)[0], "tool_10");
        let cursor = json::path(&second, &["nextCursor"]).unwrap();
        let third = tools(&catalogue(&all), Some(cursor), Era::Legacy).unwrap();
        assert_eq!(names(&third).len(), 5);
        assert!(json::path(&third, &["nextCursor"]).is_none());
    }

    #[test]
    fn modern_pages_say_how_long_they_last() {
        let page = tools(&Catalogue::default(), None, Era::Modern).unwrap();
        for key in ["tools", "resultType", "ttlMs", "cacheScope", "_meta"] {
            assert!(json::path(&page, &[key]).is_some(), "{key}");
        }
    }

    #[test]
    fn foreign_cursors_are_invalid() {
        let of_prompts = format!("\"{}\"", write_cursor(List::Prompts, "a"));
        let long = format!("\"{}\"", "a".repeat(CURSOR_BYTES_MAX));
        for cursor in [r#""***""#, "7", r#""_w""#, &of_prompts, &long] {
            let cursor = RawValue::from_string(cursor.into()).unwrap();
            let error = tools(&Catalogue::default(), Some(&cursor), Era::Legacy).unwrap_err();
            assert_eq!(error.code, codes::INVALID_PARAMS);
        }
    }
}
