//! `tools/list`: the catalogue, page by page.
//!
//! The order is that of exposed names, and a cursor is the last name of its page. A tool that comes or goes between
//! two pages therefore neither repeats nor hides another.

use comity_protocol::{catalogue::Catalogue, jsonrpc::RpcError};
use data_encoding::BASE64URL_NOPAD;
use serde_json::value::RawValue;

use super::{handshake, params};
use crate::gateway::Era;

/// Bytes of tools on one page, at most, unless a single tool is larger.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// How long a client may keep a page, in milliseconds. Changes are announced, so this only serves clients that do not
/// listen.
const TTL_MS: u64 = 5_000;

/// One page as a raw result.
///
/// # Errors
/// `-32602` for a cursor that we did not write.
pub(super) fn page(
    catalogue: &Catalogue,
    cursor: Option<&RawValue>,
    tools_max: usize,
    era: Era,
) -> Result<Box<RawValue>, RpcError> {
    let after = cursor.map(read_cursor).transpose()?;
    let start = after.map_or(0, |after| catalogue.entries().partition_point(|tool| tool.name <= after));
    let rest = catalogue.entries().get(start..).unwrap_or_default();
    let mut out = String::from(r#"{"tools":["#);
    let mut taken = 0;
    for tool in rest.iter().take(tools_max.max(1)) {
        if taken > 0 && out.len() + tool.tool.get().len() > PAGE_BYTES_MAX {
            break;
        }
        if taken > 0 {
            out.push(',');
        }
        out.push_str(tool.tool.get());
        taken += 1;
    }
    out.push(']');
    if let Some(last) = rest.get(..taken).and_then(<[_]>::last).filter(|_| taken < rest.len()) {
        out.push_str(&format!(r#","nextCursor":"{}""#, BASE64URL_NOPAD.encode(last.name.as_bytes())));
    }
    if era == Era::Modern {
        let meta = handshake::server_meta();
        out.push_str(&format!(
            r#","resultType":"complete","ttlMs":{TTL_MS},"cacheScope":"private","_meta":{meta}"#
        ));
    }
    out.push('}');
    Ok(RawValue::from_string(out).expect("valid values joined by commas"))
}

fn read_cursor(cursor: &RawValue) -> Result<String, RpcError> {
    let refuse = || params::invalid("unknown cursor");
    let text = params::text(Some(cursor), "cursor")?;
    let name = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| refuse())?;
    String::from_utf8(name).map_err(|_| refuse())
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

    #[test]
    fn pages_survive_changes_between_them() {
        let mut all: BTreeSet<String> = (0..25).map(|n| format!("tool_{n:02}")).collect();
        let first = page(&catalogue(&all), None, 10, Era::Legacy).unwrap();
        assert!(first.get().contains("1e999") && !first.get().contains("resultType"));
        all.remove("tool_09");
        all.insert("tool_00a".into());
        let cursor = json::path(&first, &["nextCursor"]).unwrap();
        let second = page(&catalogue(&all), Some(cursor), 10, Era::Legacy).unwrap();
        assert_eq!(names(&second)[0], "tool_10");
        let cursor = json::path(&second, &["nextCursor"]).unwrap();
        let third = page(&catalogue(&all), Some(cursor), 10, Era::Legacy).unwrap();
        assert_eq!(names(&third).len(), 5);
        assert!(json::path(&third, &["nextCursor"]).is_none());
    }

    #[test]
    fn modern_pages_say_how_long_they_last() {
        let page = page(&Catalogue::default(), None, 10, Era::Modern).unwrap();
        for key in ["tools", "resultType", "ttlMs", "cacheScope", "_meta"] {
            assert!(json::path(&page, &[key]).is_some(), "{key}");
        }
    }

    #[test]
    fn foreign_cursors_are_invalid() {
        for cursor in [r#""***""#, "7", r#""_w""#] {
            let cursor = RawValue::from_string(cursor.into()).unwrap();
            let error = page(&Catalogue::default(), Some(&cursor), 10, Era::Legacy).unwrap_err();
            assert_eq!(error.code, codes::INVALID_PARAMS);
        }
    }
}
