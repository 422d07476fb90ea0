//! Opening: everything that must be true before the first acknowledgement.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::BackendError;
use crate::backend::sled::SledBackend;
use crate::disk::blobs::FileBlobs;
use crate::disk::head::{Head, HeadState};
use crate::disk::lock::{DirLock, LockError};
use crate::disk::recovery::CopyError;
use crate::disk::{
    ballast, create_dir, create_file, layout, parent, recovery, remove_if_present, sync_dir, sync_file,
};
use crate::records::NodeId;
use crate::schema::{self, Outcome, SchemaError};
use crate::store::Store;

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose store it is; a store made for another node is refused.
    pub node: NodeId,
    /// Now, in milliseconds since the Unix epoch: becomes the creation time of a new store.
    pub now_ms: u64,
    /// sled's page cache, in bytes. An idle store costs little more than this at most.
    pub cache_bytes: u64,
    /// Size of the ballast file, in bytes; 0 for none.
    pub ballast_bytes: u64,
    /// Below this many free bytes the store takes no writes.
    pub reserve_bytes: u64,
    /// Where payload files go; `payloads` inside the store's directory if not said.
    pub blobs_dir: Option<PathBuf>,
    /// What to do about acknowledged records that are gone.
    pub recovery: Recovery,
}

/// What to do about acknowledged records that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// Refuse to open: an operator decides.
    #[default]
    Refuse,
    /// Open with what is left and say so in the report. Counters may have gone back: the node must start a
    /// new epoch ([`crate::record::Table::start_epoch`]).
    AcceptLoss,
}

/// What opening found and did. Everything but `created` and `ballast` deserves a line in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The store is new.
    pub created: bool,
    /// An earlier creation had been interrupted before anything was acknowledged; it was started over.
    pub creation_restarted: bool,
    /// Snapshots that a crash had left half written, removed.
    pub snapshots_removed: usize,
    /// The database was corrupt and opened after its snapshots were dropped; where the copy of it is.
    pub repaired_copy: Option<PathBuf>,
    /// The schema that was migrated from.
    pub migrated_from: Option<u32>,
    /// Acknowledged records are gone, and [`Recovery::AcceptLoss`] was given.
    pub loss: Option<Loss>,
    /// The ballast is in place.
    pub ballast: bool,
    /// The ballast had to be given up to open: the disk is full.
    pub ballast_released: bool,
}

/// How much is gone, counted in groups of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The last group that was known to be durable; `None` if that knowledge was damaged itself.
    pub expected: Option<u64>,
    /// The last group in the database.
    pub found: u64,
}

/// Why a store was not opened. Opening never replaces what it cannot read; sled itself, when it opens at all,
/// has by then cut its log at the first damage.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store is in use.
    #[error("the store in {} is already open in {owner}", dir.display())]
    Locked {
        /// Its directory.
        dir: PathBuf,
        /// `pid N` as the other process noted it.
        owner: String,
    },
    /// The disk is too full even without the ballast.
    #[error("opening the store in {} needs {needed} free bytes and there are {free}: free some space and start again", dir.display())]
    NoSpace {
        /// Its directory.
        dir: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// There is a database that no store of ours finished creating.
    #[error("{} holds a database but no `head` file: it is not a complete store; restore it from a backup or move it away", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
    },
    /// The store was created, and its database is not there.
    #[error("the database in {} is gone: restore `db` and `conf` from a backup, or move the whole directory away to start empty", dir.display())]
    DatabaseMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// The head file is not readable as one.
    #[error("the head file in {} is damaged, so that a loss of records could not be noticed: restore the store from a backup, or open it once accepting loss", dir.display())]
    HeadDamaged {
        /// The directory.
        dir: PathBuf,
    },
    /// The database is corrupt, and remained so without its snapshots.
    #[error("the database in {} is corrupt; a copy as it was is in {}: restore the store from a backup", dir.display(), copy.display())]
    Corrupt {
        /// The directory.
        dir: PathBuf,
        /// The copy made before anything was tried.
        copy: PathBuf,
        /// What the second attempt said.
        source: BackendError,
    },
    /// The database is corrupt, and nothing was tried because no copy could be made first.
    #[error("the database in {} is corrupt and was left as it is, because {obstacle}", dir.display())]
    CorruptNotCopied {
        /// The directory.
        dir: PathBuf,
        /// What stood in the way.
        obstacle: String,
        /// What the only attempt said.
        source: BackendError,
    },
    /// The database opened, but without records that had been acknowledged.
    #[error("the database in {} has lost acknowledged records (it ends at group {found}, and group {expected} was durable): restore it from a backup, or open it once accepting loss", dir.display())]
    LostRecords {
        /// The directory.
        dir: PathBuf,
        /// The last group that was known to be durable.
        expected: u64,
        /// The last group in the database.
        found: u64,
    },
    /// The layout of the records is not one that this program can use.
    #[error("the store in {}", dir.display())]
    Schema {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: SchemaError,
    },
    /// The database could not be opened for another reason.
    #[error("the database in {} cannot be opened", dir.display())]
    Database {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: BackendError,
    },
    /// The file system failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done, as an infinitive phrase.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Store {
    /// Opens the store in `dir`, creating it if there is none. Blocks; never call it on an async thread.
    ///
    /// Only one process, and one handle (with its clones) in it, can have a directory open.
    ///
    /// # Errors
    /// [`OpenError`]; each says what an operator can do.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<(Store, OpenReport), OpenError> {
        Opening { dir: dir.as_ref(), options: &options, report: OpenReport::default() }.run()
    }
}

