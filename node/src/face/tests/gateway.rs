//! A gateway whose tools do what their names say.

use std::sync::{Arc, Mutex};

use comity_protocol::{
    approval::Judgement,
    call::methods::{ACKNOWLEDGED, RESOURCE_UPDATED, SUBSCRIBE},
    catalogue::{Catalogue, Offered, Origin, Pool},
    contract::Descriptor,
    ids::{CapabilityId, Kind, NodeId},
    json,
    jsonrpc::{Id, Message, RpcError, codes},
};
use serde_json::{json, value::RawValue};
use tokio::sync::{broadcast, mpsc, watch};

use super::soon;
use crate::{
    exchange::{DenialReason, Exchange, ExchangePeer, Failure, Outcome, Outgoing, exchange},
    gateway::{CallerContext, Endpoint, Gateway, GatewayRequest, Target},
};

/// How many progress notifications `progress` sends.
pub(super) const PROGRESS: usize = 50;

pub(super) struct FakeGateway {
    catalogue: Mutex<Arc<Catalogue>>,
    changes: watch::Sender<u64>,
    callers: mpsc::UnboundedSender<CallerContext>,
    /// Who called, in order.
    pub(super) called: tokio::sync::Mutex<mpsc::UnboundedReceiver<CallerContext>>,
    /// URIs that change.
    updates: broadcast::Sender<String>,
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
            updates: broadcast::Sender::new(16),
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

    /// Shows everything that `items` has.
    pub(super) fn set_items(&self) {
        *self.catalogue.lock().unwrap() = Arc::new(items());
        self.changes.send_modify(|change| *change += 1);
    }

    /// Changes a resource.
    pub(super) fn update(&self, uri: &str) {
        // Nobody may be watching.
        let _ = self.updates.send(uri.to_owned());
    }

    pub(super) async fn next_caller(&self) -> CallerContext {
        soon(async { self.called.lock().await.recv().await.unwrap() }).await
    }

    pub(super) async fn next_end(&self) -> String {
        soon(async { self.ended.lock().await.recv().await.unwrap() }).await
    }
}

impl Gateway for FakeGateway {
    fn catalogue(&self, endpoint: &Endpoint) -> Option<Arc<Catalogue>> {
        match endpoint {
            Endpoint::All => Some(Arc::clone(&self.catalogue.lock().unwrap())),
            Endpoint::Raw { server, .. } => (server.as_str() == "fake").then(|| Arc::new(items())),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn request(&self, request: GatewayRequest) -> Exchange {
        let (exchange, peer) = exchange();
        if request.method == SUBSCRIBE {
            tokio::spawn(tell(request, peer, self.updates.subscribe()));
            return exchange;
        }
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

/// A catalogue of tools of these names and descriptions.
pub(in crate::face) fn catalogue_of(tools: &[(&str, &str)]) -> Catalogue {
    let text = |name: &str, description: &str| {
        let schema = json!({ "type": "object" });
        json!({ "name": name, "description": description, "inputSchema": schema }).to_string()
    };
    Catalogue::build(tools.iter().map(|(name, description)| item(Kind::Tool, &text(name, description))))
}

/// One server with something of every kind.
fn items() -> Catalogue {
    let server = r#"{"name":"fake","capabilities":{"tools":{},"prompts":{},"resources":{"subscribe":true},"completions":{},"x-vendor":1e999},"serverInfo":{"name":"Fake"},"instructions":"Be kind."}"#;
    let all = [
        (Kind::Server, server),
        (Kind::Tool, r#"{"name":"comity_find_tools","inputSchema":{"type":"object"}}"#),
        (Kind::Prompt, r#"{"name":"greet","arguments":[{"name":"who"}],"x-vendor":1e999}"#),
        (Kind::Resource, r#"{"uri":"f:a","name":"a"}"#),
        (Kind::Resource, r#"{"uri":"f:b","name":"b"}"#),
        (Kind::Template, r#"{"uriTemplate":"f:{x}/y","name":"t"}"#),
    ];
    Catalogue::passthrough(all.map(|(kind, text)| item(kind, text)))
}

fn item(kind: Kind, text: &str) -> Offered {
    let descriptor = Descriptor::parse(kind, text).unwrap();
    Offered {
        node: NodeId::from_bytes([7; 32]),
        capability: CapabilityId {
            org: "acme.example".parse().unwrap(),
            server: "fake".parse().unwrap(),
            kind,
            name: descriptor.name().clone(),
        },
        descriptor: Arc::new(descriptor),
        origin: Origin::ThisNode,
        pool: Pool::Anywhere,
        judgement: Judgement::Approved,
    }
}

/// Serves a subscription: `f:secret` cannot be watched.
async fn tell(request: GatewayRequest, mut peer: ExchangePeer, mut updates: broadcast::Receiver<String>) {
    let Target::Item(Kind::Resource, uri) = request.target else { panic!("{:?}", request.target) };
    if uri == "f:secret" {
        let detail = "no such resource".into();
        return peer.finish(Outcome::Failed(Failure::Refused { code: codes::INVALID_PARAMS, detail }));
    }
    let params = raw(json!({ "uri": uri }).to_string());
    peer.sender.send(Message::notification(ACKNOWLEDGED, Some(params.clone()))).await.unwrap();
    loop {
        tokio::select! {
            updated = updates.recv() => {
                if updated.unwrap() == uri {
                    let message = Message::notification(RESOURCE_UPDATED, Some(params.clone()));
                    peer.sender.send(message).await.unwrap();
                }
            }
            said = peer.outgoing.recv() => if said.is_none() { return },
        }
    }
}

fn offer(name: &str) -> Offered {
    let annotation = if name == "routed" { r#","x-mcp-header":"Region""# } else { "" };
    let region = format!(r#"{{"type":"string"{annotation}}}"#);
    let schema = format!(r#"{{"type":"object","properties":{{"region":{region}}}}}"#);
    let text = format!(r#"{{"name":"{name}","x-vendor":1e999,"inputSchema":{schema}}}"#);
    item(Kind::Tool, &text)
}

fn raw(text: impl Into<String>) -> Box<RawValue> {
    RawValue::from_string(text.into()).unwrap()
}

async fn run(request: GatewayRequest, peer: ExchangePeer, ends: mpsc::UnboundedSender<String>) {
    let Target::Item(Kind::Tool, tool) = &request.target else {
        let (method, target, params) = (&request.method, &request.target, request.params.get());
        let said = format!(r#"{{"method":"{method}","target":"{target}","params":{params}}}"#);
        return peer.finish(Outcome::Result(raw(said)));
    };
    let outcome = match tool.as_str() {
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
