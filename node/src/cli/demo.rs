//! `comity demo`: a small federation on this machine.

use std::path::PathBuf;

use clap::Args;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::demo::{DemoError, Ending, Options, run as play};

/// What `comity demo` takes.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the federation running, and say how to point a client at it
    #[arg(long)]
    pub stay: bool,
    /// Leave the nodes' data directories in `DIR/<node>`
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Ends with 0 only if every step held.
pub(super) fn run(args: DemoArgs, context: &Context) -> Result<Exit, CliError> {
    let options = Options { stay: args.stay, keep: args.keep };
    context.block_on(async {
        Ok(match play(&options, context.out).await? {
            Ending::Held => Exit::Done,
            Ending::Failed | Ending::Interrupted => Exit::Failed,
        })
    })
}

impl From<DemoError> for CliError {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Exists(_) => CliError::of(Exit::Usage, &error).next("name an empty directory"),
            DemoError::Place(_) => {
                CliError::of(Exit::Usage, &error).next("name a directory that you may write to")
            }
            _ => CliError::of(Exit::Failed, &error),
        }
    }
}
