//! Calls between two orgs: what arrives, in which order, and how it ends.

use std::time::Duration;

use comity_protocol::json;
use serde_json::Value;
use serde_json::value::RawValue;

use super::harness::{Org, Plan, Running, executor, failure, messages, outcome, result, until};
use crate::exchange::{Failure, Outcome, Outgoing};

/// A node that calls and one of another org that runs what it calls.
struct Pair {
    caller: Running,
    server: Running,
    plan: Plan,
    _caller: Plan,
}

async fn pair() -> Pair {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plan = Plan::of(&umbrella, "server", "FR").trusts(&acme, "none").serves("tools", "federation");
    let server = plan.start().await;
    let caller_plan = Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all").to(&server);
    let caller = caller_plan.start().await;
    caller.offers("echo", &[server.id()]).await;
    Pair { caller, server, plan, _caller: caller_plan }
}

fn text(result: &RawValue) -> String {
    let content = json::field(result, "content").unwrap().unwrap();
    let content: Vec<Box<RawValue>> = serde_json::from_str(content.get()).unwrap();
    json::as_str(json::field(&content[0], "text").unwrap().unwrap()).unwrap().into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_runs_at_the_other_org_and_nothing_in_it_is_rewritten() {
    let pair = pair().await;
    let arguments =
        r#"{"b":99999999999999999999,"a":[1.0, 2e5],"u":"\u00fc", "x" : null,"deep":{"z":1,"a":-0}}"#;
    let meta = r#"{"k":1.50,"dev.comity/caller":{"org":"forged.example"}}"#;
    let result = result(pair.caller.call_with("echo", arguments, meta, None)).await;
    assert_eq!(executor(&result), pair.server.id().to_string());
    let written = r#","a":{"b":1,"a":2.50},"_meta":{"dev.comity/receipt":"#;
    assert!(result.get().starts_with(r#"{"z":99999999999999999999999999,"content":[{"type":"text","text":"#));
    assert!(result.get().contains(r#"{"type":"x-new","n" : 1.0,"e":1e400}]"#), "{result}");
    assert!(result.get().contains(written), "{result}");
    let received = text(&result);
    assert!(received.contains(&format!("\"arguments\":{arguments}")), "{received}");
    assert!(received.contains(r#""k":1.50"#), "{received}");
    let received: Value = serde_json::from_str(&received.replace("99999999999999999999", "9")).unwrap();
    let caller = &received["params"]["_meta"]["dev.comity/caller"];
    let expected = serde_json::json!({
        "org": "acme.example", "node": pair.caller.id().to_string(), "principal": "local"
    });
    assert_eq!(*caller, expected, "the upstream is told the verified caller, whatever the client wrote");
    assert!(received["params"]["_meta"]["traceparent"].is_string());
    assert_eq!(pair.plan.ran("tools"), ["echo"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_of_many_calls_at_once_arrives_whole_and_in_order() {
    const CALLS: usize = 8;
    let pair = pair().await;
    let calls = (0..CALLS).map(|call| {
        let meta = format!(r#"{{"progressToken":"token {call}"}}"#);
        let arguments = format!(r#"{{"of":{CALLS}}}"#);
        messages(pair.caller.call_with("steps", &arguments, &meta, None))
    });
    for (call, (messages, outcome)) in futures::future::join_all(calls).await.into_iter().enumerate() {
        assert!(matches!(outcome, Outcome::Result(_)), "{outcome:?}");
        let steps: Vec<_> =
            messages.iter().map(|step| step.get("progress").unwrap().get().to_owned()).collect();
        assert_eq!(steps, (0..50).map(|step| step.to_string()).collect::<Vec<_>>());
        let token = format!("\"token {call}\"");
        assert!(messages.iter().all(|step| step.get("progressToken").unwrap().get() == token));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_and_a_client_that_leaves_reach_the_server() {
    let pair = pair().await;
    let exchange = pair.caller.call("hang");
    until("it runs", || (pair.plan.ran("tools").len() == 1).then_some(())).await;
    exchange.outgoing.send(Outgoing::Cancel { reason: Some("enough".into()) }).await.unwrap();
    assert_eq!(failure(exchange).await, Failure::Cancelled { handed_over: true });
    until("the server is told", || (pair.plan.ran("tools") == ["hang", "cancelled"]).then_some(())).await;
    drop(pair.caller.call("hang"));
    let exchange = pair.caller.call("hang");
    until("it runs", || pair.plan.ran("tools").iter().rposition(|line| line == "hang").filter(|at| *at > 1))
        .await;
    drop(exchange);
    let told = || {
        let ran = pair.plan.ran("tools");
        let count = |what| ran.iter().filter(|line| *line == what).count();
        (count("cancelled") == count("hang")).then_some(())
    };
    until("the server is told again", told).await;
    until("nothing is left", || (pair.server.shared.calls.in_flight() == 0).then_some(())).await;
    until("nothing is left", || (pair.caller.shared.calls.in_flight() == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_a_row_share_a_stream_and_one_that_was_cancelled_costs_its_own() {
    let pair = pair().await;
    let streams = || pair.server.shared.calls.peer_streams();
    for _ in 0..5 {
        result(pair.caller.call("echo")).await;
    }
    assert_eq!(streams(), 1);
    let both = [pair.caller.call("echo"), pair.caller.call("echo")].map(result);
    futures::future::join_all(both).await;
    assert!(streams() <= 2);
    let exchange = pair.caller.call("hang");
    until("it runs", || pair.plan.ran("tools").contains(&"hang".to_owned()).then_some(())).await;
    let before = streams();
    drop(exchange);
    until("its stream ends", || (streams() < before).then_some(())).await;
    result(pair.caller.call("echo")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_costs_its_call_the_deadline_and_nobody_else_anything() {
    let pair = pair().await;
    let hanging = pair.caller.call_with("hang", "{}", "{}", Some(Duration::from_millis(300)));
    assert!(matches!(failure(hanging).await, Failure::Timeout { handed_over: true, .. }));
    for _ in 0..6 {
        let hasty = pair.caller.call_with("hang", "{}", "{}", Some(Duration::from_millis(30)));
        assert!(matches!(failure(hasty).await, Failure::Timeout { .. }));
    }
    result(pair.caller.call("echo")).await;
    let none = pair.caller.call_with("echo", "{}", "{}", Some(Duration::ZERO));
    assert!(matches!(failure(none).await, Failure::Timeout { handed_over: false, .. }));
    assert_eq!(pair.plan.ran("tools").iter().filter(|line| *line == "echo").count(), 1, "no time, no call");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_megabyte_comes_back_whole() {
    let pair = pair().await;
    let result = result(pair.caller.call("big")).await;
    assert!(text(&result).bytes().all(|byte| byte == b'x') && text(&result).len() == 1 << 20);
    let huge = format!(r#"{{"x":"{}"}}"#, "y".repeat(9 << 20));
    let refused = failure(pair.caller.call_with("echo", &huge, "{}", None)).await;
    assert!(matches!(refused, Failure::TooLarge { handed_over: false, .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_request_is_said_and_nothing_is_run() {
    let pair = pair().await;
    let unknown = failure(pair.caller.call("no_such_tool")).await;
    assert!(
        matches!(&unknown, Failure::Refused { detail, .. } if detail.contains("no_such_tool")),
        "{unknown:?}"
    );
    for meta in [
        r#"{"dev.comity/constraints":{"allow_places":["DE"]}}"#,
        r#"{"dev.comity/constraints":{"class":3},"dev.comity/constraints":{}}"#,
        r#"{"progressToken":{}}"#,
    ] {
        let wrong = outcome(pair.caller.call_with("echo", "{}", meta, None)).await;
        assert!(matches!(wrong, Outcome::Failed(Failure::Refused { .. })), "{meta}: {wrong:?}");
    }
    assert!(pair.plan.ran("tools").is_empty());
}
