//! `issued`: membership certificates that this node signed as its org's issuer, by serial.

use minicbor::{Decode, Encode};

use super::{UpdateError, first_version};
use crate::Tree;
use crate::backend::KeyRange;
use crate::record::Table;

/// A certificate as it was signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Issued {
    /// The signed bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
}

first_version!(Issued, Tree::Issued, u64);

impl Table<'_, Issued> {
    /// A serial above every one in the store, from 1. Two that ask at once get the same: put the certificate
    /// with `batch.expect::<Issued>(&serial, None)`, and the later one ends in a conflict.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub fn next_serial(&self) -> Result<u64, UpdateError> {
        let last = self.last(&KeyRange::all())?.map_or(0, |(serial, _)| serial);
        last.checked_add(1).ok_or(UpdateError::Exhausted)
    }
}
