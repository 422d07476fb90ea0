//! The one catalogue that clients see: capabilities, not peers.
//!
//! # What counts as one item
//!
//! Offers are one entry, between whose nodes the router chooses, when server name, kind, name and contract digest are
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
//! # Names of tools and prompts
//!
//! Each kind is a room of its own. Letters, digits, `_` and `-`, at most [`EXPOSED_NAME_BYTES_MAX`]; other characters become `_`. An entry is called by
//! the first of these that no other entry wants at the same time:
//!
//! 1. `tool`, 2. `server__tool`, 3. `org_server__tool`, 4. the same with a hash.
//!
//! On a clash *all* of those that clash move on: nobody takes over a name by coming first or by sorting lower, and the
//! outcome does not depend on the order of the input. Names that begin with [`RESERVED_PREFIX`] are Comity's own tools'.
//! A name is looked up in a table and never taken apart.
//!
//! # URIs of resources and templates
//!
//! A URI is part of what servers say elsewhere too (a tool's result may link to it), so it is changed only where it must
//! be. Of several that claim one URI the nearest keeps it: this node's own, then this org's, then the others'. If two are
//! equally near, none keeps it. Whoever does not is listed under `comity://org/server/` and the URI, a variant under
//! `comity://org/server~hash/` and the URI; nobody's own URI begins with [`RESERVED_SCHEME`].
//!
//! # Servers
//!
//! A server's own entry is not listed to clients; it is called `org/server`, and only the main one is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::approval::Judgement;
use crate::contract::Descriptor;
use crate::ids::{
    BlobDigest, CapabilityId, CatalogueDigest, ContractDigest, ItemName, Kind, NodeId, OrgName, ServerName,
};
use crate::uri_template::UriTemplate;

mod names;
mod uris;

pub use names::{EXPOSED_NAME_BYTES_MAX, RESERVED_PREFIX};
pub use uris::RESERVED_SCHEME;

/// Most entries of a catalogue; no client's model reads this many. Full: this org's own items come first, then the
/// others, tools before prompts before templates before resources, in the order of their identity, and [`Catalogue::left_out`] counts the rest.
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

/// One node's offer of one item, as the catalogue takes it in.
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

/// One item as clients see it.
#[derive(Clone, Debug)]
pub struct CatalogueEntry {
    /// What kind of item it is.
    pub kind: Kind,
    /// The name or URI by which clients ask for it.
    pub name: String,
    /// The item's object with that name; everything else is as the server wrote it.
    pub object: Arc<RawValue>,
    /// The contract that every candidate must serve.
    pub contract: ContractDigest,
    /// The capabilities that this entry stands for, in ascending order: one for each org that offers it.
    pub capabilities: Vec<CapabilityId>,
    /// How far it may be merged: a router must keep a [`Pool::ThisNode`] entry on this node.
    pub pool: Pool,
}

/// What clients can ask for, by kind and in the order of names. Immutable: a change makes a new one.
#[derive(Clone, Debug)]
pub struct Catalogue {
    entries: Vec<CatalogueEntry>,
    /// What each entry's object was before it was renamed.
    blobs: Vec<BlobDigest>,
    digests: [CatalogueDigest; Kind::ALL.len()],
    left_out: usize,
}

impl Catalogue {
    /// Builds the catalogue of `offers`, in whatever order they come.
    pub fn build(offers: impl IntoIterator<Item = Offered>) -> Self {
        let mut groups = gather(offers);
        let left_out = cut(&mut groups);
        let names = exposed_names(&groups);
        Self::of(groups.into_iter().zip(names).collect(), left_out)
    }

    /// The catalogue of one server's `offers`, each main entry under its own name: nothing clashes within one server.
    pub fn passthrough(offers: impl IntoIterator<Item = Offered>) -> Self {
        let mut groups = gather(offers);
        let left_out = cut(&mut groups);
        let mains = mains(&groups);
        let own_name = |key: &GroupKey, main: bool| main.then(|| key.name.to_string());
        let names: Vec<_> = groups.keys().zip(mains).map(|(key, main)| own_name(key, main)).collect();
        Self::of(groups.into_iter().zip(names).collect(), left_out)
    }

