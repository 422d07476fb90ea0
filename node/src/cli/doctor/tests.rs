//! The doctor on data directories with something wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cli::output::Output;

struct Patient {
    _temp: tempfile::TempDir,
    context: Context,
}

impl Patient {
    /// A node on ephemeral ports, with an org of its own when asked.
    fn new(with_org: bool) -> Self {
        let temp = tempfile::tempdir().expect("temp dir");
        let context = Context::new(Some(temp.path().join("data")), None, Output::new(true)).expect("context");
        let mut arguments = vec!["--name", "a", "--location", "DE"];
        if with_org {
            arguments.extend(["--org", "acme.example", "--create-org"]);
        }
        crate::cli::tests::run_in(&context, "init", &arguments);
        let patient = Patient { _temp: temp, context };
        patient.set(
            "[mesh]\n",
            "[mesh]\nlisten = [\"/ip4/127.0.0.1/udp/0/quic-v1\", \"/ip4/127.0.0.1/tcp/0\"]\n",
        );
        patient.set("# listen = \"127.0.0.1:7420\"", "listen = \"127.0.0.1:0\"");
        patient.set("# listen = \"127.0.0.1:7421\"", "listen = \"127.0.0.1:0\"");
        patient
    }

    /// Changes the configuration.
    fn set(&self, from: &str, to: &str) {
        let path = &self.context.config_path;
        let text = fs::read_to_string(path).expect("read");
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(path, text.replace(from, to)).expect("write");
    }

    /// The checks that did not go well.
    fn trouble(&self) -> Vec<Check> {
        let checks = examine(&self.context).expect("examined");
        checks.into_iter().filter(|check| check.state != State::Ok).collect()
    }

    fn check(&self, state: State, name: &str, detail: &str, mend: &str) {
        let trouble = self.trouble();
        let found = trouble.iter().any(|check| {
            check.state == state
                && check.name == name
                && check.detail.contains(detail)
                && check.mend.as_deref().unwrap_or_default().contains(mend)
        });
        assert!(found, "expected {state:?} {name}: {detail} ({mend})\n{trouble:#?}");
    }
}

#[test]
fn a_new_node_with_an_org_has_nothing_to_mend() {
    let patient = Patient::new(true);
    let failed: Vec<_> = patient.trouble().into_iter().filter(|check| check.state == State::Fail).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn what_is_missing_is_named_with_the_command_that_makes_it() {
    let temp = tempfile::tempdir().expect("temp dir");
    let context = Context::new(Some(temp.path().join("none")), None, Output::new(true)).expect("context");
    let patient = Patient { _temp: temp, context };
    for name in ["data directory", "node key"] {
        patient.check(State::Fail, name, "", "comity init");
    }
    patient.check(State::Fail, "configuration", "cannot read", "comity init");
    Patient::new(false).check(State::Warn, "org", "belongs to none", "comity join");
}

#[test]
fn exposed_keys_and_directories_are_named_with_the_command_that_closes_them() {
    let patient = Patient::new(true);
    let dir = &patient.context.dir;
    fs::set_permissions(dir.node_key(), fs::Permissions::from_mode(0o644)).expect("chmod");
    patient.check(State::Fail, "node key", "mode 644", "chmod 600");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    patient.check(State::Fail, "data directory", "mode 755", "chmod 700");
}

#[test]
fn a_claim_beyond_the_membership_fails() {
    let patient = Patient::new(true);
    patient.set("processing_locations = [\"DE\"]", "processing_locations = [\"DE\", \"US\"]");
    patient.check(State::Fail, "membership", "claims DE,US, and the membership allows DE only", "remove US");
}

#[test]
fn a_membership_that_is_missing_or_not_ours_fails() {
    let patient = Patient::new(true);
    let dir = &patient.context.dir;
    fs::remove_file(dir.node_key()).expect("remove");
    crate::identity::create_key(&dir.node_key()).expect("another key");
    patient.check(State::Fail, "membership", "this node is another", "comity org admit");
    fs::write(dir.membership(), "junk").expect("write");
    patient.check(State::Fail, "membership", "COSE_Sign1", "comity org admit");
    fs::remove_file(dir.membership()).expect("remove");
    patient.check(State::Fail, "membership", "there is none", "comity org admit");
    fs::remove_file(dir.root(&"acme.example".parse().expect("org"))).expect("remove");
    patient.check(State::Fail, "org acme.example", "its root is not here", "comity join");
}

#[test]
fn ports_that_are_taken_and_servers_that_are_not_there_fail() {
    let patient = Patient::new(true);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("address");
    patient.set(
        "[admin]\n# Health and metrics: /healthz/live, /healthz/ready, /metrics\nlisten = \"127.0.0.1:0\"",
        &format!("[admin]\nlisten = \"{address}\""),
    );
    let servers = format!(
        "[servers.gone]\ncommand = \"no-such-program-anywhere\"\n\
         [servers.dead]\nurl = \"http://127.0.0.1:1/mcp\"\n\
         [servers.live]\nurl = \"http://{address}/mcp\"\n[log]\n"
    );
    patient.set("[log]\n", &servers);
    patient.check(State::Fail, "port of operators", &address.to_string(), "ss -lntup");
    patient.check(State::Fail, "server gone", "is not on PATH", "install it");
    patient.check(State::Fail, "server dead", "http://127.0.0.1:1/mcp", "start that server");
    assert!(patient.trouble().iter().all(|check| check.name != "server live"));
}

#[test]
fn seeds_are_reached_over_tcp_and_over_quic_without_a_handshake() {
    const NODE: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let tcp = listener.local_addr().expect("address").port();
    let quic = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let port = quic.local_addr().expect("address").port();
    // Answers as RFC 9000, section 17.2.1 asks: the probe's ids the other way round, then a version.
    std::thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok((length, from)) = quic.recv_from(&mut packet) {
            assert!(length >= 1200);
            let answer = [&[0x80, 0, 0, 0, 0][..], &packet[14..23], &packet[5..14], &[0, 0, 0, 1]].concat();
            quic.send_to(&answer, from).expect("send");
        }
    });
    let patient = Patient::new(true);
    let peers = format!(
        "[mesh]\npeers = [\"/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{NODE}\", \"/ip4/127.0.0.1/tcp/{tcp}/p2p/{NODE}\", \
         \"/ip4/127.0.0.1/tcp/1/p2p/{NODE}\"]\n"
    );
    patient.set("[mesh]\n", &peers);
    let checks = examine(&patient.context).expect("examined");
    let states: Vec<_> =
        checks.iter().filter(|check| check.name.starts_with("seed ")).map(|check| check.state).collect();
    assert_eq!(states, [State::Ok, State::Ok, State::Warn], "{checks:#?}");
}
