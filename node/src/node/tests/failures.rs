//! Executors that go away, refuse or lie: what is tried elsewhere, and what never is.

use comity_protocol::call::{ExecutionFailure, Frame};

use super::fake::{Fake, Stream};
use super::harness::{Org, Plan, Running, executor, failure, outcome, result, until};
use crate::exchange::{Exchange, Failure, Outcome};

/// A real executor of another org than the callers', and a fake one that offers the same.
struct Duo {
    acme: Org,
    umbrella: Org,
    real: Running,
    fake: Fake,
    plan: Plan,
}

async fn duo() -> Duo {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plan = Plan::of(&umbrella, "real", "FR").trusts(&acme, "none").serves("tools", "federation");
    let real = plan.start().await;
    real.ready("tools").await;
    let fake = Fake::start(&umbrella, &[&acme]).await;
    fake.offers_as(&real).await;
    Duo { acme, umbrella, real, fake, plan }
}

impl Duo {
    /// A caller that has nothing against anybody yet.
    async fn caller(&self) -> (Plan, Running) {
        self.started(Plan::of(&self.acme, "caller", "DE").trusts(&self.umbrella, "all")).await
    }

    /// Starts a caller that knows both.
    async fn started(&self, plan: Plan) -> (Plan, Running) {
        let plan = plan.to(&self.real).at_address(self.fake.address());
        let caller = plan.start().await;
        caller.offers("echo", &[self.real.id(), self.fake.id]).await;
        (plan, caller)
    }

    /// Calls until the fake is asked; every call before goes to the real one.
    async fn ask_fake(&mut self, caller: &Running) -> (Stream, Exchange) {
        loop {
            let before = self.plan.ran("tools").len();
            let exchange = caller.call("echo");
            tokio::select! {
                stream = self.fake.next_call() => return (stream, exchange),
                () = until_ran(&self.plan, before) => drop(outcome(exchange).await),
            }
        }
    }
}

