//! The world as this node sees it at one moment: which tools there are, who offers each, and under which names clients
//! see them.
//!
//! [`World`] is immutable and shared; [`keeper`] makes a new one whenever the mesh, the upstreams, the approvals or the
//! configuration change. Calls only ever read a snapshot, so nothing that changes disturbs a decision under way.

pub mod gather;
pub mod keeper;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use comity_protocol::approval::Judgement;
use comity_protocol::catalogue::{Catalogue, Pool};
use comity_protocol::contract::Descriptor;
use comity_protocol::ids::{CapabilityId, ContractDigest, NodeId, OrgName, ServerName, ToolName};
use comity_protocol::route::Candidate;

/// What calls, listings and reports read.
#[derive(Debug, Default)]
pub struct World {
    /// What clients can call.
    pub catalogue: Arc<Catalogue>,
    /// Everything that anybody offers, approved or not, in the order of capabilities.
    pub tools: Vec<Arc<Tool>>,
    /// The routes by exposed name.
    routes: BTreeMap<String, Arc<ToolRoute>>,
}

/// One capability under one contract, and everybody who offers it so.
#[derive(Debug)]
pub struct Tool {
    /// What.
    pub capability: CapabilityId,
    /// Under which contract.
    pub contract: ContractDigest,
    /// How it is described.
    pub descriptor: Arc<Descriptor>,
    /// What the operator's approvals say of it.
    pub judgement: Judgement,
    /// With whose equal offers it may be merged.
    pub pool: Pool,
    /// The name that clients see it under, if they do.
    pub exposed: Option<String>,
    /// Who offers it.
    pub candidates: Vec<Candidate>,
}

/// What one exposed name stands for.
#[derive(Debug)]
pub struct ToolRoute {
    /// The server, as every candidate names it.
    pub server: ServerName,
    /// The tool, as every candidate's server names it.
    pub tool: ToolName,
    /// The capability that stands for it in reports: the nearest org's.
    pub capability: CapabilityId,
    /// The contract that a candidate must serve.
    pub contract: ContractDigest,
    /// The tool as that contract describes it.
    pub descriptor: Arc<Descriptor>,
    /// Everybody who offers the tool, also those who may not run it: a denial has a reason for each.
    pub candidates: Vec<Candidate>,
}

impl World {
    /// The world of these tools, which come in the order of their capabilities.
    pub(crate) fn new(catalogue: Catalogue, tools: Vec<Tool>) -> Self {
        debug_assert!(tools.is_sorted_by_key(|tool| &tool.capability));
        let tools = name_tools(&catalogue, tools);
        let routes = routes(&catalogue, &tools);
        Self { catalogue: Arc::new(catalogue), tools, routes }
    }

    /// What clients call `name`: an exposed name, or `org/server/tool`.
    pub fn route(&self, name: &str) -> Option<Arc<ToolRoute>> {
        self.routes.get(name).cloned().or_else(|| self.route_by_path(name))
    }

    /// The tools of exactly this capability, whatever their contract and whether approved or not.
    pub fn tools_under(&self, capability: &CapabilityId) -> &[Arc<Tool>] {
        let start = self.tools.partition_point(|tool| tool.capability < *capability);
        let rest = &self.tools[start..];
        &rest[..rest.partition_point(|tool| tool.capability == *capability)]
    }

    /// The tools that a person may mean by `name`, whatever their contract and whether approved or not.
    pub fn tools_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Tool>> + 'a {
        self.tools.iter().filter(move |tool| {
            tool.exposed.as_deref() == Some(name)
                || tool.capability.to_string() == name
                || tool.capability.tool.as_str() == name
        })
    }

    /// A route by `org/server/tool` also leads to what is not approved: the decision then says so. Of several that bear
    /// the name this node's own is meant, then the one with most nodes; only what may be merged with it takes part.
    fn route_by_path(&self, path: &str) -> Option<Arc<ToolRoute>> {
        let capability = capability(path)?;
        let rank = |tool: &Tool| {
            let local = tool.candidates.iter().any(is_local);
            (tool.judgement.is_approved(), local, tool.candidates.len())
        };
        let all = self.tools_under(&capability);
        let best = all.iter().max_by_key(|tool| rank(tool))?;
        let named = || all.iter().filter(|tool| tool.pool == best.pool);
        Some(Arc::new(ToolRoute {
            server: best.capability.server.clone(),
            tool: best.capability.tool.clone(),
            capability: best.capability.clone(),
            contract: best.contract,
            descriptor: best.descriptor.clone(),
            candidates: named().flat_map(|tool| tool.candidates.iter().cloned()).collect(),
        }))
    }
}

