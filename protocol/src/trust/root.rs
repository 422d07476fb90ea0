//! An org's root: the keys that may speak for it, and how a later version follows from an earlier one.
//!
//! A root's first version is what others pin, by digest. A later version is valid when enough keys of the version
//! before *and* enough of its own have signed it (The Update Framework, section 5.3), so an org survives the loss of a
//! key without anybody pinning anew.

use core::fmt;
use std::collections::BTreeSet;
use std::time::Duration;

use ed25519_dalek::{Signature, Signer, SigningKey};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::ids::{NodeId, OrgName, RootHash};
use crate::time::{CLOCK_SKEW_MAX, Wall};

/// Longest life of a root: one year.
pub const ROOT_LIFETIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Most versions in a chain, from the pinned one to the newest.
pub const ROOT_CHAIN_MAX: usize = 16;

/// Most keys in one root.
const KEYS_MAX: usize = 16;

/// Most bytes of one signed root.
const ROOT_BYTES_MAX: usize = 4096;

/// Most bytes of a chain.
pub(crate) const CHAIN_BYTES_MAX: usize = ROOT_CHAIN_MAX * ROOT_BYTES_MAX;

/// The version of this layout.
const LAYOUT: u16 = 1;

/// ed25519, the only algorithm of this layout.
const ALG_EDDSA: i16 = -8;

/// One key of a root.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RootKey {
    /// The algorithm, as COSE numbers it; -8 is EdDSA.
    #[n(0)]
    pub alg: i16,
    /// The public key; it is its own id.
    #[n(1)]
    pub public: NodeId,
}

/// Who may speak for an org.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OrgRoot {
    /// The layout's version, 1.
    #[n(0)]
    layout: u16,
    /// The org.
    #[n(1)]
    pub org: OrgName,
    /// 1 for the first root, one more for each that follows.
    #[n(2)]
    pub version: u32,
    /// The keys that may sign roots.
    #[n(3)]
    pub keys: Vec<RootKey>,
    /// How many of them must sign.
    #[n(4)]
    pub threshold: u8,
    /// The keys that may issue memberships.
    #[n(5)]
    pub issuers: Vec<NodeId>,
    /// The keys that may revoke.
    #[n(6)]
    pub revokers: Vec<NodeId>,
    /// The digest of the version before; none for the first.
    #[n(7)]
    pub previous: Option<RootHash>,
    /// When it was made.
    #[n(8)]
    pub issued: Wall,
    /// When it ends.
    #[n(9)]
    pub expires: Wall,
}

