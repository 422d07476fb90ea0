//! Legacy sessions: what `initialize` opened and later requests of the same client refer to.
//!
//! Source: MCP 2025-11-25 "Session Management". A session is collected when it is idle, and it is idle only while it
//! has no call in flight and no open stream: however long a call takes, its session stays.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    conversation::Conversation, core::Told, door::Door, handshake::Handshake, stream_log::StreamLog,
};

/// A stream id that no call has: the stream that a client opens by GET.
pub(super) const LISTENING: u64 = 0;

/// What a session begins with.
pub(super) struct Opening {
    pub(super) handshake: Handshake,
    pub(super) door: Arc<Door>,
    pub(super) told: Told,
}

/// One client's session.
#[derive(Debug)]
pub(super) struct Session {
    /// Secret enough to be a credential: never logged.
    pub(super) id: String,
    /// Who opened it; nobody else may use it.
    pub(super) principal: Arc<str>,
    pub(super) handshake: Handshake,
    /// By which endpoint; it is of no use at another.
    pub(super) door: Arc<Door>,
    pub(super) conversation: Arc<Conversation>,
    /// What the client has been told of the lists.
    pub(super) told: Arc<Told>,
    /// The client ended the session.
    pub(super) closed: CancellationToken,
    used: Mutex<Instant>,
    streams: Mutex<HashMap<u64, Arc<StreamLog>>>,
    last_stream: AtomicU64,
    listeners: AtomicUsize,
    /// Grows with each GET: an older listener then ends.
    listener: watch::Sender<u64>,
}

impl Session {
    fn new(id: String, principal: Arc<str>, opening: Opening) -> Self {
        let Opening { handshake, door, told } = opening;
        Self {
            id,
            principal,
            handshake,
            door,
            conversation: Arc::default(),
            told: Arc::new(told),
            closed: CancellationToken::new(),
            used: Mutex::new(Instant::now()),
            streams: Mutex::default(),
            last_stream: AtomicU64::new(LISTENING),
            listeners: AtomicUsize::new(0),
            listener: watch::channel(0).0,
        }
    }

    /// Opens a stream for a call.
    pub(super) fn open_stream(&self) -> (u64, Arc<StreamLog>) {
        let id = self.last_stream.fetch_add(1, Ordering::Relaxed) + 1;
        let log = StreamLog::new(id, self.handshake.takes_priming());
        lock(&self.streams).insert(id, Arc::clone(&log));
        (id, log)
    }

    /// Forgets a call's stream.
    pub(super) fn close_stream(&self, id: u64) {
        lock(&self.streams).remove(&id);
        self.touch();
    }

    /// A call's stream, while it can be resumed.
    pub(super) fn stream(&self, id: u64) -> Option<Arc<StreamLog>> {
        lock(&self.streams).get(&id).cloned()
    }

    /// Enters the stream that the client opened by GET; one opened before ends.
    pub(super) fn listen(self: &Arc<Self>) -> Listener {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        let mut number = 0;
        self.listener.send_modify(|newest| {
            *newest += 1;
            number = *newest;
        });
        Listener { session: Arc::clone(self), number, newest: self.listener.subscribe() }
    }

    fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }

    /// Since when nothing has happened; `None` while something is going on.
    fn idle_since(&self) -> Option<Instant> {
        let busy = self.conversation.in_flight() > 0
            || self.listeners.load(Ordering::Relaxed) > 0
            || !lock(&self.streams).is_empty();
        (!busy).then(|| *lock(&self.used))
    }
}

/// The open GET stream of a session.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) session: Arc<Session>,
    number: u64,
    newest: watch::Receiver<u64>,
}

impl Listener {
    /// Whether no other was open before it in this session.
    pub(super) fn is_first(&self) -> bool {
        self.number == 1
    }

    /// Waits until the client has opened another. Cancel-safe.
    pub(super) async fn replaced(&mut self) {
        let number = self.number;
        // An error means that the session is gone, which ends the stream as well.
        let _ = self.newest.wait_for(|newest| *newest != number).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.session.listeners.fetch_sub(1, Ordering::Relaxed);
        self.session.touch();
    }
}

/// Every session of one endpoint.
#[derive(Debug)]
pub(super) struct Sessions {
    sessions_max: usize,
    table: Mutex<HashMap<String, Arc<Session>>>,
}

/// Why no session was opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The table is full and every session in it is busy.
    #[error("too many sessions")]
    Full,
    /// The operating system has no randomness to give.
    #[error("no randomness for a session id")]
    Randomness(#[from] getrandom::Error),
}

impl Sessions {
    pub(super) fn new(sessions_max: usize) -> Self {
        Self { sessions_max, table: Mutex::default() }
    }

