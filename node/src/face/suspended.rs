//! Calls of 2026-07-28 clients that wait for their client's input.
//!
//! That revision has no requests from server to client. A server of an older one asks all the same, in the middle of a
//! call; the client is then answered `input_required`, the call stays open here, and the retry takes it up again. What
//! ties the two together is `requestState`: random, good for one retry, and only for whom it was given to.
//!
//! A state that is not known, because its time is over or because this node was started anew, is refused. Passing the
//! retry on as a new call could run it twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use comity_protocol::json::{self, RawObject};
use comity_protocol::jsonrpc::{Id, Message, RpcError};
use data_encoding::BASE64URL_NOPAD;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::params;
use crate::exchange::{Exchange, Outgoing};

/// Calls that wait at one endpoint; one more does not wait, and its server is refused.
pub(super) const SUSPENDED_MAX: usize = 256;

/// How many of them may be one principal's.
pub(super) const OF_ONE_MAX: usize = 64;

/// How often one call may wait: a server that asks for ever is refused after that.
pub(super) const ROUNDS_MAX: u32 = 32;

/// Requests of a server that one round may hold; one more is refused.
pub(super) const ASKED_MAX: usize = 16;

/// What a state of ours begins with.
const PREFIX: &str = "comity-input";

/// A server's request that waits for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its key in `inputRequests`.
    pub(super) key: String,
    /// The id under which the server asked.
    pub(super) id: Id,
    /// `{"method":…,"params":…}`.
    pub(super) request: Box<RawValue>,
}

impl Asked {
    /// The request of that id; `number` is unique in its call.
    pub(super) fn new(number: u32, id: Id, method: &str, params: Option<Box<RawValue>>) -> Self {
        let mut request = RawObject::new();
        request.set_str("method", method);
        if let Some(params) = params {
            request.set("params", params);
        }
        Self { key: format!("input-{number}"), id, request: request.to_raw() }
    }
}

/// A call that waits. Dropping it cancels the call.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) exchange: Exchange,
    pub(super) asked: Vec<Asked>,
    /// Answers of ours to the server that are still to be sent.
    pub(super) replies: VecDeque<Outgoing>,
    /// How often it has waited, and how much it has been asked.
    pub(super) rounds: Rounds,
}

/// What is counted over all rounds of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounds {
    pub(super) waited: u32,
    pub(super) asked: u32,
}

impl Parked {
    /// The `inputRequests` for what is asked.
    pub(super) fn input_requests(asked: &[Asked]) -> Box<RawValue> {
        let mut requests = RawObject::new();
        for asked in asked {
            requests.set(&asked.key, asked.request.clone());
        }
        requests.to_raw()
    }

    /// The `input_required` result with which its client is answered.
    pub(super) fn input_required(requests: Box<RawValue>, state: &str) -> Box<RawValue> {
        let mut result = RawObject::new();
        result.set_str("resultType", "input_required");
        result.set("inputRequests", requests);
        result.set_str("requestState", state);
        result.to_raw()
    }

    /// Takes the client's answers. What it left out is asked again.
    pub(super) fn answer(&mut self, mut responses: RawObject) {
        for asked in std::mem::take(&mut self.asked) {
            match responses.remove(&asked.key) {
                Some(result) => {
                    let answer = Message::Response { id: asked.id, result };
                    self.replies.push_back(Outgoing::Message(answer));
                }
                None => self.asked.push(asked),
            }
        }
    }
}

/// The `inputResponses` of a retry.
///
/// # Errors
/// `-32602` when they are not an object of objects.
pub(super) fn responses(raw: Option<&RawValue>) -> Result<RawObject, RpcError> {
    let wrong = || params::invalid("`inputResponses` must be an object of objects");
    let Some(raw) = raw else { return Ok(RawObject::new()) };
    let responses = RawObject::parse(raw).map_err(|_| wrong())?;
    let objects = responses.iter().all(|(_, response)| response.get().starts_with('{'));
    if objects { Ok(responses) } else { Err(wrong()) }
}

#[derive(Debug)]
struct Entry {
    principal: Arc<str>,
    /// What the call is: its method and what it is about.
    what: String,
    until: Instant,
    parked: Parked,
}

/// Every call of one endpoint that waits.
#[derive(Debug)]
pub(super) struct Suspended {
    /// Tells our states from those of another node behind this one.
    prefix: String,
    life: Duration,
    table: Mutex<HashMap<String, Entry>>,
}

impl Suspended {
    /// None yet. Each waits for `life` at most.
    pub(super) fn new(tag: &str, life: Duration) -> Self {
        Self { prefix: format!("{PREFIX}:{tag}:"), life, table: Mutex::default() }
    }

    /// Whether a state is one that this node gave.
    pub(super) fn is_ours(&self, state: &str) -> bool {
        state.starts_with(&self.prefix)
    }

    /// Keeps a call and says under which state. A call that there is no room for comes back.
    pub(super) fn keep(&self, principal: &Arc<str>, what: &str, parked: Parked) -> Result<String, Parked> {
        let Ok(state) = self.new_state() else { return Err(parked) };
        let now = Instant::now();
        let mut table = self.lock();
        let gone = take_expired(&mut table, now);
        let has_room = table.len() < SUSPENDED_MAX
            && table.values().filter(|entry| entry.principal == *principal).count() < OF_ONE_MAX;
        if has_room {
            let entry = Entry {
                principal: Arc::clone(principal),
                what: what.to_owned(),
                until: now + self.life,
                parked,
            };
            table.insert(state.clone(), entry);
            drop(table);
            drop(gone);
            return Ok(state);
        }
        Err(parked)
    }

