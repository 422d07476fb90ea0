//! Configuration: `comity.toml`, and the `mcpServers` files that it imports.
//!
//! Everything is parsed, once, into types that cannot be wrong; every fault is reported at once, with its place and with
//! what would be right; nothing is bound or started before that. [`NodeConfig::load`] is the way in.
//!
//! [`fault`] is what can be reported; [`section`] and [`setting`] read tables and values; each of the other modules
//! owns one section of the file. [`watch`] notices edits while the node runs, [`edit`] makes them.

mod comments;
pub mod constraints;
pub mod domain;
pub mod edit;
pub mod expand;
pub mod fault;
pub mod jsonc;
pub mod limits;
pub mod mcp;
pub mod mesh;
pub mod section;
pub mod servers;
pub mod servers_json;
pub mod setting;
pub mod site;
pub mod template;
pub mod trust;
pub mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use comity_protocol::constraints::Constraints;
use comity_protocol::ids::{CapabilityId, Kind, NodeId, OrgName, ServerName};
use thiserror::Error;
use toml::de::DeTable;

use self::expand::Lookup;
use self::fault::{Faults, Report};
use self::limits::LimitsConfig;
use self::mcp::McpConfig;
use self::mesh::MeshConfig;
use self::section::Section;
use self::servers::{SERVERS_MAX, ServerConfig};
use self::servers_json::ServersFrom;
use self::site::SiteConfig;
use self::trust::TrustedOrg;
use crate::admin::AdminConfig;
use crate::files::{ReadError, read_bounded};
use crate::telemetry::{Chain, LogConfig};

/// Largest configuration file, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// All that a node is told. Each section's type has working defaults, and so does the whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeConfig {
    /// The name that people see.
    pub name: String,
    /// The org that this node belongs to; `None` before it joined one.
    pub org: Option<OrgName>,
    /// Nodes that this one, as its org's issuer, neither admits nor renews.
    pub revoked: Vec<NodeId>,
    /// Where this node runs.
    pub site: SiteConfig,
    /// How it reaches others.
    pub mesh: MeshConfig,
    /// The endpoint for clients.
    pub mcp: McpConfig,
    /// The endpoint for operators.
    pub admin: AdminConfig,
    /// The servers that it fronts, from all files.
    pub servers: BTreeMap<ServerName, ServerConfig>,
    /// The JSON files that some of them come from.
    pub servers_from: Vec<ServersFrom>,
    /// The orgs that it believes.
    pub trust: Vec<TrustedOrg>,
    /// What it demands of every call made here.
    pub constraints: Constraints,
    /// Logs.
    pub log: LogConfig,
    /// Bounds.
    pub limits: LimitsConfig,
}

/// A configuration that was read without a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: NodeConfig,
    /// What the operator should know of, though it stops nothing.
    pub warnings: Faults,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read at all.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file is not text.
    #[error("{} is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// What it says is wrong; every fault is listed.
    #[error("{0}")]
    Faults(Faults),
}

