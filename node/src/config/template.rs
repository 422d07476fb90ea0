//! The `comity.toml` that `comity init` writes: what is set, and in comments what could be.

use comity_protocol::geo::{Country, CountrySet};
use comity_protocol::ids::OrgName;
use toml_edit::value;

/// What is known of the node when its configuration is first written.
#[derive(Debug, Clone, Default)]
pub struct Template {
    /// The name that people see.
    pub name: String,
    /// Its org.
    pub org: Option<OrgName>,
    /// Where it processes data.
    pub processing_locations: CountrySet,
    /// Whose law binds its operator.
    pub operator_country: Option<Country>,
}

impl Template {
    /// The file's text. It always reads back without a fault.
    pub fn render(&self) -> String {
        let name = value(&self.name).to_string();
        let places: Vec<String> =
            self.processing_locations.iter().map(|place| format!("\"{place}\"")).collect();
        [
            HEAD,
            &format!("[node]\nname = {}\n\n", name.trim()),
            &section("org", "name", self.org.as_ref().map(OrgName::as_str), ORG, "acme.example"),
            "[site]\n",
            SITE_LOCATIONS,
            &match places.as_slice() {
                [] => "# processing_locations = [\"DE\"]\n".to_owned(),
                places => format!("processing_locations = [{}]\n", places.join(", ")),
            },
            SITE_OPERATOR,
            &match self.operator_country {
                Some(country) => format!("operator_country = \"{country}\"\n"),
                None => "# operator_country = \"DE\"\n".to_owned(),
            },
            TAIL,
        ]
        .concat()
    }
}

fn section(section: &str, key: &str, set: Option<&str>, comment: &str, example: &str) -> String {
    match set {
        Some(text) => format!("{comment}[{section}]\n{key} = \"{text}\"\n\n"),
        None => format!("{comment}# [{section}]\n# {key} = \"{example}\"\n\n"),
    }
}

const HEAD: &str = "\
# Comity: the configuration of one node. Every key has a working default; commented ones show it or an example.
# Check it with `comity config check`. A running node takes changes of [servers] and [trust] at once.

";

const ORG: &str = "\
# The org that this node belongs to. Make one with `comity org create NAME`, or be admitted with `comity join LINE`.
";

const SITE_LOCATIONS: &str = "\
# Every country (ISO 3166-1) in which data may be processed at this site. Others believe it as far as the org's
# membership certificate allows.
";

const SITE_OPERATOR: &str = "\
# The country whose law binds whoever operates the site: residency is not sovereignty.
";

const TAIL: &str = r#"# labels = { region = "eu-central" }

[mesh]
# name = "comity"
# listen = ["/ip4/0.0.0.0/udp/7422/quic-v1", "/ip4/0.0.0.0/tcp/7422"]
# Nodes to dial, and to go on dialling for ever. `comity status` on the other machine prints its address.
# peers = ["/dns/mesh.acme.example/udp/7422/quic-v1/p2p/12D3KooW..."]
# Addresses at which others reach this node, where they differ from those above (NAT, port mapping).
# external_addresses = ["/ip4/192.0.2.1/udp/7422/quic-v1"]

[mcp]
# Where AI clients connect: http://127.0.0.1:7420/mcp
# listen = "127.0.0.1:7420"
# allowed_origins = ["https://chat.acme.example"]
# allowed_hosts = ["mcp.acme.example"]
# body_max = "4MiB"
#
# Without tokens whoever can reach the endpoint may call.
# [[mcp.tokens]]
# name = "ci"
# token_file = "ci.token"
# constraints = { allow_locations = ["EU"], class = 2 }
#
# Further endpoints, http://127.0.0.1:7420/mcp/NAME, each with what it shows and demands.
# [mcp.profiles.support]
# servers = ["crm", "mail"]          # only what these servers offer
# tools = ["find_invoice"]           # of tools only these
# constraints = { allow_locations = ["EU"] }
# defer_tools_above = 40             # more tools than so many are found by words instead of listed

[admin]
# Health and metrics: /healthz/live, /healthz/ready, /metrics
# listen = "127.0.0.1:7421"

