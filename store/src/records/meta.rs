//! `meta`: whose store this is, and in which layout.

use minicbor::{Decode, Encode};

use super::{NodeId, first_version};
use crate::Tree;

/// The store's own record, under the key `store`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Meta {
    /// The layout of trees and keys; see [`crate::SCHEMA_VERSION`].
    #[n(0)]
    pub schema: u32,
    /// When the store was created, in milliseconds since the Unix epoch.
    #[n(1)]
    pub created_at_ms: u64,
    /// The node that it belongs to.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub node: NodeId,
}

impl Meta {
    /// The only key in the tree.
    pub const KEY: &'static str = "store";
}

first_version!(Meta, Tree::Meta, String);
