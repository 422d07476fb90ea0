//! What is done to sled's files before and after it fails to open them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{create_dir, files_where, free_bytes, layout, parent, remove_if_present, sync_dir, sync_file};

/// How many copies of a corrupt database may lie about. A node that is restarted for ever by its
/// supervisor must not fill the disk with copies of the same damage.
pub(crate) const COPIES_MAX: u32 = 2;

/// Space that must remain after a copy.
const COPY_MARGIN_BYTES: u64 = 8 << 20;

/// Why no copy was made.
#[derive(Debug)]
pub(crate) enum CopyError {
    /// [`COPIES_MAX`] copies exist; the last one is named.
    TooMany { last: PathBuf },
    /// The copy does not fit.
    NoSpace { needed: u64, free: u64 },
    /// Copying failed.
    Io(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        CopyError::Io(error)
    }
}

/// Removes snapshots that a crash left half written. With one of them in place sled 0.34 takes it for the
/// newest snapshot, and the database is `Corruption` for ever. Returns how many there were.
pub(crate) fn remove_unfinished_snapshots(dir: &Path) -> io::Result<usize> {
    let unfinished = files_where(dir, |name| {
        name.starts_with(layout::SNAPSHOT_PREFIX) && name.ends_with(layout::SNAPSHOT_UNFINISHED_SUFFIX)
    })?;
    for path in &unfinished {
        fs::remove_file(path)?;
    }
    Ok(unfinished.len())
}

/// Copies sled's files to a sibling directory, durably, and returns its path.
pub(crate) fn copy_aside(dir: &Path) -> Result<PathBuf, CopyError> {
    let files = sled_files(dir)?;
    let target = free_name(dir)?;
    let needed = COPY_MARGIN_BYTES
        + files.iter().filter_map(|path| path.metadata().ok()).map(|m| m.len()).sum::<u64>();
    let free = free_bytes(dir)?;
    if free < needed {
        return Err(CopyError::NoSpace { needed, free });
    }
    create_dir(&target)?;
    for path in files {
        let Some(name) = path.file_name() else { continue };
        let copy = target.join(name);
        fs::copy(&path, &copy)?;
        sync_file(&copy)?;
    }
    sync_dir(&target)?;
    sync_dir(&parent(&target))?;
    Ok(target)
}

/// Removes what sled can rebuild from its log: snapshots, and its parameters, which are always the same.
pub(crate) fn drop_rebuildable(dir: &Path) -> io::Result<()> {
    for path in files_where(dir, |name| name.starts_with(layout::SNAPSHOT_PREFIX) || name == layout::CONF)? {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Removes sled's files altogether: only for a store whose creation was interrupted.
pub(crate) fn remove_database(dir: &Path) -> io::Result<()> {
    for path in sled_files(dir)? {
        remove_if_present(&path)?;
    }
    Ok(())
}

fn sled_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    files_where(dir, |name| {
        name == layout::DATA || name == layout::CONF || name.starts_with(layout::SNAPSHOT_PREFIX)
    })
}

fn free_name(dir: &Path) -> Result<PathBuf, CopyError> {
    let stem = dir.file_name().map_or_else(|| "store".to_owned(), |name| name.to_string_lossy().into_owned());
    let name = |number| parent(dir).join(format!("{stem}.corrupt-{number}"));
    let free = (1..=COPIES_MAX).map(name).find(|path| !path.exists());
    free.ok_or_else(|| CopyError::TooMany { last: name(COPIES_MAX) })
}
