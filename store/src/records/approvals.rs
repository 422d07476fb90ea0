//! What the operator has approved: one record a policy or a capability. What is in key and value is the protocol's
//! business (`approval::RecordKey` and `approval::RecordValue`, both canonical CBOR).

use minicbor::{Decode, Encode};

use super::first_version;
use crate::Tree;
use crate::record::Key;

/// The protocol's key, as it encodes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApprovalKey(pub Vec<u8>);

impl Key for ApprovalKey {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self(bytes.to_vec()))
    }
}

/// One decision of the operator, or one first use under such a decision.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Approval {
    /// The protocol's value, as it encodes it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

first_version!(Approval, Tree::Approvals, ApprovalKey);
