//! Three orgs are made, and each believes the other two.

use futures::future::join_all;
use serde_json::json;

use crate::cli::output::table;
use crate::demo::cast::{COMMON, HOME, STRANGER};
use crate::demo::node::DemoNode;
use crate::demo::stage::Stage;
use crate::demo::step::{Fault, Step, Told, of};

pub(super) const STEP: Step = Step {
    name: "founded",
    title: "Three organisations, no one in charge",
    about: "Each makes its own keys and its own root of trust, puts MCP servers behind its node, and pins the digests of \
            the other two roots.",
    run: |stage| Box::pin(run(stage)),
};

async fn run(stage: &mut Stage) -> Result<Told, Fault> {
    let founding = stage.nodes.iter_mut().map(|node| async {
        let servers = [COMMON, node.role.own];
        node.found(&servers).await
    });
    each(join_all(founding).await)?;
    let pinning = stage.nodes.iter().enumerate().map(|(at, node)| pin_others(at, node, &stage.nodes));
    each(join_all(pinning).await)?;
    let detail = stage.nodes.iter().map(|node| {
        let role = node.role;
        json!({
            "node": role.name, "org": role.org, "processing_locations": [role.country],
            "operator_country": role.operator, "servers": [COMMON.name(), role.own.name()], "root": node.root,
        })
    });
    let rows = stage.nodes.iter().map(|node| {
        let role = node.role;
        let servers = format!("{}, {}", COMMON.name(), role.own.name());
        [role.name, role.org, role.country, role.operator, &servers, short(&node.root)].map(str::to_owned)
    });
    let headings = ["NODE", "ORG", "PROCESSES IN", "UNDER THE LAW OF", "MCP SERVERS", "ROOT"];
    Ok(Told { text: table(&headings, rows, ""), detail: json!({ "orgs": detail.collect::<Vec<_>>() }) })
}

/// All believe each other; the client's site wants to see what the stranger offers before its clients do.
async fn pin_others(
    at: usize,
    node: &DemoNode,
    all: &[DemoNode],
) -> Result<(), crate::demo::node::NodeError> {
    for (other_at, other) in all.iter().enumerate().filter(|(other, _)| *other != at) {
        let approve_all = (at, other_at) != (HOME, STRANGER);
        node.pin(other.role.org, &other.root, approve_all).await?;
    }
    Ok(())
}

fn each(results: Vec<Result<(), crate::demo::node::NodeError>>) -> Result<(), Fault> {
    results.into_iter().enumerate().try_for_each(|(at, result)| result.map_err(of(at)))
}

/// Enough of a digest to tell roots apart by eye.
fn short(root: &str) -> &str {
    const SHOWN: usize = "blake3:".len() + 12;
    root.get(..SHOWN).unwrap_or(root)
}
