//! The dead node comes back, and all know the same again.

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::abroad::told;
use super::residency::call_within;
use crate::cli::output::table;
use crate::demo::cast::CAST;
use crate::demo::client::{DENIED, McpError, UNREACHABLE};
use crate::demo::receipt::Ran;
use crate::demo::stage::{LOOK_INTERVAL, Stage, WAIT_MAX};
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
    let before = stage.nodes[back].status.clone();
    stage.nodes[back].start().await.map_err(of(back))?;
    ensure(stage.nodes[back].id() == before.node, || Fault::at(back, "it came back as somebody else"))?;
    tells_its_new_address(stage, back, &before.addresses).await?;
    stage.converge().await?;
    let only_there = json!({ "allow_locations": [CAST[back].country] });
    let ran = runs_calls_again(stage, back, &only_there).await?;
    stage.converge().await?;
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

/// Waits until what the node says of itself is from this life of it. Until then all agree already: on what it said before
/// it died.
async fn tells_its_new_address(stage: &mut Stage, at: usize, old: &[String]) -> Result<(), Fault> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let status = stage.nodes[at].look().await.map_err(of(at))?;
        if !status.addresses.is_empty() && status.addresses != old {
            return Ok(());
        }
        ensure(Instant::now() < deadline, || Fault::at(at, "it does not tell where it is now"))?;
        sleep(LOOK_INTERVAL).await;
    }
}

/// Has a call made that only the node at `at` may run, again and again until it does: first its servers must be up, and
/// the client's node must have heard what they offer. Until then there is nobody to run it, and the call is refused.
async fn runs_calls_again(stage: &mut Stage, at: usize, constraints: &Value) -> Result<Ran, Fault> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        match call_within(stage, constraints).await {
            Ok((ran, _)) if stage.index_of(&ran.node) == Some(at) => return Ok(ran),
            Ok((ran, _)) => {
                return Err(Fault::at(at, format!("{} ran what it alone may run", stage.name_of(&ran.node))));
            }
            Err(Fault::Client(McpError::Rpc { error, .. }))
                if [DENIED, UNREACHABLE].contains(&error.code) && Instant::now() < deadline =>
            {
                sleep(LOOK_INTERVAL).await;
            }
            Err(fault) => return Err(fault),
        }
    }
}
