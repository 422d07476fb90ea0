//! Calls: from a client's request to a candidate's answer, and from a peer's stream to a server here.
//!
//! [`Calls`] is the [`Gateway`] behind the MCP face. It resolves the name, tightens the constraints, lets the pure router
//! decide, and runs the call here or over the mesh, failing over while nothing has been handed to a server.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`demand`] | what a request demands: constraints of every source, deadline, trace |
//! | [`chooser`] | how peers have been doing, and the decision |
//! | `outgoing` | one call of a client here, candidate by candidate |
//! | `trying` | one try at a candidate, counted until it ends |
//! | `remote` | the caller's machine over a stream |
//! | `incoming` | the executor's machine over a stream |
//! | `contract` | arguments and structured results against the tool's contract |
//! | `rounds` | a modern server that asks a legacy client for input |
//! | `rename` | what a request is about, in its server's own terms |
//! | `watching` | subscriptions: calls that last |
//! | `follow`, `pins`, `tasks` | requests that must reach the node that an earlier one reached |
//! | `answer` | failures and receipts as clients see them |

mod answer;
pub mod chooser;
mod contract;
pub mod demand;
mod faults;
mod follow;
mod incoming;
mod outgoing;
mod pins;
mod remote;
mod rename;
mod rounds;
mod stream;
mod tasks;
mod trying;
mod watching;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use comity_protocol::call::SeenCalls;
use comity_protocol::call::methods::SUBSCRIBE;
use comity_protocol::catalogue::Catalogue;
use comity_protocol::ids::{CallId, CapabilityId, Kind, MeshName, NodeId};
use comity_protocol::route::{RouteReport, RouteRequest};
use comity_protocol::time::Mono;
use ed25519_dalek::SigningKey;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::exchange::{Exchange, Failure, Outcome, exchange};
use crate::gateway::{Endpoint, Gateway, GatewayRequest};
use crate::metrics::Metrics;
use crate::slot::MeshSlot;
use crate::upstream::UpstreamSet;
use crate::validation::Validators;
use crate::world::ItemRoute;
use crate::world::gather::Me;
use crate::world::keeper::WorldCell;

use chooser::Chooser;
use demand::Demand;
use pins::Pins;
use tasks::TaskIds;
use trying::Trying;

/// Subscriptions of clients here, and of peers, at a time. A further one is refused as overloaded.
pub const WATCHES_MAX: usize = 1024;

/// Calls of peers beyond the bound that may wait to be told so; further ones are cut off.
const REFUSING_MAX: usize = 64;

/// Streams of peers that may be open, calls running on them or not; further ones are cut off.
const STREAMS_MAX: usize = 8192;

/// What calls are made of.
pub struct Parts {
    /// The time.
    pub clock: Clock,
    /// The configuration as it is now.
    pub config: watch::Receiver<Arc<NodeConfig>>,
    /// This node as it is now.
    pub me: watch::Receiver<Me>,
    /// This node's key: it signs receipts.
    pub key: SigningKey,
    /// The mesh's name: it is under every signature.
    pub mesh_name: MeshName,
    /// The servers here.
    pub upstreams: Arc<UpstreamSet>,
    /// The mesh, once there is one.
    pub mesh: MeshSlot,
    /// The world.
    pub world: Arc<WorldCell>,
    /// Counters.
    pub metrics: Metrics,
}

/// Every call that this node makes or runs.
pub struct Calls {
    parts: Parts,
    chooser: Mutex<Chooser>,
    seen: Mutex<SeenCalls>,
    tasks: TaskTracker,
    /// Calls of clients here; when none is left a further one is refused as overloaded.
    outgoing: Arc<Semaphore>,
    /// Calls of peers; apart from the others, so that peers cannot keep this site's own clients out.
    incoming: Arc<Semaphore>,
    /// Calls of peers that are being refused for want of room.
    refusing: Arc<Semaphore>,
    /// Subscriptions of clients here.
    watches: Arc<Semaphore>,
    /// Subscriptions of peers.
    watched: Arc<Semaphore>,
    /// Nothing new is taken up: what would last for ever ends.
    stopping: CancellationToken,
    /// What arguments and results are held against.
    validators: Validators,
    /// Streams of peers.
    streams: Arc<Semaphore>,
    /// Their tasks. Each ends with its connection, so nobody waits for them when this node stops: what is waited for are
    /// the calls, which `tasks` counts.
    serving: TaskTracker,
    /// Who asked for input.
    pins: Mutex<Pins>,
    task_ids: TaskIds,
}

