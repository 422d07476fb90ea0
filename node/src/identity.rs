//! The data directory and the keys in it.
//!
//! ```text
//! comity.toml  node.key  org.key  membership.cbor  roots/<org>.cbor  store/  blobs/  comity.sock
//! ```
//! The directory is the owner's alone (0700) and keys are owner-only files (0600), created once and never overwritten. A
//! key that others could have read is refused: it may be anybody's by now, and only the operator can say.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use comity_protocol::ids::{NodeId, OrgName};
use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::SigningKey;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::files::{MODE_PRIVATE, ReadError, WriteError, create_atomic, read_bounded};

/// What a key file's one line begins with; the rest is 64 hexadecimal digits.
const KEY_PREFIX: &str = "comity-secret-key:ed25519:";
/// Largest key file.
const KEY_FILE_BYTES_MAX: usize = 256;
/// Permissions of the data directory.
const MODE_DIR: u32 = 0o700;

/// Where a node keeps all that it must not lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir(PathBuf);

/// Why the data directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Neither a flag nor the environment says where it is.
    #[error("no data directory: HOME is not set; give --data-dir or set COMITY_DATA_DIR")]
    Unknown,
    /// It cannot be made or read.
    #[error("cannot use the data directory {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may enter it.
    #[error("others may enter the data directory {} (mode {mode:o}); run: chmod 700 {}", path.display(), path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl DataDir {
    /// The directory given, else `$XDG_DATA_HOME/comity`, else `~/.local/share/comity`. Nothing is created.
    pub fn locate(given: Option<PathBuf>) -> Result<Self, DataDirError> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        given
            .or_else(|| absolute("XDG_DATA_HOME").map(|data| data.join("comity")))
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share/comity")))
            .map(DataDir)
            .ok_or(DataDirError::Unknown)
    }

    /// The directory at `path`. Nothing is created.
    pub fn at(path: PathBuf) -> Self {
        DataDir(path)
    }

    /// Makes the directory, with its parents, for its owner alone. One that exists must be its owner's alone already.
    pub fn create(&self) -> Result<(), DataDirError> {
        let made = DirBuilder::new().recursive(true).mode(MODE_DIR).create(&self.0);
        made.map_err(|source| DataDirError::Io { path: self.0.clone(), source })?;
        self.check()
    }

    /// Whether nobody but its owner may enter.
    pub fn check(&self) -> Result<(), DataDirError> {
        let metadata = fs::metadata(&self.0);
        let metadata = metadata.map_err(|source| DataDirError::Io { path: self.0.clone(), source })?;
        match metadata.permissions().mode() & 0o777 {
            mode if mode & 0o077 != 0 => Err(DataDirError::Open { path: self.0.clone(), mode }),
            _ => Ok(()),
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration, unless `--config` names another.
    pub fn config(&self) -> PathBuf {
        self.0.join("comity.toml")
    }

    /// The node's own key.
    pub fn node_key(&self) -> PathBuf {
        self.0.join("node.key")
    }

    /// The org's key, on the issuer's machine only.
    pub fn org_key(&self) -> PathBuf {
        self.0.join("org.key")
    }

    /// This node's membership, as its org signed it.
    pub fn membership(&self) -> PathBuf {
        self.0.join("membership.cbor")
    }

    /// An org's chain of roots. An org's name is DNS-like, so it holds no path separator.
    pub fn root(&self, org: &OrgName) -> PathBuf {
        self.roots().join(format!("{org}.cbor"))
    }

    /// Every chain of roots that is known.
    pub fn roots(&self) -> PathBuf {
        self.0.join("roots")
    }

    /// The database.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Payloads that are too large for the database.
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// Where `comity stdio` reaches the node that runs here.
    pub fn stdio_socket(&self) -> PathBuf {
        self.0.join("stdio.sock")
    }

    /// The control socket of the node that runs here.
    pub fn socket(&self) -> PathBuf {
        self.0.join("comity.sock")
    }
}

/// Why a key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// There is a key already.
    #[error("{} exists already; a key is never overwritten: remove it yourself if it is really not needed", .0.display())]
    Exists(PathBuf),
    /// Others than the owner may read it.
    #[error("others may read the key {} (mode {mode:o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{} is not a Comity key file (one line: {KEY_PREFIX} and 64 hexadecimal digits)", .0.display())]
    Malformed(PathBuf),
    /// The system has no randomness to give.
    #[error("the system gave no randomness for a key")]
    Randomness(#[from] getrandom::Error),
}

/// Makes a new key and its file.
pub fn create_key(path: &Path) -> Result<SigningKey, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice())?;
    let key = SigningKey::from_bytes(&seed);
    write_key(path, &key)?;
    Ok(key)
}

