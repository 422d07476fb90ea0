//! One process at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::layout;

/// What an owner's note in the lock file may take; longer ones are cut.
const NOTE_BYTES_MAX: u64 = 64;

/// Holds the exclusive lock on a store's directory until it is dropped or the process ends.
///
/// The kernel releases the lock with the process however it dies, so a stale lock file means nothing.
#[derive(Debug)]
pub(crate) struct DirLock(#[allow(dead_code, reason = "held for its lock")] File);

/// Why the lock was not had.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process (its note, when readable) or another handle of this one has it.
    Held { owner: String },
    /// The lock file itself failed.
    Io(io::Error),
}

impl DirLock {
    pub(crate) fn acquire(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(layout::LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(LockError::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                write_note(&mut file).map_err(LockError::Io)?;
                Ok(Self(file))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held { owner: read_note(&file) }),
            Err(error) => Err(LockError::Io(error.into())),
        }
    }
}

fn write_note(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "pid {}", std::process::id())
}

fn read_note(file: &File) -> String {
    let mut note = String::new();
    let read = file.take(NOTE_BYTES_MAX).read_to_string(&mut note);
    match (read, note.trim()) {
        (Ok(_), note) if !note.is_empty() => note.to_owned(),
        _ => "unknown pid".to_owned(),
    }
}
