//! `quarantine`: capabilities whose contract changed after it was approved.

use minicbor::{Decode, Encode};

use super::{Hash, first_version};
use crate::Tree;

/// A change of contract that waits for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Quarantined {
    /// The contract that was approved.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub old: Hash,
    /// The contract that is offered now.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub new: Hash,
    /// Since when, in milliseconds since the Unix epoch.
    #[n(2)]
    pub since_ms: u64,
}

first_version!(Quarantined, Tree::Quarantine, String);
