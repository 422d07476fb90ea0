//! `pins`: which root speaks for an org.

use minicbor::{Decode, Encode};

use super::{Hash, first_version};
use crate::Tree;

/// The operator's decision to believe an org's root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Pin {
    /// The hash of the root.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub root: Hash,
    /// How the decision was made.
    #[n(1)]
    pub source: PinSource,
    /// When, in milliseconds since the Unix epoch.
    #[n(2)]
    pub added_at_ms: u64,
}

/// Where a pin came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum PinSource {
    /// A line in the configuration.
    #[n(0)]
    Config,
    /// An exchange of invites.
    #[n(1)]
    Join,
    /// A command.
    #[n(2)]
    Cli,
}

first_version!(Pin, Tree::Pins, String);
