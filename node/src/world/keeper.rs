//! The task that keeps the [`World`] up to date, and what this node offers along with it.
//!
//! It alone owns the approvals: whoever wants one made or taken back asks it, and hears when that is durable.

mod promises;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use comity_protocol::approval::{ApprovalError, Approvals, Scope};
use comity_protocol::ids::{CatalogueDigest, Kind, NodeId};
use comity_protocol::mesh::own::OwnOffers;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::World;
use super::gather::{self, DescriptorCache, Me, Sources};
use crate::clock::Clock;
use crate::config::NodeConfig;
use crate::config::servers::Share;
use crate::config::trust::Approve;
use crate::keeping::ApprovalKeeping;
use crate::mesh::MeshSnapshot;
use crate::slot::MeshSlot;
use crate::upstream::{UpstreamSet, UpstreamState, Upstreams};

use promises::Promises;

/// Changes are gathered this long before the world is made anew: a newcomer's offers come by the dozen.
const GATHER: Duration = Duration::from_millis(5);

/// How often what is offered is looked at when nothing has changed: promises end by time alone.
const TICK: Duration = Duration::from_secs(10);

/// How long a node that starts waits for its servers before it tells others what it offers: those that it offered before
/// it went away should not see its tools vanish and return.
const SETTLE: Duration = Duration::from_secs(2);

/// Decisions of the operator that may wait; whoever sends more waits.
pub const DECISIONS_MAX: usize = 16;

/// Where the world stands; the keeper writes and everybody else reads.
#[derive(Debug)]
pub struct WorldCell {
    world: ArcSwap<World>,
    /// Rises when clients would see a change.
    catalogue: watch::Sender<u64>,
}

impl Default for WorldCell {
    fn default() -> Self {
        Self { world: ArcSwap::default(), catalogue: watch::Sender::new(0) }
    }
}

impl WorldCell {
    /// The world as it is now.
    pub fn load(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// Rises when what clients see changes.
    pub fn catalogue_changes(&self) -> watch::Receiver<u64> {
        self.catalogue.subscribe()
    }
}

/// A decision of the operator on foreign contracts.
#[derive(Debug)]
pub struct Decision {
    /// Yes or no.
    pub approve: bool,
    /// On what.
    pub scopes: Vec<Scope>,
    /// Answered once it is durable and the world shows it.
    pub done: oneshot::Sender<Result<(), DecisionError>>,
}

/// Why a decision was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// A table is full.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// It could not be made durable.
    #[error("the decision could not be kept")]
    Commit(#[from] comity_store::CommitError),
}

/// Keeps the world.
pub struct Keeper {
    /// The time.
    pub clock: Clock,
    /// The configuration as it is now.
    pub config: watch::Receiver<Arc<NodeConfig>>,
    /// This node as it is now; changes with a membership.
    pub me: watch::Receiver<Me>,
    /// The servers.
    pub upstreams: Arc<UpstreamSet>,
    /// The mesh, once there is one.
    pub mesh: MeshSlot,
    /// Where approvals are kept.
    pub keeping: ApprovalKeeping,
    /// Where the world stands.
    pub cell: Arc<WorldCell>,
}

/// What the keeper remembers from one world to the next.
struct State {
    approvals: Approvals,
    cache: DescriptorCache,
    shown: [CatalogueDigest; Kind::ALL.len()],
    offered: Option<OwnOffers>,
    /// Whether every shared server has been heard of since the start, or has had its time.
    settled: bool,
    started: Instant,
    promises: Promises,
    /// What the present world was made of.
    made_of: Option<Inputs>,
}

/// All that a world depends on, besides time and the approvals.
struct Inputs {
    config: Arc<NodeConfig>,
    me: Me,
    upstreams: Arc<Upstreams>,
    mesh: Arc<MeshSnapshot>,
    linked: BTreeSet<NodeId>,
}

impl Inputs {
    /// Whether a world made of `other` would be the same. The mesh makes a new snapshot every other second, whether or not
    /// anything has changed in it.
    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
            && self.me == other.me
            && Arc::ptr_eq(&self.upstreams, &other.upstreams)
            && self.mesh.version == other.mesh.version
            && self.linked == other.linked
    }
}

/// How a decision went, and who waits to hear it.
type Decided = (oneshot::Sender<Result<(), DecisionError>>, Result<(), DecisionError>);

