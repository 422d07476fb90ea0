//! What a client sees: capabilities, not peers.

use serde_json::json;

use crate::cli::output::{or_dash, shorten, table};
use crate::demo::cast::{CAST, COMMON, HOME};
use crate::demo::client::{ListedTool, REVISION};
use crate::demo::stage::{Stage, wait_for};
use crate::demo::step::{Fault, Step, Told, ensure, of};

pub(super) const STEP: Step = Step {
    name: "catalogue",
    title: "One catalogue",
    about: "An AI client connects to Ashburn's endpoint. It sees capabilities, not machines: what all three sites serve \
            under the same contract is there once.",
    run: |stage| Box::pin(run(stage)),
};

async fn run(stage: &mut Stage) -> Result<Told, Fault> {
    let expected = expected();
    let providers = providers(stage, &expected).await?;
    let server = stage.client()?.discover().await?;
    let listed = stage.client()?.list_tools().await?;
    let mut names: Vec<_> = listed.iter().map(|tool| tool.name.clone()).collect();
    names.sort();
    ensure(names == expected, || Fault::at(HOME, format!("the client sees {names:?}, not {expected:?}")))?;
    let count = |tool: &ListedTool| providers[names.binary_search(&tool.name).unwrap_or_default()];
    let rows = listed.iter().map(|tool| {
        let what = shorten(tool.description.as_deref().unwrap_or_default(), 64);
        [tool.name.clone(), count(tool).to_string(), or_dash(tool.title.as_ref()), what]
    });
    let url = stage.client()?.url();
    let text = format!(
        "{server} at {url}, MCP {REVISION}\n{}",
        table(&["TOOL", "SITES", "TITLE", "WHAT IT DOES"], rows, "")
    );
    let tools: Vec<_> = listed
        .iter()
        .map(|tool| json!({ "name": tool.name, "title": tool.title, "sites": count(tool) }))
        .collect();
    Ok(Told { text, detail: json!({ "url": url, "server": server, "revision": REVISION, "tools": tools }) })
}

/// Every tool that somebody serves, once.
fn expected() -> Vec<String> {
    let mut names: Vec<_> =
        CAST.iter().flat_map(|role| role.own.tool_names()).chain(COMMON.tool_names()).collect();
    names.sort();
    names
}

/// Waits until every site is known to serve what it serves; returns how many do, in the order of `names`.
async fn providers(stage: &Stage, names: &[String]) -> Result<Vec<usize>, Fault> {
    let home = &stage.nodes[HOME];
    let common = COMMON.tool_names();
    wait_for(HOME, || async {
        let tools = home.tools().await.map_err(of(HOME))?;
        let count = |name: &String| {
            let served = tools.iter().filter(|tool| tool.name.as_ref() == Some(name));
            served.map(|tool| tool.providers).sum::<usize>()
        };
        let wanted = |name: &String| if common.contains(name) { CAST.len() } else { 1 };
        Ok(match names.iter().find(|name| count(name) != wanted(name)) {
            None => Ok(names.iter().map(count).collect()),
            Some(name) => Err(format!("{name} is served by {} sites, not {}", count(name), wanted(name))),
        })
    })
    .await
}
