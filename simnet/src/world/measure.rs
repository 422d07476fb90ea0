//! What is timed in a run besides what is judged: how soon a newcomer knows all, and how soon the mesh knows of a death and
//! calls go round it. Looked at after the steps that may end the wait, so to the microsecond of simulated time.

use comity_protocol::mesh::Mesh;
use comity_protocol::route::Route;

use super::World;
use crate::moment::Moment;

/// A node that went silent.
pub(crate) struct Death {
    node: usize,
    at: Moment,
    /// Who has noticed.
    noticed: Vec<bool>,
}

impl World {
    /// A node starts into a federation that has found itself.
    pub(super) fn newcomer_started(&mut self, node: usize) {
        self.figures.deaths.retain(|death| death.node != node);
        if self.judge.converged.is_some() {
            self.figures.newcomers.insert(node, self.now);
        }
    }

    /// A node goes silent in a federation that has found itself.
    pub(super) fn node_died(&mut self, node: usize) {
        self.figures.newcomers.remove(&node);
        if self.judge.converged.is_some() && !self.nodes[node].is_tainted() {
            let noticed = vec![false; self.nodes.len()];
            self.figures.deaths.push(Death { node, at: self.now, noticed });
        }
    }

    /// Whether a newcomer knows by now what everybody who lives had signed when it started.
    pub(crate) fn time_newcomer(&mut self, node: usize) {
        let Some(since) = self.figures.newcomers.get(&node).copied() else { return };
        let Some(mesh) = &self.nodes[node].mesh else { return };
        let knows = |of: usize| {
            let Some((sequence, signed)) = self.judge.newest_of(of) else { return true };
            let entry = mesh.directory().get(&self.federation.id(of));
            signed > since || entry.is_some_and(|entry| entry.advert().sequence() >= sequence)
        };
        let mut others = (0..self.nodes.len()).filter(|of| *of != node && self.is_honest(*of));
        if others.all(|of| !self.can_meet(node, of) || knows(of)) {
            self.figures.newcomers.remove(&node);
            let took = self.now.since(since);
            self.figures.newcomer(took);
        }
    }

    /// Whether a node has noticed deaths by now.
    pub(crate) fn time_deaths(&mut self, node: usize) {
        let Some(directory) = self.nodes[node].mesh.as_ref().map(Mesh::directory) else { return };
        let now = self.now;
        let mut noticed = Vec::new();
        for death in self.figures.deaths.iter_mut().filter(|death| !death.noticed[node]) {
            if directory.suspects().contains(&self.federation.members[death.node].node.id) {
                death.noticed[node] = true;
                noticed.push(now.since(death.at));
            }
        }
        noticed.into_iter().for_each(|took| self.figures.death_noticed(took));
    }

    /// A call whose first choice is a node that has died: how long after its death.
    pub(crate) fn time_rerouting(&mut self, route: &Route<'_>) {
        let Some(first) = route.ranked.first().and_then(|first| self.federation.find(&first.site.node))
        else {
            return;
        };
        let took = self.figures.deaths.iter().find(|death| death.node == first);
        if let Some(took) = took.map(|death| self.now.since(death.at)) {
            self.figures.routed_to_dead(took);
        }
    }
}
