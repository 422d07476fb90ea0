//! The command line.
//!
//! Each command has a file of its own: what it takes, and a function that does it. They print through [`output`], end
//! with an [`exit::Exit`], and reach files and the running node through a [`context::Context`].

pub mod constraints;
pub mod context;
pub mod exit;
pub mod output;

mod call;
mod config;
mod demo;
mod demo_server;
mod doctor;
mod init;
mod invite;
mod join;
mod org;
mod peers;
mod route;
mod servers;
mod status;
mod stdio;
mod tools;
mod trust;
mod up;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::context::Context;
use self::exit::{CliError, Exit};
use self::output::Output;

pub use self::demo::DemoArgs;
pub use self::demo_server::DemoServerArgs;
pub use self::up::{Prepared, UpArgs, prepare};

/// A federated, peer-to-peer mesh node for MCP.
#[derive(Debug, Parser)]
#[command(
    name = "comity",
    version,
    long_about = "Comity gives the AI clients of a site one MCP endpoint, joins the nodes of other sites and organisations \
in a mesh, and sends each tool call to a peer that may lawfully see the data, or says precisely why none may.",
    after_help = "Begin here:
  comity demo                                   see three organisations work together on this machine
  comity init --org acme.example --create-org --location DE
  comity servers add time --share federation -- uvx mcp-server-time
  comity up

Exit codes: 0 done, 1 it failed (for `call`: the tool reported an error), 2 denied, 3 queued, 4 no node reachable,
64 wrong usage or configuration.",
    max_term_width = 120
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// Where the node keeps its keys, store and configuration [default: $XDG_DATA_HOME/comity or ~/.local/share/comity]
    #[arg(long, global = true, value_name = "DIR", env = "COMITY_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,
    /// The configuration file [default: comity.toml in the data directory]
    #[arg(long, global = true, value_name = "FILE", env = "COMITY_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a small federation at work: three organisations, on this machine, in a few seconds
    Demo(demo::DemoArgs),
    /// Serve the demo's own MCP tools over stdin and stdout
    #[command(hide = true)]
    DemoServer(demo_server::DemoServerArgs),
    /// Make a node's keys and a commented comity.toml
    Init(init::InitArgs),
    /// Print a one-time line that lets a node into this org, or federates with another org
    Invite(invite::InviteArgs),
    /// Accept the line that another node's `comity invite` or `comity org admit` printed
    Join(join::JoinArgs),
    /// Check keys, clock, ports, certificates, seeds and servers, and say how to mend each
    Doctor,
    /// Run the node
    Up(up::UpArgs),
    /// Make an org, admit nodes to it, show its root
    #[command(subcommand)]
    Org(org::OrgCommand),
    /// Say which other orgs this node believes
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// Show the nodes that this one knows
    Peers,
    /// Show what can be called, and approve tools of other orgs
    Tools(tools::ToolsArgs),
    /// Show how the node is, and what to do next
    Status,
    /// Explain who would run a call and why every other may not, without calling
    Route(route::RouteArgs),
    /// Call a tool
    Call(call::CallArgs),
    /// Add, remove or list the MCP servers that this node fronts
    #[command(subcommand)]
    Servers(servers::ServersCommand),
    /// Check the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Speak MCP over stdin and stdout, bridged to the running node
    Stdio,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    run(std::env::args_os().collect())
}

fn run(arguments: Vec<OsString>) -> ExitCode {
    let json = arguments.iter().any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, json),
    };
    let out = Output::new(cli.global.json);
    let outcome = Context::new(cli.global.data_dir, cli.global.config, out)
        .and_then(|context| execute(cli.command, &context));
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            out.error(&error);
            error.exit.into()
        }
    }
}

/// Help and version go to stdout and are no failure; everything else is wrong usage.
fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        return match error.print() {
            Ok(()) => Exit::Done.into(),
            Err(_) => Exit::Failed.into(),
        };
    }
    if json {
        let message = error.to_string();
        let message = message.strip_prefix("error: ").unwrap_or(&message).trim_end();
        Output::new(true).error(&CliError::usage(message.to_owned()).next("see: comity --help"));
    } else {
        // There is nobody left to tell when stderr is closed.
        let _ = error.print();
    }
    Exit::Usage.into()
}

fn execute(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Demo(args) => demo::run(args, context),
        Command::DemoServer(args) => demo_server::run(&args, context),
        Command::Init(args) => init::run(&args, context),
        Command::Invite(args) => invite::run(args, context),
        Command::Join(args) => join::run(args, context),
        Command::Doctor => doctor::run(context),
        Command::Up(args) => up::run(&args, context),
        Command::Org(command) => org::run(command, context),
        Command::Trust(command) => trust::run(command, context),
        Command::Peers => peers::run(context),
        Command::Tools(args) => tools::run(args, context),
        Command::Status => status::run(context),
        Command::Route(args) => route::run(args, context),
        Command::Call(args) => call::run(args, context),
        Command::Servers(command) => servers::run(command, context),
        Command::Config(command) => config::run(command, context),
        Command::Stdio => stdio::run(context),
    }
}

#[cfg(test)]
mod tests;
