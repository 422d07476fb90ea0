//! How the two eras agree on a revision: `initialize` in the legacy one, metadata of each request in the modern one.
//!
//! Source: MCP 2025-11-25 "Lifecycle"; MCP 2026-07-28 "Versioning and Compatibility" and `server/discover`.

use std::sync::Arc;

use comity_protocol::{
    json::{self, RawObject},
    jsonrpc::{RpcError, codes},
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::about::About;
use super::params::{META_CAPABILITIES, META_VERSION, MetaHead, Request, invalid, object, text};
use crate::gateway::{ClientProfile, Era};

/// The modern revision.
pub(super) const MODERN: &str = "2026-07-28";
/// Legacy revisions, newest first.
pub(super) const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// The first revision whose clients understand an empty event that only carries an id.
const PRIMING_SINCE: &str = "2025-11-25";

/// What `initialize` settled.
#[derive(Clone, Debug)]
pub(super) struct Handshake {
    /// One of [`LEGACY`].
    pub(super) version: &'static str,
    /// The client, as it described itself.
    pub(super) client: ClientProfile,
}

impl Handshake {
    /// Whether streams may begin with an empty event.
    pub(super) fn takes_priming(&self) -> bool {
        self.version >= PRIMING_SINCE
    }
}

/// The legacy revision of that name.
pub(super) fn legacy_version(version: &str) -> Option<&'static str> {
    LEGACY.into_iter().find(|known| *known == version)
}

/// Reads `initialize`. A revision that we do not know is answered with our newest legacy one, as the specification
/// asks; the modern one has no `initialize`, so it counts as unknown here.
///
/// # Errors
/// `-32602` when the parameters are not those of `initialize`.
pub(super) fn initialize(request: &Request) -> Result<Handshake, RpcError> {
    #[derive(Deserialize)]
    struct Initialize<'a> {
        #[serde(borrow, rename = "protocolVersion", default)]
        version: Option<&'a RawValue>,
        #[serde(borrow, default)]
        capabilities: Option<&'a RawValue>,
        #[serde(borrow, rename = "clientInfo", default)]
        info: Option<&'a RawValue>,
    }
    let params = request.params.as_deref().ok_or_else(|| invalid("`initialize` needs params"))?;
    let params: Initialize<'_> = object(params)?;
    let version = text(params.version, "protocolVersion")?;
    let client =
        ClientProfile { era: Era::Legacy, capabilities: own(params.capabilities), info: own(params.info) };
    Ok(Handshake { version: legacy_version(&version).unwrap_or(LEGACY[0]), client })
}

/// The result of `initialize`.
pub(super) fn initialize_result(version: &str, about: &About) -> Box<RawValue> {
    let mut result = RawObject::new();
    result.set_str("protocolVersion", version);
    result.set("capabilities", about.capabilities.clone());
    result.set("serverInfo", about.info.clone());
    if let Some(instructions) = &about.instructions {
        result.set("instructions", instructions.clone());
    }
    result.to_raw()
}

/// The result of `server/discover`. It may be kept for as long as a list: what it says changes with what there is.
pub(super) fn discover_result(about: &About) -> Box<RawValue> {
    let mut result = RawObject::new();
    result.set_str("resultType", "complete");
    result.set("supportedVersions", json::to_raw(&supported()));
    result.set("capabilities", about.modern_capabilities());
    if let Some(instructions) = &about.instructions {
        result.set("instructions", instructions.clone());
    }
    result.set("ttlMs", json::to_raw(&about.ttl_ms));
    result.set_str("cacheScope", "private");
    result.set("_meta", RawValue::from_string(about.meta()).expect("one value in braces"));
    result.to_raw()
}

/// Checks what 2026-07-28 requires of every request and reads the client's description of itself.
///
/// # Errors
/// `-32602` for missing metadata, `-32022` for another revision.
pub(super) fn modern_client(meta: &MetaHead<'_>) -> Result<ClientProfile, RpcError> {
    let version = meta.version.and_then(json::as_str);
    if let Some(version) = version.as_deref().filter(|version| *version != MODERN) {
        return Err(unsupported(version));
    }
    let capabilities = meta.capabilities.filter(|capabilities| capabilities.get().starts_with('{'));
    let missing: Vec<&str> = [(META_VERSION, version.is_none()), (META_CAPABILITIES, capabilities.is_none())]
        .into_iter()
        .filter_map(|(key, missing)| missing.then_some(key))
        .collect();
    if !missing.is_empty() {
        let keys = missing.join(", ");
        return Err(invalid(format!("request _meta is missing or has malformed required fields: {keys}")));
    }
    Ok(ClientProfile { era: Era::Modern, capabilities: own(capabilities), info: own(meta.info) })
}

/// The error for a revision that is not spoken here, or not in this way.
pub(super) fn unsupported(requested: &str) -> RpcError {
    // A client that names a legacy revision in a modern request must learn to use `initialize` or the modern revision.
    let supported = if legacy_version(requested).is_some() { vec![MODERN] } else { supported() };
    let data = json::to_raw(&json!({ "supported": supported, "requested": requested }));
    RpcError::new(codes::UNSUPPORTED_VERSION, "Unsupported protocol version").with_data(data)
}

fn supported() -> Vec<&'static str> {
    std::iter::once(MODERN).chain(LEGACY).collect()
}

fn own(raw: Option<&RawValue>) -> Option<Arc<RawValue>> {
    raw.map(|raw| raw.to_owned().into())
}

#[cfg(test)]
mod tests {
    use comity_protocol::jsonrpc::Id;

    use super::*;

    fn request(params: &str) -> Request {
        let params = Some(RawValue::from_string(params.into()).unwrap());
        Request { id: Id::Number(1), method: "m".into(), params }
    }

    #[test]
    fn initialize_negotiates() {
        for (asked, got) in [("2025-06-18", "2025-06-18"), ("1999-01-01", LEGACY[0]), (MODERN, LEGACY[0])] {
            let handshake = initialize(&request(&format!(r#"{{"protocolVersion":"{asked}"}}"#))).unwrap();
            assert_eq!(handshake.version, got);
        }
        assert_eq!(initialize(&request("{}")).unwrap_err().code, codes::INVALID_PARAMS);
    }

    #[test]
    fn modern_metadata() {
        let check = |meta: &str| {
            let request = request(&format!(r#"{{"_meta":{meta}}}"#));
            let head = request.head().unwrap();
            modern_client(&head.meta).map_err(|error| (error.code, error.message))
        };
        let good = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"x":1e999}}"#;
        assert_eq!(check(good).unwrap().capabilities.unwrap().get(), r#"{"x":1e999}"#);
        let (code, message) = check("{}").unwrap_err();
        assert_eq!(code, codes::INVALID_PARAMS);
        assert!(message.contains(META_VERSION) && message.contains(META_CAPABILITIES));
        assert_eq!(
            check(&good.replace("2026-07-28", "1900-01-01")).unwrap_err().0,
            codes::UNSUPPORTED_VERSION
        );
        assert_eq!(check(&good.replace(r#"{"x":1e999}"#, "[]")).unwrap_err().0, codes::INVALID_PARAMS);
    }
}
