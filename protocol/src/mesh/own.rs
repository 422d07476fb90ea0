//! This node's own advert: when to sign a new one, and under which sequence.
//!
//! A sequence is used only after it is durable. A node that crashed between signing and keeping it would otherwise come
//! back, sign something else under the same sequence, and have lied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;

use crate::advert::{Advert, OfferSet, Sequence, Site};
use crate::ids::{BlobDigest, MeshName, NodeId};
use crate::time::{Mono, Now};
use crate::trust::{Membership, RootChain, Verified, seal};

/// How long an advert lives. It is renewed at half of it, never as a heartbeat.
pub const ADVERT_LIFETIME: Duration = Duration::from_secs(4 * 60 * 60);

/// How long changes are gathered before they are published together.
pub const GATHER: Duration = Duration::from_millis(20);

/// How long a node that comes back waits for what it offers before it publishes its first advert: until then others go on
/// with what it said last, instead of seeing its tools vanish and return.
pub const OFFERS_WAIT: Duration = Duration::from_secs(3);

/// The least time between two publications; others take sixteen in ten seconds.
pub const PUBLISH_GAP: Duration = Duration::from_secs(1);

/// Who this node is.
#[derive(Clone)]
pub struct Identity {
    /// Its key.
    pub key: SigningKey,
    /// What its org says of it.
    pub membership: Verified<Membership>,
    /// Its org's roots.
    pub roots: RootChain,
    /// What people call it.
    pub name: String,
    /// Where it runs.
    pub site: Site,
    /// The software's version, for people.
    pub version: String,
}

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .field("membership", &self.membership)
            .finish_non_exhaustive()
    }
}

/// What this node offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnOffers {
    /// To everybody.
    pub federation: OfferSet,
    /// To its own org, beyond what everybody gets.
    pub org: OfferSet,
    /// The descriptors that both sets name.
    pub descriptors: BTreeMap<BlobDigest, Arc<[u8]>>,
}

/// This node's own advert.
#[derive(Clone, Debug)]
pub struct Own {
    /// Who this node is.
    pub identity: Identity,
    addresses: Vec<String>,
    offers: (Option<BlobDigest>, Option<BlobDigest>),
    last: Sequence,
    /// The sequence that is being made durable.
    pending: Option<Sequence>,
    leaving: bool,
    /// Until when the first publication waits for the offers.
    held: Option<Mono>,
    /// When to publish next; `None` when nothing has changed and nothing was published yet.
    due: Option<Mono>,
    published: Option<Mono>,
}

impl Own {
    /// The advert of `identity`, continuing after `last`, the newest sequence that is durable.
    pub fn new(identity: Identity, last: Sequence) -> Self {
        Self {
            identity,
            addresses: Vec::new(),
            offers: (None, None),
            last,
            pending: None,
            leaving: false,
            held: None,
            due: None,
            published: None,
        }
    }

    /// Publishes nothing before the offers are known, or `until` has come.
    pub fn hold(&mut self, until: Mono) {
        self.held = Some(until);
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.identity.membership.node
    }

    /// Where this node can be dialled.
    pub fn set_addresses(&mut self, addresses: Vec<String>, now: Mono) {
        if self.addresses != addresses {
            self.addresses = addresses;
            self.touch(now);
        }
    }

    /// The digests of what it offers: to everybody, and to its own org.
    pub fn set_offers(&mut self, federation: Option<BlobDigest>, org: Option<BlobDigest>, now: Mono) {
        self.held = None;
        if self.offers != (federation, org) {
            self.offers = (federation, org);
            self.touch(now);
        }
    }

    /// A new membership; one of another epoch begins its own sequence.
    pub fn set_membership(&mut self, membership: Verified<Membership>, now: Mono) {
        self.identity.membership = membership;
        self.touch(now);
    }

    /// Withdraws everything: the node goes away.
    pub fn leave(&mut self, now: Mono) {
        self.leaving = true;
        self.held = None;
        self.due = Some(now);
    }

    /// Something has changed: publish soon, but not too soon after the last time.
    pub fn touch(&mut self, now: Mono) {
        let soonest = self.published.map_or(now, |last| last + PUBLISH_GAP).max(now + GATHER);
        if self.due.is_none_or(|due| due > soonest) {
            self.due = Some(soonest);
        }
    }

    /// Others know an advert of ours that we do not remember, because the disk was lost: continue after it.
    pub fn observed(&mut self, sequence: Sequence, now: Mono) {
        if sequence > self.last && sequence.epoch == self.identity.membership.epoch {
            self.last = sequence;
            self.pending = None;
            self.touch(now);
        }
    }

    /// The sequence to make durable now, if it is time to publish. It is at least the wall clock's milliseconds, so that a
    /// node that lost its disk does not begin below what others remember and does not sign one number twice.
    pub fn take_due(&mut self, now: Now) -> Option<Sequence> {
        if self.pending.is_some() || self.ready_at().is_none_or(|ready| now.mono < ready) {
            return None;
        }
        self.due = None;
        let epoch = self.identity.membership.epoch;
        let next = if self.last.epoch == epoch { self.last.seq.saturating_add(1) } else { 1 };
        let seq = next.max(now.wall.as_millis());
        self.pending = Some(Sequence { epoch, seq });
        self.pending
    }

