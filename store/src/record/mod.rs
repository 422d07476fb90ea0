//! How a typed record becomes bytes, and how an older version of it is read.
//!
//! A stored record is the CBOR array `[version, body]`, and the body is an array of the fields in fixed
//! order. Reading is strict: exactly one byte string stands for a record, so trailing bytes, missing or
//! additional fields, non-minimal integers and indefinite lengths are all errors. A version that this
//! program does not know is an error too, never a default.

mod key;
mod table;

#[cfg(test)]
mod tests;

use std::fmt;

use minicbor::data::Type;
use minicbor::decode::Error as CborError;
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::Tree;

pub use key::{Key, OrgVersion};
pub use table::{PAGE_RECORDS, Records, Table};

/// One version of a record type, linked to the version before it.
pub trait Versioned: Encode<()> + for<'bytes> Decode<'bytes, ()> {
    /// Starts at 1 and grows by 1.
    const VERSION: u32;

    /// The version before; [`First`] for version 1.
    type Previous: Versioned;

    /// Turns a record of the version before into one of this version.
    fn upgrade(previous: Self::Previous) -> Self;
}

/// A record type that lives in a tree. Implemented by the newest version only.
pub trait Record: Versioned {
    /// Where it lives.
    const TREE: Tree;

    /// What it is found by.
    type Key: Key;
}

/// There is no version before the first: the end of every migration chain.
#[derive(Debug)]
pub enum First {}

/// A stored record that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("record {} in {tree}", KeyText(key))]
pub struct RecordError {
    /// Where it is.
    pub tree: Tree,
    /// Its key as stored.
    pub key: Vec<u8>,
    /// What is wrong with it.
    pub source: DecodeError,
}

/// What is wrong with a record's bytes.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer program, or never by any.
    #[error("version {found} is not known to this program, which knows versions 1 to {newest}")]
    UnknownVersion {
        /// The version in the record.
        found: u32,
        /// The newest version that this program reads.
        newest: u32,
    },
    /// Not a record at all.
    #[error("malformed CBOR")]
    Malformed(#[from] CborError),
    /// Decodable, but not the bytes that an encoder of that version writes.
    #[error("version {version} decodes, but not from canonical bytes")]
    NotCanonical {
        /// The version in the record.
        version: u32,
    },
    /// The key does not have the form of the tree's keys.
    #[error("malformed key")]
    MalformedKey,
}

/// The stored form of a record.
pub fn encode<R: Versioned>(record: &R) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    let written = header(&mut encoder, R::VERSION).and_then(|()| encoder.encode(record).map(drop));
    written.expect("writing to a Vec does not fail, and records encode no fallible types");
    encoder.into_writer()
}

/// Reads a record of this version or, through the chain of upgrades, of any version before it.
///
/// # Errors
/// As [`DecodeError`] says; no input panics.
pub fn decode<R: Versioned>(bytes: &[u8]) -> Result<R, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    if decoder.datatype()? != Type::Array || decoder.array()? != Some(2) {
        return Err(CborError::message("not an array of version and body").into());
    }
    let version = decoder.u32()?;
    decode_version::<R>(version, bytes, decoder.position(), R::VERSION)
}

fn decode_version<R: Versioned>(
    version: u32,
    bytes: &[u8],
    body_at: usize,
    newest: u32,
) -> Result<R, DecodeError> {
    if R::VERSION == First::VERSION || version > R::VERSION {
        return Err(DecodeError::UnknownVersion { found: version, newest });
    }
    if version < R::VERSION {
        return decode_version::<R::Previous>(version, bytes, body_at, newest).map(R::upgrade);
    }
    let record: R = Decoder::new(&bytes[body_at..]).decode()?;
    if encode(&record) == bytes { Ok(record) } else { Err(DecodeError::NotCanonical { version }) }
}

fn header<E: minicbor::encode::Write>(
    encoder: &mut Encoder<E>,
    version: u32,
) -> Result<(), minicbor::encode::Error<E::Error>> {
    encoder.array(2)?.u32(version)?;
    Ok(())
}

impl Versioned for First {
    const VERSION: u32 = 0;
    type Previous = First;

    fn upgrade(previous: First) -> First {
        previous
    }
}

impl<C> Encode<C> for First {
    fn encode<W: minicbor::encode::Write>(
        &self,
        _: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match *self {}
    }
}

impl<'bytes, C> Decode<'bytes, C> for First {
    fn decode(_: &mut Decoder<'bytes>, _: &mut C) -> Result<Self, CborError> {
        Err(CborError::message("no record has version 0"))
    }
}

/// A key for people: as text if it is printable, else in hexadecimal.
struct KeyText<'a>(&'a [u8]);

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(self.0) {
            Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => write!(f, "{text:?}"),
            _ => self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}
