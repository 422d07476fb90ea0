//! The task that owns the swarm and the core's [`Mesh`]: it turns what happens into `handle_*` calls and carries out the
//! effects. It decides nothing about trust, neighbours or adverts; that is the machine's.
//!
//! One task owns all of this state, and everybody else sends it messages. Calls do not pass through it.

mod effects;
mod enrolments;
mod events;
mod peers;
mod reach;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use comity_protocol::ids::MeshName;
use comity_protocol::mesh::{ConnectionId, Mesh, MeshEvent};
use comity_protocol::time::Now;
use libp2p::futures::StreamExt as _;
use libp2p::gossipsub::TopicHash;
use libp2p::swarm::Swarm;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::addresses::OwnAddresses;
use super::behaviour::MeshBehaviour;
use super::enrol::{ENROLMENTS_MAX, IncomingEnrolment};
use super::handle::{Command, MeshHandle, Shared};
use super::link::{self, LinkEvent};
use super::persist::{Backlog, PersistError, Persister};
use super::snapshot::MeshSnapshot;
use crate::clock::Clock;
use crate::metrics::Metrics;

use peers::Peers;
use reach::Reach;
#[cfg(feature = "sockets")]
pub(super) use reach::describe as describe_dial_error;
use tasks::{Done, Lookup, Persisted};

/// The least time between two snapshots; changes in between share one.
const REFRESH_GAP: Duration = Duration::from_millis(20);

/// How old the round-trip times in a snapshot may be.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// How long a node that leaves waits for its goodbyes to arrive.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Requests for blobs that may wait for the driver; their tasks wait in turn.
const LOOKUPS_MAX: usize = 16;

/// Why the mesh stopped although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// What must not be forgotten could not be kept.
    #[error("the mesh stopped: its records cannot be made durable")]
    Persist(#[source] PersistError),
    /// A bug.
    #[error("the mesh stopped: its task panicked")]
    Panicked,
}

/// The running mesh. Dropping it ends the mesh at once, without a goodbye.
#[derive(Debug)]
pub struct MeshTask(JoinHandle<Result<(), MeshError>>);

impl MeshTask {
    /// Waits until the mesh has stopped. Cancel-safe.
    ///
    /// # Errors
    /// [`MeshError`] when nobody had asked it to: the node should stop, loudly.
    pub async fn stopped(&mut self) -> Result<(), MeshError> {
        (&mut self.0).await.unwrap_or(Err(MeshError::Panicked))
    }
}

impl Drop for MeshTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the driver is made of.
pub(super) struct Parts {
    pub(super) swarm: Swarm<MeshBehaviour>,
    pub(super) mesh: Mesh,
    pub(super) mesh_name: MeshName,
    pub(super) clock: Clock,
    pub(super) addresses: OwnAddresses,
    pub(super) persister: Arc<dyn Persister>,
    pub(super) metrics: Metrics,
    pub(super) libp2p_metrics: libp2p::metrics::Metrics,
    pub(super) handle: MeshHandle,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) enrolments: mpsc::Sender<IncomingEnrolment>,
}

struct Driver {
    swarm: Swarm<MeshBehaviour>,
    mesh: Mesh,
    topic: TopicHash,
    clock: Clock,
    peers: Peers,
    reach: Reach,
    addresses: OwnAddresses,
    persister: Arc<dyn Persister>,
    backlog: Backlog,
    persisting: Option<JoinHandle<Persisted>>,
    metrics: Metrics,
    libp2p_metrics: libp2p::metrics::Metrics,
    handle: MeshHandle,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    enrolments: mpsc::Sender<IncomingEnrolment>,
    enrolment_permits: Arc<Semaphore>,
    link_sender: mpsc::Sender<(ConnectionId, LinkEvent)>,
    link_events: mpsc::Receiver<(ConnectionId, LinkEvent)>,
    lookup_sender: mpsc::Sender<Lookup>,
    lookups: mpsc::Receiver<Lookup>,
    tasks: JoinSet<Done>,
    stale: Stale,
    refreshed: Instant,
    leaving: Option<Leaving>,
}

/// What of the snapshot is out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stale {
    Nothing,
    Peers,
    Directory,
}

struct Leaving {
    until: Instant,
    /// Resolve when they are dropped.
    _waiting: Vec<oneshot::Sender<()>>,
}

/// Starts the driver's task. The first snapshot is there when this returns.
pub(super) fn spawn(parts: Parts) -> MeshTask {
    let mut driver = Driver::new(parts);
    driver.advertise_addresses();
    driver.refresh();
    MeshTask(tokio::spawn(driver.run()))
}

