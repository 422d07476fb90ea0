//! The `[mcp]` section: the endpoint that AI clients talk to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use comity_protocol::constraints::Constraints;

use super::constraints::read_constraints;
use super::section::Section;
use super::setting::{ByteSize, HttpUrl, TextSetting};
use crate::files::read_bounded;
use crate::secret::Secret;

/// Tokens that one configuration may hold.
pub const TOKENS_MAX: usize = 256;
/// A token shorter than this can be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;
/// Largest token, and largest token file.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// The `[mcp]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpConfig {
    /// Where `POST /mcp` is served.
    pub listen: SocketAddr,
    /// Web origins, beside the endpoint's own, whose pages may call.
    pub allowed_origins: Vec<Origin>,
    /// `Host` values, beside loopback names and the listen address, that are answered (against DNS rebinding).
    pub allowed_hosts: Vec<Host>,
    /// Largest request body.
    pub body_max: ByteSize,
    /// Who may call. Empty: whoever can reach the endpoint.
    pub tokens: Vec<TokenConfig>,
}

impl Default for McpConfig {
    fn default() -> Self {
        McpConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 7420)),
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            body_max: ByteSize::mib(4),
            tokens: Vec::new(),
        }
    }
}

/// One client's bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenConfig {
    /// The principal that calls with this token are made by; shown in logs and told to upstreams.
    pub name: String,
    /// The token.
    pub token: Secret,
    /// What holds for every call made with it.
    pub constraints: Constraints,
}

impl McpConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = McpConfig::default();
        let config = McpConfig {
            listen: section.or("listen", default.listen),
            allowed_origins: section.list_of_distinct("allowed_origins").unwrap_or_default(),
            allowed_hosts: section.list_of_distinct("allowed_hosts").unwrap_or_default(),
            body_max: section.or_within("body_max", default.body_max, ByteSize::kib(1)..=ByteSize::mib(64)),
            tokens: read_tokens(&mut section),
        };
        if !config.listen.ip().is_loopback() && config.tokens.is_empty() {
            let problem =
                format!("{} can be reached from other machines and asks for no token", config.listen);
            section.warning("listen", problem, "add [[mcp.tokens]] or listen on 127.0.0.1");
        }
        section.finish();
        config
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
            } else if tokens.iter().any(|known| known.token == token.token) {
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
    let token = match (section.has("token"), section.has("token_file")) {
        (true, true) => {
            section.fault("token_file", "stands beside `token`", "keep one of the two");
            None
        }
        (false, false) => {
            section.fault_here("has neither `token` nor `token_file`", "give one of the two");
            None
        }
        (true, false) => inline.and_then(|token| check_token(section, "token", token)),
        (false, true) => file.and_then(|file| read_token_file(section, &file)),
    };
    Some(TokenConfig { name: name?, token: token?, constraints })
}

fn read_token_file(section: &Section<'_>, file: &Path) -> Option<Secret> {
    let file = section.resolve_path(file);
    let hint = "write the token, and nothing else, into that file";
    match read_bounded(&file, TOKEN_BYTES_MAX).map(String::from_utf8) {
        Ok(Ok(text)) => check_token(section, "token_file", text.trim().to_owned()),
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
fn check_token(section: &Section<'_>, key: &str, token: String) -> Option<Secret> {
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
    Some(Secret::new(token))
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
