//! MCP over streamable HTTP, as its client.
//!
//! Each request is a POST whose answer is JSON or an event stream. On the stream come first the
//! call's notifications and the server's requests, which are thereby tied to the call, and then its
//! answer. The legacy era adds a session, which may expire, and a GET stream for what belongs to no
//! request.
//!
//! A request is sent again in one case only: the server does not know the session it was sent in, which
//! means that nobody processed it.

pub(super) mod annotations;
mod answer;
mod headers;
mod listen;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use comity_protocol::json::RawObject;
use comity_protocol::jsonrpc::{self, Id, Message};
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, Url};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::answer::{Answer, answer, died, status_failure};
use self::headers::ParamHeaders;
use super::profile::{self, Era, ServerProfile};
use super::session::{Link, Patience, Session};
use crate::exchange::{Failure, Outcome, Outgoing};
use crate::secret::Secret;

pub(super) use self::listen::listen;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server may take to accept a message that needs no answer.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the server may take to open a new session for one that expired.
const RENEW_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a session may take to be ended politely.
const DELETE_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers and notifications that may wait for the server; beyond it they are dropped and logged.
const CONTROL_QUEUE_MAX: usize = 256;

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const BOTH_TYPES: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// The way to one server over HTTP.
#[derive(Debug)]
pub(super) struct HttpLink {
    client: reqwest::Client,
    url: Url,
    state: Mutex<State>,
    /// Held while a session is renewed: one renewal serves all calls that found it expired.
    renewing: tokio::sync::Mutex<()>,
    control: mpsc::Sender<Message>,
}

#[derive(Debug)]
struct State {
    /// The operator's headers, and those of the session.
    headers: HeaderMap,
    /// Counts sessions, so that a session is renewed once however many calls find it expired.
    generation: u64,
    params: ParamHeaders,
}

/// Why a server cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpConfigError {
    /// A header's name or value cannot be sent.
    #[error("the header {0:?} cannot be sent")]
    Header(String),
}

/// A request ready to be posted.
#[derive(Debug)]
pub(super) struct Post {
    method: String,
    body: Bytes,
    headers: HeaderMap,
}

/// A server reached over HTTP: its session and the tasks that serve it. Dropping it ends them.
#[derive(Debug)]
pub(super) struct HttpServer {
    pub(super) session: Session,
    tasks: JoinSet<()>,
}

/// The HTTP client that all upstreams share.
pub(super) fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(concat!("comity/", env!("CARGO_PKG_VERSION")))
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        // A redirect would carry the operator's headers to wherever the server says.
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

impl HttpServer {
    /// A session with the server at `url`, not yet negotiated. `open` makes it of the link.
    pub(super) fn new(
        client: reqwest::Client,
        url: Url,
        headers: &BTreeMap<String, Secret>,
        open: impl FnOnce(Link) -> Session,
    ) -> Result<Self, HttpConfigError> {
        let (control, queue) = mpsc::channel(CONTROL_QUEUE_MAX);
        let state = State { headers: read_headers(headers)?, generation: 0, params: ParamHeaders::default() };
        let link = HttpLink {
            client,
            url,
            state: Mutex::new(state),
            renewing: tokio::sync::Mutex::default(),
            control,
        };
        let session = open(Link::Http(Box::new(link)));
        let mut tasks = JoinSet::new();
        tasks.spawn(post_control(session.clone(), queue));
        Ok(Self { session, tasks })
    }

    /// Listens to what the server says unasked, in the legacy era. To be called once negotiated.
    pub(super) fn listen(&mut self) {
        self.tasks.spawn(listen(self.session.clone()));
    }

    /// Ends the session in good order.
    pub(super) async fn stop(mut self) {
        self.session.close("stopped by the operator");
        self.tasks.abort_all();
        if let Link::Http(http) = self.session.link() {
            // A courtesy; the server may not know the method.
            let _ = timeout(DELETE_TIMEOUT, http.delete()).await;
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Post {
    /// The request `id` with these params.
    pub(super) fn new(http: &HttpLink, era: Option<Era>, id: i64, method: &str, params: &RawObject) -> Self {
        let mut body = Vec::with_capacity(params.text_len() + method.len() + 64);
        jsonrpc::write_request(&mut body, &Id::Number(id), method, params);
        let discovers = method == "server/discover";
        let modern = era == Some(Era::Modern) || discovers;
        let mut headers = if modern { http.lock().params.of(method, params) } else { HeaderMap::new() };
        if discovers {
            // Nothing is agreed yet, and a server of that era refuses a request without the header.
            headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(profile::MODERN_VERSION));
        }
        Self { method: method.to_owned(), body: body.into(), headers }
    }

    /// `initialize` opens a session and so belongs to none; before an answer, no version is agreed.
    fn opens_session(&self) -> bool {
        self.method == "initialize"
    }
}

impl HttpLink {
    /// Queues a message that is no request.
    pub(super) fn send(&self, message: &Message) -> Result<(), String> {
        self.control.try_send(message.clone()).map_err(|error| error.to_string())
    }

    /// Notes which arguments of which tools must be repeated in headers (2026-07-28).
    pub(super) fn set_param_headers<'a>(&self, tools: impl Iterator<Item = &'a serde_json::value::RawValue>) {
        self.lock().params = ParamHeaders::read(tools);
    }

    /// Posts a message and returns once the server has it.
    pub(super) async fn post_message(&self, message: &Message) -> Result<(), Failure> {
        let post = Post { method: String::new(), body: message.to_vec().into(), headers: HeaderMap::new() };
        let (response, _) = self.post(&post).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(status_failure(status)),
        }
    }

