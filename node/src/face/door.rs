//! The endpoints under one address: everything at the configured path, one server by itself under `raw/`, profiles
//! under their names.
//!
//! | path | what is there |
//! | --- | --- |
//! | `/mcp` | everything, under the catalogue's names |
//! | `/mcp/raw/<server>` | one server under its own names: this node's, else the only org's that has one of that name |
//! | `/mcp/raw/<org>/<server>` | one server of that org |
//! | `/mcp/<profile>` | what the profile shows, under its constraints |

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use comity_protocol::{
    catalogue::{Catalogue, CatalogueEntry},
    constraints::Constraints,
    ids::{Kind, ServerName},
};

use super::{about::About, config::FaceConfig, find};
use crate::gateway::{Endpoint, Gateway, Target};

/// The path segment under which single servers are; no profile may be called so.
pub const RAW: &str = "raw";

/// What one profile shows and demands. Absent lists show everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The only servers whose items are shown.
    pub servers: Option<BTreeSet<ServerName>>,
    /// The only tools that are shown, by exposed name.
    pub tools: Option<BTreeSet<String>>,
    /// What is demanded of every call that comes in here, besides what the endpoint demands.
    pub constraints: Constraints,
    /// Text for the client's model; the endpoint's own where absent.
    pub instructions: Option<String>,
    /// More tools than so many are found by words instead of listed; the endpoint's own where absent.
    pub defer_tools_above: Option<usize>,
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Door {
    /// Its path below the configured one: a session belongs to one door.
    pub(super) key: String,
    pub(super) endpoint: Endpoint,
    pub(super) constraints: Arc<Constraints>,
    profile: Option<Profile>,
    instructions: Option<String>,
    defer_tools_above: Option<usize>,
    /// The last catalogue and what the profile shows of it.
    shown: Mutex<Option<(Arc<Catalogue>, Arc<Catalogue>)>>,
}

impl Door {
    /// What there is behind it now; `None` when its server is gone.
    pub(super) fn catalogue(&self, gateway: &dyn Gateway) -> Option<Arc<Catalogue>> {
        let all = gateway.catalogue(&self.endpoint)?;
        let Some(profile) = &self.profile else { return Some(all) };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, shown)) = shown.as_ref()
            && Arc::ptr_eq(of, &all)
        {
            return Some(shown.clone());
        }
        let filtered = Arc::new(all.filtered(|entry| profile.shows(entry)));
        *shown = Some((all, filtered.clone()));
        Some(filtered)
    }

    /// What it says of itself.
    pub(super) fn about(&self, catalogue: &Catalogue) -> About {
        match self.endpoint {
            Endpoint::All => About::of_node(catalogue, self.instructions.as_deref()),
            Endpoint::Raw { .. } => About::of_server(catalogue),
        }
    }

    /// Whether it is of one server, which is asked whatever the node does not know.
    pub(super) fn is_raw(&self) -> bool {
        matches!(self.endpoint, Endpoint::Raw { .. })
    }

    /// Whether `catalogue` has too many tools to list: clients then find and call them through the node's own.
    pub(super) fn defers(&self, catalogue: &Catalogue) -> bool {
        self.defer_tools_above.is_some_and(|most| catalogue.of_kind(Kind::Tool).len() > most)
    }

    /// The catalogue that its lists are made of.
    pub(super) fn listed(&self, catalogue: &Arc<Catalogue>, kind: Kind) -> Arc<Catalogue> {
        match kind {
            Kind::Tool if self.defers(catalogue) => find::own_tools(),
            _ => catalogue.clone(),
        }
    }

    /// Whether its clients may ask for `target`. A profile hides what it does not show, by whatever name.
    pub(super) fn admits(&self, target: &Target, gateway: &dyn Gateway) -> bool {
        if self.profile.is_none() {
            return true;
        }
        let Some(catalogue) = self.catalogue(gateway) else { return false };
        match target {
            Target::Item(Kind::Resource, uri) => {
                catalogue.find(Kind::Resource, uri).is_some() || catalogue.template_of(uri).is_some()
            }
            Target::Item(kind, name) => catalogue.find(*kind, name).is_some(),
            Target::Server => false,
            // The id is good for its principal only, whose call was admitted when it began.
            Target::Task(_) => true,
        }
    }
}

