//! Space kept back for the day the disk is full.
//!
//! Opening the database writes (a snapshot, at least one segment), so a node that filled its disk could
//! not even start to be cleaned up. The ballast is a preallocated file that opening gives up in that case.

use std::io;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use super::{create_file, free_bytes, layout, remove_if_present, sync_dir};

/// Bytes that opening needs whatever the size of the database: some segments, a snapshot, our own files.
const OPEN_BYTES_MIN: u64 = 6 << 20;
/// A snapshot is much smaller than the log that it describes; this is a generous share.
const SNAPSHOT_SHARE: u64 = 32;

/// How the space check ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// There is room.
    Enough,
    /// There is room now that the ballast is gone.
    BallastReleased,
    /// There is no room, ballast or not.
    Short { needed: u64, free: u64 },
}

/// Makes sure that there is room to open, giving up the ballast if that is what it takes.
pub(crate) fn ensure_space(dir: &Path) -> io::Result<Space> {
    let needed = OPEN_BYTES_MIN + data_bytes(dir) / SNAPSHOT_SHARE;
    if free_bytes(dir)? >= needed {
        return Ok(Space::Enough);
    }
    let released = remove_if_present(&dir.join(layout::BALLAST))?;
    let free = free_bytes(dir)?;
    Ok(if free < needed {
        Space::Short { needed, free }
    } else if released {
        Space::BallastReleased
    } else {
        Space::Enough
    })
}

/// Lays in ballast unless it is there or the disk is tight. Returns whether it is there.
pub(crate) fn restore(dir: &Path, ballast_bytes: u64, reserve_bytes: u64) -> io::Result<bool> {
    let path = dir.join(layout::BALLAST);
    if path.metadata().is_ok_and(|metadata| metadata.len() == ballast_bytes) {
        return Ok(true);
    }
    if ballast_bytes == 0 || free_bytes(dir)? < ballast_bytes.saturating_add(reserve_bytes) {
        return Ok(false);
    }
    let allocated = fallocate(create_file(&path)?, FallocateFlags::empty(), 0, ballast_bytes);
    if allocated.is_err() {
        // A file system that cannot preallocate: better none than one that only pretends.
        remove_if_present(&path)?;
        return Ok(false);
    }
    sync_dir(dir)?;
    Ok(true)
}

fn data_bytes(dir: &Path) -> u64 {
    dir.join(layout::DATA).metadata().map_or(0, |metadata| metadata.len())
}
