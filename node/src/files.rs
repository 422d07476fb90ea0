//! Small files, read with a bound and written so that a crash leaves either the old file or the new one.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Permissions of files that hold secrets or steer the node.
pub const MODE_PRIVATE: u32 = 0o600;

/// Why a small file could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file is not there, or may not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than anything that belongs there.
    #[error("{} is larger than {bytes_max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        bytes_max: usize,
    },
}

/// Reads a whole file of at most `bytes_max` bytes.
pub fn read_bounded(path: &Path, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > bytes_max {
        return Err(ReadError::TooLarge { path: path.to_owned(), bytes_max });
    }
    Ok(bytes)
}

/// Why a file could not be written.
#[derive(Debug, Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Replaces a file in one step: a temporary file beside it is written, synced and renamed over it, and the directory
/// synced. A symbolic link is followed, so that a linked configuration stays linked. An existing file keeps its
/// permissions; a new one gets `mode`.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    replace(&target, bytes, mode).map_err(|source| WriteError { path: path.to_owned(), source })
}

/// Like [`write_atomic`], but fails with `AlreadyExists` where the file is there already: keys are never overwritten.
pub fn create_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    let create = || {
        let staged = stage(path, bytes, mode)?;
        staged.persist_noclobber(path).map_err(|error| error.error)?;
        sync_dir(parent(path))
    };
    create().map_err(|source| WriteError { path: path.to_owned(), source })
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mode = fs::metadata(path).map_or(mode, |existing| existing.permissions().mode() & 0o777);
    stage(path, bytes, mode)?.persist(path).map_err(|error| error.error)?;
    sync_dir(parent(path))
}

fn stage(path: &Path, bytes: &[u8], mode: u32) -> io::Result<tempfile::NamedTempFile> {
    let mut staged = tempfile::Builder::new()
        .prefix(".comity-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(parent(path))?;
    staged.write_all(bytes)?;
    // The umask may have taken bits away from an existing file's mode: give them back.
    staged.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    staged.as_file().sync_all()?;
    Ok(staged)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The directory that holds a file, `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    }

    #[test]
    fn reading_stops_at_the_bound() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        fs::write(&path, [7; 10]).expect("write");
        assert_eq!(read_bounded(&path, 10).expect("fits").len(), 10);
        assert!(matches!(read_bounded(&path, 9), Err(ReadError::TooLarge { bytes_max: 9, .. })));
        assert!(matches!(read_bounded(&dir.path().join("none"), 9), Err(ReadError::Io { .. })));
    }

    #[test]
    fn replacing_keeps_permissions_and_links_and_leaves_no_litter() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (file, link) = (dir.path().join("f"), dir.path().join("l"));
        write_atomic(&file, b"one", MODE_PRIVATE).expect("create");
        assert_eq!(mode(&file), 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).expect("chmod");
        std::os::unix::fs::symlink(&file, &link).expect("symlink");
        write_atomic(&link, b"two", MODE_PRIVATE).expect("replace");
        assert_eq!((fs::read(&file).expect("read"), mode(&file)), (b"two".to_vec(), 0o664));
        assert!(fs::symlink_metadata(&link).expect("link").is_symlink());
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 2);
    }

    #[test]
    fn creating_never_overwrites() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("k");
        create_atomic(&path, b"one", MODE_PRIVATE).expect("create");
        let error = create_atomic(&path, b"two", MODE_PRIVATE).expect_err("must not overwrite");
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("read"), b"one");
    }
}
