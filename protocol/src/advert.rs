//! What nodes promise: adverts, which are small and gossiped, and offer sets, which are pulled by digest.

use std::collections::BTreeMap;
use std::time::Duration;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::constraints::{DataClass, OrgSet};
use crate::geo::{Country, CountrySet};
use crate::ids::{BlobDigest, ContractDigest, ItemName, Kind, NodeId, ObjectDigest, OrgName, ServerName};
use crate::time::{CLOCK_SKEW_MAX, Wall};
use crate::trust::memory::Seal;
use crate::trust::{Anchors, Membership, MembershipError, SealError, SealedType, Verified};

/// Longest life of an advert: a day. A node renews its own long before.
pub const ADVERT_LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Most addresses in an advert, and most bytes of each.
pub const ADDRESSES_MAX: usize = 16;
const ADDRESS_BYTES_MAX: usize = 256;

/// Most labels of a site, and most bytes of a label's key or value.
pub const LABELS_MAX: usize = 16;
const LABEL_BYTES_MAX: usize = 64;

/// Most orgs in an advert's audience.
const AUDIENCE_MAX: usize = 64;

/// Most offers in one set.
pub const OFFERS_MAX: usize = 4096;

/// Most bytes of an offer set.
pub const OFFER_SET_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes of one item's descriptor: its whole JSON object.
pub const DESCRIPTOR_BYTES_MAX: usize = 256 * 1024;

/// Where a node runs, as it says. What counts of it is bounded by its membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Site {
    /// The countries in which it may process a call.
    #[n(0)]
    pub processing_locations: CountrySet,
    /// The country whose law its operator is under.
    #[n(1)]
    pub operator_country: Option<Country>,
    /// Region and other labels; for people and preferences, never for the law.
    #[n(2)]
    pub labels: BTreeMap<String, String>,
}

/// A node's signed word on itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Advert {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// The org it claims; its membership proves it.
    #[n(1)]
    pub org: OrgName,
    /// The epoch of its membership.
    #[n(2)]
    pub epoch: u32,
    /// Greater for each advert of this epoch; at least the wall clock's milliseconds when it was made.
    #[n(3)]
    pub seq: u64,
    /// The membership's envelope.
    #[n(4)]
    pub membership: ByteVec,
    /// What people call the node.
    #[n(5)]
    pub name: String,
    /// Where it runs.
    #[n(6)]
    pub site: Site,
    /// Where it can be dialled, as multiaddrs.
    #[n(7)]
    pub addresses: Vec<String>,
    /// The offer set that every org may see.
    #[n(8)]
    pub offers: Option<BlobDigest>,
    /// The offer set that only its own org may see.
    #[n(9)]
    pub org_offers: Option<BlobDigest>,
    /// The digest of the claims that others attest; room for the attestations of a later version.
    #[n(10)]
    pub claims: Option<BlobDigest>,
    /// Who may be sent this advert; none means anybody admitted.
    #[n(11)]
    pub audience: Option<OrgSet>,
    /// Whether the node is going away and withdraws all it offered.
    #[n(12)]
    pub leaving: bool,
    /// When it was made.
    #[n(13)]
    pub issued: Wall,
    /// When it ends.
    #[n(14)]
    pub expires: Wall,
}

impl SealedType for Advert {
    const TYPE: &'static str = "advert";
    const VERSION: u16 = 1;
    const BYTES_MAX: usize = 8 * 1024;
}

/// An advert's place in its node's history: later is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Sequence {
    /// The epoch.
    #[n(0)]
    pub epoch: u32,
    /// The number within the epoch.
    #[n(1)]
    pub seq: u64,
}

impl Advert {
    /// Its place in its node's history.
    pub const fn sequence(&self) -> Sequence {
        Sequence { epoch: self.epoch, seq: self.seq }
    }
}