impl Profile {
    fn shows(&self, entry: &CatalogueEntry) -> bool {
        let of_server = |servers: &BTreeSet<ServerName>| {
            entry.capabilities.iter().any(|capability| servers.contains(&capability.server))
        };
        let named = |tools: &BTreeSet<String>| entry.kind != Kind::Tool || tools.contains(&entry.name);
        self.servers.as_ref().is_none_or(of_server) && self.tools.as_ref().is_none_or(named)
    }
}

/// Every endpoint of one face.
#[derive(Debug)]
pub(super) struct Doors {
    path: String,
    main: Arc<Door>,
    profiles: BTreeMap<String, Arc<Door>>,
}

impl Doors {
    pub(super) fn new(config: &FaceConfig) -> Self {
        let main = Door {
            key: String::new(),
            endpoint: Endpoint::All,
            constraints: Arc::new(config.constraints.clone()),
            profile: None,
            instructions: config.instructions.clone(),
            defer_tools_above: config.defer_tools_above,
            shown: Mutex::default(),
        };
        let profile = |(name, profile): (&String, &Profile)| {
            let door = Door {
                key: name.clone(),
                endpoint: Endpoint::All,
                constraints: Arc::new(config.constraints.tightened_by(&profile.constraints)),
                instructions: profile.instructions.clone().or_else(|| config.instructions.clone()),
                defer_tools_above: profile.defer_tools_above.or(config.defer_tools_above),
                profile: Some(profile.clone()),
                shown: Mutex::default(),
            };
            (name.clone(), Arc::new(door))
        };
        Self {
            path: config.path.clone(),
            profiles: config.profiles.iter().map(profile).collect(),
            main: Arc::new(main),
        }
    }

    /// The endpoint of everything.
    pub(super) fn main(&self) -> &Arc<Door> {
        &self.main
    }

    /// The endpoint at `path`; whether there is such a server is the gateway's to say.
    pub(super) fn at(&self, path: &str) -> Option<Arc<Door>> {
        let rest = path.strip_prefix(&self.path)?;
        if rest.is_empty() {
            return Some(self.main.clone());
        }
        let key = rest.strip_prefix('/')?;
        let mut parts = key.split('/');
        let first = parts.next()?;
        if first != RAW {
            return self.profiles.get(first).filter(|_| parts.next().is_none()).cloned();
        }
        let endpoint = match (parts.next()?, parts.next(), parts.next()) {
            (server, None, None) => Endpoint::Raw { org: None, server: server.parse().ok()? },
            (org, Some(server), None) => {
                Endpoint::Raw { org: Some(org.parse().ok()?), server: server.parse().ok()? }
            }
            _ => return None,
        };
        Some(Arc::new(Door {
            key: key.to_owned(),
            endpoint,
            constraints: self.main.constraints.clone(),
            profile: None,
            instructions: None,
            defer_tools_above: None,
            shown: Mutex::default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_doors() {
        let profiles = [("work".to_owned(), Profile::default())].into();
        let doors = Doors::new(&FaceConfig { profiles, ..FaceConfig::default() });
        let raw = |org: Option<&str>, server: &str| Endpoint::Raw {
            org: org.map(|org| org.parse().unwrap()),
            server: server.parse().unwrap(),
        };
        for (path, expected) in [
            ("/mcp", Some(Endpoint::All)),
            ("/mcp/work", Some(Endpoint::All)),
            ("/mcp/raw/time", Some(raw(None, "time"))),
            ("/mcp/raw/acme.example/time", Some(raw(Some("acme.example"), "time"))),
            ("/mcp/", None),
            ("/mcp/other", None),
            ("/mcp/work/x", None),
            ("/mcp/raw", None),
            ("/mcp/raw/", None),
            ("/mcp/raw/a.b", None),
            ("/mcp/raw/acme.example/time/x", None),
            ("/mcpx", None),
            ("/", None),
        ] {
            assert_eq!(doors.at(path).map(|door| door.endpoint.clone()), expected, "{path}");
        }
    }
}
