//! The one catalogue that clients see: capabilities, not peers.
//!
//! # What counts as one tool
//!
//! Offers are one entry, between whose nodes the router chooses, when server name, tool name and contract digest are
//! equal — across orgs too. Three orgs that each run `mcp-server-time` as `time` give one `get_current_time` with three
//! candidates. The contract covers everything that a client is told of a tool, and the server's name is the operators'
//! own word that it is the same thing; either alone would be too little.
//!
//! Two tools with one contract may still hold different data (everybody's `git_log` looks the same). Two fences keep
//! them apart: a foreign offer takes part only once the operator has approved it, which is consent to be routed there;
//! and [`Pool`] says per offer how far it may be merged: a server that is shared with nobody is never merged with
//! anybody's, and an operator may keep a server's tools apart by org.
//!
//! When one capability (`org/server/tool`) is offered under several contracts, as in a rolling upgrade, the contract
//! that this node itself serves, else its org's, else the one with most nodes, is its *main* entry. An entry that is
//! the main one of none of its capabilities is a *variant*: reachable under a name with a hash, so that nothing is lost
//! and the main entry keeps its name.
//!
//! # Names
//!
//! Letters, digits, `_` and `-`, at most [`EXPOSED_NAME_BYTES_MAX`]; other characters become `_`. An entry is called by
//! the first of these that no other entry wants at the same time:
//!
//! 1. `tool`, 2. `server__tool`, 3. `org_server__tool`, 4. the same with a hash.
//!
//! On a clash *all* of those that clash move on: nobody takes over a name by coming first or by sorting lower, and the
//! outcome does not depend on the order of the input. Names that begin with [`RESERVED_PREFIX`] are Comity's own tools'.
//! A name is looked up in a table and never taken apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::approval::Judgement;
use crate::contract::Descriptor;
use crate::ids::{
    BlobDigest, CapabilityId, CatalogueDigest, ContractDigest, NodeId, OrgName, ServerName, ToolName,
};

mod names;

pub use names::{EXPOSED_NAME_BYTES_MAX, RESERVED_PREFIX};

/// Most entries of a catalogue; no client's model reads this many. Full: this org's own tools come first, then the
/// others in the order of their identity, and [`Catalogue::left_out`] counts the rest.
pub const ENTRIES_MAX: usize = 8192;

/// Whose offer it is, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// This node's own upstream.
    ThisNode,
    /// Another node of this node's org.
    OwnOrg,
    /// A node of another org.
    Foreign,
}

/// With whose equal offers an offer may be merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pool {
    /// With every org's: any node that offers the contract will do.
    #[default]
    Anywhere,
    /// With its own org's: the operator keeps this server's tools apart by org.
    SameOrg,
    /// With nobody's: the server is shared with nobody (`share = "local"`).
    ThisNode,
}

/// One node's offer of one tool, as the catalogue takes it in.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Who offers.
    pub node: NodeId,
    /// What.
    pub capability: CapabilityId,
    /// Its descriptor, already checked against the offer; nodes that offer the same share it.
    pub descriptor: Arc<Descriptor>,
    /// How near it is.
    pub origin: Origin,
    /// With what it may be merged.
    pub pool: Pool,
    /// What the operator's approvals say. The catalogue shows nothing that is not approved.
    pub judgement: Judgement,
}

/// One tool as clients see it.
#[derive(Clone, Debug)]
pub struct CatalogueEntry {
    /// The name that clients call.
    pub name: String,
    /// The tool object with that name; everything else is as the server wrote it.
    pub tool: Arc<RawValue>,
    /// The contract that every candidate must serve.
    pub contract: ContractDigest,
    /// The capabilities that this entry stands for, in ascending order: one for each org that offers it.
    pub capabilities: Vec<CapabilityId>,
    /// How far it may be merged: a router must keep a [`Pool::ThisNode`] entry on this node.
    pub pool: Pool,
}

/// What clients can call, in the order of names. Immutable: a change makes a new one.
#[derive(Clone, Debug)]
pub struct Catalogue {
    entries: Vec<CatalogueEntry>,
    digest: CatalogueDigest,
    left_out: usize,
}

impl Catalogue {
    /// Builds the catalogue of `offers`, in whatever order they come.
    pub fn build(offers: impl IntoIterator<Item = Offered>) -> Self {
        let mut groups = gather(offers);
        let left_out = cut(&mut groups);
        let names = names::assign(&groups.iter().collect::<Vec<_>>(), &mains(&groups));
        let mut entries: Vec<_> =
            groups.into_iter().zip(names).map(|((key, group), name)| entry(key, group, name)).collect();
        entries.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let digest = digest(&entries);
        Self { entries: entries.into_iter().map(|(entry, _)| entry).collect(), digest, left_out }
    }

    /// The entries in ascending order of name.
    pub fn entries(&self) -> &[CatalogueEntry] {
        &self.entries
    }

    /// The entry that clients call `name`.
    pub fn by_name(&self, name: &str) -> Option<&CatalogueEntry> {
        let at = self.entries.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        self.entries.get(at)
    }

