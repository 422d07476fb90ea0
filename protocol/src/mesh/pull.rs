//! Offers and descriptors: what adverts refer to, pulled by digest.

use std::collections::BTreeSet;

use crate::advert::{Advert, DESCRIPTOR_BYTES_MAX, OfferSet};
use crate::ids::{BlobDigest, NodeId, OrgName};
use crate::time::Now;

use super::blobs::Visibility;
use super::directory::Entry;
use super::fetch::{Kind, Wanted};
use super::{Effect, FetchId, Mesh, MeshEvent};

impl Mesh {
    /// Wants what an advert refers to and is not here yet.
    pub(super) fn want_offers(&mut self, entry: &Entry, now: Now) {
        let node = entry.advert().node;
        if node == self.node() {
            return;
        }
        for (digest, visibility) in self.readable_sets(entry.advert(), entry.org()) {
            self.want_set(digest, node, &visibility, now);
        }
    }

    /// The offer sets of an advert that this node may read, and to whom it may pass each on.
    fn readable_sets(&self, advert: &Advert, org: &OrgName) -> Vec<(BlobDigest, Visibility)> {
        let federation = match &advert.audience {
            None => Visibility::everyone(),
            Some(audience) => Visibility::only(audience.0.iter().cloned().chain([org.clone()])),
        };
        let internal = advert.org_offers.filter(|_| org == self.org());
        let sets = advert.offers.map(|digest| (digest, federation)).into_iter();
        sets.chain(internal.map(|digest| (digest, Visibility::only([org.clone()])))).collect()
    }

    fn want_set(&mut self, digest: BlobDigest, owner: NodeId, visibility: &Visibility, now: Now) {
        if !self.blobs.widen(&digest, visibility) {
            self.fetcher.want(digest, Kind::OfferSet, owner, visibility, now.mono);
        } else if let Some(set) = self.blobs.set(&digest).cloned() {
            self.want_descriptors(&set, owner, visibility, now);
        }
    }

    fn want_descriptors(&mut self, set: &OfferSet, owner: NodeId, visibility: &Visibility, now: Now) {
        for offer in set.offers() {
            if !self.blobs.widen(&offer.descriptor, visibility) {
                self.fetcher.want(offer.descriptor, Kind::Descriptor, owner, visibility, now.mono);
            }
        }
    }

    pub(super) fn begin_pulls(&mut self, now: Now) {
        if self.fetcher.is_empty() {
            return;
        }
        let linked: BTreeSet<NodeId> =
            self.links.values().filter(|link| link.is_up()).map(|link| link.peer).collect();
        let linked: Vec<_> = linked.into_iter().collect();
        for pull in self.fetcher.plan(&linked, now.mono) {
            let known = self.directory.get(&pull.from);
            let addresses = known.map(|entry| entry.advert().addresses.clone()).unwrap_or_default();
            self.effects.push_back(Effect::Fetch {
                id: pull.id,
                from: pull.from,
                addresses,
                digests: pull.digests,
            });
        }
    }

    pub(super) fn on_blobs(&mut self, id: FetchId, answers: Option<Vec<Option<Vec<u8>>>>, now: Now) {
        for (digest, wanted, bytes) in self.fetcher.finish(id, answers, now.mono) {
            self.take_blob(digest, &wanted, bytes, now);
        }
    }

    fn take_blob(&mut self, digest: BlobDigest, wanted: &Wanted, bytes: Vec<u8>, now: Now) {
        self.changed = true;
        match wanted.kind {
            Kind::Descriptor if bytes.len() > DESCRIPTOR_BYTES_MAX => {}
            Kind::Descriptor => {
                self.blobs.put(digest, bytes.into(), &wanted.visibility);
            }
            Kind::OfferSet => self.take_set(digest, wanted, bytes, now),
        }
    }

    fn take_set(&mut self, digest: BlobDigest, wanted: &Wanted, bytes: Vec<u8>, now: Now) {
        let owners: Vec<_> = wanted.owners().iter().copied().collect();
        match OfferSet::decode(&bytes) {
            Ok(set) => {
                self.blobs.put_set(digest, bytes.into(), set.clone(), &wanted.visibility);
                for owner in owners {
                    self.want_descriptors(&set, owner, &wanted.visibility, now);
                }
            }
            // The digest was in an advert that the owner signed, so it is the owner who is at fault.
            Err(error) => self.refuse_set(&owners, &error.to_string()),
        }
    }

    fn refuse_set(&mut self, owners: &[NodeId], detail: &str) {
        for from in owners {
            let detail = detail.to_owned();
            self.event(MeshEvent::AdvertRefused { from: *from, code: "bad_offer_set", detail });
        }
    }

    /// Drops what no advert refers to any more.
    pub(super) fn sweep(&mut self) {
        let adverts = self.directory.iter().map(|(_, entry)| entry.advert());
        let theirs = adverts.flat_map(|advert| [advert.offers, advert.org_offers]).flatten();
        let referenced: BTreeSet<BlobDigest> = theirs.chain(self.own_blobs.iter().copied()).collect();
        self.blobs.retain(&referenced);
        let named: BTreeSet<BlobDigest> = referenced
            .iter()
            .filter_map(|digest| self.blobs.set(digest))
            .flat_map(|set| set.offers().iter().map(|offer| offer.descriptor))
            .chain(referenced.iter().copied())
            .collect();
        self.fetcher.retain(|digest| named.contains(digest));
    }
}
