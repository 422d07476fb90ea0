//! The core stays pure: what it depends on, and that it builds where there is no operating system.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use comity_tests::process::{run, run_within};
use comity_tests::workspace;

/// What the core must not reach: an event loop, a network, a database, a clock's or a system's randomness.
const FORBIDDEN: [&str; 14] = [
    "async-std",
    "axum",
    "futures-timer",
    "getrandom",
    "hyper",
    "libp2p",
    "mio",
    "quinn",
    "rand",
    "rustix",
    "sled",
    "socket2",
    "tokio",
    "web-time",
];

/// The core and all that it depends on, on a slow machine.
const BUILD_DEADLINE: Duration = Duration::from_secs(15 * 60);

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

#[test]
fn the_core_depends_on_nothing_that_acts() {
    let tree = run(cargo().args([
        "tree",
        "--locked",
        "-p",
        "comity-protocol",
        "-e",
        "normal",
        "--prefix",
        "none",
        "-f",
        "{p}",
    ]));
    let names: Vec<&str> = tree.success().lines().filter_map(|line| line.split(' ').next()).collect();
    // Without this a tree that could not be read would pass.
    assert!(names.contains(&"comity-protocol") && names.contains(&"ed25519-dalek"), "{names:?}");
    let reached: Vec<_> = names
        .iter()
        .filter(|name| FORBIDDEN.iter().any(|bad| *name == bad || name.starts_with(&format!("{bad}-"))))
        .collect();
    assert_eq!(reached, Vec::<&&str>::new());
}

#[test]
fn the_core_the_store_and_the_simulator_do_not_know_the_node() {
    for (package, forbidden) in [
        ("comity-protocol", ["comity-store", "comity-node"]),
        ("comity-store", ["comity-node", "libp2p"]),
        ("comity-simnet", ["comity-node", "tokio"]),
    ] {
        let tree = run(cargo()
            .args(["tree", "--locked", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}"]));
        let names: Vec<&str> = tree.success().lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(names.contains(&package), "{names:?}");
        assert!(forbidden.iter().all(|name| !names.contains(name)), "{package} reaches one of {forbidden:?}");
    }
}

/// `wasm32-unknown-unknown` has no clock, no sockets and no randomness, so what builds for it uses none. Where the target
/// is not installed, the first test here is the check.
#[test]
fn the_core_builds_for_a_machine_without_a_system() {
    if !has_target(WASM) {
        eprintln!(
            "the target {WASM} is not installed (rustup target add {WASM}): the dependencies are the check"
        );
        return;
    }
    let mut check = cargo();
    check.args(["check", "--locked", "-p", "comity-protocol", "--target", WASM]);
    run_within(check.arg("--target-dir").arg(workspace().join("target/wasm")), "", BUILD_DEADLINE).success();
}

const WASM: &str = "wasm32-unknown-unknown";

fn has_target(target: &str) -> bool {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let sysroot = run(rustc.current_dir(workspace()).args(["--print", "sysroot"]));
    PathBuf::from(sysroot.success().trim()).join("lib/rustlib").join(target).is_dir()
}
