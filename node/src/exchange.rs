//! One request's conversation, as its requester sees it.
//!
//! The MCP face, the calls that come in over the mesh, the calls that go out over it and the upstream
//! sessions all meet at [`Exchange`]: what arrives for the call in wire order, what the requester
//! says back, and one [`Outcome`] that is always last. Payloads are raw JSON.
//!
//! Dropping an `Exchange` cancels the call. Dropping an [`ExchangePeer`] without an outcome ends it
//! as [`Failure::Internal`]: see [`Exchange::next`].

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use comity_protocol::json;
use comity_protocol::jsonrpc::{Message, RpcError, codes};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

/// Messages that may wait for a requester, besides the outcome, which always has room. A producer
/// that must not wait (an upstream's reader) fails the call with [`Failure::Overloaded`] when full.
pub const INCOMING_MAX: usize = 4096;

/// Bytes that those messages may take together, counted as payload and
/// `MESSAGE_OVERHEAD_BYTES` each. One message may exceed it by itself.
pub const INCOMING_BYTES_MAX: usize = 4 << 20;

/// What a waiting message costs besides its payload.
const MESSAGE_OVERHEAD_BYTES: usize = 160;

/// Messages that a requester may have waiting for its peer; a full queue makes the requester wait.
pub const OUTGOING_MAX: usize = 32;

/// The requester's end. Dropping it cancels the call.
#[derive(Debug)]
pub struct Exchange {
    /// What arrives for the call. [`Incoming::Done`] is always last.
    pub incoming: mpsc::Receiver<Incoming>,
    /// What the requester says: answers to the server's requests, notifications, cancellation.
    pub outgoing: mpsc::Sender<Outgoing>,
}

/// What arrives for a call.
#[derive(Debug)]
pub enum Incoming {
    /// A notification (progress, log) or a server's request tied to this call, in wire order. The id
    /// of a request is opaque: answer with a message that bears the same id.
    Message(Message),
    /// The end.
    Done(Outcome),
}

/// How a call ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The JSON-RPC result as the upstream wrote it.
    Result(Box<RawValue>),
    /// The JSON-RPC error object as the upstream wrote it.
    Error(Box<RawValue>),
    /// Comity's own failure.
    Failed(Failure),
}

/// What a requester says during a call.
#[derive(Debug)]
pub enum Outgoing {
    /// The answer to a server's request, or a notification.
    Message(Message),
    /// Stop. The outcome, usually [`Failure::Cancelled`], still follows.
    Cancel {
        /// For the server's log.
        reason: Option<String>,
    },
}

/// Why a call failed before an MCP server answered it. The variant is the class of fault; `handed_over`
/// says whether a server may have begun to run it, in which case nobody may silently send it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    /// Nobody who could run it can be reached. Nothing was run.
    #[error("unreachable: {detail}")]
    Unreachable {
        /// What was tried.
        detail: String,
    },
    /// The MCP server, or the path to it, died.
    #[error("the MCP server is gone: {detail}")]
    UpstreamDied {
        /// Whether it had been given the request.
        handed_over: bool,
        /// What is known of its death.
        detail: String,
    },
    /// No answer in time.
    #[error("no answer within {after:?}")]
    Timeout {
        /// Whether an MCP server had been given the request.
        handed_over: bool,
        /// How long it waited.
        after: Duration,
    },
    /// The caller cancelled.
    #[error("cancelled by the caller")]
    Cancelled {
        /// Whether an MCP server had been given the request.
        handed_over: bool,
    },
    /// The request left this node and what became of it is unknown.
    #[error("in doubt: {detail}")]
    InDoubt {
        /// What happened.
        detail: String,
    },
    /// No candidate may lawfully run it. Nothing was run.
    #[error("denied: {}", summary(.reasons))]
    Denied {
        /// Every candidate with its reason.
        reasons: Vec<DenialReason>,
    },
    /// A bound was reached.
    #[error("overloaded: {detail}")]
    Overloaded {
        /// Whether an MCP server had been given the request.
        handed_over: bool,
        /// Which bound.
        detail: String,
    },
    /// A message is larger than allowed.
    #[error("too large: {detail}")]
    TooLarge {
        /// Whether an MCP server had been given the request.
        handed_over: bool,
        /// What and by how much.
        detail: String,
    },
    /// The contract is not approved, or changed since it was. Nothing was run.
    #[error("not approved: {detail}")]
    Unapproved {
        /// What the operator must do.
        detail: String,
    },
    /// The request itself is wrong, or asks for what this node does not do. Nothing was run.
    #[error("refused: {detail}")]
    Refused {
        /// The JSON-RPC code to answer with.
        code: i64,
        /// Why.
        detail: String,
    },
    /// A defect of ours.
    #[error("internal error: {detail}")]
    Internal {
        /// Whether an MCP server may have been given the request.
        handed_over: bool,
        /// What is known.
        detail: String,
    },
}

