//! What has been opened before: a place where readers of one process may share signed objects whose signature one of them
//! has checked.
//!
//! A node has one reader, and drops what it knows already before it checks anything; so it has no use for this. The
//! simulator has thousands in one process, each of which is sent the same bytes. A memory holds only objects whose
//! signature was found good: what is false is checked, and refused, each time.

use core::any::Any;
use core::fmt;
use std::sync::Arc;

use crate::ids::{MeshName, NodeId, ObjectDigest};

use super::seal::{SealError, SealedType, Unverified, Verified};

/// Where opened objects are kept, by the digest of all of their bytes. One memory serves the readers of one mesh: the
/// mesh's name is under every signature and not in the digest.
pub trait SealMemory: fmt::Debug + Send + Sync {
    /// What was kept under `digest`.
    fn find(&self, digest: &ObjectDigest) -> Option<Arc<dyn Any + Send + Sync>>;

    /// Keeps an object, or does not.
    fn keep(&self, digest: ObjectDigest, object: Arc<dyn Any + Send + Sync>);
}

/// An object whose signature is good, with the key that made it.
pub(crate) struct Opened<T> {
    object: Verified<T>,
    key: NodeId,
}

/// A signed object on its way to being verified: read now, or opened before.
pub(crate) enum Seal<T> {
    Fresh(Box<Unverified<T>>, ObjectDigest),
    Before(Arc<Opened<T>>),
}

impl<T: SealedType + Send + Sync + 'static> Seal<T> {
    /// Reads an envelope whose bytes have `digest`, unless it was opened before.
    pub(crate) fn read(
        bytes: &[u8],
        digest: ObjectDigest,
        memory: Option<&dyn SealMemory>,
    ) -> Result<Self, SealError> {
        let before = memory.and_then(|memory| memory.find(&digest)).and_then(|found| found.downcast().ok());
        match before {
            Some(opened) => Ok(Self::Before(opened)),
            None => Ok(Self::Fresh(Unverified::decode(bytes)?.into(), digest)),
        }
    }

    /// What the object claims.
    pub(crate) fn claimed(&self) -> &T {
        match self {
            Self::Fresh(unverified, _) => unverified.claimed(),
            Self::Before(opened) => &opened.object,
        }
    }

    /// The id of the key that is said to have signed, or has.
    pub(crate) fn key_id(&self) -> Option<NodeId> {
        match self {
            Self::Fresh(unverified, _) => unverified.key_id(),
            Self::Before(opened) => Some(opened.key),
        }
    }

    /// Checks the signature with the key of `signer`, unless that was done before; then only who signed is compared.
    pub(crate) fn verify(
        self,
        signer: &NodeId,
        mesh: &MeshName,
        memory: Option<&dyn SealMemory>,
    ) -> Result<Verified<T>, SealError> {
        let refuse = || SealError::Signature(T::TYPE);
        match self {
            Self::Before(opened) if opened.key == *signer => Ok(opened.object.clone()),
            Self::Before(_) => Err(refuse()),
            Self::Fresh(unverified, digest) => {
                let key = signer.verifying_key().ok_or_else(refuse)?;
                let object = unverified.verify(&key, Some(mesh))?;
                if let Some(memory) = memory {
                    memory.keep(digest, Arc::new(Opened { object: object.clone(), key: *signer }));
                }
                Ok(object)
            }
        }
    }
}
