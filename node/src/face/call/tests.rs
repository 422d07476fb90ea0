use std::sync::Arc;

use tokio::sync::Semaphore;

use super::*;
use crate::exchange::{ExchangePeer, exchange};

struct Rig {
    call: Call,
    peer: ExchangePeer,
    conversation: Arc<Conversation>,
}

fn rig(era: Era, token: Option<&str>, logs: Logs) -> Rig {
    let conversation = Arc::new(Conversation::default());
    let (exchange, peer) = exchange();
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let progress_token = token.map(raw);
    let id = Id::Number(7);
    let link = Link::begin(&conversation, &id).unwrap();
    let able: Box<RawValue> = raw(r#"{"roots":{},"elicitation":{}}"#);
    let client = ClientProfile { era, capabilities: Some(able.into()), info: None };
    let waiting = (era == Era::Modern).then(waiting);
    let parts = CallParts { id, client, progress_token, logs, waiting, permit };
    Rig { call: Call::new(parts, exchange, Some(link)), peer, conversation }
}

fn waiting() -> Waiting {
    let suspended = Arc::new(Suspended::new("x", Duration::from_secs(60)));
    Waiting { suspended, principal: "ana".into(), what: "t".into() }
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.into()).unwrap()
}

async fn next(call: &mut Call) -> String {
    match call.next().await {
        Wire::Message(message) | Wire::Last(Last { message, .. }) => {
            String::from_utf8(message.to_vec()).unwrap()
        }
    }
}

