//! The records of each tree. Signed objects are kept as the bytes that were received; what is in them is
//! the protocol's business.
//!
//! Every type here is the newest version of its record. To change one: keep the old type as `…V1`, make the
//! new one its successor ([`crate::record::Versioned`]), and add the old bytes to `tests/formats.rs`.

mod adverts;
mod approvals;
mod invites;
mod issued;
mod meta;
mod own;
mod pins;
mod roots;
mod sequences;

pub use adverts::Advert;
pub use approvals::{Approval, ApprovalKey};
pub use invites::{Invite, InviteId};
pub use issued::Issued;
pub use meta::Meta;
pub use own::Own;
pub use pins::{Pin, PinSource};
pub use roots::SignedRoot;
pub use sequences::Sequence;

#[cfg(test)]
mod tests;

use crate::record::Table;
use crate::store::ReadError;
use crate::{CommitError, Store};

/// A node's ed25519 public key.
pub type NodeId = [u8; 32];
/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// Why a read-then-write did not start.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The current record could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The new one was not taken.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The counter is at its end.
    #[error("a counter is exhausted")]
    Exhausted,
}

/// One accessor for each tree.
impl Store {
    /// The store's own record.
    pub fn meta(&self) -> Table<'_, Meta> {
        Table::new(self)
    }

    /// Adverts received.
    pub fn adverts(&self) -> Table<'_, Advert> {
        Table::new(self)
    }

    /// Highest sequence accepted from each node.
    pub fn sequences(&self) -> Table<'_, Sequence> {
        Table::new(self)
    }

    /// This node's own counters.
    pub fn own(&self) -> Table<'_, Own> {
        Table::new(self)
    }

    /// Pinned orgs.
    pub fn pins(&self) -> Table<'_, Pin> {
        Table::new(self)
    }

    /// Signed org roots.
    pub fn roots(&self) -> Table<'_, SignedRoot> {
        Table::new(self)
    }

    /// The operator's approvals.
    pub fn approvals(&self) -> Table<'_, Approval> {
        Table::new(self)
    }

    /// One-time invites.
    pub fn invites(&self) -> Table<'_, Invite> {
        Table::new(self)
    }

    /// Membership certificates issued by this node.
    pub fn issued(&self) -> Table<'_, Issued> {
        Table::new(self)
    }
}

/// Makes a type version 1 of a record, and the record of a tree.
macro_rules! first_version {
    ($record:ty, $tree:expr, $key:ty) => {
        impl $crate::record::Versioned for $record {
            const VERSION: u32 = 1;
            type Previous = $crate::record::First;

            fn upgrade(previous: $crate::record::First) -> Self {
                match previous {}
            }
        }

        impl $crate::record::Record for $record {
            const TREE: $crate::Tree = $tree;
            type Key = $key;
        }
    };
}
pub(crate) use first_version;
