//! `comity route`: who would run a call, without calling.

use clap::Args;

use super::constraints::ConstraintArgs;
use super::context::{Context, unexpected};
use super::exit::{CliError, Exit};
use super::output::{BAD, GOOD, clean, or_dash, table};
use crate::control::messages::{RouteCandidate, RouteReport, RouteRequest};
use crate::control::{Request, Response};

#[derive(Debug, Args)]
#[command(after_help = "Example:
  comity route get_current_time --allow-loc EU --deny-operator US")]
pub(super) struct RouteArgs {
    /// The tool: the name that clients see, or org/server/tool
    tool: String,
    #[command(flatten)]
    constraints: ConstraintArgs,
}

/// Ends with 2 where nobody may run it, as the call itself would.
pub(super) fn run(args: RouteArgs, context: &Context) -> Result<Exit, CliError> {
    let request = Request::Route(RouteRequest { tool: args.tool, constraints: args.constraints.to_raw()? });
    let Response::Route(report) = context.ask(&request)? else { return Err(unexpected()) };
    context.out.result(&report, describe);
    Ok(if report.candidates.is_empty() { Exit::Denied } else { Exit::Done })
}

fn describe(report: &RouteReport) -> String {
    let [capability, contract, constraints] =
        [&report.capability, &report.contract, &report.constraints].map(|text| clean(text));
    let headings = ["", "NAME", "ORG", "WHERE", "OPERATOR", "TRUST", "COST", "NODE"];
    let candidates = report.candidates.iter().enumerate().map(|(rank, candidate)| row(rank, candidate));
    let candidates = table(&headings, candidates, &format!("{BAD}nobody may run it{BAD:#}"));
    let rejected = report.rejected.iter().map(|reason| {
        [
            or_dash(reason.org.as_ref()),
            reason.code.clone(),
            reason.detail.clone(),
            or_dash(reason.peer.as_ref()),
        ]
    });
    let rejected = match report.rejected.is_empty() {
        true => String::new(),
        false => format!("\n\nRejected:\n{}", table(&["ORG", "RULE", "WHY", "NODE"], rejected, "")),
    };
    format!("{GOOD}{capability}{GOOD:#}  {contract}\nconstraints: {constraints}\n\n{candidates}{rejected}")
}

fn row(rank: usize, candidate: &RouteCandidate) -> [String; 8] {
    let first = if rank == 0 { "→" } else { "" };
    let name = or_dash(candidate.name.as_ref());
    [
        first.to_owned(),
        if candidate.local { format!("{name} (this node)") } else { name },
        candidate.org.clone(),
        candidate.locations.join(","),
        or_dash(candidate.operator_country.as_ref()),
        candidate.trust.clone(),
        or_dash(candidate.cost.map(|cost| format!("{cost:.2}"))),
        candidate.node.clone(),
    ]
}
