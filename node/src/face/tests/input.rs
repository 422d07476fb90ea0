//! Servers of older revisions that ask clients of 2026-07-28.

use std::time::Duration;

use comity_protocol::constraints::Constraints;
use serde_json::{Value, json};

use super::{Node, client::Client};
use crate::face::suspended::{OF_ONE_MAX, ROUNDS_MAX};
use crate::face::{TokenConfig, TokenSecret};

/// A call by a client that can be asked; `more` goes into its params.
async fn call(client: &Client, tool: &str, arguments: Value, more: Value) -> Value {
    let mut params = json!({ "name": tool, "arguments": arguments });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.modern_able("tools/call", params, json!({ "elicitation": {} })).await.json().await
}

/// The retry of a call, with one answer to the only question.
async fn retry(client: &Client, tool: &str, state: &Value, answer: Value) -> Value {
    let more = json!({ "requestState": state, "inputResponses": { "input-1": answer } });
    call(client, tool, json!({}), more).await
}

#[tokio::test]
async fn a_question_becomes_an_answer_and_the_retry_goes_on_with_the_same_call() {
    let node = Node::start().await;
    let question = json!({ "message": "sure?", "big": 1 });
    let asked = call(&node.client, "ask", question.clone(), json!({})).await;
    let result = &asked["result"];
    assert_eq!(result["resultType"], "input_required");
    let expected = json!({ "input-1": { "method": "elicitation/create", "params": question } });
    assert_eq!(result["inputRequests"], expected);
    let state = &result["requestState"];
    let answer = json!({ "action": "accept", "content": { "x": 1 } });
    let done = retry(&node.client, "ask", state, answer.clone()).await;
    assert_eq!(done["result"], json!({ "resultType": "complete", "answer": answer }));
    node.gateway.next_caller().await;
    assert!(node.gateway.called.lock().await.try_recv().is_err(), "the retry is no call of its own");
    let again = retry(&node.client, "ask", state, answer).await;
    assert_eq!(again["error"]["code"], -32602, "a state is good for one retry: {again}");
    assert!(node.gateway.called.lock().await.try_recv().is_err());
}

#[tokio::test]
async fn answers_of_concurrent_calls_do_not_cross() {
    let node = Node::start().await;
    let calls = (0..16).map(|n| {
        let client = node.client.clone();
        async move {
            let asked = call(&client, "ask", json!({ "n": n }), json!({})).await;
            let result = &asked["result"];
            assert_eq!(result["inputRequests"]["input-1"]["params"]["n"], n);
            let done = retry(&client, "ask", &result["requestState"], json!({ "n": n })).await;
            assert_eq!(done["result"]["answer"]["n"], n);
        }
    });
    futures::future::join_all(calls).await;
}

#[tokio::test]
async fn what_the_client_leaves_out_is_asked_again() {
    let node = Node::start().await;
    let asked = call(&node.client, "ask", json!({}), json!({})).await;
    let state = &asked["result"]["requestState"];
    let more = json!({ "requestState": state, "inputResponses": { "other": {} } });
    let again = call(&node.client, "ask", json!({}), more).await;
    assert_eq!(again["result"]["inputRequests"], asked["result"]["inputRequests"]);
    assert_ne!(again["result"]["requestState"], *state);
    let wrong = json!({ "requestState": again["result"]["requestState"], "inputResponses": [] });
    assert_eq!(call(&node.client, "ask", json!({}), wrong).await["error"]["code"], -32602);
    let done = retry(&node.client, "ask", &again["result"]["requestState"], json!({ "ok": 1 })).await;
    assert_eq!(done["result"]["answer"]["ok"], 1, "nonsense in between has used nothing up");
}

#[tokio::test]
async fn nobody_takes_up_the_call_of_another() {
    let token = |name: &str| TokenConfig {
        name: name.into(),
        secret: TokenSecret::of_token(&format!("{name}-secret")),
        constraints: Constraints::default(),
    };
    let node = Node::with(|config| config.tokens = vec![token("ana"), token("ben")]).await;
    let of = |name: &str| node.client.with("authorization", &format!("Bearer {name}-secret"));
    let (ana, ben) = (of("ana"), of("ben"));
    let state = call(&ana, "ask", json!({}), json!({})).await["result"]["requestState"].clone();
    let text = state.as_str().unwrap();
    let forged = json!(format!("{}x", &text[..text.len() - 1]));
    for (client, tool, state) in [(&ben, "ask", &state), (&ana, "echo", &state), (&ana, "ask", &forged)] {
        let refused = retry(client, tool, state, json!({ "stolen": 1 })).await;
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
    assert_eq!(retry(&ana, "ask", &state, json!({ "mine": 1 })).await["result"]["answer"]["mine"], 1);
}

#[tokio::test]
async fn a_state_that_is_not_ours_goes_through_untouched() {
    let node = Node::start().await;
    for state in ["opaque \u{e9} bytes", "comity-input:another-node:xyz"] {
        let echoed = retry(&node.client, "echo", &json!(state), json!({ "n": 1 })).await;
        assert_eq!(echoed["result"]["echo"]["requestState"], state);
        assert_eq!(echoed["result"]["echo"]["inputResponses"]["input-1"]["n"], 1);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_ever_is_refused_at_last() {
    let node = Node::start().await;
    let mut answer = call(&node.client, "ask_for_ever", json!({}), json!({})).await;
    let mut rounds = 0;
    while answer["result"]["resultType"] == "input_required" {
        rounds += 1;
        let key = answer["result"]["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
        let state = &answer["result"]["requestState"];
        let more = json!({ "requestState": state, "inputResponses": { key: {} } });
        answer = call(&node.client, "ask_for_ever", json!({}), more).await;
    }
    assert_eq!((rounds, &answer["result"]["rounds"]), (ROUNDS_MAX, &json!(ROUNDS_MAX)));
}

#[tokio::test]
async fn calls_that_wait_are_bounded_and_end_with_their_time() {
    let node = Node::start().await;
    for _ in 0..OF_ONE_MAX {
        let asked = call(&node.client, "ask_for_ever", json!({}), json!({})).await;
        assert_eq!(asked["result"]["resultType"], "input_required");
    }
    let full = call(&node.client, "ask", json!({}), json!({})).await;
    assert_eq!(full["result"]["answer"]["code"], -32005, "its server is refused and goes on: {full}");
    node.shutdown.cancel();
    assert_eq!(node.gateway.next_end().await, "dropped", "a node that stops lets them go");
}

#[tokio::test]
async fn a_call_that_waits_too_long_is_cancelled() {
    let node = Node::with(|config| config.limits.input_wait = Duration::from_millis(1)).await;
    let asked = call(&node.client, "ask_for_ever", json!({}), json!({})).await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    // The next that waits makes room, and the retry of the first comes too late.
    call(&node.client, "ask", json!({}), json!({})).await;
    assert_eq!(node.gateway.next_end().await, "dropped");
    let late = retry(&node.client, "ask_for_ever", &asked["result"]["requestState"], json!({})).await;
    assert_eq!(late["error"]["code"], -32602);
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_is_told_what_it_lacks() {
    let node = Node::start().await;
    let params = json!({ "name": "ask", "arguments": {} });
    let refused = node.client.modern_able("tools/call", params, json!({ "sampling": {} })).await;
    assert_eq!(refused.status, 400);
    let error = &refused.json().await["error"];
    assert_eq!(error["code"], -32021);
    assert_eq!(error["data"]["requiredCapabilities"], json!({ "elicitation": { "form": {} } }));
}
