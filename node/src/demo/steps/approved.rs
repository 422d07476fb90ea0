//! A foreign org's tools are invisible until the operator has approved them.

use serde_json::json;

use crate::cli::output::{shorten, table};
use crate::control::messages::{ToolInfo, ToolState};
use crate::demo::cast::{CAST, COMMON, HOME, STRANGER};
use crate::demo::server::ToolSet;
use crate::demo::stage::{Stage, wait_for};
use crate::demo::step::{Fault, Step, Told, ensure, of};

pub(super) const STEP: Step = Step {
    name: "approved",
    title: "What a stranger offers waits for an approval",
    about: "Ashburn believes that Paris is who it says, and that is all: its clients see no tool of Paris until \
            Ashburn's operator has looked at it.",
    run: |stage| Box::pin(run(stage)),
};

async fn run(stage: &mut Stage) -> Result<Told, Fault> {
    let stranger = &CAST[STRANGER];
    let waiting = arrived(stage, stranger.org, ToolState::Pending).await?;
    let hidden: Vec<_> = stranger.own.tool_names();
    let before = names(stage).await?;
    let leaked = hidden.iter().find(|name| before.contains(name));
    ensure(leaked.is_none(), || Fault::at(HOME, format!("a client sees {leaked:?} before it is approved")))?;
    stage.home().approve(stranger.org).await.map_err(of(HOME))?;
    arrived(stage, stranger.org, ToolState::Approved).await?;
    let after = names(stage).await?;
    let missing = hidden.iter().find(|name| !after.contains(name));
    ensure(missing.is_none(), || {
        Fault::at(HOME, format!("no client sees {missing:?} though it is approved"))
    })?;
    let rows = waiting.iter().map(|tool| {
        let path = format!("{}/{}/{}", tool.org, tool.server, tool.tool);
        [path, shorten(tool.description.as_deref().unwrap_or_default(), 56)]
    });
    let text = format!(
        "{}\n$ comity tools approve --org {}\nThe client saw {} tools before, and sees {} now.",
        table(&["WAITED FOR APPROVAL", "WHAT IT DOES"], rows, ""),
        stranger.org,
        before.len(),
        after.len()
    );
    let waited: Vec<_> = waiting.iter().map(|tool| format!("{}/{}", tool.server, tool.tool)).collect();
    let detail = json!({
        "at": CAST[HOME].name, "org": stranger.org, "waited": waited,
        "tools_before": before.len(), "tools_after": after.len(),
    });
    Ok(Told { detail, text })
}

/// Waits until the client's node has every tool of `org` in this state.
async fn arrived(stage: &Stage, org: &str, state: ToolState) -> Result<Vec<ToolInfo>, Fault> {
    let expected = offered(CAST[STRANGER].own).len();
    let home = &stage.nodes[HOME];
    wait_for(HOME, || async {
        let mut tools = home.tools().await.map_err(of(HOME))?;
        tools.retain(|tool| tool.state == state && tool.org == org);
        Ok(match tools.len() {
            count if count >= expected => Ok(tools),
            count => Err(format!("{count} tools of {org} are {state:?}, of {expected}")),
        })
    })
    .await
}

fn offered(own: ToolSet) -> Vec<String> {
    [COMMON.tool_names(), own.tool_names()].concat()
}

async fn names(stage: &mut Stage) -> Result<Vec<String>, Fault> {
    Ok(stage.client()?.list_tools().await?.into_iter().map(|tool| tool.name).collect())
}
