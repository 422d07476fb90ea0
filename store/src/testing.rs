//! A double for the database and the file system, for tests and for the simulator.
//!
//! [`Memory`] keeps apart what was applied and what was synced. A test scripts its failures, holds its syncs,
//! fills its disk and crashes it; [`Memory::crash`] yields what a new process would find.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::backend::{Backend, BackendError, BlobBackend, BlobWriteError, Entry, KeyRange, WriteSet};
use crate::schema::{self, SchemaError};
use crate::sync::{lock, wait};
use crate::{Digest, Options, Store, Tree};

/// Most events that are remembered; older ones are dropped.
pub const EVENTS_MAX: usize = 65_536;

/// Free bytes of a new [`Memory`].
pub const FREE_BYTES: u64 = 1 << 40;

/// A backend in memory that fails on demand. Clones share one state.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Shared>);

/// Something that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Any read of a tree.
    Read,
    /// Applying a group. A failed one leaves nothing applied.
    Apply,
    /// Syncing. After a failed one each unsynced group may or may not survive a crash.
    Sync,
    /// Writing a blob, before its sync.
    BlobWrite,
    /// Syncing a blob.
    BlobSync,
    /// Any other blob operation.
    BlobRead,
}

/// Something that happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A group was applied.
    Applied(WriteSet),
    /// A sync began.
    SyncBegan,
    /// A sync ended well: everything applied before is durable.
    Synced,
    /// An operation failed as scripted.
    Failed(Operation),
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    applied: BTreeMap<(Tree, Vec<u8>), Vec<u8>>,
    durable: BTreeMap<(Tree, Vec<u8>), Vec<u8>>,
    unsynced: Vec<WriteSet>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    failures: BTreeMap<Operation, Failure>,
    free_bytes: u64,
    syncs_held: bool,
    syncing: bool,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    successes_first: u64,
    kind: io::ErrorKind,
}

impl Memory {
    /// An empty one that works.
    pub fn new() -> Self {
        let memory = Self(Arc::default());
        memory.state().free_bytes = FREE_BYTES;
        memory
    }

    /// Opens a store over it, as [`Store::open`] does over a directory.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub fn open(&self, options: &Options) -> Result<Store, SchemaError> {
        schema::ensure(self, options.node, options.now_ms)?;
        let (backend, blobs) = (Arc::new(self.clone()), Arc::new(self.clone()));
        let store = Store::start(backend, blobs, None, options.reserve_bytes);
        store.map_err(|error| BackendError::io("start the committer")(error).into())
    }

    /// Makes `operation` fail once, after `successes_first` more successes.
    pub fn fail(&self, operation: Operation, successes_first: u64, kind: io::ErrorKind) {
        self.state().failures.insert(operation, Failure { successes_first, kind });
    }

    /// Sets the free space of the device.
    pub fn set_free_bytes(&self, free_bytes: u64) {
        self.state().free_bytes = free_bytes;
    }

    /// Makes every sync wait until [`Memory::release_syncs`].
    pub fn hold_syncs(&self) {
        self.state().syncs_held = true;
    }

    /// Lets held syncs go on.
    pub fn release_syncs(&self) {
        self.state().syncs_held = false;
        self.0.changed.notify_all();
    }

    /// Blocks until a sync is in progress (held, or about to be).
    pub fn wait_until_syncing(&self) {
        let mut state = self.state();
        while !state.syncing {
            state = wait(&self.0.changed, state);
        }
    }

    /// What happened so far, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.state().events.iter().cloned().collect()
    }

    /// What a new process finds after a crash: everything synced and, because a device may have written more
    /// than it was told to, the first `survivors` of the groups that were not. The original goes on by itself.
    pub fn crash(&self, survivors: usize) -> Memory {
        let state = self.state();
        let mut durable = state.durable.clone();
        state.unsynced.iter().take(survivors).for_each(|writes| apply_to(&mut durable, writes));
        let after = Memory::new();
        *after.state() = State {
            applied: durable.clone(),
            durable,
            blobs: state.blobs.clone(),
            free_bytes: state.free_bytes,
            ..State::default()
        };
        drop(state);
        after
    }

    /// How many groups are applied and not synced.
    pub fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    /// Overwrites a stored blob behind the store's back.
    pub fn corrupt_blob(&self, digest: Digest, bytes: &[u8]) {
        self.state().blobs.insert(digest, bytes.to_vec());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn check(&mut self, operation: Operation) -> Result<(), BackendError> {
        let Some(failure) = self.failures.get_mut(&operation) else { return Ok(()) };
        if failure.successes_first > 0 {
            failure.successes_first -= 1;
            return Ok(());
        }
        let kind = failure.kind;
        self.failures.remove(&operation);
        self.note(Event::Failed(operation));
        Err(BackendError::Io { operation: "do as scripted", source: kind.into() })
    }

    fn note(&mut self, event: Event) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn range(&self, tree: Tree, range: &KeyRange) -> impl DoubleEndedIterator<Item = Entry> {
        use std::ops::Bound;
        let bounds = range.bounds().map(|(from, to)| {
            let end = |bound: Bound<&[u8]>| bound.map(|key| (tree, key.to_vec()));
            let from = if from == Bound::Unbounded { Bound::Included((tree, Vec::new())) } else { end(from) };
            (from, end(to))
        });
        let entries = bounds.map(|bounds| self.applied.range(bounds)).into_iter().flatten();
        let entries = entries.filter(move |((of, _), _)| *of == tree);
        entries.map(|((_, key), value)| (key.clone(), value.clone()))
    }
}

