//! The node: every part put together, started in order, watched while it runs, and ended in order.
//!
//! [`Node::start`] is the one place where parts meet. [`Node::run`] waits for a signal or for a critical part to fail,
//! then drains: health says no, clients' and peers' calls finish, the mesh says goodbye, servers are ended, the store
//! is closed.

mod control;
mod enrolment;
mod identity;
mod membership;
mod renewal;
mod report;
#[cfg(test)]
mod tests;
mod watchers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use comity_protocol::trust::Anchors;
use comity_store::{Options, Store};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{AdminServer, Health};
use crate::calls::{CallGateway, Calls, Parts};
use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::control::server::ControlServer;
use crate::enrolment::reception::Reception;
use crate::face::Face;
use crate::identity::DataDir;
use crate::keeping::{Keeping, KeepingError};
use crate::mesh::{self, Bounds, Incoming, MeshHandle, MeshSetup, MeshTask};
use crate::metrics::Metrics;
use crate::slot::MeshSlot;
use crate::telemetry::Chain;
use crate::upstream::UpstreamSet;
use crate::world::keeper::{DECISIONS_MAX, Decision, Keeper, WorldCell};

pub use identity::{IdentityError, Member, NodeIdentity};

/// Threads that a node's runtime uses for its tasks; more cores than these are for its servers.
pub const WORKER_THREADS_MAX: usize = 8;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its key, its membership or its org's root cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[from] comity_store::OpenError),
    /// Its store does not hold what it should.
    #[error(transparent)]
    Keeping(#[from] KeepingError),
    /// It cannot listen for clients.
    #[error(transparent)]
    Face(#[from] crate::face::FaceError),
    /// It cannot listen for operators.
    #[error("cannot listen for health and metrics on {0}")]
    Admin(std::net::SocketAddr, #[source] std::io::Error),
    /// It cannot listen for the command line.
    #[error(transparent)]
    Control(#[from] crate::control::server::BindError),
    /// It cannot take part in the mesh.
    #[error(transparent)]
    Mesh(#[from] mesh::StartError),
    /// There is no randomness.
    #[error("the system has no randomness to give")]
    Random(#[from] getrandom::Error),
    /// A part panicked while it started.
    #[error("a part of the node failed while it started")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Why a running node stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Decisions can no longer be kept.
    #[error("the store failed")]
    Store(#[from] comity_store::CommitError),
    /// The mesh failed.
    #[error(transparent)]
    Mesh(#[from] mesh::MeshError),
    /// A bug.
    #[error("a critical part of the node panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

/// What the end of a run asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process ends.
    Stop,
    /// The node starts again with what is in its data directory now: it has joined an org.
    Restart,
}

/// A running node.
pub struct Node {
    shared: Arc<Shared>,
    critical: Critical,
    shutdown: CancellationToken,
    restart: CancellationToken,
    face_stop: CancellationToken,
}

/// What the parts of a node share.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) started: Instant,
    pub(crate) dir: DataDir,
    pub(crate) config_path: PathBuf,
    pub(crate) config: watch::Receiver<Arc<NodeConfig>>,
    pub(crate) identity: NodeIdentity,
    pub(crate) me: watch::Sender<crate::world::gather::Me>,
    /// The membership in use; that of `identity` is the one that the node started with.
    pub(crate) member: watch::Sender<Option<Member>>,
    pub(crate) keeping: Keeping,
    pub(crate) reception: Arc<Reception>,
    pub(crate) mesh: MeshSlot,
    pub(crate) upstreams: Arc<UpstreamSet>,
    pub(crate) world: Arc<WorldCell>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) decisions: mpsc::Sender<Decision>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) mcp_address: Option<std::net::SocketAddr>,
    pub(crate) admin_address: Option<std::net::SocketAddr>,
    /// Cancelled to end every task that is not a call.
    pub(crate) stop: CancellationToken,
    /// Cancelled to start the node again.
    pub(crate) restart: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// The tasks without which a node must not go on.
struct Critical {
    keeper: JoinHandle<Result<(), comity_store::CommitError>>,
    face: JoinHandle<()>,
    mesh: Option<MeshTask>,
}

/// The mesh's parts, where there is one.
type Meshed = (MeshHandle, Incoming, MeshTask);

impl Node {
    /// Starts a node on `dir` with `config`, which was read from `config_path`. When this returns it answers clients.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(
        dir: DataDir,
        config_path: PathBuf,
        config: NodeConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let started = Instant::now();
        let clock = Clock::start();
        let identity = NodeIdentity::load(&dir, &config, clock.now().wall)?;
        let control = ControlServer::bind(&dir.socket())?;
        let store = open_store(&dir, &identity, clock).await?;
        let keeping = Keeping::new(store, clock);
        let approvals = keeping.approvals.restore()?;
        let reception = Reception::restore(&keeping.store)?;
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let anchors = anchors(&config, &keeping, &identity)?;
        let meshed =
            start_mesh(&config, &identity, anchors, &keeping, &metrics, clock, &mut registry).await?;
        let (handle, incoming, mesh_task) = match meshed {
            Some((handle, incoming, task)) => (Some(handle), Some(incoming), Some(task)),
            None => (None, None, None),
        };
        let mesh = MeshSlot::new(handle);
        let upstreams = Arc::new(UpstreamSet::new());
        upstreams.apply(&watchers::upstream_configs(&config));
        let (config_sender, config_receiver) = watch::channel(Arc::new(config));
        let (me, me_receiver) = watch::channel(identity.me(&config_receiver.borrow()));
        let world = Arc::new(WorldCell::default());
        let mesh_name = config_receiver.borrow().mesh.name.clone();
        let parts = Parts {
            clock,
            config: config_receiver.clone(),
            me: me_receiver.clone(),
            key: identity.key.clone(),
            mesh_name,
            upstreams: upstreams.clone(),
            mesh: mesh.clone(),
            world: world.clone(),
            metrics: metrics.clone(),
        };
        let calls = Calls::new(parts, getrandom::u64()?);
        let face = bind_face(&dir, &config_receiver.borrow().clone(), &calls).await?;
        let admin = bind_admin(&config_receiver.borrow().clone()).await?;
        let (decisions, decision_receiver) = mpsc::channel(DECISIONS_MAX);
        let keeper = Keeper {
            clock,
            config: config_receiver.clone(),
            me: me_receiver,
            upstreams: upstreams.clone(),
            mesh: mesh.clone(),
            keeping: keeping.approvals.clone(),
            cell: world.clone(),
        };
        let (stop, restart, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let shared = Arc::new(Shared {
            clock,
            started,
            dir,
            config_path,
            config: config_receiver,
            member: watch::Sender::new(identity.member.clone()),
            identity,
            me,
            keeping,
            reception,
            mesh,
            upstreams,
            world,
            calls,
            decisions,
            metrics,
            health: Health::default(),
            mcp_address: face.local_addr(),
            admin_address: admin.local_addr().ok(),
            stop: stop.clone(),
            restart: restart.clone(),
            tasks,
        });
        let face_stop = CancellationToken::new();
        let critical = Critical {
            keeper: tokio::spawn(keeper.run(approvals, decision_receiver, stop.clone())),
            face: tokio::spawn(face.run(face_stop.clone())),
            mesh: mesh_task,
        };
        shared.spawn_all(config_sender, incoming, control, admin, registry);
        shared.health.set_store_open(true);
        shared.health.set_mcp_listening(true);
        shared.announce();
        Ok(Self { shared, critical, shutdown, restart, face_stop })
    }

    /// Runs until told to stop, or until a critical part fails; then drains.
    ///
    /// # Errors
    /// [`RunError`] when a critical part failed. The node has been drained as far as it could be.
    pub async fn run(mut self) -> Result<End, RunError> {
        let end = tokio::select! {
            () = self.shutdown.cancelled() => Ok(End::Stop),
            () = self.restart.cancelled() => Ok(End::Restart),
            error = self.critical.failed() => Err(error),
        };
        match &end {
            Ok(End::Stop) => info!("stopping: letting calls in flight finish"),
            Ok(End::Restart) => info!("starting again with the new membership"),
            Err(error) => error!(error = %Chain(error), "a critical part failed: stopping"),
        }
        self.drain().await;
        end
    }

    async fn drain(mut self) {
        let grace = self.shared.config.borrow().limits.shutdown_grace;
        self.shared.health.set_draining();
        self.face_stop.cancel();
        let calls = self.shared.calls.clone();
        // Peers still reach us while their calls finish; with new ones they are sent elsewhere from now on.
        calls.refuse_peers();
        let finished = async {
            ended(&mut self.critical.face).await;
            calls.drained().await;
        };
        if tokio::time::timeout(grace, finished).await.is_err() {
            warn!(in_flight = calls.in_flight(), "calls were still in flight when the grace ended");
        }
        if let Some(mesh) = self.shared.mesh.get() {
            mesh.shut_down().await;
        }
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let end = async {
            self.shared.tasks.wait().await;
            ended(&mut self.critical.keeper).await;
            self.shared.upstreams.shutdown().await;
        };
        if tokio::time::timeout(Duration::from_secs(15), end).await.is_err() {
            warn!("some tasks did not end in time");
        }
        close_store(self.shared.keeping.store.clone()).await;
        info!("stopped");
    }

    /// Where clients reach it.
    pub fn mcp_address(&self) -> Option<std::net::SocketAddr> {
        self.shared.mcp_address
    }
}

impl Critical {
    /// Waits until a critical part has ended by itself.
    async fn failed(&mut self) -> RunError {
        let mesh = async {
            match &mut self.mesh {
                Some(mesh) => mesh.stopped().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            kept = &mut self.keeper => match kept {
                Ok(Ok(())) => std::future::pending().await,
                Ok(Err(error)) => error.into(),
                Err(error) => error.into(),
            },
            served = &mut self.face => match served {
                Ok(()) => std::future::pending().await,
                Err(error) => error.into(),
            },
            stopped = mesh => match stopped {
                Ok(()) => std::future::pending().await,
                Err(error) => error.into(),
            },
        }
    }
}

/// Waits until a task has ended, which it may have done long since: how is told elsewhere.
async fn ended<T>(task: &mut JoinHandle<T>) {
    // A task whose end was taken already must not be asked for it again: that panics.
    if !task.is_finished() {
        let _ = task.await;
    }
}

async fn open_store(dir: &DataDir, identity: &NodeIdentity, clock: Clock) -> Result<Store, StartError> {
    let (path, blobs) = (dir.store(), dir.blobs());
    let options = Options {
        blobs_dir: Some(blobs),
        ..Options::new(*identity.node.as_bytes(), clock.now().wall.as_millis())
    };
    let (store, report) = tokio::task::spawn_blocking(move || Store::open(path, options)).await??;
    if let Some(copy) = &report.repaired_copy {
        warn!(copy = %copy.display(), "the store was corrupt and was repaired; a copy of how it was is kept");
    }
    if report.ballast_released {
        warn!("the disk is full: the store's ballast was given up to open it; make room");
    }
    Ok(store)
}

async fn close_store(store: Store) {
    match tokio::task::spawn_blocking(move || store.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => error!(%fault, "the store did not close well"),
        Err(error) => error!(%error, "closing the store panicked"),
    }
}

/// What is pinned: in the configuration, by joining, and the own org.
fn anchors(config: &NodeConfig, keeping: &Keeping, identity: &NodeIdentity) -> Result<Anchors, StartError> {
    let mut anchors = Anchors::new(config.mesh.name.clone());
    for (org, root, _) in keeping.pins.all()? {
        anchors.pin(org, root);
    }
    // The configuration is the operator's newest word.
    for org in &config.trust {
        anchors.pin(org.name.clone(), org.root);
    }
    if let Some(member) = &identity.member
        && let Some(pin) = member.chain.pin()
    {
        anchors.pin(member.membership.org.clone(), pin);
        let _ = anchors.learn(member.chain.clone());
    }
    keeping.pins.teach_roots(&mut anchors)?;
    Ok(anchors)
}

async fn start_mesh(
    config: &NodeConfig,
    identity: &NodeIdentity,
    anchors: Anchors,
    keeping: &Keeping,
    metrics: &Metrics,
    clock: Clock,
    registry: &mut Registry,
) -> Result<Option<Meshed>, StartError> {
    let Some(identity) = identity.mesh_identity(config) else { return Ok(None) };
    let setup = MeshSetup {
        identity,
        anchors,
        seeds: config.mesh.peers.iter().map(watchers::seed).collect(),
        restored: keeping.mesh.restore()?,
        listen: config.mesh.listen.iter().map(|address| address.as_multiaddr().clone()).collect(),
        external: config.mesh.external_addresses.clone(),
        bounds: Bounds {
            connections_max: config.mesh.connections_max,
            neighbours: config.mesh.neighbours as usize,
            ..Bounds::default()
        },
        persister: keeping.mesh.clone(),
        metrics: metrics.mesh.clone(),
        clock,
        seed: getrandom::u64()?,
    };
    Ok(Some(mesh::start(setup, registry).await?))
}

async fn bind_face(dir: &DataDir, config: &NodeConfig, calls: &Arc<Calls>) -> Result<Face, StartError> {
    let mut face = config.mcp.to_face(&config.constraints, dir.stdio_socket(), &config.limits);
    face.state_tag = calls.tag();
    Ok(Face::bind(face, Arc::new(CallGateway(calls.clone()))).await?)
}

async fn bind_admin(config: &NodeConfig) -> Result<AdminServer, StartError> {
    let address = config.admin.listen;
    AdminServer::bind(&config.admin).await.map_err(|error| StartError::Admin(address, error))
}
