//! The protocol's own types as settings: each is parsed by the same code that reads it from the wire.

use comity_protocol::constraints::{DataClass, TrustLevel};
use comity_protocol::geo::{Country, CountrySet, resolve_place};
use comity_protocol::ids::{ItemName, MeshName, NodeId, OrgName, RootHash, ServerName};
use toml::de::DeValue;

use super::setting::{Setting, TextSetting, describe};
use crate::telemetry::{LogFormat, LogLevel};

macro_rules! parsed_setting {
    ($($type:ty: $expected:literal),* $(,)?) => {$(
        impl TextSetting for $type {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Result<Self, String> {
                text.parse::<$type>().map_err(|error| error.to_string())
            }
        }
    )*};
}

parsed_setting! {
    OrgName: "an org name such as \"acme.example\"",
    ServerName: "a server name such as \"crm\" (letters, digits, - and _; at most 64)",
    ItemName: "a tool's own name, as its server gives it",
    MeshName: "a mesh name such as \"comity\"",
    RootHash: "the line that `comity org root` prints on the org's own machine, \"blake3:\" and 64 hexadecimal digits",
    NodeId: "a node's id, as `comity peers` and `comity status` print it, \"12D3KooW…\"",
    Country: "a country such as \"DE\"",
    TrustLevel: "\"T0\", \"T1\", \"T2\" or \"T3\"",
}

/// A country, or a group that stands for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub CountrySet);

impl TextSetting for Place {
    const EXPECTED: &'static str = "a country such as \"DE\", or one of the groups \"EU\" and \"EEA\"";

    fn from_text(text: &str) -> Result<Self, String> {
        resolve_place(text).map(Place).map_err(|error| error.to_string())
    }
}

impl Setting for DataClass {
    const EXPECTED: &'static str = "0 (public), 1 (internal), 2 (confidential) or 3 (restricted)";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let level = match value {
            DeValue::Integer(_) => u64::read(value).ok(),
            DeValue::String(name) => (0..=3)
                .find(|level| DataClass::from_level(*level).is_some_and(|class| class.to_string() == **name)),
            other => return Err(format!("is {}, not a class", describe(other))),
        };
        level.and_then(DataClass::from_level).ok_or_else(|| "is not a class".to_owned())
    }
}

impl TextSetting for LogFormat {
    const EXPECTED: &'static str = "\"text\" or \"json\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("{other:?} is neither \"text\" nor \"json\"")),
        }
    }
}

impl TextSetting for LogLevel {
    const EXPECTED: &'static str = "a level such as \"info\", or a filter such as \"warn,comity_mesh=debug\"";

    fn from_text(text: &str) -> Result<Self, String> {
        LogLevel::parse(text)
    }
}
