//! Signed objects: COSE_Sign1 (RFC 9052) over canonical CBOR, with ed25519 (RFC 8032) and strict verification.
//!
//! The `external_aad` is `comity/<type>/<version>` and the mesh's name, so that a signature made for one purpose, one
//! version or one mesh is void for every other. What is signed, hashed and passed on is always the bytes as received.

use core::fmt;
use std::sync::Arc;

use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, iana};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::ids::{MeshName, NodeId, ObjectDigest};

/// A type that is signed: its name and version go under the signature.
pub trait SealedType: Encode<()> + for<'b> Decode<'b, ()> + Clone {
    /// The name in the signature's context.
    const TYPE: &'static str;
    /// The version of the layout.
    const VERSION: u16;
    /// Most bytes that the signed envelope may have.
    const BYTES_MAX: usize;
}

/// Why a signed object was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Larger than its type may be.
    #[error("{actual} bytes where a {kind} has at most {max}")]
    TooLong {
        /// What it should have been.
        kind: &'static str,
        /// Bytes received.
        actual: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not a COSE_Sign1 envelope of the form that we make.
    #[error("the {0} is not a COSE_Sign1 envelope with an EdDSA key id and a payload")]
    Envelope(&'static str),
    /// The payload is not what its type says.
    #[error("the payload of the {0} cannot be read")]
    Payload(&'static str, #[source] CodecError),
    /// The signature is not the key's.
    #[error("the signature of the {0} does not verify")]
    Signature(&'static str),
}

/// A signed object as received: its claims are readable and prove nothing yet.
#[derive(Clone)]
pub struct Unverified<T> {
    value: T,
    envelope: CoseSign1,
    bytes: Arc<[u8]>,
}

impl<T: SealedType> Unverified<T> {
    /// Reads an envelope.
    ///
    /// # Errors
    /// [`SealError`]: too long, not the one envelope form, or a payload that is not a canonical `T`.
    pub fn decode(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.len() > T::BYTES_MAX {
            return Err(SealError::TooLong { kind: T::TYPE, actual: bytes.len(), max: T::BYTES_MAX });
        }
        let envelope = CoseSign1::from_slice(bytes).map_err(|_| SealError::Envelope(T::TYPE))?;
        let payload = envelope.payload.as_deref().ok_or(SealError::Envelope(T::TYPE))?;
        let value =
            codec::decode(payload, T::BYTES_MAX).map_err(|error| SealError::Payload(T::TYPE, error))?;
        // The one form: EdDSA and a key id in the protected header and nothing anywhere else. Comparing with our own
        // encoding also refuses critical headers, other algorithms and every second encoding of the same envelope.
        let canonical =
            build(payload.to_vec(), &envelope.protected.header.key_id, envelope.signature.clone());
        if canonical != bytes {
            return Err(SealError::Envelope(T::TYPE));
        }
        Ok(Self { value, envelope, bytes: bytes.into() })
    }

    /// What the object claims. Use it to find the key that should have signed; believe nothing else.
    pub const fn claimed(&self) -> &T {
        &self.value
    }

    /// The envelope's bytes as received.
    pub const fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The id of the key that is said to have signed: its 32 public bytes.
    pub fn key_id(&self) -> Option<NodeId> {
        self.envelope.protected.header.key_id.as_slice().try_into().ok().map(NodeId::from_bytes)
    }

    /// Checks the signature with `key` for `mesh`.
    ///
    /// # Errors
    /// [`SealError::Signature`].
    pub fn verify(self, key: &VerifyingKey, mesh: Option<&MeshName>) -> Result<Verified<T>, SealError> {
        let refuse = || SealError::Signature(T::TYPE);
        if self.key_id() != Some(NodeId::from(*key)) {
            return Err(refuse());
        }
        self.envelope.verify_signature(&context::<T>(mesh), |signature, message| {
            let signature = Signature::from_slice(signature).map_err(|_| refuse())?;
            key.verify_strict(message, &signature).map_err(|_| refuse())
        })?;
        Ok(Verified { value: Arc::new(self.value), digest: ObjectDigest::of(&self.bytes), bytes: self.bytes })
    }
}

/// A signed object whose signature has been checked with the key that the caller chose. Cheap to clone.
#[derive(Clone)]
pub struct Verified<T> {
    value: Arc<T>,
    bytes: Arc<[u8]>,
    digest: ObjectDigest,
}

impl<T> Verified<T> {
    /// The envelope's bytes as received.
    pub const fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The digest of those bytes.
    pub const fn digest(&self) -> ObjectDigest {
        self.digest
    }
}

impl<T> core::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.value, f)
    }
}