async fn until_ran(plan: &Plan, before: usize) {
    until("one of the two has it", || (plan.ran("tools").len() > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_handed_over_is_run_elsewhere() {
    let mut duo = duo().await;
    type Script = fn(&mut Stream) -> futures::future::BoxFuture<'_, ()>;
    let scripts: [Script; 3] = [
        // It dies before it accepts.
        |_| Box::pin(async {}),
        // It refuses what it has accepted nothing of.
        |stream| {
            Box::pin(async {
                assert!(matches!(stream.next().await, Some(Frame::Header(_))));
                let refusal = comity_protocol::call::Refusal::new("overloaded", "no room");
                stream.send(&Frame::Refuse(refusal)).await;
            })
        },
        // It accepts, and says that its server never had it.
        |stream| {
            Box::pin(async {
                assert!(matches!(stream.next().await, Some(Frame::Header(_))));
                stream.send(&Frame::Accept).await;
                assert!(matches!(stream.next().await, Some(Frame::Body(_))));
                stream.send(&Frame::Failed(ExecutionFailure::new("upstream_died", "gone", false))).await;
            })
        },
    ];
    for script in scripts {
        let (_plan, caller) = duo.caller().await;
        let (mut stream, exchange) = duo.ask_fake(&caller).await;
        let ran = duo.plan.ran("tools").len();
        script(&mut stream).await;
        drop(stream);
        assert_eq!(executor(&result(exchange).await), duo.real.id().to_string());
        assert_eq!(duo.plan.ran("tools").len(), ran + 1, "it ran once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_handed_over_is_in_doubt_and_never_sent_again() {
    let mut duo = duo().await;
    let (_plan, caller) = duo.caller().await;
    let (mut stream, exchange) = duo.ask_fake(&caller).await;
    let ran = duo.plan.ran("tools").len();
    assert!(matches!(stream.next().await, Some(Frame::Header(_))));
    stream.send(&Frame::Accept).await;
    assert!(matches!(stream.next().await, Some(Frame::Body(_))));
    drop(stream);
    let failure = failure(exchange).await;
    assert!(matches!(&failure, Failure::InDoubt { detail } if detail.contains("fake")), "{failure:?}");
    assert_eq!(duo.plan.ran("tools").len(), ran, "nobody else was asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_vouched_for_is_sent_again_though_it_was_handed_over() {
    let mut duo = duo().await;
    let plan = Plan::of(&duo.acme, "caller", "DE").trusts(&duo.umbrella, "all").vouches_for("tools/echo");
    let (_plan, caller) = duo.started(plan).await;
    let (mut stream, exchange) = duo.ask_fake(&caller).await;
    let ran = duo.plan.ran("tools").len();
    assert!(matches!(stream.next().await, Some(Frame::Header(_))));
    stream.send(&Frame::Accept).await;
    assert!(matches!(stream.next().await, Some(Frame::Body(_))));
    drop(stream);
    assert_eq!(executor(&result(exchange).await), duo.real.id().to_string());
    assert_eq!(duo.plan.ran("tools").len(), ran + 1, "it ran elsewhere, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_no_json_or_bears_a_bad_receipt_is_told() {
    let mut duo = duo().await;
    for (answer, valid) in [(&b"{\"content\":[]}"[..], true), (b"{", false), (b"\xff", false)] {
        let (_plan, caller) = duo.caller().await;
        let (mut stream, exchange) = duo.ask_fake(&caller).await;
        assert!(matches!(stream.next().await, Some(Frame::Header(_))));
        stream.send(&Frame::Accept).await;
        assert!(matches!(stream.next().await, Some(Frame::Body(_))));
        stream.send(&Frame::Result(answer.to_vec())).await;
        stream.send(&Frame::Receipt(b"nothing".to_vec())).await;
        match outcome(exchange).await {
            Outcome::Result(result) => {
                assert!(valid && result.get().contains(r#""dev.comity/receipt":{"detail""#), "{result}");
            }
            Outcome::Failed(Failure::UpstreamDied { handed_over: true, .. }) => assert!(!valid),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_of_a_call_is_not_given_it_again_anywhere() {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plans = ["one", "two"]
        .map(|name| Plan::of(&umbrella, name, "FR").trusts(&acme, "none").serves("tools", "federation"));
    let servers = [plans[0].start().await, plans[1].start().await];
    let caller_plan =
        Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all").to(&servers[0]).to(&servers[1]);
    let caller = caller_plan.start().await;
    caller.offers("die", &[servers[0].id(), servers[1].id()]).await;
    let died = failure(caller.call("die")).await;
    assert!(matches!(died, Failure::UpstreamDied { handed_over: true, .. }), "{died:?}");
    assert_eq!(plans[0].ran("tools").len() + plans[1].ran("tools").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_survives_the_death_of_the_node_that_it_would_have_gone_to() {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plans = ["one", "two"]
        .map(|name| Plan::of(&umbrella, name, "FR").trusts(&acme, "none").serves("tools", "federation"));
    let servers = [plans[0].start().await, plans[1].start().await];
    let caller_plan =
        Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all").to(&servers[0]).to(&servers[1]);
    let caller = caller_plan.start().await;
    caller.offers("echo", &[servers[0].id(), servers[1].id()]).await;
    servers[0].kill();
    caller.parted_from(&servers[0]).await;
    for _ in 0..6 {
        assert_eq!(executor(&result(caller.call("echo")).await), servers[1].id().to_string());
    }
    assert!(plans[0].ran("tools").is_empty());
    servers[1].kill();
    let nobody = failure(caller.call("echo")).await;
    let ended = matches!(
        nobody,
        Failure::Unreachable { .. } | Failure::InDoubt { .. } | Failure::Timeout { handed_over: true, .. }
    );
    assert!(ended, "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_here_that_is_down_does_not_keep_the_call_from_others() {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plan = Plan::of(&umbrella, "server", "FR").trusts(&acme, "none").serves("tools", "federation");
    let server = plan.start().await;
    let caller_plan =
        Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all").serves("tools", "federation").to(&server);
    let caller = caller_plan.start().await;
    caller.offers("echo", &[caller.id(), server.id()]).await;
    caller.ready("tools").await;
    result(caller.call("echo")).await;
    assert_eq!((caller_plan.ran("tools").len(), plan.ran("tools").len()), (1, 0), "near first");
    let died = failure(caller.call("die")).await;
    assert!(matches!(died, Failure::UpstreamDied { handed_over: true, .. }), "{died:?}");
    // Whether or not the world shows the death yet, and whether or not the server is back.
    for _ in 0..3 {
        result(caller.call("echo")).await;
    }
    let ran = |plan: &Plan| plan.ran("tools").iter().filter(|line| *line == "echo").count();
    assert_eq!(ran(&caller_plan) + ran(&plan), 4, "each ran once");
}
