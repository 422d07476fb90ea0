//! `comity join`: accepts an invitation over the network, or an admission that travelled by hand. Neither needs a node
//! that runs; one that does is asked, so that it knows at once.

use std::convert::Infallible;

use clap::Args;
use comity_protocol::enrol::Words;
use comity_protocol::invite::Invite;
use serde::Serialize;

use super::context::{Context, now, rfc3339};
use super::exit::{CliError, Exit};
use super::invite::{ask_person, describe, enrol, show_note, show_words};
use super::output::Output;
use crate::clock::Clock;
use crate::config::edit;
use crate::config::trust::Approve;
use crate::control::messages::{Compare, JoinRequest, Line};
use crate::control::{ControlFault, Request};
use crate::enrolment::entry::{self, Entrant, Operator};
use crate::identity::{load_key, node_id};
use crate::org::{self, ADMISSION_PREFIX, Admission};

#[derive(Debug, Args)]
#[command(after_help = "Example:
  comity join comity1:...
Both sides then show the same words: compare them aloud before you say yes.")]
pub(super) struct JoinArgs {
    /// The line that `comity invite` or `comity org admit` printed on the other machine
    #[arg(value_parser = |text: &str| Ok::<_, Infallible>(Line::from(text.to_owned())))]
    line: Line,
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
    let line = args.line.expose().trim();
    if line.starts_with(ADMISSION_PREFIX) {
        return accept(line, context);
    }
    // A line that was cut or changed on its way is named as such here, whether or not a node runs.
    line.parse::<Invite>().map_err(|error| CliError::of(Exit::Usage, &error))?;
    let approve = if args.approve_all { Approve::All } else { Approve::None };
    if context.node_runs()? {
        return enrol(&Request::Join(JoinRequest { line: args.line, approve }), args.yes, context);
    }
    alone(line, approve, args.yes, context)
}

/// Joins without a node: this process dials the inviter and writes down what it is granted.
fn alone(line: &str, approve: Approve, yes: bool, context: &Context) -> Result<Exit, CliError> {
    context.dir.check()?;
    let entrant = Entrant {
        dir: context.dir.clone(),
        config_path: context.config_path.clone(),
        clock: Clock::start(),
        seeds: Vec::new(),
    };
    let operator = AtTerminal { out: context.out, yes };
    let joined = context.block_on(async {
        let joined = entry::join(&entrant, line, approve, &operator).await;
        joined.map_err(|error| ControlFault::from(error).into())
    })?;
    let next = match joined.granted.membership {
        Some(_) => "comity up",
        None => "comity up   then look at the other org's tools: comity tools",
    };
    context.out.result(&joined.report(next), describe);
    Ok(Exit::Done)
}

/// The person who typed the command.
struct AtTerminal {
    out: Output,
    yes: bool,
}

impl Operator for AtTerminal {
    async fn compare(&self, words: Words, other: &str) -> bool {
        let compare = Compare {
            id: String::new(),
            words: words.iter().map(|&word| word.to_owned()).collect(),
            other: other.to_owned(),
            confirm: !self.yes,
        };
        show_words(&compare, self.out);
        self.yes || ask_person().await
    }

    async fn tell(&self, note: String) {
        show_note(&note, self.out);
    }
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
