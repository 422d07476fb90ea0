//! `comity up`: runs the node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::config::NodeConfig;
use crate::identity::{DataDir, load_key};
use crate::memory;
use crate::node::{End, Node, WORKER_THREADS_MAX};
use crate::telemetry::{self, LogFormat, LogLevel};

/// How long blocking work may hold up the end of the process.
const STRAGGLERS_WAIT: Duration = Duration::from_secs(2);

/// What `comity up` takes.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// How log lines look [default: text, or what comity.toml says]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// What is logged: a level, or a filter such as warn,comity_mesh=debug
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
}

/// Reads everything and sets logging up. Every fault of the configuration is reported before a socket is bound.
pub fn prepare(args: &UpArgs, context: &Context) -> Result<Prepared, CliError> {
    let loaded = context.load()?;
    context.dir.check()?;
    // Said here, because what is wrong with a key is the operator's to mend before anything starts.
    load_key(&context.dir.node_key())?;
    let mut log = loaded.config.log.clone();
    log.format = args.log_format.unwrap_or(log.format);
    log.level = args.log_level.clone().unwrap_or(log.level);
    telemetry::init(&log).map_err(|error| CliError::of(Exit::Failed, &error))?;
    for warning in &loaded.warnings.list {
        tracing::warn!("{warning}");
    }
    Ok(Prepared { dir: context.dir.clone(), config_path: context.config_path.clone(), config: loaded.config })
}

pub(super) fn run(args: &UpArgs, context: &Context) -> Result<Exit, CliError> {
    let Prepared { dir, config_path, config } = prepare(args, context)?;
    if !memory::tune() {
        tracing::debug!("the allocator keeps its own settings");
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(WORKER_THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("comity")
        .enable_all()
        .build()
        .map_err(|error| CliError::of(Exit::Failed, &error))?;
    let outcome = runtime.block_on(serve(&dir, &config_path, config));
    // What still blocks a thread, such as a DNS query, must not keep the process.
    runtime.shutdown_timeout(STRAGGLERS_WAIT);
    outcome
}

/// Runs the node, and runs it again when it has joined an org, until a signal ends it.
async fn serve(dir: &DataDir, config_path: &Path, config: NodeConfig) -> Result<Exit, CliError> {
    let shutdown = stop_on_signal()?;
    let mut config = config;
    loop {
        let node = Node::start(dir.clone(), config_path.to_owned(), config, shutdown.clone()).await;
        let node = node
            .map_err(|error| CliError::of(Exit::Failed, &error).next("see what is wrong: comity doctor"))?;
        match node.run().await.map_err(|error| CliError::of(Exit::Failed, &error))? {
            End::Stop => return Ok(Exit::Done),
            End::Restart => config = NodeConfig::load(config_path)?.config,
        }
    }
}

/// Cancelled by the first SIGTERM or SIGINT. A second one ends the process at once: whoever sends it has waited enough.
fn stop_on_signal() -> Result<CancellationToken, CliError> {
    let shutdown = CancellationToken::new();
    let failed = |error: std::io::Error| CliError::of(Exit::Failed, &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let token = shutdown.clone();
    tokio::spawn(async move {
        for count in 1_u8.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
            if count > 1 {
                std::process::exit(130);
            }
        }
    });
    Ok(shutdown)
}
