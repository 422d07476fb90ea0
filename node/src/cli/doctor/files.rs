//! Checks of what is on disk: data directory, keys, clock, roots, membership.

use std::time::Duration;

use comity_protocol::geo::CountrySet;
use comity_protocol::ids::{NodeId, OrgName, RootHash};
use comity_protocol::time::Wall;
use comity_protocol::trust::{Anchors, Membership, MembershipError, RootChain};

use super::Check;
use crate::cli::context::{now, rfc3339};
use crate::cli::output::duration;
use crate::config::NodeConfig;
use crate::files::read_bounded;
use crate::identity::{DataDir, load_key, node_id};
use crate::org::{self, MEMBERSHIP_FILE_BYTES_MAX};
use crate::telemetry::Chain;

/// Below this the store will soon refuse to grow.
const FREE_BYTES_WARN: u64 = 1 << 30;
/// Below this the node does not start.
const FREE_BYTES_FAIL: u64 = 64 << 20;
/// A membership this close to its end should have been renewed.
const MEMBERSHIP_LEFT_WARN: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// A root this close to its end should be followed by another.
const ROOT_LEFT_WARN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// This release was not built before then, so a clock that says so is wrong.
const CLOCK_MIN: Wall = Wall::from_millis(1_767_225_600_000);

pub(super) fn data_dir(dir: &DataDir) -> Vec<Check> {
    let name = "data directory";
    let shown = dir.path().display().to_string();
    if let Err(error) = dir.check() {
        let mend = if dir.path().exists() { format!("chmod 700 {shown}") } else { "comity init".to_owned() };
        return vec![Check::fail(name, Chain(&error).to_string(), mend)];
    }
    let written = tempfile::Builder::new().prefix(".comity-").tempfile_in(dir.path());
    let writable = match written {
        Ok(_) => Check::ok(name, shown),
        Err(error) => {
            Check::fail(name, format!("{shown} cannot be written: {error}"), "let the node's user own it")
        }
    };
    vec![writable, free_space(dir)]
}

fn free_space(dir: &DataDir) -> Check {
    let name = "free space";
    let Ok(stat) = rustix::fs::statvfs(dir.path()) else {
        return Check::warn(name, "the system does not say", "look with: df -h");
    };
    let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    let detail = format!("{} MiB", bytes >> 20);
    match bytes {
        0..FREE_BYTES_FAIL => {
            Check::fail(name, detail, "free some space: the store needs room to stay whole")
        }
        FREE_BYTES_FAIL..FREE_BYTES_WARN => Check::warn(name, detail, "free some space soon"),
        _ => Check::ok(name, detail),
    }
}

pub(super) fn node_key(dir: &DataDir) -> (Check, Option<NodeId>) {
    let name = "node key";
    match load_key(&dir.node_key()) {
        Ok(key) => (Check::ok(name, node_id(&key).to_string()), Some(node_id(&key))),
        Err(error) => {
            let file = dir.node_key();
            let mend = if file.exists() {
                format!("chmod 600 {}", file.display())
            } else {
                "comity init".to_owned()
            };
            (Check::fail(name, Chain(&error).to_string(), mend), None)
        }
    }
}

/// The clock, this node's org and membership, and the roots of the orgs that it believes.
pub(super) fn identity(dir: &DataDir, config: &NodeConfig, node: Option<NodeId>) -> Vec<Check> {
    let now = now();
    let mut checks = vec![clock(now), site(config)];
    match &config.org {
        None => checks.push(Check::warn(
            "org",
            "this node belongs to none",
            "comity join LINE, or: comity org create NAME",
        )),
        Some(org) => checks.extend(own_org(dir, config, org, node, now)),
    }
    checks.extend(config.trust.iter().map(|trusted| pinned_root(dir, &trusted.name, trusted.root, now)));
    checks
}

fn clock(now: Wall) -> Check {
    let name = "clock";
    match now < CLOCK_MIN {
        true => Check::fail(name, format!("it says {}", rfc3339(now)), "set it, and keep it set with NTP"),
        false => Check::ok(name, rfc3339(now)),
    }
}

fn site(config: &NodeConfig) -> Check {
    let (name, site) = ("site", &config.site);
    match (site.processing_locations.is_empty(), site.operator_country) {
        (true, _) => Check::warn(
            name,
            "it names no processing_locations, so no call that is bound to a place comes here",
            "name them under [site] in comity.toml",
        ),
        (false, None) => Check::warn(
            name,
            "it names no operator_country, so no call that denies some operators comes here",
            "name it under [site] in comity.toml",
        ),
        (false, Some(country)) => {
            Check::ok(name, format!("{}, operated from {country}", site.processing_locations))
        }
    }
}

