//! What is pulled and served by digest: offer sets and tools' descriptors, each kept once however many nodes refer to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::advert::OfferSet;
use crate::ids::{BlobDigest, OrgName};

/// Most bytes of blobs kept. When full, further blobs are not taken: the tools that they describe stay unseen until room
/// is made, and the node says so.
pub const BLOB_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Who may be given a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visibility {
    /// Anybody who has been admitted.
    pub everyone: bool,
    /// Nodes of these orgs.
    pub orgs: BTreeSet<OrgName>,
}

impl Visibility {
    /// Anybody who has been admitted.
    pub fn everyone() -> Self {
        Self { everyone: true, orgs: BTreeSet::new() }
    }

    /// Nodes of these orgs only.
    pub fn only(orgs: impl IntoIterator<Item = OrgName>) -> Self {
        Self { everyone: false, orgs: orgs.into_iter().collect() }
    }

    /// Whether a node of `org` may be given it.
    pub fn allows(&self, org: &OrgName) -> bool {
        self.everyone || self.orgs.contains(org)
    }

    /// Adds all that `other` allows.
    pub fn widen(&mut self, other: &Self) {
        self.everyone |= other.everyone;
        self.orgs.extend(other.orgs.iter().cloned());
    }
}

#[derive(Clone, Debug)]
struct Blob {
    bytes: Arc<[u8]>,
    visibility: Visibility,
}

/// The blobs of this node.
#[derive(Clone, Debug, Default)]
pub struct Blobs {
    blobs: BTreeMap<BlobDigest, Blob>,
    sets: BTreeMap<BlobDigest, Arc<OfferSet>>,
    bytes: usize,
}

impl Blobs {
    /// Keeps `bytes` under their digest. Returns whether there was room.
    pub fn put(&mut self, digest: BlobDigest, bytes: Arc<[u8]>, visibility: &Visibility) -> bool {
        if let Some(blob) = self.blobs.get_mut(&digest) {
            blob.visibility.widen(visibility);
            return true;
        }
        if self.bytes + bytes.len() > BLOB_BYTES_MAX {
            return false;
        }
        self.bytes += bytes.len();
        self.blobs.insert(digest, Blob { bytes, visibility: visibility.clone() });
        true
    }

    /// Keeps an offer set, decoded, under the digest of its bytes.
    pub fn put_set(
        &mut self,
        digest: BlobDigest,
        bytes: Arc<[u8]>,
        set: OfferSet,
        visibility: &Visibility,
    ) -> bool {
        let kept = self.put(digest, bytes, visibility);
        if kept {
            self.sets.insert(digest, Arc::new(set));
        }
        kept
    }

    /// Lets more orgs see a blob that is kept. Returns whether it is.
    pub fn widen(&mut self, digest: &BlobDigest, visibility: &Visibility) -> bool {
        let blob = self.blobs.get_mut(digest);
        blob.map(|blob| blob.visibility.widen(visibility)).is_some()
    }

    /// A blob's bytes.
    pub fn get(&self, digest: &BlobDigest) -> Option<&Arc<[u8]>> {
        self.blobs.get(digest).map(|blob| &blob.bytes)
    }

    /// A blob's bytes, if a node of `org` may be given them.
    pub fn get_for(&self, org: &OrgName, digest: &BlobDigest) -> Option<Arc<[u8]>> {
        self.blobs.get(digest).filter(|blob| blob.visibility.allows(org)).map(|blob| blob.bytes.clone())
    }

    /// An offer set.
    pub fn set(&self, digest: &BlobDigest) -> Option<&Arc<OfferSet>> {
        self.sets.get(digest)
    }

    /// Drops what `referenced`, offer sets by digest, do not need: neither they nor the descriptors they name.
    pub fn retain(&mut self, referenced: &BTreeSet<BlobDigest>) {
        self.sets.retain(|digest, _| referenced.contains(digest));
        let named = self.sets.values().flat_map(|set| set.offers()).map(|offer| offer.descriptor);
        let needed: BTreeSet<BlobDigest> = named.chain(referenced.iter().copied()).collect();
        self.blobs.retain(|digest, _| needed.contains(digest));
        self.bytes = self.blobs.values().map(|blob| blob.bytes.len()).sum();
    }

    /// Bytes kept.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_given_only_to_whom_it_is_for() {
        let (mine, other): (OrgName, OrgName) = ("a.example".parse().unwrap(), "b.example".parse().unwrap());
        let mut blobs = Blobs::default();
        let digest = BlobDigest::of(b"x");
        assert!(blobs.put(digest, b"x".as_slice().into(), &Visibility::only([mine.clone()])));
        assert!(blobs.get_for(&mine, &digest).is_some() && blobs.get_for(&other, &digest).is_none());
        assert!(blobs.put(digest, b"x".as_slice().into(), &Visibility::everyone()));
        assert!(blobs.get_for(&other, &digest).is_some());
        assert_eq!(blobs.bytes(), 1);
    }

    #[test]
    fn what_nobody_refers_to_is_dropped_and_the_bound_holds() {
        let mut blobs = Blobs::default();
        let big: Arc<[u8]> = vec![0; BLOB_BYTES_MAX].into();
        let digest = BlobDigest::of(&big);
        assert!(blobs.put(digest, big, &Visibility::everyone()));
        assert!(!blobs.put(BlobDigest::of(b"x"), b"x".as_slice().into(), &Visibility::everyone()));
        blobs.retain(&BTreeSet::new());
        assert_eq!((blobs.bytes(), blobs.get(&digest)), (0, None));
    }
}