    /// The entries that `keep` wants, under the names that they have here.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&CatalogueEntry) -> bool) -> Self {
        let all = self.entries.iter().zip(&self.blobs);
        let (entries, blobs): (Vec<_>, Vec<_>) =
            all.filter(|(entry, _)| keep(entry)).map(|(entry, blob)| (entry.clone(), *blob)).unzip();
        Self { digests: digests(&entries, &blobs), entries, blobs, left_out: self.left_out }
    }

    /// Groups without a name are not shown.
    fn of(groups: Vec<((GroupKey, Group), Option<String>)>, left_out: usize) -> Self {
        let named = groups.into_iter().filter_map(|((key, group), name)| Some(entry(key, group, name?)));
        let mut entries: Vec<_> = named.collect();
        entries.sort_by(|(a, _), (b, _)| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        let (entries, blobs): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        Self { digests: digests(&entries, &blobs), entries, blobs, left_out }
    }

    /// The entries in ascending order of kind and name.
    pub fn entries(&self) -> &[CatalogueEntry] {
        &self.entries
    }

    /// The entries of one kind in ascending order of name.
    pub fn of_kind(&self, kind: Kind) -> &[CatalogueEntry] {
        let start = self.entries.partition_point(|entry| entry.kind < kind);
        let rest = &self.entries[start..];
        &rest[..rest.partition_point(|entry| entry.kind == kind)]
    }

    /// The tool that clients call `name`.
    pub fn by_name(&self, name: &str) -> Option<&CatalogueEntry> {
        self.find(Kind::Tool, name)
    }

    /// The item of that kind that clients ask for as `name`.
    pub fn find(&self, kind: Kind, name: &str) -> Option<&CatalogueEntry> {
        let at = self.entries.binary_search_by(|entry| (entry.kind, entry.name.as_str()).cmp(&(kind, name)));
        self.entries.get(at.ok()?)
    }

    /// The template that `uri` was made from: of several that fit the one that says most itself, then the first in order.
    pub fn template_of(&self, uri: &str) -> Option<&CatalogueEntry> {
        let fitting = self.of_kind(Kind::Template).iter().filter_map(|entry| {
            let template = UriTemplate::parse(&entry.name).filter(|template| template.matches(uri))?;
            Some((core::cmp::Reverse(template.literals()), entry))
        });
        fitting.min_by_key(|(literals, _)| *literals).map(|(_, entry)| entry)
    }

    /// The entries that stand for `capability`: more than one while it is offered under several contracts.
    pub fn by_capability(&self, capability: &CapabilityId) -> impl Iterator<Item = &CatalogueEntry> {
        self.entries.iter().filter(move |entry| entry.capabilities.contains(capability))
    }

    /// The digest of what clients are shown of one kind. It changes when a client would see a change, and not when only the
    /// nodes behind an entry do: send the kind's `list_changed` when it differs.
    pub const fn digest(&self, kind: Kind) -> CatalogueDigest {
        self.digests[kind as usize]
    }

    /// The digests of every kind, in the order of [`Kind::ALL`].
    pub const fn digests(&self) -> [CatalogueDigest; Kind::ALL.len()] {
        self.digests
    }

    /// How many items found no place.
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

/// The one item that offers are offers of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    server: ServerName,
    kind: Kind,
    name: ItemName,
    contract: ContractDigest,
    pool: Pool,
    /// The org that it is kept to; none under [`Pool::Anywhere`].
    org: Option<OrgName>,
}

/// What is known of an item from the offers of it.
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
        kind: capability.kind,
        name: capability.name.clone(),
        contract: descriptor.contract(),
        pool,
        org: (pool != Pool::Anywhere).then(|| capability.org.clone()),
    }
}

/// Drops what is above the bound, foreign items first. Returns how many.
fn cut(groups: &mut Groups) -> usize {
    let surplus = groups.len().saturating_sub(ENTRIES_MAX);
    if surplus > 0 {
        let mut ranked: Vec<_> =
            groups.iter().map(|(key, group)| (group.home.0, key.kind, key.clone())).collect();
        ranked.sort();
        for (_, _, key) in ranked.drain(ENTRIES_MAX..) {
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
        kind: key.kind,
        // The name of a server's entry is for this node's own use.
        object: if key.kind == Kind::Server { descriptor.shared() } else { descriptor.renamed(&name) },
        name,
        contract: key.contract,
        capabilities: group.capabilities.into_iter().collect(),
        pool: key.pool,
    };
    (entry, blob)
}

/// The name of each group; none for what is not shown.
fn exposed_names(groups: &Groups) -> Vec<Option<String>> {
    let mains = mains(groups);
    let mut names = vec![None; groups.len()];
    for kind in Kind::ALL {
        let of_kind = groups.iter().zip(&mains).enumerate().filter(|(_, ((key, _), _))| key.kind == kind);
        let (places, groups): (Vec<_>, Vec<_>) =
            of_kind.map(|(at, ((key, group), main))| (at, Nameless { key, group, main: *main })).unzip();
        let assigned: Vec<_> = match kind {
            Kind::Server => groups.iter().map(Nameless::as_server).collect(),
            Kind::Tool | Kind::Prompt => names::assign(&groups).into_iter().map(Some).collect(),
            Kind::Template | Kind::Resource => uris::assign(&groups).into_iter().map(Some).collect(),
        };
        for (at, name) in places.into_iter().zip(assigned) {
            names[at] = name;
        }
    }
    names
}

/// A group that is to have a name.
#[derive(Clone, Copy)]
struct Nameless<'a> {
    key: &'a GroupKey,
    group: &'a Group,
    /// Whether it is the main entry of any of its capabilities.
    main: bool,
}

impl Nameless<'_> {
    fn as_server(&self) -> Option<String> {
        self.main.then(|| format!("{}/{}", self.group.home.1, self.key.server))
    }
}

fn digests(entries: &[CatalogueEntry], blobs: &[BlobDigest]) -> [CatalogueDigest; Kind::ALL.len()] {
    Kind::ALL.map(|kind| {
        let mut text = Vec::new();
        for (entry, blob) in entries.iter().zip(blobs).filter(|(entry, _)| entry.kind == kind) {
            text.extend_from_slice(entry.name.as_bytes());
            // A name never has a zero byte, so the text reads in one way only.
            text.push(0);
            text.extend_from_slice(blob.as_bytes());
        }
        CatalogueDigest::of(&text)
    })
}

#[cfg(test)]
mod tests;
