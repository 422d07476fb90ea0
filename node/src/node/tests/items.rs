//! Prompts, resources, completion, subscriptions and single servers, through two nodes of two orgs, with servers of both
//! eras.

use comity_protocol::call::methods::{ACKNOWLEDGED, RESOURCE_UPDATED, SUBSCRIBE};
use comity_protocol::call::{Frame, FrameKind};
use comity_protocol::ids::{Kind, PayloadDigest};
use comity_protocol::json;

use super::fake::{Fake, header};
use super::harness::{Org, Plan, Running, executor, failure, outcome, result, until, within};
use crate::exchange::{Exchange, Failure, Incoming, Outcome};
use crate::gateway::{Endpoint, Target};

/// A server of one org, and a node of another that sees it: the caller's node has none of its own.
struct Pair {
    server_plan: Plan,
    server: Running,
    /// Its directory goes with it.
    _caller_plan: Plan,
    caller: Running,
}

impl Pair {
    async fn new(modern: bool, approve: &str) -> Self {
        let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
        let plan = Plan::of(&umbrella, "server", "FR").trusts(&acme, "none").serves("things", "federation");
        let server_plan = if modern { plan.modern("things") } else { plan };
        let server = server_plan.start().await;
        let caller_plan = Plan::of(&acme, "caller", "DE").trusts(&umbrella, approve).to(&server);
        let caller = caller_plan.start().await;
        if approve == "all" {
            caller.offers("echo", &[server.id()]).await;
            caller
                .sees("everything", |world| world.catalogue.find(Kind::Resource, "test://fixed").map(|_| ()))
                .await;
        }
        Self { server_plan, server, _caller_plan: caller_plan, caller }
    }

