//! The calls in flight on one session, and whose each message is.
//!
//! One table per session, shared by the tasks that open calls and the one that reads the server's
//! messages. Everything here is quick and never waits: a reader that waited for a slow requester
//! would stall every other call.
//!
//! # Whose message is it
//! Answers carry our id and progress carries our token, both unique in the session. Log messages and
//! server requests of the legacy era carry nothing that ties them to a call. They are given to a call
//! only if it is the *only* one that the server can be working on: calls that were cancelled or timed
//! out count as in flight until the server answers them or [`GHOST_LIFE`] has passed. In every other
//! case they reach no caller, so that nothing of one caller's call is ever shown to another.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use comity_protocol::json::RawObject;
use comity_protocol::jsonrpc::{Id, Message};
use serde_json::value::RawValue;

use crate::exchange::{ExchangeSender, Failure, Outcome, SendError};

/// How long an abandoned call is taken to be still at work in the server.
const GHOST_LIFE: Duration = Duration::from_secs(60);

/// Abandoned calls that are remembered; beyond it the oldest is forgotten.
const GHOSTS_MAX: usize = 1024;

/// Server requests that one call may leave unanswered at one time; more are refused.
const ASKED_MAX: usize = 32;

/// The calls in flight on one session.
#[derive(Debug)]
pub(super) struct Table {
    state: Mutex<State>,
    in_flight_max: usize,
}

#[derive(Debug)]
struct State {
    calls: HashMap<i64, Call>,
    /// Calls of requesters, as opposed to the session's own.
    foreground: usize,
    ghosts: VecDeque<(i64, Instant)>,
    last_id: i64,
    /// Why the session is over.
    closed: Option<String>,
    /// When the server last said anything.
    heard: Instant,
}

/// What is known of a call from its opening on.
#[derive(Debug)]
pub(super) struct Call {
    /// To its requester.
    pub(super) sender: ExchangeSender,
    /// The progress token that the requester chose, if any.
    pub(super) token: Option<Box<RawValue>>,
    /// Whether it is a requester's call; the session's own calls are exempt from bounds and never
    /// take part in attribution.
    pub(super) foreground: bool,
    state: CallState,
}

#[derive(Debug)]
struct CallState {
    heard: Instant,
    /// Where its request stands in the write queue; what "handed over" is decided by.
    start: Option<u64>,
    /// The server's requests that were passed on and are unanswered.
    asked: Vec<Id>,
}

impl Call {
    /// A call about to be opened.
    pub(super) fn new(sender: ExchangeSender, token: Option<Box<RawValue>>, foreground: bool) -> Self {
        let state = CallState { heard: Instant::now(), start: None, asked: Vec::new() };
        Self { sender, token, foreground, state }
    }
}

/// A call that has left the table, and what the server still waits for on its account.
#[derive(Debug)]
#[must_use = "the server waits for answers to what it asked"]
pub(super) struct Ended {
    /// Server requests that nobody will answer now.
    pub(super) asked: Vec<Id>,
}

/// What became of a message for a call.
#[derive(Debug)]
pub(super) enum Delivery {
    /// It is in the call's queue, or its requester is gone and will be noticed as such.
    Done,
    /// There is no such call.
    Unknown,
    /// The requester did not keep up: the call was ended as overloaded and must be cancelled
    /// upstream.
    Overloaded(i64, Ended),
}

impl Table {
    /// An empty table for at most `in_flight_max` calls of requesters.
    pub(super) fn new(in_flight_max: usize) -> Self {
        let state = State {
            calls: HashMap::new(),
            foreground: 0,
            ghosts: VecDeque::new(),
            last_id: 0,
            closed: None,
            heard: Instant::now(),
        };
        Self { state: Mutex::new(state), in_flight_max }
    }

    /// A fresh id: unique in the session, and the call's progress token towards the server.
    pub(super) fn next_id(&self) -> i64 {
        let mut state = self.lock();
        state.last_id += 1;
        state.last_id
    }

