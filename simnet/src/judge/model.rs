//! The plain model of a directory: for each node a map from node to the newest advert that has come to it and that it has
//! no reason to refuse. It decides by what adverts say in plain values, entered into the ledger when they were signed, and
//! shares no code with the directory that it is held against.
//!
//! Of nodes that have ever been hostile it says nothing: what they sign is true in form and comes faster than anybody
//! takes it in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::advert::{Advert, Sequence};
use comity_protocol::ids::ObjectDigest;
use comity_protocol::mesh::ConnectionId;
use comity_protocol::mesh::wire::LinkMessage;
use comity_protocol::route::Route;

use super::Invariant;
use crate::world::World;

/// How far ahead an advert may have been made, because clocks differ: docs/protocol.md, "Adverts".
const AHEAD_MAX: Duration = Duration::from_secs(120);

/// In a larger federation than this the model is not kept: nodes times nodes is too much.
const MODEL_NODES_MAX: usize = 64;

/// What one advert says.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    of: usize,
    sequence: (u32, u64),
    issued_ms: u64,
    expires_ms: u64,
    leaving: bool,
}

/// What one node should know.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    adverts: BTreeMap<usize, (ObjectDigest, Truth)>,
    /// The highest sequence of each that it has ever taken, also of those that have ended.
    highest: BTreeMap<usize, (u32, u64)>,
}

impl World {
    fn has_model(&self) -> bool {
        self.nodes.len() <= MODEL_NODES_MAX
    }

    /// Enters what an honest node's advert says.
    pub(super) fn enter_truth(&mut self, of: usize, digest: ObjectDigest, advert: &Advert) {
        if !self.has_model() {
            return;
        }
        let truth = Truth {
            of,
            sequence: (advert.epoch, advert.seq),
            issued_ms: advert.issued.as_millis(),
            expires_ms: advert.expires.as_millis(),
            leaving: advert.leaving,
        };
        self.judge.ledger.truths.insert(digest, truth);
        // A node takes its own word when it signs it.
        self.offer(of, digest);
    }

    /// A node starts with what its disk has.
    pub(crate) fn model_started(
        &mut self,
        node: usize,
        kept: &[Arc<[u8]>],
        sequences: Vec<(usize, Sequence)>,
    ) {
        let highest =
            sequences.into_iter().map(|(of, sequence)| (of, (sequence.epoch, sequence.seq))).collect();
        self.judge.models[node] = Known { adverts: BTreeMap::new(), highest };
        for advert in kept {
            self.offer(node, ObjectDigest::of(advert));
        }
    }

    /// A link's frame comes to a node: the adverts in it, if the link is up.
    pub(crate) fn judge_frame(&mut self, node: usize, connection: ConnectionId, bytes: &[u8]) {
        if !self.has_model() {
            return;
        }
        let Some(mesh) = &self.nodes[node].mesh else { return };
        let is_up = mesh.links().any(|link| link.connection == connection && link.is_up());
        if let (true, Ok(LinkMessage::Adverts(adverts))) = (is_up, LinkMessage::decode(bytes)) {
            adverts.iter().for_each(|advert| self.offer(node, ObjectDigest::of(advert)));
        }
    }

    /// An advert comes to a node by gossip.
    pub(crate) fn judge_offered(&mut self, node: usize, bytes: &[u8]) {
        if self.has_model() {
            self.offer(node, ObjectDigest::of(bytes));
        }
    }

