//! One task per upstream: starts it, keeps its lists fresh, notices when it is gone and starts it
//! again, for ever and ever less often.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use comity_protocol::ids::ServerName;
use comity_protocol::json;
use futures::FutureExt;
use futures::future::{Fuse, FusedFuture};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::child::Program;
use super::config::UpstreamConfig;
use super::guard::Guard;
use super::http::{self, HttpServer};
use super::list::Offerings;
use super::negotiate::{First, negotiate};
use super::noise::LastWords;
use super::profile::Era;
use super::session::{Link, Patience, Request, RequestError, Session};
use super::stdio::StdioServer;
use super::view::Board;
use super::watch::{self, Hub};
use crate::config::servers::Launch;
use crate::exchange::{Failure, Outcome};

/// A server that lived this long is restarted without delay when it is lost.
const STABLE_LIFE: Duration = Duration::from_secs(30);

/// How long changes of lists are gathered before the lists are fetched anew.
const GATHER: Duration = Duration::from_millis(50);

/// The least time between two fetches: a server that announces changes without end costs no more.
const REFRESH_PAUSE: Duration = Duration::from_millis(250);

/// When a refresh that failed is tried again.
const REFRESH_RETRY: Duration = Duration::from_secs(10);

/// A server that said anything within this time is alive.
const LIVELY: Duration = Duration::from_secs(5);

/// How long a suspect may take to answer a ping. A server that is busy in one thread cannot answer
/// sooner, and losing its calls is worse than waiting.
const PING_PATIENCE: Duration = Duration::from_secs(30);

/// How long suspicions are gathered before a ping.
const PING_PAUSE: Duration = Duration::from_millis(200);

/// What all upstreams of a node share. The HTTP client is made when it is first needed: it costs
/// memory that a node without HTTP upstreams keeps.
#[derive(Debug, Default)]
pub(super) struct Hosting {
    pub(super) guard: Arc<Guard>,
    http: OnceLock<reqwest::Client>,
}

impl Hosting {
    fn http(&self) -> reqwest::Result<reqwest::Client> {
        if let Some(client) = self.http.get() {
            return Ok(client.clone());
        }
        let client = http::client()?;
        Ok(self.http.get_or_init(|| client).clone())
    }
}

/// Keeps one upstream running.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) server: ServerName,
    pub(super) config: UpstreamConfig,
    pub(super) hosting: Arc<Hosting>,
    pub(super) board: Arc<Board>,
    /// Who watches its resources.
    pub(super) hub: Arc<Hub>,
    /// Ends the upstream in good order.
    pub(super) stop: CancellationToken,
}

/// A started server.
#[derive(Debug)]
enum Server {
    Stdio(StdioServer),
    Http(HttpServer),
}

/// How a server's life ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Lost(String),
}

