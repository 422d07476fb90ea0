//! What this reader has pinned, and the checks that start from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{MeshName, NodeId, ObjectDigest, OrgName, RootHash};
use crate::time::{CLOCK_SKEW_MAX, Wall};

use super::membership::{MEMBERSHIP_LIFETIME_MAX, Membership};
use super::memory::{Seal, SealMemory};
use super::root::{OrgRoot, RootChain, RootError};
use super::seal::{SealError, Verified};

/// Most verified memberships that are remembered, so that an advert's membership is not checked again each time. When
/// full, the whole memory is dropped: a check costs tens of microseconds, a subtle eviction costs a bug.
pub const VERIFIED_MEMBERSHIPS_MAX: usize = 8192;

/// Why a membership was refused. The reader's clock and pins decide, never the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// It cannot be read, or its signature is wrong.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Nobody here has pinned this org.
    #[error("org {0} is not pinned here")]
    Unpinned(OrgName),
    /// The org is pinned and its root has not arrived yet.
    #[error("the root of {0} has not arrived yet")]
    RootMissing(OrgName),
    /// The org's root no longer holds, or not yet.
    #[error("the root of its org does not hold")]
    Root(#[from] RootError),
    /// The key that signed may not issue memberships for the org.
    #[error("the key that signed may not issue memberships for {0}")]
    Issuer(OrgName),
    /// Past its end.
    #[error("the membership of {node} in {org} expired at {expires}")]
    Expired {
        /// The member.
        node: NodeId,
        /// The org.
        org: OrgName,
        /// When it ended.
        expires: Wall,
    },
    /// Not valid yet, by more than clocks may differ.
    #[error("the membership of {0} is not valid yet: is the clock of this node or of its issuer wrong?")]
    NotYet(NodeId),
    /// It claims a longer life than a membership may have.
    #[error("the membership of {0} lives longer than seven days")]
    TooLongLived(NodeId),
    /// It is another node's.
    #[error("the membership is {claimed}'s, and {actual} presented it")]
    WrongNode {
        /// Whose it is.
        claimed: NodeId,
        /// Who showed it.
        actual: NodeId,
    },
}

impl MembershipError {
    /// A short name for logs, metrics and the wire.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Seal(_) => "bad_membership",
            Self::Unpinned(_) => "unpinned_org",
            Self::RootMissing(_) => "root_missing",
            Self::Root(_) => "root_invalid",
            Self::Issuer(_) => "wrong_issuer",
            Self::Expired { .. } => "membership_expired",
            Self::NotYet(_) => "membership_not_yet_valid",
            Self::TooLongLived(_) => "membership_too_long",
            Self::WrongNode { .. } => "wrong_node",
        }
    }
}

/// Why a chain of roots was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootRefusal {
    /// The chain does not verify.
    #[error(transparent)]
    Root(#[from] RootError),
    /// Its org is not pinned.
    #[error("org {0} is not pinned here")]
    Unpinned(OrgName),
    /// It begins with another root than the pinned one.
    #[error("the root of {org} is {actual}, and {pinned} is pinned")]
    Mismatch {
        /// The org.
        org: OrgName,
        /// What is pinned.
        pinned: RootHash,
        /// What the chain begins with.
        actual: RootHash,
    },
}

/// One pinned org.
#[derive(Clone, Debug)]
pub struct PinnedOrg {
    /// The digest that was pinned.
    pub pin: RootHash,
    /// Its newest root, once a chain from the pin has arrived.
    pub root: Option<OrgRoot>,
    /// That chain, to pass on.
    pub chain: Option<RootChain>,
}

/// The orgs that this reader has pinned.
#[derive(Clone, Debug)]
pub struct Anchors {
    mesh: MeshName,
    orgs: BTreeMap<OrgName, PinnedOrg>,
    verified: BTreeMap<ObjectDigest, Verified<Membership>>,
    memory: Option<Arc<dyn SealMemory>>,
}

impl Anchors {
    /// Nothing pinned, for `mesh`.
    pub fn new(mesh: MeshName) -> Self {
        Self { mesh, orgs: BTreeMap::new(), verified: BTreeMap::new(), memory: None }
    }

    /// Shares what has been opened with the other readers of this process; see [`SealMemory`].
    pub fn share(&mut self, memory: Arc<dyn SealMemory>) {
        self.memory = Some(memory);
    }

