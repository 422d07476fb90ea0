//! What this node tells the others of itself.

use std::sync::Arc;

use crate::advert::{OfferSet, Sequence};
use crate::ids::{BlobDigest, OrgName};
use crate::time::Now;

use super::blobs::Visibility;
use super::own::OwnOffers;
use super::{Effect, Mesh, MeshEvent};

impl Mesh {
    /// What this node offers from now on. Publishes when it differs from what was offered before.
    pub fn set_offers(&mut self, offers: OwnOffers, now: Now) {
        let org = self.own.identity.membership.org.clone();
        self.own_blobs.clear();
        let mine = Visibility::only([org.clone()]);
        let federation = self.keep_own_set(&offers.federation, &offers, &Visibility::everyone());
        let internal = self.keep_own_set(&offers.org, &offers, &mine);
        self.own.set_offers(federation, internal, now.mono);
        self.changed = true;
        self.act(now);
    }

    fn keep_own_set(
        &mut self,
        set: &OfferSet,
        offers: &OwnOffers,
        visibility: &Visibility,
    ) -> Option<BlobDigest> {
        if set.offers().is_empty() {
            return None;
        }
        for offer in set.offers() {
            if let Some(bytes) = offers.descriptors.get(&offer.descriptor) {
                self.blobs.put(offer.descriptor, bytes.clone(), visibility);
            }
        }
        let bytes: Arc<[u8]> = set.encode().into();
        let digest = BlobDigest::of(&bytes);
        self.blobs.put_set(digest, bytes, set.clone(), visibility);
        self.own_blobs.insert(digest);
        Some(digest)
    }

    /// The own sequence is durable: sign, enter into the own directory, and tell the others.
    pub(super) fn on_persisted(&mut self, sequence: Sequence, now: Now) {
        let mesh = self.anchors.mesh().clone();
        let Some(advert) = self.own.persisted(sequence, &mesh, now) else { return };
        let bytes = advert.bytes().clone();
        match self.take_advert(&bytes, None, now) {
            Ok(_) if advert.audience.is_none() => self.effects.push_back(Effect::Publish(bytes)),
            Ok(_) => {}
            // Most often the own membership has ended: nobody would take the advert, and the operator must know.
            Err(error) => {
                let (from, code, detail) = (self.node(), error.code(), error.to_string());
                self.event(MeshEvent::AdvertRefused { from, code, detail });
            }
        }
        if advert.leaving {
            self.part_from_all();
        }
    }

    fn part_from_all(&mut self) {
        let links: Vec<_> = self.links.keys().copied().collect();
        for connection in links {
            // Gossip may not reach anybody in time; the neighbours at least hear it on the link.
            let me = self.own.node();
            self.send_adverts(connection, &[me]);
            self.part(connection, "the node is going away");
        }
    }

    /// This node's org.
    pub fn org(&self) -> &OrgName {
        &self.own.identity.membership.org
    }
}
