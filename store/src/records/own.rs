//! `own`: this node's own `(epoch, seq)`. Durable before an advert that bears it is published, or peers
//! would refuse the node after a crash as a replay of itself.

use minicbor::{Decode, Encode};

use super::{UpdateError, first_version};
use crate::record::Table;
use crate::store::ReadError;
use crate::{Batch, Ticket, Tree};

/// The counter that the next advert must exceed; under the key `self`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Own {
    /// Grows when the counter may have been lost.
    #[n(0)]
    pub epoch: u64,
    /// Grows with every advert of an epoch.
    #[n(1)]
    pub seq: u64,
}

first_version!(Own, Tree::Own, String);

impl Own {
    /// The only key in the tree.
    pub const KEY: &'static str = "self";
}

impl Table<'_, Own> {
    /// The last counter taken; zero in a new store.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn current(&self) -> Result<Own, ReadError> {
        Ok(self.get(&Own::KEY.to_owned())?.unwrap_or_default())
    }

    /// Takes the next counter of the current epoch. It may be published once the ticket resolves to `Ok`.
    ///
    /// Of two callers that race, one ticket resolves to [`crate::CommitError::Conflict`].
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn next(&self) -> Result<(Own, Ticket), UpdateError> {
        self.update(|current| Some(Own { seq: current.seq.checked_add(1)?, ..current }))
    }

    /// Starts a new epoch, of at least `epoch_min`: after a rollback, or when a peer has seen a later epoch
    /// of this node than the node remembers.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn start_epoch(&self, epoch_min: u64) -> Result<(Own, Ticket), UpdateError> {
        self.update(|current| Some(Own { epoch: current.epoch.checked_add(1)?.max(epoch_min), seq: 0 }))
    }

    fn update(&self, change: impl FnOnce(Own) -> Option<Own>) -> Result<(Own, Ticket), UpdateError> {
        let key = Own::KEY.to_owned();
        let stored = self.get(&key)?;
        let new = change(stored.unwrap_or_default()).ok_or(UpdateError::Exhausted)?;
        let mut batch = Batch::new();
        batch.expect(&key, stored.as_ref()).put(&key, &new);
        Ok((new, self.store().commit(batch)?))
    }
}