    /// Enters a call and runs `send`, which queues its request and says where. If the table is full
    /// or closed, or `send` fails, the call is finished as failed and `false` is returned.
    pub(super) fn open(
        &self,
        id: i64,
        mut call: Call,
        send: impl FnOnce() -> Result<Option<u64>, Failure>,
    ) -> bool {
        let mut state = self.lock();
        // Under the lock, so that `close` sees either no call or one whose start is known.
        match state.admit(&call, self.in_flight_max).and_then(|()| send()) {
            Ok(start) => {
                call.state.start = start;
                state.foreground += usize::from(call.foreground);
                state.calls.insert(id, call);
                true
            }
            Err(failure) => {
                drop(state);
                call.sender.finish(Outcome::Failed(failure));
                false
            }
        }
    }

    /// Ends a call with the server's answer. `None` if there is no such call (any more).
    pub(super) fn finish(&self, id: i64, outcome: Outcome) -> Option<Ended> {
        let mut state = self.lock();
        state.ghosts.retain(|(ghost, _)| *ghost != id);
        let call = state.remove(id)?;
        drop(state);
        Some(call.end(outcome))
    }

    /// Ends a call that the server has not answered and may be at work on.
    pub(super) fn abandon(&self, id: i64, failure: impl FnOnce(Option<u64>) -> Failure) -> Option<Ended> {
        let mut state = self.lock();
        let call = state.remove(id)?;
        if call.foreground {
            state.haunt(id);
        }
        drop(state);
        let failure = failure(call.state.start);
        Some(call.end(Outcome::Failed(failure)))
    }

    /// Passes a message on to a call.
    pub(super) fn deliver(&self, id: i64, message: Message) -> Delivery {
        let mut state = self.lock();
        let Some(call) = state.calls.get_mut(&id) else {
            return Delivery::Unknown;
        };
        call.state.heard = Instant::now();
        match call.sender.try_send(message) {
            Ok(()) | Err(SendError::Gone) => Delivery::Done,
            Err(SendError::Full) => {
                let Some(call) = state.remove(id) else { return Delivery::Unknown };
                state.haunt(id);
                drop(state);
                let detail = "the requester does not keep up with the server's messages".to_owned();
                let failure = Failure::Overloaded { handed_over: true, detail };
                Delivery::Overloaded(id, call.end(Outcome::Failed(failure)))
            }
        }
    }

    /// Passes a progress notification on to the call that its token names, with the requester's own
    /// token restored.
    pub(super) fn progress(&self, mut params: RawObject) -> Delivery {
        let id = params.get("progressToken").and_then(|token| token.get().parse().ok());
        let Some(id) = id else { return Delivery::Unknown };
        let Some(token) = self.lock().calls.get(&id).and_then(|call| call.token.clone()) else {
            return Delivery::Unknown;
        };
        params.set("progressToken", token);
        self.deliver(id, Message::notification("notifications/progress", Some(params.to_raw())))
    }

    /// Notes that a server's request is passed on to a call. False if the call is gone or has
    /// [`ASKED_MAX`] of them open.
    pub(super) fn ask(&self, id: i64, request: &Id) -> bool {
        let mut state = self.lock();
        let Some(call) = state.calls.get_mut(&id) else { return false };
        let room = call.state.asked.len() < ASKED_MAX;
        if room {
            call.state.asked.push(request.clone());
        }
        room
    }

    /// Whether `id` was asked `request` and has not answered; it is taken to answer now.
    pub(super) fn answer(&self, id: i64, request: &Id) -> bool {
        let mut state = self.lock();
        let Some(call) = state.calls.get_mut(&id) else { return false };
        let at = call.state.asked.iter().position(|asked| asked == request);
        at.map(|at| call.state.asked.swap_remove(at)).is_some()
    }

    /// The call that was asked `request`.
    pub(super) fn asked(&self, request: &Id) -> Option<i64> {
        let state = self.lock();
        state.calls.iter().find(|(_, call)| call.state.asked.contains(request)).map(|(id, _)| *id)
    }

