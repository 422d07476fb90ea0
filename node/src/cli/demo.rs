//! `comity demo`: a small federation on this machine.

use std::path::PathBuf;

use clap::Args;

use super::context::Context;
use super::exit::{CliError, Exit};

/// What `comity demo` takes.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the federation running, and say how to point a client at it
    #[arg(long)]
    pub stay: bool,
    /// Leave the nodes' data directories in DIR/<node>
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

pub(super) fn run(_: DemoArgs, _: &Context) -> Result<Exit, CliError> {
    Err(CliError::new(Exit::Failed, "this build does not contain the demo yet"))
}