/// Why an advert was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdvertError {
    /// Unreadable, or not signed by the node it names.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Its membership does not hold.
    #[error("the membership inside the advert does not hold")]
    Membership(#[from] MembershipError),
    /// The advert and its membership disagree.
    #[error("the advert of {node} names {field} that its membership does not")]
    Disagrees {
        /// The node.
        node: NodeId,
        /// What differs.
        field: &'static str,
    },
    /// It claims a place that its membership does not allow.
    #[error("the advert of {node} claims {beyond}, which is outside its membership ({allowed})")]
    Location {
        /// The node.
        node: NodeId,
        /// What it claims beyond.
        beyond: Box<CountrySet>,
        /// What the membership allows.
        allowed: Box<CountrySet>,
    },
    /// A list or a text in it is too long, or it lives too long.
    #[error("the advert of {node} breaks a bound: {what}")]
    Bound {
        /// The node.
        node: NodeId,
        /// Which bound.
        what: &'static str,
    },
    /// Past its end.
    #[error("the advert of {0} has expired")]
    Expired(NodeId),
    /// From the future, by more than clocks may differ.
    #[error("the advert of {0} is from the future")]
    NotYet(NodeId),
    /// No newer than what is known.
    #[error("the advert of {node} has sequence {got:?}, and {known:?} is known")]
    Stale {
        /// The node.
        node: NodeId,
        /// What came.
        got: Sequence,
        /// What is known.
        known: Sequence,
    },
    /// The node publishes faster than a node may.
    #[error("the node {0} publishes too often")]
    TooOften(NodeId),
    /// The directory holds as many nodes as it may.
    #[error("the directory is full")]
    Full,
}

impl AdvertError {
    /// A short name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Seal(_) => "bad_signature",
            Self::Membership(error) => error.code(),
            Self::Disagrees { .. } => "membership_mismatch",
            Self::Location { .. } => "location_outside_membership",
            Self::Bound { .. } => "bound",
            Self::Expired(_) => "expired",
            Self::NotYet(_) => "future",
            Self::Stale { .. } => "stale",
            Self::TooOften(_) => "too_often",
            Self::Full => "full",
        }
    }

    /// Whether an honest relay could have passed this on: clocks differ, news cross, pins differ between orgs.
    pub const fn is_honest_mistake(&self) -> bool {
        matches!(
            self,
            Self::Expired(_) | Self::NotYet(_) | Self::Stale { .. } | Self::TooOften(_) | Self::Full
        ) || matches!(
            self,
            Self::Membership(
                MembershipError::Unpinned(_)
                    | MembershipError::RootMissing(_)
                    | MembershipError::Expired { .. }
                    | MembershipError::NotYet(_)
                    | MembershipError::Root(_)
            )
        )
    }
}

/// An advert with everything about it checked: the node's signature, the org's membership, places, bounds and times.
#[derive(Clone, Debug)]
pub struct TrustedAdvert {
    /// The advert.
    pub advert: Verified<Advert>,
    /// The membership inside it.
    pub membership: Verified<Membership>,
}

impl TrustedAdvert {
    /// Checks an advert from the pins down. Cheap checks come first, so that garbage costs little.
    ///
    /// # Errors
    /// [`AdvertError`].
    pub fn verify(bytes: &[u8], anchors: &mut Anchors, now: Wall) -> Result<Self, AdvertError> {
        let seal = Seal::read(bytes, ObjectDigest::of(bytes), anchors.memory())?;
        Self::check(seal, anchors, now)
    }

    /// The same for an advert that has been read already.
    pub(crate) fn check(seal: Seal<Advert>, anchors: &mut Anchors, now: Wall) -> Result<Self, AdvertError> {
        let claimed = seal.claimed();
        check_bounds(claimed)?;
        check_times(claimed, now)?;
        let membership = anchors.verify_membership(&claimed.membership, now)?;
        check_against(claimed, &membership)?;
        let signer = claimed.node;
        Ok(Self { advert: seal.verify(&signer, anchors.mesh(), anchors.memory())?, membership })
    }

    /// When it stops counting: its own end or its membership's, whichever is first.
    pub fn expires(&self) -> Wall {
        self.advert.expires.min(self.membership.expires)
    }
}

fn check_bounds(advert: &Advert) -> Result<(), AdvertError> {
    let labels = &advert.site.labels;
    let long = |text: &String| text.len() > LABEL_BYTES_MAX;
    let what = if advert.addresses.len() > ADDRESSES_MAX {
        "addresses"
    } else if advert.addresses.iter().any(|address| address.len() > ADDRESS_BYTES_MAX) {
        "an address's length"
    } else if labels.len() > LABELS_MAX || labels.iter().any(|(key, value)| long(key) || long(value)) {
        "labels"
    } else if long(&advert.name) || advert.name.chars().any(char::is_control) {
        "the name"
    } else if advert.audience.as_ref().is_some_and(|audience| audience.0.len() > AUDIENCE_MAX) {
        "the audience"
    } else if advert.expires.since(advert.issued) > ADVERT_LIFETIME_MAX {
        "its lifetime"
    } else {
        return Ok(());
    };
    Err(AdvertError::Bound { node: advert.node, what })
}