    /// What is shared, if anything is.
    pub(crate) fn memory(&self) -> Option<&dyn SealMemory> {
        self.memory.as_deref()
    }

    /// The mesh for which signatures count.
    pub const fn mesh(&self) -> &MeshName {
        &self.mesh
    }

    /// Pins `org` to `pin`. A pin that changes forgets the root that was learned under the old one.
    pub fn pin(&mut self, org: OrgName, pin: RootHash) {
        let unchanged = self.orgs.get(&org).is_some_and(|pinned| pinned.pin == pin);
        if !unchanged {
            self.verified.clear();
            self.orgs.insert(org, PinnedOrg { pin, root: None, chain: None });
        }
    }

    /// Takes a pin back. Returns whether there was one.
    pub fn unpin(&mut self, org: &OrgName) -> bool {
        self.verified.clear();
        self.orgs.remove(org).is_some()
    }

    /// What is pinned.
    pub const fn orgs(&self) -> &BTreeMap<OrgName, PinnedOrg> {
        &self.orgs
    }

    /// Whether `org` is pinned.
    pub fn is_pinned(&self, org: &OrgName) -> bool {
        self.orgs.contains_key(org)
    }

    /// Takes a chain of roots for a pinned org. Returns whether it taught anything new; an older or equal chain does
    /// not, and a newer one never shrinks.
    ///
    /// # Errors
    /// [`RootRefusal`].
    pub fn learn(&mut self, chain: RootChain) -> Result<bool, RootRefusal> {
        let root = chain.verify()?;
        let actual = chain.pin().ok_or(RootError::Malformed("an empty chain"))?;
        let Some(pinned) = self.orgs.get_mut(&root.org) else { return Err(RootRefusal::Unpinned(root.org)) };
        if pinned.pin != actual {
            return Err(RootRefusal::Mismatch { org: root.org, pinned: pinned.pin, actual });
        }
        if pinned.root.as_ref().is_some_and(|known| known.version >= root.version) {
            return Ok(false);
        }
        pinned.root = Some(root);
        pinned.chain = Some(chain);
        self.verified.clear();
        Ok(true)
    }

    /// Checks a membership from the pin down: root, issuer, signature, times. A membership checked before is found by
    /// its digest, and only its times are checked again.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub fn verify_membership(
        &mut self,
        bytes: &[u8],
        now: Wall,
    ) -> Result<Verified<Membership>, MembershipError> {
        let digest = ObjectDigest::of(bytes);
        if let Some(known) = self.verified.get(&digest) {
            let known = known.clone();
            self.root_of(&known.org)?.check_time(now)?;
            check_times(&known, now)?;
            return Ok(known);
        }
        let seal = Seal::<Membership>::read(bytes, digest, self.memory())?;
        let root = self.root_of(&seal.claimed().org)?;
        root.check_time(now)?;
        let issuer = seal.key_id().filter(|key| root.issuers.contains(key));
        let issuer = issuer.ok_or_else(|| MembershipError::Issuer(seal.claimed().org.clone()))?;
        let membership = seal.verify(&issuer, &self.mesh, self.memory())?;
        check_times(&membership, now)?;
        self.remember(digest, membership.clone());
        Ok(membership)
    }

    fn remember(&mut self, digest: ObjectDigest, membership: Verified<Membership>) {
        if self.verified.len() >= VERIFIED_MEMBERSHIPS_MAX {
            self.verified.clear();
        }
        self.verified.insert(digest, membership);
    }

    fn root_of(&self, org: &OrgName) -> Result<&OrgRoot, MembershipError> {
        let pinned = self.orgs.get(org).ok_or_else(|| MembershipError::Unpinned(org.clone()))?;
        pinned.root.as_ref().ok_or_else(|| MembershipError::RootMissing(org.clone()))
    }
}

fn check_times(membership: &Membership, now: Wall) -> Result<(), MembershipError> {
    let node = membership.node;
    if membership.expires.since(membership.not_before) > MEMBERSHIP_LIFETIME_MAX {
        return Err(MembershipError::TooLongLived(node));
    }
    if membership.not_before > now + CLOCK_SKEW_MAX {
        return Err(MembershipError::NotYet(node));
    }
    if now >= membership.expires {
        let (org, expires) = (membership.org.clone(), membership.expires);
        return Err(MembershipError::Expired { node, org, expires });
    }
    Ok(())
}