    fn read(&self, uri: &str) -> Exchange {
        self.caller.ask("resources/read", Kind::Resource, uri, &format!(r#"{{"uri":"{uri}"}}"#))
    }
}

fn text<'a>(result: &'a serde_json::value::RawValue, path: &[&str]) -> &'a str {
    json::path(result, path).unwrap_or_else(|| panic!("no {path:?} in {result}")).get()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_passes_through_two_nodes_whatever_the_servers_era() {
    for modern in [false, true] {
        let pair = Pair::new(modern, "all").await;
        let shown = |kind| pair.caller.world().catalogue.of_kind(kind).to_vec();
        assert!(
            shown(Kind::Prompt)[0].object.get().contains("12345678901234567890123"),
            "as the server wrote it"
        );
        let names: Vec<_> = shown(Kind::Resource).into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["test://fixed", "test://slow"]);
        assert_eq!(shown(Kind::Template)[0].name, "test://item/{id}");
        let params = r#"{"name":"greet","arguments":{"who":"Ana"}}"#;
        let prompt = result(pair.caller.ask("prompts/get", Kind::Prompt, "greet", params)).await;
        assert!(prompt.get().contains("Greet Ana."), "{prompt}");
        assert_eq!(executor(&prompt), pair.server.id().to_string());
        for uri in ["test://fixed", "test://item/7", "test://unlisted"] {
            let read = result(pair.read(uri)).await;
            assert!(text(&read, &["contents"]).contains(&format!(r#""uri":"{uri}""#)), "{read}");
            assert!(text(&read, &["contents"]).contains("1e400"), "{read}");
        }
        for (kind, name, reference) in [
            (Kind::Prompt, "greet", r#"{"type":"ref/prompt","name":"greet"}"#),
            (Kind::Template, "test://item/{id}", r#"{"type":"ref/resource","uri":"test://item/{id}"}"#),
        ] {
            let params = format!(r#"{{"ref":{reference},"argument":{{"name":"who","value":"A"}}}}"#);
            let completed = result(pair.caller.ask("completion/complete", kind, name, &params)).await;
            assert_eq!(text(&completed, &["completion", "values"]), format!(r#"["{name}"]"#));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_by_itself_is_reached_from_another_org() {
    let pair = Pair::new(false, "all").await;
    for org in [None, Some("umbrella.example".parse().unwrap())] {
        let raw = Endpoint::Raw { org, server: "things".parse().unwrap() };
        let catalogue = pair.caller.catalogue(&raw).unwrap();
        let server = &catalogue.of_kind(Kind::Server)[0];
        assert_eq!(text(&server.object, &["instructions"]), r#""Be kind.""#);
        let request = |method: &str, params: &str| {
            pair.caller.request(method, raw.clone(), Target::Server, params, None)
        };
        let vendor = result(request("vendor/thing", r#"{"x":1.0}"#)).await;
        assert_eq!(text(&vendor, &["said"]), "1.0");
        let unknown = outcome(request("vendor/unknown", "{}")).await;
        let Outcome::Error(error) = &unknown else { panic!("{unknown:?}") };
        assert_eq!(text(error, &["code"]), "-32601", "the server has the last word");
        let refused = failure(request("tools/call", r#"{"name":"echo"}"#)).await;
        assert!(matches!(refused, Failure::Refused { code: -32601, .. }), "{refused:?}");
    }
    let nobody = Endpoint::Raw { org: None, server: "nobody".parse().unwrap() };
    assert!(pair.caller.catalogue(&nobody).is_none());
}

/// The next message of a subscription, as method and URI.
async fn next(exchange: &mut Exchange) -> (String, String) {
    match within("a message", exchange.next()).await {
        Incoming::Message(message) => {
            let uri = message.params().and_then(|params| json::path(params, &["uri"])).and_then(json::as_str);
            (message.method().unwrap().to_owned(), uri.unwrap_or_default().into_owned())
        }
        Incoming::Done(outcome) => panic!("{outcome:?}"),
    }
}

fn told(method: &str, uri: &str) -> (String, String) {
    (method.to_owned(), uri.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_holds_over_two_nodes_and_over_the_servers_death() {
    for modern in [false, true] {
        let pair = Pair::new(modern, "all").await;
        let uri = "test://item/7";
        let subscribe = || pair.caller.ask(SUBSCRIBE, Kind::Resource, uri, &format!(r#"{{"uri":"{uri}"}}"#));
        let (mut one, mut two) = (subscribe(), subscribe());
        let touch = || pair.caller.call_with("touch", &format!(r#"{{"uri":"{uri}"}}"#), "{}", None);
        for watcher in [&mut one, &mut two] {
            assert_eq!(next(watcher).await, told(ACKNOWLEDGED, uri));
        }
        result(touch()).await;
        for watcher in [&mut one, &mut two] {
            assert_eq!(next(watcher).await, told(RESOURCE_UPDATED, uri));
        }
        drop(two);
        // It dies and is started anew: whether the resource changed meanwhile nobody knows.
        assert!(matches!(outcome(pair.caller.call("die")).await, Outcome::Failed(_)));
        assert_eq!(next(&mut one).await, told(RESOURCE_UPDATED, uri));
        pair.server.ready("things").await;
        result(touch()).await;
        assert_eq!(next(&mut one).await, told(RESOURCE_UPDATED, uri));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_made_again_when_the_link_comes_back() {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let caller_plan = Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all");
    let caller = caller_plan.start().await;
    let server_plan =
        Plan::of(&umbrella, "server", "FR").trusts(&acme, "none").serves("things", "federation").to(&caller);
    let server = server_plan.start().await;
    caller.offers("echo", &[server.id()]).await;
    caller
        .sees("the resource", |world| world.catalogue.find(Kind::Resource, "test://fixed").map(|_| ()))
        .await;
    let mut watcher = caller.ask(SUBSCRIBE, Kind::Resource, "test://fixed", r#"{"uri":"test://fixed"}"#);
    assert_eq!(next(&mut watcher).await, told(ACKNOWLEDGED, "test://fixed"));
    server.stop().await;
    let server = server_plan.start().await;
    caller.offers("echo", &[server.id()]).await;
    assert_eq!(
        next(&mut watcher).await,
        told(RESOURCE_UPDATED, "test://fixed"),
        "there may have been a change"
    );
    result(caller.call_with("touch", r#"{"uri":"test://fixed"}"#, "{}", None)).await;
    assert_eq!(next(&mut watcher).await, told(RESOURCE_UPDATED, "test://fixed"));
    // A node that stops ends what would last for ever.
    caller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_goes_on_elsewhere_when_its_executor_dies() {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plan =
        |name: &str| Plan::of(&umbrella, name, "FR").trusts(&acme, "none").serves("things", "federation");
    let plans = [plan("one"), plan("two")];
    let nodes = [plans[0].start().await, plans[1].start().await];
    let caller_plan = Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all").to(&nodes[0]).to(&nodes[1]);
    let caller = caller_plan.start().await;
    caller.offers("echo", &[nodes[0].id(), nodes[1].id()]).await;
    caller
        .sees("both have the resource", |world| {
            let view = world.view(&Endpoint::All)?;
            let both = view.route(Kind::Resource, "test://slow")?.candidates.len() == 2;
            both.then_some(())
        })
        .await;
    let read = caller.ask("resources/read", Kind::Resource, "test://slow", r#"{"uri":"test://slow"}"#);
    let first =
        until("one of them reads", || plans.iter().position(|plan| !plan.ran("things").is_empty())).await;
    nodes[first].kill();
    plans[1 - first].go("things");
    let read = result(read).await;
    assert_eq!(executor(&read), nodes[1 - first].id().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_read_is_not_and_the_refusal_says_why() {
    let pair = Pair::new(false, "all").await;
    let constrained =
        r#"{"uri":"test://fixed","_meta":{"dev.comity/constraints":{"allow_locations":["DE"]}}}"#;
    let denied =
        failure(pair.caller.ask("resources/read", Kind::Resource, "test://fixed", constrained)).await;
    let Failure::Denied { reasons } = &denied else { panic!("{denied:?}") };
    assert_eq!(reasons[0].code, "location_not_allowed");
    let prompt = r#"{"name":"greet","_meta":{"dev.comity/constraints":{"allow_locations":["DE"]}}}"#;
    let denied = failure(pair.caller.ask("prompts/get", Kind::Prompt, "greet", prompt)).await;
    assert!(matches!(denied, Failure::Denied { .. }), "{denied:?}");
    let watched = failure(pair.caller.ask(SUBSCRIBE, Kind::Resource, "test://fixed", constrained)).await;
    assert!(matches!(watched, Failure::Denied { .. }), "{watched:?}");
    assert!(pair.server_plan.ran("things").is_empty(), "no byte went there");
    let unknown = outcome(pair.read("nowhere://at/all")).await;
    let Outcome::Error(error) = &unknown else { panic!("{unknown:?}") };
    assert_eq!(text(error, &["code"]), "-32002", "the only server with resources has the last word");
    let unknown =
        failure(pair.caller.ask("prompts/get", Kind::Prompt, "nobody", r#"{"name":"nobody"}"#)).await;
    assert!(matches!(unknown, Failure::Refused { code: -32602, .. }), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_approved_is_neither_listed_nor_read() {
    let pair = Pair::new(false, "none").await;
    pair.caller
        .sees("the resource is known", |world| {
            world.items_of("resource:umbrella.example/things/test://fixed").next().map(|_| ())
        })
        .await;
    let catalogue = pair.caller.world().catalogue.clone();
    assert!(catalogue.entries().is_empty(), "{:?}", catalogue.entries());
    for (method, kind, name, params) in [
        ("resources/read", Kind::Resource, "test://fixed", r#"{"uri":"test://fixed"}"#),
        ("prompts/get", Kind::Prompt, "greet", r#"{"name":"greet"}"#),
        (SUBSCRIBE, Kind::Resource, "test://fixed", r#"{"uri":"test://fixed"}"#),
    ] {
        let refused = failure(pair.caller.ask(method, kind, name, params)).await;
        assert!(matches!(refused, Failure::Refused { .. }), "{method}: {refused:?}");
    }
    assert!(pair.caller.catalogue(&Endpoint::Raw { org: None, server: "things".parse().unwrap() }).is_none());
    assert!(pair.server_plan.ran("things").is_empty());
}

/// What an executor says to a call that its own caller would never have made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_holds_a_call_to_its_kind() {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plan = Plan::of(&umbrella, "server", "FR").trusts(&acme, "none").serves("things", "federation");
    let node = plan.start().await;
    node.ready("things").await;
    let fake = Fake::start(&acme, &[&umbrella]).await;
    let body = br#"{"uri":"test://fixed"}"#.to_vec();
    for (path, method, code) in [
        ("resource:umbrella.example/things/test://fixed", "tools/call", "unknown_method"),
        ("server:umbrella.example/things/things", "tools/call", "unknown_method"),
        ("server:umbrella.example/things/things", "prompts/get", "unknown_method"),
        ("template:umbrella.example/things/test://item/{id}", "resources/read", "refused"),
    ] {
        let (capability, contract) = node
            .sees(path, |world| {
                world.items_of(path).next().map(|item| (item.capability.clone(), item.contract))
            })
            .await;
        let mut header = header(&acme, &fake, &node, "things");
        (header.capability, header.contract, header.method) = (capability, contract, method.into());
        (header.request, header.request_bytes) = (PayloadDigest::of(&body), body.len() as u32);
        let mut stream = fake.open(&node).await;
        stream.send(&Frame::Header(Box::new(header))).await;
        let first = stream.next().await.unwrap();
        let said = match first.kind() {
            FrameKind::Accept => {
                stream.send(&Frame::Body(body.clone())).await;
                stream.next().await.unwrap()
            }
            _ => first,
        };
        let said = match said {
            Frame::Refuse(refusal) => refusal.code,
            Frame::Failed(failure) => failure.code,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(said, code, "{path} {method}");
    }
    assert!(plan.ran("things").is_empty(), "nothing reached the server");
}
