//! The calls of a run: the core's router, caller and executor over real streams of real connections.
//!
//! What a node's `calls` does between MCP and the mesh is done here without MCP: an [`Office`] is one running node's. `candidates` is
//! whom it may ask, `caller` and `executor` are the two ends of a call, `framed` the stream between them; the [`Book`] writes down
//! what became of all calls and holds it against the scenario.

mod book;
mod caller;
mod candidates;
mod executor;
mod framed;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use comity_mesh::clock::Clock;
use comity_mesh::{IncomingCall, MeshHandle};
use comity_protocol::call::SeenCalls;
use comity_protocol::ids::CallId;
use comity_protocol::rng::Rng;
use comity_protocol::route::{PeerStats, RetryBudget};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::net::Shared;

pub(crate) use book::Book;

/// Most calls that one node runs for others at once, as in the shell.
const RUNNING_MAX: u32 = 512;

/// What every call asks, and what every tool answers.
const BODY: &[u8] = br#"{"name":"tool","arguments":{}}"#;
const ANSWER: &[u8] = br#"{"content":[]}"#;

/// A call that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// Its number in the book.
    pub(crate) number: usize,
    pub(crate) id: CallId,
    /// The scenario's calls that it is one of, by place.
    pub(crate) source: usize,
}

/// What one running node needs for calls, its own and others'.
pub(crate) struct Office {
    net: Shared,
    book: Book,
    node: usize,
    handle: MeshHandle,
    clock: Clock,
    desk: Mutex<Desk>,
}

/// What a node remembers of calls while it runs.
struct Desk {
    stats: PeerStats,
    budget: RetryBudget,
    rng: Rng,
    seen: SeenCalls,
    running: u32,
}

impl Office {
    pub(crate) fn new(
        net: Shared,
        book: Book,
        node: usize,
        handle: MeshHandle,
        clock: Clock,
        seed: u64,
    ) -> Arc<Self> {
        let desk = Desk {
            stats: PeerStats::new(),
            budget: RetryBudget::new(clock.mono()),
            rng: Rng::new(seed),
            seen: SeenCalls::new(),
            running: 0,
        };
        Arc::new(Self { net, book, node, handle, clock, desk: Mutex::new(desk) })
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what others call and what the node itself is to call, each call as a task, until the orders end. Dropped, it drops
    /// every call under way, as a crash does.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut orders: mpsc::Receiver<Order>,
        mut incoming: mpsc::Receiver<IncomingCall>,
    ) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(call) = incoming.recv() => drop(tasks.spawn(executor::execute(self.clone(), call))),
                order = orders.recv() => match order {
                    Some(order) => drop(tasks.spawn(caller::make(self.clone(), order))),
                    None => return,
                },
                Some(_ended) = tasks.join_next() => {}
            }
        }
    }
}

/// Waits until `due`; for ever, when nothing is due. Cancel-safe.
async fn due_at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
