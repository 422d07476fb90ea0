//! The endpoint for operators and their machines: `/healthz/live`, `/healthz/ready` and `/metrics`.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::section::Section;

/// Connections served at once; those beyond it wait to be accepted.
pub const CONNECTIONS_MAX: usize = 64;
/// How long one connection may last: scrapers and probes are quick, and those that are not must not add up.
pub const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(60);
/// How long a client may take to say what it wants.
const HEADERS_DEADLINE: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes. Bodies are never read.
const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// How long accepting pauses after it failed: the process is out of descriptors, and time closes some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The `[admin]` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where health and metrics are served.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        AdminConfig { listen: SocketAddr::from(([127, 0, 0, 1], 7421)) }
    }
}

impl AdminConfig {
    /// Reads the section.
    pub fn read(mut section: Section<'_>) -> Self {
        let config = AdminConfig { listen: section.or("listen", AdminConfig::default().listen) };
        if !config.listen.ip().is_loopback() {
            let problem = format!("{} can be reached from other machines", config.listen);
            section.warning(
                "listen",
                problem,
                "it shows peers and traffic to whoever asks; prefer 127.0.0.1",
            );
        }
        section.finish();
        config
    }
}

/// What must hold before the node says that it is ready. Cheap to clone; every clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Conditions>);

#[derive(Debug, Default)]
struct Conditions {
    store_open: AtomicBool,
    mcp_listening: AtomicBool,
    draining: AtomicBool,
}

impl Health {
    /// The store has been opened and read.
    pub fn set_store_open(&self, holds: bool) {
        self.0.store_open.store(holds, Ordering::Relaxed);
    }

    /// The MCP endpoint answers.
    pub fn set_mcp_listening(&self, holds: bool) {
        self.0.mcp_listening.store(holds, Ordering::Relaxed);
    }

    /// The node takes no new calls, because it is about to end.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// What is missing; empty when the node is ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let conditions = [
            ("store open", self.0.store_open.load(Ordering::Relaxed)),
            ("MCP endpoint listening", self.0.mcp_listening.load(Ordering::Relaxed)),
            ("not draining", !self.0.draining.load(Ordering::Relaxed)),
        ];
        conditions.into_iter().filter(|(_, holds)| !holds).map(|(name, _)| name).collect()
    }
}

/// The endpoint, listening.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
}

impl AdminServer {
    /// Listens; port 0 takes any that is free.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(config: &AdminConfig) -> io::Result<Self> {
        Ok(AdminServer { listener: TcpListener::bind(config.listen).await? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until cancelled.
    pub async fn run(self, health: Health, registry: Arc<Registry>, cancel: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let accept = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = cancel.cancelled() => break,
                accepted = accept => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (health, registry) = (health.clone(), Arc::clone(&registry));
                    tasks.spawn(async move {
                        serve(stream, health, registry).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept on the admin endpoint");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        tasks.shutdown().await;
    }
}

async fn serve(stream: TcpStream, health: Health, registry: Arc<Registry>) {
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let service = service_fn(move |request| {
        let response = if local && !host_is_loopback(&request) {
            text(StatusCode::FORBIDDEN, "this endpoint answers to localhost only\n")
        } else {
            answer(&request, &health, &registry)
        };
        ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_DEADLINE)
        .max_buf_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION_LIFE_MAX, connection).await {
        debug!(%error, "an admin connection failed");
    }
}

/// A page of the web can make a browser ask a name that leads to 127.0.0.1 (DNS rebinding); its `Host` gives it away.
fn host_is_loopback<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(authority) = host.and_then(|host| host.parse::<http::uri::Authority>().ok()) else {
        return false;
    };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn answer(request: &Request<Incoming>, health: &Health, registry: &Registry) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/healthz/live" => body(StatusCode::OK, "application/json", json!({ "status": "live" }).to_string()),
        "/healthz/ready" => readiness(health),
        "/metrics" => metrics(registry),
        _ => text(StatusCode::NOT_FOUND, "here are /healthz/live, /healthz/ready and /metrics\n"),
    }
}

fn readiness(health: &Health) -> Response<Full<Bytes>> {
    let missing = health.missing();
    let (status, word) = match missing.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    body(status, "application/json", json!({ "status": word, "missing": missing }).to_string())
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut encoded = String::new();
    match encode(&mut encoded, registry) {
        Ok(()) => body(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", encoded),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be encoded\n"),
    }
}

fn text(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    body(status, "text/plain; charset=utf-8", message.to_owned())
}

fn body(status: StatusCode, content_type: &'static str, content: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(content)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::sync::DropGuard;

    use super::*;
    use crate::metrics::Metrics;

    struct Fixture {
        address: SocketAddr,
        health: Health,
        metrics: Metrics,
        _cancel: DropGuard,
    }

    async fn start() -> Fixture {
        let config = AdminConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let server = AdminServer::bind(&config).await.expect("bind");
        let address = server.local_addr().expect("address");
        let (health, mut registry) = (Health::default(), Registry::default());
        let metrics = Metrics::register(&mut registry);
        let cancel = CancellationToken::new();
        tokio::spawn(server.run(health.clone(), Arc::new(registry), cancel.clone()));
        Fixture { address, health, metrics, _cancel: cancel.drop_guard() }
    }

    impl Fixture {
        /// Sends bytes and reads until the server closes.
        async fn raw(&self, request: &[u8]) -> String {
            let mut stream = TcpStream::connect(self.address).await.expect("connect");
            let _ = stream.write_all(request).await;
            let mut answer = Vec::new();
            let read = timeout(CONNECTION_LIFE_MAX, stream.read_to_end(&mut answer)).await.expect("in time");
            let _ = read;
            String::from_utf8_lossy(&answer).into_owned()
        }

        async fn get(&self, path: &str, host: &str) -> String {
            self.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
                .await
        }
    }

    fn check(answer: &str, status: u16, part: &str) {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(part), "{answer}");
    }

    #[tokio::test]
    async fn it_is_ready_when_the_store_is_open_and_clients_can_come_until_it_drains() {
        let f = start().await;
        check(&f.get("/healthz/live", "localhost").await, 200, "live");
        check(&f.get("/healthz/ready", "127.0.0.1:1").await, 503, "MCP endpoint listening");
        f.health.set_store_open(true);
        check(&f.get("/healthz/ready", "[::1]:1").await, 503, "\"missing\":[\"MCP endpoint listening\"]");
        f.health.set_mcp_listening(true);
        check(&f.get("/healthz/ready", "localhost").await, 200, "\"ready\"");
        f.health.set_draining();
        check(&f.get("/healthz/ready", "localhost").await, 503, "not draining");
    }

    #[tokio::test]
    async fn metrics_are_served() {
        let f = start().await;
        f.metrics.mesh.peers.set(3);
        let answer = f.get("/metrics", "localhost").await;
        check(&answer, 200, "comity_peers 3\n");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn what_is_not_asked_properly_is_refused() {
        let f = start().await;
        check(&f.get("/metrics", "evil.example").await, 403, "localhost only");
        check(&f.raw(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await, 403, "localhost only");
        check(&f.get("/nothing", "localhost").await, 404, "/metrics");
        let post =
            b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
        check(&f.raw(post).await, 405, "only GET");
        f.raw(&vec![b'x'; 10 * HEADERS_BYTES_MAX]).await;
        f.raw(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(2 * HEADERS_BYTES_MAX)).as_bytes())
            .await;
        check(&f.get("/healthz/live", "localhost").await, 200, "live");
    }
}
