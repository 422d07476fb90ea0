//! `comity up`: runs the node.

use std::path::PathBuf;

use clap::Args;
use ed25519_dalek::SigningKey;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::config::NodeConfig;
use crate::identity::{DataDir, load_key};
use crate::telemetry::{self, LogFormat, LogLevel};

/// What `comity up` takes.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// How log lines look [default: text, or what comity.toml says]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level, or a filter such as warn,comity_node::mesh=debug
    #[arg(long, value_name = "FILTER", env = "COMITY_LOG", value_parser = LogLevel::parse)]
    pub log_level: Option<LogLevel>,
}

/// All that a node needs before it opens anything.
pub struct Prepared {
    /// Where it keeps what it must not lose.
    pub dir: DataDir,
    /// The file to watch.
    pub config_path: PathBuf,
    /// What the file says.
    pub config: NodeConfig,
    /// Who it is.
    pub key: SigningKey,
}

/// Reads everything and sets logging up. Every fault of the configuration is reported before a socket is bound.
pub fn prepare(args: &UpArgs, context: &Context) -> Result<Prepared, CliError> {
    let loaded = context.load()?;
    context.dir.check()?;
    let key = load_key(&context.dir.node_key())?;
    let mut log = loaded.config.log.clone();
    log.format = args.log_format.unwrap_or(log.format);
    log.level = args.log_level.clone().unwrap_or(log.level);
    telemetry::init(&log).map_err(|error| CliError::of(Exit::Failed, &error))?;
    for warning in &loaded.warnings.list {
        tracing::warn!("{warning}");
    }
    Ok(Prepared {
        dir: context.dir.clone(),
        config_path: context.config_path.clone(),
        config: loaded.config,
        key,
    })
}

pub(super) fn run(args: &UpArgs, context: &Context) -> Result<Exit, CliError> {
    let prepared = prepare(args, context)?;
    let _ = prepared;
    Err(CliError::new(Exit::Failed, "this build does not contain the node yet"))
}
