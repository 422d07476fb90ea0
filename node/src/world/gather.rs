//! Gathering: from what the upstreams, the directory and the approvals say to the tools of a [`World`], and to what
//! this node itself offers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use comity_protocol::advert::{OFFER_SET_BYTES_MAX, OFFERS_MAX, Offer, OfferSet};
use comity_protocol::approval::Approvals;
use comity_protocol::catalogue::{Catalogue, Offered, Origin, Pool};
use comity_protocol::constraints::{CertificationSet, DataClass, TrustLevel};
use comity_protocol::contract::Descriptor;
use comity_protocol::geo::CountrySet;
use comity_protocol::ids::{BlobDigest, CapabilityId, ContractDigest, Kind, NodeId, OrgName, ServerName};
use comity_protocol::json::{self, RawObject};
use comity_protocol::mesh::blobs::Blobs;
use comity_protocol::mesh::directory::Entry;
use comity_protocol::mesh::own::OwnOffers;
use comity_protocol::route::{Candidate, Reach, SiteFacts, Standing};
use comity_protocol::time::Wall;
use serde_json::value::RawValue;

use super::{Item, World};
use crate::config::servers::{ServerConfig, Share};
use crate::config::site::SiteConfig;
use crate::upstream::{ServerProfile, UpstreamState, UpstreamView, Upstreams};

/// Descriptors kept parsed between two worlds. When more are in use, those beyond are parsed anew each time.
pub const DESCRIPTORS_CACHED_MAX: usize = 16 * 1024;

/// The key under which a server's own item says how long its lists may be kept.
pub const LIST_TTL_KEY: &str = "listTtlMs";

/// Who this node is, as far as routing is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// This node.
    pub node: NodeId,
    /// Its org; a stand-in while it has none.
    pub org: OrgName,
    /// What people call it.
    pub name: Arc<str>,
    /// Where it runs, as configured.
    pub site: SiteConfig,
    /// Whether its membership lets it run calls for others.
    pub executor: bool,
    /// What its membership allows it to claim; what it claims, while it has none.
    pub locations_max: CountrySet,
}

/// All that a world is made of.
pub struct Sources<'a> {
    /// This node.
    pub me: &'a Me,
    /// The servers as configured.
    pub servers: &'a BTreeMap<ServerName, ServerConfig>,
    /// The servers as they are.
    pub upstreams: &'a Upstreams,
    /// What is known of other nodes.
    pub nodes: &'a BTreeMap<NodeId, Arc<Entry>>,
    /// Their offers and descriptors.
    pub blobs: &'a Blobs,
    /// The peers that are connected and admitted.
    pub linked: &'a BTreeSet<NodeId>,
    /// The wall clock.
    pub now: Wall,
}

/// What is kept from one world to the next: parsed descriptors, because most of them are the same, and each peer's last
/// offers, which count until the new ones that it advertises have been pulled. Without them every change at a peer
/// would take all its tools from the catalogue for a moment.
#[derive(Debug, Default)]
pub struct DescriptorCache {
    /// One text may describe items of two kinds.
    descriptors: BTreeMap<(BlobDigest, Kind), Arc<Descriptor>>,
    /// Those to everybody and those to its org; bounded by the nodes known.
    offers: BTreeMap<(NodeId, Audience), Arc<OfferSet>>,
}

/// To whom a set of offers goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Audience {
    Everybody,
    OwnOrg,
}

impl DescriptorCache {
    /// The offers that `node` makes to `audience` now, or made last where those of `digest` are not here yet.
    fn offers(
        &mut self,
        node: NodeId,
        audience: Audience,
        digest: Option<BlobDigest>,
        blobs: &Blobs,
    ) -> Option<Arc<OfferSet>> {
        let key = (node, audience);
        let Some(digest) = digest else {
            self.offers.remove(&key);
            return None;
        };
        if let Some(set) = blobs.set(&digest) {
            self.offers.insert(key, set.clone());
        }
        self.offers.get(&key).cloned()
    }

