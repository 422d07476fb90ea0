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
    sync::{
        OwnedSemaphorePermit,
        mpsc::{self, error::TryRecvError},
        oneshot,
    },
    time::{Instant, sleep_until},
};

use super::{
    conversation::{CallKey, CancelReason, Conversation},
    logging::Threshold,
    suspended::{self, Asked, Parked, Rounds, Suspended},
};
use crate::{
    exchange::{self, Exchange, Failure, Incoming, Outcome, Outgoing},
    gateway::{ClientProfile, Era},
    input::Ability,
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
    client: ClientProfile,
    exchange: Exchange,
    /// The client's own token, as it wrote it.
    progress_token: Option<Box<RawValue>>,
    logs: Logs,
    link: Option<Link>,
    /// Answers of ours to the server.
    replies: VecDeque<Outgoing>,
    /// Where a call of a modern client waits for input.
    waiting: Option<Waiting>,
    /// What its server has asked and the client is still to be told.
    asked: Vec<Asked>,
    rounds: Rounds,
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
    pub(super) client: ClientProfile,
    pub(super) progress_token: Option<Box<RawValue>>,
    pub(super) logs: Logs,
    /// For modern clients only.
    pub(super) waiting: Option<Waiting>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Where a call of a modern client can wait for input, and whose it is.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) suspended: Arc<Suspended>,
    pub(super) principal: Arc<str>,
    /// The call: its method and what it is about.
    pub(super) what: String,
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
    pub(super) fn new(parts: CallParts, exchange: Exchange, link: Option<Link>) -> Self {
        let (replies, asked, rounds) = (VecDeque::new(), Vec::new(), Rounds::default());
        Self::resume(parts, Parked { exchange, asked, replies, rounds }, link)
    }

    /// A call that waited for input and has been brought some.
    pub(super) fn resume(parts: CallParts, parked: Parked, link: Option<Link>) -> Self {
        let CallParts { id, client, progress_token, logs, waiting, permit } = parts;
        let Parked { exchange, asked, replies, rounds } = parked;
        let settle = None;
        Self {
            id,
            client,
            exchange,
            progress_token,
            logs,
            link,
            replies,
            waiting,
            asked,
            rounds,
            settle,
            permit,
        }
    }

    /// Ends the call, but keeps its place among those in flight for whoever still holds its messages.
    pub(super) fn into_permit(self) -> OwnedSemaphorePermit {
        self.permit
    }

    /// What to send next, with the outcome always as the last. Cancel-safe. Not to be called after [`Wire::Last`].
    pub(super) async fn next(&mut self) -> Wire {
        loop {
            if !self.asked.is_empty() && self.settle.is_none() {
                if let Some(wire) = self.ask_client() {
                    return wire;
                }
                continue;
            }
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
                self.server_request(id, method, params)
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
        let (message, code) = outcome::answer(&self.id, self.client.era, outcome);
        Wire::Last(Last { message, code, cancelled: self.settle.is_some() })
    }

    fn last_error(&self, error: &RpcError) -> Wire {
        self.last(Outcome::Error(error.to_raw()))
    }

    fn notification(&mut self, method: String, params: Option<Box<RawValue>>) -> Option<Message> {
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
    fn server_cancelled(&mut self, params: &RawValue) -> Option<Box<RawValue>> {
        let mut params = RawObject::parse(params).ok()?;
        let id = params.get("requestId").and_then(Id::from_raw)?;
        // A modern client has not been told of it yet, and need not be.
        self.asked.retain(|asked| asked.id != id);
        let link = self.link.as_ref()?;
        params.set("requestId", link.conversation.withdraw(link.key, &id)?.to_raw());
        Some(params.to_raw())
    }

    /// A server asks the client something. What the client has not said it can do, it is not asked.
    fn server_request(&mut self, id: Id, method: String, params: Option<Box<RawValue>>) -> Option<Wire> {
        let ability = Ability::to_answer(&method, params.as_deref());
        let able = ability.is_some_and(|ability| ability.is_among(self.client.capabilities.as_deref()));
        match (self.client.era, ability) {
            (Era::Legacy, Some(_)) if able => self.relay_request(id, method, params).map(Wire::Message),
            (Era::Modern, Some(_)) if able => {
                self.note_request(id, &method, params);
                None
            }
            // Servers like to know the roots and do without; what else they ask for the call depends on.
            (Era::Modern, Some(ability)) if ability != Ability::Roots => {
                Some(self.last_error(&ability.missing()))
            }
            _ => {
                let why = format!("the client does not take this request: {method}");
                self.refuse(id, &RpcError::new(codes::METHOD_NOT_FOUND, why));
                None
            }
        }
    }

    /// Notes what a modern client is to be asked.
    fn note_request(&mut self, id: Id, method: &str, params: Option<Box<RawValue>>) {
        if self.waiting.is_none()
            || self.rounds.waited >= suspended::ROUNDS_MAX
            || self.asked.len() >= suspended::ASKED_MAX
        {
            return self
                .refuse(id, &RpcError::new(codes::OVERLOADED, "the client has been asked too much already"));
        }
        self.rounds.asked += 1;
        self.asked.push(Asked::new(self.rounds.asked, id, method, params));
    }

    /// Asks a modern client what its server wants to know: the request is answered `input_required`, and the call waits.
    /// First comes what is here already: further requests for the same round, or the end, which makes them moot.
    fn ask_client(&mut self) -> Option<Wire> {
        match self.exchange.incoming.try_recv() {
            Ok(incoming) => self.translate(Some(incoming)),
            Err(TryRecvError::Disconnected) => self.translate(None),
            Err(TryRecvError::Empty) => self.suspend(),
        }
    }

    fn suspend(&mut self) -> Option<Wire> {
        let waiting = self.waiting.as_ref()?;
        let (ended, _) = exchange::exchange();
        let parked = Parked {
            exchange: std::mem::replace(&mut self.exchange, ended),
            asked: std::mem::take(&mut self.asked),
            replies: std::mem::take(&mut self.replies),
            rounds: Rounds { waited: self.rounds.waited + 1, ..self.rounds },
        };
        let requests = Parked::input_requests(&parked.asked);
        match waiting.suspended.keep(&waiting.principal, &waiting.what, parked) {
            Ok(state) => Some(self.last(Outcome::Result(Parked::input_required(requests, &state)))),
            Err(parked) => {
                self.exchange = parked.exchange;
                self.replies = parked.replies;
                for asked in parked.asked {
                    self.refuse(asked.id, &RpcError::new(codes::OVERLOADED, "too many calls wait for input"));
                }
                None
            }
        }
    }

    fn relay_request(&mut self, id: Id, method: String, params: Option<Box<RawValue>>) -> Option<Message> {
        let Some(link) = &self.link else {
            self.refuse(id, &RpcError::new(codes::METHOD_NOT_FOUND, "the client cannot be asked"));
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
