//! Keys whose byte order is the order that people expect.

/// A type that is a key. `from_bytes` accepts exactly what `to_bytes` makes.
pub trait Key: Sized {
    /// The stored form; never empty for a usable key.
    fn to_bytes(&self) -> Vec<u8>;

    /// Reads the stored form; `None` if the bytes are not one.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// Node ids.
impl Key for [u8; 32] {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

/// Ids of invites.
impl Key for [u8; 16] {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

/// Names, as UTF-8.
impl Key for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

/// Serials, big-endian so that they sort by value.
impl Key for u64 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(u64::from_be_bytes)
    }
}

/// An org's name and a version: the name, a zero byte, the version big-endian. All versions of an org
/// lie together in ascending order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrgVersion {
    /// A DNS-like name; must not contain a zero byte.
    pub org: String,
    /// The version.
    pub version: u64,
}

impl OrgVersion {
    /// What every key of `org` begins with.
    pub fn prefix(org: &str) -> Vec<u8> {
        let mut bytes = org.as_bytes().to_vec();
        bytes.push(0);
        bytes
    }
}

impl Key for OrgVersion {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Self::prefix(&self.org);
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (rest, version) = bytes.split_last_chunk::<8>()?;
        let (zero, name) = rest.split_last()?;
        let org = std::str::from_utf8(name).ok()?;
        let usable = *zero == 0 && !org.contains('\0');
        usable.then(|| Self { org: org.to_owned(), version: u64::from_be_bytes(*version) })
    }
}
