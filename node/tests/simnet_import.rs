//! That the simulator reads a node's `comity.toml` as the node does: a scenario may import it, and what it then simulates
//! must be this node.

use std::collections::BTreeSet;
use std::path::Path;

use comity_node::config::servers::Share;
use comity_node::config::template::Template;
use comity_node::config::{ConfigError, NodeConfig};
use comity_simnet::scenario::node_file::{self, NodeFile};

fn by_node(text: &str) -> Result<NodeConfig, ConfigError> {
    NodeConfig::parse(Path::new("comity.toml"), text, &|_| Some("x".to_owned())).map(|loaded| loaded.config)
}

/// Asserts that both readers take a text, and to mean the same.
#[track_caller]
fn agree(text: &str) {
    let node = by_node(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let file = NodeFile::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
    if let Some(name) = &file.name {
        assert_eq!(*name, node.name);
    }
    assert_eq!((file.org, &file.mesh), (node.org, &node.mesh.name));
    assert_eq!(
        (file.processing, file.operator),
        (node.site.processing_locations, node.site.operator_country)
    );
    assert_eq!(file.constraints, node.constraints);
    assert_eq!(file.pins, node.trust.iter().map(|pin| pin.name.clone()).collect::<Vec<_>>());
    assert!(file.servers.keys().eq(node.servers.keys()));
    for (name, server) in &node.servers {
        let read = &file.servers[name];
        let share = match server.share {
            Share::Local => node_file::Share::Local,
            Share::Org => node_file::Share::Org,
            Share::Federation => node_file::Share::Federation,
        };
        assert_eq!((read.share, &read.approve, read.class_max), (share, &server.approve, server.class_max));
        let vouched: BTreeSet<_> = server.read_only.iter().chain(&server.idempotent).collect();
        assert_eq!(read.repeatable.iter().collect::<BTreeSet<_>>(), vouched);
    }
}

fn init() -> String {
    let template = Template {
        name: "berlin-1".into(),
        org: Some("acme.example".parse().expect("an org")),
        processing_locations: ["DE", "FR"].map(|code| code.parse().expect("a country")).into_iter().collect(),
        operator_country: Some("DE".parse().expect("a country")),
    };
    template.render()
}

const MORE: &str = r#"
[servers.crm]
command = "crm-mcp"
args = ["--all"]
env = { KEY = "${KEY}" }
share = "federation"
approve = ["search", "update"]
read_only = ["search"]
idempotent = ["update"]
class_max = "confidential"
timeout = "2m"
[servers.files]
url = "http://127.0.0.1:9000/mcp"
headers = { Authorization = "Bearer ${TOKEN}" }
share = "org"
[servers.private]
command = "x"
[[trust.orgs]]
name = "umbrella.example"
root = "blake3:0000000000000000000000000000000000000000000000000000000000000000"
approve = "all"
[constraints]
allow_locations = ["EU", "CH"]
deny_operator_countries = ["US"]
class = 1
min_trust = "T1"
allow_orgs = ["acme.example", "umbrella.example"]
deadline = "1m30s"
"#;

#[test]
fn both_take_what_init_writes_and_all_that_an_operator_adds_to_mean_the_same() {
    agree("");
    agree(&Template { name: "odd \"name\"".into(), ..Template::default() }.render());
    agree(&init());
    agree(&(init() + MORE));
}

#[test]
fn both_refuse_the_same_mistakes() {
    for (from, to) in [
        ("[node]", "[nodes]"),
        ("name = \"berlin-1\"", "name = \"\""),
        ("name = \"acme.example\"", "name = \"acme..example\""),
        ("name = \"acme.example\"", ""),
        ("processing_locations = [\"DE\"", "processing_locations = [\"EU\""),
        ("processing_locations = [\"DE\"", "processing_locations = [\"FR\""),
        ("operator_country = \"DE\"", "operator_country = \"Germany\""),
        ("operator_country = \"DE\"", "operator = \"DE\""),
        ("command = \"crm-mcp\"", "command = \"crm-mcp\"\nurl = \"http://127.0.0.1/\""),
        ("args = [\"--all\"]", "headers = { a = \"b\" }"),
        ("share = \"federation\"", "share = \"everybody\""),
        ("approve = [\"search\"", "approve = [\"update\""),
        ("class_max = \"confidential\"", "class_max = 4"),
        ("[servers.private]", "[servers.\"not a name\"]"),
        ("root = \"blake3:00", "root = \"blake3:zz"),
        ("approve = \"all\"", "approve = \"some\""),
        ("allow_locations = [\"EU\"", "allow_locations = [\"UE\""),
        ("[\"EU\", \"CH\"]", "[]"),
        ("class = 1", "class = \"secret\""),
        ("min_trust = \"T1\"", "min_trust = \"T9\""),
        ("deadline = \"1m30s\"", "deadline = \"30s1m\""),
        ("deadline = \"1m30s\"", "deadline = \"2d\""),
        ("[constraints]", "[constraint]"),
    ] {
        let good = init() + MORE;
        let bad = mistaken(&good, from, to);
        assert!(by_node(&bad).is_err(), "the node takes {to}");
        assert!(NodeFile::parse(&bad).is_err(), "the simulator takes {to}");
    }
}

/// The text with a mistake in the first line that says `from` and is no comment.
fn mistaken(good: &str, from: &str, to: &str) -> String {
    let says = |line: &&str| !line.starts_with('#') && line.contains(from);
    let line = good.lines().find(says).unwrap_or_else(|| panic!("no line says {from}"));
    good.replacen(&format!("\n{line}\n"), &format!("\n{}\n", line.replacen(from, to, 1)), 1)
}

/// The keys that a reader knows in one table, as it tells somebody who wrote another.
fn known(told: &str) -> BTreeSet<String> {
    let line = told.lines().find(|line| line.contains("qqqq")).unwrap_or_else(|| panic!("{told}"));
    let (_, keys) = line.split_once("known here: ").unwrap_or_else(|| panic!("{line}"));
    keys.split(", ").map(|key| key.trim().to_owned()).collect()
}

#[test]
fn in_the_tables_that_matter_both_know_the_same_keys() {
    for table in
        ["", "[node]", "[org]", "[site]", "[servers.x]", "[trust]", "[[trust.orgs]]", "[constraints]"]
    {
        let text = format!("{table}\nqqqq = 1");
        let node = by_node(&text).expect_err("an unknown key").to_string();
        let file = NodeFile::parse(&text).expect_err("an unknown key").to_string();
        assert_eq!(known(&file), known(&node), "{table}: teach simnet/src/scenario/node_file.rs");
    }
}