impl Keeper {
    /// Runs until cancelled. `decisions` come from the operator. Returns an error when approvals can no longer be kept.
    ///
    /// # Errors
    /// [`comity_store::CommitError`]: the node must stop.
    pub async fn run(
        mut self,
        approvals: Approvals,
        mut decisions: mpsc::Receiver<Decision>,
        cancel: CancellationToken,
    ) -> Result<(), comity_store::CommitError> {
        let mut upstream_changes = self.upstreams.changes();
        let mut mesh_changes = self.mesh.refreshed();
        let mut state = State::new(approvals);
        let mut decided: Option<Decided> = None;
        loop {
            self.rebuild(&mut state).await?;
            if let Some((asked, outcome)) = decided.take() {
                // Whoever asked may have gone; the decision stands all the same.
                let _ = asked.send(outcome);
            }
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                _ = upstream_changes.changed() => {}
                _ = mesh_changes.changed() => {}
                // Both senders live at least as long as this task is wanted; an end that comes first is no change.
                Ok(()) = self.config.changed() => {}
                Ok(()) = self.me.changed() => {}
                Some(Decision { approve, scopes, done }) = decisions.recv() => {
                    decided = Some((done, self.take(&mut state, approve, &scopes).await));
                    state.made_of = None;
                    continue;
                }
                () = sleep(if state.settled { TICK } else { SETTLE }) => continue,
            }
            sleep(GATHER).await;
        }
    }

    /// Takes a decision whole or not at all.
    async fn take(&self, state: &mut State, approve: bool, scopes: &[Scope]) -> Result<(), DecisionError> {
        let before = state.approvals.clone();
        let outcome = self.try_take(&mut state.approvals, approve, scopes).await;
        if outcome.is_err() {
            state.approvals = before;
        }
        outcome
    }

    async fn try_take(
        &self,
        approvals: &mut Approvals,
        approve: bool,
        scopes: &[Scope],
    ) -> Result<(), DecisionError> {
        let now = self.clock.now().wall;
        for scope in scopes.iter().cloned() {
            if approve { approvals.approve(scope, now)? } else { approvals.revoke(scope, now)? }
        }
        Ok(self.keeping.keep(approvals).await?)
    }

    fn inputs(&mut self) -> Inputs {
        let mesh = self.mesh.snapshot();
        Inputs {
            config: self.config.borrow_and_update().clone(),
            me: self.me.borrow_and_update().clone(),
            upstreams: self.upstreams.snapshot(),
            linked: mesh.linked().map(|peer| peer.node).collect(),
            mesh,
        }
    }

    async fn rebuild(&mut self, state: &mut State) -> Result<(), comity_store::CommitError> {
        let inputs = self.inputs();
        if !state.made_of.as_ref().is_some_and(|made_of| made_of.same(&inputs)) {
            self.make(state, &inputs).await?;
        }
        self.offer(state, &inputs.config, &inputs.upstreams).await;
        state.made_of = Some(inputs);
        Ok(())
    }

    async fn make(&self, state: &mut State, inputs: &Inputs) -> Result<(), comity_store::CommitError> {
        self.approve_configured(state, &inputs.config);
        let sources = Sources {
            me: &inputs.me,
            servers: &inputs.config.servers,
            upstreams: &inputs.upstreams,
            nodes: &inputs.mesh.nodes,
            blobs: &inputs.mesh.blobs,
            linked: &inputs.linked,
            now: self.clock.now().wall,
        };
        let world = gather::world(&sources, &mut state.approvals, &mut state.cache);
        // A first use is a promise to the operator that a change will be noticed: durable before it shows.
        self.keeping.keep(&mut state.approvals).await?;
        self.show(state, world);
        Ok(())
    }

    /// `approve = "all"` of a pinned org is the same as the operator's yes, once.
    fn approve_configured(&self, state: &mut State, config: &NodeConfig) {
        let now = self.clock.now().wall;
        for org in config.trust.iter().filter(|org| org.approve == Approve::All) {
            if !state.approvals.has_policy(&org.name) {
                // A full table shows as tools that stay hidden, which `comity tools` explains.
                let _ = state.approvals.approve(Scope::Org(org.name.clone()), now);
            }
        }
    }

    fn show(&self, state: &mut State, world: World) {
        let digests = world.catalogue.digests();
        self.cell.world.store(Arc::new(world));
        if digests != state.shown {
            state.shown = digests;
            self.cell.catalogue.send_modify(|count| *count += 1);
        }
    }

    async fn offer(&self, state: &mut State, config: &NodeConfig, upstreams: &Upstreams) {
        let Some(mesh) = self.mesh.get().filter(|_| state.settled(config, upstreams)) else { return };
        let now = Instant::now();
        state.promises.note(upstreams, now);
        let State { cache, promises, .. } = state;
        let offers =
            gather::own_offer_sets(&config.servers, upstreams, cache, |name| promises.hold(name, now));
        if state.offered.as_ref() != Some(&offers) {
            mesh.set_offers(offers.clone()).await;
            state.offered = Some(offers);
        }
    }
}

impl State {
    fn new(approvals: Approvals) -> Self {
        Self {
            approvals,
            cache: DescriptorCache::default(),
            shown: World::default().catalogue.digests(),
            offered: None,
            settled: false,
            started: Instant::now(),
            promises: Promises::default(),
            made_of: None,
        }
    }

    fn settled(&mut self, config: &NodeConfig, upstreams: &Upstreams) -> bool {
        let shared = config.servers.iter().filter(|(_, server)| server.share != Share::Local);
        let starting = |name| upstreams.get(name).is_none_or(|view| view.state == UpstreamState::Starting);
        self.settled |= !shared.map(|(name, _)| name).any(starting) || self.started.elapsed() >= SETTLE;
        self.settled
    }
}
