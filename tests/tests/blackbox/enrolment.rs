//! Joining made for people: one line carried over, and the same words on both sides.

use std::thread;

use comity_tests::command::{Answer, exit};
use comity_tests::config::Settings;
use comity_tests::federation::Org;
use comity_tests::node::Node;
use comity_tests::process::{Background, run};
use comity_tests::servers::OwnServer;
use comity_tests::wait;
use serde_json::Value;
use tempfile::TempDir;

/// `comity invite`, waiting for its guest.
struct Invite {
    process: Background,
    line: String,
}

impl Invite {
    fn make(host: &Node, arguments: &[&str]) -> Self {
        let mut command = host.command(&[&["--json", "invite"], arguments].concat());
        let process = Background::start("comity invite", &mut command);
        let printed: Value = serde_json::from_str(&process.stdout.wait_for(&["invitation"])).expect("JSON");
        let line = printed["invitation"]["line"].as_str().expect("a line").to_owned();
        assert!(line.starts_with("comity1:"), "{line}");
        Invite { process, line }
    }

    /// How it ended, and every JSON document that it printed.
    fn finish(mut self) -> (Option<i32>, Vec<Value>) {
        let code = self.process.wait().code();
        (code, documents(&self.process.stdout.all().join("\n")))
    }
}

fn join(guest: &Node, line: &str, arguments: &[&str]) -> Answer {
    let arguments = [&["--json", "join", line], arguments].concat();
    Answer { finished: run(&mut guest.command(&arguments)) }
}

fn documents(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The words that one side showed.
fn words(documents: &[Value]) -> Vec<String> {
    let compare = documents.iter().find_map(|document| document.get("compare"));
    let compare = compare.unwrap_or_else(|| panic!("no words in {documents:?}"));
    let words = compare["words"].as_array().expect("a list of words");
    words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// Berlin of acme.example, which holds the org's key and offers a tool.
fn issuer() -> (Org, Node, TempDir) {
    let state = TempDir::new().expect("a temporary directory");
    let own = OwnServer::new(state.path());
    let (acme, mut berlin) =
        Org::found("acme.example", &Settings::new("berlin", &["DE"]).server(own.server("work", &["echo"])));
    berlin.start();
    berlin.wait_for_tools(&["echo"]);
    (acme, berlin, state)
}

#[test]
fn a_new_machine_joins_an_org_with_one_line_and_equal_words() {
    let (acme, berlin, _state) = issuer();
    for running in [false, true] {
        let mut paris = Node::init(&Settings::new("paris", &["FR"]));
        if running {
            paris.start();
        }
        let invite = Invite::make(&berlin, &["--location", "FR", "--yes"]);
        let line = invite.line.clone();
        let joined = join(&paris, &line, &["--yes"]);
        let (code, host) = invite.finish();
        assert_eq!((code, joined.code()), (exit::DONE, exit::DONE), "{host:?} {joined:?}");
        let guest = documents(&joined.finished.stdout);
        assert_eq!(words(&guest).len(), 4);
        assert_eq!(words(&guest), words(&host), "both sides show the same words");
        let [enrolled_there, enrolled_here] =
            [&host, &guest].map(|documents| documents.last().expect("a result"));
        assert_eq!(
            (enrolled_here["org"].as_str(), enrolled_here["root"].as_str()),
            (Some("acme.example"), Some(acme.root.as_str()))
        );
        assert_eq!(enrolled_there["node"].as_str(), Some(paris.id.as_str()), "{enrolled_there}");
        if !running {
            paris.start();
        }
        // It needs to be told nothing more: the line said where the others are.
        paris.wait_for_status("it is a member", |status| {
            status["org"] == "acme.example" && status["peers_connected"] == 1
        });
        paris.wait_for_tools(&["echo"]);
        paris.json(&["call", "echo", "--allow-loc", "DE"]);

        // The line is used up.
        let late = Node::init(&Settings::new("late", &["FR"]));
        let refused = join(&late, &line, &["--yes"]);
        assert_ne!(refused.code(), exit::DONE, "{refused:?}");
        assert!(!refused.finished.stderr.contains(&line), "a line is a secret: {refused:?}");
        paris.stop();
        berlin.wait_for_peers(0);
    }
}

#[test]
fn two_orgs_federate_with_one_line() {
    let (acme, berlin, _state) = issuer();
    let (umbrella, mut newyork) = Org::found("umbrella.example", &Settings::new("newyork", &["US"]));
    newyork.start();
    let invite = Invite::make(&berlin, &["--federation", "--yes"]);
    let line = invite.line.clone();
    let joined = join(&newyork, &line, &["--approve-all", "--yes"]);
    let (code, host) = invite.finish();
    assert_eq!((code, joined.code()), (exit::DONE, exit::DONE), "{host:?} {joined:?}");
    assert_eq!(words(&documents(&joined.finished.stdout)), words(&host));
    for (node, other) in [(&berlin, &umbrella), (&newyork, &acme)] {
        let pinned = wait::until(&format!("{} believes {}", node.name, other.name), || {
            let trust = node.json(&["trust", "list"]);
            let found =
                trust.as_array().expect("a list").iter().find(|org| org["org"] == other.name.as_str());
            found.cloned().ok_or(trust)
        });
        assert_eq!(pinned["root"].as_str(), Some(other.root.as_str()));
    }
    newyork.wait_for_tools(&["echo"]);
    newyork.json(&["call", "echo", "--allow-loc", "DE"]);
}

#[test]
fn nobody_joins_whose_words_were_not_confirmed() {
    let (_, berlin, _state) = issuer();
    let paris = Node::init(&Settings::new("paris", &["FR"]));
    // Without a terminal there is nobody to say yes.
    let invite = Invite::make(&berlin, &["--location", "FR"]);
    let line = invite.line.clone();
    let joined =
        thread::scope(|scope| scope.spawn(|| join(&paris, &line, &["--yes"])).join().expect("it ends"));
    let (code, host) = invite.finish();
    assert_eq!(code, exit::DENIED, "{host:?}");
    assert_ne!(joined.code(), exit::DONE, "{joined:?}");
    assert!(!paris.data_dir().join("membership.cbor").exists(), "it has no membership");
    assert_ne!(join(&paris, &line, &["--yes"]).code(), exit::DONE, "the line is void");
}

#[test]
fn an_invite_gives_no_more_than_it_says() {
    let (_, berlin, _state) = issuer();
    // A guest that claims to be where the invite does not allow.
    let newyork = Node::init(&Settings::new("newyork", &["US"]));
    let invite = Invite::make(&berlin, &["--location", "EU", "--yes"]);
    let refused = join(&newyork, &invite.line, &["--yes"]);
    assert_eq!(refused.code(), exit::DENIED, "{refused:?}");
    assert!(refused.finished.stderr.contains("US"), "says what is too much: {refused:?}");

    // One within it is still welcome: a refusal does not use the line up.
    let paris = Node::init(&Settings::new("paris", &["FR"]));
    assert_eq!(join(&paris, &invite.line, &["--yes"]).code(), exit::DONE);
    assert_eq!(invite.finish().0, exit::DONE);

    // Only the machine with the org's key admits.
    let mut paris = paris;
    paris.start();
    paris.wait_for_peers(1);
    let error = paris.ask(&["invite", "--location", "FR", "--no-wait"]).error(exit::USAGE);
    assert!(error["next"].as_str().is_some_and(|next| next.contains("org.key")), "{error}");

    // A line that was cut on its way is named as such.
    let error = join(&newyork, "comity1:AH2IAWR0ZXN0WCAH", &["--yes"]).error(exit::USAGE);
    assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
}
