//! `comity demo-server`: the MCP server that the demo's nodes front.

use clap::Args;

use super::context::Context;
use super::exit::{CliError, Exit};
use crate::demo::server::{ToolSet, serve};

/// What `comity demo-server` takes.
#[derive(Debug, Args)]
pub struct DemoServerArgs {
    /// Which set of tools it serves
    #[arg(value_enum)]
    pub tools: ToolSet,
}

pub(super) fn run(args: &DemoServerArgs, context: &Context) -> Result<Exit, CliError> {
    context.block_on(async {
        serve(args.tools).await.map_err(|error| CliError::of(Exit::Failed, &error))?;
        Ok(Exit::Done)
    })
}
