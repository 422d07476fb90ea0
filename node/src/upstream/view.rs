//! What the rest of the node sees of the upstreams.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use comity_protocol::ids::ServerName;
use tokio::sync::watch;

use super::list::Offerings;
use super::profile::ServerProfile;
use super::session::Session;

/// All upstreams at one moment.
pub type Upstreams = BTreeMap<ServerName, UpstreamView>;

/// One upstream at one moment.
#[derive(Debug, Clone)]
pub struct UpstreamView {
    /// Whether calls can be made.
    pub state: UpstreamState,
    /// What it offers. Kept while the server is away, so that catalogues do not flap with every
    /// restart: look at `state` before promising anything.
    pub offerings: Offerings,
    /// What it said of itself when it was last there.
    pub profile: Option<Arc<ServerProfile>>,
    /// Why it was last lost, or why its lists could not be fetched. For the operator's eyes: it may
    /// quote the server.
    pub last_error: Option<String>,
    /// How often it has been started anew.
    pub restarts: u64,
    session: Option<Session>,
}

/// Whether an upstream can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamState {
    /// It is being started, or spoken to for the first time.
    Starting,
    /// It can be called.
    Ready,
    /// It is away and will be tried again.
    Down,
}

impl UpstreamView {
    /// A server that offers `tools`, as it wrote them, and cannot be spoken to.
    #[cfg(test)]
    pub(crate) fn offering(state: UpstreamState, tools: &[&str]) -> Self {
        let tool = |raw: &&str| {
            let raw = serde_json::value::RawValue::from_string((*raw).to_owned()).expect("JSON");
            let name = comity_protocol::json::path(&raw, &["name"]).and_then(comity_protocol::json::as_str);
            super::list::Tool { name: name.expect("a name").parse().expect("a tool's name"), raw }
        };
        let offerings = Offerings { tools: tools.iter().map(tool).collect(), ..Offerings::default() };
        Self { state, offerings, ..Self::starting() }
    }

    /// Calls in flight.
    pub fn in_flight(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.table().in_flight())
    }

    /// Messages of the present session that belonged to no call.
    pub fn stray_messages(&self) -> u64 {
        self.session.as_ref().map_or(0, Session::stray)
    }

    /// The session, if the upstream can be called.
    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_ref().filter(|_| self.state == UpstreamState::Ready)
    }

    fn starting() -> Self {
        Self {
            state: UpstreamState::Starting,
            offerings: Offerings::default(),
            profile: None,
            last_error: None,
            restarts: 0,
            session: None,
        }
    }
}

/// Where supervisors write and everybody else reads. Readers never wait.
#[derive(Debug)]
pub(super) struct Board {
    views: ArcSwap<Upstreams>,
    changes: watch::Sender<u64>,
    writing: Mutex<()>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self { views: ArcSwap::default(), changes: watch::Sender::new(0), writing: Mutex::new(()) }
    }

    pub(super) fn snapshot(&self) -> Arc<Upstreams> {
        self.views.load_full()
    }

    /// The session of an upstream that can be called; `Err` tells one that is away from one that is
    /// not there at all.
    pub(super) fn session(&self, server: &ServerName) -> Result<Session, Absence> {
        let views = self.views.load();
        let view = views.get(server).ok_or(Absence::Unknown)?;
        view.session().cloned().ok_or(Absence::Away)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Enters an upstream, or keeps what is known of it under a new configuration.
    pub(super) fn enter(&self, server: &ServerName) {
        self.write(|views| {
            views.entry(server.clone()).or_insert_with(UpstreamView::starting);
        });
    }

    /// Removes an upstream.
    pub(super) fn remove(&self, server: &ServerName) {
        self.write(|views| {
            views.remove(server);
        });
    }

    /// The upstream can be called.
    pub(super) fn ready(&self, session: &Session, offerings: Offerings) {
        self.change(session.server(), |view| {
            view.state = UpstreamState::Ready;
            view.offerings = offerings;
            view.profile = session.profile().cloned().map(Arc::new);
            view.last_error = None;
            view.session = Some(session.clone());
        });
    }

    /// The upstream is being started again.
    pub(super) fn restarting(&self, server: &ServerName) {
        self.change(server, |view| {
            view.state = UpstreamState::Starting;
            view.restarts += 1;
        });
    }

    /// The upstream is away.
    pub(super) fn down(&self, server: &ServerName, error: String) {
        self.change(server, |view| {
            view.state = UpstreamState::Down;
            view.last_error = Some(error);
            view.session = None;
        });
    }

    /// Something is wrong, but it can be called.
    pub(super) fn note(&self, server: &ServerName, error: String) {
        self.change(server, |view| view.last_error = Some(error));
    }

    fn change(&self, server: &ServerName, change: impl FnOnce(&mut UpstreamView)) {
        self.write(|views| {
            // Absent if it was removed a moment ago: then there is nothing to say.
            if let Some(view) = views.get_mut(server) {
                change(view);
            }
        });
    }

    fn write(&self, change: impl FnOnce(&mut Upstreams)) {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut views = Upstreams::clone(&self.views.load());
        change(&mut views);
        self.views.store(Arc::new(views));
        self.changes.send_modify(|version| *version += 1);
    }
}

/// Why an upstream has no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// It is starting or down.
    Away,
    /// There is no such upstream.
    Unknown,
}
