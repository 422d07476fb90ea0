//! The `comity` binary that is tested.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::run_within;
use crate::workspace;

/// Names a binary to test instead of the one that is built here.
pub const BINARY_VARIABLE: &str = "COMITY_TEST_BINARY";

/// A cold build of everything on a slow machine.
const BUILD_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// The path of the `comity` binary: the one that [`BINARY_VARIABLE`] names, else the workspace's own, built with the
/// profile of the running test.
///
/// # Panics
/// When it does not build.
pub fn comity() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os(BINARY_VARIABLE).map(PathBuf::from).unwrap_or_else(build))
}

/// Cargo makes no binary for another package's tests, so it is asked to. `--test blackbox` names a target that needs
/// the workspace's dev-dependencies: with it, features resolve as they do for `cargo test --workspace`, and all that
/// that command has built already is used again.
fn build() -> PathBuf {
    let (target, profile) = target_and_profile();
    eprintln!("[tests] building comity ({profile})");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--workspace", "--bin", "comity", "--test", "blackbox", "--profile"]);
    cargo.arg(if profile == "debug" { "dev" } else { &profile }).arg("--target-dir").arg(&target);
    run_within(cargo.current_dir(workspace()), "", BUILD_DEADLINE).success();
    target.join(profile).join("comity")
}

/// Where the running test was built, `<target>/<profile>/deps/<test>`, and with which profile.
fn target_and_profile() -> (PathBuf, String) {
    let test = env::current_exe().expect("the system tells a process its program");
    let profile = test.ancestors().nth(2).expect("cargo builds tests three levels deep");
    let name = profile.file_name().expect("a profile's directory has a name").to_string_lossy().into_owned();
    (profile.parent().expect("it is in the target directory").to_owned(), name)
}