impl Calls {
    /// Nothing in flight yet.
    pub fn new(parts: Parts, seed: u64) -> Arc<Self> {
        let max = parts.config.borrow().limits.calls_in_flight_max as usize;
        let now = parts.clock.now().mono;
        Arc::new(Self {
            chooser: Mutex::new(Chooser::new(seed, now)),
            seen: Mutex::default(),
            tasks: TaskTracker::new(),
            outgoing: Arc::new(Semaphore::new(max)),
            incoming: Arc::new(Semaphore::new(max)),
            refusing: Arc::new(Semaphore::new(REFUSING_MAX)),
            validators: Validators::default(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            serving: TaskTracker::new(),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            watched: Arc::new(Semaphore::new(WATCHES_MAX)),
            stopping: CancellationToken::new(),
            pins: Mutex::default(),
            task_ids: TaskIds::new(&parts.key),
            parts,
        })
    }

    /// Takes up no further call of a peer: they are told that there is no room, and go elsewhere.
    pub fn refuse_peers(&self) {
        self.incoming.close();
        self.stopping.cancel();
    }

    /// Takes up no further call at all and waits until those in flight have ended. Cancel-safe.
    pub async fn drained(&self) {
        self.refuse_peers();
        self.outgoing.close();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether no further call is taken up.
    pub fn is_closed(&self) -> bool {
        self.outgoing.is_closed()
    }

    /// A short name of this node that survives a restart.
    pub fn tag(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.parts.key.verifying_key().as_bytes()[..4])
    }

    /// How many calls are in flight, made and served.
    pub fn in_flight(&self) -> usize {
        self.tasks.len()
    }

    /// Streams of peers that are open, calls running on them or not.
    pub fn peer_streams(&self) -> usize {
        self.serving.len()
    }

    /// Who would run a call of `route` under `demand`, and who would not: what `comity route` shows.
    pub fn explain(&self, route: &ItemRoute, demand: &Demand) -> RouteReport {
        let request = route_request(route, demand);
        let now = self.parts.clock.now();
        let decided = self.with_chooser(|chooser| chooser.decide(&request, &route.candidates, now));
        RouteReport::new(&request, &decided)
    }

    /// What a request of a client demands here and now.
    pub fn demand(&self, request: &GatewayRequest) -> Result<Demand, Failure> {
        if request.method == SUBSCRIBE {
            // No deadline of one call: it lasts, and is made again.
            return Ok(Demand { patience: watching::LIFE, ..Demand::of(request, watching::LIFE)? });
        }
        Demand::of(request, self.parts.config.borrow().limits.call_timeout)
    }

    /// What the choice weighs for `node`, in milliseconds; lower is better.
    pub fn cost_ms(&self, node: &NodeId, now: Mono) -> f64 {
        self.with_chooser(|chooser| chooser.cost_ms(node, now))
    }

    /// Begins a try at `node`, which counts as in flight until it ends.
    fn begin_try(&self, node: NodeId, capability: &CapabilityId, call: CallId) -> Trying<'_> {
        let now = self.parts.clock.mono();
        Trying::new(self, self.with_chooser(|chooser| chooser.begin(node, capability, call, now)))
    }

    fn with_chooser<T>(&self, act: impl FnOnce(&mut Chooser) -> T) -> T {
        act(&mut self.chooser.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        // The table is whole at each point where it could panic.
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn me(&self) -> Me {
        self.parts.me.borrow().clone()
    }
}

fn route_request(route: &ItemRoute, demand: &Demand) -> RouteRequest {
    RouteRequest {
        capability: route.capability.clone(),
        contract: route.contract,
        constraints: demand.constraints.clone(),
    }
}

/// What the MCP face sees.
#[derive(Clone)]
pub struct CallGateway(pub Arc<Calls>);

impl Gateway for CallGateway {
    fn catalogue(&self, endpoint: &Endpoint) -> Option<Arc<Catalogue>> {
        Some(self.0.parts.world.load().view(endpoint)?.catalogue.clone())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.parts.world.catalogue_changes()
    }

    fn request(&self, request: GatewayRequest) -> Exchange {
        if request.method == SUBSCRIBE {
            return watching::start(&self.0, request);
        }
        let Ok(permit) = self.0.outgoing.clone().try_acquire_owned() else {
            let stopping = self.0.outgoing.is_closed();
            let why = if stopping {
                "this node is stopping"
            } else {
                "this node has as many calls in flight as it may"
            };
            return Exchange::failed(Failure::Overloaded { handed_over: false, detail: why.into() });
        };
        let (exchange, peer) = exchange();
        let calls = self.0.clone();
        let counted = InFlight::begin(&self.0.parts.metrics);
        self.0.tasks.spawn(async move {
            let (_permit, _counted) = (permit, counted);
            outgoing::run(&calls, request, peer).await;
        });
        exchange
    }
}

/// One call in the gauge of calls in flight, for as long as it lives.
struct InFlight(Metrics);

impl InFlight {
    fn begin(metrics: &Metrics) -> Self {
        metrics.calls_in_flight.inc();
        Self(metrics.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.calls_in_flight.dec();
    }
}

/// Under what a call is counted: there are more resources than a metric may have labels, so their server stands for them.
fn counted_as(capability: &CapabilityId) -> String {
    match capability.kind {
        Kind::Tool | Kind::Prompt => capability.to_string(),
        Kind::Server | Kind::Template | Kind::Resource => capability.server_itself().to_string(),
    }
}

/// A failure as an outcome.
fn failed(failure: Failure) -> Outcome {
    Outcome::Failed(failure)
}
