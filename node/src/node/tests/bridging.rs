//! Servers that ask, clients that answer, and the two eras between them: at a server here, and at one of another org.

use serde_json::{Value, json};

use super::harness::{Org, Plan, Running, within};
use crate::face::tests::client::{Answer, Client};

/// Two nodes of two orgs; the second fronts a server of each era.
struct Pair {
    caller: Running,
    server: Running,
    plan: Plan,
    _caller: Plan,
}

async fn pair() -> Pair {
    let (acme, umbrella) = (Org::new("acme.example"), Org::new("umbrella.example"));
    let plan = Plan::of(&umbrella, "server", "FR")
        .trusts(&acme, "none")
        .serves("old", "federation")
        .serves_modern("new", "federation");
    let server = plan.start().await;
    let caller_plan = Plan::of(&acme, "caller", "DE").trusts(&umbrella, "all").to(&server);
    let caller = caller_plan.start().await;
    for node in [&caller, &server] {
        for tool in ["old__ask", "new__ask", "strict", "where"] {
            node.offers(tool, &[server.id()]).await;
        }
    }
    Pair { caller, server, plan, _caller: caller_plan }
}

impl Pair {
    /// A client next to the servers, and one of another org.
    fn clients(&self) -> [Client; 2] {
        [self.server.client(), self.caller.client()]
    }
}

/// A session of a legacy client that can be asked.
async fn legacy(client: &Client) -> Client {
    client.initialize_able("2025-11-25", json!({ "elicitation": {}, "roots": {}, "tasks": {} })).await
}

/// A modern call with `more` in its params.
async fn modern(client: &Client, tool: &str, arguments: Value, more: Value) -> Value {
    let mut params = json!({ "name": tool, "arguments": arguments });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.modern_able("tools/call", params, json!({ "elicitation": {}, "roots": {} })).await.json().await
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer}"))
}

