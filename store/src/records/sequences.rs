//! `sequences`: the highest `(epoch, seq)` accepted from each node. They outlive the adverts, so that an
//! expired advert cannot be replayed.

use minicbor::{Decode, Encode};

use super::{NodeId, first_version};
use crate::record::Table;
use crate::store::ReadError;
use crate::{Batch, Tree};

/// An advert's place in its node's history; later is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Sequence {
    /// Grows when the node lost its counter.
    #[n(0)]
    pub epoch: u64,
    /// Grows with every advert of an epoch.
    #[n(1)]
    pub seq: u64,
}

first_version!(Sequence, Tree::Sequences, NodeId);

impl Table<'_, Sequence> {
    /// Adds to `batch` that `node` has reached `new`, and returns whether that is progress; if it is not,
    /// the batch is left alone and must not be committed as an acceptance.
    ///
    /// Should somebody else advance the same node first, the commit ends in [`crate::CommitError::Conflict`].
    ///
    /// # Errors
    /// [`ReadError`] if the current sequence cannot be read: then nothing may be accepted.
    pub fn advance(&self, batch: &mut Batch, node: &NodeId, new: Sequence) -> Result<bool, ReadError> {
        let current = self.get(node)?;
        let progress = current.is_none_or(|current| new > current);
        if progress {
            batch.expect(node, current.as_ref()).put(node, &new);
        }
        Ok(progress)
    }
}
