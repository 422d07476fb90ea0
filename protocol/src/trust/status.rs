//! Status and attestations: the formats are fixed now so that nodes of this version carry room for them; revocation and
//! attested claims are read from a later version on.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::ids::{ContractDigest, NodeId, OrgName};
use crate::time::Wall;

use super::seal::SealedType;

/// What an attestation speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Subject {
    /// A whole org.
    #[n(0)]
    Org(#[n(0)] OrgName),
    /// One node.
    #[n(1)]
    Node(#[n(0)] NodeId),
    /// One contract.
    #[n(2)]
    Contract(#[n(0)] ContractDigest),
}

/// A third party's word on a claim, such as `soc2:type2` or a location.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attestation {
    /// Who says so.
    #[n(0)]
    pub issuer: OrgName,
    /// Of whom.
    #[n(1)]
    pub subject: Subject,
    /// What.
    #[n(2)]
    pub claim: String,
    /// How far it reaches.
    #[n(3)]
    pub scope: String,
    /// The digest of the evidence that the issuer holds.
    #[n(4)]
    pub evidence_hash: ByteVec,
    /// From when it holds.
    #[n(5)]
    pub not_before: Wall,
    /// When it ends.
    #[n(6)]
    pub expires: Wall,
    /// The issuer's number for it; revocation names it.
    #[n(7)]
    pub id: u64,
}

impl SealedType for Attestation {
    const TYPE: &'static str = "attestation";
    const VERSION: u16 = 1;
    const BYTES_MAX: usize = 2048;
}

/// What an org has taken back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    /// Who says so.
    #[n(0)]
    pub issuer: OrgName,
    /// One more for each status of this issuer.
    #[n(1)]
    pub seq: u64,
    /// When it was made.
    #[n(2)]
    pub this_update: Wall,
    /// When the next is due.
    #[n(3)]
    pub next_update: Wall,
    /// Memberships taken back, ascending.
    #[n(4)]
    pub revoked_serials: Vec<u64>,
    /// Attestations taken back, ascending.
    #[n(5)]
    pub revoked_ids: Vec<u64>,
    /// The least epoch that each named node may use.
    #[n(6)]
    pub min_epochs: Vec<(NodeId, u32)>,
}

impl SealedType for Status {
    const TYPE: &'static str = "status";
    const VERSION: u16 = 1;
    const BYTES_MAX: usize = 32 * 1024;
}
