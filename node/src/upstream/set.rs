//! All upstreams of a node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use comity_protocol::call::methods::SUBSCRIBE;
use comity_protocol::ids::ServerName;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::UpstreamConfig;
use super::meta::VerifiedCaller;
use super::profile::Era;
use super::session::{Patience, Request};
use super::supervisor::{Hosting, Supervisor};
use super::view::{Absence, Board, Upstreams};
use super::watch::Hub;
use crate::exchange::{Exchange, Failure};

/// The MCP servers that this node fronts. Each has a task of its own, so that none waits for another.
/// Dropping the set kills every child process at once; [`shutdown`](Self::shutdown) ends them in good
/// order.
#[derive(Debug)]
pub struct UpstreamSet {
    board: Arc<Board>,
    hosting: Arc<Hosting>,
    running: Mutex<BTreeMap<ServerName, Running>>,
}

#[derive(Debug)]
struct Running {
    config: UpstreamConfig,
    hub: Arc<Hub>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What is known of a call besides its request.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// How long the caller waits in all; the server's own timeout applies as well.
    pub deadline: Option<Duration>,
    /// The node's `traceparent`, to replace the client's; `None` keeps the client's.
    pub traceparent: Option<String>,
    /// What the client can do, as a server of 2026-07-28 is to be told where the request itself does not say it.
    pub capabilities: Option<Arc<RawValue>>,
}

impl Default for UpstreamSet {
    fn default() -> Self {
        Self::new()
    }
}

impl UpstreamSet {
    /// No upstreams yet. Costs next to nothing until there are some.
    pub fn new() -> Self {
        Self { board: Arc::new(Board::new()), hosting: Arc::default(), running: Mutex::default() }
    }

    /// Makes the running upstreams those of `configs`: starts the new, restarts the changed, stops the
    /// others, and does not touch those whose configuration is equal. Returns at once; must be called
    /// within a tokio runtime.
    pub fn apply(&self, configs: &BTreeMap<ServerName, UpstreamConfig>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<ServerName> =
            running.keys().filter(|name| !configs.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(old) = running.remove(&name) {
                tracing::info!(server = %name, "MCP server removed");
                self.board.remove(&name);
                old.stop.cancel();
            }
        }
        for (name, config) in configs {
            match running.get(name) {
                Some(current) if current.config == *config => {}
                _ => {
                    let old = running.remove(name);
                    running.insert(name.clone(), self.start(name, config, old));
                }
            }
        }
    }

    /// Every upstream as it is now. Cheap; never waits.
    pub fn snapshot(&self) -> Arc<Upstreams> {
        self.board.snapshot()
    }

    /// A number that grows with every change of [`snapshot`](Self::snapshot).
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.board.changes()
    }

    /// The era that is spoken with an upstream now; `None` while it is away.
    pub fn era(&self, server: &ServerName) -> Option<Era> {
        self.board.session(server).ok().and_then(|session| session.era())
    }

    /// Starts a request at an upstream on behalf of `caller`, whom the upstream is told of. Returns at
    /// once; whatever goes wrong is told through the exchange, and dropping that cancels the request.
    /// An upstream that is away fails at once. Must be called within a tokio runtime.
    pub fn open(
        &self,
        server: &ServerName,
        method: &str,
        params: &RawValue,
        caller: &VerifiedCaller,
        options: &CallOptions,
    ) -> Exchange {
        let session = match self.board.session(server) {
            Ok(session) => session,
            Err(absence) => return Exchange::failed(absent(server, absence)),
        };
        if method == SUBSCRIBE {
            return self.watch(server, params);
        }
        session.open(Request {
            method,
            params: Some(params),
            caller: Some(caller),
            traceparent: options.traceparent.as_deref(),
            capabilities: options.capabilities.as_deref(),
            patience: Patience { silence: Some(session.timeout()), total: options.deadline },
        })
    }

    /// Watches a resource, for as long as the exchange is held, over restarts of the server.
    fn watch(&self, server: &ServerName, params: &RawValue) -> Exchange {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.get(server) {
            Some(upstream) => upstream.hub.watch(params),
            None => Exchange::failed(absent(server, Absence::Unknown)),
        }
    }

    /// Ends every upstream in good order: each is given a few seconds, all at the same time.
    pub async fn shutdown(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for upstream in running.values() {
            upstream.stop.cancel();
        }
        for (name, upstream) in running {
            if let Err(error) = upstream.task.await {
                tracing::error!(server = %name, %error, "the server's supervisor failed");
            }
            self.board.remove(&name);
        }
    }

    /// Starts an upstream, once its predecessor of the same name has ended: they may share a port, a
    /// file or a lock.
    fn start(&self, name: &ServerName, config: &UpstreamConfig, old: Option<Running>) -> Running {
        self.board.enter(name);
        let (stop, hub) = (CancellationToken::new(), Arc::<Hub>::default());
        let supervisor = Supervisor {
            server: name.clone(),
            config: config.clone(),
            hosting: self.hosting.clone(),
            board: self.board.clone(),
            hub: hub.clone(),
            stop: stop.clone(),
        };
        if let Some(old) = &old {
            self.board.restarting(name);
            old.stop.cancel();
        }
        let task = tokio::spawn(async move {
            if let Some(old) = old {
                let _ = old.task.await;
            }
            supervisor.run().await;
        });
        Running { config: config.clone(), hub, stop, task }
    }
}

impl Drop for UpstreamSet {
    fn drop(&mut self) {
        for upstream in self.running.get_mut().unwrap_or_else(PoisonError::into_inner).values() {
            upstream.task.abort();
        }
    }
}

fn absent(server: &ServerName, absence: Absence) -> Failure {
    match absence {
        Absence::Away => Failure::Unreachable { detail: format!("the MCP server {server} is down") },
        // Whoever names one has just seen it: it was removed meanwhile, and the call may go elsewhere.
        Absence::Unknown => {
            Failure::Unreachable { detail: format!("there is no MCP server {server} any more") }
        }
    }
}
