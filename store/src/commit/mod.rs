//! Group commit: many writers, one committer, one flush for all who wait.

pub(crate) mod batch;
pub(crate) mod committer;
pub(crate) mod health;
pub(crate) mod queue;
pub(crate) mod ticket;

#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::Tree;
use crate::backend::BackendError;

/// The first I/O error of a store, shared by everyone who hears of it.
#[derive(Clone, Debug)]
pub struct Fault(Arc<BackendError>);

impl Fault {
    pub(crate) fn new(error: BackendError) -> Self {
        Self(Arc::new(error))
    }

    /// The error itself.
    pub fn cause(&self) -> &BackendError {
        &self.0
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// Why a batch is not, or not known to be, durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The queue is full. Nothing was written; trying again later is right.
    #[error("the store is busy: its commit queue is full")]
    Busy,
    /// The store was closed before the batch was written.
    #[error("the store is closed")]
    Closed,
    /// An I/O error ended the store's life, now or earlier. Whether this batch became durable is unknown
    /// until the store is opened again.
    #[error("the store failed and must be reopened")]
    Poisoned(#[source] Fault),
    /// The disk is nearly full. Nothing was written, and the store goes on once there is room.
    #[error("the disk is nearly full: {free_bytes} bytes free, {reserve_bytes} are kept back")]
    NoSpace {
        /// What the device has left.
        free_bytes: u64,
        /// Below this the store takes no writes.
        reserve_bytes: u64,
    },
    /// A key did not hold what the batch expected of it. Nothing of the batch was written.
    #[error("a key in {tree} did not hold the expected value")]
    Conflict {
        /// Where.
        tree: Tree,
        /// Which key.
        key: Vec<u8>,
    },
    /// A key is empty or too long.
    #[error("a key for {tree} has {bytes} bytes")]
    KeyLength {
        /// Where it should have gone.
        tree: Tree,
        /// Its length.
        bytes: usize,
    },
    /// A value is too large for a tree; it belongs into a blob.
    #[error("a value for {tree} has {bytes} bytes")]
    ValueTooLarge {
        /// Where it should have gone.
        tree: Tree,
        /// Its length.
        bytes: usize,
    },
    /// The batch as a whole is too large.
    #[error("a batch of {operations} operations and {bytes} bytes is too large")]
    BatchTooLarge {
        /// Puts, deletes and expectations in it.
        operations: usize,
        /// Bytes of keys and values in it.
        bytes: usize,
    },
}
