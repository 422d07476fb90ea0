//! The tasks that follow what changes while a node runs: its configuration, its membership, peers' calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::ids::ServerName;
use comity_protocol::mesh::overlay::Seed;
use comity_protocol::time::Wall;
use comity_protocol::trust::{MEMBERSHIP_LIFETIME_MAX, Membership};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep};
use tracing::info;

use super::Shared;
use super::identity::Member;
use crate::admin::AdminServer;
use crate::config::NodeConfig;
use crate::config::mesh::PeerAddress;
use crate::control::reports::ServerState;
use crate::control::server::ControlServer;
use crate::mesh::{Incoming, IncomingCall};
use crate::upstream::{UpstreamConfig, UpstreamState};

/// How often gauges are set.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Whether a membership is past half of its life: time to renew it.
pub(super) fn renewal_due(membership: &Membership, now: Wall) -> bool {
    now + MEMBERSHIP_LIFETIME_MAX / 2 >= membership.expires
}

/// The part of the servers' configuration that concerns reaching them.
pub(super) fn upstream_configs(config: &NodeConfig) -> BTreeMap<ServerName, UpstreamConfig> {
    let message_bytes_max = config.limits.message_max.as_usize();
    let upstream = |server| UpstreamConfig { message_bytes_max, ..UpstreamConfig::from(server) };
    config.servers.iter().map(|(name, server)| (name.clone(), upstream(server))).collect()
}

/// A configured peer as a seed.
pub(super) fn seed(peer: &PeerAddress) -> Seed {
    Seed { node: Some(peer.node), address: peer.address.to_string() }
}

impl Shared {
    /// Starts every task that is not critical.
    pub(super) fn spawn_all(
        self: &Arc<Self>,
        config: watch::Sender<Arc<NodeConfig>>,
        incoming: Option<Incoming>,
        control: ControlServer,
        admin: AdminServer,
        registry: Registry,
    ) {
        let shared = self.clone();
        self.tasks.spawn(control.run(shared.clone(), self.stop.clone()));
        self.tasks.spawn(admin.run(self.health.clone(), Arc::new(registry), self.stop.clone()));
        let (path, stop) = (self.config_path.clone(), self.stop.clone());
        self.tasks.spawn(async move { crate::config::watch::watch(path, config, stop).await });
        self.tasks.spawn(shared.clone().follow_config());
        self.tasks.spawn(shared.clone().look_after());
        if self.identity.member.is_some() {
            self.tasks.spawn(shared.clone().keep_membership());
        }
        if let Some(Incoming { calls, enrolments }) = incoming {
            self.tasks.spawn(shared.clone().serve_peers(calls));
            self.tasks.spawn(shared.serve_enrolments(enrolments));
        }
    }

    async fn serve_peers(self: Arc<Self>, mut calls: mpsc::Receiver<IncomingCall>) {
        while let Some(Some(call)) = self.stop.run_until_cancelled(calls.recv()).await {
            self.calls.serve(call);
        }
    }

    /// Applies what an edit of the configuration changed and can be changed while running.
    async fn follow_config(self: Arc<Self>) {
        let mut receiver = self.config.clone();
        let mut before = receiver.borrow_and_update().clone();
        while let Some(Ok(())) = self.stop.run_until_cancelled(receiver.changed()).await {
            let after = receiver.borrow_and_update().clone();
            self.upstreams.apply(&upstream_configs(&after));
            self.apply_trust(&before, &after).await;
            self.apply_seeds(&before, &after).await;
            before = after;
        }
    }

    async fn apply_trust(&self, before: &NodeConfig, after: &NodeConfig) {
        let Some(mesh) = self.mesh.get() else { return };
        for gone in before.trust.iter().filter(|org| !after.trust.iter().any(|kept| kept.name == org.name)) {
            info!(org = %gone.name, "org unpinned");
            mesh.unpin(gone.name.clone()).await;
        }
        for org in after.trust.iter().filter(|org| !before.trust.contains(org)) {
            info!(org = %org.name, root = %org.root, "org pinned");
            mesh.pin(org.name.clone(), org.root).await;
        }
    }

    async fn apply_seeds(&self, before: &NodeConfig, after: &NodeConfig) {
        let Some(mesh) = self.mesh.get() else { return };
        for peer in after.mesh.peers.iter().filter(|peer| !before.mesh.peers.contains(peer)) {
            mesh.add_seed(seed(peer)).await;
        }
    }

    /// Sets gauges.
    async fn look_after(self: Arc<Self>) {
        let mut ticks = interval(LOOK_INTERVAL);
        let mut changes = self.upstreams.changes();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
                _ = changes.changed() => {}
            }
            self.set_gauges();
        }
    }

    fn set_gauges(&self) {
        let snapshot = self.mesh.snapshot();
        let peers: BTreeSet<_> = snapshot.linked().map(|peer| peer.node).collect();
        self.metrics.peers.set(i64::try_from(peers.len()).unwrap_or(i64::MAX));
        self.metrics.directory_size.set(i64::try_from(snapshot.nodes.len()).unwrap_or(i64::MAX));
        for (name, view) in self.upstreams.snapshot().iter() {
            self.metrics.upstream(name.as_str(), Some(server_state(view.state)));
        }
    }

    /// The present membership: as the file says, which a renewal or a join by hand may have replaced.
    pub(super) fn member(&self) -> Option<Member> {
        let config = self.config.borrow().clone();
        let fresh = super::NodeIdentity::load(&self.dir, &config, self.clock.now().wall).ok();
        fresh.and_then(|identity| identity.member).or_else(|| self.identity.member.clone())
    }

    /// Uses a renewed membership from now on.
    pub(super) async fn take_membership(&self, member: Member) {
        info!(expires = %member.membership.expires, "membership renewed");
        self.me.send_modify(|me| me.locations_max = member.membership.locations_max);
        if let Some(mesh) = self.mesh.get() {
            mesh.set_membership(member.membership, member.chain).await;
        }
    }

    pub(super) fn announce(&self) {
        let member = self.identity.member.as_ref();
        info!(
            node = %self.identity.node,
            org = member.map(|member| tracing::field::display(&member.membership.org)),
            mcp = self.mcp_address.map(|address| format!("http://{address}/mcp")),
            admin = self.admin_address.map(|address| format!("http://{address}")),
            ready_ms = self.started.elapsed().as_millis() as u64,
            "ready"
        );
    }

    /// Starts the node again, after a moment in which the answer reaches whoever asked.
    pub(super) fn restart_soon(&self) {
        let restart = self.restart.clone();
        self.tasks.spawn(async move {
            sleep(Duration::from_millis(200)).await;
            restart.cancel();
        });
    }
}

/// An upstream's state as reports name it.
pub(super) fn server_state(state: UpstreamState) -> ServerState {
    match state {
        UpstreamState::Starting => ServerState::Starting,
        UpstreamState::Ready => ServerState::Ready,
        UpstreamState::Down => ServerState::Backoff,
    }
}
