//! Notifications that belong to no call: the catalogue has changed.
//!
//! They are told by level, not by edge: a feed compares what its client was last told with what holds now. However
//! many changes come while a client is away or slow, one notification waits for it, and none is lost.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use comity_protocol::{
    json,
    jsonrpc::{Id, Message},
};
use serde_json::{json, value::RawValue};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Core, Link, handshake};

const TOOLS_CHANGED: &str = "notifications/tools/list_changed";

/// Tells a legacy client of changes, from one connection to the next.
#[derive(Debug)]
pub(in crate::face) struct ChangeFeed {
    changes: watch::Receiver<u64>,
    /// The last change that the client knows of.
    told: Arc<AtomicU64>,
}

impl ChangeFeed {
    pub(in crate::face) fn new(changes: watch::Receiver<u64>, told: Arc<AtomicU64>) -> Self {
        Self { changes, told }
    }

    /// The next notification, and the number of the change that it tells of; `None` when the catalogue is gone.
    /// Cancel-safe.
    pub(in crate::face) async fn next(&mut self) -> Option<(u64, Message)> {
        loop {
            let now = *self.changes.borrow_and_update();
            if self.told.swap(now, Ordering::Relaxed) != now {
                return Some((now, Message::notification(TOOLS_CHANGED, None)));
            }
            self.changes.changed().await.ok()?;
        }
    }
}

/// A `subscriptions/listen` of 2026-07-28.
#[derive(Debug)]
pub(in crate::face) struct Subscription {
    id: Id,
    tools: bool,
    stage: Stage,
    changes: watch::Receiver<u64>,
    draining: CancellationToken,
    link: Option<Link>,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Open,
    Closed,
}

impl Subscription {
    pub(super) fn new(id: Id, tools: bool, link: Option<Link>, core: &Core) -> Self {
        let mut changes = core.changes();
        changes.mark_unchanged();
        Self { id, tools, stage: Stage::Opening, changes, draining: core.draining.clone(), link }
    }

    /// The next message: the acknowledgement, then changes, at last the result when the node goes down. `None` once
    /// that is sent or the client has cancelled. Cancel-safe.
    pub(in crate::face) async fn next(&mut self) -> Option<Message> {
        match self.stage {
            Stage::Closed => return None,
            Stage::Opening => {
                self.stage = Stage::Open;
                return Some(self.acknowledgement());
            }
            Stage::Open => {}
        }
        let cancelled = async {
            match &mut self.link {
                Some(link) => link.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = cancelled => {
                self.stage = Stage::Closed;
                None
            }
            () = self.draining.cancelled() => Some(self.close()),
            change = self.changes.changed(), if self.tools => match change {
                Ok(()) => Some(self.changed()),
                Err(_) => Some(self.close()),
            },
        }
    }

    fn acknowledgement(&self) -> Message {
        let accepted = if self.tools { json!({ "toolsListChanged": true }) } else { json!({}) };
        let params = json!({ "_meta": { SUBSCRIPTION_ID: self.id }, "notifications": accepted });
        Message::notification("notifications/subscriptions/acknowledged", Some(json::to_raw(&params)))
    }

    fn changed(&self) -> Message {
        let params: Box<RawValue> = json::to_raw(&json!({ "_meta": { SUBSCRIPTION_ID: self.id } }));
        Message::notification(TOOLS_CHANGED, Some(params))
    }

    fn close(&mut self) -> Message {
        self.stage = Stage::Closed;
        let mut meta = handshake::server_meta();
        meta[SUBSCRIPTION_ID] = json!(self.id);
        let result = json::to_raw(&json!({ "resultType": "complete", "_meta": meta }));
        Message::Response { id: self.id.clone(), result }
    }
}

const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
