//! What the clients of one endpoint see, and what each name there leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use comity_protocol::catalogue::{Catalogue, CatalogueEntry, Pool};
use comity_protocol::ids::{ItemName, Kind, OrgName, ServerName};
use comity_protocol::json;
use comity_protocol::uri_template::UriTemplate;

use super::{Item, ItemRoute, World, is_local};
use crate::gateway::Target;

/// A catalogue and the routes behind it. Immutable.
#[derive(Debug, Default)]
pub struct View {
    /// What clients see.
    pub catalogue: Arc<Catalogue>,
    /// The routes, by kind and exposed name.
    routes: BTreeMap<Kind, BTreeMap<String, Arc<ItemRoute>>>,
}

/// What a request is about.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it may be run.
    pub route: Arc<ItemRoute>,
    /// What the server calls it: the item's own name, or the URI that was asked for in the server's own terms.
    pub name: String,
}

impl View {
    /// The view of `catalogue`, whose entries are made of `items`.
    pub(super) fn new(catalogue: Catalogue, items: &[Arc<Item>]) -> Self {
        let routes = routes(&catalogue, items);
        Self { catalogue: Arc::new(catalogue), routes }
    }

    /// The route of what clients ask for as `name`.
    pub fn route(&self, kind: Kind, name: &str) -> Option<&Arc<ItemRoute>> {
        self.routes.get(&kind)?.get(name)
    }

    /// What `target` is. A URI that nobody lists is its template's, or else that of the only server with resources here:
    /// servers may serve more than they list. What `world` says is listed and not approved is nobody's.
    pub fn find(&self, target: &Target, world: &World) -> Option<Found> {
        match target {
            Target::Item(kind, name) => self.find_item(*kind, name, world),
            Target::Server => Some(Found::of(self.only_server(|_| true)?.clone())),
            // Its id says where it is.
            Target::Task(_) => None,
        }
    }

    fn find_item(&self, kind: Kind, name: &str, world: &World) -> Option<Found> {
        if let Some(route) = self.route(kind, name) {
            return Some(Found::of(route.clone()));
        }
        if kind != Kind::Resource {
            return None;
        }
        self.find_in_template(name).or_else(|| self.find_unlisted(name, world))
    }

    fn find_in_template(&self, uri: &str) -> Option<Found> {
        let entry = self.catalogue.template_of(uri)?;
        let route = self.route(Kind::Template, &entry.name)?.clone();
        // An exposed template is the server's own with something before it, or nothing.
        let before = entry.name.strip_suffix(route.name.as_str())?;
        let name = uri.strip_prefix(before)?.to_owned();
        Some(Found { route, name })
    }

    fn find_unlisted(&self, uri: &str, world: &World) -> Option<Found> {
        let has_resources =
            |entry: &CatalogueEntry| json::path(&entry.object, &["capabilities", "resources"]).is_some();
        let route = self.only_server(has_resources)?.clone();
        let listed = world.items_of_server(&route.capability.org, &route.server);
        let hides = |item: &Item| match item.capability.kind {
            Kind::Resource => item.capability.name.as_str() == uri,
            Kind::Template => UriTemplate::parse(item.capability.name.as_str())
                .is_some_and(|template| template.matches(uri)),
            _ => false,
        };
        let hidden = listed.iter().any(|item| hides(item));
        let name: ItemName = uri.parse().ok().filter(|_| !hidden)?;
        Some(Found { route, name: name.to_string() })
    }

    fn only_server(&self, wanted: impl Fn(&CatalogueEntry) -> bool) -> Option<&Arc<ItemRoute>> {
        let mut servers = self.catalogue.of_kind(Kind::Server).iter().filter(|entry| wanted(entry));
        let only = servers.next().filter(|_| servers.next().is_none())?;
        self.route(Kind::Server, &only.name)
    }
}

impl Found {
    fn of(route: Arc<ItemRoute>) -> Self {
        let name = route.name.to_string();
        Self { route, name }
    }
}

/// Everybody who offers an item of that server and name takes part in its route: those whom the entry merges as
/// candidates that may be chosen, the others as ones that are rejected with the reason.
fn routes(catalogue: &Catalogue, items: &[Arc<Item>]) -> BTreeMap<Kind, BTreeMap<String, Arc<ItemRoute>>> {
    let mut by_name: BTreeMap<(&ServerName, Kind, &ItemName), Vec<&Arc<Item>>> = BTreeMap::new();
    for item in items {
        let capability = &item.capability;
        by_name.entry((&capability.server, capability.kind, &capability.name)).or_default().push(item);
    }
    let mut routes: BTreeMap<Kind, BTreeMap<String, Arc<ItemRoute>>> = BTreeMap::new();
    for entry in catalogue.entries() {
        let Some(first) = entry.capabilities.first() else { continue };
        let related = by_name.get(&(&first.server, first.kind, &first.name));
        if let Some(route) = related.and_then(|related| route(entry, related)) {
            routes.entry(entry.kind).or_default().insert(entry.name.clone(), Arc::new(route));
        }
    }
    routes
}

fn route(entry: &CatalogueEntry, related: &[&Arc<Item>]) -> Option<ItemRoute> {
    let first = entry.capabilities.first()?;
    let orgs: BTreeSet<&OrgName> = entry.capabilities.iter().map(|capability| &capability.org).collect();
    let belongs = |item: &Item| match entry.pool {
        // Alike in name and contract, or another contract of an org that the entry stands for.
        Pool::Anywhere => {
            item.pool == Pool::Anywhere
                && (item.contract == entry.contract || orgs.contains(&item.capability.org))
        }
        pool => item.pool == pool && orgs.contains(&item.capability.org),
    };
    let members: Vec<_> = related.iter().filter(|item| belongs(item)).collect();
    let described = members.iter().find(|item| item.contract == entry.contract)?;
    let nearest = members.iter().find(|item| item.candidates.iter().any(is_local)).or(members.first())?;
    Some(ItemRoute {
        server: first.server.clone(),
        kind: first.kind,
        name: first.name.clone(),
        capability: nearest.capability.clone(),
        contract: entry.contract,
        descriptor: described.descriptor.clone(),
        candidates: members.iter().flat_map(|item| item.candidates.iter().cloned()).collect(),
    })
}
