//! The seam in front of the database.
//!
//! Everything above it (group commit, typed records, migrations) works against [`Backend`] and
//! [`BlobBackend`]; sled and the file system implement them for real, and [`crate::testing::Memory`]
//! implements them with faults on demand. Leaving sled one day means writing one more implementation.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;

use crate::{Digest, Tree};

pub(crate) mod sled;

/// The net effect of a group: at most one put (`Some`) or delete (`None`) for each key.
pub type WriteSet = BTreeMap<(Tree, Vec<u8>), Option<Vec<u8>>>;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// An ordered key-value store with many trees, atomic groups and an explicit durability point.
///
/// `apply` and `sync` are only ever called by one thread at a time; reads come from any thread.
pub trait Backend: Send + Sync + 'static {
    /// The value under `key`, applied groups included, synced or not.
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError>;

    /// At most `limit` entries of `range` in key order.
    fn scan(&self, tree: Tree, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, BackendError>;

    /// The last entry of `range` in key order.
    fn last(&self, tree: Tree, range: &KeyRange) -> Result<Option<Entry>, BackendError>;

    /// Applies all of `writes` as one atom: after a crash all of it is there or none of it.
    fn apply(&self, writes: &WriteSet) -> Result<(), BackendError>;

    /// Returns once everything applied so far would survive a power cut.
    ///
    /// After an error nobody knows what is durable; the caller must never try again.
    fn sync(&self) -> Result<(), BackendError>;

    /// Bytes that can still be written to the device.
    fn free_bytes(&self) -> Result<u64, BackendError>;
}

/// Content-addressed payloads.
pub trait BlobBackend: Send + Sync + 'static {
    /// Writes `bytes` under `digest`; durable on return. Writing an existing blob again is allowed.
    fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BlobWriteError>;

    /// The bytes under `digest`, unverified; at most `bytes_max` plus one are read, so that a caller sees
    /// that there were too many.
    fn read(&self, digest: &Digest, bytes_max: usize) -> Result<Option<Vec<u8>>, BackendError>;

    /// Removes a blob; a missing one is not an error.
    fn remove(&self, digest: &Digest) -> Result<(), BackendError>;

    /// Every digest that is held.
    fn list(&self) -> Result<Vec<Digest>, BackendError>;
}

/// What went wrong below the seam. Every one of these poisons the store.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The operating system refused or failed.
    #[error("cannot {operation}")]
    Io {
        /// What was being done, as an infinitive phrase.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The database says that its own bytes are wrong.
    #[error("the database is corrupt: {detail}")]
    Corrupt {
        /// In the engine's words.
        detail: String,
    },
    /// The engine gave up in a way that is neither of the above (a bug in it, or a panic).
    #[error("the storage engine failed: {detail}")]
    Engine {
        /// In the engine's words.
        detail: String,
    },
}

impl BackendError {
    /// For `map_err`: names the operation.
    pub(crate) fn io(operation: &'static str) -> impl Fn(io::Error) -> BackendError {
        move |source| BackendError::Io { operation, source }
    }
}

/// A failed blob write, by whether the device can still be believed.
#[derive(Debug, thiserror::Error)]
pub enum BlobWriteError {
    /// Nothing was promised and nothing is left behind (a full disk while writing the temporary file).
    #[error("the blob was not written")]
    Refused(#[source] BackendError),
    /// A sync or rename failed: poisons the store.
    #[error(transparent)]
    Fatal(#[from] BackendError),
}

/// The two ends of a [`KeyRange`], as ordered maps take them.
pub type KeyBounds<'range> = (Bound<&'range [u8]>, Bound<&'range [u8]>);

/// A range of keys in one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        Self { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let to = successor(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        Self { from: Bound::Included(prefix.to_vec()), to }
    }

    /// From `from` (included) to `to` (excluded).
    pub fn between(from: &[u8], to: &[u8]) -> Self {
        Self { from: Bound::Included(from.to_vec()), to: Bound::Excluded(to.to_vec()) }
    }

    /// The same range without the keys up to and including `key`: the next page after it.
    pub fn after(self, key: &[u8]) -> Self {
        Self { from: Bound::Excluded(key.to_vec()), to: self.to }
    }

    /// Both ends, or `None` if no key can lie between them (ordered maps panic on such a range).
    pub fn bounds(&self) -> Option<KeyBounds<'_>> {
        use Bound::{Excluded, Included, Unbounded};
        let (from, to) = (self.from.as_ref().map(Vec::as_slice), self.to.as_ref().map(Vec::as_slice));
        let empty = match (from, to) {
            (Unbounded, _) | (_, Unbounded) => false,
            (Included(a), Included(b)) => a > b,
            (Included(a) | Excluded(a), Included(b) | Excluded(b)) => a >= b,
        };
        (!empty).then_some((from, to))
    }
}

/// The smallest key above every key that begins with `prefix`; none if the prefix is all `0xff`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut bytes = prefix[..=last].to_vec();
    bytes[last] += 1;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &KeyRange, key: &[u8]) -> bool {
        use std::ops::RangeBounds;
        range.bounds().is_some_and(|bounds| bounds.contains(key))
    }

    #[test]
    fn a_prefix_range_holds_exactly_the_keys_with_that_prefix() {
        let cases: [(&[u8], &[u8], bool); 7] = [
            (b"ab", b"ab", true),
            (b"ab", b"ab\xff\xff", true),
            (b"ab", b"ac", false),
            (b"ab", b"aa\xff", false),
            (b"a\xff", b"a\xff\x01", true),
            (b"a\xff", b"b", false),
            (b"\xff", b"\xff\xff", true),
        ];
        for (prefix, key, expected) in cases {
            assert_eq!(contains(&KeyRange::prefix(prefix), key), expected, "{prefix:x?} {key:x?}");
        }
    }

    #[test]
    fn an_inverted_range_is_empty_and_does_not_panic() {
        assert_eq!(KeyRange::between(b"b", b"a").bounds(), None);
        assert_eq!(KeyRange::between(b"a", b"a").bounds(), None);
        assert_eq!(KeyRange::prefix(b"a").after(b"z").bounds(), None);
        assert!(KeyRange::between(b"a", b"b").bounds().is_some());
    }
}