/// Signs `value` with `key` for `mesh`.
pub fn seal<T: SealedType>(value: T, key: &SigningKey, mesh: Option<&MeshName>) -> Verified<T> {
    let key_id = key.verifying_key().to_bytes();
    let unsigned =
        CoseSign1Builder::new().protected(protected(&key_id)).payload(codec::encode(&value)).build();
    let signature = key.sign(&unsigned.tbs_data(&context::<T>(mesh))).to_vec();
    let bytes: Arc<[u8]> = build(unsigned.payload.unwrap_or_default(), &key_id, signature).into();
    Verified { value: Arc::new(value), digest: ObjectDigest::of(&bytes), bytes }
}

fn protected(key_id: &[u8]) -> coset::Header {
    HeaderBuilder::new().algorithm(iana::Algorithm::EdDSA).key_id(key_id.to_vec()).build()
}

fn build(payload: Vec<u8>, key_id: &[u8], signature: Vec<u8>) -> Vec<u8> {
    let envelope =
        CoseSign1Builder::new().protected(protected(key_id)).payload(payload).signature(signature).build();
    envelope.to_vec().expect("an envelope of byte strings always encodes")
}

fn context<T: SealedType>(mesh: Option<&MeshName>) -> Vec<u8> {
    let context =
        Context(format!("comity/{}/{}", T::TYPE, T::VERSION), mesh.map(|mesh| mesh.as_str().to_owned()));
    codec::encode(&context)
}

/// What stands beside the payload under every signature.
#[derive(Encode)]
struct Context(#[n(0)] String, #[n(1)] Option<String>);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Encode, Decode)]
    struct Note(#[n(0)] u64);

    impl SealedType for Note {
        const TYPE: &'static str = "note";
        const VERSION: u16 = 1;
        const BYTES_MAX: usize = 512;
    }

    #[derive(Clone, Debug, PartialEq, Encode, Decode)]
    struct OtherNote(#[n(0)] u64);

    impl SealedType for OtherNote {
        const TYPE: &'static str = "other";
        const VERSION: u16 = 1;
        const BYTES_MAX: usize = 512;
    }

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn mesh(name: &str) -> MeshName {
        name.parse().unwrap()
    }

    #[test]
    fn what_was_sealed_verifies_for_its_key_type_and_mesh_only() {
        let (alice, bob) = (key(1), key(2));
        let bytes = seal(Note(7), &alice, Some(&mesh("m"))).bytes().clone();
        let open = |key: &SigningKey, mesh: Option<&MeshName>| {
            Unverified::<Note>::decode(&bytes).unwrap().verify(&key.verifying_key(), mesh)
        };
        assert_eq!(*open(&alice, Some(&mesh("m"))).unwrap(), Note(7));
        assert!(open(&bob, Some(&mesh("m"))).is_err());
        assert!(open(&alice, Some(&mesh("other"))).is_err());
        assert!(open(&alice, None).is_err());
        let other = Unverified::<OtherNote>::decode(&bytes).unwrap();
        assert!(other.verify(&alice.verifying_key(), Some(&mesh("m"))).is_err());
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let alice = key(1);
        let bytes = seal(Note(7), &alice, None).bytes().to_vec();
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            let outcome = Unverified::<Note>::decode(&forged)
                .and_then(|unverified| unverified.verify(&alice.verifying_key(), None));
            assert!(outcome.is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_truncation_and_extension_is_refused() {
        let bytes = seal(Note(7), &key(1), None).bytes().to_vec();
        for length in 0..bytes.len() {
            assert!(Unverified::<Note>::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Unverified::<Note>::decode(&longer).is_err());
        assert!(matches!(Unverified::<Note>::decode(&[0; 513]), Err(SealError::TooLong { .. })));
    }
}
