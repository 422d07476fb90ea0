//! The head file: proof that creation finished, and a lower bound on what the database must hold.
//!
//! sled recovers from damage by keeping the log up to the damage and forgetting the rest, without a word.
//! So after each sync the number of the last durable group is noted here, outside the database. It is
//! written in place and not synced: it may lag behind after a power cut, but it can never be ahead of what
//! was durable. A database that opens behind its head has lost acknowledged records, and opening says so.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{create_file, layout, sync_dir};

const MAGIC: &[u8; 8] = b"CMTYHD01";
const CHECK_BYTES: usize = 8;
/// Magic, group number, checksum. Far below one sector, so that it is never torn.
const HEAD_BYTES: usize = MAGIC.len() + 8 + CHECK_BYTES;

/// The open head file of a store.
#[derive(Debug)]
pub(crate) struct Head(File);

/// What the head file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeadState {
    /// There is none: the store was never completely created here.
    Absent,
    /// The store holds at least this group.
    Group(u64),
    /// The bytes are not a head.
    Damaged,
}

impl Head {
    /// What the head file in `dir` says.
    pub(crate) fn read(dir: &Path) -> io::Result<HeadState> {
        match fs::read(dir.join(layout::HEAD)) {
            Ok(bytes) => Ok(decode(&bytes).map_or(HeadState::Damaged, HeadState::Group)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HeadState::Absent),
            Err(error) => Err(error),
        }
    }

    /// Writes a new head durably; its presence is what ends the creation of a store.
    pub(crate) fn create(dir: &Path, group: u64) -> io::Result<()> {
        let temporary = dir.join(format!("{}.tmp", layout::HEAD));
        let file = create_file(&temporary)?;
        file.write_all_at(&encode(group), 0)?;
        file.sync_all()?;
        fs::rename(temporary, dir.join(layout::HEAD))?;
        sync_dir(dir)
    }

    /// Opens an existing head for [`Head::record`].
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().write(true).open(dir.join(layout::HEAD))?))
    }

    /// Notes that `group` is durable.
    pub(crate) fn record(&self, group: u64) -> io::Result<()> {
        self.0.write_all_at(&encode(group), 0)
    }
}

fn encode(group: u64) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&group.to_be_bytes());
    let check = blake3::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&check.as_bytes()[..CHECK_BYTES]);
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let group = u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?);
    (bytes == encode(group)).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_noticed() {
        let good = encode(7);
        assert_eq!(decode(&good), Some(7));
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "bit {bit}");
        }
        assert_eq!(decode(&good[..20]), None);
        assert_eq!(decode(&[]), None);
    }
}
