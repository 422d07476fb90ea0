//! `comity join`: accepts an invitation over the network, or an admission that travelled by hand.

use clap::Args;
use comity_protocol::invite::Invite;
use serde::Serialize;

use super::context::{Context, now, rfc3339};
use super::exit::{CliError, Exit};
use super::invite::enrol;
use crate::config::edit;
use crate::config::trust::Approve;
use crate::control::Request;
use crate::control::messages::JoinRequest;
use crate::identity::{load_key, node_id};
use crate::org::{self, ADMISSION_PREFIX, Admission};

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// The line that `comity invite` or `comity org admit` printed on the other machine
    line: String,
    /// Make every tool of the other org visible at once, when two orgs federate
    #[arg(long)]
    approve_all: bool,
    /// Do not ask whether the words are the same
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Joined {
    org: String,
    root: String,
    locations_max: String,
    expires: String,
    next: String,
}

pub(super) fn run(args: JoinArgs, context: &Context) -> Result<Exit, CliError> {
    let line = args.line.trim();
    if line.starts_with(ADMISSION_PREFIX) {
        return accept(line, context);
    }
    // A line that was cut or changed on its way is named as such here, whether or not a node runs.
    line.parse::<Invite>().map_err(|error| CliError::of(Exit::Usage, &error))?;
    let approve = if args.approve_all { Approve::All } else { Approve::None };
    enrol(&Request::Join(JoinRequest { line: line.to_owned(), approve }), args.yes, context)
}

/// Takes an admission: no node needs to run for that.
fn accept(line: &str, context: &Context) -> Result<Exit, CliError> {
    let config = context.load()?.config;
    let key = load_key(&context.dir.node_key())?;
    let admission = Admission::from_line(line).map_err(|error| CliError::of(Exit::Usage, &error))?;
    let verified = admission.verify(&config.mesh.name, node_id(&key), now());
    let (chain, membership) = verified.map_err(|error| {
        CliError::of(Exit::Denied, &error).next("ask the issuer for a new line: comity org admit NODE")
    })?;
    if let Some(other) = config.org.as_ref().filter(|org| **org != membership.org) {
        let message = format!("this node belongs to {other}, and the line admits it to {}", membership.org);
        return Err(CliError::usage(message).next("use another --data-dir for another org"));
    }
    edit::set(&context.config_path, "org", "name", membership.org.as_str())?;
    org::save_chain(&context.dir, &membership.org, &chain)?;
    org::save_membership(&context.dir, &membership)?;
    let start = match context.ask_if_running(&Request::Status)? {
        Some(_) => "restart the node: it runs with the membership that it had",
        None => "run: comity up",
    };
    let joined = Joined {
        org: membership.org.to_string(),
        root: chain.pin().map(|pin| pin.to_string()).unwrap_or_default(),
        locations_max: membership.locations_max.to_string(),
        expires: rfc3339(membership.expires),
        next: format!("compare the root with what the issuer sees (comity org root), then {start}"),
    };
    context.out.result(&joined, |joined| {
        format!(
            "joined {}\nroot   {}\nuntil  {}\n\nnext: {}",
            joined.org, joined.root, joined.expires, joined.next
        )
    });
    Ok(Exit::Done)
}
