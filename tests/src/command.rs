//! Running `comity` commands.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::binary;
use crate::process::{Finished, run};

/// Exit codes, as documented.
pub mod exit {
    /// It is done.
    pub const DONE: Option<i32> = Some(0);
    /// It failed; for `call`, the tool itself reported an error.
    pub const FAILED: Option<i32> = Some(1);
    /// Nobody may lawfully do it.
    pub const DENIED: Option<i32> = Some(2);
    /// No node can be reached.
    pub const UNREACHABLE: Option<i32> = Some(4);
    /// Wrong usage or configuration.
    pub const USAGE: Option<i32> = Some(64);
}

/// `comity ARGUMENTS` with a data directory, ready to run. Nothing of this machine's own configuration reaches it.
pub fn comity(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::comity());
    command
        .env_remove("COMITY_CONFIG")
        .env_remove("RUST_LOG")
        .env("COMITY_DATA_DIR", data_dir)
        .env("HOME", data_dir);
    command.args(arguments);
    command
}

/// What a command that was run with `--json` printed.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub finished: Finished,
}

/// Runs `comity --json ARGUMENTS`.
pub fn ask(data_dir: &Path, arguments: &[&str]) -> Answer {
    Answer { finished: run(&mut comity(data_dir, &[&["--json"], arguments].concat())) }
}

impl Answer {
    /// Its exit code.
    pub fn code(&self) -> Option<i32> {
        self.finished.code
    }

    /// The JSON document that it printed, of a command that must have succeeded.
    #[track_caller]
    pub fn json(&self) -> Value {
        parse(self.finished.success())
    }

    /// The last JSON document on standard output, however the command ended.
    #[track_caller]
    pub fn result(&self) -> Value {
        parse(&self.finished.stdout)
    }

    /// The `error` object on standard error, of a command that must have failed with `code`.
    #[track_caller]
    pub fn error(&self, code: Option<i32>) -> Value {
        assert_eq!(self.finished.code, code, "{:?}", self.finished);
        parse(&self.finished.stderr)["error"].take()
    }
}

/// Commands that print more than one document print one a line; the last is the result.
#[track_caller]
fn parse(text: &str) -> Value {
    let last = text.trim_end().lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("not JSON ({error}): {text:?}"))
}
