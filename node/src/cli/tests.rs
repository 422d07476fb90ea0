//! Commands as they are typed: what they do to files, and how they end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::CommandFactory;

use super::*;
use crate::config::NodeConfig;
use crate::identity::load_key;

/// Runs a command against a context's own data directory and expects it to work.
pub(super) fn run_in(context: &Context, command: &str, arguments: &[&str]) {
    let exit = try_in(context, command, arguments)
        .unwrap_or_else(|error| panic!("{command} {arguments:?}: {error:?}"));
    assert_eq!(exit, Exit::Done, "{command} {arguments:?}");
}

fn try_in(context: &Context, command: &str, arguments: &[&str]) -> Result<Exit, CliError> {
    let words = std::iter::once("comity").chain(command.split(' ')).chain(arguments.iter().copied());
    let cli = Cli::try_parse_from(words).map_err(|error| CliError::usage(error.to_string()))?;
    execute(cli.command, context)
}

fn context(dir: &Path) -> Context {
    Context::new(Some(dir.join("data")), None, Output::new(true)).expect("context")
}

/// A node that `comity init` made, as the first of its org.
fn first_node() -> (tempfile::TempDir, Context) {
    let temp = tempfile::tempdir().expect("temp dir");
    let context = context(temp.path());
    run_in(&context, "init", &["--name", "a", "--org", "acme.example", "--create-org", "--location", "DE"]);
    (temp, context)
}

