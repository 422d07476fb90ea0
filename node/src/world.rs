//! The world as this node sees it at one moment: what there is, who offers each, and under which names clients see it.
//!
//! [`World`] is immutable and shared; [`keeper`] makes a new one whenever the mesh, the upstreams, the approvals or the
//! configuration change. Calls only ever read a snapshot, so nothing that changes disturbs a decision under way.
//!
//! What clients see of it is a [`View`]: of everything, or of one server under its own names.

pub mod gather;
pub mod keeper;
pub mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use comity_protocol::approval::Judgement;
use comity_protocol::catalogue::{Catalogue, Offered, Origin, Pool};
use comity_protocol::contract::Descriptor;
use comity_protocol::ids::{CapabilityId, ContractDigest, ItemName, Kind, NodeId, OrgName, ServerName};
use comity_protocol::route::{Candidate, Reach};

use crate::gateway::Endpoint;
pub use view::{Found, View};

/// What calls, listings and reports read.
#[derive(Debug, Default)]
pub struct World {
    /// What clients can ask for.
    pub catalogue: Arc<Catalogue>,
    /// Everything that anybody offers, approved or not, in the order of capabilities.
    pub items: Vec<Arc<Item>>,
    /// Everything that is approved, under the catalogue's names.
    all: Arc<View>,
    /// Views of single servers, made when they are first asked for. Bounded by the servers that there are.
    raw: Mutex<BTreeMap<(OrgName, ServerName), Arc<View>>>,
}

/// One capability under one contract, and everybody who offers it so.
#[derive(Debug)]
pub struct Item {
    /// What.
    pub capability: CapabilityId,
    /// Under which contract.
    pub contract: ContractDigest,
    /// How it is described.
    pub descriptor: Arc<Descriptor>,
    /// What the operator's approvals say of it.
    pub judgement: Judgement,
    /// How near the nearest offer of it is.
    pub origin: Origin,
    /// With whose equal offers it may be merged.
    pub pool: Pool,
    /// The name that clients see it under, if they do.
    pub exposed: Option<String>,
    /// Who offers it.
    pub candidates: Vec<Candidate>,
}

/// What one exposed name stands for.
#[derive(Clone, Debug)]
pub struct ItemRoute {
    /// The server, as every candidate names it.
    pub server: ServerName,
    /// What kind of item it is.
    pub kind: Kind,
    /// The item, as every candidate's server names it.
    pub name: ItemName,
    /// The capability that stands for it in reports: the nearest org's.
    pub capability: CapabilityId,
    /// The contract that a candidate must serve.
    pub contract: ContractDigest,
    /// The item as that contract describes it.
    pub descriptor: Arc<Descriptor>,
    /// Everybody who offers the item, also those who may not run it: a denial has a reason for each.
    pub candidates: Vec<Candidate>,
}

impl World {
    /// The world of these items, which come in the order of their capabilities.
    pub(crate) fn new(catalogue: Catalogue, items: Vec<Item>) -> Self {
        debug_assert!(items.is_sorted_by_key(|item| &item.capability));
        let items = name_items(&catalogue, items);
        let all = View::new(catalogue, &items);
        Self { catalogue: all.catalogue.clone(), items, all: Arc::new(all), raw: Mutex::default() }
    }

    /// What clients see at `endpoint`; `None` when there is no such server, or nothing of it is approved.
    pub fn view(&self, endpoint: &Endpoint) -> Option<Arc<View>> {
        match endpoint {
            Endpoint::All => Some(self.all.clone()),
            Endpoint::Raw { org, server } => self.raw(org.as_ref(), server),
        }
    }

    /// The tool that clients call `name`: an exposed name, or `org/server/tool`.
    pub fn route(&self, name: &str) -> Option<Arc<ItemRoute>> {
        self.all.route(Kind::Tool, name).cloned().or_else(|| self.route_by_path(name))
    }

    /// The items of exactly this capability, whatever their contract and whether approved or not.
    pub fn items_under(&self, capability: &CapabilityId) -> &[Arc<Item>] {
        let start = self.items.partition_point(|item| item.capability < *capability);
        let rest = &self.items[start..];
        &rest[..rest.partition_point(|item| item.capability == *capability)]
    }

    /// Every item of one server, approved or not.
    pub fn items_of_server(&self, org: &OrgName, server: &ServerName) -> &[Arc<Item>] {
        let start = self.items.partition_point(|item| item.place() < (org, server));
        let rest = &self.items[start..];
        &rest[..rest.partition_point(|item| item.place() == (org, server))]
    }

