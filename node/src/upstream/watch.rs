//! Subscriptions to one server's resources, from one life of the server to the next.
//!
//! [`Hub`] is who watches what. [`keep`] makes the server agree: it subscribes to each URI that somebody watches, once
//! however many do, and takes it back when nobody does. When the server has been away, everybody is told of a change,
//! because there may have been one.
//!
//! In the legacy era each URI is a `resources/subscribe`; in the modern one all are the filter of one
//! `subscriptions/listen`, and a new one is opened before the old one is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use comity_protocol::call::methods::{ACKNOWLEDGED, RESOURCE_UPDATED, SUBSCRIBE};
use comity_protocol::json::{self, RawObject};
use comity_protocol::jsonrpc::{Message, RpcError, codes};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::profile::Era;
use super::session::{Patience, Request, RequestError, Session};
use crate::exchange::{Exchange, ExchangeSender, Failure, Incoming, Outcome, Outgoing, exchange};

/// Watchers of one server. One more is refused as overloaded.
pub(super) const WATCHERS_MAX: usize = 1024;

/// URIs whose changes may wait to be passed on. Beyond it every watcher is told of a change.
const UPDATES_MAX: usize = 1024;

/// How long a server may take to agree.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who watches which resources of one server.
#[derive(Debug, Default)]
pub(super) struct Hub {
    state: Mutex<State>,
    /// Somebody came or went.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    watchers: BTreeMap<u64, Watcher>,
    last: u64,
}

#[derive(Debug)]
struct Watcher {
    uri: String,
    to: ExchangeSender,
    /// Whether it knows that it holds.
    acknowledged: bool,
}

impl Hub {
    /// Watches the resource that `params` name. Must be called within a tokio runtime.
    pub(super) fn watch(self: &Arc<Self>, params: &RawValue) -> Exchange {
        let uri = json::field(params, "uri").ok().flatten().and_then(json::as_str);
        let Some(uri) = uri.map(std::borrow::Cow::into_owned) else {
            let detail = "`uri` must be a string".to_owned();
            return Exchange::failed(Failure::Refused { code: codes::INVALID_PARAMS, detail });
        };
        let (exchange, peer) = exchange();
        let id = {
            let mut state = self.lock();
            if state.watchers.len() >= WATCHERS_MAX {
                let detail = format!("{WATCHERS_MAX} subscriptions at the server already");
                return Exchange::failed(Failure::Overloaded { handed_over: false, detail });
            }
            state.last += 1;
            let id = state.last;
            state.watchers.insert(id, Watcher { uri, to: peer.sender, acknowledged: false });
            id
        };
        self.changed.notify_one();
        let (hub, mut outgoing) = (self.clone(), peer.outgoing);
        tokio::spawn(async move {
            while let Some(Outgoing::Message(_)) = outgoing.recv().await {}
            hub.leave(id);
        });
        exchange
    }

    fn leave(&self, id: u64) {
        let gone = self.lock().watchers.remove(&id);
        if let Some(watcher) = gone {
            watcher.to.finish(Outcome::Failed(Failure::Cancelled { handed_over: true }));
            self.changed.notify_one();
        }
    }

    /// What is watched.
    fn wanted(&self) -> BTreeSet<String> {
        self.lock().watchers.values().map(|watcher| watcher.uri.clone()).collect()
    }

    /// The server has agreed to tell of `uri`. Who was told so before is told of a change where `again` says that the
    /// server has been away.
    fn acknowledge(&self, uri: &str, again: bool) {
        for watcher in self.lock().watchers.values_mut().filter(|watcher| watcher.uri == uri) {
            let params = Some(uri_params(uri));
            let told = match watcher.acknowledged {
                false => Message::notification(ACKNOWLEDGED, params),
                true if again => Message::notification(RESOURCE_UPDATED, params),
                true => continue,
            };
            watcher.acknowledged = true;
            watcher.tell(told);
        }
    }

    /// The server does not agree: its watchers are told why.
    fn refuse(&self, uri: &str, outcome: &Outcome) {
        let mut state = self.lock();
        let gone: Vec<u64> =
            state.watchers.iter().filter(|(_, watcher)| watcher.uri == uri).map(|(id, _)| *id).collect();
        for watcher in gone.iter().filter_map(|id| state.watchers.remove(id)) {
            watcher.to.finish(outcome.clone());
        }
    }

