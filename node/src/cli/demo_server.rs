//! `comity demo-server`: the MCP server that the demo's nodes front.

use clap::{Args, ValueEnum};

use super::exit::{CliError, Exit};

/// What `comity demo-server` takes.
#[derive(Debug, Args)]
pub struct DemoServerArgs {
    /// Which set of tools it serves
    #[arg(value_enum)]
    pub tools: DemoTools,
}

/// A set of demo tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DemoTools {
    /// Time zones.
    Time,
    /// Text.
    Text,
    /// Units of measurement.
    Units,
}

pub(super) fn run(_: DemoServerArgs) -> Result<Exit, CliError> {
    Err(CliError::new(Exit::Failed, "this build does not contain the demo yet"))
}
