//! Strangers are refused before any application byte, with the reason in both logs.

use comity_tests::config::Settings;
use comity_tests::federation::{self, Org};
use comity_tests::node::Node;
use comity_tests::servers::OwnServer;
use tempfile::TempDir;

/// A node of acme.example that offers a tool, and whoever dials it.
struct Door {
    host: Node,
    acme: Org,
    _state: TempDir,
}

impl Door {
    fn open() -> Self {
        let state = TempDir::new().expect("a temporary directory");
        let own = OwnServer::new(state.path());
        let (acme, mut host) =
            Org::found("acme.example", &Settings::new("host", &["DE"]).server(own.server("work", &["echo"])));
        host.start();
        host.wait_for_tools(&["echo"]);
        Door { host, acme, _state: state }
    }

    /// The guest dials, both refuse with a line that holds these words, and neither learns anything of the other.
    fn refuses(&mut self, guest: &mut Node, at_host: &[&str], at_guest: &[&str]) {
        guest.seeds(&self.host.addresses());
        guest.start();
        self.host.process().stderr.wait_for(&[&[guest.id.as_str()], at_host].concat());
        guest.process().stderr.wait_for(&[&[self.host.id.as_str()], at_guest].concat());
        for (node, other) in [(&self.host, &*guest), (&*guest, &self.host)] {
            let status = node.status();
            assert_eq!(status["peers_connected"], 0, "{} let {} in: {status:#}", node.name, other.name);
            assert!(
                !node.json(&["peers"]).to_string().contains(&other.id),
                "{} lists {}",
                node.name,
                other.name
            );
        }
        assert_eq!(guest.tool_names(), Vec::<String>::new());
        assert!(self.host.metric("comity_admission_refusals_total", &[]) >= 1.0);
        guest.kill();
    }
}

#[test]
fn strangers_are_refused_and_both_logs_say_why() {
    let mut door = Door::open();

    // Of an org that the host does not believe.
    let (_, mut unpinned) = Org::found("umbrella.example", &Settings::new("unpinned", &["US"]));
    federation::pin(&unpinned, &door.acme);
    door.refuses(&mut unpinned, &["refused", "umbrella.example"], &["refused"]);

    // Of an org that says it is ours, under another root.
    let (_, mut impostor) = Org::found("acme.example", &Settings::new("impostor", &["DE"]));
    door.refuses(&mut impostor, &["refused"], &["refused"]);

    // Of another mesh.
    let settings = Settings::new("elsewhere", &["DE"]).mesh("name = \"another-mesh\"");
    let (other, mut elsewhere) = Org::found("elsewhere.example", &settings);
    federation::pin(&elsewhere, &door.acme);
    federation::pin(&door.host, &other);
    door.refuses(&mut elsewhere, &["refused"], &["refused"]);

    // The door is still open to those who belong.
    let mut member = Org::admit(&door.host, &Settings::new("member", &["DE"]));
    member.seeds(&door.host.addresses());
    member.start();
    member.wait_for_tools(&["echo"]);
    member.json(&["call", "echo"]);
}

#[test]
fn pinning_takes_two_and_takes_effect_at_once() {
    let mut door = Door::open();
    let (umbrella, mut newyork) = Org::found("umbrella.example", &Settings::new("newyork", &["US"]));
    federation::pin(&newyork, &door.acme);
    newyork.seeds(&door.host.addresses());
    newyork.start();
    door.host.process().stderr.wait_for(&[&newyork.id, "refused"]);

    federation::pin(&door.host, &umbrella);
    newyork.wait_for_tools(&["echo"]);
    newyork.json(&["call", "echo"]);

    door.host.json(&["trust", "unpin", "umbrella.example"]);
    door.host.wait_for_peers(0);
    let called = newyork.ask(&["call", "echo"]);
    assert_ne!(called.code(), Some(0), "{called:?}");
}
