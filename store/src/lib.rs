//! Comity's durable store: what a node must still know after `kill -9` or a power cut.
//!
//! A [`Store`] keeps small typed records in trees and larger payloads as content-addressed files.
//! Reading is direct; writing goes through one committer thread that gathers whatever waits into a
//! group, makes the group durable once, and only then resolves each writer's [`Ticket`].
//! `docs/storage-format.md` specifies every byte on disk and says why the recipe is what it is.
//!
//! Where to look:
//! - [`Store`], [`Options`], [`OpenReport`], [`OpenError`]: the handle and how it is opened.
//! - [`Batch`], [`Ticket`], [`CommitError`]: writing.
//! - [`records`]: the typed records of each tree; [`record`]: how a record becomes bytes and how an
//!   older version of it is read.
//! - [`blobs`]: payloads above [`VALUE_BYTES_MAX`].
//! - [`backend`]: the seam in front of sled; [`testing`]: the double behind it that fails on demand.
//!
//! Invariant: a ticket resolves to `Ok` only after its batch would survive a power cut.
//! Invariant: after the first I/O error nothing is written or read again until the store is reopened.
//! Invariant: what cannot be read is an error that names where it is, never a default.

pub mod backend;
pub mod blobs;
mod commit;
mod disk;
mod open;
pub mod record;
pub mod records;
mod schema;
mod store;
mod sync;
pub mod testing;
mod tree;

pub use backend::KeyRange;
pub use blobs::{BLOB_BYTES_MAX, BlobError, BlobHold, Digest, SweepReport};
pub use commit::batch::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX, Batch, KEY_BYTES_MAX, VALUE_BYTES_MAX};
pub use commit::committer::{GROUP_BATCHES_MAX, GROUP_BYTES_MAX};
pub use commit::queue::{QUEUE_BATCHES_MAX, QUEUE_BYTES_MAX};
pub use commit::ticket::Ticket;
pub use commit::{CommitError, Fault};
pub use open::{Loss, OpenError, OpenReport, Options, Recovery};
pub use schema::{SCHEMA_VERSION, SchemaError};
pub use store::{ReadError, SCAN_RECORDS_MAX, Store};
pub use tree::Tree;
