//! Payloads too large for a tree: immutable, named by the BLAKE3 hash of their bytes.
//!
//! A blob is put first, then a record that refers to it is committed. In between only its [`BlobHold`]
//! keeps [`Store::sweep`] from taking it for garbage.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::backend::BlobWriteError;
use crate::commit::Fault;
use crate::store::{ReadError, Store};
use crate::sync::lock;

/// Largest blob, in bytes.
pub const BLOB_BYTES_MAX: usize = 16 << 20;

/// The BLAKE3 hash of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Why a blob operation failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Above [`BLOB_BYTES_MAX`].
    #[error("a blob of {bytes} bytes is too large")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The disk is nearly full, or became full; nothing was written and the store goes on.
    #[error("no space for a blob of {bytes} bytes")]
    NoSpace {
        /// Its size.
        bytes: usize,
    },
    /// The blob could not be written; nothing was promised and the store goes on.
    #[error("cannot write a blob")]
    NotWritten(#[source] Fault),
    /// The stored bytes do not hash to their name.
    #[error("the blob {digest} is corrupt")]
    Corrupt {
        /// Its name.
        digest: Digest,
    },
    /// The store is closed or failed.
    #[error(transparent)]
    Store(#[from] ReadError),
}

/// Keeps a blob from being swept until a record that refers to it is durable.
#[must_use = "an unheld blob that no record refers to may be swept"]
#[derive(Debug)]
pub struct BlobHold {
    digest: Digest,
    holds: Arc<Holds>,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Blobs that are still there.
    pub kept: usize,
    /// Blobs that are gone.
    pub removed: usize,
}

/// How often each digest is held.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<BTreeMap<Digest, usize>>);

impl Store {
    /// Writes `bytes` durably under their digest. Blocks for two syncs: call it off the async threads.
    ///
    /// # Errors
    /// [`BlobError`]. A failed sync poisons the store; a full disk does not.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<BlobHold, BlobError> {
        let size = bytes.len();
        if size > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { bytes: size });
        }
        if !self.has_room_for(size)? {
            return Err(BlobError::NoSpace { bytes: size });
        }
        let digest = Digest::of(bytes);
        let hold = BlobHold::new(digest, self.holds());
        // Written even if it exists: only our own sync says that it is durable and whole.
        match self.with_blobs(|blobs| blobs.write(&digest, bytes))? {
            Ok(()) => Ok(hold),
            Err(BlobWriteError::Refused(error)) => Err(BlobError::NotWritten(Fault::new(error))),
            Err(BlobWriteError::Fatal(error)) => Err(ReadError::Poisoned(self.poison(error)).into()),
        }
    }

    /// The bytes of a blob, verified; `None` if there is no such blob.
    ///
    /// # Errors
    /// [`BlobError`].
    pub fn get_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let read = self.with_blobs(|blobs| blobs.read(digest, BLOB_BYTES_MAX))?;
        let Some(bytes) = self.watch(read)? else { return Ok(None) };
        if Digest::of(&bytes) == *digest {
            Ok(Some(bytes))
        } else {
            Err(BlobError::Corrupt { digest: *digest })
        }
    }

    /// Removes every blob that is not held and that `keep` does not vouch for.
    ///
    /// `keep` is asked about each blob at the moment of decision and must answer from the store as it is then,
    /// not from a set gathered before. It must not put or drop blobs.
    ///
    /// # Errors
    /// [`BlobError`]; what was removed before the error stays removed.
    pub fn sweep(&self, mut keep: impl FnMut(&Digest) -> bool) -> Result<SweepReport, BlobError> {
        let listed = self.with_blobs(|blobs| blobs.list())?;
        let mut report = SweepReport::default();
        for digest in self.watch(listed)? {
            // Holding the lock closes the gap between deciding and removing: a put waits for it.
            let holds = lock(&self.holds().0);
            if holds.contains_key(&digest) || keep(&digest) {
                report.kept += 1;
                continue;
            }
            let removed = self.with_blobs(|blobs| blobs.remove(&digest))?;
            self.watch(removed)?;
            report.removed += 1;
        }
        Ok(report)
    }
}

impl BlobHold {
    fn new(digest: Digest, holds: &Arc<Holds>) -> Self {
        *lock(&holds.0).entry(digest).or_default() += 1;
        Self { digest, holds: Arc::clone(holds) }
    }

