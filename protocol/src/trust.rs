//! Who may speak for whom. Nothing that a node says of itself is worth anything here.
//!
//! A reader pins the digest of an org's root. The root names the keys that may issue memberships; a membership says
//! that a node key belongs to the org and how far its claims of place may reach. Every object is a COSE_Sign1
//! (RFC 9052) over a CBOR array, verifies offline, and is bound to its type, its version and the mesh's name.

mod anchors;
mod membership;
pub(crate) mod memory;
mod root;
mod seal;
mod status;

pub use anchors::{Anchors, MembershipError, PinnedOrg, RootRefusal, VERIFIED_MEMBERSHIPS_MAX};
pub use membership::{MEMBERSHIP_LIFETIME_MAX, Membership, Role, RoleSet};
pub use memory::SealMemory;
pub use root::{OrgRoot, ROOT_CHAIN_MAX, ROOT_LIFETIME_MAX, RootChain, RootError, RootKey, SignedRoot};
pub use seal::{SealError, SealedType, Unverified, Verified, seal};
pub use status::{Attestation, Status, Subject};