    fn own(&mut self, kind: Kind, raw: &str) -> Option<Arc<Descriptor>> {
        let digest = BlobDigest::of(raw.as_bytes());
        self.get_or(kind, digest, || Descriptor::parse(kind, raw).ok())
    }

    /// The descriptor of a peer's offer; `None` when it is not what the offer says, or not here yet.
    fn offered(&mut self, offer: &Offer, blobs: &Blobs) -> Option<Arc<Descriptor>> {
        let parse = || Descriptor::parse_offered(blobs.get(&offer.descriptor)?, offer).ok();
        let descriptor = self.get_or(offer.kind, offer.descriptor, parse)?;
        let consistent = descriptor.contract() == offer.contract && *descriptor.name() == offer.name;
        consistent.then_some(descriptor)
    }

    fn get_or(
        &mut self,
        kind: Kind,
        digest: BlobDigest,
        parse: impl FnOnce() -> Option<Descriptor>,
    ) -> Option<Arc<Descriptor>> {
        let key = (digest, kind);
        if let Some(known) = self.descriptors.get(&key) {
            return Some(known.clone());
        }
        let parsed = Arc::new(parse()?);
        if self.descriptors.len() < DESCRIPTORS_CACHED_MAX {
            self.descriptors.insert(key, parsed.clone());
        }
        Some(parsed)
    }

    fn retain_used(&mut self, world: &[Item], nodes: &BTreeMap<NodeId, Arc<Entry>>) {
        let key = |item: &Item| (item.descriptor.blob(), item.descriptor.kind());
        let used: BTreeSet<(BlobDigest, Kind)> = world.iter().map(key).collect();
        self.descriptors.retain(|key, _| used.contains(key));
        self.offers.retain(|(node, _), _| nodes.contains_key(node));
    }
}

/// One offer with everything that a catalogue and a route need.
struct Found {
    capability: CapabilityId,
    descriptor: Arc<Descriptor>,
    origin: Origin,
    pool: Pool,
    candidate: Candidate,
}

/// Makes the world. First uses under an approved org or server are recorded in `approvals`.
pub fn world(sources: &Sources<'_>, approvals: &mut Approvals, cache: &mut DescriptorCache) -> World {
    let mut found = own_offers(sources, cache);
    for (node, entry) in sources.nodes.iter().filter(|(node, _)| **node != sources.me.node) {
        found.extend(peer_offers(sources, *node, entry, approvals, cache));
    }
    let catalogue = Catalogue::build(found.iter().map(|found| Offered {
        node: found.candidate.site.node,
        capability: found.capability.clone(),
        descriptor: found.descriptor.clone(),
        origin: found.origin,
        pool: found.pool,
        judgement: found.candidate.approval,
    }));
    let items = group(found);
    cache.retain_used(&items, sources.nodes);
    World::new(catalogue, items)
}

/// `found` has all that one node offers in a row.
fn group(found: Vec<Found>) -> Vec<Item> {
    let mut items: BTreeMap<(CapabilityId, ContractDigest, Pool), Item> = BTreeMap::new();
    for Found { capability, descriptor, origin, pool, candidate } in found {
        let key = (capability.clone(), descriptor.contract(), pool);
        let item = items.entry(key).or_insert_with(|| Item {
            capability,
            contract: descriptor.contract(),
            judgement: candidate.approval,
            descriptor,
            origin,
            pool,
            exposed: None,
            candidates: Vec::new(),
        });
        // A peer may offer one item twice, to everybody and to its org; it is one candidate all the same.
        if item.candidates.last().is_none_or(|last| last.site.node != candidate.site.node) {
            item.origin = item.origin.min(origin);
            item.candidates.push(candidate);
        }
    }
    items.into_values().collect()
}

