//! A list of writes that happen together or not at all.

use super::CommitError;
use crate::Tree;
use crate::record::{Key, Record, encode};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Largest value in a tree, in bytes; sled leaks space with larger ones. Larger payloads are blobs.
pub const VALUE_BYTES_MAX: usize = 16 * 1024;
/// Most operations (puts, deletes, expectations) in one batch.
pub const BATCH_OPERATIONS_MAX: usize = 1024;
/// Most bytes of keys and values in one batch.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Writes that become durable together or not at all, and only if every expectation holds.
///
/// Limits are checked when the batch is handed to [`crate::Store::commit`]. Writing a key twice keeps the
/// last write. An empty batch is a barrier: its ticket resolves once everything accepted before it is durable.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) expectations: Vec<Operation>,
    pub(crate) writes: Vec<Operation>,
    bytes: usize,
}

/// A key and the value that it shall have, or is expected to have; `None` is absence.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) tree: Tree,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a typed record.
    pub fn put<R: Record>(&mut self, key: &R::Key, record: &R) -> &mut Self {
        self.put_raw(R::TREE, &key.to_bytes(), &encode(record))
    }

    /// Deletes a typed record; a missing one is fine.
    pub fn delete<R: Record>(&mut self, key: &R::Key) -> &mut Self {
        self.delete_raw(R::TREE, &key.to_bytes())
    }

    /// Makes the batch conditional on `key` holding exactly `record` (`None`: nothing) when it is applied.
    ///
    /// Records compare by their bytes, so a record that is still stored in an older version never equals its
    /// migrated self: rewrite it first.
    pub fn expect<R: Record>(&mut self, key: &R::Key, record: Option<&R>) -> &mut Self {
        self.expect_raw(R::TREE, &key.to_bytes(), record.map(encode).as_deref())
    }

    /// Puts raw bytes: for tools and tests; records go through [`Batch::put`].
    pub fn put_raw(&mut self, tree: Tree, key: &[u8], value: &[u8]) -> &mut Self {
        self.bytes += key.len() + value.len();
        self.writes.push(Operation { tree, key: key.to_vec(), value: Some(value.to_vec()) });
        self
    }

    /// Deletes a raw key.
    pub fn delete_raw(&mut self, tree: Tree, key: &[u8]) -> &mut Self {
        self.bytes += key.len();
        self.writes.push(Operation { tree, key: key.to_vec(), value: None });
        self
    }

    /// Makes the batch conditional on a raw key.
    pub fn expect_raw(&mut self, tree: Tree, key: &[u8], value: Option<&[u8]>) -> &mut Self {
        self.bytes += key.len() + value.map_or(0, <[u8]>::len);
        self.expectations.push(Operation { tree, key: key.to_vec(), value: value.map(<[u8]>::to_vec) });
        self
    }

    /// Whether this is only a barrier.
    pub fn is_empty(&self) -> bool {
        self.operations() == 0
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn operations(&self) -> usize {
        self.writes.len() + self.expectations.len()
    }

    /// Checks every limit.
    pub(crate) fn check(&self) -> Result<(), CommitError> {
        let (operations, bytes) = (self.operations(), self.bytes);
        if operations > BATCH_OPERATIONS_MAX || bytes > BATCH_BYTES_MAX {
            return Err(CommitError::BatchTooLarge { operations, bytes });
        }
        self.expectations.iter().chain(&self.writes).try_for_each(Operation::check)
    }
}

impl Operation {
    fn check(&self) -> Result<(), CommitError> {
        let tree = self.tree;
        if self.key.is_empty() || self.key.len() > KEY_BYTES_MAX {
            return Err(CommitError::KeyLength { tree, bytes: self.key.len() });
        }
        match &self.value {
            Some(value) if value.len() > VALUE_BYTES_MAX => {
                Err(CommitError::ValueTooLarge { tree, bytes: value.len() })
            }
            _ => Ok(()),
        }
    }
}