    /// The blob's name.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Drop for BlobHold {
    fn drop(&mut self) {
        let mut holds = lock(&self.holds.0);
        if let Some(count) = holds.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                holds.remove(&self.digest);
            }
        }
    }
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from(self.0).to_hex().to_string()
    }

    /// Reads exactly what [`Digest::to_hex`] writes.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digest = Self(*blake3::Hash::from_hex(text).ok()?.as_bytes());
        (digest.to_hex() == text).then_some(digest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", self.to_hex())
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::Options;
    use crate::testing::{Memory, Operation};

    fn store() -> (Memory, Store) {
        let memory = Memory::new();
        let store = memory.open(&Options::new([1; 32], 0)).expect("opens");
        (memory, store)
    }

    #[test]
    fn a_blob_is_found_by_what_it_is_and_only_whole() {
        let (memory, store) = store();
        let hold = store.put_blob(b"payload").expect("written");
        assert_eq!(hold.digest(), Digest::of(b"payload"));
        assert_eq!(store.get_blob(&hold.digest()).expect("reads").as_deref(), Some(&b"payload"[..]));
        assert_eq!(store.get_blob(&Digest([0; 32])).expect("reads"), None);
        memory.corrupt_blob(hold.digest(), b"paylaod");
        assert!(matches!(store.get_blob(&hold.digest()), Err(BlobError::Corrupt { .. })));
        store.put_blob(b"payload").map(drop).expect("putting it again mends it");
        assert!(store.get_blob(&hold.digest()).expect("reads").is_some());
    }

    #[test]
    fn only_unheld_blobs_that_nobody_vouches_for_are_swept() {
        let (_, store) = store();
        let held = store.put_blob(b"held").expect("written");
        let kept = store.put_blob(b"kept").expect("written").digest();
        let gone = store.put_blob(b"gone").expect("written").digest();
        let report = store.sweep(|digest| *digest == kept).expect("sweeps");
        assert_eq!(report, SweepReport { kept: 2, removed: 1 });
        assert_eq!(store.get_blob(&gone).expect("reads"), None);
        drop(held);
        assert_eq!(store.sweep(|_| false).expect("sweeps"), SweepReport { kept: 0, removed: 2 });
    }

    #[test]
    fn a_blob_held_twice_needs_both_holds_dropped() {
        let (_, store) = store();
        let first = store.put_blob(b"x").expect("written");
        let second = store.put_blob(b"x").expect("written");
        drop(first);
        assert_eq!(store.sweep(|_| false).expect("sweeps").removed, 0);
        drop(second);
        assert_eq!(store.sweep(|_| false).expect("sweeps").removed, 1);
    }

    #[test]
    fn a_refused_write_leaves_the_store_alive_and_a_failed_sync_does_not() {
        let (memory, store) = store();
        memory.fail(Operation::BlobWrite, 0, ErrorKind::StorageFull);
        assert!(matches!(store.put_blob(b"x"), Err(BlobError::NotWritten(_))));
        store.put_blob(b"x").map(drop).expect("there is room again");
        memory.fail(Operation::BlobSync, 0, ErrorKind::Other);
        assert!(matches!(store.put_blob(b"y"), Err(BlobError::Store(ReadError::Poisoned(_)))));
        assert!(store.fault().is_some());
    }

    #[test]
    fn too_large_or_too_little_room_is_said_before_writing() {
        let (memory, store) = store();
        let large = vec![0; BLOB_BYTES_MAX + 1];
        assert!(matches!(store.put_blob(&large), Err(BlobError::TooLarge { .. })));
        memory.set_free_bytes(20 << 20);
        assert!(matches!(store.put_blob(&large[..8 << 20]), Err(BlobError::NoSpace { .. })));
        assert!(store.fault().is_none());
    }

    #[test]
    fn a_digest_reads_back_from_its_own_text_only() {
        let digest = Digest::of(b"x");
        assert_eq!(Digest::from_hex(&digest.to_hex()), Some(digest));
        assert_eq!(Digest::from_hex(&digest.to_hex().to_uppercase()), None);
        assert_eq!(Digest::from_hex("1.tmp"), None);
    }
}
