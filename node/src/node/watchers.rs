//! The tasks that follow what changes while a node runs: its configuration, its membership, peers' calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::ids::{OrgName, RootHash, ServerName};
use comity_protocol::mesh::overlay::Seed;
use comity_protocol::time::Wall;
use comity_protocol::trust::{MEMBERSHIP_LIFETIME_MAX, Membership};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep};
use tracing::{error, info};

use super::Shared;
use crate::admin::AdminServer;
use crate::config::NodeConfig;
use crate::config::mesh::PeerAddress;
use crate::control::reports::ServerState;
use crate::control::server::ControlServer;
use crate::mesh::{Incoming, IncomingCall};
use crate::telemetry::Chain;
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
        // Taken before anybody watches: an edit that is noticed first of all must count as one.
        let mut followed = self.config.clone();
        let started_with = followed.borrow_and_update().clone();
        self.tasks.spawn(shared.clone().follow_config(followed, started_with));
        let (path, stop) = (self.config_path.clone(), self.stop.clone());
        self.tasks.spawn(async move { crate::config::watch::watch(path, config, stop).await });
        self.tasks.spawn(shared.clone().look_after());
        self.tasks.spawn(shared.clone().follow_membership());
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
    async fn follow_config(
        self: Arc<Self>,
        mut receiver: watch::Receiver<Arc<NodeConfig>>,
        mut before: Arc<NodeConfig>,
    ) {
        while let Some(Ok(())) = self.stop.run_until_cancelled(receiver.changed()).await {
            let after = receiver.borrow_and_update().clone();
            self.upstreams.apply(&upstream_configs(&after));
            self.apply_trust(&before, &after).await;
            self.apply_seeds(&before, &after).await;
            before = after;
        }
    }

    /// An org that the file no longer names goes back to the pin that it was given by joining, if there is one. The own
    /// org's is the membership's, whatever the file says.
    async fn apply_trust(&self, before: &NodeConfig, after: &NodeConfig) {
        let Some(mesh) = self.mesh.get() else { return };
        let own = self.me.borrow().org.clone();
        let root = |config: &NodeConfig, name: &OrgName| {
            config.trust.iter().find(|org| org.name == *name).map(|org| org.root)
        };
        let named = before.trust.iter().chain(&after.trust).map(|org| &org.name);
        for name in named.filter(|name| **name != own).collect::<BTreeSet<_>>() {
            let now = root(after, name);
            if now == root(before, name) {
                continue;
            }
            match now.or_else(|| self.joined_pin(name)) {
                Some(root) => {
                    info!(org = %name, %root, "org pinned");
                    mesh.pin(name.clone(), root).await;
                }
                None => {
                    info!(org = %name, "org unpinned");
                    mesh.unpin(name.clone()).await;
                }
            }
        }
    }

    fn joined_pin(&self, org: &OrgName) -> Option<RootHash> {
        let pins = self.keeping.pins.all();
        let pins =
            pins.inspect_err(|error| error!(error = %Chain(error), "kept pins cannot be read")).ok()?;
        pins.into_iter().find(|(name, ..)| name == org).map(|(_, root, _)| root)
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
        let mut servers = BTreeSet::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = ticks.tick() => {}
                _ = changes.changed() => {}
            }
            self.set_gauges(&mut servers);
        }
    }

    /// `servers` are those that have a gauge.
    fn set_gauges(&self, servers: &mut BTreeSet<ServerName>) {
        let snapshot = self.mesh.snapshot();
        let peers: BTreeSet<_> = snapshot.linked().map(|peer| peer.node).collect();
        self.metrics.mesh.peers.set(i64::try_from(peers.len()).unwrap_or(i64::MAX));
        self.metrics.mesh.directory_size.set(i64::try_from(snapshot.nodes.len()).unwrap_or(i64::MAX));
        let upstreams = self.upstreams.snapshot();
        for (name, view) in upstreams.iter() {
            self.metrics.upstream(name.as_str(), Some(server_state(view.state)));
            servers.insert(name.clone());
        }
        servers.retain(|name| {
            let there = upstreams.contains_key(name);
            if !there {
                self.metrics.upstream(name.as_str(), None);
            }
            there
        });
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
