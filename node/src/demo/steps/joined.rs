//! The nodes start, admit each other, and come to know the same.

use futures::future::join_all;
use serde_json::json;

use crate::cli::output::table;
use crate::demo::stage::Stage;
use crate::demo::step::{Fault, Step, Told, ensure, of};

pub(super) const STEP: Step = Step {
    name: "joined",
    title: "They join",
    about: "Three processes on this machine. Each proves to the others, by its org's signature, that it is who it says, \
            before a byte of anything else is read; then they tell each other what they offer.",
    run: |stage| Box::pin(run(stage)),
};

async fn run(stage: &mut Stage) -> Result<Told, Fault> {
    let (seed, others) = stage.nodes.split_first_mut().ok_or_else(|| Fault::new("nobody takes part"))?;
    seed.start().await.map_err(of(0))?;
    let addresses = &seed.status.addresses;
    let starting = others.iter_mut().map(|node| async move {
        node.seeds(addresses)?;
        node.start().await
    });
    for (at, started) in join_all(starting).await.into_iter().enumerate() {
        started.map_err(of(at + 1))?;
    }
    stage.converge().await?;
    for (at, node) in stage.nodes.iter().enumerate() {
        let (org, places) = (node.status.org.as_deref(), node.status.locations.join(","));
        let as_cast = org == Some(node.role.org) && places == node.role.country;
        ensure(as_cast, || Fault::at(at, format!("it is a node of {org:?} in {places}")))?;
    }
    Ok(tell(stage))
}

fn tell(stage: &Stage) -> Told {
    let statuses = || stage.nodes.iter().map(|node| (node, &node.status));
    let rows = statuses().map(|(node, status)| {
        [
            node.role.name.to_owned(),
            node.role.org.to_owned(),
            status.locations.join(","),
            node.pid().map(|pid| pid.to_string()).unwrap_or_default(),
            format!("{} others", status.peers_connected),
            status.directory_digest.clone().unwrap_or_default(),
            status.node.clone(),
        ]
    });
    let headings = ["NODE", "ORG", "WHERE", "PROCESS", "CONNECTED TO", "DIRECTORY", "IDENTITY"];
    let text = format!("{}\nAll three directories have the same digest.", table(&headings, rows, ""));
    let detail = statuses().map(|(node, status)| {
        json!({
            "node": node.role.name, "org": status.org, "id": status.node, "pid": node.pid(),
            "processing_locations": status.locations, "operator_country": status.operator_country,
            "peers_connected": status.peers_connected, "directory_size": status.directory_size,
            "directory_digest": status.directory_digest,
        })
    });
    Told { text, detail: json!({ "nodes": detail.collect::<Vec<_>>() }) }
}
