//! `roots`: every version of an org's signed root that was accepted.

use minicbor::{Decode, Encode};

use super::first_version;
use crate::Tree;
use crate::backend::KeyRange;
use crate::record::{OrgVersion, Records, Table};
use crate::store::ReadError;

/// A signed root as it came.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct SignedRoot {
    /// The signed bytes as received.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub envelope: Vec<u8>,
}

first_version!(SignedRoot, Tree::Roots, OrgVersion);

impl Table<'_, SignedRoot> {
    /// The highest version of `org`'s root.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn latest(&self, org: &str) -> Result<Option<(OrgVersion, SignedRoot)>, ReadError> {
        self.last(&KeyRange::prefix(&OrgVersion::prefix(org)))
    }

    /// Every version of `org`'s root in ascending order.
    pub fn of_org(&self, org: &str) -> Records<'_, SignedRoot> {
        self.range(KeyRange::prefix(&OrgVersion::prefix(org)))
    }
}
