//! One session with one upstream, shared by every call that goes there.
//!
//! Ids and progress tokens on the wire are ours, so that calls of different requesters cannot be
//! confused; [`table`](super::table) ties what comes back to the call that it belongs to. Messages of
//! one call reach its requester in wire order, because one task reads the wire and never waits.

mod incoming;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use comity_protocol::ids::ServerName;
use comity_protocol::json::{self, RawObject};
use comity_protocol::jsonrpc::{self, Id, Limits, Message, RpcError, codes};
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::config::UpstreamConfig;
use super::http::{HttpLink, Post};
use super::meta::{Dress, VerifiedCaller};
use super::profile::{Era, ServerProfile};
use super::queue::{Priority, QueueError, WriteQueue};
use super::table::{Call, Table};
use super::watch::Updates;
use crate::exchange::{Exchange, Failure, Outcome, Outgoing, exchange};

/// A session. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Session(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    server: ServerName,
    limits: Limits,
    timeout: Duration,
    table: Table,
    link: Link,
    profile: OnceLock<ServerProfile>,
    signals: Signals,
    /// Messages of the server that belonged to no call.
    stray: AtomicU64,
}

/// How messages reach the server.
#[derive(Debug)]
pub(super) enum Link {
    /// A child's standard input, or any other pipe.
    Pipe(WriteQueue),
    /// Streamable HTTP.
    Http(Box<HttpLink>),
}

/// What a session tells its supervisor. Each is a flag: told twice before it is heard, it is told once.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// A list of the server changed.
    pub(super) lists_changed: Notify,
    /// Resources of the server that changed.
    pub(super) updates: Updates,
    /// A call timed out or could not reach the server: it may be dead.
    pub(super) suspect: Notify,
    /// The session is over.
    pub(super) closed: CancellationToken,
}

/// A request to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) params: Option<&'a RawValue>,
    /// On whose behalf; `None` for the node's own requests.
    pub(super) caller: Option<&'a VerifiedCaller>,
    /// Our trace context, to replace the client's.
    pub(super) traceparent: Option<&'a str>,
    /// What a client can do that cannot say so itself; see [`Dress`].
    pub(super) capabilities: Option<&'a RawValue>,
    pub(super) patience: Patience,
}

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long the server may be silent about the call.
    pub(super) silence: Option<Duration>,
    /// How long it may take in all.
    pub(super) total: Option<Duration>,
}

impl Patience {
    /// For the node's own requests.
    pub(super) fn total(total: Duration) -> Self {
        Self { silence: None, total: Some(total) }
    }
}

/// Why a request of the node's own brought no result.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum RequestError {
    /// The server refused.
    #[error("{0}")]
    Rpc(RpcError),
    /// It did not answer.
    #[error("{0}")]
    Failed(Failure),
}

impl Session {
    /// A session over `link`, not yet negotiated.
    pub(super) fn new(server: ServerName, link: Link, config: &UpstreamConfig) -> Self {
        Self(Arc::new(Shared {
            server,
            limits: Limits { bytes_max: config.message_bytes_max, ..Limits::default() },
            timeout: config.timeout,
            table: Table::new(config.in_flight_max),
            link,
            profile: OnceLock::new(),
            signals: Signals::default(),
            stray: AtomicU64::new(0),
        }))
    }

    pub(super) fn server(&self) -> &ServerName {
        &self.0.server
    }

    pub(super) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Why the session is over.
    pub(super) fn end(&self) -> String {
        self.0.table.closed().unwrap_or_else(|| "it ended".to_owned())
    }

    /// How long the server may be silent about a call.
    pub(super) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    pub(super) fn signals(&self) -> &Signals {
        &self.0.signals
    }

    pub(super) fn table(&self) -> &Table {
        &self.0.table
    }

    pub(super) fn link(&self) -> &Link {
        &self.0.link
    }

    /// What the server said of itself, once it is negotiated.
    pub(super) fn profile(&self) -> Option<&ServerProfile> {
        self.0.profile.get()
    }

    pub(super) fn set_profile(&self, profile: ServerProfile) {
        // A session that is renewed over HTTP keeps what it was opened with.
        let _ = self.0.profile.set(profile);
    }

    pub(super) fn era(&self) -> Option<Era> {
        self.profile().map(|profile| profile.era)
    }

