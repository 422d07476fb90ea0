//! One call in flight: from what arrives on its `Exchange` to what its client is sent.
//!
//! Only what belongs to this leg is rewritten: the id of the request, the client's progress token, the ids of server
//! requests, and the members by which the two eras differ. Everything else goes through as it came.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use comity_protocol::{
    json::{self, RawObject},
    jsonrpc::{Id, Message, RpcError, codes},
};
use serde_json::value::RawValue;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    conversation::{CallKey, CancelReason, Conversation},
    logging::Threshold,
};
use crate::{
    exchange::{Exchange, Failure, Incoming, Outcome, Outgoing},
    gateway::Era,
};

mod outcome;

/// Refusals that may wait for a server that sends faster than it reads; the oldest gives way.
const REFUSALS_MAX: usize = 32;

/// How long a cancelled call may take to end by itself.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// A call as its client's transport drives it. Dropping it cancels the call.
#[derive(Debug)]
pub(super) struct Call {
    id: Id,
    era: Era,
    exchange: Exchange,
    /// The client's own token, as it wrote it.
    progress_token: Option<Box<RawValue>>,
    logs: Logs,
    link: Option<Link>,
    /// Answers of ours to the server.
    replies: VecDeque<Outgoing>,
    /// Set once cancelled: when to stop waiting.
    settle: Option<Instant>,
    permit: OwnedSemaphorePermit,
}

/// Which log messages pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logs {
    /// What the conversation says at the time.
    AsConversation,
    /// What the request said.
    Fixed(Threshold),
}

/// What a call needs to start.
pub(super) struct CallParts {
    pub(super) id: Id,
    pub(super) era: Era,
    pub(super) exchange: Exchange,
    pub(super) progress_token: Option<Box<RawValue>>,
    pub(super) logs: Logs,
    pub(super) permit: OwnedSemaphorePermit,
}

/// A call's entry in its conversation; leaving scope ends it there.
#[derive(Debug)]
pub(super) struct Link {
    conversation: Arc<Conversation>,
    id: Id,
    key: CallKey,
    cancelled: oneshot::Receiver<CancelReason>,
}

impl Link {
    /// Enters the request.
    ///
    /// # Errors
    /// As [`Conversation::begin`].
    pub(super) fn begin(conversation: &Arc<Conversation>, id: &Id) -> Result<Self, RpcError> {
        let (key, cancelled) = conversation.begin(id)?;
        Ok(Self { conversation: Arc::clone(conversation), id: id.clone(), key, cancelled })
    }

    /// Resolves when the client cancels. Not to be awaited again afterwards.
    pub(super) async fn cancelled(&mut self) -> CancelReason {
        // The sender lives in the conversation's table for as long as this entry does.
        (&mut self.cancelled).await.unwrap_or_default()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.conversation.end(&self.id, self.key);
    }
}

/// What the client is to be sent.
#[derive(Debug)]
pub(super) enum Wire {
    /// A notification or a server's request; more will come.
    Message(Message),
    /// The answer; nothing comes after it.
    Last(Last),
}

/// The answer to a call.
#[derive(Debug)]
pub(super) struct Last {
    /// A response or an error under the client's id.
    pub(super) message: Message,
    /// The code, if it is an error.
    pub(super) code: Option<i64>,
    /// Whether the client itself cancelled the call: it then expects no answer.
    pub(super) cancelled: bool,
}

impl Call {
    pub(super) fn new(parts: CallParts, link: Option<Link>) -> Self {
        let CallParts { id, era, exchange, progress_token, logs, permit } = parts;
        let replies = VecDeque::new();
        Self { id, era, exchange, progress_token, logs, link, replies, settle: None, permit }
    }

    /// Ends the call, but keeps its place among those in flight for whoever still holds its messages.
    pub(super) fn into_permit(self) -> OwnedSemaphorePermit {
        self.permit
    }

    /// What to send next, with the outcome always as the last. Cancel-safe. Not to be called after [`Wire::Last`].
    pub(super) async fn next(&mut self) -> Wire {
        loop {
            let (settle, waiting) = (self.settle, !self.replies.is_empty());
            tokio::select! {
                biased;
                reason = cancellation(&mut self.link), if settle.is_none() => self.cancel(reason),
                () = pass_on(&self.exchange.outgoing, &mut self.replies), if waiting => {}
                incoming = self.exchange.incoming.recv() => {
                    if let Some(wire) = self.translate(incoming) {
                        return wire;
                    }
                }
                () = sleep_until(settle.unwrap_or_else(Instant::now)), if settle.is_some() => {
                    return self.last(Outcome::Failed(Failure::Cancelled { handed_over: true }));
                }
            }
        }
    }