/// Answers the next question of a legacy call's stream.
async fn answer_next(client: &Client, stream: &mut Answer, answer: impl Fn(&Value) -> Value) {
    let question = stream.message().await.expect("a question");
    let body = json!({ "jsonrpc": "2.0", "id": question["id"], "result": answer(&question) });
    assert_eq!(client.post(body.to_string()).await.status, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_client_is_asked_what_a_modern_server_wants_to_know() {
    let pair = pair().await;
    for client in pair.clients() {
        let client = legacy(&client).await;
        let calls = (0..8).map(|n| {
            let client = client.clone();
            async move {
                let mut stream = client.call(n, "new__ask", json!({ "n": n })).await;
                for _ in 0..2 {
                    answer_next(&client, &mut stream, |question| match question["method"].as_str() {
                        Some("roots/list") => json!({ "roots": [] }),
                        _ => json!({ "action": "accept", "content": { "n": question["params"]["n"] } }),
                    })
                    .await;
                }
                let done = stream.message().await.expect("the answer");
                let responses: Value = serde_json::from_str(text(&done)).expect("what it was told");
                assert_eq!(responses["who"]["content"]["n"], n, "answers do not cross");
                assert_eq!(responses["roots"], json!({ "roots": [] }));
                assert!(done["result"].get("resultType").is_none(), "a legacy result: {done}");
            }
        });
        within("all calls", futures::future::join_all(calls)).await;
    }
    assert_eq!(pair.plan.ran("new").len(), 2 * 8 * 3, "each call is made again twice, at one server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_client_that_refuses_or_leaves_ends_the_call() {
    let pair = pair().await;
    for client in pair.clients() {
        let client = legacy(&client).await;
        let mut stream = client.call(1, "ask_for_ever", json!({})).await;
        let question = stream.message().await.expect("a question");
        let no = json!({ "jsonrpc": "2.0", "id": question["id"], "error": { "code": -1, "message": "no" } });
        assert_eq!(client.post(no.to_string()).await.status, 202);
        assert_eq!(stream.message().await.expect("the end")["error"]["message"], "no");
        let mut stream = client.call(2, "ask_for_ever", json!({})).await;
        stream.message().await.expect("a question");
        client.notify("notifications/cancelled", json!({ "requestId": 2 })).await;
        let end = stream.message().await.expect("the end");
        assert_eq!(end["error"]["code"], -32009, "{end}");
        let nonsense = client.call(3, "ask_nonsense", json!({})).await.json().await;
        assert_eq!(nonsense["error"]["code"], -32603, "{nonsense}");
        assert!(nonsense["error"]["message"].as_str().unwrap().contains("tools/call"), "{nonsense}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_modern_server_that_asks_for_ever_is_broken_off() {
    let pair = pair().await;
    for client in pair.clients() {
        let client = legacy(&client).await;
        let mut stream = client.call(1, "ask_for_ever", json!({})).await;
        let mut rounds = 0;
        let end = loop {
            let message = stream.message().await.expect("a question or the end");
            if message.get("method").is_none() {
                break message;
            }
            rounds += 1;
            let body = json!({ "jsonrpc": "2.0", "id": message["id"], "result": { "action": "decline" } });
            assert_eq!(client.post(body.to_string()).await.status, 202);
        };
        assert_eq!((rounds, &end["error"]["code"]), (16, &json!(-32603)), "{end}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_cannot_do_is_said_by_code() {
    let pair = pair().await;
    for client in pair.clients() {
        let unable = client.initialize_able("2025-11-25", json!({})).await;
        let refused = unable.call(1, "new__ask", json!({})).await.json().await;
        assert_eq!(refused["error"]["code"], -32021, "the server's own word: {refused}");
        let sampling = json!({ "method": "sampling/createMessage", "params": {} });
        let refused = modern(&client, "old__ask", sampling, json!({})).await;
        assert_eq!(refused["error"]["code"], -32021, "{refused}");
        assert_eq!(refused["error"]["data"]["requiredCapabilities"], json!({ "sampling": {} }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_modern_client_answers_a_legacy_server_by_calling_again() {
    let pair = pair().await;
    for client in pair.clients() {
        let question = json!({ "method": "elicitation/create", "params": { "message": "m", "x": [1, 2] } });
        let asked = modern(&client, "old__ask", question.clone(), json!({})).await;
        assert_eq!(asked["result"]["inputRequests"]["input-1"], question, "{asked}");
        let answers = json!({ "input-1": { "action": "accept", "content": { "k": "v" } } });
        let retry = json!({ "requestState": asked["result"]["requestState"], "inputResponses": answers });
        let done = modern(&client, "old__ask", question.clone(), retry.clone()).await;
        let told: Value = serde_json::from_str(text(&done)).expect("what the server was told");
        assert_eq!(told["result"], answers["input-1"]);
        let again = modern(&client, "old__ask", question, retry).await;
        assert_eq!(again["error"]["code"], -32602, "{again}");
    }
    assert_eq!(pair.plan.ran("old"), ["ask", "ask"], "the retry is no call of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_modern_client_and_a_modern_server_understand_each_other_untouched() {
    let pair = pair().await;
    for client in pair.clients() {
        let asked = modern(&client, "new__ask", json!({ "n": 1 }), json!({})).await;
        let state = &asked["result"]["requestState"];
        assert_eq!(*state, "st\u{e9}te \0 {\"n\":1.50}\\/ =?base64?x?=", "{asked}");
        assert_eq!(asked["result"]["inputRequests"]["roots"], json!({ "method": "roots/list" }));
        let answers = json!({ "who": { "action": "accept" }, "roots": { "roots": [] } });
        let retry = json!({ "requestState": state, "inputResponses": answers });
        let waiting = modern(&client, "new__ask", json!({ "n": 1 }), retry).await;
        assert_eq!(waiting["result"]["resultType"], "input_required");
        let retry = json!({ "requestState": waiting["result"]["requestState"] });
        let done = modern(&client, "new__ask", json!({ "n": 1 }), retry).await;
        assert_eq!(serde_json::from_str::<Value>(text(&done)).unwrap(), answers);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_that_do_not_fit_never_leave_and_results_are_checked_on_arrival() {
    let pair = pair().await;
    for client in pair.clients() {
        let before = pair.plan.ran("old").len();
        for (arguments, path) in [(json!({ "n": "x" }), "/n"), (json!({}), "")] {
            let refused = modern(&client, "strict", arguments, json!({})).await;
            assert_eq!(refused["result"]["isError"], true, "{refused}");
            assert_eq!(refused["result"]["_meta"]["dev.comity/faults"][0]["path"], path);
        }
        assert_eq!(pair.plan.ran("old").len(), before, "the server is not asked");
        let good = modern(&client, "strict", json!({ "n": 1 }), json!({})).await;
        assert_eq!(good["result"]["structuredContent"], json!({ "n": 1 }), "{good}");
        let misfit = modern(&client, "strict", json!({ "n": 10 }), json!({})).await;
        let result = &misfit["result"];
        assert_eq!(
            (&result["isError"], &result["content"][1]["text"]),
            (&json!(true), &json!("kept")),
            "{misfit}"
        );
        assert_eq!(result["_meta"]["dev.comity/faults"][0]["path"], "/n");
    }
}
