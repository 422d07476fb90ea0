//! Commands that need no running node, their exit codes, and what they say when something is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use comity_tests::command::{ask, comity, exit};
use comity_tests::config::Settings;
use comity_tests::federation::Org;
use comity_tests::node::Node;
use comity_tests::process::run;
use serde_json::Value;
use tempfile::TempDir;

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

#[test]
fn init_makes_keys_for_their_owner_only_and_never_overwrites_them() {
    let dir = TempDir::new().expect("a temporary directory");
    let data = dir.path().join("data");
    let made = ask(&data, &["init", "--name", "berlin", "--location", "DE"]).json();
    assert!(made["node"].as_str().is_some_and(|id| id.starts_with("12D3KooW")), "{made}");
    assert_eq!(
        (mode(&data), mode(&data.join("node.key")), mode(&data.join("comity.toml"))),
        (0o700, 0o600, 0o600)
    );

    let key = fs::read(data.join("node.key")).expect("a key");
    let error = ask(&data, &["init"]).error(exit::USAGE);
    assert!(error["message"].as_str().is_some_and(|text| text.contains("exists already")), "{error}");
    assert_eq!(fs::read(data.join("node.key")).expect("a key"), key);

    ask(&data, &["config", "check"]).json();
}

#[test]
fn a_config_with_ten_mistakes_is_told_all_ten_with_their_lines() {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("comity.toml");
    let mistakes = [
        "[node]",
        "nmae = \"berlin\"", // 2: unknown key, near `name`
        "[org]",
        "name = \"not an org\"", // 4
        "[site]",
        "processing_locations = [\"UK\"]", // 6: GB is meant
        "[mesh]",
        "listen = [\"/dns/a.example/tcp/7422\"]", // 8: a name where an address must be
        "neighbours = 0",                         // 9
        "peers = [\"/ip4/10.0.0.1/tcp/7422\"]",   // 10: whom to expect is missing
        "[mcp]",
        "listen = \"localhost\"", // 12
        "[servers.crm]",
        "url = \"ftp://crm.example/\"", // 14
        "share = \"everybody\"",        // 15
        "[constraints]",
        "min_trust = \"T9\"", // 17
    ];
    fs::write(&file, mistakes.join("\n")).expect("a file can be written");
    let error = ask(dir.path(), &["config", "check"]).error(exit::USAGE);
    let faults = error["faults"].as_array().expect("a list of faults");
    let lines: Vec<u64> = faults.iter().filter_map(|fault| fault["line"].as_u64()).collect();
    assert_eq!(lines, [2, 4, 6, 8, 9, 10, 12, 14, 15, 17], "{error:#}");
    for fault in faults {
        let text = |key: &str| fault[key].as_str().unwrap_or_default().to_owned();
        assert!(text("file").ends_with("comity.toml") && !text("problem").is_empty(), "{fault}");
        assert!(!text("hint").is_empty(), "says what would be right: {fault}");
    }
    assert!(faults[0].to_string().contains("did you mean"), "{}", faults[0]);
    assert!(faults[2].to_string().contains("GB"), "{}", faults[2]);

    // For people: one line a fault, `file:line:column`.
    let shown = run(&mut comity(dir.path(), &["config", "check"]));
    assert_eq!(shown.code, exit::USAGE);
    assert_eq!(shown.stderr.matches("comity.toml:").count(), 10, "{}", shown.stderr);

    // A node refuses to start with it, for the same reasons.
    let refused = ask(dir.path(), &["up"]).error(exit::USAGE);
    assert_eq!(refused["faults"], error["faults"]);
}

#[test]
fn commands_that_need_the_node_say_so_when_it_does_not_run() {
    let node = Node::init(&Settings::new("berlin", &["DE"]));
    for arguments in
        [&["status"][..], &["peers"], &["tools"], &["route", "echo"], &["call", "echo"], &["stdio"]]
    {
        let done = node.ask(arguments);
        let error = done.error(exit::UNREACHABLE);
        assert!(
            error["next"].as_str().is_some_and(|next| next.contains("comity up")),
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn wrong_usage_ends_with_64() {
    let node = Node::init(&Settings::new("berlin", &["DE"]));
    for arguments in [
        &["no-such-command"][..],
        &["call"],
        &["call", "echo", "--args", "[1]"],
        &["call", "echo", "--class", "7"],
        &["call", "echo", "--allow-loc", "UK"],
        &["trust", "pin", "acme.example", "blake3:short"],
        &["org", "admit", "12D3KooWnot", "--location", "DE"],
        &["join", "comity-admission:nonsense"],
        &["servers", "remove", "nothing"],
    ] {
        let error = node.ask(arguments).error(exit::USAGE);
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{arguments:?}: {error}");
    }
    assert_eq!(node.run(&["--help"]).code, exit::DONE);
    assert_eq!(node.run(&["--version"]).code, exit::DONE);
}

#[test]
fn an_admission_admits_only_the_node_that_it_names() {
    let (acme, issuer) = Org::found("acme.example", &Settings::new("berlin", &["DE"]));
    let paris = Node::init(&Settings::new("paris", &["FR"]));
    let admitted = issuer.json(&["org", "admit", &paris.id, "--location", "FR"]);
    let line = admitted["line"].as_str().expect("a line");

    let thief = Node::init(&Settings::new("thief", &["FR"]));
    let error = thief.ask(&["join", line]).error(exit::DENIED);
    assert!(error["message"].as_str().is_some_and(|text| text.contains(&paris.id)), "{error}");

    let damaged = format!("{}A{}", &line[..line.len() / 2], &line[line.len() / 2 + 1..]);
    assert_ne!(paris.ask(&["join", &damaged]).code(), exit::DONE);
    let joined = paris.json(&["join", line]);
    assert_eq!(
        (joined["org"].as_str(), joined["root"].as_str()),
        (Some("acme.example"), Some(acme.root.as_str()))
    );
    assert_eq!(paris.json(&["org", "root"])["root"], Value::from(acme.root));
}

#[test]
fn a_pin_is_not_replaced_by_another_without_a_word() {
    let (acme, _issuer) = Org::found("acme.example", &Settings::new("berlin", &["DE"]));
    let (umbrella, node) = Org::found("umbrella.example", &Settings::new("newyork", &["US"]));
    node.json(&["trust", "pin", &acme.name, &acme.root]);
    assert_eq!(node.json(&["trust", "pin", &acme.name, &acme.root])["new"], false);
    node.ask(&["trust", "pin", &acme.name, &umbrella.root]).error(exit::USAGE);
    let pinned = node.json(&["trust", "list"]);
    assert_eq!(
        (pinned[0]["org"].as_str(), pinned[0]["root"].as_str()),
        (Some("acme.example"), Some(acme.root.as_str()))
    );
}

#[test]
fn doctor_finds_a_key_that_others_can_read() {
    let node = Node::init(&Settings::new("berlin", &["DE"]));
    let key = node.data_dir().join("node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("permissions can be set");
    let done = node.run(&["doctor"]);
    assert_ne!(done.code, exit::DONE, "{}", done.stdout);
    assert!(format!("{}{}", done.stdout, done.stderr).contains("chmod 600"), "{done:?}");
}