    /// The entries that stand for `capability`: more than one while it is offered under several contracts.
    pub fn by_capability(&self, capability: &CapabilityId) -> impl Iterator<Item = &CatalogueEntry> {
        self.entries.iter().filter(move |entry| entry.capabilities.contains(capability))
    }

    /// The digest of what clients are shown. It changes when a client would see a change, and not when only the nodes
    /// behind an entry do: send `tools/list_changed` when it differs.
    pub const fn digest(&self) -> CatalogueDigest {
        self.digest
    }

    /// How many tools found no place.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }
}

/// Nothing to call.
impl Default for Catalogue {
    fn default() -> Self {
        Self::build([])
    }
}

/// The one tool that offers are offers of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    server: ServerName,
    tool: ToolName,
    contract: ContractDigest,
    pool: Pool,
    /// The org that it is kept to; none under [`Pool::Anywhere`].
    org: Option<OrgName>,
}

/// What is known of a tool from the offers of it.
#[derive(Debug)]
struct Group {
    capabilities: BTreeSet<CapabilityId>,
    nodes: BTreeSet<NodeId>,
    /// The nearest offer's descriptor; of equally near ones that with the lowest digest, so that input order is no
    /// matter where vendor keys differ.
    shown: (Origin, BlobDigest, Arc<Descriptor>),
    /// The org that names the entry where a name needs one: the nearest, then the first in order.
    home: (Origin, OrgName),
}

type Groups = BTreeMap<GroupKey, Group>;

fn gather(offers: impl IntoIterator<Item = Offered>) -> Groups {
    let mut groups = Groups::new();
    for offer in offers.into_iter().filter(|offer| offer.judgement.is_approved()) {
        let Offered { node, capability, descriptor, origin, pool, .. } = offer;
        let shown = (origin, descriptor.blob(), descriptor);
        let home = (origin, capability.org.clone());
        match groups.entry(key(&capability, &shown.2, pool)) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let (capabilities, nodes) = ([capability].into(), [node].into());
                vacant.insert(Group { capabilities, nodes, shown, home });
            }
            std::collections::btree_map::Entry::Occupied(mut occupied) => {
                occupied.get_mut().add(node, capability, shown, home);
            }
        }
    }
    groups
}

impl Group {
    fn add(
        &mut self,
        node: NodeId,
        capability: CapabilityId,
        shown: (Origin, BlobDigest, Arc<Descriptor>),
        home: (Origin, OrgName),
    ) {
        self.nodes.insert(node);
        self.capabilities.insert(capability);
        if (shown.0, shown.1) < (self.shown.0, self.shown.1) {
            self.shown = shown;
        }
        if home < self.home {
            self.home = home;
        }
    }
}

fn key(capability: &CapabilityId, descriptor: &Descriptor, pool: Pool) -> GroupKey {
    GroupKey {
        server: capability.server.clone(),
        tool: capability.tool.clone(),
        contract: descriptor.contract(),
        pool,
        org: (pool != Pool::Anywhere).then(|| capability.org.clone()),
    }
}

/// Drops what is above the bound, foreign tools first. Returns how many.
fn cut(groups: &mut Groups) -> usize {
    let surplus = groups.len().saturating_sub(ENTRIES_MAX);
    if surplus > 0 {
        let mut ranked: Vec<_> = groups.iter().map(|(key, group)| (group.home.0, key.clone())).collect();
        ranked.sort();
        for (_, key) in ranked.drain(ENTRIES_MAX..) {
            groups.remove(&key);
        }
    }
    surplus
}

/// For each group in order, whether it is the main entry of any of its capabilities; if not it is a variant.
fn mains(groups: &Groups) -> Vec<bool> {
    let mut best: BTreeMap<&CapabilityId, (Rank<'_>, usize)> = BTreeMap::new();
    for (at, (key, group)) in groups.iter().enumerate() {
        let rank = Rank { origin: group.shown.0, nodes: core::cmp::Reverse(group.nodes.len()), key };
        for capability in &group.capabilities {
            let slot = best.entry(capability).or_insert((rank, at));
            *slot = (*slot).min((rank, at));
        }
    }
    let mains: BTreeSet<usize> = best.into_values().map(|(_, at)| at).collect();
    (0..groups.len()).map(|at| mains.contains(&at)).collect()
}

/// Which contract of a capability is its main one: the nearest, then the most widely served.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    origin: Origin,
    nodes: core::cmp::Reverse<usize>,
    key: &'a GroupKey,
}

fn entry(key: GroupKey, group: Group, name: String) -> (CatalogueEntry, BlobDigest) {
    let (_, blob, descriptor) = group.shown;
    let entry = CatalogueEntry {
        tool: descriptor.renamed(&name),
        name,
        contract: key.contract,
        capabilities: group.capabilities.into_iter().collect(),
        pool: key.pool,
    };
    (entry, blob)
}

fn digest(entries: &[(CatalogueEntry, BlobDigest)]) -> CatalogueDigest {
    let mut text = Vec::with_capacity(entries.len() * 64);
    for (entry, blob) in entries {
        text.extend_from_slice(entry.name.as_bytes());
        // A name never has a zero byte, so the text reads in one way only.
        text.push(0);
        text.extend_from_slice(blob.as_bytes());
    }
    CatalogueDigest::of(&text)
}

#[cfg(test)]
mod tests;