    /// A resource has changed, as the server wrote it. Whoever watches what contains it is told too: a server may name a
    /// part of what was subscribed to.
    fn updated(&self, uri: &str, params: &RawValue) {
        let part_of = |watched: &str| {
            uri.strip_prefix(watched).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '#', '?']))
        };
        for watcher in self.lock().watchers.values().filter(|watcher| part_of(&watcher.uri)) {
            watcher.tell(Message::notification(RESOURCE_UPDATED, Some(params.to_owned())));
        }
    }

    fn updated_all(&self) {
        for watcher in self.lock().watchers.values().filter(|watcher| watcher.acknowledged) {
            watcher.tell(Message::notification(RESOURCE_UPDATED, Some(uri_params(&watcher.uri))));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Who does not keep up has a change waiting already; who is gone shows at its other half.
    fn tell(&self, message: Message) {
        let _ = self.to.try_send(message);
    }
}

/// Changes that a session has heard of and nobody has passed on yet: of each URI the last.
#[derive(Debug, Default)]
pub(super) struct Updates {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    by_uri: BTreeMap<String, Box<RawValue>>,
    /// There were more than are kept.
    overflow: bool,
}

impl Updates {
    /// Notes a change. Never waits.
    pub(super) fn note(&self, params: Box<RawValue>) {
        let uri = json::field(&params, "uri").ok().flatten().and_then(json::as_str);
        let Some(uri) = uri.map(std::borrow::Cow::into_owned) else { return };
        let params = without_envelope(params);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.by_uri.len() < UPDATES_MAX || waiting.by_uri.contains_key(&uri) {
            waiting.by_uri.insert(uri, params);
        } else {
            waiting.overflow = true;
        }
        drop(waiting);
        self.some.notify_one();
    }

    fn pass_on(&self, hub: &Hub) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for (uri, params) in &waiting.by_uri {
            hub.updated(uri, params);
        }
        if waiting.overflow {
            hub.updated_all();
        }
    }
}

/// Makes one life of the server serve the hub, until its session ends.
pub(super) async fn keep(session: Session, hub: Arc<Hub>) {
    let mut kept = Kept { session: &session, hub: &hub, subscribed: BTreeSet::new(), listening: None };
    loop {
        kept.reconcile().await;
        tokio::select! {
            () = session.signals().closed.cancelled() => return,
            () = hub.changed.notified() => {}
            () = session.signals().updates.some.notified() => session.signals().updates.pass_on(&hub),
            () = kept.lost() => {}
        }
    }
}

struct Kept<'a> {
    session: &'a Session,
    hub: &'a Hub,
    subscribed: BTreeSet<String>,
    /// The open `subscriptions/listen` of the modern era.
    listening: Option<Exchange>,
}

