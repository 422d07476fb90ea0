//! What the node tells of itself, as the command line shows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use comity_protocol::approval::Judgement;
use comity_protocol::geo::CountrySet;
use comity_protocol::ids::{Kind, NodeId};
use comity_protocol::json;
use comity_protocol::route::Reach;

use super::Shared;
use super::watchers::server_state;
use crate::calls::demand::Demand;
use crate::config::trust::Approve;
use crate::control::reports::{
    MembershipInfo, PeerInfo, RouteCandidate, RouteReport, ServerInfo, StatusReport, ToolInfo, ToolState,
    TrustInfo,
};
use crate::exchange::DenialReason;
use crate::upstream::UpstreamState;
use crate::world::{Item, ItemRoute};

fn is_tool(item: &Item) -> bool {
    item.capability.kind == Kind::Tool
}

impl Shared {
    pub(super) fn status(&self) -> StatusReport {
        let config = self.config.borrow().clone();
        let (snapshot, world) = (self.mesh.snapshot(), self.world.load());
        let me = self.me.borrow().clone();
        let member = self.identity.member.as_ref();
        let pending =
            world.items.iter().filter(|item| is_tool(item) && !item.judgement.is_approved()).count();
        let warnings = self.warnings();
        let mut report = StatusReport {
            name: config.name.clone(),
            node: self.identity.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            org: member.map(|member| member.membership.org.to_string()),
            membership: self.membership(),
            locations: codes(&me.site.processing_locations.intersection(&me.locations_max)),
            operator_country: me.site.operator_country.map(|country| country.to_string()),
            mesh: config.mesh.name.to_string(),
            addresses: self.addresses(),
            mcp_url: self.mcp_address.map(|address| format!("http://{address}/mcp")),
            admin_url: self.admin_address.map(|address| format!("http://{address}")),
            peers_connected: snapshot
                .linked()
                .map(|peer| peer.node)
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            directory_size: snapshot.nodes.len(),
            directory_digest: member.map(|_| format!("{:016x}", snapshot.digest)),
            tools: world.catalogue.of_kind(Kind::Tool).len(),
            tools_pending: pending,
            servers: self.servers(),
            warnings,
            next: String::new(),
        };
        report.next = self.next_step(&report);
        report
    }

    fn membership(&self) -> Option<MembershipInfo> {
        let member = self.member()?;
        let (expires, now) = (member.membership.expires, self.clock.now().wall);
        Some(MembershipInfo {
            expires: expires.to_string(),
            expires_in_s: expires.since(now).as_secs(),
            locations_max: codes(&member.membership.locations_max),
        })
    }

    /// Where others can reach it: what its advert says, with its id.
    pub(super) fn addresses(&self) -> Vec<String> {
        let snapshot = self.mesh.snapshot();
        let own = snapshot.nodes.get(&self.identity.node);
        let addresses = own.map(|entry| entry.advert().addresses.clone()).unwrap_or_default();
        addresses.iter().map(|address| with_id(address, &self.identity.node)).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.identity.problem.iter().cloned().collect();
        let upstreams = self.upstreams.snapshot();
        for (name, view) in upstreams.iter().filter(|(_, view)| view.state == UpstreamState::Down) {
            let why = view.last_error.as_deref().unwrap_or("it does not answer");
            warnings.push(format!("server {name} is away: {why}"));
        }
        warnings.extend(self.claims_beyond_membership());
        warnings.extend(self.missing_roots());
        warnings
    }

    /// An advert that claims more than the org allows is void: no other node believes or even sees it.
    fn claims_beyond_membership(&self) -> Option<String> {
        let (member, me) = (self.member()?, self.me.borrow());
        let beyond = me.site.processing_locations.difference(&member.membership.locations_max);
        let allowed = member.membership.locations_max;
        (!beyond.is_empty()).then(|| {
            format!(
                "[site] processing_locations claims {beyond}, but the membership allows {allowed}: no other node sees \
                 this one; correct the claim, or ask the org's issuer: comity org admit {}",
                self.identity.node
            )
        })
    }

    fn missing_roots(&self) -> Vec<String> {
        let without = self.trust().into_iter().filter(|org| org.root_version.is_none());
        without
            .map(|org| format!("the root of {} has not arrived from any of its nodes yet", org.org))
            .collect()
    }

