//! A membership: an org's word that a node key is its own, for some days, with a bound on its claims.

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::codec::encoded_set;
use crate::geo::CountrySet;
use crate::ids::{NodeId, OrgName};
use crate::time::Wall;

use super::seal::SealedType;

/// Longest life of a membership: seven days.
pub const MEMBERSHIP_LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Run calls for others.
    #[n(0)]
    Exec,
    /// Carry others' encrypted traffic.
    #[n(1)]
    Relay,
    /// Make calls.
    #[n(2)]
    Client,
}

encoded_set!(
    /// The roles of a membership.
    RoleSet,
    Role
);

impl RoleSet {
    /// What a node is given unless its org says otherwise: run calls and make them.
    pub fn standard() -> Self {
        Self([Role::Exec, Role::Client].into())
    }

    /// Whether `role` is among them.
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }
}

/// An org's word that a node is its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Membership {
    /// The org.
    #[n(0)]
    pub org: OrgName,
    /// The version of the root whose issuer signed.
    #[n(1)]
    pub root_version: u32,
    /// The node.
    #[n(2)]
    pub node: NodeId,
    /// The issuer's number for this membership; revocation names it.
    #[n(3)]
    pub serial: u64,
    /// One more each time that the node is enrolled anew: it lets a node that lost its disk begin its sequence again.
    #[n(4)]
    pub epoch: u32,
    /// What it may do.
    #[n(5)]
    pub roles: RoleSet,
    /// The most that the node may claim as its places of processing.
    #[n(6)]
    pub locations_max: CountrySet,
    /// From when it holds.
    #[n(7)]
    pub not_before: Wall,
    /// When it ends.
    #[n(8)]
    pub expires: Wall,
}

impl SealedType for Membership {
    const TYPE: &'static str = "membership";
    const VERSION: u16 = 1;
    const BYTES_MAX: usize = 2048;
}