/// What `org/server/tool` names; only a tool's name may have a slash in it.
fn capability(path: &str) -> Option<CapabilityId> {
    let mut parts = path.splitn(3, '/');
    Some(CapabilityId {
        org: parts.next()?.parse().ok()?,
        server: parts.next()?.parse().ok()?,
        tool: parts.next()?.parse().ok()?,
    })
}

/// Notes in each tool the name under which the catalogue exposes it.
fn name_tools(catalogue: &Catalogue, tools: Vec<Tool>) -> Vec<Arc<Tool>> {
    let mut names = BTreeMap::new();
    for entry in catalogue.entries() {
        for capability in &entry.capabilities {
            names.insert((capability, entry.contract, entry.pool), &entry.name);
        }
    }
    let named = tools.into_iter().map(|mut tool| {
        let name = names.get(&(&tool.capability, tool.contract, tool.pool));
        tool.exposed = name.filter(|_| tool.judgement.is_approved()).map(|name| (*name).clone());
        Arc::new(tool)
    });
    named.collect()
}

/// Everybody who offers a tool of that server and name takes part in its route: those whom the entry merges as
/// candidates that may be chosen, the others as ones that are rejected with the reason.
fn routes(catalogue: &Catalogue, tools: &[Arc<Tool>]) -> BTreeMap<String, Arc<ToolRoute>> {
    let mut by_name: BTreeMap<(&ServerName, &ToolName), Vec<&Arc<Tool>>> = BTreeMap::new();
    for tool in tools {
        by_name.entry((&tool.capability.server, &tool.capability.tool)).or_default().push(tool);
    }
    let route = |entry: &comity_protocol::catalogue::CatalogueEntry| {
        let first = entry.capabilities.first()?;
        let related = by_name.get(&(&first.server, &first.tool))?;
        let orgs: BTreeSet<&OrgName> = entry.capabilities.iter().map(|capability| &capability.org).collect();
        let belongs = |tool: &Tool| match entry.pool {
            // Alike in name and contract, or another contract of an org that the entry stands for.
            Pool::Anywhere => {
                tool.pool == Pool::Anywhere
                    && (tool.contract == entry.contract || orgs.contains(&tool.capability.org))
            }
            pool => tool.pool == pool && orgs.contains(&tool.capability.org),
        };
        let members: Vec<_> = related.iter().filter(|tool| belongs(tool)).collect();
        let described = members.iter().find(|tool| tool.contract == entry.contract)?;
        let nearest = members.iter().find(|tool| tool.candidates.iter().any(is_local)).or(members.first())?;
        Some(ToolRoute {
            server: first.server.clone(),
            tool: first.tool.clone(),
            capability: nearest.capability.clone(),
            contract: entry.contract,
            descriptor: described.descriptor.clone(),
            candidates: members.iter().flat_map(|tool| tool.candidates.iter().cloned()).collect(),
        })
    };
    let entries = catalogue.entries().iter();
    entries.filter_map(|entry| Some((entry.name.clone(), Arc::new(route(entry)?)))).collect()
}

fn is_local(candidate: &Candidate) -> bool {
    candidate.reach == comity_protocol::route::Reach::Local
}

impl ToolRoute {
    /// The capability as `node`'s org offers it.
    pub fn capability_of(&self, org: &OrgName) -> CapabilityId {
        CapabilityId { org: org.clone(), server: self.server.clone(), tool: self.tool.clone() }
    }

    /// The candidate that is `node`.
    pub fn candidate(&self, node: &NodeId) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.site.node == *node)
    }
}
