//! `comity peers`: the nodes that this one knows.

use super::context::{Context, unexpected};
use super::exit::{CliError, Exit};
use super::output::{duration, or_dash, table};
use crate::control::messages::PeerInfo;
use crate::control::{Request, Response};

pub(super) fn run(context: &Context) -> Result<Exit, CliError> {
    let Response::Peers(peers) = context.ask(&Request::Peers)? else { return Err(unexpected()) };
    context.out.result(&peers, |peers| {
        let headings =
            ["NAME", "ORG", "LINK", "RTT", "WHERE", "OPERATOR", "TRUST", "TOOLS", "EXPIRES", "NODE"];
        table(
            &headings,
            peers.iter().map(row),
            "No peers yet. Name one in [mesh] peers, or run: comity join LINE",
        )
    });
    Ok(Exit::Done)
}

fn row(peer: &PeerInfo) -> [String; 10] {
    [
        or_dash(peer.name.as_ref()),
        peer.org.clone(),
        if peer.connected { "up" } else { "down" }.to_owned(),
        or_dash(peer.rtt_ms.map(|ms| format!("{ms:.1} ms"))),
        peer.locations.join(","),
        or_dash(peer.operator_country.as_ref()),
        peer.trust.clone(),
        peer.offers.to_string(),
        or_dash(peer.advert_expires_in_s.map(duration)),
        peer.node.clone(),
    ]
}