impl Driver {
    fn new(parts: Parts) -> Self {
        let (link_sender, link_events) = mpsc::channel(link::INBOX_FRAMES_MAX);
        let (lookup_sender, lookups) = mpsc::channel(LOOKUPS_MAX);
        Self {
            topic: super::gossip::advert_topic(&parts.mesh_name).hash(),
            swarm: parts.swarm,
            mesh: parts.mesh,
            clock: parts.clock,
            peers: Peers::default(),
            reach: Reach::default(),
            addresses: parts.addresses,
            persister: parts.persister,
            backlog: Backlog::default(),
            persisting: None,
            metrics: parts.metrics,
            libp2p_metrics: parts.libp2p_metrics,
            shared: parts.handle.shared.clone(),
            handle: parts.handle,
            commands: parts.commands,
            enrolments: parts.enrolments,
            enrolment_permits: Arc::new(Semaphore::new(ENROLMENTS_MAX)),
            link_sender,
            link_events,
            lookup_sender,
            lookups,
            tasks: JoinSet::new(),
            stale: Stale::Directory,
            refreshed: Instant::now(),
            leaving: None,
        }
    }

    async fn run(mut self) -> Result<(), MeshError> {
        loop {
            self.carry_out();
            self.refresh_if_due();
            if self.has_left() {
                return Ok(());
            }
            self.step().await?;
        }
    }

    /// Waits for the next thing to happen and takes it in.
    async fn step(&mut self) -> Result<(), MeshError> {
        let timeout = self.clock.instant(self.mesh.poll_timeout(self.now()));
        let refresh = self.refresh_at();
        tokio::select! {
            event = self.swarm.select_next_some() => self.on_swarm_event(event),
            Some((connection, event)) = self.link_events.recv() => self.on_link_event(connection, event),
            Some(command) = self.commands.recv() => self.on_command(command),
            Some(lookup) = self.lookups.recv() => self.on_lookup(lookup),
            Some(done) = self.tasks.join_next() => self.on_done(done),
            persisted = tasks::settled(&mut self.persisting) => self.on_persisted(persisted)?,
            () = sleep_until(timeout) => self.on_timeout(),
            () = sleep_until(refresh) => self.refresh(),
        }
        Ok(())
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn on_timeout(&mut self) {
        let now = self.now();
        for connection in self.peers.busy() {
            self.mesh.handle_used(connection, now);
        }
        self.mesh.handle_timeout(now);
    }

    fn on_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Connect { node, addresses, reply } => self.connect(node, addresses, reply),
            Command::Enrol { node, address, reply } => self.dial_to_enrol(node, &address, reply),
            Command::Offers(offers) => self.mesh.set_offers(offers, now),
            Command::Pin(org, pin) => self.mesh.pin(org, pin, now),
            Command::Unpin(org) => self.mesh.unpin(&org, now),
            Command::Seed(seed) => self.mesh.add_seed(seed, now),
            Command::Membership(membership, roots) => self.mesh.set_membership(*membership, roots, now),
            Command::Shutdown { done } => self.leave(done),
        }
    }

    fn leave(&mut self, done: oneshot::Sender<()>) {
        match &mut self.leaving {
            Some(leaving) => leaving._waiting.push(done),
            None => {
                let until = Instant::now() + SHUTDOWN_GRACE;
                self.leaving = Some(Leaving { until, _waiting: vec![done] });
                self.mesh.leave(self.now());
            }
        }
    }

    fn has_left(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| self.peers.is_empty() || Instant::now() >= leaving.until)
    }

    fn advertise_addresses(&mut self) {
        let now = self.now();
        self.mesh.set_addresses(self.addresses.advertised(), now);
        self.mark_stale(Stale::Peers);
    }

    fn mark_stale(&mut self, what: Stale) {
        self.stale = self.stale.max(what);
    }

    fn refresh_at(&self) -> Instant {
        self.refreshed + if self.stale == Stale::Nothing { REFRESH_INTERVAL } else { REFRESH_GAP }
    }

    fn refresh_if_due(&mut self) {
        if self.stale != Stale::Nothing && Instant::now() >= self.refresh_at() {
            self.refresh();
        }
    }

    /// Makes a new snapshot. Whoever hears of a change finds it there.
    fn refresh(&mut self) {
        self.shared.admitted.all().iter().for_each(|connection| connection.shed_idle_streams());
        let before = self.shared.snapshot.load_full();
        let listening = self.addresses.listening_at();
        let changed = self.stale == Stale::Directory;
        let after = if changed {
            MeshSnapshot::after_change(&before, &self.mesh, listening)
        } else {
            MeshSnapshot::with_peers(&before, &self.mesh, listening)
        };
        self.metrics.peers.set(i64::try_from(after.linked().count()).unwrap_or(i64::MAX));
        self.metrics.directory_size.set(i64::try_from(after.nodes.len()).unwrap_or(i64::MAX));
        self.shared.snapshot.store(Arc::new(after));
        self.shared.refreshed.send_modify(|count| *count += 1);
        (self.stale, self.refreshed) = (Stale::Nothing, Instant::now());
        if changed {
            let _nobody_listens = self.shared.events.send(MeshEvent::Changed);
        }
    }
}