    /// Posts, and says in which session.
    async fn post(&self, post: &Post) -> Result<(Response, u64), Failure> {
        let (mut headers, generation) = self.headers();
        if post.opens_session() {
            headers.remove(SESSION_ID);
            headers.remove(PROTOCOL_VERSION);
        }
        headers.insert(ACCEPT, BOTH_TYPES);
        headers.insert(CONTENT_TYPE, JSON);
        headers.extend(post.headers.clone());
        let request = self.client.post(self.url.clone()).headers(headers).body(post.body.clone());
        let response = request.send().await.map_err(|error| self.transport_failure(&error))?;
        Ok((response, generation))
    }

    /// Opens the stream of what the server says unasked, or resumes a stream after an event.
    async fn get(&self, last_event_id: Option<&str>) -> Result<(Response, u64), Failure> {
        let (mut headers, generation) = self.headers();
        headers.insert(ACCEPT, EVENT_STREAM);
        if let Some(id) = last_event_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(LAST_EVENT_ID, id);
        }
        let request = self.client.get(self.url.clone()).headers(headers);
        let response = request.send().await.map_err(|error| self.transport_failure(&error))?;
        Ok((response, generation))
    }

    async fn delete(&self) {
        let (headers, _) = self.headers();
        if headers.contains_key(SESSION_ID) {
            let _ = self.client.delete(self.url.clone()).headers(headers).send().await;
        }
    }

    fn headers(&self) -> (HeaderMap, u64) {
        let state = self.lock();
        (state.headers.clone(), state.generation)
    }

    /// Enters a new session.
    fn begin_session(&self, id: Option<HeaderValue>) {
        let mut state = self.lock();
        state.generation += 1;
        match id {
            Some(mut id) => {
                id.set_sensitive(true);
                state.headers.insert(SESSION_ID, id)
            }
            None => state.headers.remove(SESSION_ID),
        };
    }

    /// Names the revision in every request from now on.
    pub(super) fn set_version(&self, version: &str) {
        if let Ok(version) = HeaderValue::from_str(version) {
            self.lock().headers.insert(PROTOCOL_VERSION, version);
        }
    }

    /// A request that never left may go elsewhere; any other may have been processed. Callers may be
    /// strangers to this node: they learn nothing of its network.
    fn transport_failure(&self, error: &reqwest::Error) -> Failure {
        tracing::debug!(host = self.url.host_str(), error = %chain(error), "HTTP failed");
        if error.is_connect() || error.is_builder() {
            return Failure::Unreachable { detail: "the MCP server cannot be connected to".into() };
        }
        died("the connection to the MCP server broke")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries one call: posts it and reads its stream, until its answer or its requester's end.
pub(super) async fn run(
    session: Session,
    id: i64,
    post: Post,
    outgoing: mpsc::Receiver<Outgoing>,
    patience: Patience,
) {
    tokio::select! {
        end = converse(&session, id, &post) => {
            if let Err(failure) = end {
                session.suspect(&failure);
                session.finish(id, Outcome::Failed(failure));
            }
        }
        // Ending first closes the stream, which is how the modern era cancels.
        () = session.clone().steer(id, outgoing, patience) => {}
    }
}

async fn converse(session: &Session, id: i64, post: &Post) -> Result<(), Failure> {
    let Link::Http(http) = session.link() else { return Ok(()) };
    let (response, generation) = http.post(post).await?;
    let mut answered = Answer::read(session, response).await;
    if answered.is_lost_session() && !post.opens_session() && http.has_session() {
        renew(session, generation).await?;
        let (response, _) = http.post(post).await?;
        answered = Answer::read(session, response).await;
    }
    if let Answer::Accepted(response) = &answered
        && post.opens_session()
    {
        http.begin_session(response.headers().get(SESSION_ID).cloned());
    }
    answer(session, http, id, answered).await
}

impl HttpLink {
    fn has_session(&self) -> bool {
        self.lock().headers.contains_key(SESSION_ID)
    }

    fn generation(&self) -> u64 {
        self.lock().generation
    }
}

/// Opens a new session in place of one that the server no longer knows. Boxed, because a renewal is
/// itself a call.
fn renew(session: &Session, expired: u64) -> BoxFuture<'_, Result<(), Failure>> {
    async move {
        let Link::Http(http) = session.link() else { return Ok(()) };
        let _one = http.renewing.lock().await;
        if http.generation() != expired {
            return Ok(());
        }
        let lost = |detail: String| Failure::UpstreamDied { handed_over: false, detail };
        let result = session
            .request("initialize", Some(&profile::initialize_params()), RENEW_TIMEOUT)
            .await
            .map_err(|error| lost(format!("its session expired and cannot be renewed: {error}")))?;
        let profile = ServerProfile::from_initialize(&result).map_err(|error| lost(error.to_string()))?;
        http.set_version(&profile.version);
        http.post_message(&Message::notification("notifications/initialized", None)).await?;
        tracing::info!(server = %session.server(), "the server's session expired and was renewed");
        session.signals().lists_changed.notify_one();
        Ok(())
    }
    .boxed()
}

/// Posts answers, notifications and cancellations one after another.
async fn post_control(session: Session, mut queue: mpsc::Receiver<Message>) {
    let Link::Http(http) = session.link() else { return };
    while let Some(message) = queue.recv().await {
        let method = message.method().unwrap_or("an answer").to_owned();
        match timeout(CONTROL_TIMEOUT, http.post_message(&message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(server = %session.server(), method, %error, "not delivered"),
            Err(_) => tracing::debug!(server = %session.server(), method, "not delivered in time"),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

fn read_headers(headers: &BTreeMap<String, Secret>) -> Result<HeaderMap, HttpConfigError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let refuse = || HttpConfigError::Header(name.clone());
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse())?;
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| refuse())?;
        value.set_sensitive(true);
        map.insert(header, value);
    }
    Ok(map)
}