    /// Opens a session; when the table is full, the one that has been idle for longest makes room.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) fn open(&self, principal: &Arc<str>, opening: Opening) -> Result<Arc<Session>, OpenError> {
        let id = session_id()?;
        let mut table = lock(&self.table);
        if table.len() >= self.sessions_max {
            let idle = table.values().filter_map(|session| Some((session.idle_since()?, session.id.clone())));
            let (_, oldest) = idle.min().ok_or(OpenError::Full)?;
            table.remove(&oldest);
        }
        let session = Arc::new(Session::new(id.clone(), Arc::clone(principal), opening));
        table.insert(id, Arc::clone(&session));
        Ok(session)
    }

    /// The session of that id, if `principal` opened it at this `door`. Counts as use.
    pub(super) fn find(&self, id: &str, principal: &str, door: &Door) -> Option<Arc<Session>> {
        let own = |session: &&Arc<Session>| &*session.principal == principal && session.door.key == door.key;
        let session = lock(&self.table).get(id).filter(own).cloned()?;
        session.touch();
        Some(session)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.table).len()
    }

    /// Ends a session: its streams close and its calls are cancelled.
    pub(super) fn close(&self, session: &Session) {
        lock(&self.table).remove(&session.id);
        session.closed.cancel();
    }

    /// Drops the sessions that have been idle for `idle` at `now`, and says how many.
    pub(super) fn collect(&self, now: Instant, idle: Duration) -> usize {
        let mut table = lock(&self.table);
        let before = table.len();
        table.retain(|_, session| session.idle_since().is_none_or(|since| now.duration_since(since) < idle));
        before - table.len()
    }
}

/// 128 random bits in hexadecimal.
fn session_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section here is a single change of a table.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use comity_protocol::jsonrpc::Id;

    use super::*;
    use crate::{
        face::{config::FaceConfig, door::Doors},
        gateway::ClientProfile,
    };

    const IDLE: Duration = Duration::from_secs(60);

    fn door() -> Arc<Door> {
        Doors::new(&FaceConfig::default()).main().clone()
    }

    fn open(sessions: &Sessions) -> Result<Arc<Session>, OpenError> {
        let handshake = Handshake { version: "2025-11-25", client: ClientProfile::default() };
        sessions.open(&"ana".into(), Opening { handshake, door: door(), told: Told::default() })
    }

    /// A moment that is later than all before it.
    fn later() -> Instant {
        let before = Instant::now();
        while Instant::now() <= before {}
        Instant::now()
    }

    #[test]
    fn only_idle_sessions_are_collected() {
        let sessions = Sessions::new(10);
        let all: Vec<_> = (0..4).map(|_| open(&sessions).unwrap()).collect();
        let (_, _cancelled) = all[0].conversation.begin(&Id::Number(1)).unwrap();
        let listener = all[1].listen();
        let (stream, _log) = all[2].open_stream();
        let now = later();
        assert_eq!(sessions.collect(now, IDLE), 0);
        assert_eq!(sessions.collect(now + IDLE, IDLE), 1);
        assert!(sessions.find(&all[3].id, "ana", &door()).is_none());
        later();
        drop(listener);
        all[2].close_stream(stream);
        assert_eq!(sessions.collect(now + IDLE, IDLE), 0, "the end of a stream counts as use");
        assert_eq!(sessions.collect(later() + IDLE, IDLE), 2);
        assert!(sessions.find(&all[0].id, "ana", &door()).is_some(), "a call in flight keeps its session");
    }

    #[test]
    fn a_full_table_drops_the_longest_idle_or_refuses() {
        let sessions = Sessions::new(2);
        let old = open(&sessions).unwrap();
        later();
        let young = open(&sessions).unwrap();
        let third = open(&sessions).unwrap();
        assert!(
            sessions.find(&old.id, "ana", &door()).is_none()
                && sessions.find(&young.id, "ana", &door()).is_some()
        );
        let _listeners = (young.listen(), third.listen());
        assert!(matches!(open(&sessions), Err(OpenError::Full)));
    }

    #[test]
    fn a_session_belongs_to_who_opened_it() {
        let sessions = Sessions::new(2);
        let session = open(&sessions).unwrap();
        assert!(sessions.find(&session.id, "ben", &door()).is_none());
        let raw = Doors::new(&FaceConfig::default()).at("/mcp/raw/time").unwrap();
        assert!(sessions.find(&session.id, "ana", &raw).is_none(), "nor at another endpoint");
        sessions.close(&session);
        assert!(session.closed.is_cancelled() && sessions.find(&session.id, "ana", &door()).is_none());
    }

    #[tokio::test]
    async fn a_newer_listener_replaces_the_older() {
        let sessions = Sessions::new(2);
        let session = open(&sessions).unwrap();
        let mut first = session.listen();
        assert!(futures::poll!(Box::pin(first.replaced())).is_pending());
        let mut second = session.listen();
        first.replaced().await;
        assert!(futures::poll!(Box::pin(second.replaced())).is_pending());
    }
}
