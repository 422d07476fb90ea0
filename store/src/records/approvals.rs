//! `approvals`: which foreign tools the operator lets clients see.

use minicbor::{Decode, Encode};

use super::{Hash, first_version};
use crate::Tree;

/// One approval; its key names the scope that it covers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Approval {
    /// How wide it is.
    #[n(0)]
    pub kind: ApprovalKind,
    /// The contract that it is bound to; none if it covers later contracts too.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub digest: Option<Hash>,
    /// When, in milliseconds since the Unix epoch.
    #[n(2)]
    pub approved_at_ms: u64,
    /// Who approved, in the operator's terms.
    #[n(3)]
    pub by: String,
}

/// How wide an approval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ApprovalKind {
    /// Everything that an org offers.
    #[n(0)]
    Org,
    /// Everything that one server of an org offers.
    #[n(1)]
    Server,
    /// One contract.
    #[n(2)]
    Contract,
}

first_version!(Approval, Tree::Approvals, String);
