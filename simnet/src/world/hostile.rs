//! Nodes that turn on the others. They run the real machine, so that they are admitted and believed where belief is due,
//! and besides that they lie, repeat themselves and shout.
//!
//! What a hostile node may legitimately sign (its own adverts, with what its membership allows) is entered into the
//! judge's ledger; everything else that an honest node believes is a forgery.

use std::sync::Arc;
use std::time::Duration;

use comity_protocol::advert::{Advert, Sequence};
use comity_protocol::geo::CountrySet;
use comity_protocol::ids::ObjectDigest;
use comity_protocol::mesh::ConnectionId;
use comity_protocol::mesh::wire::{LINK_FRAME_MAX, LinkMessage, Rumour};
use comity_protocol::rng::Rng;
use comity_protocol::testing::mesh;
use comity_protocol::trust::{Membership, Unverified, seal};
use ed25519_dalek::SigningKey;

use super::wires::{Lane, Side};
use super::{Event, World};
use crate::scenario::Act;

/// How long a hostile node rests between two acts.
const REST_MIN: Duration = Duration::from_millis(200);
const REST_SPREAD_MICROS: usize = 600_000;

/// How many adverts one flood has: more than a reader takes in its window.
const FLOOD_ADVERTS: u64 = 40;

/// How many old adverts are sent again at once.
const REPLAYS: usize = 5;

/// How many nodes are slandered at once.
const SLANDERED: usize = 8;

/// How many pings one flood has on each link.
const FLOOD_PINGS: u32 = 50;

/// A node that has turned on the others.
pub(crate) struct Hostile {
    acts: Vec<Act>,
    rng: Rng,
}

impl Hostile {
    pub(super) const fn new(acts: Vec<Act>, rng: Rng) -> Self {
        Self { acts, rng }
    }

    pub(crate) fn does(&self, act: Act) -> bool {
        self.acts.contains(&act)
    }
}

impl World {
    /// Whether a node is hostile and does this.
    pub(crate) fn does(&self, node: usize, act: Act) -> bool {
        self.nodes[node].hostile.as_ref().is_some_and(|hostile| hostile.does(act))
    }

    pub(super) fn on_hostile(&mut self, node: usize, boot: u32) {
        if !self.is_boot(node, boot) {
            return;
        }
        let Some(hostile) = &mut self.nodes[node].hostile else { return };
        let act = hostile.rng.pick(&hostile.acts).copied();
        let rest = REST_MIN + Duration::from_micros(hostile.rng.below(REST_SPREAD_MICROS) as u64);
        self.trace.event(self.now, 13, node, &[act.map_or(u8::MAX, |act| act as u8)]);
        match act {
            Some(Act::Forge) => self.forge(node),
            Some(Act::Replay) => self.replay(node),
            Some(Act::Equivocate) => self.equivocate(node),
            Some(Act::Oversize) => self.oversize(node),
            Some(Act::Flood) => self.flood_adverts(node),
            Some(Act::FalseLocation) => self.claim_places(node),
            Some(Act::UnlawfulCall) => self.call_unlawfully(node),
            Some(Act::Slander) => self.slander(node),
            Some(Act::LastMoment) => self.sign_for_the_last_moment(node),
            // What it does to calls it does when they come.
            Some(Act::NeverAnswer | Act::TamperReceipt) | None => {}
        }
        self.later(rest, Event::Hostile { node, boot });
    }

    fn draw(&mut self, node: usize, bound: usize) -> usize {
        self.nodes[node].hostile.as_mut().map_or(0, |hostile| hostile.rng.below(bound))
    }

    /// The newest advert that a node has of another, or of itself when it has none other.
    fn some_advert(&mut self, node: usize) -> Option<Arc<[u8]>> {
        let count = self.nodes[node].mesh.as_ref()?.directory().len();
        let at = self.draw(node, count);
        let (_, entry) = self.nodes[node].mesh.as_ref()?.directory().iter().nth(at)?;
        Some(entry.bytes().clone())
    }

