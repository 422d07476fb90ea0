//! Faults that are put back, to see whether the judge finds them.
//!
//! Each is done to an honest node at the seam between its machine and the world: what the machine is told, or what becomes
//! of what it wants, is changed so that the node behaves as if a rule were missing from the protocol. The protocol itself
//! has no switch for it, so nothing of this can reach a node that people run. docs/simulation.md has the table of what
//! found which.

use comity_protocol::constraints::Constraints;
use comity_protocol::mesh::wire::{LinkMessage, Want};
use comity_protocol::mesh::{DialTarget, Restored};
use comity_protocol::route::SiteFacts;
use comity_protocol::time::Now;

use crate::federation::node_at;
use crate::world::World;

/// A rule that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Who has been lost is never dialled again.
    NeverRedials,
    /// A node that has neighbours enough takes no lonely one.
    RefusesTheLonely,
    /// After a restart a lower sequence is taken.
    TakesOldSequences,
    /// The executor does not check again whether it may run a call.
    SkipsTheRecheck,
    /// An advert is taken in the millisecond in which it ends.
    TakesTheEnded,
    /// A call that may have run is sent again.
    ResendsAfterHandOver,
    /// Neighbours' digests are never compared.
    NeverReconciles,
}

impl World {
    pub(crate) fn is_sabotaged(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// What a node's machine is told that its clocks show.
    pub(crate) fn told_time(&self, mut now: Now) -> Now {
        if self.is_sabotaged(Sabotage::TakesTheEnded) {
            now.wall = now.wall - std::time::Duration::from_millis(1);
        }
        now
    }

    /// Whether a dial that a machine wants is left undone.
    pub(crate) fn leaves_undialled(&self, node: usize, target: &DialTarget) -> bool {
        let to = target.addresses.first().and_then(|address| node_at(address));
        self.is_sabotaged(Sabotage::NeverRedials) && to.is_some_and(|to| self.nodes[node].lost.contains(&to))
    }

    /// What a node finds on its disk.
    pub(crate) fn told_restored(&self, restored: Restored) -> Restored {
        if self.is_sabotaged(Sabotage::TakesOldSequences) {
            return Restored { own: restored.own, ..Restored::default() };
        }
        restored
    }

    /// What an executor is told of its own site when a call is to be checked again.
    pub(crate) fn told_site(&self, mut site: SiteFacts, constraints: &Constraints) -> SiteFacts {
        if self.is_sabotaged(Sabotage::SkipsTheRecheck)
            && let Some(place) = constraints.allow_locations.and_then(|places| places.iter().next())
        {
            site.processing = [place].into_iter().collect();
            site.locations_max = site.processing;
        }
        site
    }

    /// What a node is told that a peer says on their link; `None` when it is told nothing.
    pub(crate) fn told_frame(&self, node: usize, bytes: &[u8]) -> Option<Vec<u8>> {
        let unchanged = || Some(bytes.to_vec());
        match (self.sabotage, LinkMessage::decode(bytes)) {
            (Some(Sabotage::NeverReconciles), Ok(LinkMessage::Orgs(_) | LinkMessage::Entries(_))) => None,
            (Some(Sabotage::RefusesTheLonely), Ok(message)) if self.is_full(node) => {
                Some(without_loneliness(message).encode())
            }
            _ => unchanged(),
        }
    }

    fn is_full(&self, node: usize) -> bool {
        let links = self.nodes[node].mesh.iter().flat_map(|mesh| mesh.links());
        links.filter(|link| link.is_neighbour()).count()
            >= comity_protocol::mesh::overlay::NEIGHBOURS_TARGET * 3 / 2
    }
}

fn without_loneliness(message: LinkMessage) -> LinkMessage {
    match message {
        LinkMessage::Welcome(mut welcome) if welcome.want == Want::Lonely => {
            welcome.want = Want::No;
            LinkMessage::Welcome(welcome)
        }
        LinkMessage::Update(mut update) if update.want == Want::Lonely => {
            update.want = Want::No;
            LinkMessage::Update(update)
        }
        other => other,
    }
}