# MCP servers that this node fronts. `comity servers add NAME -- COMMAND ...` writes such a table for you.
# [servers.time]
# command = "uvx"
# args = ["mcp-server-time"]
# env = { API_KEY = "${API_KEY}" }   # ${NAME} is read from the node's environment
# share = "federation"               # local | org | federation
# read_only = ["get_current_time"]   # tools that you vouch change nothing
# timeout = "1h"
#
# [servers.crm]
# url = "http://127.0.0.1:9000/mcp"
# headers = { Authorization = "Bearer ${CRM_TOKEN}" }

# Servers as a desktop client lists them (mcpServers); edits of that file are followed too.
# [[servers_from]]
# path = "~/.config/Claude/claude_desktop_config.json"
# share = "local"

# Orgs that this node believes, each by the digest of its root: `comity org root` on their side prints it,
# `comity trust pin ORG DIGEST` writes it here.
# [[trust.orgs]]
# name = "umbrella.example"
# root = "blake3:..."
# approve = "none"                   # none: each tool waits for `comity tools approve`; all: visible at once
# repeatable = ["crm/find_invoice"]  # tools that you vouch may run twice: only these are tried again once sent

# What every call made here demands of whoever runs it. Requests and tokens can only add to it.
# [constraints]
# allow_locations = ["EU"]           # countries, or the groups EU and EEA
# deny_operator_countries = ["US"]
# class = 1                          # 0 public, 1 internal, 2 confidential, 3 restricted
# min_trust = "T1"
# allow_orgs = ["acme.example", "umbrella.example"]
# deadline = "30s"

[log]
# format = "text"                    # text | json
# level = "info"

[limits]
# calls_in_flight_max = 1024
# message_max = "8MiB"
# call_timeout = "1h"
# shutdown_grace = "10s"
"#;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::NodeConfig;

    fn parse(text: &str) -> NodeConfig {
        let loaded = NodeConfig::parse(Path::new("comity.toml"), text, &|_| Some("x".to_owned()));
        loaded.unwrap_or_else(|error| panic!("{text}\n{error}")).config
    }

    #[test]
    fn what_is_written_reads_back() {
        let bare = Template { name: "odd \"name\"".into(), ..Template::default() };
        let config = parse(&bare.render());
        assert_eq!((config.name.as_str(), config.org), ("odd \"name\"", None));
        let full = Template {
            org: Some("acme.example".parse().expect("org")),
            processing_locations: ["DE", "FR"]
                .iter()
                .map(|code| code.parse::<Country>().expect("country"))
                .collect(),
            operator_country: Some("DE".parse().expect("country")),
            ..bare
        };
        let config = parse(&full.render());
        assert_eq!((config.org, config.site.processing_locations), (full.org, full.processing_locations));
        assert_eq!(config.site.operator_country, full.operator_country);
    }

    #[test]
    fn every_commented_example_is_right_too() {
        let text = Template { name: "x".into(), ..Template::default() }.render();
        let uncommented: Vec<&str> = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(example) if is_toml(example) => example,
                _ => line,
            })
            .collect();
        let replaced = uncommented
            .join("\n")
            .replace("12D3KooW...", "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
            .replace("blake3:...", &format!("blake3:{}", "0".repeat(64)))
            .replace("token_file = \"ci.token\"", "token = \"0123456789abcdef\"")
            .replace(
                "[[servers_from]]\npath = \"~/.config/Claude/claude_desktop_config.json\"\nshare = \"local\"",
                "",
            );
        let config = parse(&replaced);
        assert_eq!((config.servers.len(), config.trust.len(), config.mcp.tokens.len()), (2, 1, 1));
        let defaults = parse("");
        assert_eq!((config.mesh.listen, config.limits), (defaults.mesh.listen, defaults.limits));
        assert_eq!((config.mcp.listen, config.mcp.body_max), (defaults.mcp.listen, defaults.mcp.body_max));
        assert_eq!(config.log, defaults.log);
    }

    /// A table's header or a key with a value, as opposed to a sentence.
    fn is_toml(line: &str) -> bool {
        let is_key =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| is_key(key))
    }
}
