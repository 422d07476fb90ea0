//! How adverts and roots come in and go out: by gossip, which is fast, and by anti-entropy, which is certain.

use std::time::Duration;

use minicbor::bytes::ByteVec;

use crate::advert::AdvertError;
use crate::ids::{NodeId, OrgName, RootHash};
use crate::time::{Mono, Now};
use crate::trust::RootChain;

use super::directory::{Entry, Taken};
use super::link::RECONCILE_GAP;
use super::wire::{
    ADVERT_BATCH_BYTES_MAX, ENTRIES_MAX, INTERESTS_MAX, LinkMessage, OrgBuckets, OrgDigest, OrgEntries,
};
use super::{Acceptance, ConnectionId, Effect, Mesh, MeshEvent, MeshRecord};

/// Most entries that a node lists unasked when it has dialled somebody: beyond them it waits for the digests to differ.
const OPENING_ENTRIES_MAX: usize = 64;

/// Most adverts learned by anti-entropy that a node gives to gossip in [`RELAY_WINDOW`]. Beyond them anti-entropy brings
/// them on, hop by hop.
const RELAYS_PER_WINDOW_MAX: u32 = 64;

/// The window in which they are counted.
const RELAY_WINDOW: Duration = Duration::from_secs(10);

/// What a node remembers of what it has given to gossip for others.
#[derive(Clone, Debug, Default)]
pub(super) struct Relays {
    /// Whether it has once known all that a neighbour knew. Until then what it learns is news to itself alone.
    settled: bool,
    window: (Mono, u32),
}

impl Relays {
    fn admit(&mut self, now: Mono) -> bool {
        if now.since(self.window.0) >= RELAY_WINDOW {
            self.window = (now, 0);
        }
        self.window.1 += 1;
        self.settled && self.window.1 <= RELAYS_PER_WINDOW_MAX
    }
}

impl Mesh {
    pub(super) fn on_gossip(&mut self, from: NodeId, bytes: &[u8], now: Now) -> Acceptance {
        match self.take_advert(bytes, Some(from), now) {
            // What only some may see does not belong in gossip, even when it is true.
            Ok((node, Taken::Newer | Taken::Contradicts)) if self.is_limited(&node) => Acceptance::Reject,
            Ok((_, Taken::Newer | Taken::Contradicts)) => Acceptance::Accept,
            Ok((_, Taken::Known)) => Acceptance::Ignore,
            Err(error) if error.is_honest_mistake() => Acceptance::Ignore,
            Err(_) => Acceptance::Reject,
        }
    }

    fn is_limited(&self, node: &NodeId) -> bool {
        self.directory.get(node).is_some_and(|entry| entry.advert().audience.is_some())
    }

    /// Verifies an advert and takes it when it is news: the one way into the directory.
    pub(super) fn take_advert(
        &mut self,
        bytes: &[u8],
        from: Option<NodeId>,
        now: Now,
    ) -> Result<(NodeId, Taken), AdvertError> {
        let outcome = self.directory.insert(bytes, &mut self.anchors, now);
        match &outcome {
            Ok((_, Taken::Known)) => {}
            Ok((node, taken)) => self.advert_taken(*node, *taken, from.is_some(), now),
            Err(error) => self.advert_refused(error, from),
        }
        outcome
    }

    fn advert_taken(&mut self, node: NodeId, taken: Taken, keep: bool, now: Now) {
        let Some(entry) = self.directory.get(&node).cloned() else { return };
        self.note_digest(&entry);
        if taken == Taken::Contradicts {
            self.event(MeshEvent::Equivocated(node));
        }
        if keep {
            let (sequence, bytes) = (entry.advert().sequence(), entry.bytes().clone());
            self.effects.push_back(Effect::Persist(MeshRecord::Advert { node, sequence, bytes }));
        }
        if node == self.node() {
            self.own.observed(entry.advert().sequence(), now.mono);
        }
        self.want_offers(&entry, now);
        self.changed = true;
        if entry.advert().audience.is_some() {
            self.spread_limited(&entry);
        }
    }

    /// Adverts for everybody take part in the digests; those for some do not, because neighbours' views of them differ.
    fn note_digest(&mut self, entry: &Entry) {
        let Some(pin) = self.pin_of(entry.org()) else { return };
        let node = entry.advert().node;
        if entry.advert().audience.is_none() {
            self.digests.set(pin, node, entry.version());
        } else {
            self.digests.remove(&pin, &node);
        }
    }