fn check_times(advert: &Advert, now: Wall) -> Result<(), AdvertError> {
    if now >= advert.expires {
        return Err(AdvertError::Expired(advert.node));
    }
    if advert.issued > now + CLOCK_SKEW_MAX {
        return Err(AdvertError::NotYet(advert.node));
    }
    Ok(())
}

fn check_against(advert: &Advert, membership: &Membership) -> Result<(), AdvertError> {
    let node = advert.node;
    let field = if membership.node != node {
        "a node"
    } else if membership.org != advert.org {
        "an org"
    } else if membership.epoch != advert.epoch {
        "an epoch"
    } else {
        let (claimed, allowed) = (advert.site.processing_locations, membership.locations_max);
        let beyond = claimed.difference(&allowed);
        return if beyond.is_empty() {
            Ok(())
        } else {
            Err(AdvertError::Location { node, beyond: beyond.into(), allowed: allowed.into() })
        };
    };
    Err(AdvertError::Disagrees { node, field })
}

/// One promise: this item of this server, under this contract.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Offer {
    /// The server.
    #[n(0)]
    pub server: ServerName,
    /// What kind of item it is.
    #[n(1)]
    pub kind: Kind,
    /// The item, as the server names it.
    #[n(2)]
    pub name: ItemName,
    /// The digest of its contract.
    #[n(3)]
    pub contract: ContractDigest,
    /// The digest of its whole descriptor, which is pulled by it.
    #[n(4)]
    pub descriptor: BlobDigest,
    /// The highest class of data that it may be given.
    #[n(5)]
    pub class_max: DataClass,
}

impl Offer {
    /// Where it stands in a set.
    pub const fn place(&self) -> (&ServerName, Kind, &ItemName) {
        (&self.server, self.kind, &self.name)
    }

    /// Most bytes that it takes in a set.
    pub fn bytes_max(&self) -> usize {
        // Two digests, two numbers, and what CBOR puts before each part.
        const OTHERS: usize = 2 * 34 + 16;
        self.server.as_str().len() + self.name.as_str().len() + OTHERS
    }
}

/// What one node offers to one audience, ordered by server, kind and name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OfferSet {
    /// The layout's version, 1.
    #[n(0)]
    layout: u16,
    /// The offers, in ascending order of server, kind and name, each item once.
    #[n(1)]
    offers: Vec<Offer>,
}

/// Why an offer set was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferSetError {
    /// Unreadable.
    #[error("the offer set cannot be read")]
    Codec(#[from] CodecError),
    /// Made by a version of Comity that this one does not know.
    #[error("the offer set has layout {0}; this node knows layout 1")]
    Layout(u16),
    /// More offers than a node may make.
    #[error("{0} offers where at most {OFFERS_MAX} are allowed")]
    TooMany(usize),
    /// Out of order, or an item named twice.
    #[error("the offers are not in ascending order")]
    Order,
}

/// A set with no offer in it.
impl Default for OfferSet {
    fn default() -> Self {
        Self { layout: 1, offers: Vec::new() }
    }
}

impl OfferSet {
    /// The set of `offers`, put in order; of two for one item the first stays.
    ///
    /// # Errors
    /// [`OfferSetError::TooMany`].
    pub fn new(mut offers: Vec<Offer>) -> Result<Self, OfferSetError> {
        offers.sort_by(|a, b| a.place().cmp(&b.place()));
        offers.dedup_by(|a, b| a.place() == b.place());
        if offers.len() > OFFERS_MAX {
            return Err(OfferSetError::TooMany(offers.len()));
        }
        Ok(Self { layout: 1, offers })
    }

    /// Reads a set that was pulled.
    ///
    /// # Errors
    /// [`OfferSetError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, OfferSetError> {
        let set: Self = codec::decode(bytes, OFFER_SET_BYTES_MAX)?;
        if set.layout != 1 {
            return Err(OfferSetError::Layout(set.layout));
        }
        if set.offers.len() > OFFERS_MAX {
            return Err(OfferSetError::TooMany(set.offers.len()));
        }
        let ascending = set.offers.is_sorted_by(|a, b| a.place() < b.place());
        if ascending { Ok(set) } else { Err(OfferSetError::Order) }
    }

    /// The set's bytes, whose [`BlobDigest`] adverts carry.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The offers in order.
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }
}

#[cfg(test)]
mod tests;
