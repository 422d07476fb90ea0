//! Finding out what this machine permits, and restarting the test program inside it.
//!
//! With enough rights, or where unprivileged user namespaces are permitted, the test program is started again as the root
//! of namespaces of its own, in which it may make more. Elsewhere it runs where it is, over loopback.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use super::{Network, tun};
use crate::process::{is_alive, run};

/// Names the backend to use, `namespaces` or `loopback`, instead of the best that works.
pub const BACKEND_VARIABLE: &str = "COMITY_NETWORK";

/// Set in a test program that was started again inside namespaces.
const INSIDE_VARIABLE: &str = "COMITY_NETWORK_INSIDE";

/// The one argument after which a test program only tries whether it can make a namespace.
const PROBE: &str = "--probe-namespaces";

/// The directory that all of a run's files are in is named after this and the process that owns it.
const SCRATCH_PREFIX: &str = "comity-network-";

/// The ways in, the plainest first: as root, and as the root of a user namespace.
const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];

/// How the network of a test is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Network namespaces with a router in user space: QUIC and TCP.
    Namespaces,
    /// Forwarders on loopback: QUIC only.
    Loopback,
}

/// Where the test program has been led.
#[derive(Debug)]
pub enum Entered {
    /// It is to test now, with this.
    Here(Backend),
    /// It has run elsewhere, and is to end like this.
    Ended(ExitCode),
}

/// To be called first by a test program that makes networks: what it is to end with when it was started as a helper of
/// another.
pub fn helped() -> Option<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [tun::HOLD, address] => Some(tun::hold(address)),
        [PROBE] => {
            drop(Network::new(Backend::Namespaces, 2, 1));
            Some(ExitCode::SUCCESS)
        }
        _ => None,
    }
}

/// Leads a test program to where it can make networks. `prepare` does what needs the machine's own network, such as
/// installing fixtures, and returns what the program is to find in its environment where it is started again.
pub fn enter(prepare: impl FnOnce() -> Vec<(&'static str, OsString)>) -> Entered {
    if env::var_os(INSIDE_VARIABLE).is_some() {
        return Entered::Here(Backend::Namespaces);
    }
    let variables = prepare();
    match choose() {
        Some(way) => Entered::Ended(run_inside(way, variables)),
        None => Entered::Here(Backend::Loopback),
    }
}

/// The way into namespaces that works; `None` for loopback.
fn choose() -> Option<&'static [&'static str]> {
    let wish = env::var(BACKEND_VARIABLE).unwrap_or_default();
    assert!(
        ["", "namespaces", "loopback"].contains(&wish.as_str()),
        "{BACKEND_VARIABLE} is namespaces or loopback, not {wish}"
    );
    if wish == "loopback" {
        eprintln!("network: forwarders on loopback, QUIC only ({BACKEND_VARIABLE}={wish})");
        return None;
    }
    let mut refusals = Vec::new();
    for way in WAYS {
        match probe(way) {
            Ok(()) => {
                eprintln!("network: namespaces with a router in user space (unshare {})", way.join(" "));
                return Some(way);
            }
            Err(refusal) => refusals.push(refusal),
        }
    }
    assert!(wish.is_empty(), "namespaces are asked for and cannot be made: {refusals:#?}");
    eprintln!("network: forwarders on loopback, QUIC only; namespaces cannot be made here: {refusals:#?}");
    None
}

fn probe(way: &[&str]) -> Result<(), String> {
    for tool in ["unshare", "nsenter", "setpriv", "ip"] {
        let found = Command::new(tool).arg("--version").output();
        found.map_err(|error| format!("{tool} (packages util-linux and iproute2): {error}"))?;
    }
    let tried = run(inside(way).arg(PROBE));
    match tried.code {
        Some(0) => Ok(()),
        _ => Err(format!("unshare {}: {}", way.join(" "), first_line(&tried.stderr))),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason was given")
}

/// This program again, in namespaces. It is killed when this one ends, however that ends.
fn inside(way: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(way).args(["setpriv", "--pdeathsig", "KILL"]);
    command.arg(env::current_exe().expect("the system tells a process its program"));
    command
}

fn run_inside(way: &[&str], variables: Vec<(&str, OsString)>) -> ExitCode {
    let scratch = Scratch::make();
    let mut command = inside(way);
    command.args(env::args_os().skip(1)).env(INSIDE_VARIABLE, "1").env("TMPDIR", &scratch.0).envs(variables);
    let ended = command.status().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    exit_code(ended)
}

fn exit_code(status: ExitStatus) -> ExitCode {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => ExitCode::from(code),
        None => ExitCode::FAILURE,
    }
}

/// Where all files of a run are. What runs that were killed have left behind is removed by the next.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Self {
        let root = env::temp_dir();
        remove_abandoned(&root);
        let path = root.join(format!("{SCRATCH_PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _the_next_run_removes_it = fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories of processes that no longer run.
fn remove_abandoned(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if owner(&entry.file_name()).is_some_and(|owner| !is_alive(owner)) {
            let _another_run_was_quicker = fs::remove_dir_all(entry.path());
        }
    }
}

fn owner(name: &OsStr) -> Option<u32> {
    name.to_str()?.strip_prefix(SCRATCH_PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_has_left_is_removed_and_nothing_else() {
        let root = tempfile::TempDir::new().expect("a temporary directory");
        // No process has the highest number that there is.
        let mine = format!("{SCRATCH_PREFIX}{}", std::process::id());
        let abandoned = format!("{SCRATCH_PREFIX}{}", u32::MAX);
        for name in [mine.as_str(), &abandoned, "comity-network", "somebody-elses-4294967295"] {
            fs::create_dir(root.path().join(name)).expect("a directory can be made");
        }
        remove_abandoned(root.path());
        let mut left: Vec<_> = fs::read_dir(root.path())
            .expect("it is there")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        left.sort();
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(!left.contains(&OsString::from(abandoned)));
    }
}