    /// The one thing that most likely comes next.
    fn next_step(&self, report: &StatusReport) -> String {
        let config = self.config.borrow();
        if report.org.is_none() {
            "join an org: comity join LINE, or make one: comity org create NAME".into()
        } else if config.servers.is_empty() && report.directory_size <= 1 {
            "front an MCP server: comity servers add NAME -- COMMAND".into()
        } else if report.peers_connected == 0 && !config.mesh.peers.is_empty() {
            "nobody answers yet; check the addresses: comity doctor".into()
        } else if report.peers_connected == 0 {
            "invite another node (comity invite), or federate with another org (comity invite --federation)"
                .into()
        } else if report.tools_pending > 0 {
            format!("look at {} tools that wait for approval: comity tools", report.tools_pending)
        } else {
            match &report.mcp_url {
                Some(url) => format!("point an MCP client at {url}"),
                None => "point an MCP client at: comity stdio".into(),
            }
        }
    }

    pub(super) fn peers(&self) -> Vec<PeerInfo> {
        let (snapshot, world) = (self.mesh.snapshot(), self.world.load());
        let now = self.clock.now().wall;
        let mut offers: BTreeMap<NodeId, usize> = BTreeMap::new();
        for candidate in world.items.iter().filter(|item| is_tool(item)).flat_map(|item| &item.candidates) {
            *offers.entry(candidate.site.node).or_default() += 1;
        }
        let known = snapshot.nodes.iter().filter(|(node, _)| **node != self.identity.node);
        let mut peers: Vec<PeerInfo> = known
            .map(|(node, entry)| {
                let advert = entry.advert();
                let link = snapshot.linked().find(|peer| peer.node == *node);
                PeerInfo {
                    node: node.to_string(),
                    name: Some(advert.name.clone()).filter(|name| !name.is_empty()),
                    org: entry.org().to_string(),
                    connected: link.is_some(),
                    address: advert.addresses.first().map(|address| with_id(address, node)),
                    rtt_ms: link.and_then(|link| link.rtt).map(|rtt| rtt.as_secs_f64() * 1000.0),
                    locations: codes(&advert.site.processing_locations),
                    operator_country: advert.site.operator_country.map(|country| country.to_string()),
                    trust: "T1".into(),
                    offers: offers.get(node).copied().unwrap_or_default(),
                    advert_expires_in_s: Some(entry.trusted.expires().since(now).as_secs()),
                }
            })
            .collect();
        peers.sort_by(|a, b| (&a.org, &a.name, &a.node).cmp(&(&b.org, &b.name, &b.node)));
        peers
    }

    pub(super) fn tools(&self) -> Vec<ToolInfo> {
        // A server itself is shown where the operator may have something to decide.
        let shown = |item: &&Arc<Item>| item.capability.kind != Kind::Server || !item.judgement.is_approved();
        self.world.load().items.iter().filter(shown).map(|item| self.tool(item)).collect()
    }

    fn tool(&self, tool: &Item) -> ToolInfo {
        let description = json::field(tool.descriptor.raw(), "description").ok().flatten();
        ToolInfo {
            name: tool.exposed.clone(),
            org: tool.capability.org.to_string(),
            server: tool.capability.server.to_string(),
            kind: tool.capability.kind.to_string(),
            tool: tool.capability.name.to_string(),
            capability: tool.capability.to_string(),
            contract: tool.contract.to_string(),
            description: description.and_then(json::as_str).map(std::borrow::Cow::into_owned),
            local: tool.candidates.iter().any(|candidate| candidate.site.node == self.identity.node),
            providers: tool.candidates.len(),
            state: match tool.judgement {
                Judgement::Approved => ToolState::Approved,
                Judgement::Unapproved => ToolState::Pending,
                Judgement::Quarantined { .. } => ToolState::Quarantined,
            },
        }
    }

