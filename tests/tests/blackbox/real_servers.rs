//! Real MCP servers behind three nodes of two orgs, called by real clients. What a client is told through the mesh is what
//! the server itself says to it.
//!
//! Berlin fronts `mcp-server-time`, Paris `mcp-server-git`, New York `server-everything`; every call enters at another node
//! than the one that runs it, so each makes two hops.

use comity_tests::clients::{AUTO, ERAS, LEGACY, PythonClient, Target, inspect, inspect_call, said};
use comity_tests::command::exit;
use comity_tests::config::Server;
use comity_tests::federation::Trio;
use comity_tests::node::Node;
use comity_tests::servers;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A call that always has the same answer: where it enters, which tool, and the server behind it.
struct Case {
    enter: fn(&Trio) -> &Node,
    tool: &'static str,
    arguments: Value,
    server: Target,
}

struct World {
    trio: Trio,
    cases: Vec<Case>,
    _repository: TempDir,
}

impl World {
    fn start() -> Self {
        let repository = TempDir::new().expect("a temporary directory");
        servers::repository(repository.path());
        let commands = [servers::time(), servers::git(repository.path()), servers::everything()];
        let mut settings = Trio::settings();
        for ((settings, command), name) in
            settings.iter_mut().zip(&commands).zip(["time", "git", "everything"])
        {
            settings.servers.push(Server::command(name, command));
        }
        let trio = Trio::start(settings);
        let [time, git, everything] = commands.map(Target::Command);
        let path = repository.path().to_str().expect("a path is text");
        let cases = vec![
            Case {
                enter: |trio| &trio.newyork,
                tool: "convert_time",
                arguments: json!({ "source_timezone": "Europe/Berlin", "time": "10:00", "target_timezone": "Asia/Tokyo" }),
                server: time,
            },
            Case {
                enter: |trio| &trio.berlin,
                tool: "git_log",
                arguments: json!({ "repo_path": path, "max_count": 2 }),
                server: git,
            },
            Case {
                enter: |trio| &trio.paris,
                tool: "get-structured-content",
                arguments: json!({ "location": "Chicago" }),
                server: everything.clone(),
            },
            Case {
                enter: |trio| &trio.berlin,
                tool: "get-tiny-image",
                arguments: json!({}),
                server: everything,
            },
        ];
        for node in [&trio.berlin, &trio.paris, &trio.newyork] {
            node.wait_for_tools(&["convert_time", "git_log", "get-structured-content"]);
        }
        World { trio, cases, _repository: repository }
    }
}

/// One federation for the whole story: starting three real servers takes longer than all of the calls.
#[test]
fn what_clients_are_told_is_what_the_servers_say() {
    let world = World::start();
    every_tool_of_every_server_is_in_one_catalogue(&world);
    the_python_client_in_both_eras(&world);
    the_inspector_in_both_eras(&world);
    the_command_line(&world);
    progress_arrives_in_order_through_two_hops(&world);
    a_tools_own_error_is_the_tools_own(&world);
}

fn every_tool_of_every_server_is_in_one_catalogue(world: &World) {
    for server in world.cases.iter().map(|case| &case.server) {
        let direct = PythonClient::connect(server, LEGACY).tools();
        for node in [&world.trio.berlin, &world.trio.paris, &world.trio.newyork] {
            let listed = PythonClient::connect(&node.target(), LEGACY).tools();
            for tool in &direct {
                assert!(listed.contains(tool), "{} does not list {tool}\nbut {listed:#?}", node.name);
            }
        }
    }
}

fn the_python_client_in_both_eras(world: &World) {
    for (mode, revision) in [(LEGACY, "2025-11-25"), (AUTO, "2026-07-28")] {
        for case in &world.cases {
            let mut client = PythonClient::connect(&(case.enter)(&world.trio).target(), mode);
            assert_eq!(client.protocol, revision);
            let through = client.call(case.tool, case.arguments.clone());
            let direct = PythonClient::connect(&case.server, mode).call(case.tool, case.arguments.clone());
            assert_eq!(said(&through["result"]), said(&direct["result"]), "{} in mode {mode}", case.tool);
        }
    }
}

fn the_inspector_in_both_eras(world: &World) {
    for era in ERAS {
        for case in &world.cases {
            let target = (case.enter)(&world.trio).target();
            let through = inspect_call(&target, era, case.tool, &case.arguments);
            // `server-everything` speaks the legacy era only.
            let direct = inspect_call(&case.server, "legacy", case.tool, &case.arguments);
            assert_eq!(said(&through), said(&direct), "{} in the {era} era", case.tool);
        }
        let target = world.trio.berlin.target();
        let listed = inspect(&target, era, &["--method", "tools/list", "--strict"]);
        assert!(listed.success().contains("convert_time"), "{listed:?}");
    }
}

fn the_command_line(world: &World) {
    for case in &world.cases {
        let arguments = case.arguments.to_string();
        let through = (case.enter)(&world.trio).json(&["call", case.tool, "--args", &arguments]);
        let direct = PythonClient::connect(&case.server, LEGACY).call(case.tool, case.arguments.clone());
        assert_eq!(said(&through["result"]), said(&direct["result"]), "{}", case.tool);
    }
}

fn progress_arrives_in_order_through_two_hops(world: &World) {
    const STEPS: u64 = 20;
    for mode in [LEGACY, AUTO] {
        let mut client = PythonClient::connect(&world.trio.berlin.target(), mode);
        let answer = client.call("trigger-long-running-operation", json!({ "duration": 1, "steps": STEPS }));
        assert!(
            answer["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains("completed")),
            "{answer}"
        );
        let progress = answer["progress"].as_array().expect("a list");
        let steps: Vec<_> =
            progress.iter().filter_map(|step| step["progress"].as_f64()).map(|step| step as u64).collect();
        assert_eq!(steps, (1..=STEPS).collect::<Vec<_>>(), "in mode {mode}");
    }
}

fn a_tools_own_error_is_the_tools_own(world: &World) {
    let arguments =
        json!({ "source_timezone": "Nowhere/Nothing", "time": "10:00", "target_timezone": "Asia/Tokyo" });
    let case = &world.cases[0];
    let through =
        PythonClient::connect(&world.trio.newyork.target(), LEGACY).call(case.tool, arguments.clone());
    let direct = PythonClient::connect(&case.server, LEGACY).call(case.tool, arguments.clone());
    assert_eq!(through["result"]["isError"], true, "{through}");
    assert_eq!(said(&through["result"]), said(&direct["result"]));
    let called = world.trio.newyork.ask(&["call", case.tool, "--args", &arguments.to_string()]);
    assert_eq!(called.code(), exit::FAILED);
    assert_eq!(said(&called.result()["result"]), said(&direct["result"]));
}
