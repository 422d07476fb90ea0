//! The handle.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use crate::backend::{Backend, BackendError, BlobBackend, Entry, KeyRange};
use crate::blobs::Holds;
use crate::commit::batch::Batch;
use crate::commit::committer::Committer;
use crate::commit::health::Health;
use crate::commit::queue::{Pending, PushError, Queue, WhenFull};
use crate::commit::ticket::{Ticket, ticket};
use crate::commit::{CommitError, Fault};
use crate::disk::lock::DirLock;
use crate::record::RecordError;
use crate::sync::lock;
use crate::{Tree, record};

/// Most records that one [`Store::scan`] returns.
pub const SCAN_RECORDS_MAX: usize = 4096;

/// An open store. Clones are handles to the same store; when the last one goes, it closes.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// An I/O error ended the store's life, now or earlier.
    #[error("the store failed and must be reopened")]
    Poisoned(#[source] Fault),
    /// The record is there and cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Everything below the handle; `None` once closed.
struct Files {
    backend: Arc<dyn Backend>,
    blobs: Arc<dyn BlobBackend>,
    /// Declared last, so dropped last: the directory is free only once the database is closed.
    _lock: Option<DirLock>,
}

struct Inner {
    files: RwLock<Option<Files>>,
    queue: Arc<Queue>,
    health: Arc<Health>,
    holds: Arc<Holds>,
    reserve_bytes: u64,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Starts the committer over backends that are ready.
    pub(crate) fn start(
        backend: Arc<dyn Backend>,
        blobs: Arc<dyn BlobBackend>,
        dir_lock: Option<DirLock>,
        reserve_bytes: u64,
    ) -> io::Result<Self> {
        let (queue, health) = (Arc::new(Queue::default()), Arc::new(Health::default()));
        let committer = Committer {
            queue: Arc::clone(&queue),
            backend: Arc::clone(&backend),
            health: Arc::clone(&health),
            reserve_bytes,
        };
        let thread = thread::Builder::new().name("comity-store".to_owned()).spawn(move || committer.run())?;
        Ok(Self(Arc::new(Inner {
            files: RwLock::new(Some(Files { backend, blobs, _lock: dir_lock })),
            queue,
            health,
            holds: Arc::default(),
            reserve_bytes,
            committer: Mutex::new(Some(thread)),
        })))
    }

    /// Hands over a batch and returns at once. The queue is bounded by
    /// [`QUEUE_BATCHES_MAX`](crate::QUEUE_BATCHES_MAX) and [`QUEUE_BYTES_MAX`](crate::QUEUE_BYTES_MAX);
    /// when it is full the batch is refused.
    ///
    /// Batches of one caller are applied in the order of their commits.
    ///
    /// # Errors
    /// [`CommitError::Busy`], a broken limit, or the state of the store; nothing was written then. Whether an
    /// accepted batch is written is the ticket's answer.
    pub fn commit(&self, batch: Batch) -> Result<Ticket, CommitError> {
        self.submit(batch, WhenFull::Refuse)
    }

    /// As [`Store::commit`], but waits while the queue is full: for threads, not for tasks.
    ///
    /// # Errors
    /// As [`Store::commit`], but never [`CommitError::Busy`].
    pub fn commit_blocking(&self, batch: Batch) -> Result<Ticket, CommitError> {
        self.submit(batch, WhenFull::Wait)
    }

    fn submit(&self, batch: Batch, when_full: WhenFull) -> Result<Ticket, CommitError> {
        batch.check()?;
        self.0.health.check().map_err(CommitError::Poisoned)?;
        let (promise, ticket) = ticket();
        match self.0.queue.push(Pending { batch, promise }, when_full) {
            Ok(()) => Ok(ticket),
            Err(PushError::Full) => Err(CommitError::Busy),
            Err(PushError::Closed) => {
                Err(self.0.health.check().map_or_else(CommitError::Poisoned, |()| CommitError::Closed))
            }
        }
    }

    /// The raw value under a key. Typed access: [`Store::adverts`] and its like.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(|backend| backend.get(tree, key))
    }

    /// At most `limit` (and [`SCAN_RECORDS_MAX`]) raw entries of a range, in key order.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn scan(&self, tree: Tree, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        self.read(|backend| backend.scan(tree, range, limit.min(SCAN_RECORDS_MAX)))
    }

    /// The last raw entry of a range.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn last(&self, tree: Tree, range: &KeyRange) -> Result<Option<Entry>, ReadError> {
        self.read(|backend| backend.last(tree, range))
    }

    /// Typed access to any record type; the named accessors are made of this.
    pub fn table<R: record::Record>(&self) -> record::Table<'_, R> {
        record::Table::new(self)
    }

    /// Refuses new batches, makes the accepted ones durable, and lets go of the directory. Blocks meanwhile.
    ///
    /// Other handles find the store closed. Closing twice is fine.
    ///
    /// # Errors
    /// The fault, if the store was poisoned before or while it closed.
    pub fn close(&self) -> Result<(), Fault> {
        self.0.close();
        self.0.health.check()
    }

    /// The fault that poisoned the store, if one did.
    pub fn fault(&self) -> Option<Fault> {
        self.0.health.check().err()
    }

    pub(crate) fn watch<T>(&self, result: Result<T, BackendError>) -> Result<T, ReadError> {
        self.0.health.watch(result).map_err(ReadError::Poisoned)
    }

    pub(crate) fn poison(&self, error: BackendError) -> Fault {
        self.0.health.poison(error)
    }

    pub(crate) fn holds(&self) -> &Arc<Holds> {
        &self.0.holds
    }

    /// Whether `bytes` fit without touching the reserve.
    pub(crate) fn has_room_for(&self, bytes: usize) -> Result<bool, ReadError> {
        let free = self.read(|backend| backend.free_bytes())?;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Ok(free >= self.0.reserve_bytes.saturating_add(bytes))
    }

    pub(crate) fn with_blobs<T>(&self, call: impl FnOnce(&dyn BlobBackend) -> T) -> Result<T, ReadError> {
        self.with_files(|files| call(&*files.blobs))
    }

    fn read<T>(&self, call: impl FnOnce(&dyn Backend) -> Result<T, BackendError>) -> Result<T, ReadError> {
        let result = self.with_files(|files| call(&*files.backend))?;
        self.watch(result)
    }

    fn with_files<T>(&self, call: impl FnOnce(&Files) -> T) -> Result<T, ReadError> {
        self.0.health.check().map_err(ReadError::Poisoned)?;
        let files = self.0.files.read().unwrap_or_else(PoisonError::into_inner);
        files.as_ref().map(call).ok_or(ReadError::Closed)
    }
}

impl Inner {
    fn close(&self) {
        self.queue.close();
        let committer = lock(&self.committer).take();
        // A waker may drop the last handle on the committer's own thread, which cannot wait for itself.
        let committer = committer.filter(|committer| committer.thread().id() != thread::current().id());
        if committer.is_some_and(|committer| committer.join().is_err()) {
            tracing::error!("the committer panicked");
        }
        drop(self.files.write().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("fault", &self.fault()).finish_non_exhaustive()
    }
}
