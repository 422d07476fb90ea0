//! Requests that must reach the node that an earlier one reached: retries with input, and tasks.

use serde_json::{Value, json};

use super::harness::{Org, Plan, Running};
use crate::face::tests::client::Client;

/// A node that calls, and two of another org that front the same kind of server.
struct Three {
    caller: Running,
    servers: [Running; 2],
    plans: [Plan; 2],
    org: Org,
    caller_plan: Plan,
}

async fn three() -> Three {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plan =
        |name: &str| Plan::of(&umbrella, name, "FR").trusts(&acme, "none").serves_modern("new", "federation");
    let plans = [plan("one"), plan("two")];
    let servers = [plans[0].start().await, plans[1].start().await];
    let caller_plan =
        Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all").to(&servers[0]).to(&servers[1]);
    let caller = caller_plan.start().await;
    for tool in ["ask_where", "slow", "where"] {
        caller.offers(tool, &[servers[0].id(), servers[1].id()]).await;
        for server in &servers {
            server.sees("its own tool", |world| world.route(tool).map(drop)).await;
        }
    }
    Three { caller, servers, plans, org: acme, caller_plan }
}

fn able() -> Value {
    json!({ "elicitation": {}, "extensions": { "io.modelcontextprotocol/tasks": {} } })
}

async fn request(client: &Client, method: &str, params: Value) -> Value {
    client.modern_able(method, params, able()).await.json().await
}

async fn task(client: &Client, method: &str, id: &Value, more: Value) -> Value {
    let client = client.with("mcp-name", id.as_str().expect("an id"));
    let mut params = json!({ "taskId": id });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request(&client, method, params).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_reaches_the_server_that_asked() {
    let three = three().await;
    let client = three.caller.client();
    let mut homes = std::collections::BTreeSet::new();
    for _ in 0..24 {
        let call = json!({ "name": "ask_where", "arguments": {} });
        let asked = request(&client, "tools/call", call.clone()).await;
        let state = &asked["result"]["requestState"];
        homes.insert(state.as_str().expect("a state").to_owned());
        let mut retry = call;
        retry["requestState"] = state.clone();
        retry["inputResponses"] = json!({ "q": { "action": "accept" } });
        let done = request(&client, "tools/call", retry).await;
        assert_eq!(done["result"]["content"][0]["text"], "here", "{done}");
    }
    assert_eq!(homes.len(), 2, "both are asked: {homes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_followed_up_where_they_run_also_after_restarts() {
    let three = three().await;
    let client = three.caller.client();
    let mut tasks = Vec::new();
    for _ in 0..12 {
        let created = request(&client, "tools/call", json!({ "name": "slow", "arguments": {} })).await;
        let result = &created["result"];
        assert_eq!(
            (&result["resultType"], &result["status"]),
            (&json!("task"), &json!("working")),
            "{created}"
        );
        tasks.push(result["taskId"].clone());
    }
    let ids: std::collections::BTreeSet<_> = tasks.iter().map(Value::to_string).collect();
    assert_eq!(ids.len(), 12, "the servers' own ids clash, these do not");
    for id in &tasks {
        let waiting = task(&client, "tasks/get", id, json!({})).await;
        assert_eq!(
            (&waiting["result"]["status"], &waiting["result"]["taskId"]),
            (&json!("input_required"), id)
        );
    }
    // The caller's node is started anew; the servers' tasks go on.
    let Three { caller, servers, plans, caller_plan, .. } = three;
    caller.stop().await;
    let caller = caller_plan.start().await;
    caller.offers("slow", &[servers[0].id(), servers[1].id()]).await;
    let client = caller.client();
    let mut homes = std::collections::BTreeSet::new();
    for (n, id) in tasks.iter().enumerate() {
        let told = json!({ "inputResponses": { "q": { "n": n } } });
        let updated = task(&client, "tasks/update", id, told).await;
        assert_eq!(updated["result"]["resultType"], "complete", "{updated}");
        let done = task(&client, "tasks/get", id, json!({})).await;
        let result = &done["result"];
        assert_eq!((&result["status"], &result["taskId"]), (&json!("completed"), id), "{done}");
        let text = result["result"]["content"][0]["text"].as_str().expect("a text");
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), json!({ "q": { "n": n } }));
        homes.insert(result["result"]["home"].to_string());
    }
    assert_eq!(homes.len(), 2);
    let cancelled = task(&client, "tasks/cancel", &tasks[0], json!({})).await;
    assert_eq!(cancelled["result"]["resultType"], "complete");
    let cancels =
        plans.iter().flat_map(|plan| plan.ran("new")).filter(|line| line.starts_with("tasks/cancel"));
    assert_eq!(cancels.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_follows_up_the_task_of_another() {
    let three = three().await;
    let client = three.caller.client();
    let created = request(&client, "tools/call", json!({ "name": "slow", "arguments": {} })).await;
    let id = &created["result"]["taskId"];
    let text = id.as_str().expect("an id");
    let forged = json!(format!("{text}A"));
    for wrong in [&json!("task-0"), &json!("comity-task."), &forged] {
        let refused = task(&client, "tasks/get", wrong, json!({})).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
    // At the executor itself the caller's id leads nowhere.
    let refused = task(&three.servers[0].client(), "tasks/get", id, json!({})).await;
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
    let bare = client.with("mcp-name", text);
    let unable = bare.modern_able("tasks/get", json!({ "taskId": id }), json!({})).await;
    assert_eq!(unable.status, 400);
    assert_eq!(unable.json().await["error"]["code"], -32021);
    let followed = |plan: &Plan| plan.ran("new").iter().filter(|line| line.starts_with("tasks/")).count();
    assert_eq!(three.plans.iter().map(followed).sum::<usize>(), 0, "no server hears of any of this");
    assert_eq!(three.org.name.as_str(), "acme.example");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_goes_only_to_a_client_that_can_follow_it_up() {
    let three = three().await;
    let client = three.caller.client();
    let params = json!({ "name": "slow", "arguments": {} });
    let modern = client.modern_able("tools/call", params, json!({ "elicitation": {} })).await.json().await;
    assert_eq!(modern["error"]["code"], -32603, "{modern}");
    let legacy = client.initialize_able("2025-11-25", json!({ "elicitation": {}, "tasks": {} })).await;
    let refused = legacy.call(1, "slow", json!({})).await.json().await;
    assert_eq!(refused["error"]["code"], -32603, "{refused}");
}