    /// The only call that the server can be at work on, if there is exactly one.
    pub(super) fn sole(&self) -> Option<i64> {
        let mut state = self.lock();
        if state.foreground != 1 {
            return None;
        }
        state.ghosts.retain(|(_, since)| since.elapsed() < GHOST_LIFE);
        if !state.ghosts.is_empty() {
            return None;
        }
        state.calls.iter().find(|(_, call)| call.foreground).map(|(id, _)| *id)
    }

    /// Notes that the server said something.
    pub(super) fn hear(&self) {
        self.lock().heard = Instant::now();
    }

    /// How long the server has said nothing.
    pub(super) fn silence(&self) -> Duration {
        self.lock().heard.elapsed()
    }

    /// How long a call has heard nothing; `None` if it has ended.
    pub(super) fn call_silence(&self, id: i64) -> Option<Duration> {
        self.lock().calls.get(&id).map(|call| call.state.heard.elapsed())
    }

    /// Calls of requesters in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.lock().foreground
    }

    /// Whether a call is in flight.
    pub(super) fn contains(&self, id: i64) -> bool {
        self.lock().calls.contains_key(&id)
    }

    /// Ends every call: the server is gone. `handed_over` tells from where its request stood in the
    /// write queue whether the server may have seen it. The first reason given stands.
    pub(super) fn close(&self, detail: &str, handed_over: impl Fn(Option<u64>) -> bool) {
        let mut state = self.lock();
        state.closed.get_or_insert_with(|| detail.to_owned());
        state.foreground = 0;
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        for call in calls.into_values() {
            let handed_over = handed_over(call.state.start);
            let failure = Failure::UpstreamDied { handed_over, detail: detail.to_owned() };
            call.sender.finish(Outcome::Failed(failure));
        }
    }

    /// Why the session is over, if it is.
    pub(super) fn closed(&self) -> Option<String> {
        self.lock().closed.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the table whole at each point where it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn admit(&self, call: &Call, max: usize) -> Result<(), Failure> {
        if let Some(detail) = &self.closed {
            return Err(Failure::UpstreamDied { handed_over: false, detail: detail.clone() });
        }
        if call.foreground && self.foreground >= max {
            let detail = format!("{max} calls are in flight at the server already");
            return Err(Failure::Overloaded { handed_over: false, detail });
        }
        Ok(())
    }

    fn remove(&mut self, id: i64) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        self.foreground -= usize::from(call.foreground);
        Some(call)
    }

    fn haunt(&mut self, id: i64) {
        if self.ghosts.len() >= GHOSTS_MAX {
            self.ghosts.pop_front();
        }
        self.ghosts.push_back((id, Instant::now()));
    }
}