    fn forge(&mut self, node: usize) {
        let Some(bytes) = self.some_advert(node) else { return };
        let Ok(advert) = Unverified::<Advert>::decode(&bytes) else { return };
        let mut claim = advert.claimed().clone();
        claim.seq += 1;
        claim.name = "forged".into();
        let forged: Arc<[u8]> = match self.draw(node, 4) {
            0 => misquoted(&bytes, &advert.claimed().name),
            // Another's advert under this node's own key; its own would be no forgery.
            1 if claim.node != self.federation.id(node) => self.sign(node, claim),
            2 => self.sybil(node, claim),
            _ => self.stolen_membership(node, claim),
        };
        self.shout(node, &forged);
    }

    fn sign(&self, node: usize, advert: Advert) -> Arc<[u8]> {
        seal(advert, &self.federation.members[node].node.key, Some(&mesh())).bytes().clone()
    }

    /// A node that no org has admitted, with a membership that this one has signed.
    fn sybil(&mut self, node: usize, mut advert: Advert) -> Arc<[u8]> {
        let mut secret = [0xbb; 32];
        secret[..8].copy_from_slice(&(self.draw(node, usize::MAX) as u64).to_le_bytes());
        let key = SigningKey::from_bytes(&secret);
        let Ok(membership) = Unverified::<Membership>::decode(&advert.membership) else {
            return self.sign(node, advert);
        };
        let mut membership = membership.claimed().clone();
        membership.node = key.verifying_key().into();
        advert.node = membership.node;
        let issued = seal(membership, &self.federation.members[node].node.key, Some(&mesh()));
        advert.membership = issued.bytes().to_vec().into();
        seal(advert, &key, Some(&mesh())).bytes().clone()
    }

    /// Itself under another's membership. Whoever's advert was its own gets a claim of an org that is not its.
    fn stolen_membership(&mut self, node: usize, mut advert: Advert) -> Arc<[u8]> {
        if advert.node == self.federation.id(node) {
            advert.org = "stolen.example".parse().expect("an org's name");
        }
        advert.node = self.federation.id(node);
        self.sign(node, advert)
    }

    /// Adverts that others have long replaced: a hostile node may have listened from the first day.
    fn replay(&mut self, node: usize) {
        for _ in 0..REPLAYS {
            let at = self.draw(node, self.judge.past_adverts().len());
            let Some(bytes) = self.judge.past_adverts().get(at).cloned() else { return };
            self.shout(node, &bytes);
        }
    }

    fn own_claim(&self, node: usize) -> Option<Advert> {
        let mesh = self.nodes[node].mesh.as_ref()?;
        mesh.directory().get(&mesh.node()).map(|entry| entry.advert().clone())
    }

    fn equivocate(&mut self, node: usize) {
        let Some(mut claim) = self.own_claim(node) else { return };
        claim.seq += 1;
        let both = ["this", "that"].map(|name| {
            let advert = self.sign(node, Advert { name: name.into(), ..claim.clone() });
            self.judge.signed(node, ObjectDigest::of(&advert));
            advert
        });
        for (at, (connection, side)) in self.admitted_wires(node).into_iter().enumerate() {
            self.send_gossip(node, connection, side.other(), both[at % 2].clone());
        }
    }

    /// What is too much to some peer: it closes the link, and the others are left for other acts.
    fn oversize(&mut self, node: usize) {
        let wires = self.admitted_wires(node);
        let Some((connection, side)) = wires.get(self.draw(node, wires.len())).copied() else { return };
        let rumour =
            Rumour { node: self.federation.id(node), sequence: Sequence { epoch: 9, seq: u64::MAX } };
        let frame = match self.draw(node, 5) {
            0 => vec![0xff; LINK_FRAME_MAX + 1],
            // Lists in lists without end.
            1 => vec![0x9f; 70_000],
            2 => vec![0; 3],
            // Well-formed, and many times what one message may ask for.
            3 => LinkMessage::Want(
                self.federation.members.iter().map(|member| member.node.id).cycle().take(3000).collect(),
            )
            .encode(),
            _ => LinkMessage::Rumours(vec![rumour; 2000]).encode(),
        };
        let gossip: Arc<[u8]> = vec![0x84; 9 * 1024].into();
        self.send_gossip(node, connection, side.other(), gossip);
        self.send_raw(connection, side.other(), frame);
    }

