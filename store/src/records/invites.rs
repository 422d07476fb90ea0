//! `invites`: the one-time invites that this node has issued. What is in a value is the protocol's business
//! (`enrol::IssuedInvite`, canonical CBOR); that an invite works once is its ledger's.

use minicbor::{Decode, Encode};

use super::first_version;
use crate::Tree;

/// The public name of an invite, derived from its token.
pub type InviteId = [u8; 16];

/// An issued invite.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Invite {
    /// The protocol's value, as it encodes it. It holds the token, so `Debug` does not show it.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite").finish_non_exhaustive()
    }
}

first_version!(Invite, Tree::Invites, InviteId);
