//! A gateway whose tools do what their names say.

use std::sync::{Arc, Mutex};

use comity_protocol::{
    approval::Judgement,
    catalogue::{Catalogue, Offered, Origin, Pool},
    contract::Descriptor,
    ids::{CapabilityId, NodeId},
    json,
    jsonrpc::{Id, Message, RpcError, codes},
};
use serde_json::{json, value::RawValue};
use tokio::sync::{mpsc, watch};

use super::soon;
use crate::{
    exchange::{DenialReason, Exchange, ExchangePeer, Failure, Outcome, Outgoing, exchange},
    gateway::{CallerContext, Gateway, GatewayRequest},
};

/// How many progress notifications `progress` sends.
pub(super) const PROGRESS: usize = 50;

pub(super) struct FakeGateway {
    catalogue: Mutex<Arc<Catalogue>>,
    changes: watch::Sender<u64>,
    callers: mpsc::UnboundedSender<CallerContext>,
    /// Who called, in order.
    pub(super) called: tokio::sync::Mutex<mpsc::UnboundedReceiver<CallerContext>>,
    ends: mpsc::UnboundedSender<String>,
    /// How calls of `hang` ended: `cancelled: <reason>` or `dropped`.
    pub(super) ended: tokio::sync::Mutex<mpsc::UnboundedReceiver<String>>,
}

impl FakeGateway {
    pub(super) fn new() -> Self {
        let (callers, called) = mpsc::unbounded_channel();
        let (ends, ended) = mpsc::unbounded_channel();
        let gateway = Self {
            catalogue: Mutex::default(),
            changes: watch::channel(1).0,
            callers,
            called: called.into(),
            ends,
            ended: ended.into(),
        };
        gateway.set_tools(&["echo", "routed"]);
        gateway
    }

    /// Changes the catalogue, and says so.
    pub(super) fn set_tools(&self, names: &[&str]) {
        *self.catalogue.lock().unwrap() = Arc::new(catalogue(names));
        self.changes.send_modify(|change| *change += 1);
    }

    pub(super) async fn next_caller(&self) -> CallerContext {
        soon(async { self.called.lock().await.recv().await.unwrap() }).await
    }

    pub(super) async fn next_end(&self) -> String {
        soon(async { self.ended.lock().await.recv().await.unwrap() }).await
    }
}

impl Gateway for FakeGateway {
    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.lock().unwrap())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn request(&self, request: GatewayRequest) -> Exchange {
        assert_eq!(request.method, "tools/call");
        let (exchange, peer) = exchange();
        self.callers.send(request.caller.clone()).unwrap();
        tokio::spawn(run(request, peer, self.ends.clone()));
        exchange
    }
}

/// A catalogue of tools of these names. Each has a member that no typed model would keep, and `routed` has a parameter
/// that clients must repeat in a header.
pub(in crate::face) fn catalogue(names: impl IntoIterator<Item: AsRef<str>>) -> Catalogue {
    Catalogue::build(names.into_iter().map(|name| offer(name.as_ref())))
}