    /// Says of nodes that live that they do not answer, and knows the sequences that make it news.
    fn slander(&mut self, node: usize) {
        let mut rumours = Vec::new();
        for _ in 0..SLANDERED {
            let at = self.draw(node, self.nodes.len());
            let of = self.federation.id(at);
            let lead = self.draw(node, 3) as u64;
            let entry = self.nodes[node].mesh.as_ref().and_then(|mesh| mesh.directory().get(&of));
            rumours.extend(entry.map(|entry| {
                let Sequence { epoch, seq } = entry.advert().sequence();
                Rumour { node: of, sequence: Sequence { epoch, seq: seq + lead } }
            }));
        }
        for (connection, side) in self.admitted_wires(node) {
            self.send_raw(connection, side.other(), LinkMessage::Rumours(rumours.clone()).encode());
        }
    }

    /// Its own advert, true in all, that ends in the very millisecond in which a peer may hear it.
    fn sign_for_the_last_moment(&mut self, node: usize) {
        for (connection, side) in self.admitted_wires(node) {
            let Some(mut claim) = self.own_claim(node) else { return };
            let Some(peer) = self.wires.get(&connection).map(|wire| wire.end(side.other()).node) else {
                continue;
            };
            let arrival = self.now + self.network.latency(node, peer);
            claim.seq += 1 + self.draw(node, 1000) as u64;
            claim.expires = self.nodes[peer].clock.now(arrival).wall;
            let advert = self.sign(node, claim);
            self.judge.signed(node, ObjectDigest::of(&advert));
            let message = LinkMessage::Adverts(vec![advert.to_vec().into()]);
            self.send_raw(connection, side.other(), message.encode());
        }
    }

    fn flood_adverts(&mut self, node: usize) {
        let Some(claim) = self.own_claim(node) else { return };
        for more in 1..=FLOOD_ADVERTS {
            let advert = self.sign(node, Advert { seq: claim.seq + more, ..claim.clone() });
            self.judge.signed(node, ObjectDigest::of(&advert));
            for (connection, side) in self.admitted_wires(node) {
                self.send_gossip(node, connection, side.other(), advert.clone());
            }
        }
        for (connection, side) in self.admitted_wires(node) {
            for nonce in 0..FLOOD_PINGS {
                let ping = LinkMessage::Ping { nonce, digest: u64::from(nonce) };
                self.send_raw(connection, side.other(), ping.encode());
            }
        }
    }

    fn claim_places(&mut self, node: usize) {
        let Some(mut claim) = self.own_claim(node) else { return };
        claim.seq += 1;
        claim.site.processing_locations = CountrySet::ALL;
        let advert = self.sign(node, claim);
        self.shout(node, &advert);
    }

    /// Sends an advert by gossip and on every link.
    fn shout(&mut self, node: usize, advert: &Arc<[u8]>) {
        for (connection, side) in self.admitted_wires(node) {
            self.send_gossip(node, connection, side.other(), advert.clone());
            let message = LinkMessage::Adverts(vec![advert.to_vec().into()]);
            self.send_raw(connection, side.other(), message.encode());
        }
    }

    fn send_raw(&mut self, connection: ConnectionId, to: Side, bytes: Vec<u8>) {
        let length = bytes.len();
        self.transmit(connection, to, Lane::Link, length, Event::Frame { connection, to, bytes });
    }

    fn admitted_wires(&self, node: usize) -> Vec<(ConnectionId, Side)> {
        let wires = self.nodes[node].wires.iter();
        let admitted = wires.filter(|(connection, side)| {
            self.wires.get(connection).is_some_and(|wire| wire.end(**side).admitted.is_some())
        });
        admitted.map(|(connection, side)| (*connection, *side)).collect()
    }
}

/// An advert in which the name says something else, and all else is as it was signed: well-formed, and false.
fn misquoted(bytes: &[u8], name: &str) -> Arc<[u8]> {
    let mut bytes = bytes.to_vec();
    let found = bytes.windows(name.len().max(1)).position(|part| part == name.as_bytes());
    if let Some(at) = found {
        bytes[at] ^= 1;
    }
    bytes.into()
}