    pub(super) fn route_report(&self, route: &ItemRoute, demand: &Demand) -> RouteReport {
        let report = self.calls.explain(route, demand);
        let now = self.clock.now().mono;
        let candidates = report.ranked.iter().filter_map(|peer| {
            let node: NodeId = peer.peer.parse().ok()?;
            let candidate = route.candidate(&node)?;
            Some(RouteCandidate {
                node: peer.peer.clone(),
                name: Some(peer.node.clone()),
                org: peer.org.clone(),
                locations: codes(&candidate.site.processing),
                operator_country: peer.operator_country.clone(),
                trust: peer.trust.clone(),
                local: candidate.reach == Reach::Local,
                cost: Some(self.calls.cost_ms(&node, now)),
            })
        });
        RouteReport {
            capability: report.capability.clone(),
            contract: report.contract.clone(),
            constraints: shown(demand),
            candidates: candidates.collect(),
            rejected: report.reasons().into_iter().map(denial).collect(),
        }
    }

    pub(super) fn trust(&self) -> Vec<TrustInfo> {
        let config = self.config.borrow().clone();
        let snapshot = self.mesh.snapshot();
        let mut orgs: BTreeMap<String, (String, Approve)> = BTreeMap::new();
        for (org, root, _) in self.keeping.pins.all().unwrap_or_default() {
            orgs.insert(org.to_string(), (root.to_string(), Approve::None));
        }
        for org in &config.trust {
            orgs.insert(org.name.to_string(), (org.root.to_string(), org.approve));
        }
        let info = orgs.into_iter().map(|(org, (root, approve))| {
            let known = self.keeping.store.roots().latest(&org).ok().flatten();
            let chain =
                known.and_then(|(_, root)| comity_protocol::trust::RootChain::decode(&root.envelope).ok());
            let newest = chain.and_then(|chain| chain.verify().ok());
            TrustInfo {
                root_version: newest.as_ref().map(|root| root.version),
                root_expires: newest.as_ref().map(|root| root.expires.to_string()),
                nodes: Some(snapshot.nodes.values().filter(|entry| entry.org().as_str() == org).count()),
                org,
                root,
                approve,
            }
        });
        info.collect()
    }

    pub(super) fn servers(&self) -> Vec<ServerInfo> {
        let (config, upstreams) = (self.config.borrow().clone(), self.upstreams.snapshot());
        let info = config.servers.iter().map(|(name, server)| {
            let view = upstreams.get(name);
            ServerInfo {
                name: name.to_string(),
                launch: server.launch.to_string(),
                share: server.share,
                defined_in: Some(server.defined_in.display().to_string()),
                state: view.map(|view| server_state(view.state)),
                tools: view.map(|view| view.offerings.tools.len()),
                restarts: view.map(|view| view.restarts),
                error: view
                    .filter(|view| view.state != UpstreamState::Ready)
                    .and_then(|view| view.last_error.clone()),
            }
        });
        info.collect()
    }
}

fn codes(set: &CountrySet) -> Vec<String> {
    set.iter().map(|country| country.to_string()).collect()
}

fn with_id(address: &str, node: &NodeId) -> String {
    if address.contains("/p2p/") { address.to_owned() } else { format!("{address}/p2p/{node}") }
}

fn denial(reason: comity_protocol::route::PeerReason) -> DenialReason {
    DenialReason {
        peer: Some(reason.peer),
        org: Some(reason.org),
        code: reason.code,
        detail: format!("{}: {}", reason.node, reason.detail),
    }
}

/// The constraints that hold, for people.
fn shown(demand: &Demand) -> String {
    let constraints = &demand.constraints;
    let mut parts = Vec::new();
    if let Some(places) = &constraints.allow_locations {
        parts.push(format!("in {places}"));
    }
    if !constraints.deny_operator_countries.is_empty() {
        parts.push(format!("no operator from {}", constraints.deny_operator_countries));
    }
    if let Some(orgs) = &constraints.allow_orgs {
        let orgs: Vec<_> = orgs.0.iter().map(|org| org.as_str()).collect();
        parts.push(format!("by {}", orgs.join(" or ")));
    }
    parts.push(format!("class {}", constraints.class));
    parts.push(format!("trust {} or more", constraints.min_trust));
    if !constraints.require_certifications.0.is_empty() {
        let wanted: Vec<_> = constraints.require_certifications.0.iter().map(String::as_str).collect();
        parts.push(format!("certified {}", wanted.join(" and ")));
    }
    parts.join(", ")
}
