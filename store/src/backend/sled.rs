//! sled 0.34.7 made power-safe.
//!
//! As it comes, sled's flush on Linux ends in `sync_file_range`, which flushes neither metadata nor the
//! device's cache. [`SledBackend::sync`] therefore flushes sled and then calls `fdatasync` on the data
//! file through a descriptor of its own. The background flusher is off: nothing else writes.

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sled::transaction::{ConflictableTransactionError, TransactionError, Transactional};

use super::{Backend, BackendError, Entry, KeyRange, WriteSet};
use crate::disk::head::Head;
use crate::disk::{free_bytes, layout};
use crate::sync::lock;
use crate::{KEY_BYTES_MAX, Tree, VALUE_BYTES_MAX};

/// Size of sled's log segments. Never change it: sled refuses a database made with another.
///
/// sled stores whatever exceeds a quarter of a segment in a file of its own, and never syncs that file: after a
/// power cut the database would be corrupt. What it writes as one piece is a leaf of up to 20 entries (it splits
/// above 16; a merge adds at most 3) or an index node of up to 257 keys. With our bounds that is 340 KB and
/// 140 KB; the default segment of 512 KiB allows 128 KiB, this one 512 KiB.
const SEGMENT_BYTES: usize = 2 << 20;
const _: () = {
    let leaf = 20 * (VALUE_BYTES_MAX + KEY_BYTES_MAX + ENTRY_OVERHEAD_BYTES);
    let index = 257 * (KEY_BYTES_MAX + ENTRY_OVERHEAD_BYTES);
    assert!(leaf < SEGMENT_BYTES / 4 && index < SEGMENT_BYTES / 4);
};
/// Lengths, pointers and the node's bounds, generously.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// sled's own tree holds one key: the number of the last group, in the group itself.
const GROUP_NUMBER_KEY: &[u8] = b"group";

/// How long a just-closed database in this process may keep its file locked: sled's last reference
/// dies on an epoch collector's schedule, not on ours.
const REOPEN_ATTEMPTS_MAX: u32 = 250;
const REOPEN_PAUSE: Duration = Duration::from_millis(20);

/// A sled database whose syncs survive a power cut.
pub(crate) struct SledBackend {
    db: sled::Db,
    trees: Vec<sled::Tree>,
    data: File,
    dir: PathBuf,
    group: AtomicU64,
    head: Mutex<Option<Head>>,
}

impl SledBackend {
    /// Opens or creates the database in `dir`, which must exist and be locked by this process.
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, BackendError> {
        engine(|| Self::open_unguarded(dir, cache_bytes))?
    }

    fn open_unguarded(dir: &Path, cache_bytes: u64) -> Result<Self, BackendError> {
        let db = open_when_unlocked(dir, cache_bytes)?;
        let trees = Tree::ALL.iter().map(|tree| db.open_tree(tree.name())).collect::<Result<_, _>>();
        let group = read_group_number(&db)?;
        let data = File::open(dir.join(layout::DATA)).map_err(BackendError::io("open the data file"))?;
        Ok(Self {
            trees: trees.map_err(fault)?,
            db,
            data,
            dir: dir.to_owned(),
            group: AtomicU64::new(group),
            head: Mutex::new(None),
        })
    }

    /// The number of the last group in the database.
    pub(crate) fn group(&self) -> u64 {
        self.group.load(Ordering::Acquire)
    }

    /// From now on each sync records the last durable group in `head`.
    pub(crate) fn keep_head(&self, head: Head) {
        *lock(&self.head) = Some(head);
    }

    fn transact(&self, writes: &WriteSet, group: u64) -> Result<(), BackendError> {
        let (trees, slots) = self.touched(writes);
        trees
            .as_slice()
            .transaction(|views| {
                // May run more than once: it does nothing but stage writes.
                views[0].insert(GROUP_NUMBER_KEY, &group.to_be_bytes())?;
                for ((tree, key), value) in writes {
                    let view = &views[slots[tree.index()]];
                    match value {
                        Some(value) => view.insert(key.as_slice(), value.as_slice())?,
                        None => view.remove(key.as_slice())?,
                    };
                }
                Ok::<(), ConflictableTransactionError<()>>(())
            })
            .map_err(|error| match error {
                TransactionError::Storage(error) => fault(error),
                TransactionError::Abort(()) => BackendError::Engine { detail: "aborted".to_owned() },
            })
    }