    /// The items that a person may mean by `name`, whatever their contract and whether approved or not.
    pub fn items_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Item>> + 'a {
        self.items.iter().filter(move |item| item.is_called(name))
    }

    fn raw(&self, org: Option<&OrgName>, server: &ServerName) -> Option<Arc<View>> {
        let org = org.or_else(|| self.only_org_of(server))?.clone();
        let mut views = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (org, server.clone());
        if let Some(view) = views.get(&key) {
            return Some(view.clone());
        }
        let items = self.items_of_server(&key.0, &key.1);
        let offers: Vec<Offered> = items.iter().flat_map(|item| item.offers()).collect();
        let catalogue = Catalogue::passthrough(offers);
        if catalogue.entries().is_empty() {
            return None;
        }
        let view = Arc::new(View::new(catalogue, items));
        views.insert(key, view.clone());
        Some(view)
    }

    /// The org that is meant where only a server is named: this node's own, else the only one that has such a server.
    fn only_org_of(&self, server: &ServerName) -> Option<&OrgName> {
        let named = || self.items.iter().filter(|item| item.capability.server == *server);
        if let Some(own) = named().find(|item| item.candidates.iter().any(is_local)) {
            return Some(&own.capability.org);
        }
        let first = &named().find(|item| item.judgement.is_approved())?.capability.org;
        let others = named().any(|item| item.judgement.is_approved() && item.capability.org != *first);
        (!others).then_some(first)
    }

    /// A route by `org/server/tool` also leads to what is not approved: the decision then says so. Of several that bear
    /// the name this node's own is meant, then the one with most nodes; only what may be merged with it takes part.
    fn route_by_path(&self, path: &str) -> Option<Arc<ItemRoute>> {
        let capability: CapabilityId = path.parse().ok()?;
        let rank = |item: &Item| {
            let local = item.candidates.iter().any(is_local);
            (item.judgement.is_approved(), local, item.candidates.len())
        };
        let all = self.items_under(&capability);
        let best =
            all.iter().max_by_key(|item| rank(item)).filter(|item| item.capability.kind == Kind::Tool)?;
        let named = || all.iter().filter(|item| item.pool == best.pool);
        Some(Arc::new(ItemRoute {
            server: best.capability.server.clone(),
            kind: best.capability.kind,
            name: best.capability.name.clone(),
            capability: best.capability.clone(),
            contract: best.contract,
            descriptor: best.descriptor.clone(),
            candidates: named().flat_map(|item| item.candidates.iter().cloned()).collect(),
        }))
    }
}

impl Item {
    /// Whether a person may mean this by `name`.
    pub fn is_called(&self, name: &str) -> bool {
        let capability = &self.capability;
        // A server's name by itself means what it offers.
        let by_itself = capability.kind != Kind::Server && capability.name.as_str() == name;
        by_itself || self.exposed.as_deref() == Some(name) || capability.to_string() == name
    }

    fn place(&self) -> (&OrgName, &ServerName) {
        (&self.capability.org, &self.capability.server)
    }

    /// One offer for each candidate, as a catalogue takes them.
    fn offers(&self) -> impl Iterator<Item = Offered> + '_ {
        self.candidates.iter().map(|candidate| Offered {
            node: candidate.site.node,
            capability: self.capability.clone(),
            descriptor: self.descriptor.clone(),
            origin: self.origin,
            pool: self.pool,
            judgement: self.judgement,
        })
    }
}

/// Notes in each item the name under which the catalogue exposes it.
fn name_items(catalogue: &Catalogue, items: Vec<Item>) -> Vec<Arc<Item>> {
    let mut names = BTreeMap::new();
    for entry in catalogue.entries() {
        for capability in &entry.capabilities {
            names.insert((capability, entry.contract, entry.pool), &entry.name);
        }
    }
    let named = items.into_iter().map(|mut item| {
        let name = names.get(&(&item.capability, item.contract, item.pool));
        item.exposed = name.filter(|_| item.judgement.is_approved()).map(|name| (*name).clone());
        Arc::new(item)
    });
    named.collect()
}

fn is_local(candidate: &Candidate) -> bool {
    candidate.reach == Reach::Local
}

impl ItemRoute {
    /// The capability as `node`'s org offers it.
    pub fn capability_of(&self, org: &OrgName) -> CapabilityId {
        let (server, name) = (self.server.clone(), self.name.clone());
        CapabilityId { org: org.clone(), server, kind: self.kind, name }
    }

    /// The candidate that is `node`.
    pub fn candidate(&self, node: &NodeId) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.site.node == *node)
    }
}