    fn offer(&mut self, node: usize, digest: ObjectDigest) {
        let wall = self.local(node).wall;
        let Some(truth) = self.judge.ledger.truths.get(&digest).cloned() else { return };
        let org = self.federation.org_of(truth.of);
        let pinned = self.federation.pins(self.federation.org_of(node), org);
        // A node whose org's root has not come yet cannot tell; whether it has come is the one thing asked of the machine.
        let name = &self.federation.orgs[org].name;
        let rooted = self.nodes[node]
            .mesh
            .as_ref()
            .is_none_or(|mesh| mesh.anchors().orgs().get(name).is_some_and(|pinned| pinned.root.is_some()));
        let ahead = u64::try_from(AHEAD_MAX.as_millis()).unwrap_or(u64::MAX);
        let timely = truth.expires_ms > wall.as_millis() && truth.issued_ms <= wall.as_millis() + ahead;
        let known = &mut self.judge.models[node];
        let newer = match known.adverts.get(&truth.of) {
            Some((_, held)) => truth.sequence > held.sequence,
            None => known.highest.get(&truth.of).is_none_or(|highest| truth.sequence >= *highest),
        };
        if pinned && rooted && timely && newer {
            known.highest.insert(truth.of, truth.sequence);
            known.adverts.insert(truth.of, (digest, truth));
        }
    }

    /// Holds a node's whole directory against the model.
    pub(super) fn judge_model(&mut self, node: usize) {
        if !self.has_model() || !self.is_honest(node) {
            return;
        }
        let wall = self.local(node).wall.as_millis();
        self.judge.models[node].adverts.retain(|_, (_, truth)| truth.expires_ms > wall);
        let Some(mesh) = &self.nodes[node].mesh else { return };
        let wrong = (0..self.nodes.len()).filter(|of| !self.nodes[*of].is_tainted()).find_map(|of| {
            let held = mesh.directory().get(&self.federation.id(of));
            // The machine looks for what has ended once a second.
            let held = held.filter(|entry| entry.advert().expires.as_millis() > wall);
            let held = held.map(|entry| ObjectDigest::of(entry.bytes()));
            let expected = self.judge.models[node].adverts.get(&of).map(|(digest, _)| *digest);
            (held != expected).then(|| {
                let shown = |digest: Option<ObjectDigest>| {
                    let truth = digest.and_then(|digest| self.judge.ledger.truths.get(&digest));
                    truth.map_or_else(
                        || "nothing".to_owned(),
                        |truth| format!("sequence {}", truth.sequence.1),
                    )
                };
                format!("knows {} of {}, and by the model {}", shown(held), self.name(of), shown(expected))
            })
        });
        if let Some(detail) = wrong {
            self.violate(Invariant::Directory, Some(node), detail);
        }
    }

    /// A route names everybody of whom the caller knows, by the model, that it offers the tool.
    pub(super) fn judge_whole_route(&mut self, call: usize, route: &Route<'_>) {
        if !self.has_model() {
            return;
        }
        let one = &self.calls.list[call];
        let (caller, tool) = (one.caller, &self.scenario.tools[self.scenario.calls[one.source].tool]);
        let Some(mesh) = &self.nodes[caller].mesh else { return };
        let ranked = route.ranked.iter().map(|candidate| candidate.site.node);
        let rejected = route.rejected.iter().map(|(candidate, _)| candidate.site.node);
        let named: std::collections::BTreeSet<_> = ranked.chain(rejected).collect();
        let offering = self.judge.models[caller].adverts.values().filter(|(_, truth)| {
            let same_org = self.federation.org_of(truth.of) == self.federation.org_of(caller);
            !truth.leaving
                && !self.nodes[truth.of].is_tainted()
                && tool.sites.contains(&self.federation.members[truth.of].site)
                && (!tool.org_only || same_org)
        });
        let overlooked = offering.map(|(_, truth)| truth.of).find(|of| {
            let id = self.federation.id(*of);
            let advert = mesh.directory().get(&id).map(|entry| entry.advert());
            let sets = advert.into_iter().flat_map(|advert| [advert.offers, advert.org_offers]).flatten();
            // What has not been pulled yet cannot be seen.
            let mut sets = sets.map(|digest| mesh.blobs().set(&digest));
            let pulled = sets.all(|set| {
                set.is_some_and(|set| {
                    set.offers().iter().all(|offer| mesh.blobs().get(&offer.descriptor).is_some())
                })
            });
            *of != caller && pulled && !named.contains(&id)
        });
        if let Some(of) = overlooked {
            let detail = format!("overlooks {} for {}", self.name(of), tool.text());
            self.violate(Invariant::WholeRoute, Some(caller), detail);
        }
    }
}