    /// Messages of the server that belonged to no call, so far.
    pub(super) fn stray(&self) -> u64 {
        self.0.stray.load(Ordering::Relaxed)
    }

    /// Starts a request and returns at once. Must be called within a tokio runtime.
    pub(super) fn open(&self, request: Request<'_>) -> Exchange {
        let id = self.0.table.next_id();
        let Request { caller, traceparent, capabilities, .. } = request;
        let dressed = Dress { era: self.era(), caller, traceparent, capabilities, id }.put_on(request.params);
        let dressed = match dressed {
            Ok(dressed) => dressed,
            Err(error) => {
                return Exchange::failed(Failure::Refused {
                    code: codes::INVALID_PARAMS,
                    detail: error.to_string(),
                });
            }
        };
        let (exchange, peer) = exchange();
        let call = Call::new(peer.sender, dressed.token, caller.is_some());
        let sized = self.check_size(dressed.params.text_len());
        match &self.0.link {
            Link::Pipe(queue) => {
                let send = || sized.and_then(|()| queue_request(queue, id, request.method, &dressed.params));
                if self.0.table.open(id, call, send) {
                    tokio::spawn(self.clone().steer(id, peer.outgoing, request.patience));
                }
            }
            Link::Http(http) => {
                if self.0.table.open(id, call, || sized.map(|()| None)) {
                    let post = Post::new(http, self.era(), id, request.method, &dressed.params);
                    tokio::spawn(super::http::run(self.clone(), id, post, peer.outgoing, request.patience));
                }
            }
        }
        exchange
    }

    /// Makes a request of the node's own and waits for its result.
    pub(super) async fn request(
        &self,
        method: &str,
        params: Option<&RawValue>,
        patience: Duration,
    ) -> Result<Box<RawValue>, RequestError> {
        let patience = Patience::total(patience);
        let request =
            Request { method, params, caller: None, traceparent: None, capabilities: None, patience };
        match self.open(request).outcome().await {
            Outcome::Result(result) => Ok(result),
            Outcome::Error(error) => Err(RequestError::Rpc(RpcError::from_raw(&error))),
            Outcome::Failed(failure) => Err(RequestError::Failed(failure)),
        }
    }

    /// Ends the session: every call in flight fails at once.
    pub(super) fn close(&self, detail: &str) {
        if let Link::Pipe(queue) = &self.0.link {
            queue.close();
        }
        self.0.table.close(detail, |start| self.handed_over(start));
        self.0.signals.closed.cancel();
    }

    /// Sends a message that is no request: an answer or a notification. Never waits; when too many
    /// wait already the message is dropped, which the log says.
    pub(super) fn send(&self, message: &Message) {
        let sent = match &self.0.link {
            Link::Pipe(queue) => queue
                .push(Priority::Control, |out| message.write_line(out))
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Link::Http(http) => http.send(message),
        };
        if let Err(error) = sent {
            tracing::debug!(server = %self.0.server, %error, "a message to the server was dropped");
        }
    }

    /// Ends a call with an outcome that the transport found.
    pub(super) fn finish(&self, id: i64, outcome: Outcome) {
        self.answered(&Id::Number(id), outcome);
    }

    /// Has the server looked at after a failure that may mean that it is dead.
    pub(super) fn suspect(&self, failure: &Failure) {
        let fatal = matches!(failure, Failure::Unreachable { .. } | Failure::UpstreamDied { .. });
        // Before the handshake is over failures are its business.
        if fatal && self.profile().is_some() {
            self.0.signals.suspect.notify_one();
        }
    }

    /// Watches over one call from the requester's side until it has ended: passes on what the
    /// requester says, and ends the call when it cancels, leaves or has waited long enough.
    pub(super) async fn steer(self, id: i64, mut outgoing: mpsc::Receiver<Outgoing>, patience: Patience) {
        let opened = Instant::now();
        let first = patience.next_look(Duration::ZERO, Duration::ZERO);
        let timer = tokio::time::sleep(first);
        tokio::pin!(timer);
        loop {
            tokio::select! {
                said = outgoing.recv() => match said {
                    Some(Outgoing::Message(message)) => self.relay(id, message),
                    Some(Outgoing::Cancel { reason }) => return self.cancel(id, reason.as_deref()),
                    None => return self.cancel(id, None),
                },
                () = &mut timer => {
                    let Some(silent) = self.0.table.call_silence(id) else { return };
                    let left = patience.next_look(opened.elapsed(), silent);
                    if left.is_zero() {
                        return self.expire(id, opened.elapsed(), patience.is_silent(silent));
                    }
                    timer.as_mut().reset(tokio::time::Instant::now() + left);
                }
            }
        }
    }

