//! The `[mcp]` section: the endpoint that AI clients talk to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use comity_protocol::constraints::Constraints;

use super::constraints::read_constraints;
use super::limits::LimitsConfig;
use super::section::Section;
use super::setting::{ByteSize, HttpUrl, TextSetting};
use crate::face::{FaceConfig, FaceLimits, Profile, RAW, TokenConfig, TokenSecret};
use crate::files::read_bounded;

/// Tokens that one configuration may hold.
pub const TOKENS_MAX: usize = 256;
/// A token shorter than this can be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;
/// Largest token, and largest token file.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Profiles that one configuration may hold.
pub const PROFILES_MAX: usize = 64;
/// Longest name of a profile, in bytes.
pub const PROFILE_NAME_BYTES_MAX: usize = 64;

/// Longest `instructions`, in bytes.
pub const INSTRUCTIONS_BYTES_MAX: usize = 8 * 1024;

/// The `[mcp]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpConfig {
    /// Where `POST /mcp` is served.
    pub listen: SocketAddr,
    /// Web origins, beside loopback ones, whose pages may call.
    pub allowed_origins: Vec<Origin>,
    /// `Host` values, beside loopback names and the listen address, that are answered (against DNS rebinding).
    pub allowed_hosts: Vec<Host>,
    /// Largest request body.
    pub body_max: ByteSize,
    /// What clients' models are told that this server is for.
    pub instructions: Option<String>,
    /// More tools than so many are found by words instead of listed.
    pub defer_tools_above: Option<u32>,
    /// Who may call. Empty: whoever can reach the endpoint.
    pub tokens: Vec<TokenConfig>,
    /// Further endpoints, `/mcp/<name>`.
    pub profiles: BTreeMap<String, Profile>,
}

impl Default for McpConfig {
    fn default() -> Self {
        McpConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 7420)),
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            body_max: ByteSize::mib(4),
            instructions: None,
            defer_tools_above: None,
            tokens: Vec::new(),
            profiles: BTreeMap::new(),
        }
    }
}

impl McpConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = McpConfig::default();
        let config = McpConfig {
            listen: section.or("listen", default.listen),
            allowed_origins: section.list_of_distinct("allowed_origins").unwrap_or_default(),
            allowed_hosts: section.list_of_distinct("allowed_hosts").unwrap_or_default(),
            body_max: section.or_within("body_max", default.body_max, ByteSize::kib(1)..=ByteSize::mib(64)),
            instructions: read_instructions(&mut section),
            defer_tools_above: section.get("defer_tools_above"),
            tokens: read_tokens(&mut section),
            profiles: read_profiles(&mut section),
        };
        if !config.listen.ip().is_loopback() && config.tokens.is_empty() {
            let problem =
                format!("{} can be reached from other machines and asks for no token", config.listen);
            section.warning("listen", problem, "add [[mcp.tokens]] or listen on 127.0.0.1");
        }
        section.finish();
        config
    }

    /// The face's own configuration: this section, what the operator demands of every call, where `comity stdio`
    /// connects, and the node's bounds.
    pub fn to_face(
        &self,
        constraints: &Constraints,
        stdio_socket: PathBuf,
        limits: &LimitsConfig,
    ) -> FaceConfig {
        let default = FaceLimits::default();
        FaceConfig {
            listen: Some(self.listen),
            unix_socket: Some(stdio_socket),
            allowed_hosts: self.allowed_hosts.iter().map(|host| host.as_str().to_owned()).collect(),
            allowed_origins: self.allowed_origins.iter().map(|origin| origin.as_str().to_owned()).collect(),
            tokens: self.tokens.clone(),
            constraints: constraints.clone(),
            instructions: self.instructions.clone(),
            defer_tools_above: self.defer_tools_above.map(|most| most as usize),
            profiles: self.profiles.clone(),
            limits: FaceLimits {
                body_bytes_max: self.body_max.as_usize(),
                calls_max: limits.calls_in_flight_max as usize,
                drain_grace: limits.shutdown_grace,
                ..default
            },
            ..FaceConfig::default()
        }
    }
}

fn read_instructions(section: &mut Section<'_>) -> Option<String> {
    let instructions = section.get::<String>("instructions");
    if instructions.as_ref().is_some_and(|text| text.len() > INSTRUCTIONS_BYTES_MAX) {
        let hint = format!("keep to {INSTRUCTIONS_BYTES_MAX} bytes");
        section.fault("instructions", "is too long", hint);
    }
    instructions
}