impl NodeConfig {
    /// Reads a configuration file and the files that it imports.
    pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
        let text = String::from_utf8(read_bounded(path, FILE_BYTES_MAX)?);
        let text = text.map_err(|_| ConfigError::NotText(path.to_owned()))?;
        Self::parse(path, &text, &expand::from_environment)
    }

    /// Reads a configuration from its text. `path` is what faults name and what relative paths start from; `lookup`
    /// finds environment variables. Imported files are read from disk.
    pub fn parse(path: &Path, text: &str, lookup: Lookup<'_>) -> Result<Loaded, ConfigError> {
        let (mut config, mut faults, mut warnings) = read_document(path, text, lookup);
        let report = Report::new(path, text);
        for entry in &config.servers_from {
            let (imported, import_faults, import_warnings) =
                import_file(&report, entry, &config.servers, lookup);
            config.servers.extend(imported);
            faults.append(import_faults);
            warnings.append(import_warnings);
        }
        let (import_faults, _) = report.finish();
        faults.append(import_faults);
        match faults.is_empty() {
            true => Ok(Loaded { config, warnings }),
            false => Err(ConfigError::Faults(faults)),
        }
    }

    /// Every file whose change may change this configuration, `path` being its own.
    pub fn files(&self, path: &Path) -> Vec<PathBuf> {
        std::iter::once(path.to_owned())
            .chain(self.servers_from.iter().map(|entry| entry.path.clone()))
            .collect()
    }

    /// Whether the operator here vouches that a tool may run twice: of this node's own org what `read_only` and
    /// `idempotent` of its servers name, of another what its pin names. Without that word no call is ever sent twice.
    pub fn vouches_for(&self, capability: &CapabilityId) -> bool {
        let CapabilityId { org, server, kind: Kind::Tool, name: tool } = capability else { return false };
        let own = self.org.as_ref() == Some(org);
        let here = self.servers.get(server).filter(|_| own);
        let pinned = self.trust.iter().filter(|pin| pin.name == *org).flat_map(|pin| &pin.repeatable);
        here.is_some_and(|config| config.read_only.contains(tool) || config.idempotent.contains(tool))
            || pinned.into_iter().any(|named| (&named.server, &named.tool) == (server, tool))
    }

    /// The names of the sections in which `newer` differs and which only a restart applies.
    pub fn restart_needed(&self, newer: &Self) -> Vec<&'static str> {
        let differs = [
            ("node", self.name != newer.name),
            ("org", self.org != newer.org),
            ("site", self.site != newer.site),
            ("mesh", self.mesh.restart_needed(&newer.mesh)),
            ("mcp", self.mcp != newer.mcp),
            ("admin", self.admin != newer.admin),
            ("constraints", self.constraints != newer.constraints),
            ("log", self.log != newer.log),
            ("limits", self.limits != newer.limits),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// Reads the TOML document itself. Where its syntax is broken, only the syntax is blamed.
fn read_document(path: &Path, text: &str, lookup: Lookup<'_>) -> (NodeConfig, Faults, Faults) {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let broken = Report::new(path, text);
    for error in &syntax {
        broken.fault(
            error.span().unwrap_or(text.len()..text.len()),
            "",
            error.message(),
            "mend the TOML here",
        );
    }
    let report = Report::new(path, text);
    let config = read_root(Section::root(&report, &document), lookup);
    let (mut found, warnings) = report.finish();
    let (mut faults, _) = broken.finish();
    let doubtful = doubtful_lines(text, &faults);
    found.list.retain(|fault| !doubtful.iter().any(|lines| lines.contains(&fault.line)));
    faults.append(found);
    faults.list.sort_by_key(|fault| (fault.line, fault.column));
    (config, faults, warnings)
}

/// The lines of which nothing can be said: a broken one; and after a broken header all up to the next header, because
/// their keys have fallen into another table.
fn doubtful_lines(text: &str, syntax: &Faults) -> Vec<Range<usize>> {
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let lines: Vec<&str> = text.lines().collect();
    let end = |broken: usize| match lines.get(broken - 1) {
        Some(line) if is_header(line) => {
            let next = lines[broken..].iter().position(|line| is_header(line));
            next.map_or(lines.len() + 1, |offset| broken + offset + 1)
        }
        _ => broken + 1,
    };
    syntax.list.iter().map(|fault| fault.line..end(fault.line)).collect()
}

fn read_root(mut root: Section<'_>, lookup: Lookup<'_>) -> NodeConfig {
    let name = site::read_node_name(root.section("node"));
    let org = site::OrgConfig::read(root.section("org"));
    let config = NodeConfig {
        name,
        org: org.name,
        revoked: org.revoked,
        site: SiteConfig::read(root.section("site")),
        mesh: MeshConfig::read(root.section("mesh")),
        mcp: McpConfig::read(root.section("mcp")),
        admin: AdminConfig::read(root.section("admin")),
        servers: servers::read(&mut root, lookup),
        servers_from: servers_json::read_entries(&mut root),
        trust: trust::read(root.section("trust")),
        constraints: constraints::read_constraints(root.section("constraints")),
        log: read_log(root.section("log")),
        limits: LimitsConfig::read(root.section("limits")),
    };
    check_listeners(&mut root, &config);
    root.finish();
    config
}

fn read_log(mut section: Section<'_>) -> LogConfig {
    let default = LogConfig::default();
    let config =
        LogConfig { format: section.or("format", default.format), level: section.or("level", default.level) };
    section.finish();
    config
}

/// Two listeners on one address cannot both work, and the second would fail only after the first is up.
fn check_listeners(root: &mut Section<'_>, config: &NodeConfig) {
    let taken = |a: SocketAddr, b: SocketAddr| {
        let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        a.port() != 0 && a.port() == b.port() && overlap
    };
    if taken(config.mcp.listen, config.admin.listen) {
        let problem = format!("{} is where [mcp] listens", config.admin.listen);
        root.section("admin").fault("listen", problem, "give one of the two another port");
    }
}

type Imported = (BTreeMap<ServerName, ServerConfig>, Faults, Faults);

/// Reads one imported file. That it cannot be read is a fault of the entry that names it; what it says is its own.
fn import_file(
    toml: &Report<'_>,
    entry: &ServersFrom,
    known: &BTreeMap<ServerName, ServerConfig>,
    lookup: Lookup<'_>,
) -> Imported {
    let mut servers = BTreeMap::new();
    let cannot = |problem: String| {
        toml.fault(
            entry.span.clone(),
            "servers_from.path",
            problem,
            "correct the path, or remove the import",
        );
        Imported::default()
    };
    let text = match read_bounded(&entry.path, FILE_BYTES_MAX).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => return cannot(format!("{} is not UTF-8 text", entry.path.display())),
        Err(error) => return cannot(Chain(&error).to_string()),
    };
    let report = Report::new(&entry.path, &text);
    for (name, span, server) in servers_json::import(&report, &text, entry, lookup) {
        let path = format!("mcpServers.{name}");
        if let Some(other) = known.get(&name).or(servers.get(&name)) {
            let problem = format!("is defined in {} too", other.defined_in.display());
            report.fault(span, &path, problem, "rename one of them, or name it in `skip`");
        } else if known.len() + servers.len() >= SERVERS_MAX {
            report.fault(span, &path, "is one server too many", format!("keep at most {SERVERS_MAX} in all"));
        } else {
            servers.insert(name, server);
        }
    }
    let (faults, warnings) = report.finish();
    (servers, faults, warnings)
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