/// A root and the signatures under it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedRoot {
    #[n(0)]
    payload: ByteVec,
    #[n(1)]
    signatures: Vec<RootSignature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct RootSignature(#[n(0)] NodeId, #[n(1)] ByteVec);

/// Why a root or a chain of roots was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Cannot be read.
    #[error("the root cannot be read")]
    Codec(#[from] CodecError),
    /// Made by a version of Comity that this one does not know.
    #[error("the root has layout {0}; this node knows layout {LAYOUT}")]
    Layout(u16),
    /// The content contradicts itself.
    #[error("the root is not well formed: {0}")]
    Malformed(&'static str),
    /// Too few valid signatures of the keys that count.
    #[error("the root of {org} version {version} lacks signatures: {valid} of {needed} of the {whose} keys")]
    Threshold {
        /// The org.
        org: OrgName,
        /// The root's version.
        version: u32,
        /// Valid signatures found.
        valid: usize,
        /// Signatures needed.
        needed: u8,
        /// `old` or `new`.
        whose: &'static str,
    },
    /// A chain that does not follow version by version.
    #[error("the chain of roots breaks at version {0}")]
    Chain(u32),
    /// Past its end, by the reader's clock.
    #[error("the root of {0} has expired")]
    Expired(OrgName),
}

impl OrgRoot {
    /// A first root in which `key` alone signs, issues and revokes.
    pub fn first(org: OrgName, key: NodeId, issued: Wall, lifetime: Duration) -> Self {
        Self {
            layout: LAYOUT,
            org,
            version: 1,
            keys: vec![RootKey { alg: ALG_EDDSA, public: key }],
            threshold: 1,
            issuers: vec![key],
            revokers: vec![key],
            previous: None,
            issued,
            expires: issued + lifetime.min(ROOT_LIFETIME_MAX),
        }
    }

    fn check(&self) -> Result<(), RootError> {
        let distinct: BTreeSet<_> = self.keys.iter().map(|key| key.public).collect();
        let fault = if self.layout != LAYOUT {
            return Err(RootError::Layout(self.layout));
        } else if self.keys.is_empty() || self.keys.len() > KEYS_MAX {
            "it needs 1 to 16 keys"
        } else if self.keys.iter().any(|key| key.alg != ALG_EDDSA) {
            "a key's algorithm is unknown"
        } else if distinct.len() != self.keys.len() {
            "a key is named twice"
        } else if self.threshold == 0 || usize::from(self.threshold) > self.keys.len() {
            "the threshold is not between 1 and the number of keys"
        } else if self.issuers.len() > KEYS_MAX || self.revokers.len() > KEYS_MAX {
            "it names more than 16 issuers or revokers"
        } else if self.version == 0 || (self.version == 1) != self.previous.is_none() {
            "only version 1 has no version before it"
        } else if self.expires <= self.issued || self.expires.since(self.issued) > ROOT_LIFETIME_MAX {
            "it lives longer than a year"
        } else {
            return Ok(());
        };
        Err(RootError::Malformed(fault))
    }
}

impl SignedRoot {
    /// Signs `root` with `keys`.
    pub fn sign(root: &OrgRoot, keys: &[&SigningKey]) -> Self {
        let payload = codec::encode(root);
        let signatures = keys
            .iter()
            .map(|key| {
                let signature = key.sign(&signed_bytes(&payload)).to_bytes().to_vec();
                RootSignature(key.verifying_key().into(), signature.into())
            })
            .collect();
        Self { payload: payload.into(), signatures }
    }

    /// The digest by which others pin this root. It covers the content, not who has signed it.
    pub fn hash(&self) -> RootHash {
        RootHash::of(&self.payload)
    }

    fn open(&self) -> Result<OrgRoot, RootError> {
        if self.signatures.len() > 2 * KEYS_MAX {
            return Err(RootError::Malformed("it has more signatures than keys can make"));
        }
        let root: OrgRoot = codec::decode(&self.payload, ROOT_BYTES_MAX)?;
        root.check()?;
        Ok(root)
    }

    /// Checks that enough keys of `by` have signed `root`.
    fn check_threshold(&self, root: &OrgRoot, by: &OrgRoot, whose: &'static str) -> Result<(), RootError> {
        let message = signed_bytes(&self.payload);
        let valid: BTreeSet<_> = self
            .signatures
            .iter()
            .filter(|RootSignature(key, signature)| {
                by.keys.iter().any(|known| known.public == *key) && verifies(key, signature, &message)
            })
            .map(|RootSignature(key, _)| *key)
            .collect();
        if valid.len() >= usize::from(by.threshold) {
            return Ok(());
        }
        Err(RootError::Threshold {
            org: root.org.clone(),
            version: root.version,
            valid: valid.len(),
            needed: by.threshold,
            whose,
        })
    }
}

fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    [b"comity/org-root/1\0".as_slice(), payload].concat()
}

fn verifies(key: &NodeId, signature: &[u8], message: &[u8]) -> bool {
    let (Some(key), Ok(signature)) = (key.verifying_key(), Signature::from_slice(signature)) else {
        return false;
    };
    key.verify_strict(message, &signature).is_ok()
}

/// An org's roots from the pinned one to the newest, as files and links carry them.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct RootChain(#[n(0)] Vec<SignedRoot>);

impl RootChain {
    /// The chain that begins with `first`.
    pub fn new(first: SignedRoot) -> Self {
        Self(vec![first])
    }

    /// Reads a chain without believing it.
    ///
    /// # Errors
    /// [`RootError::Codec`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RootError> {
        Ok(codec::decode(bytes, CHAIN_BYTES_MAX)?)
    }

    /// The chain's bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Adds the version that follows.
    pub fn push(&mut self, next: SignedRoot) {
        self.0.push(next);
    }

    /// The digest to pin: that of the first version.
    pub fn pin(&self) -> Option<RootHash> {
        self.0.first().map(SignedRoot::hash)
    }

    /// How many versions it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no version at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks every step from the pinned root and returns the newest. Expiry is the caller's to check, because only
    /// the newest root's matters and only at the time of use.
    ///
    /// # Errors
    /// [`RootError`], the first that is found.
    pub fn verify(&self) -> Result<OrgRoot, RootError> {
        if self.0.is_empty() || self.0.len() > ROOT_CHAIN_MAX {
            return Err(RootError::Malformed("a chain has 1 to 16 versions"));
        }
        let mut newest: Option<(OrgRoot, RootHash)> = None;
        for signed in &self.0 {
            let root = signed.open()?;
            signed.check_threshold(&root, &root, "new")?;
            if let Some((before, hash)) = &newest {
                let follows = root.version == before.version + 1
                    && root.previous == Some(*hash)
                    && root.org == before.org;
                if !follows {
                    return Err(RootError::Chain(root.version));
                }
                signed.check_threshold(&root, before, "old")?;
            } else if root.version != 1 {
                return Err(RootError::Chain(root.version));
            }
            newest = Some((root, signed.hash()));
        }
        newest.map(|(root, _)| root).ok_or(RootError::Malformed("a chain has 1 to 16 versions"))
    }
}