fn own_org(dir: &DataDir, config: &NodeConfig, org: &OrgName, node: Option<NodeId>, now: Wall) -> Vec<Check> {
    let name = format!("org {org}");
    let chain = match org::load_chain(dir, org) {
        Ok(Some(chain)) => chain,
        Ok(None) => {
            return vec![Check::fail(
                name,
                "its root is not here",
                "comity join LINE, or: comity org create NAME",
            )];
        }
        Err(error) => {
            return vec![Check::fail(name, Chain(&error).to_string(), "comity join with a new line")];
        }
    };
    let root = root_age(&name, &chain, now);
    vec![root, membership(dir, config, org, chain, node, now)]
}

fn root_age(name: &str, chain: &RootChain, now: Wall) -> Check {
    let root = match chain.verify() {
        Ok(root) => root,
        Err(error) => {
            return Check::fail(name, Chain(&error).to_string(), "get the root anew from the org's issuer");
        }
    };
    let left = root.expires.since(now);
    let detail = format!("root version {}, valid for {}", root.version, duration(left.as_secs()));
    if let Err(error) = root.check_time(now) {
        return Check::fail(
            name,
            Chain(&error).to_string(),
            "the issuer must sign a new root; is the clock right?",
        );
    }
    match left < ROOT_LEFT_WARN {
        true => Check::warn(name, detail, "the issuer should sign a new root"),
        false => Check::ok(name, detail),
    }
}

fn pinned_root(dir: &DataDir, org: &OrgName, pin: RootHash, now: Wall) -> Check {
    let name = format!("trusted org {org}");
    match org::load_chain(dir, org) {
        Ok(Some(chain)) if chain.pin() != Some(pin) => Check::fail(
            name,
            format!("another root is pinned ({pin}) than the one that is here"),
            "ask the org for its digest: comity org root",
        ),
        Ok(Some(chain)) => root_age(&name, &chain, now),
        Ok(None) => Check::ok(name, "pinned; its root comes with the first of its nodes that is met"),
        Err(error) => Check::fail(name, Chain(&error).to_string(), format!("rm {}", dir.root(org).display())),
    }
}

fn membership(
    dir: &DataDir,
    config: &NodeConfig,
    org: &OrgName,
    chain: RootChain,
    node: Option<NodeId>,
    now: Wall,
) -> Check {
    let name = "membership";
    let Ok(bytes) = read_bounded(&dir.membership(), MEMBERSHIP_FILE_BYTES_MAX) else {
        return Check::fail(
            name,
            "there is none",
            "the issuer runs: comity org admit NODE   and you: comity join LINE",
        );
    };
    let mut anchors = Anchors::new(config.mesh.name.clone());
    if let Some(pin) = chain.pin() {
        anchors.pin(org.clone(), pin);
    }
    if let Err(error) = anchors.learn(chain) {
        return Check::fail(name, Chain(&error).to_string(), "get the root anew from the org's issuer");
    }
    match anchors.verify_membership(&bytes, now) {
        Ok(membership) if node.is_some_and(|node| node != membership.node) => Check::fail(
            name,
            format!("it is for {}, and this node is another", membership.node),
            "the issuer runs: comity org admit NODE   with this node's id",
        ),
        Ok(membership) => membership_terms(&membership, config, now),
        Err(error) => {
            let mend = match error {
                MembershipError::NotYet(_) => {
                    "set the clock here or at the issuer, and keep both set with NTP"
                }
                _ => "the issuer runs: comity org admit NODE   and you: comity join LINE",
            };
            Check::fail(name, Chain(&error).to_string(), mend)
        }
    }
}

fn membership_terms(membership: &Membership, config: &NodeConfig, now: Wall) -> Check {
    let name = "membership";
    let claimed = config.site.processing_locations;
    let unbacked: CountrySet = claimed.difference(&membership.locations_max);
    if !unbacked.is_empty() {
        return Check::fail(
            name,
            format!("[site] claims {claimed}, and the membership allows {} only", membership.locations_max),
            format!(
                "remove {unbacked} from processing_locations, or have the issuer admit this node with it"
            ),
        );
    }
    let left = membership.expires.since(now);
    let detail = format!("valid for {}, may claim {}", duration(left.as_secs()), membership.locations_max);
    match left < MEMBERSHIP_LEFT_WARN {
        true => {
            Check::warn(name, detail, "is the issuer's node running and reachable? it renews memberships")
        }
        false => Check::ok(name, detail),
    }
}
