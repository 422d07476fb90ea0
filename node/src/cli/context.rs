//! What every command needs: where things are, and how to ask the running node.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comity_protocol::time::Wall;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::exit::{CliError, Exit};
use super::output::Output;
use crate::config::{Loaded, NodeConfig};
use crate::control::{ClientError, ControlClient, Event, Request, Response};
use crate::identity::DataDir;

/// How long the node may take over a question about itself.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Where a command works.
#[derive(Debug)]
pub struct Context {
    /// The data directory.
    pub dir: DataDir,
    /// The configuration file.
    pub config_path: PathBuf,
    /// Where it prints.
    pub out: Output,
}

impl Context {
    /// A context; nothing is read or created.
    pub fn new(data_dir: Option<PathBuf>, config: Option<PathBuf>, out: Output) -> Result<Self, CliError> {
        let dir = DataDir::locate(data_dir)?;
        let config_path = config.unwrap_or_else(|| dir.config());
        Ok(Context { dir, config_path, out })
    }

    /// Reads the configuration.
    pub fn load(&self) -> Result<Loaded, CliError> {
        Ok(NodeConfig::load(&self.config_path)?)
    }

    /// Asks the running node something that it answers at once.
    pub fn ask(&self, request: &Request) -> Result<Response, CliError> {
        self.block_on(async {
            let answer = timeout(ANSWER_DEADLINE, self.ask_with(request, |_| ())).await;
            answer.unwrap_or_else(|_| {
                let message = format!("the node did not answer within {ANSWER_DEADLINE:?}");
                Err(CliError::new(Exit::Unreachable, message).next("see the node's log"))
            })
        })
    }

    /// Asks the running node, for as long as it takes, and hands on what it tells meanwhile.
    pub async fn ask_with(
        &self,
        request: &Request,
        on_event: impl FnMut(Event),
    ) -> Result<Response, CliError> {
        Ok(ControlClient::connect(&self.dir.socket())?.request(request, on_event).await?)
    }

    /// Like [`Context::ask`], but a node that does not run is no error.
    pub fn ask_if_running(&self, request: &Request) -> Result<Option<Response>, CliError> {
        match self.ask(request) {
            Ok(response) => Ok(Some(response)),
            Err(error) if error.exit == Exit::Unreachable => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a node runs with this data directory.
    pub fn node_runs(&self) -> Result<bool, CliError> {
        self.block_on(async {
            let connected = ControlClient::connect(&self.dir.socket());
            Ok(!matches!(connected, Err(ClientError::NotRunning(_))))
        })
    }

    /// Runs a future to its end on this thread.
    pub fn block_on<T>(&self, future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CliError::of(Exit::Failed, &error))?;
        let outcome = runtime.block_on(future);
        // A question to a person that nobody needs answered any more must not keep the process.
        runtime.shutdown_background();
        outcome
    }
}

/// The answer was to another question.
pub fn unexpected() -> CliError {
    ClientError::Unexpected.into()
}

/// The wall clock.
pub fn now() -> Wall {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// A moment as RFC 3339, in UTC.
pub fn rfc3339(wall: Wall) -> String {
    let moment =
        i64::try_from(wall.as_millis()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(|| "beyond the calendar".to_owned(), |moment| moment.to_string())
}

/// JSON to carry unchanged.
pub fn raw(value: &serde_json::Value) -> Result<Box<RawValue>, CliError> {
    serde_json::value::to_raw_value(value).map_err(|error| CliError::of(Exit::Failed, &error))
}
