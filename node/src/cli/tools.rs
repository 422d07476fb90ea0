//! `comity tools`: what can be called, and which foreign tools clients may see.

use clap::{Args, Subcommand};

use super::context::{Context, unexpected};
use super::exit::{CliError, Exit};
use super::output::{or_dash, shorten, table};
use crate::control::messages::{ToolInfo, ToolSelector, ToolState};
use crate::control::{Request, Response};

#[derive(Debug, Args)]
pub(super) struct ToolsArgs {
    #[command(subcommand)]
    command: Option<ToolsCommand>,
}

#[derive(Debug, Subcommand)]
enum ToolsCommand {
    /// List tools: what clients see, and what waits for an approval
    List,
    /// Let clients see tools of another org, under their present contracts
    #[command(after_help = "Examples:
  comity tools approve umbrella.example/crm/find     this tool
  comity tools approve --org umbrella.example        every tool of that org, as it is now
A tool whose contract changes afterwards waits again.")]
    Approve(SelectorArgs),
    /// Take approvals back
    Revoke(SelectorArgs),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct SelectorArgs {
    /// A tool: the name that clients see, or org/server/tool
    tool: Option<String>,
    /// Every tool of this org
    #[arg(long, value_name = "ORG")]
    org: Option<String>,
    /// Every tool of this server
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The contract of this digest, blake3:...
    #[arg(long, value_name = "DIGEST")]
    contract: Option<String>,
}

impl From<SelectorArgs> for ToolSelector {
    fn from(args: SelectorArgs) -> Self {
        let SelectorArgs { tool, org, server, contract } = args;
        ToolSelector { org, server, tool, contract }
    }
}

pub(super) fn run(args: ToolsArgs, context: &Context) -> Result<Exit, CliError> {
    let (request, empty) = match args.command.unwrap_or(ToolsCommand::List) {
        ToolsCommand::List => {
            (Request::Tools, "No tools yet. Add a server: comity servers add NAME -- COMMAND")
        }
        ToolsCommand::Approve(selector) => {
            (Request::ApproveTools(selector.into()), "Nothing changed. See: comity tools")
        }
        ToolsCommand::Revoke(selector) => {
            (Request::RevokeTools(selector.into()), "Nothing changed. See: comity tools")
        }
    };
    let Response::Tools(tools) = context.ask(&request)? else { return Err(unexpected()) };
    context.out.result(&tools, |tools| describe(tools, empty));
    Ok(Exit::Done)
}

fn describe(tools: &[ToolInfo], empty: &str) -> String {
    let listed = table(&["NAME", "STATE", "NODES", "FROM", "WHAT"], tools.iter().map(row), empty);
    match tools.iter().any(|tool| tool.state != ToolState::Approved) {
        true => {
            format!("{listed}\n\nnext: comity tools approve ORG/SERVER/TOOL   lets clients see what waits")
        }
        false => listed,
    }
}

fn row(tool: &ToolInfo) -> [String; 5] {
    let state = match tool.state {
        ToolState::Approved if tool.local => "here",
        ToolState::Approved => "approved",
        ToolState::Pending => "waits for approval",
        ToolState::Quarantined => "changed: waits for approval",
    };
    [
        or_dash(tool.name.as_ref()),
        state.to_owned(),
        tool.providers.to_string(),
        tool.capability.clone(),
        shorten(tool.description.as_deref().unwrap_or_default(), 60),
    ]
}
