//! Payload files, named by the hash of what they hold.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{create_dir, create_file, files_where, parent, remove_if_present, sync_dir};
use crate::Digest;
use crate::backend::{BackendError, BlobBackend, BlobWriteError};

const TEMPORARY_SUFFIX: &str = ".tmp";

/// A directory of payloads: `<64 hex digits>` each.
#[derive(Debug)]
pub(crate) struct FileBlobs {
    dir: PathBuf,
    /// Makes temporary names unique among threads; processes are kept apart by the store's lock.
    temporaries: AtomicU64,
}

impl FileBlobs {
    /// Opens or creates the directory and clears what a crash left half written.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        create_dir(dir)?;
        sync_dir(&parent(dir))?;
        for leftover in files_where(dir, |name| name.ends_with(TEMPORARY_SUFFIX))? {
            fs::remove_file(leftover)?;
        }
        Ok(Self { dir: dir.to_owned(), temporaries: AtomicU64::new(0) })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_hex())
    }

    fn write_temporary(&self, path: &Path, bytes: &[u8]) -> Result<File, BackendError> {
        let mut file = create_file(path).map_err(BackendError::io("create a blob file"))?;
        file.write_all(bytes).map_err(BackendError::io("write a blob file"))?;
        Ok(file)
    }
}

impl BlobBackend for FileBlobs {
    fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BlobWriteError> {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!("{number}{TEMPORARY_SUFFIX}"));
        let file = self.write_temporary(&temporary, bytes).map_err(|error| {
            // Best effort: opening clears what is left.
            let _ = fs::remove_file(&temporary);
            BlobWriteError::Refused(error)
        })?;
        file.sync_all().map_err(BackendError::io("sync a blob file"))?;
        fs::rename(&temporary, self.path(digest)).map_err(BackendError::io("rename a blob file"))?;
        sync_dir(&self.dir).map_err(BackendError::io("sync the blob directory"))?;
        Ok(())
    }

    fn read(&self, digest: &Digest, bytes_max: usize) -> Result<Option<Vec<u8>>, BackendError> {
        let file = match File::open(self.path(digest)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BackendError::io("open a blob file")(error)),
        };
        let mut bytes = Vec::new();
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).map_err(BackendError::io("read a blob file"))?;
        Ok(Some(bytes))
    }

    fn remove(&self, digest: &Digest) -> Result<(), BackendError> {
        remove_if_present(&self.path(digest)).map(drop).map_err(BackendError::io("remove a blob file"))
    }

    fn list(&self) -> Result<Vec<Digest>, BackendError> {
        let files = files_where(&self.dir, |name| Digest::from_hex(name).is_some());
        let files = files.map_err(BackendError::io("list the blob directory"))?;
        Ok(files.iter().filter_map(|path| Digest::from_hex(path.file_name()?.to_str()?)).collect())
    }
}
