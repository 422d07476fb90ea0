//! `comity config`: what is wrong in the configuration.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::output::{CAUTION, GOOD, clean};
use crate::config::NodeConfig;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Name every fault with its file, line and what would be right
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The file to check [default: the node's own]
    file: Option<PathBuf>,
}

pub(super) fn run(command: ConfigCommand, context: &Context) -> Result<Exit, CliError> {
    let ConfigCommand::Check(args) = command;
    let file = args.file.unwrap_or_else(|| context.config_path.clone());
    let loaded = NodeConfig::load(&file)?;
    let report = json!({ "file": file, "ok": true, "warnings": loaded.warnings.list });
    context.out.result(&report, |_| {
        let warnings: String = loaded
            .warnings
            .list
            .iter()
            .map(|warning| format!("{CAUTION}warning:{CAUTION:#} {}\n", clean(&warning.to_string())))
            .collect();
        format!("{warnings}{} is {GOOD}good{GOOD:#}", file.display())
    });
    Ok(Exit::Done)
}
