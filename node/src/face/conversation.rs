//! What ties a client's later messages to a call in flight: cancellation, and answers to a server's requests.
//!
//! One per legacy session or per newline connection. A server's request reaches the client under an id that is ours
//! and unique in the conversation, so two calls whose servers chose the same id never get each other's answers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use comity_protocol::jsonrpc::{Id, RpcError, codes};
use tokio::sync::{mpsc, oneshot};

use super::{logging::SharedThreshold, watches::Watches};
use crate::exchange::Outgoing;

/// Calls that one client may have in flight. One more is refused as overloaded.
pub(super) const CALLS_MAX: usize = 256;

/// Requests of servers that one client may owe an answer. One more is refused, and the server is told.
pub(super) const ASKED_MAX: usize = 256;

/// The state that one client's messages share.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    state: Mutex<State>,
    /// Set by `logging/setLevel`.
    pub(super) threshold: SharedThreshold,
    /// What `resources/subscribe` asked for.
    pub(super) watches: Watches,
}

#[derive(Debug, Default)]
struct State {
    calls: HashMap<Id, InFlight>,
    asked: BTreeMap<i64, Asked>,
    last_call: u64,
    last_asked: i64,
}

#[derive(Debug)]
struct InFlight {
    key: CallKey,
    /// Taken by the first cancellation.
    cancel: Option<oneshot::Sender<CancelReason>>,
}

/// Names a call within its conversation, even after its id was used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallKey(u64);

/// What the client gave as its reason, if anything.
pub(super) type CancelReason = Option<String>;

/// A server's request that waits for the client's answer.
#[derive(Debug)]
pub(super) struct Asked {
    call: CallKey,
    /// Where the answer goes. Weak: a table entry must not keep a dropped call alive.
    pub(super) outgoing: mpsc::WeakSender<Outgoing>,
    /// The id under which the server asked.
    pub(super) id: Id,
}

impl Conversation {
    /// Enters a request. The receiver hears when the client cancels it.
    ///
    /// # Errors
    /// `-32600` when its id is in use, `-32005` when there are [`CALLS_MAX`] already.
    pub(super) fn begin(&self, id: &Id) -> Result<(CallKey, oneshot::Receiver<CancelReason>), RpcError> {
        let mut state = self.lock();
        if state.calls.contains_key(id) {
            return Err(RpcError::new(codes::INVALID_REQUEST, "a request with this id is still in flight"));
        }
        if state.calls.len() >= CALLS_MAX {
            return Err(RpcError::new(codes::OVERLOADED, format!("{CALLS_MAX} requests in flight already")));
        }
        state.last_call += 1;
        let key = CallKey(state.last_call);
        let (cancel, cancelled) = oneshot::channel();
        state.calls.insert(id.clone(), InFlight { key, cancel: Some(cancel) });
        Ok((key, cancelled))
    }

    /// Forgets a request and whatever its server still waits for.
    pub(super) fn end(&self, id: &Id, key: CallKey) {
        let mut state = self.lock();
        if state.calls.get(id).is_some_and(|call| call.key == key) {
            state.calls.remove(id);
        }
        state.asked.retain(|_, asked| asked.call != key);
    }

    /// Cancels the request `id`; one that is not in flight is ignored, as the specification asks.
    pub(super) fn cancel(&self, id: &Id, reason: CancelReason) {
        let cancel = self.lock().calls.get_mut(id).and_then(|call| call.cancel.take());
        if let Some(cancel) = cancel {
            // Fails only if the call ended meanwhile.
            let _ = cancel.send(reason);
        }
    }

    /// Enters a server's request and returns the id under which the client is asked; `None` when the client owes
    /// [`ASKED_MAX`] answers.
    pub(super) fn ask(&self, call: CallKey, outgoing: &mpsc::Sender<Outgoing>, id: Id) -> Option<Id> {
        let mut state = self.lock();
        if state.asked.len() >= ASKED_MAX {
            return None;
        }
        state.last_asked += 1;
        let ours = state.last_asked;
        state.asked.insert(ours, Asked { call, outgoing: outgoing.downgrade(), id });
        Some(Id::Number(ours))
    }

    /// The server no longer wants an answer: the id under which the client was asked.
    pub(super) fn withdraw(&self, call: CallKey, id: &Id) -> Option<Id> {
        let mut state = self.lock();
        let ours = state
            .asked
            .iter()
            .find(|(_, asked)| asked.call == call && asked.id == *id)
            .map(|(ours, _)| *ours)?;
        state.asked.remove(&ours);
        Some(Id::Number(ours))
    }

    /// Whom an answer under this id is for. Each is given out once.
    pub(super) fn answered(&self, id: &Id) -> Option<Asked> {
        let Id::Number(ours) = id else { return None };
        self.lock().asked.remove(ours)
    }

    /// How many requests are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.lock().calls.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change above is a single step, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_flight_are_unique_and_bounded() {
        let conversation = Conversation::default();
        let (key, _cancelled) = conversation.begin(&Id::Number(0)).unwrap();
        assert_eq!(conversation.begin(&Id::Number(0)).unwrap_err().code, codes::INVALID_REQUEST);
        for n in 1..CALLS_MAX {
            conversation.begin(&Id::Number(n as i64)).unwrap();
        }
        assert_eq!(conversation.begin(&Id::Number(-1)).unwrap_err().code, codes::OVERLOADED);
        conversation.end(&Id::Number(0), key);
        let (again, _cancelled) = conversation.begin(&Id::Number(0)).unwrap();
        conversation.end(&Id::Number(0), key);
        assert_eq!(conversation.in_flight(), CALLS_MAX, "an old key must not end a newer call");
        assert_ne!(key, again);
    }

    #[test]
    fn answers_reach_the_call_that_asked() {
        let conversation = Conversation::default();
        let (outgoing, _peer) = mpsc::channel(1);
        let (one, _c1) = conversation.begin(&Id::Number(1)).unwrap();
        let (two, _c2) = conversation.begin(&Id::Number(2)).unwrap();
        let same = Id::String("s".into());
        let first = conversation.ask(one, &outgoing, same.clone()).unwrap();
        let second = conversation.ask(two, &outgoing, same.clone()).unwrap();
        assert_ne!(first, second);
        assert_eq!(conversation.answered(&second).unwrap().call, two);
        assert!(conversation.answered(&second).is_none());
        assert_eq!(conversation.withdraw(two, &same), None);
        assert_eq!(conversation.withdraw(one, &same), Some(first));
        conversation.ask(one, &outgoing, same.clone()).unwrap();
        conversation.end(&Id::Number(1), one);
        assert_eq!(conversation.withdraw(one, &same), None);
        let asked = (0..).take_while(|n| conversation.ask(two, &outgoing, Id::Number(*n)).is_some()).count();
        assert_eq!(asked, ASKED_MAX);
    }

    #[test]
    fn cancelling_twice_or_too_late_is_harmless() {
        let conversation = Conversation::default();
        let (key, mut cancelled) = conversation.begin(&Id::Number(1)).unwrap();
        conversation.cancel(&Id::Number(2), None);
        assert!(cancelled.try_recv().is_err());
        conversation.cancel(&Id::Number(1), Some("why".into()));
        conversation.cancel(&Id::Number(1), None);
        assert_eq!(cancelled.try_recv().unwrap(), Some("why".into()));
        conversation.end(&Id::Number(1), key);
        conversation.cancel(&Id::Number(1), None);
    }
}
