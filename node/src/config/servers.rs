//! `[servers.NAME]`: the MCP servers that this node fronts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use comity_protocol::constraints::DataClass;
use comity_protocol::ids::{ItemName, ServerName};

use super::expand::{Lookup, expand};
use super::section::Section;
use super::setting::{HttpUrl, TextSetting};
use crate::secret::Secret;
use crate::upstream::EraChoice;

/// Servers that one node may front, from all files together.
pub const SERVERS_MAX: usize = 256;
/// How long a server may take over one call when nothing else is said.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// One MCP server and what the operator says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// How it is reached.
    pub launch: Launch,
    /// Who may call its tools.
    pub share: Share,
    /// The only items that are offered: tools and prompts by name, resources and templates by URI. `None` offers all, and
    /// the server itself.
    pub approve: Option<Vec<ItemName>>,
    /// Tools that the operator vouches change nothing: they may be sent again and hedged.
    pub read_only: Vec<ItemName>,
    /// Tools that the operator vouches may run twice with the effect of once.
    pub idempotent: Vec<ItemName>,
    /// How long one call may take here.
    pub timeout: Duration,
    /// Which era of MCP is spoken with it.
    pub era: EraChoice,
    /// The most sensitive class of data that it may be given.
    pub class_max: DataClass,
    /// The file that defines it: edits go there.
    pub defined_in: PathBuf,
}

/// How an MCP server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// A child process that speaks over its standard input and output.
    Command {
        /// The program, looked up on `PATH` where it has no slash.
        program: String,
        /// Its arguments; secret because a reference to the environment may have put a key among them.
        args: Vec<Secret>,
        /// Variables beside the few that every child gets.
        env: BTreeMap<String, Secret>,
        /// Where it runs; the node's own working directory where absent.
        cwd: Option<PathBuf>,
    },
    /// Streamable HTTP.
    Http {
        /// The endpoint.
        url: HttpUrl,
        /// Headers sent with each request.
        headers: BTreeMap<String, Secret>,
    },
}

impl fmt::Display for Launch {
    /// The program or the URL, without anything that may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Launch::Command { program, .. } => f.write_str(program),
            Launch::Http { url, .. } => url.fmt(f),
        }
    }
}

/// Who may call a server's tools.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// Clients of this node.
    #[default]
    Local,
    /// And nodes of this node's org.
    Org,
    /// And nodes of every org that trusts ours and that we trust.
    Federation,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Share::Local => "local",
            Share::Org => "org",
            Share::Federation => "federation",
        })
    }
}

impl TextSetting for Share {
    const EXPECTED: &'static str = "\"local\", \"org\" or \"federation\"";

    fn from_text(text: &str) -> Result<Self, String> {
        [Share::Local, Share::Org, Share::Federation]
            .into_iter()
            .find(|share| share.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not a share"))
    }
}

/// Reads every `[servers.NAME]` of the document.
pub(super) fn read(root: &mut Section<'_>, lookup: Lookup<'_>) -> BTreeMap<ServerName, ServerConfig> {
    let mut servers = BTreeMap::new();
    for (name, name_span, mut section) in root.named_sections("servers") {
        let name = match ServerName::from_text(&name) {
            Ok(name) => Some(name),
            Err(problem) => {
                section.fault_at(name_span, problem, "rename the table");
                None
            }
        };
        let server = read_server(&mut section, lookup);
        section.finish();
        if let (Some(name), Some(server)) = (name, server) {
            servers.insert(name, server);
        }
    }
    if servers.len() > SERVERS_MAX {
        root.fault(
            "servers",
            format!("names {} servers", servers.len()),
            format!("name at most {SERVERS_MAX}"),
        );
    }
    servers
}

fn read_server(section: &mut Section<'_>, lookup: Lookup<'_>) -> Option<ServerConfig> {
    let launch = read_launch(section, lookup);
    let config = ServerConfig {
        share: section.or("share", Share::default()),
        approve: section.list_of_distinct("approve"),
        read_only: section.list_of_distinct("read_only").unwrap_or_default(),
        idempotent: section.list_of_distinct("idempotent").unwrap_or_default(),
        timeout: section.or_within(
            "timeout",
            TIMEOUT_DEFAULT,
            Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60),
        ),
        era: section.or("era", EraChoice::default()),
        class_max: section.or("class_max", DataClass::Restricted),
        defined_in: section.file().to_owned(),
        launch: launch?,
    };
    Some(config)
}

fn read_launch(section: &mut Section<'_>, lookup: Lookup<'_>) -> Option<Launch> {
    let command =
        section.get::<String>("command").and_then(|text| expanded(section, "command", &text, lookup));
    let args = section.list::<String>("args").unwrap_or_default();
    let args =
        args.iter().filter_map(|arg| expanded(section, "args", arg, lookup)).map(Secret::new).collect();
    let env = secrets(section, "env", lookup);
    let cwd = section.get::<PathBuf>("cwd").map(|cwd| section.resolve_path(&cwd));
    let url = section.get::<HttpUrl>("url");
    let headers = secrets(section, "headers", lookup);
    match (section.has("command"), section.has("url")) {
        (true, true) => {
            section.fault(
                "url",
                "stands beside `command`",
                "a server is either a command or a URL: remove one",
            );
            None
        }
        (false, false) => {
            section
                .fault_here("has neither `command` nor `url`", "give the command that starts it, or its URL");
            None
        }
        (true, false) => {
            only_with(section, &["headers"], "url");
            let program = command?;
            if program.is_empty() {
                section.fault("command", "is empty", "give the program that starts the server");
                return None;
            }
            Some(Launch::Command { program, args, env, cwd })
        }
        (false, true) => {
            only_with(section, &["args", "env", "cwd"], "command");
            check_headers(section, &headers);
            Some(Launch::Http { url: url?, headers })
        }
    }
}

/// Notes keys that mean nothing without `owner`, which this server does not have.
fn only_with(section: &mut Section<'_>, keys: &[&'static str], owner: &str) {
    for key in keys {
        if section.has(key) {
            section.fault(key, format!("means nothing without `{owner}`"), "remove it");
        }
    }
}

fn check_headers(section: &Section<'_>, headers: &BTreeMap<String, Secret>) {
    for (name, value) in headers {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            section.fault("headers", format!("{name:?} is not a header name"), "use letters, digits and -");
        }
        if http::HeaderValue::from_str(value.expose()).is_err() {
            section.fault("headers", format!("the value of {name} cannot be sent"), "use visible ASCII");
        }
    }
}

fn secrets(section: &mut Section<'_>, key: &'static str, lookup: Lookup<'_>) -> BTreeMap<String, Secret> {
    section
        .map::<String>(key)
        .into_iter()
        .filter_map(|(name, text)| Some((name, Secret::new(expanded(section, key, &text, lookup)?))))
        .collect()
}

fn expanded(section: &Section<'_>, key: &str, text: &str, lookup: Lookup<'_>) -> Option<String> {
    match expand(text, lookup) {
        Ok(expanded) => Some(expanded),
        Err(problem) => {
            section.fault(key, problem, "set the variable, or write ${NAME:-default}");
            None
        }
    }
}