impl Kept<'_> {
    async fn reconcile(&mut self) {
        let wanted = self.hub.wanted();
        if wanted != self.subscribed {
            match self.session.era() {
                Some(Era::Modern) => self.listen(wanted).await,
                _ => self.subscribe(wanted).await,
            }
        }
        // Who came to a URI that is subscribed to already.
        for uri in &self.subscribed {
            self.hub.acknowledge(uri, false);
        }
    }

    async fn subscribe(&mut self, wanted: BTreeSet<String>) {
        for uri in self.subscribed.difference(&wanted) {
            let left = self.session.request("resources/unsubscribe", Some(&uri_params(uri)), PATIENCE).await;
            if let Err(error) = left {
                tracing::debug!(server = %self.session.server(), %error, "a subscription was not taken back");
            }
        }
        self.subscribed.retain(|uri| wanted.contains(uri));
        for uri in wanted {
            if self.subscribed.contains(&uri) {
                continue;
            }
            match self.session.request(SUBSCRIBE, Some(&uri_params(&uri)), PATIENCE).await {
                Ok(_) => {
                    self.hub.acknowledge(&uri, true);
                    self.subscribed.insert(uri);
                }
                // In its next life it is asked again.
                Err(_) if self.session.signals().closed.is_cancelled() => return,
                Err(error) => self.hub.refuse(&uri, &outcome_of(error)),
            }
        }
    }

    /// Opens a stream for all that is wanted, and only then lets the one before go.
    async fn listen(&mut self, wanted: BTreeSet<String>) {
        if wanted.is_empty() {
            (self.listening, self.subscribed) = (None, wanted);
            return;
        }
        let filter = serde_json::json!({ "notifications": { "resourceSubscriptions": wanted } });
        let params = json::to_raw(&filter);
        let mut exchange = self.session.open(Request {
            method: "subscriptions/listen",
            params: Some(&params),
            caller: None,
            traceparent: None,
            capabilities: None,
            patience: Patience { silence: None, total: None },
        });
        let agreed = match timeout(PATIENCE, acknowledged(&mut exchange)).await {
            Ok(agreed) => agreed,
            Err(_) => Err(Outcome::Failed(Failure::Timeout { handed_over: true, after: PATIENCE })),
        };
        let known = std::mem::take(&mut self.subscribed);
        match agreed {
            Ok(agreed) => {
                for uri in wanted.difference(&agreed) {
                    self.hub.refuse(uri, &Outcome::Error(not_subscribable(uri).to_raw()));
                }
                for uri in agreed.intersection(&wanted).filter(|uri| !known.contains(*uri)) {
                    self.hub.acknowledge(uri, true);
                }
                self.subscribed = agreed.intersection(&wanted).cloned().collect();
                self.listening = Some(exchange);
            }
            Err(_) if self.session.signals().closed.is_cancelled() => {}
            Err(outcome) => {
                for uri in &wanted {
                    self.hub.refuse(uri, &outcome);
                }
                self.listening = None;
            }
        }
    }

    /// Waits until the server has ended the stream; it is opened again then.
    async fn lost(&mut self) {
        let Some(exchange) = &mut self.listening else { return std::future::pending().await };
        while let Incoming::Message(_) = exchange.next().await {}
        self.listening = None;
        self.subscribed.clear();
        // A server that ends every stream at once must not be asked without a pause.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The URIs that the server has agreed to tell of.
async fn acknowledged(exchange: &mut Exchange) -> Result<BTreeSet<String>, Outcome> {
    loop {
        match exchange.next().await {
            Incoming::Message(message) if message.method() == Some(ACKNOWLEDGED) => {
                let agreed = message
                    .params()
                    .and_then(|params| json::path(params, &["notifications", "resourceSubscriptions"]));
                return Ok(agreed.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default());
            }
            Incoming::Message(_) => {}
            Incoming::Done(outcome) => return Err(outcome),
        }
    }
}

fn outcome_of(error: RequestError) -> Outcome {
    match error {
        RequestError::Rpc(error) => Outcome::Error(error.to_raw()),
        RequestError::Failed(failure) => Outcome::Failed(failure),
    }
}

fn not_subscribable(uri: &str) -> RpcError {
    RpcError::new(codes::INVALID_PARAMS, format!("the server does not tell of changes of {uri}"))
}

/// What names the server's own stream of notifications is no business of whoever watches.
fn without_envelope(params: Box<RawValue>) -> Box<RawValue> {
    let edited = RawObject::parse(&params).ok().and_then(|mut params| {
        let mut meta = params.get_object("_meta").ok()??;
        meta.retain(|key| !key.starts_with("io.modelcontextprotocol/"));
        match meta.is_empty() {
            true => drop(params.remove("_meta")),
            false => params.set("_meta", meta.to_raw()),
        }
        Some(params.to_raw())
    });
    edited.unwrap_or(params)
}

fn uri_params(uri: &str) -> Box<RawValue> {
    let mut params = RawObject::new();
    params.set_str("uri", uri);
    params.to_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(exchange: &mut Exchange) -> (String, String) {
        match exchange.next().await {
            Incoming::Message(message) => {
                let uri =
                    message.params().and_then(|params| json::path(params, &["uri"])).and_then(json::as_str);
                (message.method().unwrap().to_owned(), uri.unwrap_or_default().into_owned())
            }
            Incoming::Done(outcome) => panic!("{outcome:?}"),
        }
    }

    fn of(method: &str, uri: &str) -> (String, String) {
        (method.to_owned(), uri.to_owned())
    }

    #[tokio::test]
    async fn watchers_of_one_uri_share_it_and_each_is_told_once() {
        let hub = Arc::new(Hub::default());
        let (mut one, mut two) = (hub.watch(&uri_params("f:a")), hub.watch(&uri_params("f:a")));
        let mut other = hub.watch(&uri_params("f:b"));
        assert_eq!(hub.wanted().into_iter().collect::<Vec<_>>(), ["f:a", "f:b"]);
        hub.acknowledge("f:a", true);
        hub.acknowledge("f:a", false);
        hub.updated("f:a", &uri_params("f:a"));
        hub.updated("f:a/part", &uri_params("f:a/part"));
        hub.updated("f:ab", &uri_params("f:ab"));
        hub.acknowledge("f:a", true);
        for exchange in [&mut one, &mut two] {
            assert_eq!(next(exchange).await, of(ACKNOWLEDGED, "f:a"));
            assert_eq!(next(exchange).await, of(RESOURCE_UPDATED, "f:a"));
            assert_eq!(next(exchange).await, of(RESOURCE_UPDATED, "f:a/part"));
            assert_eq!(next(exchange).await, of(RESOURCE_UPDATED, "f:a"), "the server has been away");
        }
        hub.refuse("f:b", &Outcome::Error(not_subscribable("f:b").to_raw()));
        assert!(matches!(other.next().await, Incoming::Done(Outcome::Error(_))));
        drop((one, two));
        while !hub.wanted().is_empty() {
            hub.changed.notified().await;
        }
    }

    #[tokio::test]
    async fn watchers_and_waiting_changes_are_bounded() {
        let hub = Arc::new(Hub::default());
        let mut all: Vec<_> = (0..WATCHERS_MAX).map(|n| hub.watch(&uri_params(&format!("f:{n}")))).collect();
        let further = hub.watch(&uri_params("f:x")).outcome().await;
        assert!(matches!(further, Outcome::Failed(Failure::Overloaded { .. })), "{further:?}");
        hub.acknowledge("f:7", true);
        let updates = Updates::default();
        for n in 0..UPDATES_MAX + 10 {
            updates.note(uri_params(&format!("g:{n}")));
        }
        updates.note(json::to_raw(&7));
        updates.pass_on(&hub);
        assert_eq!(next(&mut all[7]).await, of(ACKNOWLEDGED, "f:7"));
        assert_eq!(next(&mut all[7]).await, of(RESOURCE_UPDATED, "f:7"), "too much to tell of changes what");
    }
}
