//! How full the tables of a mesh are: for metrics, and for whoever holds them against their bounds.

use super::Mesh;
use super::blobs::BLOB_BYTES_MAX;
use super::directory::{DIRECTORY_MAX, SEQUENCES_MAX};
use super::fetch::{FETCHES_MAX, WANTED_MAX};
use super::overlay::{ATTEMPTS_MAX, DIALS_MAX};

/// One table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What it holds, in a word or two.
    pub name: &'static str,
    /// How much it holds now.
    pub size: usize,
    /// The most that it may hold.
    pub bound: usize,
}

/// How full the tables of a mesh are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Every table that has a bound of its own. Links have none here: the shell bounds connections.
    pub tables: [Table; 7],
}

impl Mesh {
    /// How full the tables are.
    pub fn sizes(&self) -> Sizes {
        let table = |name, size, bound| Table { name, size, bound };
        Sizes {
            tables: [
                table("adverts", self.directory.len(), DIRECTORY_MAX),
                table("sequences", self.directory.sequences_len(), SEQUENCES_MAX),
                table("blobs wanted", self.fetcher.len(), WANTED_MAX),
                table("pulls", self.fetcher.running(), FETCHES_MAX),
                table("dials", self.overlay.dialling(), DIALS_MAX),
                table("dial attempts", self.overlay.attempts_len(), ATTEMPTS_MAX),
                table("blob bytes", self.blobs.bytes(), BLOB_BYTES_MAX),
            ],
        }
    }
}
