//! A server of 2026-07-28 that asks a client of an older revision for input.
//!
//! Such a server asks by its result: `input_required`, with requests inside, and wants the call made again with the
//! answers. A legacy client knows nothing of that. So the node that runs the call asks the client in its own way, by
//! requests during the call, and makes the call again itself, at the same server and with the server's `requestState`
//! as it was. To the client, and to the node between, it is one call.

use std::sync::Arc;
use std::time::Duration;

use comity_protocol::ids::ServerName;
use comity_protocol::json::{self, RawObject};
use comity_protocol::jsonrpc::{Id, Message, RpcError, codes};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::failed;
use super::outgoing::forward;
use crate::exchange::{Exchange, ExchangePeer, Failure, Outcome, Outgoing, exchange};
use crate::input::Ability;
use crate::upstream::meta::{CAPABILITIES_KEY, VERSION_KEY};
use crate::upstream::{CallOptions, Era, UpstreamSet, VerifiedCaller};

/// How often a server may ask during one call.
pub(super) const ROUNDS_MAX: u32 = 16;

/// Requests that one round may hold.
pub(super) const REQUESTS_MAX: usize = 16;

/// How long a round without requests waits before the call is made again, doubled with each in a row.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));

/// A call that may have to be made again: everything that takes.
pub(super) struct Rounds {
    pub(super) upstreams: Arc<UpstreamSet>,
    pub(super) server: ServerName,
    pub(super) method: String,
    pub(super) params: Box<RawValue>,
    pub(super) caller: VerifiedCaller,
    pub(super) options: CallOptions,
    pub(super) deadline: Instant,
    /// How long the caller waits in all, for telling it that it has.
    pub(super) patience: Duration,
}

/// Whether a call with these params at `server` may come to rounds of this kind: the server is modern, and the client is
/// not but has something to offer.
pub(super) fn may_come(upstreams: &UpstreamSet, server: &ServerName, params: &RawValue) -> bool {
    if upstreams.era(server) != Some(Era::Modern) {
        return false;
    }
    let Ok(Some(meta)) = json::field(params, "_meta") else { return false };
    let has = |key| json::field(meta, key).is_ok_and(|value| value.is_some());
    has(CAPABILITIES_KEY) && !has(VERSION_KEY)
}

/// Whether a result asks for input.
pub(super) fn asks(result: &RawValue) -> bool {
    result_type(result).as_deref() == Some("input_required")
}

/// Whether that is how a call has ended for now.
pub(super) fn is_asking(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Result(result) if asks(result))
}

/// The kind of a result; `None` for the ordinary kind of servers that do not say.
pub(super) fn result_type(result: &RawValue) -> Option<std::borrow::Cow<'_, str>> {
    const KEY: &str = "resultType";
    // Most results have none: a search is much cheaper than reading them.
    memchr::memmem::find(result.get().as_bytes(), KEY.as_bytes())?;
    json::as_str(json::field(result, KEY).ok()??)
}

/// What a server wants to know.
struct Wanted {
    requests: Vec<(String, Message)>,
    state: Option<Box<RawValue>>,
}

impl Rounds {
    /// Goes on after `outcome`. Either that was the end, or the call goes on by the new exchange.
    ///
    /// # Errors
    /// The outcome, when it does not ask for input.
    pub(super) fn go_on(self, outcome: Outcome) -> Result<Exchange, Outcome> {
        match outcome {
            Outcome::Result(result) if asks(&result) => {
                let (exchange, mut peer) = exchange();
                tokio::spawn(async move {
                    let outcome = self.run(result, &mut peer).await;
                    peer.finish(outcome);
                });
                Ok(exchange)
            }
            outcome => Err(outcome),
        }
    }

    async fn run(self, result: Box<RawValue>, peer: &mut ExchangePeer) -> Outcome {
        let late = Failure::Timeout { handed_over: true, after: self.patience };
        let deadline = self.deadline;
        let rounds = self.rounds(result, peer);
        tokio::time::timeout_at(deadline, rounds).await.unwrap_or(failed(late))
    }

    async fn rounds(&self, mut result: Box<RawValue>, peer: &mut ExchangePeer) -> Outcome {
        let mut idle = 0;
        for round in 0..ROUNDS_MAX {
            let wanted = match Wanted::read(&result, round) {
                Ok(wanted) => wanted,
                Err(why) => return broken(&why),
            };
            idle = if wanted.requests.is_empty() { idle + 1 } else { 0 };
            let answers = match ask(peer, wanted.requests, idle).await {
                Ok(answers) => answers,
                Err(outcome) => return outcome,
            };
            let again = match self.params(wanted.state, answers) {
                Ok(params) => params,
                Err(why) => return broken(&why),
            };
            let outcome = forward(self.open(&again), peer, self.deadline, self.patience).await;
            match outcome {
                Outcome::Result(next) if asks(&next) => result = next,
                outcome => return outcome,
            }
        }
        broken(&format!("it asked for input more than {ROUNDS_MAX} times"))
    }