/// Why one candidate may not run a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialReason {
    /// The candidate's node id; absent when the rule is about the call itself.
    pub peer: Option<String>,
    /// The candidate's org.
    pub org: Option<String>,
    /// The rule that denied, for programs.
    pub code: String,
    /// The same for people.
    pub detail: String,
}

fn summary(reasons: &[DenialReason]) -> String {
    match reasons {
        [] => "nobody may run it".into(),
        [only] => only.detail.clone(),
        [first, rest @ ..] => format!("{}; and {} more", first.detail, rest.len()),
    }
}

impl Failure {
    /// Whether an MCP server may have begun to run the request. When false the call may be sent to
    /// somebody else.
    pub fn handed_over(&self) -> bool {
        match self {
            Self::UpstreamDied { handed_over, .. }
            | Self::Timeout { handed_over, .. }
            | Self::Cancelled { handed_over }
            | Self::Overloaded { handed_over, .. }
            | Self::TooLarge { handed_over, .. }
            | Self::Internal { handed_over, .. } => *handed_over,
            Self::InDoubt { .. } => true,
            Self::Unreachable { .. }
            | Self::Denied { .. }
            | Self::Unapproved { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// The failure's JSON-RPC code.
    pub fn code(&self) -> i64 {
        match self {
            Self::Unreachable { .. } => codes::UNREACHABLE,
            Self::UpstreamDied { .. } => codes::UPSTREAM_DIED,
            Self::Timeout { .. } => codes::TIMEOUT,
            Self::Cancelled { .. } => codes::CANCELLED,
            Self::InDoubt { .. } => codes::IN_DOUBT,
            Self::Denied { .. } => codes::DENIED,
            Self::Overloaded { .. } => codes::OVERLOADED,
            Self::TooLarge { .. } => codes::TOO_LARGE,
            Self::Unapproved { .. } => codes::UNAPPROVED,
            Self::Refused { code, .. } => *code,
            Self::Internal { .. } => codes::INTERNAL_ERROR,
        }
    }

    /// The failure as an MCP client sees it. A denial's `data` is `{"reasons":[…]}`, any other's is
    /// `{"handedOver":bool}`.
    pub fn to_rpc_error(&self) -> RpcError {
        let data = match self {
            Self::Denied { reasons } => json::to_raw(&serde_json::json!({ "reasons": reasons })),
            _ => json::to_raw(&serde_json::json!({ "handedOver": self.handed_over() })),
        };
        RpcError::new(self.code(), self.to_string()).with_data(data)
    }
}

impl Exchange {
    /// What arrives next. Never ends before [`Incoming::Done`]: a peer that vanished without an
    /// outcome is reported as one. Cancel-safe. Not to be called after `Done`.
    pub async fn next(&mut self) -> Incoming {
        self.incoming.recv().await.unwrap_or_else(|| {
            let detail = "the call's task ended without an outcome".into();
            Incoming::Done(Outcome::Failed(Failure::Internal { handed_over: true, detail }))
        })
    }

    /// Waits for the outcome and discards what comes before. Server requests are left unanswered, so
    /// this suits calls during which none is expected.
    pub async fn outcome(mut self) -> Outcome {
        loop {
            if let Incoming::Done(outcome) = self.next().await {
                return outcome;
            }
        }
    }

    /// An exchange that has already failed, for refusals that need no task.
    pub fn failed(failure: Failure) -> Self {
        let (exchange, peer) = exchange();
        peer.finish(Outcome::Failed(failure));
        exchange
    }
}

/// A new conversation: the requester's end and the end of whoever serves it.
pub fn exchange() -> (Exchange, ExchangePeer) {
    let (to_requester, incoming) = mpsc::channel(INCOMING_MAX + OUTCOME_SLOT);
    let (outgoing, from_requester) = mpsc::channel(OUTGOING_MAX);
    let sender = ExchangeSender { queue: to_requester, waiting: Mutex::default() };
    let peer = ExchangePeer { sender, outgoing: from_requester };
    (Exchange { incoming, outgoing }, peer)
}

/// Kept free so that the outcome never waits and is never lost.
const OUTCOME_SLOT: usize = 1;

/// The serving end. The two halves part when different tasks use them.
#[derive(Debug)]
pub struct ExchangePeer {
    /// Towards the requester.
    pub sender: ExchangeSender,
    /// From the requester. `None` means that it dropped the exchange: the call is cancelled.
    pub outgoing: mpsc::Receiver<Outgoing>,
}

impl ExchangePeer {
    /// See [`ExchangeSender::finish`].
    pub fn finish(self, outcome: Outcome) {
        self.sender.finish(outcome);
    }
}

/// Why a message could not be queued for a requester.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// [`INCOMING_MAX`] messages wait already.
    #[error("the requester does not keep up")]
    Full,
    /// The requester is gone.
    #[error("the requester is gone")]
    Gone,
}

/// The way to a requester. Not `Clone`: one producer, so that the outcome is last and has room.
#[derive(Debug)]
pub struct ExchangeSender {
    queue: mpsc::Sender<Incoming>,
    waiting: Mutex<Waiting>,
}

/// The sizes of the last messages sent, of which the queue's present length says how many still wait.
#[derive(Debug, Default)]
struct Waiting {
    sizes: VecDeque<usize>,
    sum: usize,
}

impl ExchangeSender {
    /// Queues a message, at once or not at all.
    pub fn try_send(&self, message: Message) -> Result<(), SendError> {
        if self.queue.is_closed() {
            return Err(SendError::Gone);
        }
        if !self.has_room(&message) {
            return Err(SendError::Full);
        }
        let size = size_of(&message);
        // One producer: room seen above is still there.
        self.queue.try_send(Incoming::Message(message)).map_err(|_| SendError::Gone)?;
        self.lock().push(size);
        Ok(())
    }

    /// Whether [`try_send`](Self::try_send) would find room for `message`.
    pub fn has_room(&self, message: &Message) -> bool {
        let waiting = self.waiting();
        waiting < INCOMING_MAX && waiting <= self.may_wait_before(size_of(message))
    }

    /// Waits until there is room for `message`, which [`try_send`](Self::try_send) then takes: only this end fills the
    /// queue. Cancel-safe.
    ///
    /// # Errors
    /// [`SendError::Gone`].
    pub async fn room_for(&self, message: &Message) -> Result<(), SendError> {
        let slots = self.queue.max_capacity() - self.may_wait_before(size_of(message)).min(INCOMING_MAX - 1);
        self.queue.reserve_many(slots).await.map(drop).map_err(|_| SendError::Gone)
    }

    /// Queues a message, waiting for room. Cancel-safe: a message is queued whole or not at all.
    ///
    /// # Errors
    /// [`SendError::Gone`].
    pub async fn send(&self, message: Message) -> Result<(), SendError> {
        self.room_for(&message).await?;
        self.try_send(message)
    }

    /// Ends the conversation. Never waits; a requester that is gone does not hear it.
    pub fn finish(self, outcome: Outcome) {
        let _ = self.queue.try_send(Incoming::Done(outcome));
    }

    /// Whether the requester is gone.
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Waits until the requester is gone.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Messages that wait for the requester.
    fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// How many of the last messages may still be waiting when one of `size` bytes is added.
    fn may_wait_before(&self, size: usize) -> usize {
        let waiting = self.waiting();
        let mut known = self.lock();
        known.keep(waiting);
        known.fit(INCOMING_BYTES_MAX.saturating_sub(size))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a message counts as.
fn size_of(message: &Message) -> usize {
    message.payload_len() + MESSAGE_OVERHEAD_BYTES
}

impl Waiting {
    fn push(&mut self, size: usize) {
        self.sizes.push_back(size);
        self.sum += size;
    }

    /// Forgets all but the last `count`.
    fn keep(&mut self, count: usize) {
        let taken = self.sizes.len().saturating_sub(count);
        self.sum -= self.sizes.drain(..taken).sum::<usize>();
    }

    /// How many of the last messages fit in `room` bytes; no limit if all of them do.
    fn fit(&self, room: usize) -> usize {
        if self.sum <= room {
            return usize::MAX;
        }
        let fits = |sum: &mut usize, size: &usize| {
            *sum += size;
            Some(*sum <= room)
        };
        self.sizes.iter().rev().scan(0, fits).take_while(|fits| *fits).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(number: i64) -> Message {
        Message::notification("n", Some(json::to_raw(&serde_json::json!({ "n": number }))))
    }

    fn number(message: &Message) -> String {
        json::path(message.params().unwrap(), &["n"]).unwrap().get().to_owned()
    }

    #[tokio::test]
    async fn the_outcome_has_room_in_a_full_queue_and_comes_last() {
        let (mut exchange, peer) = exchange();
        let sent = (0..).take_while(|n| peer.sender.try_send(note(*n)).is_ok()).count();
        assert_eq!(sent, INCOMING_MAX);
        assert_eq!(peer.sender.try_send(note(0)), Err(SendError::Full));
        peer.finish(Outcome::Result(json::to_raw("end")));
        for expected in 0..INCOMING_MAX {
            let Incoming::Message(message) = exchange.next().await else { panic!("early end") };
            assert_eq!(number(&message), expected.to_string());
        }
        assert!(matches!(exchange.next().await, Incoming::Done(Outcome::Result(_))));
    }

    #[tokio::test]
    async fn a_waiting_send_leaves_room_for_the_outcome() {
        let (mut exchange, peer) = exchange();
        for n in 0..INCOMING_MAX {
            peer.sender.send(note(n as i64)).await.unwrap();
        }
        {
            let mut blocked = std::pin::pin!(peer.sender.send(note(-1)));
            assert!(futures::poll!(&mut blocked).is_pending());
            exchange.next().await;
            assert!(futures::poll!(&mut blocked).is_ready());
        }
        peer.finish(Outcome::Result(json::to_raw("end")));
        assert!(matches!(exchange.outcome().await, Outcome::Result(_)));
    }

    fn big() -> Message {
        Message::notification("n", Some(json::to_raw(&"x".repeat(INCOMING_BYTES_MAX / 4))))
    }

    #[tokio::test]
    async fn waiting_messages_are_bounded_in_bytes_too() {
        let (mut exchange, peer) = exchange();
        let sent = (0..100).take_while(|_| peer.sender.try_send(big()).is_ok()).count();
        assert_eq!(sent, 3);
        assert!(peer.sender.try_send(note(1)).is_ok(), "a small one still fits");
        {
            let mut blocked = std::pin::pin!(peer.sender.send(big()));
            assert!(futures::poll!(&mut blocked).is_pending());
            exchange.next().await;
            assert!(futures::poll!(&mut blocked).is_ready());
        }
        assert_eq!(peer.sender.try_send(big()), Err(SendError::Full));
        for _ in 0..4 {
            exchange.next().await;
        }
        let huge = json::to_raw(&"x".repeat(2 * INCOMING_BYTES_MAX));
        peer.sender.try_send(Message::notification("n", Some(huge))).expect("alone, it may be larger");
        assert_eq!(peer.sender.try_send(note(1)), Err(SendError::Full));
    }

    #[tokio::test]
    async fn a_requester_that_leaves_is_noticed_at_both_halves() {
        let (exchange, mut peer) = exchange();
        drop(exchange);
        assert!(peer.outgoing.recv().await.is_none());
        peer.sender.closed().await;
        assert_eq!(peer.sender.try_send(note(1)), Err(SendError::Gone));
        assert_eq!(peer.sender.send(note(1)).await, Err(SendError::Gone));
    }

    #[tokio::test]
    async fn a_peer_that_vanishes_is_an_outcome() {
        let (exchange, peer) = exchange();
        drop(peer);
        let outcome = exchange.outcome().await;
        assert!(matches!(outcome, Outcome::Failed(Failure::Internal { handed_over: true, .. })));
    }

    #[tokio::test]
    async fn failures_know_their_code_and_whether_the_request_was_handed_over() {
        let died = Failure::UpstreamDied { handed_over: false, detail: "exit 1".into() };
        assert!(!died.handed_over());
        assert_eq!(died.to_rpc_error().code, codes::UPSTREAM_DIED);
        assert_eq!(died.to_rpc_error().data.unwrap().get(), r#"{"handedOver":false}"#);
        let reason = DenialReason { peer: None, org: None, code: "location".into(), detail: "US".into() };
        let denied = Failure::Denied { reasons: vec![reason.clone(), reason] };
        assert_eq!(denied.to_string(), "denied: US; and 1 more");
        let data = denied.to_rpc_error().data.unwrap();
        assert_eq!(
            json::path(&data, &["reasons"]).unwrap().get().matches("\"code\":\"location\"").count(),
            2
        );
        assert!(Failure::InDoubt { detail: String::new() }.handed_over());
        let outcome = Exchange::failed(died.clone()).outcome().await;
        assert!(matches!(outcome, Outcome::Failed(failure) if failure == died));
    }
}
