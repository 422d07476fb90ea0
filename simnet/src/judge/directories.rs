//! What nodes believe of each other, and whether their tables keep their bounds.

use std::sync::Arc;

use comity_protocol::advert::{Advert, Sequence};
use comity_protocol::geo::CountrySet;
use comity_protocol::ids::{NodeId, ObjectDigest};
use comity_protocol::mesh::Sizes;
use comity_protocol::mesh::directory::Entry;
use comity_protocol::trust::Unverified;

use super::{Invariant, PAST_MAX};
use crate::moment::Moment;
use crate::world::World;

/// In a federation of at most so many nodes, a directory that has changed is judged whole after each step; in a larger
/// one what has changed is judged at once and the whole every second.
const WHOLE_NODES_MAX: usize = 64;

impl World {
    /// A node has published an advert of its own.
    pub(crate) fn ledger_published(&mut self, node: usize, bytes: &Arc<[u8]>) {
        let digest = ObjectDigest::of(bytes);
        let Ok(advert) = Unverified::<Advert>::decode(bytes) else { return };
        let sequence = advert.claimed().sequence();
        // What gossip is given on behalf of others was signed before.
        if advert.claimed().node != self.federation.id(node) {
            return;
        }
        if !self.nodes[node].is_tainted() {
            self.enter_truth(node, digest, advert.claimed());
        }
        let ledger = &mut self.judge.ledger;
        ledger.genuine.insert(digest);
        let replaced = ledger.newest.insert(node, (sequence, digest, bytes.clone(), self.now));
        if let Some((.., old, _)) = replaced {
            if ledger.past.len() >= PAST_MAX {
                ledger.past.remove(0);
            }
            ledger.past.push(old);
        }
        let before = ledger.signed.insert((node, sequence), digest);
        self.figures.adverts_published += 1;
        if before.is_some_and(|before| before != digest) && !self.nodes[node].is_tainted() {
            let detail = format!("signed two adverts as {}/{}", sequence.epoch, sequence.seq);
            self.violate(Invariant::SequenceReused, Some(node), detail);
        }
    }

    /// A node has taken an advert into its directory.
    pub(crate) fn judge_taken(&mut self, node: usize, of: NodeId, sequence: Sequence, bytes: &Arc<[u8]>) {
        if self.nodes[node].is_tainted() {
            return;
        }
        let digest = ObjectDigest::of(bytes);
        if !self.judge.ledger.genuine.contains(&digest) {
            let detail = format!("believes an advert of {of:?} that it never signed");
            self.violate(Invariant::ForgedAdvert, Some(node), detail);
        }
        self.judge_sequence(node, of, sequence);
        if let Ok(advert) = Unverified::<Advert>::decode(bytes)
            && advert.claimed().expires <= self.local(node).wall
        {
            let detail = format!("takes an advert of {of:?} in or after the moment in which it ends");
            self.violate(Invariant::Ended, Some(node), detail);
        }
        let newest = self.federation.find(&of).and_then(|of| self.judge.ledger.newest.get(&of));
        let settled =
            |published: &Moment| self.judge.converged.is_some_and(|converged| converged <= *published);
        let fresh = newest.filter(|(_, newest, _, published)| *newest == digest && settled(published));
        if let Some((.., published)) = fresh {
            self.figures.spread(self.now.since(*published));
        }
    }

    fn judge_sequence(&mut self, node: usize, of: NodeId, sequence: Sequence) {
        let before = self.judge.highest[node].insert(of, sequence);
        if let Some(before) = before.filter(|before| *before > sequence) {
            let detail = format!(
                "went back from {}/{} to {}/{} of {of:?}",
                before.epoch, before.seq, sequence.epoch, sequence.seq
            );
            self.violate(Invariant::SequenceBack, Some(node), detail);
        }
    }

    /// After each step of a node.
    pub(crate) fn judge_step(&mut self, node: usize) {
        if self.nodes[node].is_tainted() {
            return;
        }
        let changed = core::mem::take(&mut self.nodes[node].changed);
        if changed {
            self.time_deaths(node);
        }
        if changed && self.nodes.len() <= WHOLE_NODES_MAX {
            self.judge_directory(node);
            self.judge_model(node);
        }
        self.time_newcomer(node);
        let Some(sizes) = self.nodes[node].mesh.as_ref().map(comity_protocol::mesh::Mesh::sizes) else {
            return;
        };
        if let Some(over) = over_bound(&sizes) {
            self.violate(Invariant::Bound, Some(node), over);
        }
    }

    /// A node's whole directory.
    pub(crate) fn judge_directory(&mut self, node: usize) {
        if !self.is_honest(node) {
            return;
        }
        let Some(mesh) = &self.nodes[node].mesh else { return };
        let judged: Vec<_> = mesh
            .directory()
            .iter()
            .map(|(of, entry)| (*of, mesh.directory().sequence(of), self.fault_of(of, entry)))
            .collect();
        let forgotten = self.judge.highest[node]
            .iter()
            .find(|(of, before)| mesh.directory().sequence(of).is_none_or(|now| now < **before))
            .map(|(of, before)| format!("forgot that it had {}/{} of {of:?}", before.epoch, before.seq));
        if let Some(detail) = forgotten {
            self.violate(Invariant::SequenceBack, Some(node), detail);
        }
        for (of, sequence, fault) in judged {
            if let Some(sequence) = sequence {
                self.judge_sequence(node, of, sequence);
            }
            if let Some((invariant, detail)) = fault {
                self.violate(invariant, Some(node), detail);
            }
        }
    }

    fn fault_of(&self, of: &NodeId, entry: &Entry) -> Option<(Invariant, String)> {
        let Some(at) = self.federation.find(of) else {
            return Some((Invariant::ForgedAdvert, format!("knows {of:?}, whom no org has admitted")));
        };
        if !self.judge.ledger.genuine.contains(&ObjectDigest::of(entry.bytes())) {
            let name = &self.federation.members[at].name;
            return Some((Invariant::ForgedAdvert, format!("has an advert of {name} that it never signed")));
        }
        let truth = &self.scenario.sites[self.federation.members[at].site].processing;
        let claimed = &entry.advert().site.processing_locations;
        let lies = texts(claimed).into_iter().find(|place| !texts(truth).contains(place));
        lies.map(|place| {
            let name = &self.federation.members[at].name;
            (Invariant::FalseLocation, format!("believes that {name} processes in {place}"))
        })
    }
}

fn texts(places: &CountrySet) -> Vec<String> {
    places.iter().map(|place| place.to_string()).collect()
}

/// Which table is over its bound.
fn over_bound(sizes: &Sizes) -> Option<String> {
    let over = sizes.tables.into_iter().find(|table| table.size > table.bound);
    over.map(|table| format!("{} {} where at most {} are allowed", table.size, table.name, table.bound))
}