    /// Whether the server may have seen a request, given where it stood in the write queue. HTTP
    /// requests have no such place: their own task knows better and answers first.
    fn handed_over(&self, start: Option<u64>) -> bool {
        match (&self.0.link, start) {
            (Link::Pipe(queue), Some(start)) => queue.is_taken(start),
            (Link::Pipe(_), None) => false,
            (Link::Http(_), _) => true,
        }
    }

    fn check_size(&self, size: usize) -> Result<(), Failure> {
        let max = self.0.limits.bytes_max;
        if size <= max {
            return Ok(());
        }
        let detail = format!("a request of {size} bytes exceeds the limit of {max}");
        Err(Failure::TooLarge { handed_over: false, detail })
    }

    /// Passes on what a requester says to the server. Only answers to what it was asked and progress
    /// on them pass: on a shared session anything else could touch the calls of others.
    fn relay(&self, call: i64, message: Message) {
        let allowed = match &message {
            Message::Response { id, .. } | Message::Error { id: Some(id), .. } => {
                self.0.table.answer(call, id)
            }
            Message::Notification { method, .. } => method == "notifications/progress",
            Message::Request { .. } | Message::Error { id: None, .. } => false,
        };
        if allowed {
            self.send(&message);
        } else {
            tracing::debug!(server = %self.0.server, "a message of a client was not for the server");
        }
    }

    fn cancel(&self, id: i64, reason: Option<&str>) {
        let ended =
            self.0.table.abandon(id, |start| Failure::Cancelled { handed_over: self.handed_over(start) });
        if let Some(ended) = ended {
            self.tell_cancelled(id, reason);
            self.refuse_asked(ended);
        }
    }

    /// `silent` tells a server that ignores the call from a requester that waits no longer.
    fn expire(&self, id: i64, after: Duration, silent: bool) {
        let ended = self
            .0
            .table
            .abandon(id, |start| Failure::Timeout { handed_over: self.handed_over(start), after });
        if let Some(ended) = ended {
            self.tell_cancelled(id, Some("timeout"));
            self.refuse_asked(ended);
            if silent {
                self.0.signals.suspect.notify_one();
            }
        }
    }

    /// Tells the server to stop. Over modern HTTP closing the call's stream says it; before the
    /// handshake nothing may be said but the handshake.
    fn tell_cancelled(&self, id: i64, reason: Option<&str>) {
        let by_stream = matches!(self.0.link, Link::Http(_)) && self.era() == Some(Era::Modern);
        if self.profile().is_none() || by_stream {
            return;
        }
        let mut params = RawObject::new();
        params.set("requestId", json::to_raw(&id));
        if let Some(reason) = reason {
            params.set_str("reason", reason);
        }
        self.send(&Message::notification("notifications/cancelled", Some(params.to_raw())));
    }
}

impl Patience {
    fn is_silent(self, silent: Duration) -> bool {
        self.silence.is_some_and(|max| silent >= max)
    }

    /// How long until a call must be looked at again; zero when its time is up.
    fn next_look(self, elapsed: Duration, silent: Duration) -> Duration {
        let silence = self.silence.map(|max| max.saturating_sub(silent));
        let total = self.total.map(|max| max.saturating_sub(elapsed));
        silence.into_iter().chain(total).min().unwrap_or(FAR)
    }
}

/// When a call without any limit is looked at.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

fn queue_request(
    queue: &WriteQueue,
    id: i64,
    method: &str,
    params: &RawObject,
) -> Result<Option<u64>, Failure> {
    let write = |out: &mut Vec<u8>| {
        let start = out.len();
        out.reserve(params.text_len() + method.len() + 64);
        jsonrpc::write_request(out, &Id::Number(id), method, params);
        jsonrpc::flatten_lines(&mut out[start..]);
        out.push(b'\n');
    };
    queue.push(Priority::Call, write).map(Some).map_err(|error| match error {
        QueueError::Full => Failure::Overloaded { handed_over: false, detail: error.to_string() },
        QueueError::Closed => Failure::UpstreamDied { handed_over: false, detail: error.to_string() },
    })
}
