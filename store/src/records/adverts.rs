//! `adverts`: node id to the last advert received from it.

use minicbor::{Decode, Encode};

use super::{NodeId, first_version};
use crate::Tree;

/// An advert as it came.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Advert {
    /// When it was accepted, in milliseconds since the Unix epoch.
    #[n(0)]
    pub received_at_ms: u64,
    /// The signed bytes as received.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub envelope: Vec<u8>,
}

first_version!(Advert, Tree::Adverts, NodeId);
