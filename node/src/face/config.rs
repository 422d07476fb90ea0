//! What the operator can set about the MCP face. Every field has a working default.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use comity_protocol::constraints::Constraints;

use super::{auth::TokenConfig, door::Profile};

/// The port of the MCP endpoint unless configured otherwise.
pub const PORT_DEFAULT: u16 = 7420;

/// The path of the MCP endpoint unless configured otherwise.
pub const PATH_DEFAULT: &str = "/mcp";

/// Configuration of one MCP endpoint.
#[derive(Clone, Debug)]
pub struct FaceConfig {
    /// Where HTTP is served; `None` for not at all. Loopback by default.
    pub listen: Option<SocketAddr>,
    /// The path of the endpoint.
    pub path: String,
    /// Where newline-framed MCP is served, for `comity stdio`; `None` for not at all. Made with mode 0600.
    pub unix_socket: Option<PathBuf>,
    /// `Host` names accepted besides loopback and the address listened on: `name` for any port, or `name:port`.
    pub allowed_hosts: Vec<String>,
    /// `Origin`s accepted besides loopback ones: `scheme://host`, `scheme://host:port`, `scheme://host:*` or `null`.
    pub allowed_origins: Vec<String>,
    /// Bearer tokens. When there is one, every HTTP request must present one; the Unix socket needs none.
    pub tokens: Vec<TokenConfig>,
    /// What is demanded of every call that comes in here.
    pub constraints: Constraints,
    /// Text for the client's model about what this server is for.
    pub instructions: Option<String>,
    /// Tells this node's `requestState`s from those of a node behind it: a short name that survives a restart.
    pub state_tag: String,
    /// More tools than so many are found by words instead of listed; `None` lists them however many.
    pub defer_tools_above: Option<usize>,
    /// Further endpoints below the path, by name.
    pub profiles: BTreeMap<String, Profile>,
    /// Bounds and deadlines.
    pub limits: FaceLimits,
}

impl Default for FaceConfig {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT))),
            path: PATH_DEFAULT.into(),
            unix_socket: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            tokens: Vec::new(),
            constraints: Constraints::default(),
            instructions: None,
            state_tag: String::new(),
            defer_tools_above: None,
            profiles: BTreeMap::new(),
            limits: FaceLimits::default(),
        }
    }
}

/// Bounds and deadlines of one MCP endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaceLimits {
    /// Bytes of one message from a client. Above: HTTP 413, or on the Unix socket an error and a closed connection.
    pub body_bytes_max: usize,
    /// Connections at a time, on each socket. Above: HTTP 503 and closed at once.
    pub connections_max: usize,
    /// Calls at a time, over all clients. Above: the call fails with "overloaded".
    pub calls_max: usize,
    /// Legacy sessions at a time. Above: the longest idle one makes room, or HTTP 503 if none is idle.
    pub sessions_max: usize,
    /// How long a legacy session with no call in flight and no open stream is kept.
    pub session_idle: Duration,
    /// How long a request's header may take; also how long a connection may idle between requests.
    pub header_timeout: Duration,
    /// How long a request's body may take. Above: HTTP 408.
    pub body_timeout: Duration,
    /// How long an answer may take before HTTP switches from a plain JSON answer to a stream.
    pub json_hold: Duration,
    /// Longest silence on a stream; then a comment is sent so that proxies and clients keep the connection.
    pub keep_alive: Duration,
    /// How long a legacy call goes on after its client's connection broke, waiting for it to resume.
    pub resume_grace: Duration,
    /// How long a call whose server asked a 2026-07-28 client for input waits for the retry that brings it. The call's
    /// own deadline goes on meanwhile.
    pub input_wait: Duration,
    /// How long calls in flight may take to finish once the node shuts down.
    pub drain_grace: Duration,
    /// Items on one page of a list.
    pub page_items_max: usize,
}

impl Default for FaceLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            connections_max: 512,
            calls_max: 1024,
            sessions_max: 1024,
            session_idle: Duration::from_secs(30 * 60),
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            json_hold: Duration::from_secs(1),
            keep_alive: Duration::from_secs(15),
            resume_grace: Duration::from_secs(60),
            input_wait: Duration::from_secs(15 * 60),
            drain_grace: Duration::from_secs(10),
            page_items_max: 1000,
        }
    }
}
