//! Typed access to one tree.

use std::collections::VecDeque;
use std::marker::PhantomData;

use super::{DecodeError, Key, Record, RecordError, decode};
use crate::backend::{Entry, KeyRange};
use crate::store::ReadError;
use crate::{Batch, CommitError, Store, Ticket};

/// How many records an iterator fetches at a time.
pub const PAGE_RECORDS: usize = 256;

/// The records of one type in a store.
///
/// Reads see every batch that was applied, including one whose ticket has not resolved yet. Whoever makes a
/// promise to somebody else on the strength of a read commits an empty batch first and waits for it.
#[derive(Debug)]
pub struct Table<'store, R> {
    store: &'store Store,
    records: PhantomData<fn() -> R>,
}

impl<'store, R: Record> Table<'store, R> {
    pub(crate) fn new(store: &'store Store) -> Self {
        Self { store, records: PhantomData }
    }

    /// The store behind it.
    pub fn store(&self) -> &'store Store {
        self.store
    }

    /// The record under `key`.
    ///
    /// # Errors
    /// [`ReadError`], for a record that is there but cannot be read as well.
    pub fn get(&self, key: &R::Key) -> Result<Option<R>, ReadError> {
        let key = key.to_bytes();
        let bytes = self.store.get(R::TREE, &key)?;
        Ok(bytes.map(|bytes| read_value(&key, &bytes)).transpose()?)
    }

    /// Commits one put. Several go into a [`Batch`].
    ///
    /// # Errors
    /// [`CommitError`], as [`Store::commit`].
    pub fn put(&self, key: &R::Key, record: &R) -> Result<Ticket, CommitError> {
        let mut batch = Batch::new();
        batch.put(key, record);
        self.store.commit(batch)
    }

    /// Commits one delete.
    ///
    /// # Errors
    /// [`CommitError`], as [`Store::commit`].
    pub fn delete(&self, key: &R::Key) -> Result<Ticket, CommitError> {
        let mut batch = Batch::new();
        batch.delete::<R>(key);
        self.store.commit(batch)
    }

    /// Every record in key order, fetched [`PAGE_RECORDS`] at a time.
    pub fn iter(&self) -> Records<'store, R> {
        self.range(KeyRange::all())
    }

    /// The record with the highest key in `range`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn last(&self, range: &KeyRange) -> Result<Option<(R::Key, R)>, ReadError> {
        let entry = self.store.last(R::TREE, range)?;
        Ok(entry.map(|(key, value)| read_entry(&key, &value)).transpose()?)
    }

    /// The records of a range of keys, in key order.
    ///
    /// Not a snapshot: a record written while iterating is seen or not, according to its key.
    pub fn range(&self, range: KeyRange) -> Records<'store, R> {
        Records { store: self.store, rest: Some(range), page: VecDeque::new(), records: PhantomData }
    }
}

/// An iterator over a range of records. After an error it ends.
#[derive(Debug)]
pub struct Records<'store, R> {
    store: &'store Store,
    rest: Option<KeyRange>,
    page: VecDeque<Entry>,
    records: PhantomData<fn() -> R>,
}

impl<R: Record> Records<'_, R> {
    fn fetch(&mut self) -> Result<(), ReadError> {
        let Some(range) = self.rest.take() else { return Ok(()) };
        self.page = self.store.scan(R::TREE, &range, PAGE_RECORDS)?.into();
        if let (PAGE_RECORDS, Some((last, _))) = (self.page.len(), self.page.back()) {
            self.rest = Some(range.after(last));
        }
        Ok(())
    }

    fn stop<T>(&mut self, error: ReadError) -> Option<Result<T, ReadError>> {
        self.rest = None;
        self.page.clear();
        Some(Err(error))
    }
}

impl<R: Record> Iterator for Records<'_, R> {
    type Item = Result<(R::Key, R), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && let Err(error) = self.fetch()
        {
            return self.stop(error);
        }
        let (key, value) = self.page.pop_front()?;
        match read_entry::<R>(&key, &value) {
            Ok(entry) => Some(Ok(entry)),
            Err(error) => self.stop(error.into()),
        }
    }
}

fn read_entry<R: Record>(key: &[u8], value: &[u8]) -> Result<(R::Key, R), RecordError> {
    let typed = R::Key::from_bytes(key).ok_or_else(|| failure::<R>(key, DecodeError::MalformedKey))?;
    Ok((typed, read_value(key, value)?))
}

fn read_value<R: Record>(key: &[u8], value: &[u8]) -> Result<R, RecordError> {
    decode(value).map_err(|source| failure::<R>(key, source))
}

fn failure<R: Record>(key: &[u8], source: DecodeError) -> RecordError {
    RecordError { tree: R::TREE, key: key.to_vec(), source }
}
