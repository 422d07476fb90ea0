//! What of another org clients see: approvals, changed contracts, servers and pins that come and go.

use super::harness::{Org, Plan, Running, failure, result, until, within};
use crate::control::ControlClient;
use crate::control::messages::{Request, Response, ToolSelector};
use crate::control::reports::{ToolInfo, ToolState};
use crate::exchange::Failure;
use crate::world::World;

const PATH: &str = "umbrella.example/tools/echo";

/// Asks the node as the command line does.
async fn decide(node: &Running, approve: bool, tool: &str) -> Vec<ToolInfo> {
    let selector = ToolSelector { org: None, server: None, tool: Some(tool.into()), contract: None };
    let request = if approve { Request::ApproveTools(selector) } else { Request::RevokeTools(selector) };
    let client = ControlClient::connect(&node.shared.dir.socket()).unwrap();
    match within("an answer", client.request(&request, |_| {})).await.unwrap() {
        Response::Tools(tools) => tools,
        other => panic!("{other:?}"),
    }
}

/// A node of umbrella.example that serves `tools`, and a plan of acme.example that pins it.
async fn server_and_plan(approve: &str) -> (Org, Plan, Running, Plan) {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plan = Plan::of(&umbrella, "server", "FR").trusts(&acme, "none").serves("tools", "federation");
    let server = plan.start().await;
    let caller_plan = Plan::of(&acme, "caller", "DE").trusts(&umbrella, approve).to(&server);
    (umbrella, plan, server, caller_plan)
}

async fn known(node: &Running) {
    node.sees("the tool is known", |world| world.items_of(PATH).next().map(|_| ())).await;
}

fn exposed(node: &Running, name: &str) -> bool {
    node.world().catalogue.by_name(name).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_tool_is_hidden_until_it_is_approved_and_decisions_outlast_a_restart() {
    let (_umbrella, plan, _server, caller_plan) = server_and_plan("none").await;
    let caller = caller_plan.start().await;
    known(&caller).await;
    assert!(!exposed(&caller, "echo"));
    for name in [PATH, "echo"] {
        let refused = failure(caller.call(name)).await;
        assert!(matches!(refused, Failure::Unapproved { .. } | Failure::Refused { .. }), "{refused:?}");
    }
    assert!(matches!(failure(caller.call(PATH)).await, Failure::Unapproved { .. }));
    // The answer comes when the world shows it, and not a moment before.
    let changed = decide(&caller, true, PATH).await;
    assert_eq!((changed.len(), changed[0].state), (1, ToolState::Approved));
    assert!(exposed(&caller, "echo") && !exposed(&caller, "big"));
    result(caller.call("echo")).await;
    caller.stop().await;

    let caller = caller_plan.start().await;
    caller.sees("it is still approved", |world| world.catalogue.by_name("echo").map(|_| ())).await;
    assert_eq!(decide(&caller, false, PATH).await[0].state, ToolState::Pending);
    assert!(!exposed(&caller, "echo"));
    caller.stop().await;

    let caller = caller_plan.start().await;
    known(&caller).await;
    assert!(!exposed(&caller, "echo"));
    decide(&caller, true, "umbrella.example").await;
    assert!(exposed(&caller, "big"), "an org as a whole covers what has no record of its own");
    assert_eq!(plan.ran("tools"), ["echo"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contract_that_changes_is_quarantined_until_it_is_approved_again() {
    let (_umbrella, _plan, server, caller_plan) = server_and_plan("all").await;
    let caller = caller_plan.start().await;
    caller.offers("change", &[server.id()]).await;
    let mut changes = caller.shared.world.catalogue_changes();
    changes.mark_unchanged();
    result(caller.call("change")).await;
    within("clients are told", changes.changed()).await.unwrap();
    caller.sees("it is hidden", |world| world.catalogue.by_name("change").is_none().then_some(())).await;
    let path = "umbrella.example/tools/change";
    // Its new descriptor is pulled meanwhile.
    let is_quarantined = |world: &World| {
        let tool = world.items_of(path).next()?;
        (tool.judgement.code() == "quarantined").then_some(())
    };
    caller.sees("it is quarantined", is_quarantined).await;
    assert!(matches!(failure(caller.call(path)).await, Failure::Unapproved { .. }));
    result(caller.call("echo")).await;
    assert_eq!(decide(&caller, true, path).await[0].state, ToolState::Approved);
    result(caller.call("change")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pins_and_approvals_that_the_file_is_given_take_effect_at_once() {
    let (umbrella, _plan, server, mut caller_plan) = server_and_plan("none").await;
    caller_plan.trust_nobody();
    let caller = caller_plan.start().await;
    assert!(caller.world().items.is_empty());
    caller_plan.trust(&umbrella, "none");
    caller_plan.write();
    known(&caller).await;
    assert!(!exposed(&caller, "echo"));
    caller_plan.trust_nobody();
    caller_plan.trust(&umbrella, "all");
    caller_plan.write();
    caller.offers("echo", &[server.id()]).await;
    result(caller.call("echo")).await;
    caller_plan.trust_nobody();
    caller_plan.write();
    caller.sees("nothing of it is left", |world| world.items.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_own_org_stays_pinned_whatever_becomes_of_its_entry() {
    let acme = Org::new("acme.example");
    let a_plan = Plan::of(&acme, "a", "DE").serves("tools", "org");
    let a = a_plan.start().await;
    let mut plan = Plan::of(&acme, "b", "FR").trusts(&acme, "none").to(&a);
    let b = plan.start().await;
    b.offers("echo", &[a.id()]).await;
    plan.trust_nobody();
    plan.serve("mine", "local", "as it was");
    plan.write();
    b.ready("mine").await;
    let other = Org::new("other.example");
    plan.trust(&other, "none");
    plan.serve("more", "local", "as it was");
    plan.write();
    b.ready("more").await;
    b.offers("acme.example/tools/echo", &[a.id()]).await;
    result(b.call("acme.example/tools/echo")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_and_servers_that_come_and_go_at_one_node_do_so_at_the_others() {
    let (_umbrella, mut plan, server, caller_plan) = server_and_plan("all").await;
    let caller = caller_plan.start().await;
    caller.offers("echo", &[server.id()]).await;
    let mut changes = caller.shared.world.catalogue_changes();
    changes.mark_unchanged();
    result(caller.call("grow")).await;
    within("clients are told", changes.changed()).await.unwrap();
    caller.offers("grown", &[server.id()]).await;
    plan.serve("second", "federation", "as it was");
    plan.serve("hidden", "org", "as it was");
    plan.write();
    caller.offers("second__echo", &[server.id()]).await;
    server.ready("hidden").await;
    let foreign = |node: &Running, name: &str| {
        node.world().items.iter().any(|tool| tool.capability.server.as_str() == name)
    };
    until("the server's own world has it", || foreign(&server, "hidden").then_some(())).await;
    assert!(!foreign(&caller, "hidden"), "what is for the org stays in the org");
    result(caller.call("second__echo")).await;
    assert_eq!(plan.ran("second"), ["echo"]);
}
