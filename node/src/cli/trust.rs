//! `comity trust`: the orgs that this node believes.

use clap::{Args, Subcommand};
use comity_protocol::ids::{OrgName, RootHash};
use serde_json::json;

use super::context::{Context, rfc3339};
use super::exit::{CliError, Exit};
use super::output::{or_dash, table};
use crate::config::edit;
use crate::config::trust::{Approve, TrustedOrg};
use crate::control::messages::TrustInfo;
use crate::control::{Request, Response};
use crate::org;

#[derive(Debug, Subcommand)]
pub(super) enum TrustCommand {
    /// Believe an org: whoever its root names as its nodes may call and be called
    #[command(after_help = "Example:
  comity trust pin umbrella.example blake3:1f0c...
Get the digest from the org itself (`comity org root` on its issuer's machine), by a way that you trust.")]
    Pin(PinArgs),
    /// Believe it no longer
    Unpin {
        /// The org
        org: OrgName,
    },
    /// List the orgs that are believed
    List,
}

#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// The org, such as umbrella.example
    org: OrgName,
    /// The digest of its root, blake3:...
    root: RootHash,
    /// Make all of its tools visible at once, instead of after an approval each
    #[arg(long)]
    approve_all: bool,
}

pub(super) fn run(command: TrustCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        TrustCommand::Pin(args) => pin(&args, context)?,
        TrustCommand::Unpin { org } => {
            edit::unpin_org(&context.config_path, &org)?;
            let next = "a running node drops that org's peers in a moment: comity peers";
            context.out.result(&json!({ "unpinned": org, "next": next }), |_| {
                format!("unpinned {org}\nnext: {next}")
            });
        }
        TrustCommand::List => list(context)?,
    }
    Ok(Exit::Done)
}

fn pin(args: &PinArgs, context: &Context) -> Result<(), CliError> {
    let approve = if args.approve_all { Approve::All } else { Approve::None };
    let new = edit::pin_org(&context.config_path, &args.org, args.root, approve)?;
    let next = match approve {
        Approve::All => "its tools appear when one of its nodes is met: comity peers",
        Approve::None => {
            "when one of its nodes was met, look at its tools: comity tools   then: comity tools approve"
        }
    };
    let report = json!({ "pinned": args.org, "root": args.root.to_string(), "new": new, "next": next });
    context.out.result(&report, |_| {
        let word = if new { "pinned" } else { "was pinned already:" };
        format!("{word} {}\nThe other side must pin this org too: comity org root\nnext: {next}", args.org)
    });
    Ok(())
}

/// What the running node says, else what the files say.
fn list(context: &Context) -> Result<(), CliError> {
    let trusted = match context.ask_if_running(&Request::Trust)? {
        Some(Response::Trust(trusted)) => trusted,
        _ => context.load()?.config.trust.iter().map(|org| from_files(org, context)).collect(),
    };
    context.out.result(&trusted, |trusted| {
        let headings = ["ORG", "NODES", "TOOLS", "ROOT VALID UNTIL", "ROOT"];
        table(
            &headings,
            trusted.iter().map(row),
            "No org is believed yet. Pin one: comity trust pin ORG DIGEST",
        )
    });
    Ok(())
}

fn from_files(trusted: &TrustedOrg, context: &Context) -> TrustInfo {
    // A root that does not verify is as good as none here; `comity doctor` says what is wrong with it.
    let chain = org::load_chain(&context.dir, &trusted.name).ok().flatten();
    let root = chain.filter(|chain| chain.pin() == Some(trusted.root)).and_then(|chain| chain.verify().ok());
    TrustInfo {
        org: trusted.name.to_string(),
        root: trusted.root.to_string(),
        root_version: root.as_ref().map(|root| root.version),
        root_expires: root.as_ref().map(|root| rfc3339(root.expires)),
        approve: trusted.approve,
        nodes: None,
    }
}

fn row(trusted: &TrustInfo) -> [String; 5] {
    let approve = match trusted.approve {
        Approve::None => "after approval",
        Approve::All => "all",
    };
    [
        trusted.org.clone(),
        or_dash(trusted.nodes),
        approve.to_owned(),
        trusted.root_expires.clone().unwrap_or_else(|| "not met yet".to_owned()),
        trusted.root.clone(),
    ]
}