fn read_profiles(mcp: &mut Section<'_>) -> BTreeMap<String, Profile> {
    let mut profiles = BTreeMap::new();
    for (name, span, mut section) in mcp.named_sections("profiles") {
        let usable = |name: &str| {
            (1..=PROFILE_NAME_BYTES_MAX).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if name == RAW {
            section.fault_at(span, "stands for single servers already", "rename the profile");
        } else if !usable(&name) {
            section.fault_at(span, "is no part of a path", "use lower-case letters, digits and -");
        } else if profiles.len() == PROFILES_MAX {
            section.fault_at(span, "is one profile too many", format!("keep at most {PROFILES_MAX}"));
        }
        profiles.insert(name, read_profile(&mut section));
        section.finish();
    }
    profiles
}

fn read_profile(section: &mut Section<'_>) -> Profile {
    Profile {
        servers: section.list_of_distinct("servers").map(BTreeSet::from_iter),
        tools: section.list_of_distinct("tools").map(BTreeSet::from_iter),
        constraints: read_constraints(section.section("constraints")),
        instructions: read_instructions(section),
        defer_tools_above: section.get::<u32>("defer_tools_above").map(|most| most as usize),
    }
}

fn read_tokens(mcp: &mut Section<'_>) -> Vec<TokenConfig> {
    let mut tokens: Vec<TokenConfig> = Vec::new();
    for mut section in mcp.sections("tokens") {
        if let Some(token) = read_token(&mut section) {
            if tokens.iter().any(|known| known.name == token.name) {
                section.fault(
                    "name",
                    format!("{:?} names two tokens", token.name),
                    "give each token its own name",
                );
            } else if tokens.iter().any(|known| known.secret == token.secret) {
                section.fault_here("is the same token as another one's", "make a token for each client");
            } else if tokens.len() == TOKENS_MAX {
                section.fault_here("is one token too many", format!("keep at most {TOKENS_MAX}"));
            } else {
                tokens.push(token);
            }
        }
        section.finish();
    }
    tokens
}

fn read_token(section: &mut Section<'_>) -> Option<TokenConfig> {
    let name = section.required::<String>("name");
    let constraints = read_constraints(section.section("constraints"));
    let inline = section.get::<String>("token");
    let file = section.get::<PathBuf>("token_file");
    let hash = section.get::<TokenSecret>("token_hash");
    let keys = ["token", "token_file", "token_hash"];
    let given: Vec<&str> = keys.into_iter().filter(|key| section.has(key)).collect();
    let secret = match given.as_slice() {
        [] => {
            section.fault_here("has no `token_hash`, `token_file` or `token`", "give one of the three");
            None
        }
        ["token"] => inline.and_then(|token| check_token(section, "token", &token)),
        ["token_file"] => file.and_then(|file| read_token_file(section, &file)),
        [_] => hash,
        [first, second, ..] => {
            section.fault(second, format!("stands beside `{first}`"), "keep one of them");
            None
        }
    };
    Some(TokenConfig { name: name?, secret: secret?, constraints })
}

fn read_token_file(section: &Section<'_>, file: &Path) -> Option<TokenSecret> {
    let file = section.resolve_path(file);
    let hint = "write the token, and nothing else, into that file";
    match read_bounded(&file, TOKEN_BYTES_MAX).map(String::from_utf8) {
        Ok(Ok(text)) => check_token(section, "token_file", text.trim()),
        Ok(Err(_)) => {
            section.fault("token_file", format!("{} is not text", file.display()), hint);
            None
        }
        Err(error) => {
            section.fault("token_file", crate::telemetry::Chain(&error).to_string(), hint);
            None
        }
    }
}

/// RFC 6750 allows visible ASCII only. The problem never quotes the token.
fn check_token(section: &Section<'_>, key: &str, token: &str) -> Option<TokenSecret> {
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
        let hint = format!(
            "use at least {TOKEN_BYTES_MIN} random characters, such as `openssl rand -hex 32` prints"
        );
        section.fault(key, format!("holds a token of {} bytes", token.len()), hint);
        return None;
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        section.fault(key, "holds spaces or characters that a header cannot carry", "use letters and digits");
        return None;
    }
    Some(TokenSecret::of_token(token))
}

impl TextSetting for TokenSecret {
    const EXPECTED: &'static str =
        "\"blake3:\" and the 64 hexadecimal digits that `b3sum` prints for the token";

    fn from_text(text: &str) -> Result<Self, String> {
        TokenSecret::from_hash(text).map_err(|error| error.to_string())
    }
}

/// A web origin, `scheme://host[:port]`, in the normal form in which browsers send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// The normal form, to compare with an `Origin` header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TextSetting for Origin {
    const EXPECTED: &'static str =
        "an origin such as \"https://chat.acme.example\" or \"http://localhost:5173\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let url = HttpUrl::from_text(text)?;
        let url = url.as_url();
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{text:?} has a path, and an origin has none"));
        }
        Ok(Origin(url.origin().ascii_serialization()))
    }
}

/// A `Host` header's value: a name or address, with or without a port, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// The normal form. Without a port it stands for every port.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TextSetting for Host {
    const EXPECTED: &'static str = "a host such as \"mcp.acme.example\" or \"10.0.0.5:7420\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let authority: http::uri::Authority =
            text.parse().map_err(|error| format!("{text:?} is not a host ({error})"))?;
        if text.contains('@') || authority.host().is_empty() {
            return Err(format!("{text:?} is not a host"));
        }
        Ok(Host(text.to_ascii_lowercase()))
    }
}
