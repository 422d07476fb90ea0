//! What the rest of the node sees of the mesh: a picture that never changes, replaced as the mesh does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::ids::{NodeId, OrgName};
use comity_protocol::mesh::Mesh;
use comity_protocol::mesh::blobs::Blobs;
use comity_protocol::mesh::directory::Entry;
use comity_protocol::mesh::link::{Link, Phase};
use libp2p::Multiaddr;

/// The mesh at one moment.
#[derive(Clone, Debug, Default)]
pub struct MeshSnapshot {
    /// Every node that is known, this one among them, with its verified advert.
    pub nodes: BTreeMap<NodeId, Arc<Entry>>,
    /// Offer sets and descriptors.
    pub blobs: Arc<Blobs>,
    /// The connections that stand, in the order in which they were made.
    pub peers: Vec<PeerState>,
    /// Where this node listens.
    pub listening: Vec<Multiaddr>,
    /// The digest of all that is known: two nodes with the same pins that agree have the same.
    pub digest: u64,
    /// Counts the changes of the directory and the blobs; the same number means that neither has changed.
    pub version: u64,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// The peer.
    pub node: NodeId,
    /// Its org, once its membership has been checked.
    pub org: Option<OrgName>,
    /// Whether we dialled.
    pub dialled: bool,
    /// How far it has come.
    pub stage: PeerStage,
    /// The last round trip of a ping.
    pub rtt: Option<Duration>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerStage {
    /// Not admitted yet.
    Admitting,
    /// Admitted; kept for calls, or for a while.
    Linked,
    /// Admitted, and each wants the other as a neighbour.
    Neighbour,
    /// On its way out.
    Closing,
}

impl MeshSnapshot {
    /// The peers that are admitted.
    pub fn linked(&self) -> impl Iterator<Item = &PeerState> {
        self.peers.iter().filter(|peer| matches!(peer.stage, PeerStage::Linked | PeerStage::Neighbour))
    }

    /// The picture after a change of the directory or the blobs. Entries that did not change are shared with `before`.
    pub(super) fn after_change(before: &Self, mesh: &Mesh, listening: Vec<Multiaddr>) -> Self {
        let nodes =
            mesh.directory().iter().map(|(node, entry)| (*node, share(before, node, entry))).collect();
        Self {
            nodes,
            blobs: Arc::new(mesh.blobs().clone()),
            peers: peers(mesh),
            listening,
            digest: mesh.digest(),
            version: before.version + 1,
        }
    }

    /// The picture after nothing but connections has changed.
    pub(super) fn with_peers(before: &Self, mesh: &Mesh, listening: Vec<Multiaddr>) -> Self {
        Self { peers: peers(mesh), listening, ..before.clone() }
    }
}

fn share(before: &MeshSnapshot, node: &NodeId, entry: &Entry) -> Arc<Entry> {
    let same = |known: &&Arc<Entry>| {
        known.version() == entry.version()
            && known.suspected == entry.suspected
            && known.equivocated == entry.equivocated
    };
    before.nodes.get(node).filter(same).cloned().unwrap_or_else(|| Arc::new(entry.clone()))
}

fn peers(mesh: &Mesh) -> Vec<PeerState> {
    mesh.links().map(PeerState::of).collect()
}

impl PeerState {
    fn of(link: &Link) -> Self {
        let stage = match link.phase {
            Phase::Hello | Phase::Welcome => PeerStage::Admitting,
            Phase::Up if link.is_neighbour() => PeerStage::Neighbour,
            Phase::Up => PeerStage::Linked,
            Phase::Closed => PeerStage::Closing,
        };
        Self { node: link.peer, org: link.org.clone(), dialled: link.dialled, stage, rtt: link.rtt }
    }
}