    fn cancel(&mut self, reason: CancelReason) {
        self.settle = Some(Instant::now() + SETTLE_MAX);
        self.replies.push_front(Outgoing::Cancel { reason });
    }

    fn translate(&mut self, incoming: Option<Incoming>) -> Option<Wire> {
        match incoming {
            Some(Incoming::Done(outcome)) => Some(self.last(outcome)),
            Some(Incoming::Message(_)) if self.settle.is_some() => None,
            Some(Incoming::Message(Message::Notification { method, params })) => {
                self.notification(method, params).map(Wire::Message)
            }
            Some(Incoming::Message(Message::Request { id, method, params })) => {
                self.server_request(id, method, params).map(Wire::Message)
            }
            // An answer to something the client never asked here.
            Some(Incoming::Message(Message::Response { .. } | Message::Error { .. })) => None,
            None => {
                let detail = "the call ended without an outcome".into();
                Some(self.last(Outcome::Failed(Failure::Internal { handed_over: true, detail })))
            }
        }
    }

    fn last(&self, outcome: Outcome) -> Wire {
        let (message, code) = outcome::answer(&self.id, self.era, outcome);
        Wire::Last(Last { message, code, cancelled: self.settle.is_some() })
    }

    fn notification(&self, method: String, params: Option<Box<RawValue>>) -> Option<Message> {
        let params = match method.as_str() {
            "notifications/progress" => Some(self.restore_token(params?)?),
            "notifications/message" if !self.threshold().admits(params.as_deref()) => return None,
            "notifications/cancelled" => Some(self.server_cancelled(&params?)?),
            _ => params,
        };
        Some(Message::Notification { method, params })
    }

    /// Progress goes only to a client that asked for it, under the very token that it chose.
    fn restore_token(&self, params: Box<RawValue>) -> Option<Box<RawValue>> {
        let token = self.progress_token.as_deref()?;
        let present = json::field(&params, "progressToken").ok()?;
        if present.is_some_and(|present| present.get() == token.get()) {
            return Some(params);
        }
        let mut params = RawObject::parse(&params).ok()?;
        params.set("progressToken", token.to_owned());
        Some(params.to_raw())
    }

    fn threshold(&self) -> Threshold {
        match (self.logs, &self.link) {
            (Logs::Fixed(threshold), _) => threshold,
            (Logs::AsConversation, Some(link)) => link.conversation.threshold.get(),
            (Logs::AsConversation, None) => Threshold::ALL,
        }
    }

    /// The server takes a request back: the client knows it by another id.
    fn server_cancelled(&self, params: &RawValue) -> Option<Box<RawValue>> {
        let link = self.link.as_ref()?;
        let mut params = RawObject::parse(params).ok()?;
        let id = params.get("requestId").and_then(Id::from_raw)?;
        params.set("requestId", link.conversation.withdraw(link.key, &id)?.to_raw());
        Some(params.to_raw())
    }

    fn server_request(&mut self, id: Id, method: String, params: Option<Box<RawValue>>) -> Option<Message> {
        let link = self.link.as_ref().filter(|_| self.era == Era::Legacy);
        let Some(link) = link else {
            let why = format!("the client's revision of MCP takes no requests from servers: {method}");
            self.refuse(id, &RpcError::new(codes::METHOD_NOT_FOUND, why));
            return None;
        };
        match link.conversation.ask(link.key, &self.exchange.outgoing, id.clone()) {
            Some(ours) => Some(Message::Request { id: ours, method, params }),
            None => {
                self.refuse(
                    id,
                    &RpcError::new(codes::OVERLOADED, "the client owes too many answers already"),
                );
                None
            }
        }
    }

    fn refuse(&mut self, id: Id, error: &RpcError) {
        if self.replies.len() >= REFUSALS_MAX {
            self.replies.pop_front();
        }
        self.replies.push_back(Outgoing::Message(Message::error(Some(id), error)));
    }
}

/// The client's cancellation; for ever pending where no client can say so.
async fn cancellation(link: &mut Option<Link>) -> CancelReason {
    match link {
        Some(link) => link.cancelled().await,
        None => std::future::pending().await,
    }
}

/// Sends the first reply once there is room for it. Cancel-safe: it is sent whole or stays.
async fn pass_on(outgoing: &mpsc::Sender<Outgoing>, replies: &mut VecDeque<Outgoing>) {
    match outgoing.reserve().await {
        Ok(room) => {
            if let Some(reply) = replies.pop_front() {
                room.send(reply);
            }
        }
        Err(_) => replies.clear(), // Nobody listens any more.
    }
}

#[cfg(test)]
mod tests;
