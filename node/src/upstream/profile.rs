//! What a server says of itself when a session with it begins.

use comity_protocol::json::{self, RawObject};
use serde_json::value::RawValue;

/// The revision of the modern era that is spoken.
pub(super) const MODERN_VERSION: &str = "2026-07-28";

/// The revision that is offered to servers of the legacy era.
pub(super) const LEGACY_VERSION: &str = "2025-11-25";

/// The revisions that a server of the legacy era may answer with.
const LEGACY_VERSIONS: [&str; 4] = [LEGACY_VERSION, "2025-06-18", "2025-03-26", "2024-11-05"];

/// The two shapes of MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// `initialize` and a session: 2025-11-25 and before.
    Legacy,
    /// Stateless: 2026-07-28.
    Modern,
}

/// What a server says of itself.
#[derive(Debug, Clone)]
pub struct ServerProfile {
    /// The era that is spoken with it.
    pub era: Era,
    /// The protocol revision that is spoken with it.
    pub version: String,
    /// Its name and version, as it wrote them.
    pub info: Option<Box<RawValue>>,
    /// Its capabilities, as it wrote them.
    pub capabilities: Box<RawValue>,
    /// Its instructions for models, a JSON string.
    pub instructions: Option<Box<RawValue>>,
}

impl ServerProfile {
    /// Whether the server advertises a capability, given as a path: `["tools", "listChanged"]`. A
    /// capability is advertised by its presence, a flag by being `true`.
    pub fn can(&self, path: &[&str]) -> bool {
        json::path(&self.capabilities, path).is_some_and(|value| !matches!(value.get(), "false" | "null"))
    }

    /// Reads the result of `initialize`.
    pub(super) fn from_initialize(result: &RawValue) -> Result<Self, ProfileError> {
        let result = RawObject::parse(result).map_err(|_| ProfileError::Malformed)?;
        let version = result.get_str("protocolVersion").ok_or(ProfileError::Malformed)?.into_owned();
        if !LEGACY_VERSIONS.contains(&version.as_str()) {
            return Err(ProfileError::Version(shorten(&version)));
        }
        let info = result.get("serverInfo").map(RawValue::to_owned);
        Ok(Self::new(Era::Legacy, version, info, &result))
    }

    /// Reads the result of `server/discover`.
    pub(super) fn from_discover(result: &RawValue) -> Result<Self, ProfileError> {
        let versions = json::path(result, &["supportedVersions"]).ok_or(ProfileError::Malformed)?;
        let versions: Vec<String> =
            serde_json::from_str(versions.get()).map_err(|_| ProfileError::Malformed)?;
        if !versions.iter().any(|version| version == MODERN_VERSION) {
            return Err(ProfileError::Version(shorten(&versions.join(", "))));
        }
        let info =
            json::path(result, &["_meta", "io.modelcontextprotocol/serverInfo"]).map(RawValue::to_owned);
        let result = RawObject::parse(result).map_err(|_| ProfileError::Malformed)?;
        Ok(Self::new(Era::Modern, MODERN_VERSION.to_owned(), info, &result))
    }

    fn new(era: Era, version: String, info: Option<Box<RawValue>>, result: &RawObject) -> Self {
        let capabilities = result.get("capabilities").filter(|value| value.get().starts_with('{'));
        Self {
            era,
            version,
            info,
            capabilities: capabilities.map_or_else(|| RawObject::new().to_raw(), RawValue::to_owned),
            instructions: result.get("instructions").map(RawValue::to_owned),
        }
    }
}

/// Why a server's first answer is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// It lacks what the protocol requires.
    #[error("the server's first answer is malformed")]
    Malformed,
    /// It speaks none of our revisions.
    #[error("the server speaks only MCP {0}")]
    Version(String),
}

/// This node as an MCP client.
pub(super) fn client_info() -> Box<RawValue> {
    json::to_raw(&serde_json::json!({ "name": "comity", "version": env!("CARGO_PKG_VERSION") }))
}

/// The params of `initialize`. The capabilities are those of the clients behind this node: whoever
/// lacks one refuses when asked.
pub(super) fn initialize_params() -> Box<RawValue> {
    json::to_raw(&serde_json::json!({
        "protocolVersion": LEGACY_VERSION,
        "capabilities": {
            "roots": {},
            "sampling": { "context": {}, "tools": {} },
            "elicitation": { "form": {}, "url": {} },
        },
        "clientInfo": { "name": "comity", "version": env!("CARGO_PKG_VERSION") },
    }))
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialize(text: &str) -> Result<ServerProfile, ProfileError> {
        ServerProfile::from_initialize(&RawValue::from_string(text.into()).unwrap())
    }

    fn discover(text: &str) -> Result<ServerProfile, ProfileError> {
        ServerProfile::from_discover(&RawValue::from_string(text.into()).unwrap())
    }

    #[test]
    fn every_legacy_revision_is_accepted_and_no_other() {
        for version in LEGACY_VERSIONS {
            let text =
                format!(r#"{{"protocolVersion":"{version}","capabilities":{{}},"serverInfo":{{"x":1}}}}"#);
            let profile = initialize(&text).unwrap();
            assert_eq!((profile.era, profile.version.as_str()), (Era::Legacy, version));
            assert_eq!(profile.info.unwrap().get(), r#"{"x":1}"#);
        }
        let future = initialize(r#"{"protocolVersion":"2099-01-01","capabilities":{}}"#).unwrap_err();
        assert_eq!(future, ProfileError::Version("2099-01-01".into()));
        assert_eq!(initialize("{}").unwrap_err(), ProfileError::Malformed);
        assert_eq!(initialize("[]").unwrap_err(), ProfileError::Malformed);
    }

    #[test]
    fn discovery_is_read() {
        let profile = discover(
            r#"{"supportedVersions":["2026-07-28","2027-01-01"],"capabilities":{"tools":{"listChanged":true},"prompts":{"listChanged":false}},"instructions":"i","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"n"}}}"#,
        );
        let profile = profile.unwrap();
        assert_eq!(profile.era, Era::Modern);
        assert!(
            profile.can(&["tools"]) && profile.can(&["tools", "listChanged"]) && profile.can(&["prompts"])
        );
        assert!(!profile.can(&["prompts", "listChanged"]) && !profile.can(&["resources"]));
        assert_eq!(profile.info.unwrap().get(), r#"{"name":"n"}"#);
        assert_eq!(profile.instructions.unwrap().get(), "\"i\"");
        let other = discover(r#"{"supportedVersions":["2099-01-01"]}"#).unwrap_err();
        assert_eq!(other, ProfileError::Version("2099-01-01".into()));
    }
}
