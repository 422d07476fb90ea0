//! Which links are neighbours', what neighbours tell each other of their pins, and whom to dial for more.

use std::collections::BTreeSet;

use crate::ids::{NodeId, OrgName, RootHash};
use crate::time::Now;

use super::link::Link;
use super::overlay::View;
use super::wire::{INTERESTS_MAX, LinkMessage, Want, Welcome};
use super::{ConnectionId, Effect, Mesh};

impl Mesh {
    /// How many peers other than `peer` are neighbours.
    pub(super) fn neighbours_except(&self, peer: NodeId) -> usize {
        self.neighbours().into_iter().filter(|neighbour| *neighbour != peer).count()
    }

    fn neighbours(&self) -> BTreeSet<NodeId> {
        self.links.values().filter(|link| link.is_neighbour()).map(|link| link.peer).collect()
    }

    /// What to tell the peer of a link: our pins, which roots we lack, and whether we want it.
    pub(super) fn welcome_for(&self, connection: ConnectionId) -> Option<Welcome> {
        let want = self.links.get(&connection)?.ours;
        let mut pins: Vec<_> = self.anchors.orgs().values().map(|pinned| pinned.pin).collect();
        pins.sort();
        pins.truncate(INTERESTS_MAX);
        let lacking = self.anchors.orgs().values().filter(|pinned| pinned.root.is_none());
        let mut missing: Vec<_> = lacking.map(|pinned| pinned.pin).collect();
        missing.sort();
        missing.truncate(INTERESTS_MAX);
        Some(Welcome { pins, missing, want })
    }

    /// Takes what a peer says of its pins and of its wish, the first time or later.
    pub(super) fn take_welcome(&mut self, connection: ConnectionId, welcome: Welcome, now: Now) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        let peer = link.peer;
        link.their_pins = welcome.pins.iter().take(INTERESTS_MAX).copied().collect();
        let ours = link.ours;
        link.set_wants(ours, welcome.want, now.mono);
        self.share_pins(connection);
        self.send_roots(connection, &welcome.missing);
        self.answer_want(connection, peer, welcome.want, now);
    }

    pub(super) fn on_update(&mut self, connection: ConnectionId, update: Welcome, now: Now) {
        self.take_welcome(connection, update, now);
    }

    fn share_pins(&mut self, connection: ConnectionId) {
        let ours: BTreeSet<RootHash> = self.anchors.orgs().values().map(|pinned| pinned.pin).collect();
        if let Some(link) = self.links.get_mut(&connection) {
            link.shared = ours.intersection(&link.their_pins).copied().collect();
        }
    }

    /// Decides anew whether to want the peer, tells it if that changes, and makes room for a lonely one.
    fn answer_want(&mut self, connection: ConnectionId, peer: NodeId, theirs: Want, now: Now) {
        let before = self.links.get(&connection).map_or(Want::No, |link| link.ours);
        let ours = match self.overlay.want(theirs, self.neighbours_except(peer)) {
            // A wish is not taken back because the other has none: two nodes that mirror each other while their messages
            // cross would go on for ever.
            Want::No if theirs == Want::No => before,
            ours => ours,
        };
        self.change_want(connection, ours, now);
        if theirs == Want::Lonely && self.neighbours().len() > self.overlay.neighbours_max() {
            self.evict_other_than(peer, now);
        }
    }

    fn change_want(&mut self, connection: ConnectionId, ours: Want, now: Now) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        let changed = link.ours != ours;
        let theirs = link.theirs;
        link.set_wants(ours, theirs, now.mono);
        if changed {
            self.send_update(connection);
        }
    }

    fn send_update(&mut self, connection: ConnectionId) {
        if let Some(update) = self.welcome_for(connection) {
            self.send(connection, &LinkMessage::Update(update));
        }
    }

    fn evict_other_than(&mut self, peer: NodeId, now: Now) {
        let secure = |link: &&Link| link.is_neighbour() && link.peer != peer && link.theirs != Want::Lonely;
        let others: Vec<_> = self.links.values().filter(secure).map(|link| link.peer).collect();
        let Some(evicted) = self.overlay.evict(&others) else { return };
        let links: Vec<_> =
            self.links.values().filter(|link| link.peer == evicted).map(|link| link.connection).collect();
        for connection in links {
            self.change_want(connection, Want::No, now);
        }
    }

    /// Pins an org from now on.
    pub fn pin(&mut self, org: OrgName, pin: RootHash, now: Now) {
        if self.pin_of(&org).is_some_and(|known| known != pin) {
            self.unpin(&org, now);
        }
        self.anchors.pin(org, pin);
        self.pins_changed(now);
    }

    /// Takes a pin back: the org's adverts go and its nodes are sent away.
    pub fn unpin(&mut self, org: &OrgName, now: Now) {
        for entry in self.directory.remove_org(org) {
            self.forget(&entry);
        }
        self.anchors.unpin(org);
        let theirs: Vec<_> = self
            .links
            .values()
            .filter(|link| link.org.as_ref() == Some(org))
            .map(|link| link.connection)
            .collect();
        for connection in theirs {
            self.refuse(connection, "unpinned_org", &format!("org {org} is no longer pinned here"), now);
        }
        self.pins_changed(now);
    }

    /// Tells every peer of our pins, so that both compare directories over the same orgs.
    pub(super) fn pins_changed(&mut self, now: Now) {
        let up: Vec<_> =
            self.links.values().filter(|link| link.is_up()).map(|link| link.connection).collect();
        for connection in up {
            self.share_pins(connection);
            self.send_update(connection);
        }
        self.changed = true;
        self.act(now);
    }

    /// Sends pings that are due.
    pub(super) fn send_pings(&mut self, now: Now) {
        let mut pings = Vec::new();
        for link in self.links.values_mut() {
            if let Some(nonce) = link.take_ping(now.mono) {
                pings.push((link.connection, nonce, self.digests.digest(&link.shared)));
            }
        }
        for (connection, nonce, digest) in pings {
            self.send(connection, &LinkMessage::Ping { nonce, digest });
        }
    }

    /// Dials whom the overlay wants.
    pub(super) fn dial_more(&mut self, now: Now) {
        let neighbours = self.neighbours().len();
        if !self.overlay.is_due(neighbours, now.mono) {
            return;
        }
        let connected: BTreeSet<NodeId> = self.links.values().map(|link| link.peer).collect();
        let undecided = self.links.values().filter(|link| link.is_undecided(now.mono)).count();
        let me = self.own.node();
        let view = View { me, connected: &connected, neighbours, undecided, directory: &self.directory };
        let targets = self.overlay.plan(&view, now.mono);
        self.effects.extend(targets.into_iter().map(Effect::Dial));
    }
}