fn offer(name: &str) -> Offered {
    let annotation = if name == "routed" { r#","x-mcp-header":"Region""# } else { "" };
    let region = format!(r#"{{"type":"string"{annotation}}}"#);
    let schema = format!(r#"{{"type":"object","properties":{{"region":{region}}}}}"#);
    let text = format!(r#"{{"name":"{name}","x-vendor":1e999,"inputSchema":{schema}}}"#);
    Offered {
        node: NodeId::from_bytes([7; 32]),
        capability: CapabilityId {
            org: "acme.example".parse().unwrap(),
            server: "fake".parse().unwrap(),
            tool: name.parse().unwrap(),
        },
        descriptor: Arc::new(Descriptor::parse(&text).unwrap()),
        origin: Origin::ThisNode,
        pool: Pool::Anywhere,
        judgement: Judgement::Approved,
    }
}

fn raw(text: impl Into<String>) -> Box<RawValue> {
    RawValue::from_string(text.into()).unwrap()
}

async fn run(request: GatewayRequest, peer: ExchangePeer, ends: mpsc::UnboundedSender<String>) {
    let outcome = match request.tool.as_str() {
        "echo" | "routed" => Outcome::Result(raw(format!(r#"{{ "echo": {} }}"#, request.params.get()))),
        "progress" => progress(&peer).await,
        "ask" => return ask(request, peer).await,
        "ask_for_ever" => return ask_for_ever(peer, ends).await,
        "hang" => return hang(peer, ends).await,
        "chat_then_hang" => {
            say(&peer, "notifications/progress", r#"{"progressToken":"up","progress":1}"#).await;
            return hang(peer, ends).await;
        }
        "log" => log(&peer).await,
        "deny" => Outcome::Failed(Failure::Denied { reasons: vec![reason("location"), reason("trust")] }),
        "unknown_upstream_method" => {
            Outcome::Error(RpcError::new(codes::METHOD_NOT_FOUND, "no such thing upstream").to_raw())
        }
        "pretty" => {
            say(&peer, "notifications/progress", "{\n \"progressToken\":\r\n\"up\"}").await;
            Outcome::Result(raw("{\n  \"content\": [\r\n  ]\n}"))
        }
        "vanish" => return drop(peer),
        other => Outcome::Failed(Failure::Refused {
            code: codes::INVALID_PARAMS,
            detail: format!("no tool {other}"),
        }),
    };
    peer.finish(outcome);
}

async fn say(peer: &ExchangePeer, method: &str, params: &str) {
    peer.sender.send(Message::notification(method, Some(raw(params)))).await.unwrap();
}

async fn progress(peer: &ExchangePeer) -> Outcome {
    for n in 0..PROGRESS {
        say(peer, "notifications/progress", &format!(r#"{{"progressToken":"up","progress":{n}}}"#)).await;
    }
    Outcome::Result(raw(r#"{"content":[]}"#))
}

async fn log(peer: &ExchangePeer) -> Outcome {
    for level in ["debug", "info", "warning", "error"] {
        say(peer, "notifications/message", &format!(r#"{{"level":"{level}","data":"d"}}"#)).await;
    }
    Outcome::Result(raw(r#"{"content":[]}"#))
}

/// Asks the client under an id that every call uses, and gives back what it is told.
async fn ask(request: GatewayRequest, mut peer: ExchangePeer) {
    let params = json::path(&request.params, &["arguments"]).map(RawValue::to_owned);
    peer.sender
        .send(Message::request(Id::String("same".into()), "elicitation/create", params))
        .await
        .unwrap();
    let answer = match peer.outgoing.recv().await {
        Some(Outgoing::Message(Message::Response { id, result })) if id.to_string() == "same" => result,
        Some(Outgoing::Message(Message::Error { error, .. })) => error,
        other => panic!("{other:?}"),
    };
    peer.finish(Outcome::Result(raw(format!(r#"{{"answer":{}}}"#, answer.get()))));
}

/// Asks again whatever it is told, until it is refused.
async fn ask_for_ever(mut peer: ExchangePeer, ends: mpsc::UnboundedSender<String>) {
    let mut rounds = 0;
    loop {
        let question = Message::request(rounds, "elicitation/create", Some(raw("{}")));
        if peer.sender.send(question).await.is_err() {
            return ends.send("dropped".into()).unwrap_or_default();
        }
        match peer.outgoing.recv().await {
            Some(Outgoing::Message(Message::Response { .. })) => rounds += 1,
            Some(_) => break,
            None => return ends.send("dropped".into()).unwrap_or_default(),
        }
    }
    peer.finish(Outcome::Result(raw(format!(r#"{{"rounds":{rounds}}}"#))));
}

async fn hang(mut peer: ExchangePeer, ends: mpsc::UnboundedSender<String>) {
    let end = match peer.outgoing.recv().await {
        Some(Outgoing::Cancel { reason }) => format!("cancelled: {}", reason.unwrap_or_default()),
        Some(other) => format!("{other:?}"),
        None => "dropped".into(),
    };
    peer.finish(Outcome::Failed(Failure::Cancelled { handed_over: true }));
    // The test may be over.
    let _ = ends.send(end);
}

fn reason(code: &str) -> DenialReason {
    let detail = json!({ "why": code }).to_string();
    DenialReason { peer: Some("12D3".into()), org: Some("acme.example".into()), code: code.into(), detail }
}
