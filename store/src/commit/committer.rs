//! The one thread that writes.

use std::sync::Arc;

use super::CommitError;
use super::batch::{Batch, Operation};
use super::health::Health;
use super::queue::{Pending, Queue};
use super::ticket::Promise;
use crate::backend::{Backend, BackendError, WriteSet};

/// Most batches in one group.
pub const GROUP_BATCHES_MAX: usize = 512;
/// Most bytes in one group, unless a single batch is larger.
pub const GROUP_BYTES_MAX: usize = 1 << 20;

/// Takes groups off the queue and makes each durable before it answers anyone in it.
pub(crate) struct Committer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) health: Arc<Health>,
    /// No writes while the device has less than this.
    pub(crate) reserve_bytes: u64,
}

impl Committer {
    /// Runs until the queue is closed and drained.
    pub(crate) fn run(self) {
        while let Some(group) = self.queue.next_group() {
            self.commit(group);
        }
    }

    fn commit(&self, group: Vec<Pending>) {
        let mut writes = WriteSet::new();
        let mut promises = Vec::with_capacity(group.len());
        let room = self.check_room();
        for Pending { batch, promise } in group {
            match room.clone().and_then(|()| self.stage(batch, &mut writes)) {
                Ok(()) => promises.push(promise),
                Err(error) => promise.keep(Err(error)),
            }
        }
        let outcome = self.make_durable(&writes);
        promises.into_iter().for_each(|promise| promise.keep(outcome.clone()));
    }

    fn check_room(&self) -> Result<(), CommitError> {
        self.health.check().map_err(CommitError::Poisoned)?;
        let free_bytes = self.watch(self.backend.free_bytes())?;
        let reserve_bytes = self.reserve_bytes;
        if free_bytes < reserve_bytes {
            Err(CommitError::NoSpace { free_bytes, reserve_bytes })
        } else {
            Ok(())
        }
    }

    /// Adds a batch to the group if its expectations hold after those before it.
    fn stage(&self, batch: Batch, writes: &mut WriteSet) -> Result<(), CommitError> {
        for Operation { tree, key, value } in batch.expectations {
            let slot = (tree, key);
            let current = match writes.get(&slot) {
                Some(staged) => staged.clone(),
                None => self.watch(self.backend.get(tree, &slot.1))?,
            };
            if current != value {
                return Err(CommitError::Conflict { tree, key: slot.1 });
            }
        }
        writes.extend(batch.writes.into_iter().map(|write| ((write.tree, write.key), write.value)));
        Ok(())
    }

    /// Apply, sync, and nothing in between; the promises are kept by the caller, after.
    fn make_durable(&self, writes: &WriteSet) -> Result<(), CommitError> {
        self.health.check().map_err(CommitError::Poisoned)?;
        if writes.is_empty() {
            return Ok(()); // Only barriers: every earlier group was synced before its turn ended.
        }
        self.watch(self.backend.apply(writes))?;
        self.watch(self.backend.sync())
    }

    fn watch<T>(&self, result: Result<T, BackendError>) -> Result<T, CommitError> {
        self.health.watch(result).map_err(CommitError::Poisoned)
    }
}

impl Drop for Committer {
    /// Also on a panic: nobody may wait for a committer that is gone.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.health.poison(BackendError::Engine { detail: "the committer panicked".to_owned() });
        }
        self.queue.close();
        while let Some(group) = self.queue.next_group() {
            let outcome = self.health.check().map_err(CommitError::Poisoned).and(Err(CommitError::Closed));
            group.into_iter().for_each(|pending| Promise::keep(pending.promise, outcome.clone()));
        }
    }
}