    fn advert_refused(&mut self, error: &AdvertError, from: Option<NodeId>) {
        let Some(from) = from.filter(|_| !error.is_honest_mistake()) else { return };
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        self.event(MeshEvent::AdvertRefused { from, code: error.code(), detail: format!("{error}{source}") });
    }

    pub(super) fn on_ping(&mut self, connection: ConnectionId, nonce: u32, digest: u64, now: Now) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.pinged(now.mono);
        }
        let ours = self.digest_for(connection);
        self.send(connection, &LinkMessage::Pong { nonce, digest: ours });
        self.compare(connection, digest, now.mono);
    }

    pub(super) fn on_pong(&mut self, connection: ConnectionId, nonce: u32, digest: u64, now: Now) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.pong(nonce, now.mono);
        }
        self.compare(connection, digest, now.mono);
    }

    fn digest_for(&self, connection: ConnectionId) -> u64 {
        self.links.get(&connection).map_or(0, |link| self.digests.digest(&link.shared))
    }

    /// Begins an exchange when the peer's digest differs from ours.
    fn compare(&mut self, connection: ConnectionId, theirs: u64, now: Mono) {
        let ours = self.digest_for(connection);
        let Some(link) = self.links.get_mut(&connection) else { return };
        if theirs == ours {
            self.relays.settled = true;
        } else if now >= link.next_reconcile {
            link.next_reconcile = now + RECONCILE_GAP;
            self.begin_exchange(connection);
        }
    }

    fn begin_exchange(&mut self, connection: ConnectionId) {
        let orgs = self.digests.org_digests(&self.shared(connection));
        self.send(connection, &LinkMessage::Orgs(orgs));
    }

    /// The dialler lists what little it knows at once, so that a newcomer is sent everything four messages sooner: of its
    /// own org, and that it knows nothing of others. What it knows of others the peer might not be meant to hear.
    pub(super) fn open_exchange(&mut self, connection: ConnectionId) {
        if !self.links.get(&connection).is_some_and(|link| link.dialled) {
            return;
        }
        let own = self.pin_of(self.org());
        let pins = self.anchors.orgs().values().map(|pinned| pinned.pin);
        let listed = pins.filter_map(|pin| {
            let entries = self.digests.list(&pin, if Some(pin) == own { OPENING_ENTRIES_MAX } else { 0 })?;
            Some(entries)
        });
        let listed: Vec<OrgEntries> = listed.take(INTERESTS_MAX).collect();
        if !listed.is_empty() {
            self.send(connection, &LinkMessage::Entries(listed));
        }
    }

    fn shared(&self, connection: ConnectionId) -> Vec<RootHash> {
        self.links.get(&connection).map(|link| link.shared.clone()).unwrap_or_default()
    }

    pub(super) fn on_orgs(&mut self, connection: ConnectionId, theirs: &[OrgDigest]) {
        let answer = self.digests.answer_orgs(&self.shared(connection), theirs);
        if !answer.is_empty() {
            self.send(connection, &LinkMessage::Buckets(answer));
        }
    }

    pub(super) fn on_buckets(&mut self, connection: ConnectionId, theirs: &[OrgBuckets]) {
        let answer = self.digests.answer_buckets(&self.shared(connection), theirs);
        if !answer.is_empty() {
            self.send(connection, &LinkMessage::Entries(answer));
        }
    }

    pub(super) fn on_entries(&mut self, connection: ConnectionId, theirs: &[OrgEntries]) {
        let difference = self.digests.answer_entries(&self.shared(connection), theirs);
        self.send_adverts(connection, &difference.send);
        if !difference.want.is_empty() {
            self.send(connection, &LinkMessage::Want(difference.want));
        }
    }

    /// Sends the adverts of `nodes` that the peer may see, in frames of bounded size.
    pub(super) fn send_adverts(&mut self, connection: ConnectionId, nodes: &[NodeId]) {
        let Some(link) = self.links.get(&connection) else { return };
        let (Some(org), pins) = (link.org.clone(), link.their_pins.clone()) else { return };
        let (mut batches, mut size) = (vec![Vec::new()], 0);
        for entry in nodes.iter().take(ENTRIES_MAX).filter_map(|node| self.directory.get(node)) {
            let concerns = self.pin_of(entry.org()).is_some_and(|pin| pins.contains(&pin));
            if !concerns || !may_see(entry, &org) {
                continue;
            }
            if size + entry.bytes().len() > ADVERT_BATCH_BYTES_MAX {
                batches.push(Vec::new());
                size = 0;
            }
            size += entry.bytes().len();
            batches.last_mut().expect("there is always one").push(ByteVec::from(entry.bytes().to_vec()));
        }
        for batch in batches.into_iter().filter(|batch| !batch.is_empty()) {
            self.send(connection, &LinkMessage::Adverts(batch));
        }
    }

    pub(super) fn on_adverts(&mut self, connection: ConnectionId, adverts: &[ByteVec], now: Now) {
        let Some(from) = self.links.get(&connection).map(|link| link.peer) else { return };
        let mut learned = false;
        for advert in adverts {
            let Ok((node, Taken::Newer | Taken::Contradicts)) = self.take_advert(advert, Some(from), now)
            else {
                continue;
            };
            learned = true;
            self.relay(&node, now);
        }
        if learned && !self.relays.settled {
            // There may be more where that came from: an exchange is bounded.
            if let Some(link) = self.links.get_mut(&connection) {
                link.next_reconcile = now.mono;
            }
        }
    }

    /// Gives to gossip what anti-entropy has brought, as when a partition heals: behind this node others lack it too.
    fn relay(&mut self, node: &NodeId, now: Now) {
        let Some(entry) = self.directory.get(node) else { return };
        if entry.advert().audience.is_none() && self.relays.admit(now.mono) {
            self.effects.push_back(Effect::Publish(entry.bytes().clone()));
        }
    }

    /// Sends a new peer the adverts that are not for everybody and that it may see.
    pub(super) fn send_limited_adverts(&mut self, connection: ConnectionId) {
        let limited = self.directory.iter().filter(|(_, entry)| entry.advert().audience.is_some());
        let nodes: Vec<_> = limited.map(|(node, _)| *node).collect();
        self.send_adverts(connection, &nodes);
    }

    /// Passes an advert that is not for everybody to the linked peers that may see it.
    fn spread_limited(&mut self, entry: &Entry) {
        let links: Vec<_> =
            self.links.values().filter(|link| link.is_up()).map(|link| link.connection).collect();
        for connection in links {
            self.send_adverts(connection, &[entry.advert().node]);
        }
    }

    /// Sends the chains of roots that a peer lacks and we have.
    pub(super) fn send_roots(&mut self, connection: ConnectionId, missing: &[RootHash]) {
        let has =
            |pin: &RootHash| self.anchors.orgs().values().find(|pinned| pinned.pin == *pin)?.chain.as_ref();
        let chains: Vec<ByteVec> =
            missing.iter().filter_map(has).map(|chain| chain.encode().into()).collect();
        for chain in chains {
            self.send(connection, &LinkMessage::Roots(vec![chain]));
        }
    }

    pub(super) fn on_roots(&mut self, chains: &[ByteVec], now: Now) {
        for chain in chains {
            self.learn_roots(chain, now);
        }
    }

    /// A root is news: keep it, and pass it to the peers that may lack it too.
    pub(super) fn roots_learned(&mut self, chain: &RootChain, now: Now) {
        let Ok(root) = chain.verify() else { return };
        self.effects.push_back(Effect::Persist(MeshRecord::Roots { org: root.org, bytes: chain.encode() }));
        let Some(pin) = chain.pin() else { return };
        let wanting = |link: &&super::link::Link| link.is_up() && link.their_pins.contains(&pin);
        let links: Vec<_> = self.links.values().filter(wanting).map(|link| link.connection).collect();
        for connection in links {
            self.send(connection, &LinkMessage::Roots(vec![chain.encode().into()]));
            if let Some(link) = self.links.get_mut(&connection) {
                // What was refused for want of this root may be had now.
                link.next_reconcile = now.mono;
            }
        }
    }
}

/// Whether a node of `org` may be sent an entry.
fn may_see(entry: &Entry, org: &OrgName) -> bool {
    entry.org() == org || entry.advert().audience.as_ref().is_none_or(|audience| audience.0.contains(org))
}
