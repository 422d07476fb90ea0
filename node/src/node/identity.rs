//! Who this node is: its key, and its org's word on it.

use std::sync::Arc;

use comity_protocol::advert::Site;
use comity_protocol::ids::{NodeId, OrgName};
use comity_protocol::mesh::own::Identity;
use comity_protocol::time::Wall;
use comity_protocol::trust::{Anchors, Membership, MembershipError, Role, RootChain, Verified};
use ed25519_dalek::SigningKey;
use tracing::warn;

use crate::config::NodeConfig;
use crate::identity::{DataDir, KeyError, load_key, node_id};
use crate::org::{self, Issuer, OrgError};
use crate::telemetry::Chain;
use crate::world::gather::Me;

/// The org that stands in for that of a node that has joined none.
const NO_ORG: &str = "local";

/// A node's key, and its membership if it has one that holds.
pub struct NodeIdentity {
    /// Its key.
    pub key: SigningKey,
    /// Its id.
    pub node: NodeId,
    /// Its org's word on it.
    pub member: Option<Member>,
    /// Why there is none, where something is wrong rather than missing.
    pub problem: Option<String>,
}

/// An org's word on this node.
#[derive(Clone)]
pub struct Member {
    /// The membership.
    pub membership: Verified<Membership>,
    /// The org's roots.
    pub chain: RootChain,
}

/// Why a node's identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The membership's or the root's file.
    #[error(transparent)]
    Org(#[from] OrgError),
    /// The configuration names another org than the membership.
    #[error("comity.toml says org {configured}, and the membership is of {member}; make them agree")]
    OtherOrg {
        /// What the configuration says.
        configured: OrgName,
        /// What the membership says.
        member: OrgName,
    },
}

impl NodeIdentity {
    /// Reads the key and the membership. A membership that has ended, or is about to, is renewed where this machine holds
    /// the org's key; elsewhere the node starts without a mesh and says why.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(dir: &DataDir, config: &NodeConfig, now: Wall) -> Result<Self, IdentityError> {
        if let Some(org) = &config.org
            && let Some(issuer) = Issuer::load(dir, org)?
        {
            issuer_renews(dir, &issuer, node_id(&load_key(&dir.node_key())?), config, now)?;
        }
        let identity = Self::read(dir, config, now)?;
        if let Some(problem) = &identity.problem {
            warn!(error = problem, "this node takes no part in the mesh: its membership does not hold");
        }
        Ok(identity)
    }

    /// Reads the key and the membership as they are.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn read(dir: &DataDir, config: &NodeConfig, now: Wall) -> Result<Self, IdentityError> {
        let key = load_key(&dir.node_key())?;
        let node = node_id(&key);
        let mut identity = Self { key, node, member: None, problem: None };
        match identity.read_member(dir, config, now)? {
            Ok(member) => identity.member = member,
            Err(error) => identity.problem = Some(Chain(&error).to_string()),
        }
        Ok(identity)
    }

    fn read_member(
        &self,
        dir: &DataDir,
        config: &NodeConfig,
        now: Wall,
    ) -> Result<Result<Option<Member>, MembershipError>, IdentityError> {
        let Some(stored) = org::load_membership(dir)? else { return Ok(Ok(None)) };
        let member_of = stored.claimed().org.clone();
        if let Some(configured) = config.org.clone().filter(|org| *org != member_of) {
            return Err(IdentityError::OtherOrg { configured, member: member_of });
        }
        let Some(chain) = org::load_chain(dir, &member_of)? else {
            return Ok(Err(MembershipError::RootMissing(member_of)));
        };
        Ok(verify(config, stored.bytes(), &chain, self.node, now)
            .map(|membership| Some(Member { membership, chain })))
    }

    /// What the mesh needs to know of this node; `None` while it is no member.
    pub fn mesh_identity(&self, config: &NodeConfig) -> Option<Identity> {
        let member = self.member.as_ref()?;
        Some(Identity {
            key: self.key.clone(),
            membership: member.membership.clone(),
            roots: member.chain.clone(),
            name: config.name.clone(),
            site: Site {
                processing_locations: config.site.processing_locations,
                operator_country: config.site.operator_country,
                labels: config.site.labels.clone(),
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// This node as routing sees it.
    pub fn me(&self, config: &NodeConfig) -> Me {
        self.me_as(self.member.as_ref(), config)
    }

    /// This node as routing sees it under `member`.
    pub(super) fn me_as(&self, member: Option<&Member>, config: &NodeConfig) -> Me {
        let org = member.map(|member| member.membership.org.clone()).or_else(|| config.org.clone());
        Me {
            node: self.node,
            org: org.unwrap_or_else(|| NO_ORG.parse().expect("a constant that is an org's name")),
            name: config.name.as_str().into(),
            site: config.site.clone(),
            executor: member.is_none_or(|member| member.membership.roles.has(Role::Exec)),
            locations_max: member
                .map_or(config.site.processing_locations, |member| member.membership.locations_max),
        }
    }
}

fn verify(
    config: &NodeConfig,
    bytes: &Arc<[u8]>,
    chain: &RootChain,
    node: NodeId,
    now: Wall,
) -> Result<Verified<Membership>, MembershipError> {
    let root = chain.verify()?;
    let mut anchors = Anchors::new(config.mesh.name.clone());
    if let Some(pin) = chain.pin() {
        anchors.pin(root.org, pin);
    }
    let _ = anchors.learn(chain.clone());
    let membership = anchors.verify_membership(bytes, now)?;
    if membership.node == node {
        Ok(membership)
    } else {
        Err(MembershipError::WrongNode { claimed: membership.node, actual: node })
    }
}

/// Keeps the issuer's own membership going: it has nobody else to ask.
fn issuer_renews(
    dir: &DataDir,
    issuer: &Issuer,
    node: NodeId,
    config: &NodeConfig,
    now: Wall,
) -> Result<(), OrgError> {
    let stored = org::load_membership(dir)?;
    let Some(old) = stored.as_ref().map(comity_protocol::trust::Unverified::claimed) else { return Ok(()) };
    if old.node == node && old.org == *issuer.org() && super::watchers::renewal_due(old, now) {
        let renewed = issuer.renew(&config.mesh.name, old, now)?;
        org::save_membership(dir, &renewed)?;
    }
    Ok(())
}
