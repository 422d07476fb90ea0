//! The federation of one run: what the scenario leaves open, drawn by the seed. Keys are the same in every run, so that
//! a node is easy to find again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use comity_protocol::advert::{Offer, OfferSet, Site};
use comity_protocol::call::{LocalOffer, Visibility};
use comity_protocol::constraints::{CertificationSet, DataClass, TrustLevel};
use comity_protocol::ids::{BlobDigest, CapabilityId, ContractDigest, Kind, NodeId};
use comity_protocol::mesh::overlay::Seed;
use comity_protocol::mesh::own::{Identity, OwnOffers};
use comity_protocol::rng::Rng;
use comity_protocol::route::{RouteRequest, SiteFacts};
use comity_protocol::testing::{TestNode, TestOrg, mesh};
use comity_protocol::trust::Anchors;

use crate::memory::SharedMemory;
use crate::moment::START;
use crate::scenario::{Scenario, SiteId, Tool};

/// Most nodes of one run, because a test key is made from sixteen bits.
pub(crate) const NODES_MAX: usize = 60_000;

/// One node as the scenario and the seed make it.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) site: SiteId,
    pub(crate) name: String,
    pub(crate) node: TestNode,
    pub(crate) skew_ms: i64,
    pub(crate) drift_ppm: i32,
    pub(crate) seeds: Vec<usize>,
}

/// Everything about the federation that does not change during a run.
pub(crate) struct Federation {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) orgs: Vec<TestOrg>,
    pub(crate) members: Vec<Member>,
    by_id: BTreeMap<NodeId, usize>,
    /// For each org, by place, which orgs it has pinned.
    pins: Vec<Vec<bool>>,
    memory: Arc<SharedMemory>,
}

