//! `comity stdio`: MCP over stdin and stdout, for clients that spawn a process.

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::face::stdio::{BridgeError, bridge};

pub(super) fn run(context: &Context) -> Result<Exit, CliError> {
    context.block_on(async {
        match bridge(&context.dir.stdio_socket()).await {
            Ok(()) => Ok(Exit::Done),
            Err(error @ BridgeError::NotRunning { .. }) => {
                Err(CliError::of(Exit::Unreachable, &error).next("start it with: comity up"))
            }
            Err(error) => Err(CliError::of(Exit::Failed, &error)),
        }
    })
}
