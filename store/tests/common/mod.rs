//! What the tests over real directories share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod writer;

use std::path::{Path, PathBuf};

use comity_store::{OpenReport, Options, Store};
use tempfile::TempDir;

/// The owner of every store in these tests.
pub const NODE: [u8; 32] = [7; 32];
/// The time of every opening.
pub const NOW_MS: u64 = 1_790_000_000_000;

/// A directory for one store and what is put beside it.
pub struct Home(TempDir);

impl Home {
    /// An empty one.
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    /// Where the store is.
    pub fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// A file of the store.
    pub fn file(&self, name: &str) -> PathBuf {
        self.store().join(name)
    }

    /// Opens the store, expecting it to work.
    pub fn open(&self) -> (Store, OpenReport) {
        open_at(&self.store())
    }
}

/// Opens a store, expecting it to work.
pub fn open_at(dir: &Path) -> (Store, OpenReport) {
    Store::open(dir, options()).expect("the store opens")
}

/// Options without ballast, which is tested by itself.
pub fn options() -> Options {
    Options { ballast_bytes: 0, ..Options::new(NODE, NOW_MS) }
}

/// An error and its sources, as a log would show them.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
