//! MCP servers to put behind a node: real ones from PyPI and npm, and one of our own that can misbehave.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::Server;
use crate::fixture_file;
use crate::fixtures::{Npm, Python};
use crate::process::run;
use crate::wait;

/// The command of `mcp-server-time`.
pub fn time() -> Vec<String> {
    vec![text(&Python::get().program("mcp-server-time")), "--local-timezone".into(), "UTC".into()]
}

/// The command of `mcp-server-git` for one repository.
pub fn git(repository: &Path) -> Vec<String> {
    vec![text(&Python::get().program("mcp-server-git")), "--repository".into(), text(repository)]
}

/// The command of `mcp-server-fetch`. Its tool would read from the network.
pub fn fetch() -> Vec<String> {
    vec![text(&Python::get().program("mcp-server-fetch"))]
}

/// The command of `server-filesystem` for one directory.
pub fn filesystem(directory: &Path) -> Vec<String> {
    let script = Npm::get().script("@modelcontextprotocol/server-filesystem/dist/index.js");
    vec![text(&Npm::get().node()), text(&script), text(directory)]
}

/// The command of `server-memory` that keeps its graph in one file. It is told in its environment where, so `env` starts it.
pub fn memory(file: &Path) -> Vec<String> {
    let script = Npm::get().script("@modelcontextprotocol/server-memory/dist/index.js");
    vec!["env".into(), format!("MEMORY_FILE_PATH={}", text(file)), text(&Npm::get().node()), text(&script)]
}

/// The command of `server-everything`.
pub fn everything() -> Vec<String> {
    let script = Npm::get().script("@modelcontextprotocol/server-everything/dist/index.js");
    vec![text(&Npm::get().node()), text(&script), "stdio".into()]
}

fn text(path: &Path) -> String {
    path.to_str().expect("the workspace's path is text").to_owned()
}

/// Makes a repository with two commits whose ids are the same on every machine.
pub fn repository(dir: &Path) {
    fs::create_dir_all(dir).expect("a directory can be made");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command
            .current_dir(dir)
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Ada").env(format!("GIT_{who}_EMAIL"), "ada@acme.example");
            command.env(format!("GIT_{who}_DATE"), "2026-01-02T03:04:05Z");
        }
        run(&mut command).success();
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    for (file, content) in [("README", "hello\n"), ("second", "more\n")] {
        fs::write(dir.join(file), content).expect("a file can be written");
        git(&["add", file]);
        git(&["commit", "--quiet", "--message", &format!("Add {file}")]);
    }
}

/// Our own server, `fixtures/python/server.py`: what its state directory is for, see there.
#[derive(Debug, Clone)]
pub struct OwnServer {
    state: PathBuf,
}

impl OwnServer {
    /// A server that keeps its state in this directory, which is made.
    pub fn new(state: &Path) -> Self {
        fs::create_dir_all(state).expect("a directory can be made");
        OwnServer { state: state.to_owned() }
    }

    /// Its command, offering these tools.
    pub fn command(&self, tools: &[&str]) -> Vec<String> {
        let mut command = vec![
            text(&Python::get().program("python")),
            text(&fixture_file("python/server.py")),
            text(&self.state),
        ];
        command.extend(tools.iter().map(|tool| (*tool).to_owned()));
        command
    }

    /// Its section in a configuration, offering these tools to the whole federation.
    pub fn server(&self, name: &str, tools: &[&str]) -> Server {
        Server::command(name, self.command(tools))
    }

    /// Changes the description of its tools, and so their contract.
    pub fn set_contract(&self, description: &str) {
        fs::write(self.state.join("contract"), description).expect("a file can be written");
    }

    /// Lets calls that wait go on.
    pub fn release(&self) {
        fs::write(self.state.join("release"), "").expect("a file can be written");
    }

    /// Forgets what was released and called.
    pub fn reset(&self) {
        for name in ["release", "calls"] {
            fs::remove_file(self.state.join(name)).expect("a test resets what has happened");
        }
    }

    /// The tools that were called so far.
    pub fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.state.join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// The `id`s with which its tool `journal` was called, in that order.
    pub fn journal(&self) -> Vec<String> {
        let journal = fs::read_to_string(self.state.join("journal")).unwrap_or_default();
        journal.lines().map(str::to_owned).collect()
    }

    /// Waits until a tool runs.
    pub fn wait_for_call(&self, tool: &str) {
        wait::until(&format!("{tool} runs"), || {
            let calls = self.calls();
            if calls.iter().any(|call| call == tool) { Ok(()) } else { Err(calls) }
        });
    }
}
