//! The dead node comes back, and all know the same again.

use serde_json::json;

use super::abroad::told;
use super::residency::call_within;
use crate::cli::output::table;
use crate::demo::cast::{CAST, HOME};
use crate::demo::stage::{Stage, wait_for};
use crate::demo::step::{Fault, Step, Told, ensure, of};

pub(super) const STEP: Step = Step {
    name: "returned",
    title: "It comes back",
    about: "The node is started again on what it had on disk, at another port. Nobody tells the others: they find each \
            other, and what each knows becomes the same.",
    run: |stage| Box::pin(run(stage)),
};

async fn run(stage: &mut Stage) -> Result<Told, Fault> {
    let back = stage.ran_in_eu.ok_or_else(|| Fault::new("nobody was killed before"))?;
    let identity = stage.nodes[back].id().to_owned();
    stage.nodes[back].start().await.map_err(of(back))?;
    ensure(stage.nodes[back].id() == identity, || Fault::at(back, "it came back as somebody else"))?;
    stage.converge().await?;
    let only_there = json!({ "allow_locations": [CAST[back].country] });
    may_run(stage, back, &only_there).await?;
    let (ran, _) = call_within(stage, &only_there).await?;
    ensure(stage.index_of(&ran.node) == Some(back), || Fault::at(back, "it does not run calls again"))?;
    let rows = stage.nodes.iter().map(|node| {
        let status = &node.status;
        let digest = status.directory_digest.clone().unwrap_or_default();
        let links = format!("{} others", status.peers_connected);
        [node.role.name.to_owned(), links, status.directory_size.to_string(), digest]
    });
    let text = format!(
        "{}\nA call that {} alone may run:\n{}",
        table(&["NODE", "CONNECTED TO", "KNOWS", "DIRECTORY"], rows, ""),
        CAST[back].name,
        told(stage, &ran)
    );
    let digests: Vec<_> = stage.nodes.iter().map(|node| &node.status.directory_digest).collect();
    Ok(Told {
        detail: json!({ "returned": CAST[back].name, "directory_digests": digests, "receipt": ran }),
        text,
    })
}

/// Waits until the client's node would send a call there: its server must be up, and what it offers known.
async fn may_run(stage: &Stage, at: usize, constraints: &serde_json::Value) -> Result<(), Fault> {
    let (home, wanted) = (&stage.nodes[HOME], stage.nodes[at].id());
    wait_for(at, || async {
        let route = home.route(super::residency::TOOL, constraints).await.map_err(of(HOME))?;
        Ok(match route.candidates.first() {
            Some(first) if first.node == wanted => Ok(()),
            _ => Err(format!("{} is not among those who may run a call", CAST[at].name)),
        })
    })
    .await
}