    /// The trees that `writes` touches, sled's own first, and for each [`Tree`] its place among them.
    fn touched(&self, writes: &WriteSet) -> (Vec<sled::Tree>, [usize; Tree::ALL.len()]) {
        let mut trees = vec![sled::Tree::clone(&self.db)];
        let mut slots = [0; Tree::ALL.len()];
        for (tree, _) in writes.keys() {
            let slot = &mut slots[tree.index()];
            if *slot == 0 {
                *slot = trees.len();
                trees.push(self.trees[tree.index()].clone());
            }
        }
        (trees, slots)
    }
}

impl Backend for SledBackend {
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let value = engine(|| self.trees[tree.index()].get(key))?;
        Ok(value.map_err(fault)?.map(|bytes| bytes.to_vec()))
    }

    fn scan(&self, tree: Tree, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, BackendError> {
        let Some((from, to)) = range.bounds() else { return Ok(Vec::new()) };
        let entries = engine(|| {
            let entries = self.trees[tree.index()].range::<&[u8], _>((from, to)).take(limit);
            entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })?;
        let entries: Result<Vec<Entry>, sled::Error> = entries;
        entries.map_err(fault)
    }

    fn last(&self, tree: Tree, range: &KeyRange) -> Result<Option<Entry>, BackendError> {
        let Some((from, to)) = range.bounds() else { return Ok(None) };
        let entry = engine(|| self.trees[tree.index()].range::<&[u8], _>((from, to)).next_back())?;
        Ok(entry.transpose().map_err(fault)?.map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    fn apply(&self, writes: &WriteSet) -> Result<(), BackendError> {
        let group = self.group() + 1;
        engine(|| self.transact(writes, group))??;
        self.group.store(group, Ordering::Release);
        Ok(())
    }

    fn sync(&self) -> Result<(), BackendError> {
        engine(|| self.db.flush())?.map_err(fault)?;
        self.data.sync_data().map_err(BackendError::io("sync the data file"))?;
        match &*lock(&self.head) {
            // Only now: the head must never promise more than the database holds.
            Some(head) => head.record(self.group()).map_err(BackendError::io("write the head file")),
            None => Ok(()),
        }
    }

    fn free_bytes(&self) -> Result<u64, BackendError> {
        free_bytes(&self.dir).map_err(BackendError::io("ask for free space"))
    }
}

fn open_when_unlocked(dir: &Path, cache_bytes: u64) -> Result<sled::Db, BackendError> {
    let config = sled::Config::new().path(dir).cache_capacity(cache_bytes).flush_every_ms(None);
    let config = config.segment_size(SEGMENT_BYTES);
    let mut attempt = 1;
    loop {
        match config.open() {
            Err(sled::Error::Io(error)) if is_lock_failure(&error) && attempt < REOPEN_ATTEMPTS_MAX => {
                attempt += 1;
                std::thread::sleep(REOPEN_PAUSE);
            }
            result => return result.map_err(fault),
        }
    }
}

/// sled reports a lock that is held in words only.
fn is_lock_failure(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn read_group_number(db: &sled::Db) -> Result<u64, BackendError> {
    let Some(bytes) = db.get(GROUP_NUMBER_KEY).map_err(fault)? else { return Ok(0) };
    let bytes = <[u8; 8]>::try_from(bytes.as_ref())
        .map_err(|_| BackendError::Corrupt { detail: "the group number is not eight bytes".to_owned() })?;
    Ok(u64::from_be_bytes(bytes))
}

/// Runs a call into sled; a panic in it (sled asserts on bytes that it does not expect) is an error.
fn engine<T>(call: impl FnOnce() -> T) -> Result<T, BackendError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panic");
        BackendError::Corrupt { detail: format!("sled panicked: {text}") }
    })
}

fn fault(error: sled::Error) -> BackendError {
    match error {
        // sled reads what its log points to; if that is not there, the bytes are wrong, not the device.
        sled::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            BackendError::Corrupt { detail: source.to_string() }
        }
        sled::Error::Io(source) => BackendError::Io { operation: "use the database", source },
        error @ sled::Error::Corruption { .. } => BackendError::Corrupt { detail: error.to_string() },
        error => BackendError::Engine { detail: error.to_string() },
    }
}
