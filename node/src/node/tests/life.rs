//! A node's beginning and end, and the membership that it lives under.

use comity_protocol::testing::places;

use super::harness::{Org, Plan, failure, result, until, within};
use crate::exchange::Failure;
use crate::node::{End, ended};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_lets_calls_finish_and_takes_no_new_ones() {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plan = Plan::of(&umbrella, "server", "FR").trusts(&acme, "none").serves("tools", "federation");
    let server = plan.start().await;
    let caller_plan = Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all").to(&server);
    let caller = caller_plan.start().await;
    caller.offers("wait", &[server.id()]).await;
    let running = caller.call("wait");
    until("it runs", || (plan.ran("tools").len() == 1).then_some(())).await;
    server.shutdown.cancel();
    until("it says so", || server.shared.health.missing().contains(&"not draining").then_some(())).await;
    let refused = failure(caller.call("echo")).await;
    assert!(matches!(refused, Failure::Overloaded { handed_over: false, .. }), "{refused:?}");
    plan.go("tools");
    result(running).await;
    assert_eq!(within("it ends", server.run).await.unwrap().unwrap(), End::Stop);
    assert_eq!(plan.ran("tools"), ["wait"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_lets_the_calls_finish_that_it_has_made() {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plan = Plan::of(&umbrella, "server", "FR").trusts(&acme, "none").serves("tools", "federation");
    let server = plan.start().await;
    let caller_plan = Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all").to(&server);
    let caller = caller_plan.start().await;
    caller.offers("wait", &[server.id()]).await;
    let running = caller.call("wait");
    until("it runs", || (plan.ran("tools").len() == 1).then_some(())).await;
    caller.shutdown.cancel();
    until("new calls are refused", || caller.shared.calls.is_closed().then_some(())).await;
    assert!(matches!(failure(caller.call("echo")).await, Failure::Overloaded { .. }));
    plan.go("tools");
    result(running).await;
    assert_eq!(within("it ends", caller.run).await.unwrap().unwrap(), End::Stop);
}

#[tokio::test]
async fn a_task_whose_end_was_taken_is_not_asked_for_it_again() {
    let mut task = tokio::spawn(async {});
    (&mut task).await.unwrap();
    ended(&mut task).await;
    let mut panicked = tokio::spawn(async { panic!("it is meant to") });
    ended(&mut panicked).await;
    ended(&mut panicked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_store_fails_stops_and_says_so() {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let mut plan = Plan::of(&umbrella, "server", "FR").trusts(&acme, "none").serves("tools", "federation");
    let server = plan.start().await;
    let caller_plan = Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all").to(&server);
    let caller = caller_plan.start().await;
    caller.offers("echo", &[server.id()]).await;
    let store = caller.shared.keeping.store.clone();
    tokio::task::spawn_blocking(move || store.close()).await.unwrap().unwrap();
    // Its contracts would be remembered as first uses, and its node's advert for its sequence.
    plan.serve("second", "federation", "as it was");
    plan.write();
    let end = within("it stops", caller.run).await.expect("it does not panic");
    assert!(end.is_err(), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_no_org_serves_its_own_clients() {
    let plan = Plan::alone("alone", "DE").serves("tools", "federation");
    let node = plan.start().await;
    node.sees("its tools", |world| world.catalogue.by_name("echo").map(|_| ())).await;
    node.ready("tools").await;
    result(node.call("echo")).await;
    result(node.constrained("local/tools/echo", r#"{"allow_locations":["DE"]}"#)).await;
    let denied = failure(node.constrained("echo", r#"{"allow_locations":["FR"]}"#)).await;
    assert!(matches!(denied, Failure::Denied { reasons } if reasons.len() == 1));
    node.stop().await;
    let plan = plan.in_org("acme.example");
    let node = plan.start().await;
    node.ready("tools").await;
    node.sees("named as configured", |world| world.route("acme.example/tools/echo").map(|_| ())).await;
    result(node.call("acme.example/tools/echo")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_membership_that_is_put_in_place_is_taken_up_while_the_node_runs() {
    let acme = Org::new("acme.example");
    let plan = Plan::alone("late", "DE");
    let node = plan.start().await;
    plan.admitted(&acme, places("DE"));
    assert_eq!(within("it starts again", node.run).await.unwrap().unwrap(), End::Restart);

    let other_plan = Plan::of(&acme, "other", "DE");
    let other = other_plan.start().await;
    let node = plan.to(&other);
    let running = node.start().await;
    let locations = |of: &super::harness::Running| {
        let snapshot = other.shared.mesh.snapshot();
        snapshot.nodes.get(&of.id()).map(|entry| entry.trusted.membership.locations_max)
    };
    until("the other knows it", || (locations(&running) == Some(places("DE"))).then_some(())).await;
    node.admitted(&acme, places("DE FR"));
    until("its mesh has it", || (locations(&running) == Some(places("DE FR"))).then_some(())).await;
    assert_eq!(running.shared.me.borrow().locations_max, places("DE FR"));
    assert!(!running.run.is_finished(), "nothing had to start again");
}
