//! The resources that one client watches, and what it has not been told of them yet.
//!
//! Told by level, like the lists: however often a resource changes while its client is away or slow, one notification
//! waits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use comity_protocol::{
    call::methods::{ACKNOWLEDGED, RESOURCE_UPDATED},
    json,
    jsonrpc::Message,
};
use serde_json::value::RawValue;
use tokio::sync::{Notify, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::exchange::{Exchange, Incoming, Outcome};

/// Resources that one client may watch. One more is refused.
pub(super) const WATCHES_MAX: usize = 256;

/// Changes of parts of resources that may wait for one client; beyond it the whole is said to have changed.
const PARTS_MAX: usize = 1024;

/// The resources that one client watches. Dropping it ends all.
#[derive(Debug, Default)]
pub(super) struct Watches {
    table: Mutex<BTreeMap<String, AbortOnDropHandle<()>>>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The params of the last notification of each URI.
    updates: Mutex<BTreeMap<String, Box<RawValue>>>,
    some: Notify,
}

/// Hears whether a subscription holds, or how it failed.
pub(super) type Holds = oneshot::Receiver<Result<(), Outcome>>;

impl Watches {
    /// Whether another fits.
    pub(super) fn has_room(&self) -> bool {
        lock(&self.table).len() < WATCHES_MAX
    }

    /// Watches `uri` through `exchange`, in place of an older watch of it. Must be called within a tokio runtime.
    pub(super) fn watch(&self, uri: String, exchange: Exchange) -> Holds {
        let (holds, heard) = oneshot::channel();
        let task = tokio::spawn(follow(uri.clone(), exchange, holds, Arc::clone(&self.waiting)));
        lock(&self.table).insert(uri, AbortOnDropHandle::new(task));
        heard
    }

    /// Ends the watch of `uri`.
    pub(super) fn unwatch(&self, uri: &str) {
        let gone = lock(&self.table).remove(uri);
        drop(gone);
        lock(&self.waiting.updates).remove(uri);
    }

    /// What the client has not been told yet, one at a time.
    pub(super) fn take(&self) -> Option<Box<RawValue>> {
        lock(&self.waiting.updates).pop_first().map(|(_, params)| params)
    }

    /// Says of every watched resource that it may have changed: nobody knows what the client has heard.
    pub(super) fn tell_again(&self) {
        for uri in lock(&self.table).keys() {
            self.waiting.note(uri, json::to_raw(&serde_json::json!({ "uri": uri })));
        }
    }

    /// Waits until there may be something to [`take`](Self::take). Cancel-safe.
    pub(super) async fn some(&self) {
        self.waiting.some.notified().await;
    }
}

impl Waiting {
    fn note(&self, watched: &str, params: Box<RawValue>) {
        let uri = json::path(&params, &["uri"]).and_then(json::as_str).map(std::borrow::Cow::into_owned);
        let uri = uri.unwrap_or_else(|| watched.to_owned());
        let mut updates = lock(&self.updates);
        if updates.len() < PARTS_MAX || updates.contains_key(&uri) {
            updates.insert(uri, params);
        } else {
            let whole = json::to_raw(&serde_json::json!({ "uri": watched }));
            updates.insert(watched.to_owned(), whole);
        }
        drop(updates);
        self.some.notify_one();
    }
}

async fn follow(
    uri: String,
    mut exchange: Exchange,
    holds: oneshot::Sender<Result<(), Outcome>>,
    waiting: Arc<Waiting>,
) {
    // Whoever waits to hear it may have gone.
    let mut holds = Some(holds);
    loop {
        match exchange.next().await {
            Incoming::Message(Message::Notification { method, params }) => match (method.as_str(), params) {
                (ACKNOWLEDGED, _) => drop(holds.take().map(|holds| holds.send(Ok(())))),
                (RESOURCE_UPDATED, Some(params)) => waiting.note(&uri, params),
                _ => {}
            },
            Incoming::Message(_) => {}
            Incoming::Done(outcome) => return drop(holds.take().map(|holds| holds.send(Err(outcome)))),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section here is a single change of a table.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::exchange;

    fn params(uri: &str, n: u32) -> Option<Box<RawValue>> {
        Some(json::to_raw(&serde_json::json!({ "uri": uri, "n": n })))
    }

    #[tokio::test]
    async fn of_many_changes_the_last_waits_and_no_more_than_may() {
        let watches = Watches::default();
        let (requester, peer) = exchange();
        let holds = watches.watch("f:a".into(), requester);
        peer.sender.try_send(Message::notification(ACKNOWLEDGED, None)).unwrap();
        assert!(holds.await.unwrap().is_ok());
        for n in 0..3 {
            peer.sender.send(Message::notification(RESOURCE_UPDATED, params("f:a", n))).await.unwrap();
        }
        while lock(&watches.waiting.updates).get("f:a").is_none_or(|last| !last.get().contains(r#""n":2"#)) {
            watches.some().await;
        }
        assert!(watches.take().is_some() && watches.take().is_none());
        for n in 0..PARTS_MAX + 5 {
            watches.waiting.note("f:a", params(&format!("f:a/{n}"), 0).unwrap());
        }
        assert_eq!(lock(&watches.waiting.updates).len(), PARTS_MAX + 1);
        watches.unwatch("f:a");
        let mut outgoing = peer.outgoing;
        assert!(outgoing.recv().await.is_none(), "nobody listens any more");
    }

    #[tokio::test]
    async fn a_subscription_that_fails_says_so() {
        let watches = Watches::default();
        let (requester, peer) = exchange();
        let holds = watches.watch("f:a".into(), requester);
        peer.finish(Outcome::Error(json::to_raw(&7)));
        assert!(matches!(holds.await.unwrap(), Err(Outcome::Error(_))));
    }
}
