//! The layout of trees and keys, and the way from an older one to this one.
//!
//! Two versions, two jobs. A record's own version (see [`crate::record`]) says how to read its bytes, and is
//! raised lazily, record by record. The schema version says which trees exist and how their keys are made; it
//! is raised here, step by step, each step one atomic group.

use crate::Tree;
use crate::backend::{Backend, BackendError, KeyRange, WriteSet};
use crate::record::{DecodeError, Key, RecordError, decode, encode};
use crate::records::{Meta, NodeId};

/// The layout that this program writes.
pub const SCHEMA_VERSION: u32 = 1;

/// The way from each older layout to the next, oldest first. None was ever released before version 1.
const STEPS: &[Step] = &[];

/// One step of the way: from the layout before `to`. What it returns is written together with the new
/// version, so a crash leaves either layout whole.
pub(crate) struct Step {
    pub(crate) to: u32,
    pub(crate) run: fn(&dyn Backend) -> Result<WriteSet, SchemaError>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing: the store is new.
    Created,
    /// This layout.
    Current,
    /// An older layout, now migrated.
    Migrated { from: u32 },
}

/// Why the layout cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Written by a newer program.
    #[error(
        "the store has schema {found}, and this program knows schemas up to {known}: use a newer program"
    )]
    TooNew {
        /// The store's.
        found: u32,
        /// This program's.
        known: u32,
    },
    /// So old that no step leads from it.
    #[error("the store has schema {found}, which this program can no longer migrate")]
    TooOld {
        /// The store's.
        found: u32,
    },
    /// There are records but no word about their layout.
    #[error("the store holds records but not its own description")]
    Undescribed,
    /// Somebody else's store: its counters would be wrong for this node.
    #[error("the store belongs to another node")]
    WrongNode {
        /// Whose it is.
        owner: NodeId,
    },
    /// The description, or a record that a step must rewrite, cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Describes a new store or brings an old one to [`SCHEMA_VERSION`]; durable on return.
pub(crate) fn ensure(backend: &dyn Backend, node: NodeId, now_ms: u64) -> Result<Outcome, SchemaError> {
    ensure_with(backend, node, now_ms, STEPS, SCHEMA_VERSION)
}

fn ensure_with(
    backend: &dyn Backend,
    node: NodeId,
    now_ms: u64,
    steps: &[Step],
    newest: u32,
) -> Result<Outcome, SchemaError> {
    let Some(meta) = read_meta(backend)? else {
        if has_records(backend)? {
            return Err(SchemaError::Undescribed);
        }
        let meta = Meta { schema: newest, created_at_ms: now_ms, node };
        write(backend, WriteSet::new(), &meta)?;
        return Ok(Outcome::Created);
    };
    if meta.node != node {
        return Err(SchemaError::WrongNode { owner: meta.node });
    }
    migrate(backend, meta, steps, newest)
}

fn migrate(
    backend: &dyn Backend,
    mut meta: Meta,
    steps: &[Step],
    newest: u32,
) -> Result<Outcome, SchemaError> {
    let from = meta.schema;
    if from > newest {
        return Err(SchemaError::TooNew { found: from, known: newest });
    }
    while meta.schema < newest {
        let to = meta.schema + 1;
        let step = steps.iter().find(|step| step.to == to).ok_or(SchemaError::TooOld { found: from })?;
        let writes = (step.run)(backend)?;
        meta.schema = to;
        write(backend, writes, &meta)?;
    }
    Ok(if from == newest { Outcome::Current } else { Outcome::Migrated { from } })
}

fn read_meta(backend: &dyn Backend) -> Result<Option<Meta>, SchemaError> {
    let key = Meta::KEY.to_owned().to_bytes();
    let bytes = backend.get(Tree::Meta, &key)?;
    let failure = |source: DecodeError| RecordError { tree: Tree::Meta, key: key.clone(), source };
    Ok(bytes.map(|bytes| decode(&bytes).map_err(failure)).transpose()?)
}

