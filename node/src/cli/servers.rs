//! `comity servers`: the MCP servers that this node fronts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use comity_protocol::ids::ServerName;
use serde_json::json;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::output::{or_dash, shorten, table};
use crate::config::NodeConfig;
use crate::config::edit::{self, NewServer};
use crate::config::servers::Share;
use crate::control::messages::{ServerInfo, ServerState};
use crate::control::{Request, Response};

#[derive(Debug, Subcommand)]
pub(super) enum ServersCommand {
    /// Add a server to comity.toml; a running node starts it at once
    #[command(after_help = "Examples:
  comity servers add time --share federation -- uvx mcp-server-time
  comity servers add files --env ROOT=/srv/data -- npx -y @modelcontextprotocol/server-filesystem /srv/data
  comity servers add crm --url http://127.0.0.1:9000/mcp --header 'Authorization=Bearer ${CRM_TOKEN}'

${NAME} in a value is read from the node's environment when it starts the server, so that no secret is written down.")]
    Add(AddArgs),
    /// Remove a server from comity.toml; a running node stops it at once
    Remove {
        /// The server's name
        name: ServerName,
    },
    /// List the servers and how they are
    List,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// A name for the server: letters, digits, - and _
    name: ServerName,
    /// Its endpoint, for a server over streamable HTTP
    #[arg(long, value_name = "URL", conflicts_with_all = ["command", "env", "cwd"], required_unless_present = "command")]
    url: Option<String>,
    /// Who may call its tools: clients here, nodes of this org, or nodes of every org in the federation
    #[arg(long, value_name = "local|org|federation", default_value = "local", value_parser = parse_share)]
    share: Share,
    /// A variable for the command; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_pair)]
    env: Vec<(String, String)>,
    /// Where the command runs
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// A header for the URL; repeatable
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_pair, requires = "url")]
    headers: Vec<(String, String)>,
    /// The command that starts it, after --
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn parse_share(text: &str) -> Result<Share, String> {
    crate::config::setting::TextSetting::from_text(text)
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as NAME=VALUE".to_owned())
}

pub(super) fn run(command: ServersCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        ServersCommand::Add(args) => {
            let name = args.name.clone();
            edit::add_server(&context.config_path, &name, &args.into())?;
            changed("added", &name, context)
        }
        ServersCommand::Remove { name } => {
            edit::remove_server(&context.config_path, &name)
                .map_err(|error| explain_import(error, &name, context))?;
            changed("removed", &name, context)
        }
        ServersCommand::List => list(context),
    }
}

impl From<AddArgs> for NewServer {
    fn from(args: AddArgs) -> Self {
        let AddArgs { name: _, url, share, env, cwd, headers, command } = args;
        NewServer { command, env, cwd, url, headers, share }
    }
}

/// A server that comes from a desktop client's file is not in `comity.toml`, so it cannot be removed there.
fn explain_import(error: edit::EditError, name: &ServerName, context: &Context) -> CliError {
    let defined = context
        .load()
        .ok()
        .and_then(|loaded| loaded.config.servers.get(name).map(|server| server.defined_in.clone()));
    match defined {
        Some(file) if file != context.config_path => {
            CliError::usage(format!("{name} is defined in {}", file.display()))
                .next("remove it there, or name it in `skip` of [[servers_from]] in comity.toml")
        }
        _ => error.into(),
    }
}

fn changed(what: &str, name: &ServerName, context: &Context) -> Result<Exit, CliError> {
    let running = context.ask_if_running(&Request::Servers)?.is_some();
    let next = match running {
        true => "the running node follows in a moment: comity servers list",
        false => "run the node with: comity up",
    };
    context.out.result(
        &json!({ what: name, "config": context.config_path, "node_running": running, "next": next }),
        |_| format!("{what} {name}\nnext: {next}"),
    );
    Ok(Exit::Done)
}

fn list(context: &Context) -> Result<Exit, CliError> {
    let mut servers = configured(&context.load()?.config);
    if let Some(Response::Servers(running)) = context.ask_if_running(&Request::Servers)? {
        servers.extend(running.into_iter().map(|server| (server.name.clone(), server)));
    }
    let servers: Vec<ServerInfo> = servers.into_values().collect();
    context.out.result(&servers, |servers| {
        let headings = ["NAME", "STATE", "TOOLS", "SHARE", "WHAT", "TROUBLE"];
        table(
            &headings,
            servers.iter().map(row),
            "No servers yet. Add one: comity servers add NAME -- COMMAND",
        )
    });
    Ok(Exit::Done)
}

fn configured(config: &NodeConfig) -> BTreeMap<String, ServerInfo> {
    let info = |(name, server): (&ServerName, &crate::config::servers::ServerConfig)| ServerInfo {
        name: name.to_string(),
        launch: server.launch.to_string(),
        share: server.share,
        defined_in: Some(server.defined_in.display().to_string()),
        state: None,
        tools: None,
        restarts: None,
        error: None,
    };
    config.servers.iter().map(info).map(|server| (server.name.clone(), server)).collect()
}

/// One server as a table's row; `status` shows the same.
pub(super) fn row(server: &ServerInfo) -> [String; 6] {
    let state = match server.state {
        None => "not running",
        Some(ServerState::Starting) => "starting",
        Some(ServerState::Ready) => "ready",
        Some(ServerState::Backoff) => "failed",
        Some(ServerState::Stopping) => "stopping",
    };
    [
        server.name.clone(),
        state.to_owned(),
        or_dash(server.tools),
        server.share.to_string(),
        server.launch.clone(),
        or_dash(server.error.as_deref().map(|error| shorten(error, 60))),
    ]
}
