//! `comity stdio`: for clients that start a process.

use comity_tests::clients::{AUTO, ERAS, LEGACY, PythonClient, inspect_call, said};
use comity_tests::config::Settings;
use comity_tests::federation::Org;
use comity_tests::servers::OwnServer;
use serde_json::json;
use tempfile::TempDir;

#[test]
fn clients_that_start_a_process_see_what_the_endpoint_shows() {
    let state = TempDir::new().expect("a temporary directory");
    let own = OwnServer::new(state.path());
    let (_, mut node) = Org::found(
        "acme.example",
        &Settings::new("berlin", &["DE"]).server(own.server("work", &["echo", "fail"])),
    );
    node.start();
    node.wait_for_tools(&["echo", "fail"]);
    let bridge = node.bridge();
    let arguments = json!({ "grüße": [1.50, null], "deep": { "a": "\u{1F980}" } });
    for (mode, revision) in [(LEGACY, "2025-11-25"), (AUTO, "2026-07-28")] {
        let mut through = PythonClient::connect(&bridge, mode);
        let mut direct = PythonClient::connect(&node.target(), mode);
        assert_eq!((through.protocol.as_str(), direct.protocol.as_str()), (revision, revision));
        assert_eq!(through.tools(), direct.tools());
        for tool in ["echo", "fail"] {
            let [through, direct] =
                [&mut through, &mut direct].map(|client| client.call(tool, arguments.clone()));
            assert_eq!(said(&through["result"]), said(&direct["result"]));
        }
    }
    for era in ERAS {
        assert_eq!(
            said(&inspect_call(&bridge, era, "echo", &arguments)),
            said(&inspect_call(&node.target(), era, "echo", &arguments))
        );
    }
    // It changes with the node, too.
    let mut client = PythonClient::connect(&bridge, LEGACY);
    client.watch();
    node.edit_in_server(&OwnServer::new(&state.path().join("more")).server("more", &["noise"]));
    client.wait_for_change();
    node.wait_for_tools(&["noise"]);
}