impl fmt::Debug for RootChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootChain({} versions, pin {:?})", self.0.len(), self.pin())
    }
}

impl OrgRoot {
    /// Whether the root holds at `now`, give or take [`CLOCK_SKEW_MAX`] at its beginning.
    ///
    /// # Errors
    /// [`RootError::Expired`], or [`RootError::Malformed`] when it is not valid yet.
    pub fn check_time(&self, now: Wall) -> Result<(), RootError> {
        if now >= self.expires {
            return Err(RootError::Expired(self.org.clone()));
        }
        if self.issued > now + CLOCK_SKEW_MAX {
            return Err(RootError::Malformed("it is not valid yet"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn id(key: &SigningKey) -> NodeId {
        key.verifying_key().into()
    }

    fn first(key: &SigningKey) -> OrgRoot {
        OrgRoot::first("acme.example".parse().unwrap(), id(key), Wall::from_millis(1000), DAY)
    }

    fn next(before: &SignedRoot, keys: &[&SigningKey], threshold: u8) -> OrgRoot {
        let mut root = before.open().unwrap();
        root.version += 1;
        root.previous = Some(before.hash());
        root.keys = keys.iter().map(|key| RootKey { alg: ALG_EDDSA, public: id(key) }).collect();
        root.threshold = threshold;
        root
    }

    #[test]
    fn a_chain_reads_back_and_verifies() {
        let (old, new) = (key(1), key(2));
        let one = SignedRoot::sign(&first(&old), &[&old]);
        let mut chain = RootChain::new(one.clone());
        chain.push(SignedRoot::sign(&next(&one, &[&new], 1), &[&old, &new]));
        let chain = RootChain::decode(&chain.encode()).unwrap();
        assert_eq!(chain.verify().unwrap().version, 2);
        assert_eq!(chain.pin(), Some(one.hash()));
    }

    #[test]
    fn a_rotation_needs_the_old_keys_and_the_new() {
        let (old, new, thief) = (key(1), key(2), key(3));
        let one = SignedRoot::sign(&first(&old), &[&old]);
        for signers in [&[&new][..], &[&old], &[&thief, &new]] {
            let mut chain = RootChain::new(one.clone());
            chain.push(SignedRoot::sign(&next(&one, &[&new], 1), signers));
            assert!(matches!(chain.verify(), Err(RootError::Threshold { .. })));
        }
    }

    #[test]
    fn one_key_signing_twice_counts_once() {
        let (a, b) = (key(1), key(2));
        let one = SignedRoot::sign(&first(&a), &[&a]);
        let mut chain = RootChain::new(one.clone());
        chain.push(SignedRoot::sign(&next(&one, &[&a, &b], 2), &[&a, &a]));
        assert!(matches!(chain.verify(), Err(RootError::Threshold { valid: 1, needed: 2, .. })));
    }

    #[test]
    fn contradictions_are_refused() {
        let signer = key(1);
        let faults: [fn(&mut OrgRoot); 7] = [
            |root| root.layout = 2,
            |root| root.threshold = 0,
            |root| root.threshold = 2,
            |root| root.keys.clear(),
            |root| root.keys.push(root.keys[0].clone()),
            |root| root.version = 0,
            |root| root.expires = root.issued + DAY * 400,
        ];
        for (at, fault) in faults.into_iter().enumerate() {
            let mut root = first(&signer);
            fault(&mut root);
            assert!(RootChain::new(SignedRoot::sign(&root, &[&signer])).verify().is_err(), "fault {at}");
        }
        assert!(first(&signer).check_time(Wall::from_millis(1000) + DAY).is_err());
    }
}