impl Call {
    fn end(self, outcome: Outcome) -> Ended {
        self.sender.finish(outcome);
        Ended { asked: self.state.asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Exchange, INCOMING_MAX, Incoming, exchange};
    use comity_protocol::json;

    fn open(table: &Table, token: Option<&str>) -> (i64, Exchange) {
        let (requester, peer) = exchange();
        let id = table.next_id();
        table.open(id, Call::new(peer.sender, token.map(json::to_raw), true), || Ok(Some(0)));
        (id, requester)
    }

    fn progress(token: i64, n: i64) -> RawObject {
        let params = serde_json::json!({ "progressToken": token, "progress": n });
        RawObject::parse(&json::to_raw(&params)).unwrap()
    }

    fn note() -> Message {
        Message::notification("notifications/message", None)
    }

    #[tokio::test]
    async fn progress_reaches_its_call_with_the_requesters_token() {
        let table = Table::new(8);
        let (first, mut one) = open(&table, Some("mine"));
        let (second, _two) = open(&table, None);
        assert!(matches!(table.progress(progress(first, 3)), Delivery::Done));
        let Incoming::Message(message) = one.next().await else { panic!("no progress") };
        assert_eq!(message.params().unwrap().get(), r#"{"progress":3,"progressToken":"mine"}"#);
        assert!(matches!(table.progress(progress(second, 1)), Delivery::Unknown), "asked for no progress");
        assert!(matches!(table.progress(progress(99, 1)), Delivery::Unknown));
        assert!(matches!(table.progress(RawObject::new()), Delivery::Unknown));
    }

    #[test]
    fn only_a_lone_call_is_given_what_names_no_call() {
        let table = Table::new(8);
        assert_eq!(table.sole(), None);
        let (first, _one) = open(&table, None);
        assert_eq!(table.sole(), Some(first));
        let (second, _two) = open(&table, None);
        assert_eq!(table.sole(), None);
        assert!(table.finish(second, Outcome::Result(json::to_raw(&1))).is_some());
        assert_eq!(table.sole(), Some(first));
    }

    #[test]
    fn an_abandoned_call_may_still_be_speaking() {
        let table = Table::new(8);
        let (first, _one) = open(&table, None);
        let (second, _two) = open(&table, None);
        assert!(table.abandon(second, |_| Failure::Cancelled { handed_over: true }).is_some());
        assert_eq!(table.sole(), None, "the server may be at work on either");
        assert!(table.finish(second, Outcome::Result(json::to_raw(&1))).is_none());
        assert_eq!(table.sole(), Some(first), "it has answered both questions now");
    }

    #[tokio::test]
    async fn a_requester_that_does_not_keep_up_loses_its_own_call_only() {
        let table = Table::new(8);
        let (slow, exchange) = open(&table, None);
        let (other, _other) = open(&table, None);
        for _ in 0..INCOMING_MAX {
            assert!(matches!(table.deliver(slow, note()), Delivery::Done));
        }
        assert!(matches!(table.deliver(slow, note()), Delivery::Overloaded(id, _) if id == slow));
        assert!(matches!(table.deliver(slow, note()), Delivery::Unknown));
        assert!(matches!(table.deliver(other, note()), Delivery::Done));
        let outcome = exchange.outcome().await;
        assert!(matches!(outcome, Outcome::Failed(Failure::Overloaded { handed_over: true, .. })));
    }

    #[tokio::test]
    async fn the_bound_on_calls_holds_and_frees() {
        let table = Table::new(2);
        let (first, _one) = open(&table, None);
        let (_, _two) = open(&table, None);
        let (_, third) = open(&table, None);
        let outcome = third.outcome().await;
        assert!(matches!(outcome, Outcome::Failed(Failure::Overloaded { handed_over: false, .. })));
        let _ = table.finish(first, Outcome::Result(json::to_raw(&1)));
        let (fourth, _four) = open(&table, None);
        assert!(table.contains(fourth));
        assert_eq!(table.in_flight(), 2);
    }

    #[tokio::test]
    async fn a_dead_server_ends_every_call_and_says_which_it_may_have_seen() {
        let table = Table::new(8);
        let (_, seen) = open(&table, None);
        let (unseen, peer) = exchange();
        let id = table.next_id();
        table.open(id, Call::new(peer.sender, None, true), || Ok(Some(100)));
        table.close("exit 1", |start| start < Some(50));
        table.close("a later reason", |_| true);
        let (_, late) = open(&table, None);
        for (exchange, expected) in [(seen, true), (unseen, false), (late, false)] {
            match exchange.outcome().await {
                Outcome::Failed(Failure::UpstreamDied { handed_over, detail }) => {
                    assert_eq!((handed_over, detail.as_str()), (expected, "exit 1"));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(table.in_flight(), 0);
    }

    #[test]
    fn only_what_was_asked_can_be_answered_and_only_once() {
        let table = Table::new(8);
        let (first, _one) = open(&table, None);
        let (second, _two) = open(&table, None);
        let request = Id::Number(1);
        assert!(table.ask(first, &request));
        assert_eq!(table.asked(&request), Some(first));
        assert!(!table.answer(second, &request), "somebody else's question");
        assert!(table.answer(first, &request));
        assert!(!table.answer(first, &request), "answered before");
        assert!(table.ask(first, &Id::Number(2)));
        let ended = table.finish(first, Outcome::Result(json::to_raw(&1))).unwrap();
        assert_eq!(ended.asked, [Id::Number(2)]);
        assert!((0..).take_while(|n| table.ask(second, &Id::Number(*n))).count() == ASKED_MAX);
    }
}
