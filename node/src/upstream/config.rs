//! What an upstream's session and supervisor need to know of it: the part of a
//! [`ServerConfig`] that concerns reaching the server, as opposed to who may call it.

use std::fmt;
use std::time::Duration;

use crate::config::servers::{Launch, ServerConfig, TIMEOUT_DEFAULT};
use crate::config::setting::TextSetting;

/// How long an upstream may take to start and to name its tools: package runners download first.
pub const START_TIMEOUT_DEFAULT: Duration = Duration::from_secs(90);
/// Largest message accepted from an upstream or handed to it, in bytes.
pub const MESSAGE_BYTES_MAX_DEFAULT: usize = 8 << 20;
/// Calls that may be in flight at one upstream; more are refused as overloaded.
pub const IN_FLIGHT_MAX_DEFAULT: usize = 256;

/// One MCP server. Two that are equal need no restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// How it is reached.
    pub launch: Launch,
    /// Which protocol era is spoken with it.
    pub era: EraChoice,
    /// How long it may stay silent over one call. Progress for the call starts the time anew.
    pub timeout: Duration,
    /// How long it may take to start and to name its tools.
    pub start_timeout: Duration,
    /// Largest message in either direction, in bytes.
    pub message_bytes_max: usize,
    /// Calls in flight at one time.
    pub in_flight_max: usize,
}

impl UpstreamConfig {
    /// A server reached by `launch`, with every default.
    pub fn new(launch: Launch) -> Self {
        Self {
            launch,
            era: EraChoice::Auto,
            timeout: TIMEOUT_DEFAULT,
            start_timeout: START_TIMEOUT_DEFAULT,
            message_bytes_max: MESSAGE_BYTES_MAX_DEFAULT,
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
        }
    }
}

impl From<&ServerConfig> for UpstreamConfig {
    fn from(server: &ServerConfig) -> Self {
        Self { timeout: server.timeout, era: server.era, ..Self::new(server.launch.clone()) }
    }
}

/// Which era of MCP is spoken with an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EraChoice {
    /// Find out; see the module `negotiate`.
    #[default]
    Auto,
    /// `initialize` and a session: 2025-11-25 and before.
    Legacy,
    /// `server/discover` and no session: 2026-07-28.
    Modern,
}

impl fmt::Display for EraChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        })
    }
}

impl TextSetting for EraChoice {
    const EXPECTED: &'static str = "\"auto\", \"legacy\" (2025-11-25 and before) or \"modern\" (2026-07-28)";

    fn from_text(text: &str) -> Result<Self, String> {
        [Self::Auto, Self::Legacy, Self::Modern]
            .into_iter()
            .find(|era| era.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not an era"))
    }
}
