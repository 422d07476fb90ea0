//! Whole configurations, table style: what is read, and what is said of mistakes.

use std::fs;

use super::*;
use crate::config::servers::{Launch, Share};
use crate::config::trust::Approve;
use crate::face::TokenSecret;

const NODE: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
const ROOT: &str = "blake3:0101010101010101010101010101010101010101010101010101010101010101";

fn environment(name: &str) -> Option<String> {
    (name == "CRM_TOKEN").then(|| "s3cret".to_owned())
}

fn parse(text: &str) -> Result<Loaded, ConfigError> {
    NodeConfig::parse(Path::new("comity.toml"), text, &environment)
}

fn good(text: &str) -> NodeConfig {
    parse(text).unwrap_or_else(|error| panic!("{text}\n{error}")).config
}

fn faults(text: &str) -> Vec<String> {
    match parse(text) {
        Err(ConfigError::Faults(faults)) => faults.list.iter().map(ToString::to_string).collect(),
        other => panic!("{text}\nexpected faults, got {other:?}"),
    }
}

/// Line and column, words of the problem, words of the hint.
type Expected<'a> = (&'a str, &'a str, &'a str);

/// Checks that each fault found begins with the place and holds the words expected of it, in this order and no more.
fn check(text: &str, expected: &[Expected<'_>]) {
    let found = faults(text);
    assert_eq!(found.len(), expected.len(), "{text}\n{found:#?}");
    for (fault, (place, problem, hint)) in found.iter().zip(expected) {
        assert!(fault.starts_with(&format!("comity.toml:{place}: ")), "expected at {place}: {fault}");
        assert!(fault.contains(problem), "expected {problem:?}: {fault}");
        assert!(fault.contains(hint), "expected {hint:?}: {fault}");
    }
}

#[test]
fn an_empty_file_is_a_working_configuration() {
    let config = good("");
    assert_eq!(config.mcp.listen.to_string(), "127.0.0.1:7420");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:7421");
    assert_eq!(config.mesh.listen.len(), 2);
    assert!(!config.name.is_empty());
    assert!(config.servers.is_empty() && config.trust.is_empty() && config.org.is_none());
}

#[test]
fn every_key_is_read() {
    let config = good(&format!(
        r#"
        [node]
        name = "berlin-1"
        [org]
        name = "acme.example"
        [site]
        processing_locations = ["DE", "FR"]
        operator_country = "DE"
        labels = {{ region = "eu-central" }}
        [mesh]
        name = "test"
        listen = ["/ip4/127.0.0.1/udp/0/quic-v1"]
        peers = ["/dns/a.example/udp/7422/quic-v1/p2p/{NODE}"]
        external_addresses = ["/ip4/192.0.2.1/udp/7422/quic-v1"]
        neighbours = 4
        connections_max = 100
        [mcp]
        listen = "127.0.0.1:0"
        allowed_origins = ["https://Chat.acme.example:443"]
        allowed_hosts = ["MCP.acme.example"]
        body_max = "8MiB"
        [[mcp.tokens]]
        name = "ci"
        token = "0123456789abcdef"
        constraints = {{ allow_locations = ["EU"], deadline = "5s" }}
        [admin]
        listen = "127.0.0.1:0"
        [servers.time]
        command = "uvx"
        args = ["mcp-server-time"]
        env = {{ TOKEN = "${{CRM_TOKEN}}" }}
        share = "federation"
        approve = ["now"]
        read_only = ["now"]
        idempotent = ["set"]
        timeout = "1m30s"
        class_max = 1
        [servers.crm]
        url = "http://127.0.0.1:9000/mcp?key=abc"
        headers = {{ Authorization = "Bearer ${{CRM_TOKEN}}" }}
        [[trust.orgs]]
        name = "umbrella.example"
        root = "{ROOT}"
        approve = "all"
        repeatable = ["crm/find_invoice"]
        [constraints]
        allow_locations = ["EU", "GB"]
        deny_operator_countries = ["US"]
        class = 2
        min_trust = "T1"
        allow_orgs = ["acme.example"]
        require_certs = ["soc2:type2"]
        deadline = "30s"
        [log]
        format = "json"
        level = "debug"
        [limits]
        calls_in_flight_max = 7
        message_max = "1MiB"
        call_timeout = "1m"
        shutdown_grace = "0s"
        "#
    ));
    assert_eq!(
        (config.name.as_str(), config.site.processing_locations.to_string()),
        ("berlin-1", "DE,FR".into())
    );
    assert_eq!((config.mesh.peers.len(), config.mesh.neighbours), (1, 4));
    assert_eq!(config.mcp.allowed_origins[0].as_str(), "https://chat.acme.example");
    assert_eq!(config.mcp.allowed_hosts[0].as_str(), "mcp.acme.example");
    assert_eq!(config.mcp.tokens[0].secret, TokenSecret::of_token("0123456789abcdef"));
    assert_eq!(config.mcp.tokens[0].constraints.deadline_ms, Some(5000));
    assert_eq!(config.trust[0].approve, Approve::All);
    for (capability, vouched) in [
        (("umbrella.example", "crm", "find_invoice"), true),
        (("umbrella.example", "crm", "pay"), false),
        (("acme.example", "crm", "find_invoice"), false),
        (("acme.example", "time", "now"), true),
        (("acme.example", "time", "set"), true),
        (("acme.example", "time", "reset"), false),
        (("umbrella.example", "time", "now"), false),
    ] {
        let (org, server, tool) = capability;
        let id = CapabilityId {
            org: org.parse().expect("an org"),
            server: server.parse().expect("a server"),
            kind: Kind::Tool,
            name: tool.parse().expect("a tool"),
        };
        assert_eq!(config.vouches_for(&id), vouched, "{id}");
    }
    assert_eq!(config.constraints.allow_locations.expect("set").len(), 28);
    assert_eq!(config.limits.calls_in_flight_max, 7);
    let time = &config.servers[&"time".parse::<ServerName>().expect("name")];
    assert_eq!((time.share, time.timeout.as_secs()), (Share::Federation, 90));
    let Launch::Command { env, .. } = &time.launch else { panic!("a command") };
    assert!(env["TOKEN"].matches(b"s3cret"));
    let shown = format!("{config:?}");
    for secret in ["s3cret", "0123456789abcdef", "key=abc"] {
        assert!(!shown.contains(secret), "{secret} is shown");
    }
}

#[test]
fn ten_mistakes_are_ten_faults_in_one_go() {
    let text = r#"[node]
nmae = "berlin-1"
[org]
name = "Acme Ltd"
[site]
processing_locations = ["DE", "UK"]
operator_country = 49
[mesh]
listen = ["0.0.0.0:7422"]
neighbours = 0
[mcp]
listen = "localhost"
body_max = "lots"
[servers.crm]
command = "crm"
url = "http://127.0.0.1:9000/mcp"
[limits]
call_timeout = "5 minutes"
[constraint]
"#;
    check(
        text,
        &[
            ("2:1", "node.nmae: unknown key", "did you mean `name`?"),
            ("4:8", "org.name: `Acme Ltd` is not an org name", "acme.example"),
            ("6:31", "site.processing_locations[1]: `UK` is not", "the United Kingdom is GB"),
            ("7:20", "site.operator_country: is an integer, not a string", "a country such as \"DE\""),
            ("9:11", "mesh.listen[0]: \"0.0.0.0:7422\" is not a multiaddr", "/ip4/0.0.0.0/udp/7422/quic-v1"),
            ("10:14", "mesh.neighbours: 0 is out of range", "from 1 to 64"),
            ("12:10", "mcp.listen: \"localhost\" is not an IP address and port", "127.0.0.1:7420"),
            ("13:12", "mcp.body_max: \"lots\" is not a size", "8MiB"),
            ("16:7", "servers.crm.url: stands beside `command`", "remove one"),
            ("18:16", "limits.call_timeout: \"5 minutes\" is not a duration", "1m30s"),
            ("19:2", "constraint: unknown key", "did you mean `constraints`?"),
        ],
    );
}

#[test]
fn mistakes_of_every_kind_are_named() {
    let cases: &[(&str, &[Expected<'_>])] = &[
        ("mesh = 3", &[("1:8", "mesh: is an integer, not a table", "[mesh]")]),
        ("[mesh]\npeers = \"x\"", &[("2:9", "mesh.peers: is a string, not a list", "list of an address")]),
        ("[mesh]\npeers = [3]", &[("2:10", "mesh.peers[0]: is an integer", "peer's id")]),
        ("[mesh]\nneighbours = 9\nconnections_max = 8", &[("2:14", "more than connections_max", "raise")]),
        ("[org]\n", &[("1:1", "org.name: is missing", "acme.example")]),
        ("[servers.a]\n", &[("1:1", "servers.a: has neither `command` nor `url`", "its URL")]),
        ("[servers.\"a b\"]\ncommand = \"x\"", &[("1:10", "`a b` is not a server name", "rename")]),
        (
            "[servers.a]\nurl = \"http://x/\"\nargs = []",
            &[("3:8", "servers.a.args: means nothing", "remove it")],
        ),
        ("[servers.a]\ncommand = \"x\"\nshare = \"all\"", &[("3:9", "\"all\" is not a share", "federation")]),
        (
            "[servers.a]\ncommand = \"x\"\nenv = { A = \"${NOPE}\" }",
            &[("3:7", "NOPE, which is not set", "${NAME:-")],
        ),
        (
            "[servers.a]\ncommand = \"x\"\nenv = { A = 1 }",
            &[("3:13", "servers.a.env.A: is an integer", "a string")],
        ),
        (
            "[servers.a]\nurl = \"http://x/\"\nheaders = { \"a b\" = \"c\" }",
            &[("3:11", "not a header name", "letters")],
        ),
        ("[servers.a]\ncommand = \"x\"\ntimeout = \"0ms\"", &[("3:11", "out of range", "1ms")]),
        ("[servers.a]\ncommand = \"x\"\nclass_max = 4", &[("3:13", "is not a class", "3 (restricted)")]),
        (
            "[[mcp.tokens]]\nname = \"a\"",
            &[("1:1", "has no `token_hash`, `token_file` or `token`", "one of the three")],
        ),
        ("[[mcp.tokens]]\nname = \"a\"\ntoken_hash = \"y\"", &[("3:14", "is written `blake3:`", "64")]),
        (
            "[[mcp.tokens]]\nname = \"a\"\ntoken = \"x\"\ntoken_file = \"y\"",
            &[("4:14", "stands beside `token`", "one")],
        ),
        ("[[mcp.tokens]]\nname = \"a\"\ntoken = \"short\"", &[("3:9", "a token of 5 bytes", "openssl rand")]),
        (
            "[[mcp.tokens]]\nname = \"a\"\ntoken_file = \"/nonexistent\"",
            &[("3:14", "cannot read /nonexistent", "")],
        ),
        ("[mcp]\nallowed_origins = [\"http://x/y\"]", &[("2:20", "has a path", "https://chat.acme.example")]),
        ("[mcp]\nallowed_hosts = [\"a@b\"]", &[("2:18", "is not a host", "mcp.acme.example")]),
        ("[admin]\nlisten = \"127.0.0.1:7420\"", &[("2:10", "is where [mcp] listens", "another port")]),
        (
            "[trust]\norgs = 1",
            &[("2:8", "trust.orgs: is an integer, not a list of tables", "[[trust.orgs]]")],
        ),
        ("[[trust.orgs]]\nname = \"a.b\"", &[("1:1", "trust.orgs[0].root: is missing", "comity org root")]),
        (
            "[[trust.orgs]]\nname = \"a.b\"\nroot = \"blake3:12\"",
            &[("3:8", "`blake3:12` is not a digest", "64")],
        ),
        ("[constraints]\nallow_locations = []", &[("2:19", "allows nowhere", "name a place")]),
        ("[constraints]\nmin_trust = 1", &[("2:13", "is an integer, not a string", "T1")]),
        ("[constraints]\ndeadline = \"48h\"", &[("2:12", "out of range", "24h")]),
        ("[log]\nlevel = \"a=b=c\"", &[("2:9", "not a log filter", "info")]),
        ("[log]\nformat = \"xml\"", &[("2:10", "neither \"text\" nor \"json\"", "json")]),
        (
            "[[servers_from]]\npath = \"/nonexistent.json\"",
            &[("2:8", "cannot read /nonexistent.json", "correct the")],
        ),
        ("zzz = 1", &[("1:1", "unknown key", "known here: node, org")]),
    ];
    for (text, expected) in cases {
        check(text, expected);
    }
}

#[test]
fn what_is_named_twice_is_refused_where_it_is_named_again() {
    let org = format!("[[trust.orgs]]\nname = \"a.b\"\nroot = \"{ROOT}\"\n");
    check(&format!("{org}{org}"), &[("5:8", "a.b is pinned twice", "right root")]);
    let token = |name: &str, token: &str| format!("[[mcp.tokens]]\nname = \"{name}\"\ntoken = \"{token}\"\n");
    let (one, two) = ("0123456789abcdef", "fedcba9876543210");
    check(&(token("a", one) + &token("a", two)), &[("5:8", "names two tokens", "its own name")]);
    check(&(token("a", one) + &token("b", one)), &[("4:1", "the same token", "each client")]);
    check("[site]\nprocessing_locations = [\"DE\", \"DE\"]", &[("2:24", "the same value twice", "once")]);
    check("[log]\n[log]\n", &[("2:2", "duplicate key", "mend the TOML")]);
}

#[test]
fn broken_toml_is_reported_beside_what_is_wrong_elsewhere() {
    let text = "[mcp]\nlisten = \n[node]\nnmae = \"x\"\n[site\noperator_country = \"UK\"\n";
    let found = faults(text);
    for (line, part) in [(2, "quoted"), (4, "did you mean `name`?"), (5, "unclosed table")] {
        let start = format!("comity.toml:{line}:");
        assert!(found.iter().any(|f| f.starts_with(&start) && f.contains(part)), "line {line}: {found:#?}");
    }
    assert_eq!(found.len(), 3, "{found:#?}");
}

#[test]
fn hostile_text_costs_no_more_than_its_size() {
    let deep = format!("a = {}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let many = "x = 1\n".repeat(10_000);
    let tables: String = (0..5_000).map(|n| format!("[servers.s{n}]\nurl = \"http://x/\"\n")).collect();
    let list = format!("[mesh]\nlisten = [{}]", "\"a\",".repeat(100_000));
    let garbage = "x\n".repeat(200_000);
    for text in [deep, many, tables, list, garbage] {
        assert!(!faults(&text).is_empty());
    }
}

#[test]
fn a_listener_that_strangers_can_reach_is_a_warning() {
    let loaded =
        parse("[mcp]\nlisten = \"0.0.0.0:7420\"\n[admin]\nlisten = \"0.0.0.0:7421\"").expect("only warnings");
    let keys: Vec<_> = loaded.warnings.list.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(keys, ["mcp.listen", "admin.listen"]);
}

/// A directory with a `comity.toml` that imports `mcp.json`.
fn with_import(json: &str, toml: &str) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().expect("temp dir");
    fs::write(dir.path().join("mcp.json"), json).expect("write");
    NodeConfig::parse(&dir.path().join("comity.toml"), toml, &environment)
}

const IMPORT: &str = "[[servers_from]]\npath = \"mcp.json\"\nshare = \"org\"\nskip = [\"not me\"]\n";

#[test]
fn servers_come_from_a_desktop_clients_file() {
    let json = r#"{
      // Written by hand.
      "mcpServers": {
        "time": { "command": "uvx", "args": ["mcp-server-time", "${CRM_TOKEN}"], "env": { "TZ": "UTC" }, "icon": "x" },
        "My CRM": { "type": "http", "url": "http://127.0.0.1:9000/mcp", "headers": { "X": "${env:CRM_TOKEN}" } },
        "off": { "command": "x", "disabled": true },
        "not me": { "type": "sse", "url": "http://x/" },
      },
      "preferences": {},
    }"#;
    let loaded = with_import(json, IMPORT).expect("good");
    let names: Vec<_> = loaded.config.servers.keys().map(ServerName::as_str).collect();
    assert_eq!(names, ["My-CRM", "time"]);
    assert!(loaded.config.servers.values().all(|server| server.share == Share::Org));
    let warnings: Vec<_> =
        loaded.warnings.list.iter().map(|w| (w.line, w.key.as_str(), w.problem.as_str())).collect();
    assert_eq!(
        warnings,
        [
            (4, "mcpServers.time.icon", "means nothing to Comity"),
            (5, "mcpServers.My CRM", "is known here as `My-CRM`")
        ]
    );
}

#[test]
fn mistakes_in_a_desktop_clients_file_are_named_with_their_line() {
    let toml = format!("{IMPORT}[servers.time]\ncommand = \"x\"\n");
    let cases = [
        ("", "mcp.json:1:1: is not JSON"),
        ("{\n  \"mcpServers\": {,}\n}", "mcp.json:2:18: is not JSON"),
        ("{\n\n  \"a\" 1}", "mcp.json:3:7: is not JSON"),
        ("[]", "mcp.json:1:1: is not JSON"),
        ("{}", "has neither `mcpServers` nor `servers`"),
        ("{\"servers\": []}", "mcp.json:1:13: servers: is not an object of servers"),
        ("{\"servers\":\n {\"a\": 1}}", "mcp.json:2:8: mcpServers.a: is not an object"),
        ("{\"servers\":\n {\"a\": {}}}", "mcp.json:2:8: mcpServers.a: has neither a command nor a URL"),
        ("{\"servers\": {\"a\": {\"command\": 1}}}", "mcpServers.a.command: is not a string"),
        ("{\"servers\": {\"a\": {\"command\": \"x\", \"url\": \"http://x/\"}}}", "both a command and a URL"),
        ("{\"servers\": {\"a\": {\"url\": \"x\"}}}", "mcpServers.a.url: is not a URL"),
        ("{\"servers\": {\"a\": {\"type\": \"sse\", \"url\": \"http://x/\"}}}", "old HTTP+SSE transport"),
        ("{\"servers\": {\"a\": {\"command\": \"${input:k}\"}}}", "only the program that wrote it"),
        ("{\"servers\": {\"time\": {\"command\": \"y\"}}}", "is defined in"),
    ];
    for (json, expected) in cases {
        let error = with_import(json, &toml).expect_err(json).to_string();
        assert!(error.contains(expected), "{json}\nexpected {expected}\ngot {error}");
    }
}

#[test]
fn a_file_that_is_too_large_or_not_text_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("comity.toml");
    fs::write(&path, vec![b'#'; FILE_BYTES_MAX + 1]).expect("write");
    assert!(matches!(NodeConfig::load(&path), Err(ConfigError::Read(ReadError::TooLarge { .. }))));
    fs::write(&path, [0xff, 0xfe]).expect("write");
    assert!(matches!(NodeConfig::load(&path), Err(ConfigError::NotText(_))));
    fs::write(&path, "").expect("write");
    assert!(NodeConfig::load(&path).is_ok());
}

#[test]
fn what_only_a_restart_applies_is_named() {
    let old = good("[node]\nname = \"a\"");
    let new = good("[node]\nname = \"b\"\n[mesh]\nneighbours = 4\n[servers.x]\ncommand = \"x\"");
    assert_eq!(old.restart_needed(&new), ["node", "mesh"]);
    let peer = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let with_peer = good(&format!("[node]\nname = \"a\"\n[mesh]\npeers = [\"{peer}\"]"));
    assert!(old.restart_needed(&with_peer).is_empty(), "a peer that is added is dialled at once");
    assert_eq!(with_peer.restart_needed(&old), ["mesh"]);
}