fn write(backend: &dyn Backend, mut writes: WriteSet, meta: &Meta) -> Result<(), BackendError> {
    writes.insert((Tree::Meta, Meta::KEY.to_owned().to_bytes()), Some(encode(meta)));
    backend.apply(&writes)?;
    backend.sync()
}

fn has_records(backend: &dyn Backend) -> Result<bool, BackendError> {
    for tree in Tree::ALL {
        if !backend.scan(tree, &KeyRange::all(), 1)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    const NODE: NodeId = [7; 32];

    /// A layout that never was: pins were keyed `org:<name>` in schema 0.
    fn strip_pin_prefix(backend: &dyn Backend) -> Result<WriteSet, SchemaError> {
        let mut writes = WriteSet::new();
        for (key, value) in backend.scan(Tree::Pins, &KeyRange::prefix(b"org:"), usize::MAX)? {
            writes.insert((Tree::Pins, key[4..].to_vec()), Some(value));
            writes.insert((Tree::Pins, key), None);
        }
        Ok(writes)
    }

    const TEST_STEPS: &[Step] =
        &[Step { to: 1, run: strip_pin_prefix }, Step { to: 2, run: |_| Ok(WriteSet::new()) }];

    fn memory_with(schema: u32) -> Memory {
        let memory = Memory::new();
        let writes = WriteSet::from([((Tree::Pins, b"org:acme".to_vec()), Some(b"pin".to_vec()))]);
        write(&memory, writes, &Meta { schema, created_at_ms: 5, node: NODE }).expect("memory works");
        memory
    }

    #[test]
    fn an_old_layout_is_migrated_step_by_step_and_durably() {
        let memory = memory_with(0);
        let outcome = ensure_with(&memory, NODE, 9, TEST_STEPS, 2).expect("migrates");
        assert_eq!(outcome, Outcome::Migrated { from: 0 });

        let crashed = memory.crash(0);
        assert_eq!(crashed.get(Tree::Pins, b"acme").expect("reads"), Some(b"pin".to_vec()));
        assert_eq!(crashed.get(Tree::Pins, b"org:acme").expect("reads"), None);
        let meta = read_meta(&crashed).expect("reads").expect("is there");
        assert_eq!((meta.schema, meta.created_at_ms), (2, 5));
        assert_eq!(ensure_with(&crashed, NODE, 9, TEST_STEPS, 2).expect("is current"), Outcome::Current);
    }

    #[test]
    fn a_crash_between_steps_continues_where_it_stopped() {
        let memory = memory_with(0);
        ensure_with(&memory, NODE, 9, TEST_STEPS, 1).expect("first step");
        let outcome = ensure_with(&memory.crash(0), NODE, 9, TEST_STEPS, 2).expect("second step");
        assert_eq!(outcome, Outcome::Migrated { from: 1 });
    }

    #[test]
    fn what_cannot_be_migrated_is_refused_and_left_alone() {
        let refused = |memory: &Memory, steps, newest| {
            ensure_with(memory, NODE, 9, steps, newest).expect_err("refused")
        };
        assert!(matches!(
            refused(&memory_with(3), TEST_STEPS, 2),
            SchemaError::TooNew { found: 3, known: 2 }
        ));
        assert!(matches!(refused(&memory_with(0), &[], 1), SchemaError::TooOld { found: 0 }));
        let other = ensure_with(&memory_with(1), [8; 32], 9, &[], 1).expect_err("refused");
        assert!(matches!(other, SchemaError::WrongNode { owner: NODE }));

        let undescribed = Memory::new();
        let writes = WriteSet::from([((Tree::Own, b"self".to_vec()), Some(b"x".to_vec()))]);
        undescribed.apply(&writes).expect("memory works");
        assert!(matches!(refused(&undescribed, &[], 1), SchemaError::Undescribed));
    }
}