impl Federation {
    pub(crate) fn new(scenario: &Arc<Scenario>, rng: &mut Rng) -> Self {
        let org = |(at, org): (usize, &crate::scenario::Org)| {
            TestOrg::new(org.name.as_str(), u8::try_from(at + 1).unwrap_or(u8::MAX), START)
        };
        let orgs: Vec<TestOrg> = scenario.orgs.iter().enumerate().map(org).collect();
        let sizes: Vec<usize> = scenario.sites.iter().map(|site| site.nodes.draw(rng)).collect();
        let first = |site: SiteId| sizes[..site].iter().sum::<usize>();
        let mut members = Vec::new();
        for (site, size) in sizes.iter().enumerate() {
            for nth in 0..*size {
                let seeds = scenario.sites[site].seeds.iter().map(|seed| first(*seed)).collect();
                members.push(member(scenario, &orgs, site, nth, first(site) + nth, seeds, rng));
            }
        }
        let by_id = members.iter().enumerate().map(|(at, member)| (member.node.id, at)).collect();
        let pinned = |org: &crate::scenario::Org| {
            scenario.orgs.iter().map(|other| org.pins.contains(&other.name)).collect()
        };
        let pins = scenario.orgs.iter().map(pinned).collect();
        Self { scenario: scenario.clone(), orgs, members, by_id, pins, memory: Arc::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The node of an id; `None` for one that no org has admitted.
    pub(crate) fn find(&self, id: &NodeId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn id(&self, at: usize) -> NodeId {
        self.members[at].node.id
    }

    /// The org of a node, by place.
    pub(crate) fn org_of(&self, at: usize) -> usize {
        self.scenario.sites[self.members[at].site].org
    }

    /// Whether the orgs of two nodes have pinned each other.
    pub(crate) fn pinned(&self, one: usize, other: usize) -> bool {
        let (one, other) = (self.org_of(one), self.org_of(other));
        self.pins(one, other) && self.pins(other, one)
    }

    /// Whether every org has pinned every other.
    pub(crate) fn all_pin_all(&self) -> bool {
        self.pins.iter().flatten().all(|pinned| *pinned)
    }

    /// Whether an org has pinned another, both by place.
    pub(crate) fn pins(&self, reader: usize, org: usize) -> bool {
        self.pins[reader][org]
    }

    pub(crate) fn identity(&self, at: usize) -> Identity {
        let member = &self.members[at];
        let site = &self.scenario.sites[member.site];
        Identity {
            key: member.node.key.clone(),
            membership: member.node.membership.clone(),
            roots: self.orgs[site.org].chain.clone(),
            name: member.name.clone(),
            site: Site {
                processing_locations: site.processing,
                operator_country: site.operator,
                labels: BTreeMap::new(),
            },
            version: "simnet".into(),
        }
    }

    pub(crate) fn anchors(&self, at: usize) -> Anchors {
        let mut anchors = Anchors::new(mesh());
        anchors.share(self.memory.clone());
        let me = self.org_of(at);
        for (_, org) in self.orgs.iter().enumerate().filter(|(other, _)| self.pins(me, *other)) {
            if let Some(pin) = org.chain.pin() {
                anchors.pin(org.name.clone(), pin);
            }
        }
        anchors
    }

    pub(crate) fn seeds(&self, at: usize) -> Vec<Seed> {
        let others: BTreeSet<usize> =
            self.members[at].seeds.iter().copied().filter(|seed| *seed != at).collect();
        others.into_iter().map(|seed| Seed { node: None, address: address(seed) }).collect()
    }

    /// What a node offers to all, and to its own org.
    pub(crate) fn offers(&self, at: usize) -> OwnOffers {
        let (mut federation, mut org, mut descriptors) = (Vec::new(), Vec::new(), BTreeMap::new());
        for tool in self.offered(at) {
            let descriptor: Arc<[u8]> = descriptor(tool).into();
            let digest = BlobDigest::of(&descriptor);
            let offers = if tool.org_only { &mut org } else { &mut federation };
            offers.push(Offer {
                server: tool.server.clone(),
                kind: Kind::Tool,
                name: tool.tool.clone(),
                contract: contract(tool),
                descriptor: digest,
                class_max: tool.class_max,
            });
            descriptors.insert(digest, descriptor);
        }
        let set = |offers| OfferSet::new(offers).unwrap_or_default();
        OwnOffers { federation: set(federation), org: set(org), descriptors }
    }

    fn offered(&self, at: usize) -> impl Iterator<Item = &Tool> {
        let site = self.members[at].site;
        self.scenario.tools.iter().filter(move |tool| tool.sites.contains(&site))
    }

    /// What a node asks its router when it makes one of the scenario's calls, with what its site demands of every call.
    pub(crate) fn request(&self, source: usize, caller: usize) -> RouteRequest {
        let calls = &self.scenario.calls[source];
        let tool = &self.scenario.tools[calls.tool];
        RouteRequest {
            capability: CapabilityId {
                org: self.orgs[self.org_of(caller)].name.clone(),
                server: tool.server.clone(),
                kind: Kind::Tool,
                name: tool.tool.clone(),
            },
            contract: contract(tool),
            constraints: self.scenario.demands(calls, self.members[caller].site),
        }
    }

    /// What a node offers under a capability.
    pub(crate) fn local_offer(&self, at: usize, capability: &CapabilityId) -> Option<LocalOffer> {
        let tool =
            self.offered(at).find(|tool| tool.server == capability.server && tool.tool == capability.name)?;
        let visibility = if tool.org_only { Visibility::Org } else { Visibility::Federation };
        Some(LocalOffer { contract: contract(tool), class_max: tool.class_max, visibility })
    }

    /// What a node is held to when it runs a call.
    pub(crate) fn facts(&self, at: usize, class_max: DataClass) -> SiteFacts {
        let member = &self.members[at];
        let site = &self.scenario.sites[member.site];
        SiteFacts {
            node: member.node.id,
            org: self.orgs[site.org].name.clone(),
            processing: site.processing,
            locations_max: member.node.membership.locations_max,
            operator_country: site.operator,
            trust: TrustLevel::T1,
            class_max,
            certifications: CertificationSet::default(),
        }
    }
}

fn member(
    scenario: &Scenario,
    orgs: &[TestOrg],
    site: SiteId,
    nth: usize,
    at: usize,
    seeds: Vec<usize>,
    rng: &mut Rng,
) -> Member {
    let plan = &scenario.sites[site];
    let key = u16::try_from(at).unwrap_or(u16::MAX);
    Member {
        site,
        name: format!("{}-{}", plan.name, nth + 1),
        node: TestNode::new(&orgs[plan.org], key, plan.processing),
        skew_ms: either_way(rng, i64::try_from(plan.clock_skew.as_millis()).unwrap_or(i64::MAX)),
        drift_ppm: i32::try_from(either_way(rng, i64::from(plan.clock_drift_ppm))).unwrap_or(0),
        seeds,
    }
}

/// A number from `-most` to `most`.
pub(crate) fn either_way(rng: &mut Rng, most: i64) -> i64 {
    let width = usize::try_from(most.saturating_mul(2).saturating_add(1)).unwrap_or(usize::MAX);
    i64::try_from(rng.below(width)).unwrap_or(i64::MAX) - most
}

/// Where a node can be dialled.
pub(crate) fn address(at: usize) -> String {
    format!("/sim/{at}")
}

/// The node that an address leads to.
pub(crate) fn node_at(address: &str) -> Option<usize> {
    address.strip_prefix("/sim/")?.parse().ok()
}

pub(crate) fn descriptor(tool: &Tool) -> Vec<u8> {
    format!(r#"{{"name":"{}","inputSchema":{{"type":"object"}}}}"#, tool.tool).into_bytes()
}

pub(crate) fn contract(tool: &Tool) -> ContractDigest {
    ContractDigest::of(&descriptor(tool))
}