    /// Takes up the call that waits under `state`, once.
    ///
    /// # Errors
    /// `-32602` when there is none, when it is not `principal`'s (which looks the same, and leaves it where it is), and
    /// when the retry is of another call.
    pub(super) fn take(&self, state: &str, principal: &str, what: &str) -> Result<Parked, RpcError> {
        let unknown =
            || params::invalid("this `requestState` is unknown, used or expired: make the call anew");
        let mut table = self.lock();
        let entry =
            table.get(state).filter(|entry| *entry.principal == *principal && entry.until > Instant::now());
        if entry.ok_or_else(unknown)?.what != what {
            return Err(params::invalid("this `requestState` belongs to another call"));
        }
        table.remove(state).map(|entry| entry.parked).ok_or_else(unknown)
    }

    /// Cancels the calls whose time is over at `now`.
    pub(super) fn collect(&self, now: Instant) {
        let gone = take_expired(&mut self.lock(), now);
        drop(gone);
    }

    /// Cancels all of them.
    pub(super) fn clear(&self) {
        let gone = std::mem::take(&mut *self.lock());
        drop(gone);
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn new_state(&self) -> Result<String, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(format!("{}{}", self.prefix, BASE64URL_NOPAD.encode(&bytes)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Every critical section is a single change of the table.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Taken out rather than dropped: dropping a call wakes others, which is not to be done under the lock.
fn take_expired(table: &mut HashMap<String, Entry>, now: Instant) -> Vec<Entry> {
    table.extract_if(|_, entry| entry.until <= now).map(|(_, entry)| entry).collect()
}

/// A member of a retry that must be a string to be a state at all.
pub(super) fn state_of(raw: Option<&RawValue>) -> Option<std::borrow::Cow<'_, str>> {
    raw.and_then(json::as_str)
}

#[cfg(test)]
mod tests {
    use comity_protocol::jsonrpc::codes;

    use super::*;
    use crate::exchange::exchange;

    const LIFE: Duration = Duration::from_secs(60);

    fn parked() -> Parked {
        let asked = vec![Asked::new(1, Id::Number(7), "roots/list", None)];
        Parked { exchange: exchange().0, asked, replies: VecDeque::new(), rounds: Rounds::default() }
    }

    fn keep(suspended: &Suspended, principal: &str) -> Option<String> {
        suspended.keep(&principal.into(), "t", parked()).ok()
    }

    #[test]
    fn a_state_is_good_for_its_principal_its_tool_and_once() {
        let suspended = Suspended::new("x", LIFE);
        let (state, other) = (keep(&suspended, "ana").unwrap(), keep(&suspended, "ana").unwrap());
        assert!(suspended.is_ours(&state) && state != other && state.len() > 50, "{state}");
        assert!(!Suspended::new("y", LIFE).is_ours(&state));
        let forged = format!("{state}A");
        for (state, principal, tool) in [(&state, "ben", "t"), (&state, "ana", "u"), (&forged, "ana", "t")] {
            assert_eq!(suspended.take(state, principal, tool).unwrap_err().code, codes::INVALID_PARAMS);
        }
        assert!(suspended.take(&state, "ana", "t").is_ok());
        assert_eq!(suspended.take(&state, "ana", "t").unwrap_err().code, codes::INVALID_PARAMS);
    }

    #[test]
    fn one_principal_cannot_take_all_the_room_nor_can_all() {
        let suspended = Suspended::new("x", LIFE);
        let of_one = (0..).take_while(|_| keep(&suspended, "ana").is_some()).count();
        assert_eq!(of_one, OF_ONE_MAX);
        let of_all = (0..).take_while(|n| keep(&suspended, &n.to_string()).is_some()).count();
        assert_eq!(of_one + of_all, SUSPENDED_MAX);
        suspended.collect(Instant::now() + LIFE);
        assert_eq!(suspended.len(), 0);
    }

    #[test]
    fn what_is_too_old_is_not_taken_up_and_makes_room() {
        let suspended = Suspended::new("x", Duration::ZERO);
        let state = keep(&suspended, "ana").unwrap();
        assert!(suspended.take(&state, "ana", "t").is_err());
        for _ in 0..2 * OF_ONE_MAX {
            assert!(keep(&suspended, "ana").is_some());
        }
        assert_eq!(suspended.len(), 1);
    }

    #[test]
    fn answers_go_to_who_asked_and_the_others_wait_on() {
        let mut parked = parked();
        parked.asked.push(Asked::new(2, Id::String("s".into()), "sampling/createMessage", None));
        let raw = RawValue::from_string(r#"{"input-2":{"n":1.50},"input-9":{}}"#.into()).unwrap();
        parked.answer(responses(Some(&raw)).unwrap());
        assert_eq!(parked.asked.len(), 1);
        let Some(Outgoing::Message(Message::Response { id, result })) = parked.replies.pop_front() else {
            panic!()
        };
        assert_eq!((id, result.get()), (Id::String("s".into()), r#"{"n":1.50}"#));
        for wrong in ["[]", r#"{"input-1":7}"#, "null"] {
            let raw = RawValue::from_string(wrong.into()).unwrap();
            assert_eq!(responses(Some(&raw)).unwrap_err().code, codes::INVALID_PARAMS);
        }
    }
}
