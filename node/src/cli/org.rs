//! `comity org`: the issuer's work.

use std::io::Read;

use clap::{Args, Subcommand};
use comity_protocol::geo::{CountrySet, resolve_place};
use comity_protocol::ids::{NodeId, OrgName};
use serde::Serialize;
use serde_json::json;

use super::context::{Context, now, rfc3339};
use super::exit::{CliError, Exit};
use crate::config::{NodeConfig, edit};
use crate::identity::{load_key, node_id};
use crate::org::{self, Admission, Issuer};

#[derive(Debug, Subcommand)]
pub(super) enum OrgCommand {
    /// Make an org: its key and its root. This machine then admits its nodes
    Create(CreateArgs),
    /// Admit a node and print the line that it joins with
    #[command(after_help = "Example:
  comity org admit 12D3KooW... --location DE
The other machine then runs `comity join` with the line that is printed. `comity invite` does the same over the network.")]
    Admit(AdmitArgs),
    /// Let a node go: it is admitted no more, and its membership is not renewed
    #[command(after_help = "Example:
  comity org revoke 12D3KooW...
Run it where org.key is. The node is out when its present membership ends, after seven days at most.")]
    Revoke {
        /// The node's id, as `comity peers` prints it; `-` reads it from stdin
        node: String,
    },
    /// Show an org's root: the digest that other orgs pin
    Root(RootArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The org's name, DNS-like, such as acme.example
    name: OrgName,
    /// Do not admit this machine's own node
    #[arg(long)]
    no_admit: bool,
}

#[derive(Debug, Args)]
pub(super) struct AdmitArgs {
    /// The node's id, as `comity init` and `comity status` print it; `-` reads it from stdin
    node: String,
    /// The most that the node may claim as its location: a country or a group; repeatable
    #[arg(long = "location", value_name = "CC", required = true)]
    locations: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct RootArgs {
    /// The org [default: this node's own]
    org: Option<OrgName>,
}

/// An org that was made.
#[derive(Debug, Serialize)]
pub(super) struct CreatedOrg {
    pub(super) org: String,
    pub(super) root: String,
    pub(super) expires: String,
    admitted: Option<String>,
    next: String,
}

#[derive(Debug, Serialize)]
struct Admitted {
    org: String,
    node: String,
    locations_max: String,
    expires: String,
    line: String,
    next: String,
}

#[derive(Debug, Serialize)]
struct RootReport {
    org: String,
    root: String,
    version: u32,
    expires: String,
    next: String,
}

pub(super) fn run(command: OrgCommand, context: &Context) -> Result<Exit, CliError> {
    match command {
        OrgCommand::Create(args) => {
            let created = create_org(&args.name, !args.no_admit, context)?;
            context.out.result(&created, |created| {
                let admitted =
                    created.admitted.as_ref().map(|node| format!("admitted {node}\n")).unwrap_or_default();
                format!(
                    "org      {}\nroot     {}\nexpires  {}\n{admitted}\n{}",
                    created.org, created.root, created.expires, created.next
                )
            });
        }
        OrgCommand::Admit(args) => admit(&args, context)?,
        OrgCommand::Revoke { node } => revoke(&node, context)?,
        OrgCommand::Root(args) => show_root(args.org, context)?,
    }
    Ok(Exit::Done)
}

/// Makes the org, names it in the configuration, and admits this node.
pub(super) fn create_org(
    name: &OrgName,
    admit_self: bool,
    context: &Context,
) -> Result<CreatedOrg, CliError> {
    let config = context.load()?.config;
    if let Some(other) = config.org.as_ref().filter(|org| *org != name) {
        let message = format!("this node belongs to {other}, so {name} cannot be made here");
        return Err(CliError::usage(message).next("use another --data-dir for another org"));
    }
    let key = load_key(&context.dir.node_key())?;
    let issuer = org::create(&context.dir, name, now())?;
    edit::set(&context.config_path, "org", "name", name.as_str())?;
    let admitted = match admit_self {
        true => Some(admit_own(&issuer, &config, &key, context)?),
        false => None,
    };
    Ok(CreatedOrg {
        org: name.to_string(),
        root: issuer.pin().to_string(),
        expires: rfc3339(issuer.root().expires),
        admitted,
        next: format!(
            "Keep a copy of {} somewhere safe: whoever has it speaks for {name}.\n\
             Other orgs pin this one with: comity trust pin {name} {}",
            context.dir.org_key().display(),
            issuer.pin()
        ),
    })
}

fn admit_own(
    issuer: &Issuer,
    config: &NodeConfig,
    key: &ed25519_dalek::SigningKey,
    context: &Context,
) -> Result<String, CliError> {
    let node = node_id(key);
    let membership = issuer.admit(&config.mesh.name, node, config.site.processing_locations, now())?;
    org::save_membership(&context.dir, &membership)?;
    Ok(node.to_string())
}

fn admit(args: &AdmitArgs, context: &Context) -> Result<(), CliError> {
    let config = context.load()?.config;
    let org = config.org.ok_or_else(no_org)?;
    let issuer = Issuer::load(&context.dir, &org)?.ok_or_else(|| not_issuer(&org))?;
    let node = read_node(&args.node)?;
    if config.revoked.contains(&node) {
        return Err(CliError::usage(format!("{node} was revoked"))
            .next("if that was a mistake, take it out of comity.toml first: [org] revoked"));
    }
    let places = places(&args.locations)?;
    let membership = issuer.admit(&config.mesh.name, node, places, now())?;
    if load_key(&context.dir.node_key()).is_ok_and(|key| node_id(&key) == node) {
        org::save_membership(&context.dir, &membership)?;
    }
    let admitted = Admitted {
        org: org.to_string(),
        node: node.to_string(),
        locations_max: places.to_string(),
        expires: rfc3339(membership.expires),
        line: Admission::new(issuer.chain(), &membership).to_line(),
        next: format!(
            "on the other machine run: comity join LINE   and compare the root there with {}",
            issuer.pin()
        ),
    };
    context.out.result(&admitted, |admitted| format!("{}\n\n{}", admitted.line, admitted.next));
    Ok(())
}

/// Whoever holds the key decides, so only there does it mean anything.
fn revoke(node: &str, context: &Context) -> Result<(), CliError> {
    let config = context.load()?.config;
    let org = config.org.ok_or_else(no_org)?;
    Issuer::load(&context.dir, &org)?.ok_or_else(|| not_issuer(&org))?;
    let node = read_node(node)?;
    let new = edit::revoke_node(&context.config_path, node)?;
    let next = "it is out when its present membership ends, after seven days at most: comity peers";
    let report = json!({ "revoked": node.to_string(), "org": org.as_str(), "new": new, "next": next });
    context.out.result(&report, |_| {
        let word = if new { "revoked" } else { "was revoked already:" };
        format!("{word} {node}\nnext: {next}")
    });
    Ok(())
}

fn show_root(org: Option<OrgName>, context: &Context) -> Result<(), CliError> {
    let org = match org {
        Some(org) => org,
        None => context.load()?.config.org.ok_or_else(no_org)?,
    };
    let chain = org::load_chain(&context.dir, &org)?.ok_or_else(|| {
        let message = format!("the root of {org} is not here");
        CliError::usage(message)
            .next("it arrives with the first of its nodes that is met, or by: comity join LINE")
    })?;
    let root = chain.verify().map_err(|error| CliError::of(Exit::Failed, &error))?;
    let pin = chain.pin().map(|pin| pin.to_string()).unwrap_or_default();
    let report = RootReport {
        next: format!("another org pins it with: comity trust pin {org} {pin}"),
        org: org.to_string(),
        root: pin,
        version: root.version,
        expires: rfc3339(root.expires),
    };
    context.out.result(&report, |report| format!("{}\n\n{}", report.root, report.next));
    Ok(())
}

fn read_node(text: &str) -> Result<NodeId, CliError> {
    /// A node id has 52 characters.
    const INPUT_BYTES_MAX: u64 = 256;
    let mut input = text.to_owned();
    if text == "-" {
        input.clear();
        let read = std::io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut input);
        read.map_err(|error| CliError::of(Exit::Failed, &error))?;
    }
    input.trim().parse().map_err(|error: comity_protocol::ids::IdError| CliError::usage(error.to_string()))
}

fn places(texts: &[String]) -> Result<CountrySet, CliError> {
    texts.iter().try_fold(CountrySet::EMPTY, |all, text| {
        resolve_place(text).map(|place| all.union(&place)).map_err(|error| CliError::usage(error.to_string()))
    })
}

fn no_org() -> CliError {
    CliError::usage("this node belongs to no org")
        .next("make one with: comity org create NAME   or: comity join LINE")
}

fn not_issuer(org: &OrgName) -> CliError {
    CliError::usage(format!("this machine does not hold the key of {org}"))
        .next("run this where the org was created: that machine has org.key in its data directory")
}