/// Writes a key to a file of its own.
pub fn write_key(path: &Path, key: &SigningKey) -> Result<(), KeyError> {
    let digits = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(key.as_bytes()));
    let line = Zeroizing::new(format!("{KEY_PREFIX}{}\n", *digits));
    create_atomic(path, line.as_bytes(), MODE_PRIVATE).map_err(|error| match error.source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists(path.to_owned()),
        _ => KeyError::Write(error),
    })
}

/// Reads a key file that only its owner can read.
pub fn load_key(path: &Path) -> Result<SigningKey, KeyError> {
    let text = Zeroizing::new(read_bounded(path, KEY_FILE_BYTES_MAX)?);
    check_private(path)?;
    let malformed = || KeyError::Malformed(path.to_owned());
    let line = std::str::from_utf8(&text).map_err(|_| malformed())?.trim_end();
    let digits = line.strip_prefix(KEY_PREFIX).filter(|digits| digits.len() == 64).ok_or_else(malformed)?;
    let mut seed = Zeroizing::new([0; 32]);
    HEXLOWER_PERMISSIVE.decode_mut(digits.as_bytes(), seed.as_mut_slice()).map_err(|_| malformed())?;
    Ok(SigningKey::from_bytes(&seed))
}

fn check_private(path: &Path) -> Result<(), KeyError> {
    let metadata = fs::metadata(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    match metadata.mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(KeyError::Exposed { path: path.to_owned(), mode }),
        _ => Ok(()),
    }
}

/// The identity that a key gives.
pub fn node_id(key: &SigningKey) -> NodeId {
    NodeId::from(key.verifying_key())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, DataDir) {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = DataDir(temp.path().join("a/b"));
        dir.create().expect("create");
        (temp, dir)
    }

    #[test]
    fn a_key_is_made_once_and_reads_back() {
        let (_temp, dir) = dir();
        let key = create_key(&dir.node_key()).expect("create");
        assert_eq!(fs::metadata(dir.node_key()).expect("metadata").mode() & 0o777, 0o600);
        assert_eq!(load_key(&dir.node_key()).expect("load").to_bytes(), key.to_bytes());
        assert!(matches!(create_key(&dir.node_key()), Err(KeyError::Exists(_))));
        assert_eq!(load_key(&dir.node_key()).expect("load").to_bytes(), key.to_bytes());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_command_that_mends_it() {
        let (_temp, dir) = dir();
        create_key(&dir.node_key()).expect("create");
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(dir.node_key(), fs::Permissions::from_mode(mode)).expect("chmod");
            let error = load_key(&dir.node_key()).expect_err("exposed").to_string();
            assert!(error.contains(&format!("chmod 600 {}", dir.node_key().display())), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let (_temp, dir) = dir();
        for content in
            ["", KEY_PREFIX, &format!("{KEY_PREFIX}zz"), &format!("{KEY_PREFIX}{}", "g".repeat(64))]
        {
            fs::write(dir.node_key(), content).expect("write");
            fs::set_permissions(dir.node_key(), fs::Permissions::from_mode(0o600)).expect("chmod");
            assert!(matches!(load_key(&dir.node_key()), Err(KeyError::Malformed(_))), "{content}");
        }
        assert!(matches!(load_key(&dir.org_key()), Err(KeyError::Read(_))));
    }

    #[test]
    fn the_data_directory_is_its_owners_alone() {
        let (_temp, dir) = dir();
        assert_eq!(fs::metadata(dir.path()).expect("metadata").mode() & 0o777, 0o700);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let error = dir.create().expect_err("open to others").to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }
}