impl Backend for Memory {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let mut state = self.state();
        state.check(Operation::Read)?;
        Ok(state.applied.get(&(tree, key.to_vec())).cloned())
    }

    fn scan(&self, tree: Tree, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, BackendError> {
        let mut state = self.state();
        state.check(Operation::Read)?;
        Ok(state.range(tree, range).take(limit).collect())
    }

    fn last(&self, tree: Tree, range: &KeyRange) -> Result<Option<Entry>, BackendError> {
        let mut state = self.state();
        state.check(Operation::Read)?;
        Ok(state.range(tree, range).next_back())
    }

    fn apply(&self, writes: &WriteSet) -> Result<(), BackendError> {
        let mut state = self.state();
        state.check(Operation::Apply)?;
        apply_to(&mut state.applied, writes);
        state.unsynced.push(writes.clone());
        state.note(Event::Applied(writes.clone()));
        Ok(())
    }

    fn sync(&self) -> Result<(), BackendError> {
        let mut state = self.state();
        state.note(Event::SyncBegan);
        state.syncing = true;
        self.0.changed.notify_all();
        while state.syncs_held {
            state = wait(&self.0.changed, state);
        }
        state.syncing = false;
        state.check(Operation::Sync)?;
        let State { durable, unsynced, .. } = &mut *state;
        unsynced.drain(..).for_each(|writes| apply_to(durable, &writes));
        state.note(Event::Synced);
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, BackendError> {
        Ok(self.state().free_bytes)
    }
}

impl BlobBackend for Memory {
    fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BlobWriteError> {
        let mut state = self.state();
        state.check(Operation::BlobWrite).map_err(BlobWriteError::Refused)?;
        state.check(Operation::BlobSync)?;
        state.blobs.insert(*digest, bytes.to_vec());
        Ok(())
    }

    fn read(&self, digest: &Digest, bytes_max: usize) -> Result<Option<Vec<u8>>, BackendError> {
        let mut state = self.state();
        state.check(Operation::BlobRead)?;
        let bytes = state.blobs.get(digest);
        Ok(bytes.map(|bytes| bytes[..bytes.len().min(bytes_max.saturating_add(1))].to_vec()))
    }

    fn remove(&self, digest: &Digest) -> Result<(), BackendError> {
        let mut state = self.state();
        state.check(Operation::BlobRead)?;
        state.blobs.remove(digest);
        Ok(())
    }

    fn list(&self) -> Result<Vec<Digest>, BackendError> {
        let mut state = self.state();
        state.check(Operation::BlobRead)?;
        Ok(state.blobs.keys().copied().collect())
    }
}

fn apply_to(map: &mut BTreeMap<(Tree, Vec<u8>), Vec<u8>>, writes: &WriteSet) {
    for (slot, value) in writes {
        match value {
            Some(value) => map.insert(slot.clone(), value.clone()),
            None => map.remove(slot),
        };
    }
}
