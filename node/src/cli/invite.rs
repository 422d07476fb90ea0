//! `comity invite`: a one-time line that lets somebody in.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::mpsc;

use super::context::{Context, unexpected};
use super::exit::{CliError, Exit};
use super::output::{GOOD, Output, clean};
use crate::config::setting::TextSetting;
use crate::config::trust::Approve;
use crate::control::messages::{Compare, ConfirmRequest, Enrolled, InviteKind, InviteRequest};
use crate::control::{Event, Request, Response};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  comity invite --location DE            a node that may process data in Germany joins this org
  comity invite --federate               another org and this one come to believe each other
The other side runs `comity join` with the line. Both then show the same words: compare them aloud.")]
pub(super) struct InviteArgs {
    /// The most that the new node may claim as its location: a country or a group; repeatable
    #[arg(
        long = "location",
        value_name = "CC",
        required_unless_present = "federation",
        conflicts_with = "federation"
    )]
    locations: Vec<String>,
    /// Federate with another org instead of admitting a node to this one
    #[arg(long = "federate", alias = "federation")]
    federation: bool,
    /// Make every tool of the other org visible at once
    #[arg(long, requires = "federation")]
    approve_all: bool,
    /// How long the line holds, such as 10m or 24h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = |text: &str| Duration::from_text(text))]
    expires: Duration,
    /// Do not wait until it is used: whoever has the line is let in without anybody comparing words
    #[arg(long)]
    no_wait: bool,
    /// Do not ask whether the words are the same
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: InviteArgs, context: &Context) -> Result<Exit, CliError> {
    let kind = match args.federation {
        true => {
            InviteKind::Federation { approve: if args.approve_all { Approve::All } else { Approve::None } }
        }
        false => InviteKind::Member { locations: args.locations },
    };
    let request = Request::Invite(InviteRequest { kind, lifetime: args.expires, wait: !args.no_wait });
    enrol(&request, args.yes, context)
}

/// Asks for an enrolment, shows what happens, and lets a person confirm the words when the node waits for that.
pub(super) fn enrol(request: &Request, yes: bool, context: &Context) -> Result<Exit, CliError> {
    let answer = context.block_on(async {
        // Unbounded in name only: a node asks once an enrolment.
        let (ask, mut asked) = mpsc::unbounded_channel();
        let work = context.ask_with(request, |event| {
            if let Some(compare) = show(event, context.out) {
                let _ = ask.send(compare);
            }
        });
        tokio::pin!(work);
        // At most one: people read one question at a time.
        let mut confirming = FuturesUnordered::new();
        loop {
            tokio::select! {
                answer = &mut work => return answer,
                Some(compare) = asked.recv(), if confirming.is_empty() => {
                    confirming.push(confirm(compare, yes, context));
                }
                Some(()) = confirming.next() => {}
            }
        }
    })?;
    match answer {
        Response::Enrolled(enrolled) => {
            context.out.result(&enrolled, describe);
            Ok(Exit::Done)
        }
        Response::Done => Ok(Exit::Done),
        _ => Err(unexpected()),
    }
}

/// Shows an event; returns the comparison when a person must confirm it.
fn show(event: Event, out: Output) -> Option<Compare> {
    match event {
        Event::Invitation(invitation) => {
            out.result(&json!({ "invitation": invitation }), |_| {
                format!(
                    "{}\n\nRun on the other machine, before {}:\n  comity join LINE\nThe line is a secret: whoever has it can use it once.",
                    invitation.line.expose(),
                    invitation.expires
                )
            });
            None
        }
        Event::Compare(compare) => {
            show_words(&compare, out);
            compare.confirm.then_some(compare)
        }
        Event::Note(note) => {
            show_note(&note, out);
            None
        }
        Event::Notification { .. } => None,
    }
}

pub(super) fn show_words(compare: &Compare, out: Output) {
    out.progress(&json!({ "compare": compare }), |_| {
        let (words, other) = (clean(&compare.words.join(" ")), clean(&compare.other));
        format!("\n{other} is at the other side. Both sides must show the same words:\n\n  {GOOD}{words}{GOOD:#}\n")
    });
}

pub(super) fn show_note(note: &str, out: Output) {
    out.progress(&json!({ "note": note }), |_| clean(note));
}

/// Asks, and tells the node. What comes of it is in the node's answer; that the other side has gone meanwhile is no
/// reason to stop waiting.
async fn confirm(compare: Compare, yes: bool, context: &Context) {
    let same = yes || ask_person().await;
    let request = Request::Confirm(ConfirmRequest { id: compare.id, same });
    if let Err(error) = context.ask_with(&request, |_| ()).await {
        show_note(&error.message, context.out);
    }
}

/// Without a terminal there is nobody to ask, and nobody's silence is no consent.
pub(super) async fn ask_person() -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    let answer = tokio::task::spawn_blocking(|| {
        anstream::eprint!("Are they the same? [y/N] ");
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    matches!(answer.await, Ok(Ok(line)) if matches!(line.trim(), "y" | "Y" | "yes"))
}

pub(super) fn describe(enrolled: &Enrolled) -> String {
    let [org, root, node, next] =
        [&enrolled.org, &enrolled.root, &enrolled.node, &enrolled.next].map(|text| clean(text));
    format!("org   {org}\nroot  {root}\nnode  {node}\n\nnext: {next}")
}
