//! `comity status`: how the node is, and what to do next.

use super::context::{Context, unexpected};
use super::exit::{CliError, Exit};
use super::output::{CAUTION, GOOD, clean, duration, table};
use super::servers;
use crate::control::messages::{MembershipInfo, StatusReport};
use crate::control::{Request, Response};

pub(super) fn run(context: &Context) -> Result<Exit, CliError> {
    let Response::Status(report) = context.ask(&Request::Status)? else { return Err(unexpected()) };
    context.out.result(&report, |report| describe(report));
    Ok(Exit::Done)
}

fn describe(report: &StatusReport) -> String {
    let mut lines = vec![
        format!("{GOOD}{}{GOOD:#}  {}", clean(&report.name), report.node),
        field("version", format!("{}, up for {}", report.version, duration(report.uptime_s))),
        field("org", report.org.clone().unwrap_or_else(|| "none yet".to_owned())),
    ];
    lines.extend(report.membership.as_ref().map(|membership| field("member", member(membership))));
    lines.push(field("site", site(report)));
    lines.push(field(
        "mesh",
        format!("{}: {} connected, {} known", report.mesh, report.peers_connected, report.directory_size),
    ));
    lines.extend(report.addresses.iter().map(|address| field("address", address.clone())));
    lines.extend(report.mcp_url.iter().map(|url| field("clients", url.clone())));
    lines.extend(report.admin_url.iter().map(|url| field("metrics", format!("{url}/metrics"))));
    lines.push(field(
        "tools",
        format!("{} visible, {} waiting for approval", report.tools, report.tools_pending),
    ));
    if !report.servers.is_empty() {
        let headings = ["NAME", "STATE", "TOOLS", "SHARE", "WHAT", "TROUBLE"];
        lines.push(format!("\n{}", table(&headings, report.servers.iter().map(servers::row), "")));
    }
    lines.extend(
        report.warnings.iter().map(|warning| format!("\n{CAUTION}warning:{CAUTION:#} {}", clean(warning))),
    );
    lines.push(format!("\nnext: {}", clean(&report.next)));
    lines.join("\n")
}

fn field(name: &str, value: String) -> String {
    format!("{name:<9}{}", clean(&value))
}

fn member(membership: &MembershipInfo) -> String {
    let places = membership.locations_max.join(",");
    match membership.expires_in_s {
        0 => format!("expired at {}", membership.expires),
        seconds => format!("for {} more, may claim {places}", duration(seconds)),
    }
}

fn site(report: &StatusReport) -> String {
    let places = match report.locations.as_slice() {
        [] => "nowhere that others would believe".to_owned(),
        places => places.join(","),
    };
    match &report.operator_country {
        Some(country) => format!("processes in {places}, operated under the law of {country}"),
        None => format!("processes in {places}"),
    }
}