    /// The sequence is durable: the advert to publish under it.
    pub fn persisted(&mut self, sequence: Sequence, mesh: &MeshName, now: Now) -> Option<Verified<Advert>> {
        self.pending.take_if(|pending| *pending == sequence)?;
        self.last = sequence;
        if sequence.epoch != self.identity.membership.epoch {
            self.touch(now.mono);
            return None;
        }
        self.published = Some(now.mono);
        let renewal = now.mono + ADVERT_LIFETIME / 2;
        self.due = Some(self.due.map_or(renewal, |due| due.min(renewal)));
        Some(seal(self.advert(sequence, now), &self.identity.key, Some(mesh)))
    }

    fn advert(&self, sequence: Sequence, now: Now) -> Advert {
        let (identity, offering) = (&self.identity, !self.leaving);
        Advert {
            node: self.node(),
            org: identity.membership.org.clone(),
            epoch: sequence.epoch,
            seq: sequence.seq,
            membership: identity.membership.bytes().to_vec().into(),
            name: identity.name.clone(),
            site: identity.site.clone(),
            addresses: self.addresses.clone(),
            offers: self.offers.0.filter(|_| offering),
            org_offers: self.offers.1.filter(|_| offering),
            claims: None,
            audience: None,
            leaving: self.leaving,
            issued: now.wall,
            expires: now.wall + ADVERT_LIFETIME,
        }
    }

    /// When to look again.
    pub fn next_timeout(&self) -> Option<Mono> {
        if self.pending.is_some() { None } else { self.ready_at() }
    }

    fn ready_at(&self) -> Option<Mono> {
        self.due.map(|due| self.held.map_or(due, |held| held.max(due)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestNode, TestOrg, mesh, places};
    use crate::time::Wall;

    const DAY: u64 = 86_400_000;

    fn at(ms: u64) -> Now {
        Now { mono: Mono::from_micros(ms * 1000), wall: Wall::from_millis(1_795_000_000_000 + ms) }
    }

    fn own(last: Sequence) -> Own {
        let org = TestOrg::new("acme.example", 1, at(0).wall);
        let node = TestNode::new(&org, 1, places("DE"));
        let identity = Identity {
            key: node.key.clone(),
            membership: node.membership.clone(),
            roots: org.chain.clone(),
            name: "n".into(),
            site: Site::default(),
            version: String::new(),
        };
        Own::new(identity, last)
    }

    #[test]
    fn nothing_is_signed_before_its_sequence_is_durable() {
        let later = at(0).wall.as_millis() + DAY;
        let mut own = own(Sequence { epoch: 1, seq: later });
        own.touch(at(0).mono);
        assert_eq!(own.take_due(at(19)), None);
        let sequence = own.take_due(at(20)).unwrap();
        assert_eq!(sequence, Sequence { epoch: 1, seq: later + 1 });
        assert_eq!(own.take_due(at(5000)), None);
        assert!(own.persisted(Sequence { epoch: 1, seq: later }, &mesh(), at(21)).is_none());
        assert_eq!(own.persisted(sequence, &mesh(), at(21)).unwrap().seq, later + 1);
    }

    #[test]
    fn changes_are_gathered_and_renewal_comes_at_half_life() {
        let mut own = own(Sequence::default());
        own.set_addresses(vec!["a".into()], at(0).mono);
        own.set_offers(Some(BlobDigest::of(b"x")), None, at(10).mono);
        let sequence = own.take_due(at(20)).unwrap();
        own.persisted(sequence, &mesh(), at(20)).unwrap();
        own.set_addresses(vec!["b".into()], at(30).mono);
        assert_eq!(own.next_timeout(), Some(at(1020).mono));
        let sequence = own.take_due(at(1020)).unwrap();
        own.persisted(sequence, &mesh(), at(1020)).unwrap();
        assert_eq!(own.next_timeout(), Some(at(1020).mono + ADVERT_LIFETIME / 2));
    }

    #[test]
    fn who_leaves_withdraws_at_once() {
        let mut own = own(Sequence::default());
        own.set_offers(Some(BlobDigest::of(b"x")), None, at(0).mono);
        own.leave(at(1).mono);
        let sequence = own.take_due(at(1)).unwrap();
        let advert = own.persisted(sequence, &mesh(), at(1)).unwrap();
        assert!(advert.leaving && advert.offers.is_none());
    }

    #[test]
    fn a_node_that_forgot_its_sequence_goes_on_above_it() {
        let mut forgetful = own(Sequence::default());
        forgetful.touch(at(0).mono);
        assert!(forgetful.take_due(at(20)).unwrap().seq >= at(20).wall.as_millis());
        let mut late = own(Sequence::default());
        let known = Sequence { epoch: 1, seq: at(DAY).wall.as_millis() };
        late.observed(known, at(0).mono);
        assert!(late.take_due(at(20)).unwrap() > known);
    }

    #[test]
    fn a_node_that_comes_back_waits_for_its_offers_and_not_for_ever() {
        let mut held = own(Sequence { epoch: 1, seq: 1 });
        held.hold(at(3000).mono);
        held.set_addresses(vec!["a".into()], at(0).mono);
        assert_eq!((held.take_due(at(2999)), held.next_timeout()), (None, Some(at(3000).mono)));
        assert!(held.clone().take_due(at(3000)).is_some());
        held.set_offers(Some(BlobDigest::of(b"x")), None, at(100).mono);
        assert!(held.take_due(at(120)).is_some());
    }
}