fn own_offers(sources: &Sources<'_>, cache: &mut DescriptorCache) -> Vec<Found> {
    let mut found = Vec::new();
    for (name, config, view) in configured(sources.servers, sources.upstreams) {
        let reach = if view.state == UpstreamState::Ready { Reach::Local } else { Reach::Unreachable };
        for descriptor in offered_items(name, config, view, cache) {
            found.push(Found {
                capability: CapabilityId {
                    org: sources.me.org.clone(),
                    server: name.clone(),
                    kind: descriptor.kind(),
                    name: descriptor.name().clone(),
                },
                origin: Origin::ThisNode,
                pool: if config.share == Share::Local { Pool::ThisNode } else { pool_of(descriptor.kind()) },
                candidate: own_candidate(sources.me, config, &descriptor, reach),
                descriptor,
            });
        }
    }
    found
}

fn configured<'a>(
    servers: &'a BTreeMap<ServerName, ServerConfig>,
    upstreams: &'a Upstreams,
) -> impl Iterator<Item = (&'a ServerName, &'a ServerConfig, &'a UpstreamView)> {
    servers.iter().filter_map(|(name, config)| Some((name, config, upstreams.get(name)?)))
}

/// With whose equal offers an item of this kind may be merged. Tools and prompts say all that they are in their contract;
/// a resource of one name may hold something else in each org.
const fn pool_of(kind: Kind) -> Pool {
    match kind {
        Kind::Tool | Kind::Prompt => Pool::Anywhere,
        Kind::Server | Kind::Template | Kind::Resource => Pool::SameOrg,
    }
}

/// The items of a server that the operator lets it offer. What cannot be described to anybody is left out, and of two
/// under one name the first stays. A server that may offer only what is named does not offer itself.
fn offered_items(
    name: &ServerName,
    config: &ServerConfig,
    view: &UpstreamView,
    cache: &mut DescriptorCache,
) -> Vec<Arc<Descriptor>> {
    let offerings = &view.offerings;
    let server = view.profile.as_deref().map(|profile| itself(name, profile, offerings.ttl_ms));
    let mut items: Vec<(Kind, &RawValue)> = Vec::new();
    items.extend(server.as_deref().map(|raw| (Kind::Server, raw)));
    items.extend(offerings.tools.iter().map(|tool| (Kind::Tool, &*tool.raw)));
    for (kind, list) in [
        (Kind::Prompt, &offerings.prompts),
        (Kind::Template, &offerings.resource_templates),
        (Kind::Resource, &offerings.resources),
    ] {
        items.extend(list.iter().map(|raw| (kind, &**raw)));
    }
    let allowed = |item: &Descriptor| config.approve.as_ref().is_none_or(|only| only.contains(item.name()));
    let mut names = BTreeSet::new();
    let described = items.into_iter().filter_map(|(kind, raw)| cache.own(kind, raw.get()));
    described.filter(|item| allowed(item) && names.insert((item.kind(), item.name().clone()))).collect()
}

/// What a server says of itself, as an item.
fn itself(name: &ServerName, profile: &ServerProfile, ttl_ms: Option<u64>) -> Box<RawValue> {
    let mut object = RawObject::new();
    object.set_str("name", name.as_str());
    object.set_str("protocolVersion", &profile.version);
    object.set("capabilities", profile.capabilities.clone());
    for (key, value) in [("serverInfo", &profile.info), ("instructions", &profile.instructions)] {
        if let Some(value) = value {
            object.set(key, value.clone());
        }
    }
    if let Some(ttl_ms) = ttl_ms {
        object.set(LIST_TTL_KEY, json::to_raw(&ttl_ms));
    }
    object.to_raw()
}

fn own_candidate(me: &Me, config: &ServerConfig, descriptor: &Descriptor, reach: Reach) -> Candidate {
    Candidate {
        site: own_site(me, config.class_max),
        name: me.name.clone(),
        executor: true,
        contract: descriptor.contract(),
        approval: comity_protocol::approval::Judgement::Approved,
        reach,
        same_region: true,
        expires: Wall::from_millis(u64::MAX),
    }
}

/// What this node is held to when it runs a call of this server: by its own router and, again, as an executor.
pub fn own_site(me: &Me, class_max: DataClass) -> SiteFacts {
    SiteFacts {
        node: me.node,
        org: me.org.clone(),
        processing: me.site.processing_locations,
        locations_max: me.locations_max,
        operator_country: me.site.operator_country,
        trust: TrustLevel::T1,
        class_max,
        certifications: CertificationSet::default(),
    }
}

