//! A node dies, and the same call goes to the other that may run it.

use std::time::{Duration, Instant};

use comity_protocol::call::caller::PIPELINE_FRESH;
use serde_json::json;
use tokio::time::sleep;

use super::abroad::told;
use super::residency::call_in_eu;
use crate::demo::cast::CAST;
use crate::demo::stage::Stage;
use crate::demo::step::{Fault, Step, Told, ensure, of};

/// Calls that are made after the death: the first ones find out, the later ones know.
const CALLS: usize = 3;

/// How long after the death the first call is made. A node hands a request at once to a peer that it has heard from within
/// [`PIPELINE_FRESH`]; if that peer is dead by then, nobody can say whether it ran the call, and the call is in doubt
/// instead of sent again. Every later call is offered first, and that is what is shown here.
const SILENCE: Duration = PIPELINE_FRESH.saturating_mul(2);

pub(super) const STEP: Step = Step {
    name: "failover",
    title: "A node dies",
    about: "The node that has just served the client is killed, with no goodbye. The same call is made again: it goes to \
            the one other site that may run it, and never to Ashburn.",
    run: |stage| Box::pin(run(stage)),
};

async fn run(stage: &mut Stage) -> Result<Told, Fault> {
    let dead = stage.ran_in_eu.ok_or_else(|| Fault::new("nobody ran the call before"))?;
    let pid = stage.nodes[dead].pid();
    stage.nodes[dead].kill().await.map_err(of(dead))?;
    sleep(SILENCE).await;
    let mut lines = vec![format!("kill -9 {}   ({})", pid.unwrap_or_default(), CAST[dead].name)];
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let began = Instant::now();
        let (ran, _) = call_in_eu(stage).await?;
        let took_ms = began.elapsed().as_millis();
        ensure(stage.index_of(&ran.node) != Some(dead), || Fault::new("a dead node signed a receipt"))?;
        lines.push(format!("{}, after {took_ms} ms", told(stage, &ran)));
        calls.push(json!({ "receipt": ran, "took_ms": took_ms as u64 }));
    }
    Ok(Told {
        detail: json!({ "killed": CAST[dead].name, "pid": pid, "calls": calls }),
        text: lines.join("\n"),
    })
}