#[tokio::test]
async fn tokens_and_levels() {
    let warning = Threshold::from_raw(&raw(r#""warning""#)).unwrap();
    let mut rig = rig(Era::Modern, Some("1.50"), Logs::Fixed(warning));
    let send = |method: &str, params: &str| {
        rig.peer.sender.try_send(Message::notification(method, Some(raw(params))))
    };
    send("notifications/progress", r#"{"x":1,"progressToken":"ours","progress":1e2}"#).unwrap();
    send("notifications/message", r#"{"level":"info"}"#).unwrap();
    send("notifications/message", r#"{"level":"error"}"#).unwrap();
    send("notifications/odd", r#"{"a":1}"#).unwrap();
    assert!(next(&mut rig.call).await.contains(r#"{"x":1,"progressToken":1.50,"progress":1e2}"#));
    assert!(next(&mut rig.call).await.contains("error"));
    assert!(
        next(&mut rig.call)
            .await
            .contains(r#"{"jsonrpc":"2.0","method":"notifications/odd","params":{"a":1}}"#)
    );
}

#[tokio::test]
async fn progress_that_nobody_asked_for_is_dropped() {
    let mut rig = rig(Era::Legacy, None, Logs::AsConversation);
    let progress = Message::notification("notifications/progress", Some(raw(r#"{"progressToken":1}"#)));
    rig.peer.sender.try_send(progress).unwrap();
    rig.peer.finish(Outcome::Result(raw(r#"{"ok":1}"#)));
    assert_eq!(next(&mut rig.call).await, r#"{"jsonrpc":"2.0","id":7,"result":{"ok":1}}"#);
}

#[tokio::test]
async fn what_a_client_cannot_do_it_is_not_asked() {
    let mut modern = rig(Era::Modern, None, Logs::AsConversation);
    modern.peer.sender.try_send(Message::request(3, "sampling/createMessage", None)).unwrap();
    let Wire::Last(last) = modern.call.next().await else { panic!("the client is asked") };
    assert_eq!(last.code, Some(codes::MISSING_CLIENT_CAPABILITY));
    let mut rig = rig(Era::Legacy, None, Logs::AsConversation);
    rig.peer.sender.try_send(Message::request(3, "sampling/createMessage", None)).unwrap();
    let (_, answer) = tokio::join!(
        async {
            // Drives the call; it has nothing to say to the client.
            assert!(futures::poll!(std::pin::pin!(rig.call.next())).is_pending());
            tokio::task::yield_now().await;
        },
        rig.peer.outgoing.recv()
    );
    let Some(Outgoing::Message(Message::Error { id: Some(Id::Number(3)), error })) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(RpcError::from_raw(&error).code, codes::METHOD_NOT_FOUND);
}

#[tokio::test]
async fn a_server_may_withdraw_what_it_asked() {
    let mut rig = rig(Era::Legacy, None, Logs::AsConversation);
    rig.peer.sender.try_send(Message::request(Id::String("up".into()), "roots/list", None)).unwrap();
    assert!(next(&mut rig.call).await.contains(r#""id":1,"method":"roots/list""#));
    let cancelled = |id: &str| {
        Message::notification("notifications/cancelled", Some(raw(&format!(r#"{{"requestId":{id}}}"#))))
    };
    rig.peer.sender.try_send(cancelled("99")).unwrap();
    rig.peer.sender.try_send(cancelled(r#""up""#)).unwrap();
    assert!(next(&mut rig.call).await.contains(r#"{"requestId":1}"#));
    assert!(rig.conversation.answered(&Id::Number(1)).is_none());
}

#[tokio::test]
async fn a_cancelled_call_is_quiet_and_ends_even_if_nobody_answers() {
    let mut rig = rig(Era::Legacy, Some("1"), Logs::AsConversation);
    rig.conversation.cancel(&Id::Number(7), Some("enough".into()));
    let progress = Message::notification("notifications/progress", Some(raw(r#"{"progressToken":1}"#)));
    rig.peer.sender.try_send(progress).unwrap();
    assert!(futures::poll!(Box::pin(rig.call.next())).is_pending(), "a message after cancellation");
    let told = rig.peer.outgoing.recv().await;
    assert!(matches!(told, Some(Outgoing::Cancel { reason: Some(reason) }) if reason == "enough"));
    rig.call.settle = Some(Instant::now());
    let Wire::Last(last) = rig.call.next().await else { panic!("a message after cancellation") };
    assert!(last.cancelled);
    assert_eq!(last.code, Some(codes::CANCELLED));
}

#[tokio::test]
async fn a_dropped_call_leaves_no_trace() {
    let mut rig = rig(Era::Legacy, None, Logs::AsConversation);
    rig.peer.sender.try_send(Message::request(1, "roots/list", None)).unwrap();
    next(&mut rig.call).await;
    drop(rig.call);
    assert_eq!(rig.conversation.in_flight(), 0);
    assert!(rig.conversation.answered(&Id::Number(1)).is_none());
    assert!(rig.peer.outgoing.recv().await.is_none());
}

#[tokio::test]
async fn a_modern_client_is_asked_all_at_once_by_its_answer_and_the_call_waits() {
    let mut rig = rig(Era::Modern, Some("1"), Logs::AsConversation);
    let send = |message| rig.peer.sender.try_send(message).unwrap();
    send(Message::request(3, "roots/list", None));
    send(Message::notification("notifications/progress", Some(raw(r#"{"progressToken":1,"progress":1}"#))));
    send(Message::request(4, "elicitation/create", Some(raw(r#"{"message":"m","n":1.50}"#))));
    assert!(next(&mut rig.call).await.contains("notifications/progress"), "what goes with it comes first");
    let asked = next(&mut rig.call).await;
    let requests = concat!(
        r#""resultType":"input_required","inputRequests":{"input-1":{"method":"roots/list"},"#,
        r#""input-2":{"method":"elicitation/create","params":{"message":"m","n":1.50}}},"requestState":"comity-input:x:"#,
    );
    assert!(asked.contains(requests), "{asked}");
    assert_eq!(rig.call.waiting.as_ref().unwrap().suspended.len(), 1);
    assert!(!rig.peer.sender.is_closed(), "the call goes on");
}

#[tokio::test]
async fn a_question_that_is_moot_is_not_asked() {
    let mut rig = rig(Era::Modern, None, Logs::AsConversation);
    rig.peer.sender.try_send(Message::request(3, "roots/list", None)).unwrap();
    let withdrawn = Message::notification("notifications/cancelled", Some(raw(r#"{"requestId":3}"#)));
    rig.peer.sender.try_send(withdrawn).unwrap();
    rig.peer.sender.try_send(Message::request(4, "roots/list", None)).unwrap();
    rig.peer.finish(Outcome::Result(raw(r#"{"ok":1}"#)));
    assert!(next(&mut rig.call).await.contains(r#""ok":1"#));
}
