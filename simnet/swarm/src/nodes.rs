//! The nodes of a run: each the mesh as it is shipped, over the run's network, on a clock and a disk of its own.

use std::sync::Arc;

use comity_mesh::clock::Clock;
use comity_mesh::metrics::Metrics;
use comity_mesh::{
    Bounds, Incoming, IncomingEnrolment, MemoryPersister, MeshHandle, MeshSetup, MeshSnapshot, MeshTask,
    peer, start_over, transport,
};
use comity_protocol::mesh::MeshEvent;
use comity_protocol::mesh::overlay::Seed;
use comity_simnet::scenario::DiskFate;
use prometheus_client::registry::Registry;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::calls::{Book, Office, Order};
use crate::net::{Process, Shared};
use crate::transport::{NetTransport, address};

/// Kind of a traced event: something that a node's mesh has said.
const SAID: u8 = 16;

/// Kind of a traced event: what a node has said came too fast to be heard.
const LAGGED: u8 = 17;

/// Calls that a node has been told to make and has not begun; those beyond are not made, which the book shows.
const ORDERS_MAX: usize = 64;

/// Why a node did not start: a fault of the simulator's.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Noise got no keys.
    #[error("cannot make a node's transport")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The mesh did not start.
    #[error("cannot start a node's mesh")]
    Mesh(#[from] comity_mesh::StartError),
}

/// One node, running or not.
#[derive(Default)]
pub(crate) struct Node {
    pub(crate) boot: u32,
    pub(crate) running: Option<Running>,
    disk: MemoryPersister,
}

/// A node that runs.
pub(crate) struct Running {
    pub(crate) handle: MeshHandle,
    orders: mpsc::Sender<Order>,
    /// Nobody enrols in a simulation.
    _enrolments: mpsc::Receiver<IncomingEnrolment>,
    task: MeshTask,
    /// What else runs for it, and ends with it.
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Node {
    /// What it knows; `None` while it is down.
    pub(crate) fn snapshot(&self) -> Option<Arc<MeshSnapshot>> {
        self.running.as_ref().map(|running| running.handle.snapshot())
    }

    /// Starts it, unless it runs.
    pub(crate) async fn start(&mut self, net: &Shared, book: &Book, node: usize) -> Result<(), StartError> {
        if self.running.is_some() {
            return Ok(());
        }
        self.boot += 1;
        let (mut registry, process) = (Registry::default(), Process { node, boot: self.boot });
        let setup = setup(net, node, &self.disk, &mut registry);
        let clock = setup.clock;
        let keypair = peer::keypair(&setup.identity.key);
        let raw = NetTransport::new(net.clone(), process);
        let transport =
            transport::secured(raw, &keypair).map_err(|error| StartError::Transport(error.into()))?;
        let (handle, incoming, task) = start_over(transport, setup, &mut registry).await?;
        let (offers, seed) = {
            let stage = &mut net.lock().stage;
            (stage.offers(node), stage.draw())
        };
        let Incoming { calls, enrolments: _enrolments } = incoming;
        let office = Office::new(net.clone(), book.clone(), node, handle.clone(), clock, seed);
        let (orders, queue) = mpsc::channel(ORDERS_MAX);
        let listener = tokio::spawn(listen(net.clone(), node, handle.events()));
        let tasks = [listener, tokio::spawn(office.run(queue, calls))];
        handle.set_offers(offers).await;
        self.running = Some(Running { handle, orders, _enrolments, task, tasks });
        Ok(())
    }

    /// Tells it to make a call.
    pub(crate) fn order(&self, order: Order) {
        if let Some(running) = &self.running {
            // An order beyond the bound is never carried out, and the book will miss its outcome.
            let _full = running.orders.try_send(order);
        }
    }

    /// Its process is gone from one moment to the next.
    pub(crate) fn crash(&mut self, net: &Shared, node: usize, fate: DiskFate) {
        net.vanish(node);
        self.running = None;
        // What was handed over is durable at once here, so a power cut takes nothing; the first tier has disks that lag.
        if fate == DiskFate::Lost {
            self.disk = MemoryPersister::default();
        }
    }

    /// It leaves in peace.
    pub(crate) async fn leave(&mut self, net: &Shared, node: usize) {
        if let Some(mut running) = self.running.take() {
            running.handle.shut_down().await;
            // That it has stopped is all that matters: nobody restarts it before.
            let _stopped = running.task.stopped().await;
            drop(running);
            net.vanish(node);
        }
    }
}

fn setup(net: &Shared, node: usize, disk: &MemoryPersister, registry: &mut Registry) -> MeshSetup {
    let net = &mut *net.lock();
    let (now, stage) = (net.now(), &mut net.stage);
    let (local, seeds) = (stage.clock(node, now), stage.seeds(node));
    MeshSetup {
        identity: stage.identity(node),
        anchors: stage.anchors(node),
        seeds: seeds
            .into_iter()
            .map(|seed| Seed { node: None, address: address(seed).to_string() })
            .collect(),
        restored: disk.restored(),
        listen: vec![address(node)],
        external: Vec::new(),
        bounds: Bounds { memory_bytes_max: usize::MAX, ..Bounds::default() },
        persister: Arc::new(disk.clone()),
        metrics: Metrics::register(registry),
        clock: Clock::simulated(local.now(now).wall, local.drift_ppm),
        seed: stage.draw(),
    }
}

/// Traces what a node says until it ends.
async fn listen(net: Shared, node: usize, mut events: tokio::sync::broadcast::Receiver<MeshEvent>) {
    loop {
        let (kind, said) = match events.recv().await {
            Ok(event) => (SAID, format!("{event:?}")),
            Err(RecvError::Lagged(lost)) => (LAGGED, lost.to_string()),
            Err(RecvError::Closed) => return,
        };
        let net = &mut *net.lock();
        let now = net.now();
        net.trace.event(now, kind, node, said.as_bytes());
    }
}
