//! Whom a node may ask: everybody who offers the tool, as its snapshot of the mesh has it. The shell's `world::gather`, with every
//! foreign contract approved.

use std::collections::BTreeSet;

use comity_mesh::MeshSnapshot;
use comity_protocol::advert::Offer;
use comity_protocol::approval::Judgement;
use comity_protocol::constraints::{CertificationSet, TrustLevel};
use comity_protocol::ids::NodeId;
use comity_protocol::mesh::directory::Entry;
use comity_protocol::route::{Candidate, Reach, RouteRequest, Standing};
use comity_protocol::time::Wall;

use super::Office;

impl Office {
    /// Everybody who offers the tool, this node among them.
    pub(super) fn candidates(&self, request: &RouteRequest) -> Vec<Candidate> {
        let snapshot = self.handle.snapshot();
        let linked: BTreeSet<NodeId> = snapshot.linked().map(|peer| peer.node).collect();
        let me = self.handle.node();
        let others = snapshot.nodes.iter().filter(|(node, _)| **node != me);
        let theirs = others.flat_map(|(node, entry)| {
            let reach = reach(entry, linked.contains(node));
            offers(&snapshot, request, entry)
                .map(move |offer| Candidate::from_directory(&entry.trusted, offer, standing(reach)))
        });
        self.own_candidate(request).into_iter().chain(theirs).collect()
    }

    fn own_candidate(&self, request: &RouteRequest) -> Option<Candidate> {
        let stage = &self.net.lock().stage;
        let offer = stage.local_offer(self.node, &request.capability)?;
        Some(Candidate {
            site: stage.facts(self.node, offer.class_max),
            name: stage.name(self.node).into(),
            executor: true,
            contract: offer.contract,
            approval: Judgement::Approved,
            reach: Reach::Local,
            same_region: true,
            expires: Wall::from_millis(u64::MAX),
        })
    }
}

fn offers<'a>(
    snapshot: &'a MeshSnapshot,
    request: &'a RouteRequest,
    entry: &'a Entry,
) -> impl Iterator<Item = &'a Offer> {
    let advert = entry.advert();
    let own_org = *entry.org() == request.capability.org;
    let sets = [advert.offers, advert.org_offers.filter(|_| own_org)];
    let sets = sets.into_iter().flatten().filter_map(|digest| snapshot.blobs.set(&digest));
    sets.flat_map(|set| set.offers()).filter(|offer| {
        offer.server == request.capability.server
            && offer.kind == request.capability.kind
            && offer.name == request.capability.name
            && snapshot.blobs.get(&offer.descriptor).is_some()
    })
}

fn reach(entry: &Entry, linked: bool) -> Reach {
    if linked {
        Reach::Connected
    } else if entry.advert().addresses.is_empty() || entry.advert().leaving {
        Reach::Unreachable
    } else if entry.suspected {
        Reach::Suspected
    } else {
        Reach::Known
    }
}

fn standing(reach: Reach) -> Standing {
    Standing {
        trust: TrustLevel::T1,
        approval: Judgement::Approved,
        reach,
        same_region: false,
        certifications: CertificationSet::default(),
    }
}