    fn open(&self, params: &RawValue) -> Exchange {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let options = CallOptions { deadline: Some(left), ..self.options.clone() };
        self.upstreams.open(&self.server, &self.method, params, &self.caller, &options)
    }

    /// The call as it was, with the answers and the server's state.
    fn params(&self, state: Option<Box<RawValue>>, answers: RawObject) -> Result<Box<RawValue>, String> {
        let mut params = RawObject::parse(&self.params).map_err(|error| error.to_string())?;
        params.remove("inputResponses");
        params.remove("requestState");
        if !answers.is_empty() {
            params.set("inputResponses", answers.to_raw());
        }
        if let Some(state) = state {
            params.set("requestState", state);
        }
        Ok(params.to_raw())
    }
}

impl Wanted {
    fn read(result: &RawValue, round: u32) -> Result<Self, String> {
        let result = RawObject::parse(result).map_err(|error| error.to_string())?;
        let requests =
            result.get_object("inputRequests").map_err(|error| error.to_string())?.unwrap_or_default();
        if requests.len() > REQUESTS_MAX {
            return Err(format!("it asked for more than {REQUESTS_MAX} things at once"));
        }
        let numbered = requests.iter().enumerate();
        let requests: Result<_, String> = numbered
            .map(|(index, (key, request))| Ok((key.to_owned(), to_message(request, round, index)?)))
            .collect();
        let (requests, state): (Vec<_>, _) = (requests?, result.get("requestState").map(RawValue::to_owned));
        if requests.is_empty() && state.is_none() {
            return Err("it asked for input and did not say which".into());
        }
        Ok(Self { requests, state })
    }
}

/// A request inside a result as a request of its own.
fn to_message(request: &RawValue, round: u32, index: usize) -> Result<Message, String> {
    let request = RawObject::parse(request).map_err(|error| error.to_string())?;
    let method = request.get_str("method").ok_or("it asked for something without a method")?.into_owned();
    let params = request.get("params").map(RawValue::to_owned);
    if Ability::to_answer(&method, params.as_deref()).is_none() {
        let method: String = method.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(format!("it asked for {method}, which no client can be asked"));
    }
    Ok(Message::Request { id: Id::String(format!("{round}.{index}")), method, params })
}

/// Asks the client and gathers its answers under their keys.
///
/// # Errors
/// The call's outcome, when the client refuses, cancels or leaves.
async fn ask(
    peer: &mut ExchangePeer,
    requests: Vec<(String, Message)>,
    idle: u32,
) -> Result<RawObject, Outcome> {
    if idle > 0 {
        pause(peer, (PAUSE.0 * 2_u32.saturating_pow(idle - 1)).min(PAUSE.1)).await?;
    }
    let mut open = Vec::with_capacity(requests.len());
    let mut answers = RawObject::new();
    for (key, request) in requests {
        open.push((key, request.id().cloned()));
        peer.sender.send(request).await.map_err(|_| cancelled())?;
    }
    while !open.is_empty() {
        let message = said(peer).await?;
        let Some(at) = open.iter().position(|(_, id)| id.as_ref() == message.id()) else { continue };
        match message {
            Message::Response { result, .. } => answers.set(&open.remove(at).0, result),
            // There is no answer by which a modern server could be told that its question was refused.
            Message::Error { error, .. } => return Err(Outcome::Error(error)),
            Message::Request { .. } | Message::Notification { .. } => {}
        }
    }
    Ok(answers)
}

/// Waits, unless the client has had enough.
async fn pause(peer: &mut ExchangePeer, pause: Duration) -> Result<(), Outcome> {
    let over = tokio::time::sleep(pause);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return Ok(()),
            said = said(peer) => drop(said?),
        }
    }
}

/// What the client says next.
///
/// # Errors
/// The outcome, when it cancels or leaves.
async fn said(peer: &mut ExchangePeer) -> Result<Message, Outcome> {
    match peer.outgoing.recv().await {
        Some(Outgoing::Message(message)) => Ok(message),
        Some(Outgoing::Cancel { .. }) | None => Err(cancelled()),
    }
}

fn cancelled() -> Outcome {
    failed(Failure::Cancelled { handed_over: true })
}

/// The end of a call whose server asks for what it may not, or for ever.
fn broken(why: &str) -> Outcome {
    let text = format!("the tool's server broke off the call: {why}");
    Outcome::Error(RpcError::new(codes::INTERNAL_ERROR, text).to_raw())
}