fn peer_offers(
    sources: &Sources<'_>,
    node: NodeId,
    entry: &Entry,
    approvals: &mut Approvals,
    cache: &mut DescriptorCache,
) -> Vec<Found> {
    let advert = entry.advert();
    let own_org = *entry.org() == sources.me.org;
    let sets = [
        cache.offers(node, Audience::Everybody, advert.offers, sources.blobs),
        cache.offers(node, Audience::OwnOrg, advert.org_offers.filter(|_| own_org), sources.blobs),
    ];
    let mut found = Vec::new();
    for offer in sets.iter().flatten().flat_map(|set| set.offers()) {
        let Some(descriptor) = cache.offered(offer, sources.blobs) else { continue };
        let capability = CapabilityId {
            org: entry.org().clone(),
            server: offer.server.clone(),
            kind: offer.kind,
            name: offer.name.clone(),
        };
        let approval = approvals.judge(&capability, offer.contract, own_org, sources.now);
        let standing = Standing {
            trust: TrustLevel::T1,
            approval,
            reach: reach(sources, &node, entry),
            same_region: same_region(sources.me, entry),
            certifications: CertificationSet::default(),
        };
        found.push(Found {
            capability,
            descriptor,
            origin: if own_org { Origin::OwnOrg } else { Origin::Foreign },
            pool: pool_of(offer.kind),
            candidate: Candidate::from_directory(&entry.trusted, offer, standing),
        });
    }
    found
}

fn reach(sources: &Sources<'_>, node: &NodeId, entry: &Entry) -> Reach {
    if sources.linked.contains(node) {
        Reach::Connected
    } else if entry.advert().addresses.is_empty() || entry.advert().leaving {
        Reach::Unreachable
    } else if entry.suspected {
        Reach::Suspected
    } else {
        Reach::Known
    }
}

fn same_region(me: &Me, entry: &Entry) -> bool {
    let theirs = entry.advert().site.labels.get("region");
    theirs.is_some() && theirs == me.site.labels.get("region")
}

/// What this node offers to others: the items of its shared servers that can be called, or that are `still_promised`
/// although they cannot just now.
pub fn own_offer_sets(
    servers: &BTreeMap<ServerName, ServerConfig>,
    upstreams: &Upstreams,
    cache: &mut DescriptorCache,
    still_promised: impl Fn(&ServerName) -> bool,
) -> OwnOffers {
    let (mut federation, mut org, mut descriptors) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (name, config, view) in configured(servers, upstreams) {
        let promised = view.state == UpstreamState::Ready || still_promised(name);
        let offers = match config.share {
            Share::Federation if promised => &mut federation,
            Share::Org if promised => &mut org,
            _ => continue,
        };
        for descriptor in offered_items(name, config, view, cache) {
            offers.push(Offer {
                server: name.clone(),
                kind: descriptor.kind(),
                name: descriptor.name().clone(),
                contract: descriptor.contract(),
                descriptor: descriptor.blob(),
                class_max: config.class_max,
            });
            descriptors.insert(descriptor.blob(), Arc::from(descriptor.raw().get().as_bytes()));
        }
    }
    OwnOffers { federation: bounded(federation), org: bounded(org), descriptors }
}

/// The set of `offers`; of more than a node may make, the first in the order of kinds: tools before resources.
fn bounded(mut offers: Vec<Offer>) -> OfferSet {
    offers.sort_by(|a, b| (a.kind, a.place()).cmp(&(b.kind, b.place())));
    offers.truncate(OFFERS_MAX);
    let mut bytes = 0;
    offers.retain(|offer| {
        bytes += offer.bytes_max();
        bytes < OFFER_SET_BYTES_MAX - 16
    });
    OfferSet::new(offers).unwrap_or_default()
}

#[cfg(test)]
mod tests;
