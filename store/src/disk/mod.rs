//! The files around the database: lock, head, ballast, blobs, and how they reach the disk.

pub(crate) mod ballast;
pub(crate) mod blobs;
pub(crate) mod head;
pub(crate) mod lock;
pub(crate) mod recovery;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Names inside a store's directory.
pub(crate) mod layout {
    /// sled's log.
    pub(crate) const DATA: &str = "db";
    /// sled's parameters.
    pub(crate) const CONF: &str = "conf";
    /// sled's snapshots begin with this.
    pub(crate) const SNAPSHOT_PREFIX: &str = "snap.";
    /// ... and end with this while they are being written.
    pub(crate) const SNAPSHOT_UNFINISHED_SUFFIX: &str = ".generating";
    /// Who has the store open.
    pub(crate) const LOCK: &str = "lock";
    /// Present once the store is completely created; says how far it is known to be durable.
    pub(crate) const HEAD: &str = "head";
    /// Present while the store is being created.
    pub(crate) const CREATING: &str = "creating";
    /// Space kept back.
    pub(crate) const BALLAST: &str = "ballast";
    /// Our payload files, unless the caller chose another place.
    pub(crate) const PAYLOADS: &str = "payloads";
}

const OWNER_ONLY_DIR: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;

/// Bytes that an unprivileged process can still write under `dir`.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Creates `dir` for its owner only, with parents, if it is missing.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIR).create(dir)
}

/// Creates or truncates an owner-only file for writing.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(OWNER_ONLY_FILE).open(path)
}

/// Makes the entries of `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a file's bytes durable.
pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a file; a missing one is fine.
pub(crate) fn remove_if_present(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Paths in `dir` whose name satisfies `wanted`.
pub(crate) fn files_where(dir: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// The directory that holds `path`'s own entry.
pub(crate) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
