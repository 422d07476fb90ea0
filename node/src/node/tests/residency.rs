//! Constraints: where calls may run, what a denial says, and that the receiver checks again.

use comity_protocol::call::{Frame, FrameKind};
use comity_protocol::constraints::Constraints;

use super::fake::{BODY, Fake, header};
use super::harness::{Org, Plan, Running, executor, failure, result};
use crate::exchange::Failure;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_stays_where_it_must_and_a_denial_has_a_reason_for_everybody() {
    let orgs = ["acme.example", "umbrella.example", "globex.example"].map(Org::new);
    let [acme, umbrella, globex] = &orgs;
    let eu_plan = Plan::of(umbrella, "eu", "FR").trusts(acme, "none").serves("tools", "federation");
    let us_plan = Plan::of(globex, "us", "US").trusts(acme, "none").serves("tools", "federation");
    // It claims Germany beside the US: a subset is demanded, so neither alone will do.
    let both_plan = Plan::of(globex, "both", "DE US").trusts(acme, "none").serves("tools", "federation");
    let (eu, us, both) = (eu_plan.start().await, us_plan.start().await, both_plan.start().await);
    let caller_plan = Plan::of(acme, "caller", "GB")
        .trusts(umbrella, "all")
        .trusts(globex, "all")
        .to(&eu)
        .to(&us)
        .to(&both);
    let caller = caller_plan.start().await;
    caller.offers("echo", &[eu.id(), us.id(), both.id()]).await;
    for _ in 0..4 {
        let result = result(caller.constrained("echo", r#"{"allow_locations":["EU"]}"#)).await;
        assert_eq!(executor(&result), eu.id().to_string());
    }
    let denied = failure(caller.constrained("echo", r#"{"allow_locations":["DE"]}"#)).await;
    let Failure::Denied { reasons } = &denied else { panic!("{denied:?}") };
    for node in [&eu, &us, &both] {
        let peer = node.id().to_string();
        let reason =
            reasons.iter().find(|reason| reason.peer.as_ref() == Some(&peer)).expect("a reason for each");
        assert_eq!(reason.code, "location_not_allowed");
    }
    assert_eq!(reasons.len(), 3);
    let data = denied.to_rpc_error().data.unwrap();
    assert!(data.get().contains("globex.example") && data.get().contains("umbrella.example"), "{data}");
    let denied = failure(caller.constrained("echo", r#"{"allow_orgs":["nobody.example"]}"#)).await;
    assert!(matches!(denied, Failure::Denied { reasons } if reasons.len() == 3));
    assert_eq!((us_plan.ran("tools").len(), both_plan.ran("tools").len()), (0, 0), "no byte went there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_counts_only_as_far_as_the_membership_allows_here_too() {
    let umbrella = Org::new("umbrella.example");
    let plan = Plan::of(&umbrella, "liar", "DE US").serves("tools", "federation");
    plan.admitted(&umbrella, comity_protocol::testing::places("US"));
    let liar = plan.start().await;
    liar.offers("echo", &[liar.id()]).await;
    let denied = failure(liar.constrained("echo", r#"{"allow_locations":["DE","US"]}"#)).await;
    let Failure::Denied { reasons } = denied else { panic!("{denied:?}") };
    assert!(reasons.iter().any(|reason| reason.code == "location_outside_membership"), "{reasons:?}");
}

/// An executor of one org, and a fake caller of another that it admits.
async fn executor_and_fake() -> (Org, Plan, Running, Fake) {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let mut plan = Plan::of(&umbrella, "server", "FR").trusts(&acme, "none").serves("all", "federation");
    plan.serve("ours", "org", "as it was");
    plan.serve("mine", "local", "as it was");
    let plan = plan.with("class_max = 1");
    let server = plan.start().await;
    for name in ["all", "ours", "mine"] {
        server.ready(name).await;
        let capability = format!("umbrella.example/{name}/echo");
        server.sees("its own tools", |world| world.route(&capability).map(|_| ())).await;
    }
    let fake = Fake::start(&acme, &[&umbrella]).await;
    (acme, plan, server, fake)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receiver_checks_again_and_runs_nothing_that_does_not_hold() {
    let (acme, plan, server, fake) = executor_and_fake().await;
    let in_germany = |header: &mut comity_protocol::call::CallHeader| {
        header.constraints = Constraints {
            allow_locations: Some(comity_protocol::testing::places("DE")),
            ..Constraints::default()
        };
    };
    type Change<'a> = &'a dyn Fn(&mut comity_protocol::call::CallHeader);
    let cases: [(&str, Change<'_>, &str); 6] = [
        ("all", &in_germany, "location_not_allowed"),
        ("all", &|header| header.principal.org = "umbrella.example".parse().unwrap(), "wrong_principal"),
        ("all", &|header| header.method = "tools/list".into(), "unknown_method"),
        ("all", &|header| header.hops = 0, "hop_limit"),
        ("ours", &|_| {}, "unknown_capability"),
        ("mine", &|_| {}, "unknown_capability"),
    ];
    for (name, change, code) in cases {
        let mut header = header(&acme, &fake, &server, name);
        change(&mut header);
        let mut stream = fake.open(&server).await;
        stream.send(&Frame::Header(header.into())).await;
        stream.send(&Frame::Body(BODY.to_vec())).await;
        match stream.next().await {
            Some(Frame::Refuse(refusal)) => assert_eq!(refusal.code, code, "{}", refusal.detail),
            other => panic!("{code}: {other:?}"),
        }
    }
    let ran = ["all", "ours", "mine"].map(|name| plan.ran(name).len());
    assert_eq!(ran, [0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_is_good_for_one_call_with_the_body_that_it_names() {
    let (acme, plan, server, fake) = executor_and_fake().await;
    let header = header(&acme, &fake, &server, "all");
    let mut stream = fake.open(&server).await;
    stream.send(&Frame::Header(header.clone().into())).await;
    assert_eq!(stream.next().await, Some(Frame::Accept));
    stream.send(&Frame::Body(BODY.to_vec())).await;
    let kinds = [stream.next().await.unwrap().kind(), stream.next().await.unwrap().kind()];
    assert_eq!(kinds, [FrameKind::Result, FrameKind::Receipt]);
    let mut again = fake.open(&server).await;
    again.send(&Frame::Header(header.into())).await;
    assert!(matches!(again.next().await, Some(Frame::Refuse(refusal)) if refusal.code == "duplicate_call"));
    let mut other = fake.open(&server).await;
    let fresh = super::fake::header(&acme, &fake, &server, "all");
    other.send(&Frame::Header(fresh.into())).await;
    assert_eq!(other.next().await, Some(Frame::Accept));
    other.send(&Frame::Body(br#"{"name":"whatever","arguments":{"x":1}}"#.to_vec())).await;
    assert!(matches!(other.next().await, Some(Frame::Refuse(refusal)) if refusal.code == "wrong_request"));
    assert_eq!(plan.ran("all"), ["echo"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_carries_one_call_after_another_and_each_is_checked_anew() {
    let (acme, plan, server, fake) = executor_and_fake().await;
    let mut stream = fake.open(&server).await;
    for _ in 0..3 {
        let header = header(&acme, &fake, &server, "all");
        stream.send(&Frame::Header(header.into())).await;
        stream.send(&Frame::Body(BODY.to_vec())).await;
        for kind in [FrameKind::Accept, FrameKind::Result, FrameKind::Receipt] {
            assert_eq!(stream.next().await.map(|frame| frame.kind()), Some(kind));
        }
    }
    let mut abroad = header(&acme, &fake, &server, "all");
    abroad.constraints.allow_locations = Some(comity_protocol::testing::places("DE"));
    stream.send(&Frame::Header(abroad.into())).await;
    let refused = stream.next().await;
    assert!(matches!(&refused, Some(Frame::Refuse(refusal)) if refusal.code == "location_not_allowed"));
    assert_eq!(stream.next().await, None, "a stream ends with a refusal");
    assert_eq!(plan.ran("all").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_a_calls_stream_costs_the_stream_and_nothing_else() {
    let (acme, plan, server, fake) = executor_and_fake().await;
    let body = comity_protocol::call::frame::prefix(FrameKind::Body, 8_000_000).unwrap();
    for garbage in [&[0xff; 64][..], &body, b"\0\0\0\0\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = fake.open(&server).await;
        // It may be reset before all is written.
        let _ = stream.send_bytes(garbage).await;
        assert_eq!(stream.next().await, None);
    }
    let mut stream = fake.open(&server).await;
    stream.send(&Frame::Header(header(&acme, &fake, &server, "all").into())).await;
    assert_eq!(stream.next().await, Some(Frame::Accept));
    stream.send(&Frame::Body(b"{\"name\":\"a\",\"name\":\"b\"}".to_vec())).await;
    assert!(matches!(stream.next().await, Some(Frame::Refuse(_))), "it is not the body that was named");
    assert!(plan.ran("all").is_empty());
    let mut good = fake.open(&server).await;
    good.send(&Frame::Header(header(&acme, &fake, &server, "all").into())).await;
    good.send(&Frame::Body(BODY.to_vec())).await;
    assert_eq!(good.next().await, Some(Frame::Accept));
    assert_eq!(good.next().await.map(|frame| frame.kind()), Some(FrameKind::Result));
}