impl Options {
    /// Working defaults for a node.
    pub fn new(node: NodeId, now_ms: u64) -> Self {
        Self {
            node,
            now_ms,
            cache_bytes: 2 << 20,
            ballast_bytes: 8 << 20,
            reserve_bytes: 16 << 20,
            blobs_dir: None,
            recovery: Recovery::Refuse,
        }
    }
}

/// One attempt to open a store.
struct Opening<'a> {
    dir: &'a Path,
    options: &'a Options,
    report: OpenReport,
}

impl Opening<'_> {
    fn run(mut self) -> Result<(Store, OpenReport), OpenError> {
        create_dir(self.dir).map_err(self.io("create"))?;
        let dir_lock = self.lock()?;
        self.make_space()?;
        let head = Head::read(self.dir).map_err(self.io("read the head file in"))?;
        if head == HeadState::Absent {
            self.begin_creation()?;
        } else if data_is_missing(self.dir) {
            return Err(OpenError::DatabaseMissing { dir: self.dir() });
        } else if head == HeadState::Damaged && self.options.recovery == Recovery::Refuse {
            return Err(OpenError::HeadDamaged { dir: self.dir() });
        }
        let backend = self.open_database()?;
        self.check_loss(&head, backend.group())?;
        self.sync_files().map_err(self.io("sync"))?;
        self.ensure_schema(&backend)?;
        self.finish_head(&head, &backend).map_err(self.io("write the head file in"))?;
        self.report.ballast =
            ballast::restore(self.dir, self.options.ballast_bytes, self.options.reserve_bytes)
                .map_err(self.io("lay in ballast in"))?;
        let blobs_dir = self.blobs_dir();
        let blobs = FileBlobs::open(&blobs_dir).map_err(|source| OpenError::Io {
            operation: "open",
            path: blobs_dir,
            source,
        })?;
        let store =
            Store::start(Arc::new(backend), Arc::new(blobs), Some(dir_lock), self.options.reserve_bytes)
                .map_err(self.io("start the committer for"))?;
        Ok((store, self.report))
    }

    fn lock(&self) -> Result<DirLock, OpenError> {
        DirLock::acquire(self.dir).map_err(|error| match error {
            LockError::Held { owner } => OpenError::Locked { dir: self.dir(), owner },
            LockError::Io(source) => self.io("lock")(source),
        })
    }

    fn make_space(&mut self) -> Result<(), OpenError> {
        self.report.snapshots_removed = recovery::remove_unfinished_snapshots(self.dir)
            .map_err(self.io("remove unfinished snapshots in"))?;
        match ballast::ensure_space(self.dir).map_err(self.io("check the free space of"))? {
            ballast::Space::Enough => Ok(()),
            ballast::Space::BallastReleased => {
                self.report.ballast_released = true;
                Ok(())
            }
            ballast::Space::Short { needed, free } => {
                Err(OpenError::NoSpace { dir: self.dir(), needed, free })
            }
        }
    }

    /// Without a head nothing was ever acknowledged here. The `creating` file says that a database without a
    /// head is the beginning of ours; without it the database is somebody else's and is left alone.
    fn begin_creation(&mut self) -> Result<(), OpenError> {
        let marker = self.dir.join(layout::CREATING);
        if marker.exists() {
            recovery::remove_database(self.dir).map_err(self.io("clear the unfinished database in"))?;
            self.report.creation_restarted = true;
        } else if self.dir.join(layout::DATA).exists() {
            return Err(OpenError::Foreign { dir: self.dir() });
        }
        let mark = || create_file(&marker)?.sync_all().and_then(|()| sync_dir(self.dir));
        mark().map_err(self.io("begin to create"))
    }

    fn open_database(&mut self) -> Result<SledBackend, OpenError> {
        match SledBackend::open(self.dir, self.options.cache_bytes) {
            Ok(backend) => Ok(backend),
            Err(corrupt @ BackendError::Corrupt { .. }) => self.repair(corrupt),
            Err(source) => Err(OpenError::Database { dir: self.dir(), source }),
        }
    }

    /// Copies the database aside, drops what sled can rebuild, and tries once more.
    fn repair(&mut self, source: BackendError) -> Result<SledBackend, OpenError> {
        let copy = match recovery::copy_aside(self.dir) {
            Ok(copy) => copy,
            Err(error) => {
                return Err(OpenError::CorruptNotCopied {
                    dir: self.dir(),
                    obstacle: obstacle(&error),
                    source,
                });
            }
        };
        tracing::warn!(dir = %self.dir.display(), copy = %copy.display(), %source, "the database is corrupt; copied aside, trying to repair");
        recovery::drop_rebuildable(self.dir).map_err(self.io("drop the snapshots in"))?;
        let backend = SledBackend::open(self.dir, self.options.cache_bytes);
        let backend =
            backend.map_err(|source| OpenError::Corrupt { dir: self.dir(), copy: copy.clone(), source })?;
        self.report.repaired_copy = Some(copy);
        Ok(backend)
    }

    fn check_loss(&mut self, head: &HeadState, found: u64) -> Result<(), OpenError> {
        let expected = match head {
            HeadState::Absent => return Ok(()),
            HeadState::Group(expected) if found >= *expected => return Ok(()),
            HeadState::Group(expected) => Some(*expected),
            HeadState::Damaged => None,
        };
        match (self.options.recovery, expected) {
            (Recovery::Refuse, Some(expected)) => {
                Err(OpenError::LostRecords { dir: self.dir(), expected, found })
            }
            (Recovery::Refuse, None) => Err(OpenError::HeadDamaged { dir: self.dir() }),
            (Recovery::AcceptLoss, expected) => {
                self.report.loss = Some(Loss { expected, found });
                Ok(())
            }
        }
    }

    /// sled syncs neither its parameters nor the directory entries; without this a fresh database does not
    /// survive a power cut. Done at every opening, since repair writes those files anew too.
    fn sync_files(&self) -> io::Result<()> {
        sync_file(&self.dir.join(layout::CONF))?;
        sync_file(&self.dir.join(layout::DATA))?;
        sync_dir(self.dir)?;
        sync_dir(&parent(self.dir))
    }

    fn ensure_schema(&mut self, backend: &SledBackend) -> Result<(), OpenError> {
        let outcome = schema::ensure(backend, self.options.node, self.options.now_ms)
            .map_err(|source| OpenError::Schema { dir: self.dir(), source })?;
        match outcome {
            Outcome::Created => self.report.created = true,
            Outcome::Current => {}
            Outcome::Migrated { from } => self.report.migrated_from = Some(from),
        }
        Ok(())
    }

    /// Creates the head of a new store, and rewrites one that was wrong; from here on syncs maintain it.
    fn finish_head(&self, head: &HeadState, backend: &SledBackend) -> io::Result<()> {
        if *head == HeadState::Absent || self.report.loss.is_some() {
            Head::create(self.dir, backend.group())?;
        }
        if remove_if_present(&self.dir.join(layout::CREATING))? {
            sync_dir(self.dir)?;
        }
        backend.keep_head(Head::open(self.dir)?);
        Ok(())
    }

    fn blobs_dir(&self) -> PathBuf {
        self.options.blobs_dir.clone().unwrap_or_else(|| self.dir.join(layout::PAYLOADS))
    }

    fn dir(&self) -> PathBuf {
        self.dir.to_owned()
    }

    fn io(&self, operation: &'static str) -> impl Fn(io::Error) -> OpenError + use<> {
        let path = self.dir();
        move |source| OpenError::Io { operation, path: path.clone(), source }
    }
}

fn data_is_missing(dir: &Path) -> bool {
    fs::metadata(dir.join(layout::DATA)).is_ok_and(|metadata| metadata.len() == 0)
        || !dir.join(layout::DATA).exists()
}

fn obstacle(error: &CopyError) -> String {
    match error {
        CopyError::TooMany { last } => {
            format!("{} copies of it exist already, the last in {}", recovery::COPIES_MAX, last.display())
        }
        CopyError::NoSpace { needed, free } => {
            format!("a copy needs {needed} free bytes and there are {free}")
        }
        CopyError::Io(error) => format!("copying it failed: {error}"),
    }
}
