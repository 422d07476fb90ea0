//! What comes from the server, and whose it is. The rules are [`table`](super::super::table)'s.

use std::sync::atomic::Ordering;

use comity_protocol::call::methods::{ACKNOWLEDGED, RESOURCE_UPDATED};
use comity_protocol::json::{self, RawObject};
use comity_protocol::jsonrpc::{Id, Message, RpcError, codes};
use serde_json::value::RawValue;

use super::super::noise::printable;
use super::super::table::{Delivery, Ended};
use super::Session;
use crate::exchange::Outcome;

impl Session {
    /// Takes in one message of the server. `origin` is the call on whose own stream it came, if the
    /// transport has such a thing. Never waits.
    pub(in super::super) fn receive(&self, message: Message, origin: Option<i64>) {
        self.0.table.hear();
        match message {
            Message::Response { id, result } => self.answered(&id, Outcome::Result(result)),
            Message::Error { id: Some(id), error } => self.answered(&id, Outcome::Error(error)),
            Message::Error { id: None, error } => self.answered_without_id(origin, error),
            Message::Notification { method, params } => self.notified(method, params, origin),
            Message::Request { id, method, params } => self.asked(id, method, params, origin),
        }
    }

    pub(super) fn answered(&self, id: &Id, outcome: Outcome) {
        let ended = match id {
            Id::Number(number) => self.0.table.finish(*number, outcome),
            Id::String(_) => None,
        };
        match ended {
            Some(ended) => self.refuse_asked(ended),
            None => self.drop_stray("an answer to no call in flight"),
        }
    }

    /// Some servers answer what they cannot read with an error that lacks the id. If only one call
    /// can be meant, waiting any longer for it would be in vain.
    fn answered_without_id(&self, origin: Option<i64>, error: Box<RawValue>) {
        match origin.or_else(|| self.0.table.sole()) {
            Some(id) => self.answered(&Id::Number(id), Outcome::Error(error)),
            None => self.drop_stray("an error without an id"),
        }
    }

    fn notified(&self, method: String, params: Option<Box<RawValue>>, origin: Option<i64>) {
        match method.as_str() {
            "notifications/progress" => self.progressed(params.as_deref()),
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => self.0.signals.lists_changed.notify_one(),
            "notifications/cancelled" => self.withdrawn(params),
            RESOURCE_UPDATED => {
                if let Some(params) = params {
                    self.0.signals.updates.note(params);
                }
            }
            ACKNOWLEDGED => self.acknowledged(method, params, origin),
            _ => match origin.or_else(|| self.0.table.sole()) {
                Some(id) => {
                    self.delivered(self.0.table.deliver(id, Message::Notification { method, params }))
                }
                None => self.unattributed(&method, params.as_deref()),
            },
        }
    }

    /// A stream of notifications is open: on a pipe its name says which.
    fn acknowledged(&self, method: String, params: Option<Box<RawValue>>, origin: Option<i64>) {
        const NAME: [&str; 2] = ["_meta", "io.modelcontextprotocol/subscriptionId"];
        let named = params.as_deref().and_then(|params| json::path(params, &NAME));
        let id = named.and_then(|name| name.get().parse().ok());
        if let Some(id) = origin.or(id) {
            self.delivered(self.0.table.deliver(id, Message::Notification { method, params }));
        }
    }

    fn progressed(&self, params: Option<&RawValue>) {
        match params.map(RawObject::parse) {
            Some(Ok(params)) => self.delivered(self.0.table.progress(params)),
            _ => self.drop_stray("progress without params"),
        }
    }

    /// The server takes back a request of its own.
    fn withdrawn(&self, params: Option<Box<RawValue>>) {
        let request = params.as_deref().and_then(|params| json::path(params, &["requestId"]));
        let call = request.and_then(Id::from_raw).and_then(|request| self.0.table.asked(&request));
        match call {
            Some(id) => {
                let message = Message::notification("notifications/cancelled", params);
                self.delivered(self.0.table.deliver(id, message));
            }
            None => self.drop_stray("a cancellation of no known request"),
        }
    }

    /// A log message, or something newer than we are, that could be any call's: for the node's own
    /// log and for no caller.
    fn unattributed(&self, method: &str, params: Option<&RawValue>) {
        let text = params.map(|params| printable(params.get().as_bytes())).unwrap_or_default();
        tracing::debug!(server = %self.0.server, method, "for no call in particular: {text}");
        self.0.stray.fetch_add(1, Ordering::Relaxed);
    }

    fn asked(&self, id: Id, method: String, params: Option<Box<RawValue>>, origin: Option<i64>) {
        if method == "ping" {
            return self.send(&Message::Response { id, result: RawObject::new().to_raw() });
        }
        let Some(call) = origin.or_else(|| self.0.table.sole()) else {
            return self.refuse(id, &format!("{method} cannot be tied to one call, and so to one client"));
        };
        if !self.0.table.ask(call, &id) {
            return self.refuse(id, "the call is over, or has too many requests open");
        }
        self.delivered(self.0.table.deliver(call, Message::Request { id, method, params }));
    }

    fn delivered(&self, delivery: Delivery) {
        match delivery {
            Delivery::Done => {}
            Delivery::Unknown => self.drop_stray("a message for no call in flight"),
            Delivery::Overloaded(id, ended) => {
                self.tell_cancelled(id, Some("the client does not keep up"));
                self.refuse_asked(ended);
            }
        }
    }

    fn drop_stray(&self, what: &str) {
        self.0.stray.fetch_add(1, Ordering::Relaxed);
        tracing::trace!(server = %self.0.server, what, "dropped");
    }

    /// Answers what the server asked on account of a call that has ended.
    pub(super) fn refuse_asked(&self, ended: Ended) {
        for id in ended.asked {
            self.refuse(id, "the call that this belonged to is over");
        }
    }

    fn refuse(&self, id: Id, why: &str) {
        self.send(&Message::error(Some(id), &RpcError::new(codes::METHOD_NOT_FOUND, why)));
    }
}
