//! Under which URIs resources and templates are listed: their own wherever that is possible.

use std::collections::{BTreeMap, BTreeSet};

use super::{Nameless, Origin, names};

/// How URIs begin that this node has made; nobody's own does.
pub const RESERVED_SCHEME: &str = "comity:";

/// A URI for each of `groups`, in their order. No two are equal: an own URI has one holder, and a qualified one names the
/// group's org, server and, for a variant, a hash of its identity.
pub(super) fn assign(groups: &[Nameless<'_>]) -> Vec<String> {
    let holders = holders(groups);
    let mut taken = BTreeSet::new();
    let named = groups.iter().enumerate().map(|(at, of)| {
        let own = of.key.name.as_str();
        if holders.get(own) == Some(&Some(at)) {
            return own.to_owned();
        }
        // Two contracts may each be the main one of another org and have the same home.
        let plain = Some(qualified(of)).filter(|uri| of.main && taken.insert(uri.clone()));
        plain.unwrap_or_else(|| with_hash(of))
    });
    named.collect()
}

/// Who keeps each URI: its nearest claimant, or nobody where two are equally near.
fn holders<'a>(groups: &[Nameless<'a>]) -> BTreeMap<&'a str, Option<usize>> {
    let mut best: BTreeMap<&str, (Origin, Option<usize>)> = BTreeMap::new();
    for (at, of) in groups.iter().enumerate() {
        let uri = of.key.name.as_str();
        if !of.main || is_reserved(uri) {
            continue;
        }
        let origin = of.group.home.0;
        let claim = best.entry(uri).or_insert((origin, Some(at)));
        if origin < claim.0 {
            *claim = (origin, Some(at));
        } else if origin == claim.0 && claim.1 != Some(at) {
            claim.1 = None;
        }
    }
    best.into_iter().map(|(uri, (_, holder))| (uri, holder)).collect()
}

fn is_reserved(uri: &str) -> bool {
    let scheme = uri.as_bytes().get(..RESERVED_SCHEME.len());
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(RESERVED_SCHEME.as_bytes()))
}

fn qualified(of: &Nameless<'_>) -> String {
    format!("{RESERVED_SCHEME}//{}/{}/{}", of.group.home.1, of.key.server, of.key.name)
}

/// No server's name has a tilde, so this never looks like [`qualified`].
fn with_hash(of: &Nameless<'_>) -> String {
    let hash = names::hash(0, of.key);
    format!("{RESERVED_SCHEME}//{}/{}~{hash}/{}", of.group.home.1, of.key.server, of.key.name)
}