fn refused(context: &Context, command: &str, arguments: &[&str], exit: Exit, part: &str) {
    let error = try_in(context, command, arguments).expect_err(command);
    assert_eq!(error.exit, exit, "{command}: {error:?}");
    let shown = format!("{error:?}");
    assert!(shown.contains(part), "{command}: expected {part}: {shown}");
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_usage_ends_with_64_and_help_with_0() {
    let code = |arguments: &[&str]| {
        let arguments =
            std::iter::once("comity").chain(arguments.iter().copied()).map(OsString::from).collect();
        format!("{:?}", run(arguments))
    };
    let expected = |code: u8| format!("{:?}", ExitCode::from(code));
    for wrong in
        [&["nonsense"][..], &[], &["call"], &["--json", "servers", "add", "x"], &["init", "--location", "UK"]]
    {
        assert_eq!(code(wrong), expected(64), "{wrong:?}");
    }
    for right in ["--help", "--version"] {
        assert_eq!(code(&[right]), expected(0), "{right}");
    }
}

#[test]
fn one_command_makes_a_working_node_with_an_org_and_never_overwrites_it() {
    let (_temp, context) = first_node();
    let config = NodeConfig::load(&context.config_path).expect("valid").config;
    assert_eq!(
        (config.name.as_str(), config.org.map(|org| org.to_string())),
        ("a", Some("acme.example".to_owned()))
    );
    assert_eq!(config.site.operator_country.map(|country| country.to_string()).as_deref(), Some("DE"));
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    for private in
        [context.config_path.clone(), context.dir.node_key(), context.dir.org_key(), context.dir.membership()]
    {
        assert_eq!(mode(&private), 0o600, "{}", private.display());
    }
    assert_eq!(mode(context.dir.path()), 0o700);
    let before = load_key(&context.dir.node_key()).expect("key").to_bytes();
    refused(&context, "init", &[], Exit::Usage, "exists already");
    refused(&context, "org create", &["acme.example"], Exit::Usage, "exists already");
    refused(&context, "org create", &["other.example"], Exit::Usage, "belongs to acme.example");
    assert_eq!(load_key(&context.dir.node_key()).expect("key").to_bytes(), before);
}

#[test]
fn a_second_node_is_admitted_by_hand() {
    let (_first_temp, first) = first_node();
    let temp = tempfile::tempdir().expect("temp dir");
    let second = context(temp.path());
    run_in(&second, "init", &["--location", "FR"]);
    let node = crate::identity::node_id(&load_key(&second.dir.node_key()).expect("key")).to_string();
    run_in(&first, "org admit", &[&node, "--location", "EU"]);
    refused(&first, "org admit", &["nonsense", "--location", "EU"], Exit::Usage, "is not a node id");
    refused(&first, "org admit", &[&node, "--location", "UK"], Exit::Usage, "GB");
    refused(&second, "org admit", &[&node, "--location", "EU"], Exit::Usage, "belongs to no org");

    let line = admission(&first, &node);
    refused(&first, "join", &[&line], Exit::Denied, "and this node is");
    run_in(&second, "join", &[&line]);
    let config = NodeConfig::load(&second.config_path).expect("valid").config;
    assert_eq!(config.org.map(|org| org.to_string()).as_deref(), Some("acme.example"));
    assert!(second.dir.membership().exists());
    run_in(&second, "org root", &[]);
    refused(&second, "org admit", &[&node, "--location", "EU"], Exit::Usage, "does not hold the key");
    refused(&second, "join", &["comity-admission:junk"], Exit::Usage, "not an admission line");
}

/// The line that `comity org admit` prints.
fn admission(issuer: &Context, node: &str) -> String {
    let org = "acme.example".parse().expect("org");
    let issuer = crate::org::Issuer::load(&issuer.dir, &org).expect("loads").expect("is the issuer");
    let mesh = "comity".parse().expect("mesh");
    let places = comity_protocol::geo::CountrySet::ALL;
    let membership =
        issuer.admit(&mesh, node.parse().expect("node"), places, context::now()).expect("admits");
    crate::org::Admission::new(issuer.chain(), &membership).to_line()
}

#[test]
fn servers_are_added_and_removed_in_the_file() {
    let (_temp, context) = first_node();
    run_in(
        &context,
        "servers add",
        &["time", "--share", "federation", "--env", "TZ=UTC", "--", "uvx", "mcp-server-time"],
    );
    run_in(&context, "servers add", &["crm", "--url", "http://127.0.0.1:9000/mcp", "--header", "A=b"]);
    assert_eq!(NodeConfig::load(&context.config_path).expect("valid").config.servers.len(), 2);
    run_in(&context, "servers list", &[]);
    refused(&context, "servers add", &["time", "--", "x"], Exit::Usage, "there is a server time already");
    refused(&context, "servers add", &["x", "--url", "ftp://x/"], Exit::Usage, "not http or https");
    refused(
        &context,
        "servers add",
        &["x", "--url", "http://x/", "--", "y"],
        Exit::Usage,
        "cannot be used with",
    );
    refused(&context, "servers remove", &["tim"], Exit::Usage, "did you mean time?");
    run_in(&context, "servers remove", &["time"]);
    assert_eq!(NodeConfig::load(&context.config_path).expect("valid").config.servers.len(), 1);
}

#[test]
fn an_imported_server_is_removed_where_it_is_defined() {
    let (_temp, context) = first_node();
    let json = context.dir.path().join("mcp.json");
    fs::write(&json, r#"{"mcpServers": {"notes": {"command": "x"}}}"#).expect("write");
    let text = fs::read_to_string(&context.config_path).expect("read");
    fs::write(&context.config_path, format!("{text}\n[[servers_from]]\npath = \"mcp.json\"\n"))
        .expect("write");
    refused(&context, "servers remove", &["notes"], Exit::Usage, "mcp.json");
}

#[test]
fn orgs_are_pinned_listed_and_unpinned() {
    let (_temp, context) = first_node();
    let root = format!("blake3:{}", "1".repeat(64));
    run_in(&context, "trust pin", &["umbrella.example", &root]);
    run_in(&context, "trust pin", &["umbrella.example", &root]);
    run_in(&context, "trust list", &[]);
    let other = format!("blake3:{}", "2".repeat(64));
    refused(&context, "trust pin", &["umbrella.example", &other], Exit::Usage, "is pinned already");
    refused(&context, "trust pin", &["umbrella.example", "blake3:12"], Exit::Usage, "is not a digest");
    run_in(&context, "trust unpin", &["umbrella.example"]);
    refused(&context, "trust unpin", &["umbrella.example"], Exit::Usage, "pins no org");
}

#[test]
fn a_bad_configuration_is_named_fault_by_fault() {
    let (_temp, context) = first_node();
    run_in(&context, "config check", &[]);
    fs::write(&context.config_path, "[mesh]\nlisen = []\n[mcp]\nlisten = 3\n").expect("write");
    let error = try_in(&context, "config check", &[]).expect_err("faulty");
    assert_eq!((error.exit, error.faults.len()), (Exit::Usage, 2));
    refused(&context, "up", &[], Exit::Usage, "did you mean `listen`?");
    refused(&context, "servers add", &["x", "--", "y"], Exit::Usage, "did you mean `listen`?");
}

#[test]
fn commands_that_need_a_node_say_so_when_none_runs() {
    let (_temp, context) = first_node();
    for (command, arguments) in [
        ("status", &[][..]),
        ("peers", &[]),
        ("tools", &[]),
        ("tools approve", &["x"]),
        ("route", &["x", "--allow-loc", "EU"]),
        ("call", &["x", "--args", "{}"]),
        ("invite", &["--federation"]),
        ("stdio", &[]),
    ] {
        refused(&context, command, arguments, Exit::Unreachable, "comity up");
    }
    refused(&context, "join", &["something"], Exit::Usage, "this is not an invite");
    refused(&context, "join", &["comity1:AAAA"], Exit::Usage, "the invite");
    refused(&context, "call", &["x", "--args", "[]"], Exit::Usage, "not a JSON object");
    refused(&context, "route", &["x", "--allow-loc", "UK"], Exit::Usage, "GB");
    refused(&context, "tools approve", &[], Exit::Usage, "required");
}