impl Supervisor {
    /// Runs until stopped.
    pub(super) async fn run(self) {
        let (mut backoff, mut first) = (Backoff::default(), First::default());
        loop {
            let started = Instant::now();
            let (end, was_ready) = self.live(first).await;
            let End::Lost(error) = end else { return };
            tracing::warn!(server = %self.server, %error, "MCP server lost");
            self.board.down(&self.server, error);
            if was_ready && started.elapsed() >= STABLE_LIFE {
                backoff.reset();
            }
            if !was_ready {
                first = first.other();
            }
            tokio::select! {
                () = sleep(backoff.next()) => self.board.restarting(&self.server),
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// One life of the server. Says how it ended and whether it ever was ready.
    async fn live(&self, first: First) -> (End, bool) {
        let mut server = match self.start() {
            Ok(server) => server,
            Err(error) => return (End::Lost(error), false),
        };
        let mut was_ready = false;
        let end = tokio::select! {
            lost = self.serve(&mut server, first, &mut was_ready) => End::Lost(lost),
            () = self.stop.cancelled() => End::Stopped,
        };
        let End::Lost(error) = end else {
            server.stop().await;
            return (End::Stopped, was_ready);
        };
        // Before the server is given its seconds to end: nobody is to be sent to it now.
        server.session().close(&error);
        self.board.down(&self.server, error.clone());
        let words = server.words().cloned();
        server.stop().await;
        (End::Lost(with_last_words(error, words)), was_ready)
    }

    fn start(&self) -> Result<Server, String> {
        let config = &self.config;
        match &config.launch {
            Launch::Command { program, args, env, cwd } => {
                let launched = Program { program, args, env, cwd: cwd.as_deref() };
                let guard = self.hosting.guard.clone();
                StdioServer::spawn(self.server.clone(), launched, config, guard)
                    .map(Server::Stdio)
                    .map_err(|error| format!("cannot start {program:?}: {error}"))
            }
            Launch::Http { url, headers } => {
                let client = self.hosting.http().map_err(|error| format!("no HTTP client: {error}"))?;
                let open = |link| Session::new(self.server.clone(), link, config);
                HttpServer::new(client, url.as_url().clone(), headers, open)
                    .map(Server::Http)
                    .map_err(|error| error.to_string())
            }
        }
    }

    /// Serves the server until it is lost; says why.
    async fn serve(&self, server: &mut Server, first: First, was_ready: &mut bool) -> String {
        let session = server.session().clone();
        let patience = self.config.start_timeout;
        let opening = async {
            negotiate(&session, self.config.era, first, patience).await.map_err(|error| error.to_string())?;
            Offerings::fetch(&session, patience).await.map_err(|error| error.to_string())
        };
        let offerings = tokio::select! {
            biased;
            () = session.signals().closed.cancelled() => return session.end(),
            opened = timeout(patience, opening) => match opened {
                Ok(Ok(offerings)) => offerings,
                Ok(Err(error)) => return error,
                Err(_) => return format!("it was not ready within {patience:?}"),
            },
        };
        *was_ready = true;
        let mut helpers = JoinSet::new();
        server.listen(&mut helpers);
        helpers.spawn(watch::keep(session.clone(), self.hub.clone()));
        let profile = session.profile();
        let version = profile.map(|profile| profile.version.as_str());
        tracing::info!(server = %self.server, tools = offerings.tools.len(), version, "MCP server ready");
        self.publish(&session, offerings);
        self.watch(&session).await
    }

    /// Keeps a ready server's lists fresh until it is lost; says why.
    async fn watch(&self, session: &Session) -> String {
        let signals = session.signals();
        let (refresh_due, pinging) = (sleep(FAR), Fuse::terminated());
        tokio::pin!(refresh_due, pinging);
        let mut refreshed = None;
        loop {
            tokio::select! {
                () = signals.closed.cancelled() => return session.end(),
                () = signals.lists_changed.notified() => {
                    let soon = Instant::now() + GATHER;
                    let due = refreshed.map_or(soon, |last: Instant| soon.max(last + REFRESH_PAUSE));
                    refresh_due.as_mut().reset(due);
                }
                () = &mut refresh_due => {
                    let fresh = self.refresh(session).await;
                    refreshed = Some(Instant::now());
                    let next = if fresh { FAR } else { REFRESH_RETRY };
                    refresh_due.as_mut().reset(Instant::now() + next);
                }
                () = signals.suspect.notified(), if pinging.is_terminated() => {
                    pinging.set(ping(session).fuse());
                }
                answered = &mut pinging => if let Err(error) = answered {
                    return format!("it does not answer: {error}");
                },
            }
        }
    }

    async fn refresh(&self, session: &Session) -> bool {
        match Offerings::fetch(session, self.config.start_timeout).await {
            Ok(offerings) => {
                tracing::debug!(server = %self.server, tools = offerings.tools.len(), "lists refreshed");
                self.publish(session, offerings);
                true
            }
            Err(error) => {
                tracing::warn!(server = %self.server, %error, "lists cannot be refreshed; the old ones stand");
                self.board.note(&self.server, format!("its lists cannot be refreshed: {error}"));
                false
            }
        }
    }

    fn publish(&self, session: &Session, offerings: Offerings) {
        if let Link::Http(http) = session.link() {
            http.set_param_headers(offerings.tools.iter().map(|tool| &*tool.raw));
        }
        self.board.ready(session, offerings);
    }
}

impl Server {
    fn session(&self) -> &Session {
        match self {
            Self::Stdio(server) => &server.session,
            Self::Http(server) => &server.session,
        }
    }

    fn words(&self) -> Option<&LastWords> {
        match self {
            Self::Stdio(server) => Some(&server.words),
            Self::Http(_) => None,
        }
    }

    /// Starts whatever it takes to hear what the server says unasked.
    fn listen(&mut self, helpers: &mut JoinSet<()>) {
        let session = self.session();
        match (session.era(), self) {
            (Some(Era::Modern), server) => {
                if let Some(params) = subscription(server.session()) {
                    helpers.spawn(subscribe(server.session().clone(), params));
                }
            }
            (_, Self::Http(server)) => server.listen(),
            (_, Self::Stdio(_)) => {}
        }
    }

    async fn stop(self) {
        match self {
            Self::Stdio(server) => server.stop().await,
            Self::Http(server) => server.stop().await,
        }
    }
}

/// When a sleep is as good as none.
const FAR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Whether the server is alive: it said something lately, or it answers, if only to refuse. Takes its
/// time, so that many suspicions cost few pings.
async fn ping(session: &Session) -> Result<(), Failure> {
    sleep(PING_PAUSE).await;
    if matches!(session.link(), Link::Pipe(_)) && session.table().silence() < LIVELY {
        return Ok(());
    }
    let method = match session.era() {
        Some(Era::Modern) => "server/discover",
        _ => "ping",
    };
    match session.request(method, None, PING_PATIENCE).await {
        Ok(_) | Err(RequestError::Rpc(_)) => Ok(()),
        Err(RequestError::Failed(failure)) => Err(failure),
    }
}

/// What to subscribe to in the modern era: changes of whatever the server says may change.
fn subscription(session: &Session) -> Option<Box<RawValue>> {
    let profile = session.profile()?;
    let kinds = [
        ("tools", "toolsListChanged"),
        ("prompts", "promptsListChanged"),
        ("resources", "resourcesListChanged"),
    ];
    let wanted = kinds.iter().filter(|(kind, _)| profile.can(&[kind, "listChanged"]));
    let wanted: serde_json::Map<_, _> = wanted.map(|(_, key)| (key.to_string(), true.into())).collect();
    (!wanted.is_empty()).then(|| json::to_raw(&serde_json::json!({ "notifications": wanted })))
}

/// Holds one subscription open for as long as the session lasts.
async fn subscribe(session: Session, params: Box<RawValue>) {
    let mut backoff = Backoff::default();
    while !session.signals().closed.is_cancelled() {
        let opened = Instant::now();
        let request = Request {
            method: "subscriptions/listen",
            params: Some(&params),
            caller: None,
            traceparent: None,
            capabilities: None,
            patience: Patience { silence: None, total: None },
        };
        let exchange = session.open(request);
        if let Outcome::Error(error) = exchange.outcome().await {
            tracing::debug!(server = %session.server(), error = error.get(), "no subscription");
            return;
        }
        if opened.elapsed() >= STABLE_LIFE {
            backoff.reset();
        }
        sleep(backoff.next()).await;
        // Something may have changed in between.
        session.signals().lists_changed.notify_one();
    }
}

fn with_last_words(error: String, words: Option<LastWords>) -> String {
    match words.and_then(|words| words.last()) {
        Some(last) => format!("{error}; it last wrote: {last}"),
        None => error,
    }
}
