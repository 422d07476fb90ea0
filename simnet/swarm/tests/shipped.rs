//! That the stand-ins stay where they belong.

use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The entries of a package in a lock file.
fn packages<'a>(lock: &'a str, name: &str) -> Vec<&'a str> {
    let is_it = |entry: &&str| entry.lines().any(|line| line == format!("name = \"{name}\""));
    lock.split("[[package]]").filter(is_it).collect()
}

#[test]
fn no_stand_in_reaches_the_lock_file_that_is_shipped() {
    let (shipped, ours) = (read("Cargo.lock"), read("simnet/swarm/Cargo.lock"));
    for name in ["futures-timer", "web-time"] {
        assert!(
            !packages(&shipped, name).is_empty(),
            "{name} is no dependency any more: nothing is left to stand in for"
        );
        for entry in packages(&shipped, name) {
            assert!(
                entry.contains("source = \"registry+") && entry.contains("checksum = "),
                "{name}: {entry}"
            );
        }
        for entry in packages(&ours, name) {
            assert!(!entry.contains("source = "), "{name} is not the stand-in here: {entry}");
        }
        assert_eq!(packages(&ours, name).len(), 1, "{name} is here twice, so somebody has the original");
    }
    assert!(packages(&shipped, "comity-swarm").is_empty());
    let manifest = read("Cargo.toml");
    assert!(!manifest.contains("[patch") && manifest.contains("exclude = [\"simnet/swarm\"]"), "{manifest}");
}

/// What travels between simulated nodes is the libp2p that is shipped.
#[test]
fn both_lock_files_have_one_libp2p() {
    let version = |entry: &str| {
        let line = entry.lines().find(|line| line.starts_with("version = ")).map(str::to_owned);
        line.unwrap_or_default()
    };
    let (shipped, ours) = (read("Cargo.lock"), read("simnet/swarm/Cargo.lock"));
    for name in [
        "libp2p",
        "libp2p-core",
        "libp2p-swarm",
        "libp2p-gossipsub",
        "libp2p-noise",
        "libp2p-yamux",
        "yamux",
        "tokio",
    ] {
        let versions = |lock| packages(lock, name).into_iter().map(version).collect::<Vec<_>>();
        assert_eq!(versions(&shipped), versions(&ours), "{name}");
    }
}
