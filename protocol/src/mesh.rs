//! The mesh as one node lives it: who its neighbours are, what it knows of every other node, and how that converges.
//!
//! [`Mesh`] only dispatches. Each responsibility is a machine of its own: a [`link`] per connection (admission and
//! liveness), the [`directory`] (what has been verified), [`reconcile`] (anti-entropy), the [`overlay`] (whom to dial,
//! keep and let go) and [`fetch`] (offers and descriptors by digest).
//!
//! The drain contract: after every `handle_*` call, take effects from [`Mesh::poll_effect`] until it gives `None`,
//! carry them out, and call [`Mesh::handle_timeout`] no later than [`Mesh::poll_timeout`] says. Effects that concern a
//! connection that has gone meanwhile are dropped by whoever carries them out.

pub mod directory;
// pub mod fetch;
pub mod link;
pub mod overlay;
pub mod reconcile;
pub mod wire;

use crate::advert::Sequence;
use crate::ids::{BlobDigest, NodeId, OrgName};

/// One connection, numbered by the shell; a number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Whom to dial: a node, an address, or both. An address alone is a seed whose key is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialTarget {
    /// The node that must answer; anybody may when it is `None`.
    pub node: Option<NodeId>,
    /// Multiaddrs, best first; never empty.
    pub addresses: Vec<String>,
}

/// One pull of blobs, numbered by the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchId(pub u64);

/// What must become durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshRecord {
    /// The node's own next sequence: [`Mesh`] publishes nothing under it until `handle_persisted` says that it is kept.
    OwnSequence(Sequence),
    /// An advert that has been verified, with its sequence, which outlives it.
    Advert {
        /// The node.
        node: NodeId,
        /// Its place in its history.
        sequence: Sequence,
        /// The envelope as received.
        bytes: std::sync::Arc<[u8]>,
    },
    /// The advert of a node has ended; its sequence stays.
    Forget(NodeId),
    /// A newer chain of roots of a pinned org.
    Roots {
        /// The org.
        org: OrgName,
        /// The chain.
        bytes: Vec<u8>,
    },
}

/// What should happen in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Dial. The outcome comes back as `handle_connected` or `handle_dial_failed` with the same target.
    Dial(DialTarget),
    /// Send a frame on the link of a connection. Frames of one connection keep their order.
    Send(ConnectionId, Vec<u8>),
    /// The peer is who it says: take its streams. Ours wait until [`Effect::Admit`].
    Accept(ConnectionId),
    /// The peer has accepted us too: open gossip and all else.
    Admit {
        /// The connection.
        connection: ConnectionId,
        /// The peer.
        peer: NodeId,
        /// Its org.
        org: OrgName,
    },
    /// Send what is queued, then close.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// Why, for the log.
        reason: String,
        /// Whether calls in flight are let finish first.
        when_idle: bool,
    },
    /// Publish on the gossip topic.
    Publish(std::sync::Arc<[u8]>),
    /// Pull blobs from a node, dialling it if need be; answer with `handle_blobs`.
    Fetch {
        /// The pull.
        id: FetchId,
        /// From whom.
        from: NodeId,
        /// Where it can be dialled.
        addresses: Vec<String>,
        /// What, at most [`wire::BLOBS_PER_REQUEST_MAX`].
        digests: Vec<BlobDigest>,
    },
    /// Make durable; answer with `handle_persisted` for [`MeshRecord::OwnSequence`].
    Persist(MeshRecord),
    /// Something that the rest of the node or its operator wants to know.
    Event(MeshEvent),
}

/// Something that the rest of the node or its operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshEvent {
    /// A peer has been admitted on a connection, the first to it.
    PeerUp {
        /// The peer.
        peer: NodeId,
        /// Its org.
        org: OrgName,
    },
    /// The last connection to a peer has gone.
    PeerDown {
        /// The peer.
        peer: NodeId,
        /// Why.
        reason: String,
    },
    /// We refused a peer, or it refused us.
    Refused {
        /// The peer.
        peer: NodeId,
        /// Whether we were the one refused.
        by_peer: bool,
        /// A stable name.
        code: String,
        /// A sentence.
        detail: String,
    },
    /// An advert was refused.
    AdvertRefused {
        /// Who passed it on.
        from: NodeId,
        /// A stable name.
        code: &'static str,
        /// A sentence.
        detail: String,
    },
    /// The directory, the offers or the descriptors have changed: derive the catalogue and the routes anew.
    Changed,
    /// A node has signed two adverts with one sequence number.
    Equivocated(NodeId),
    /// The clock of a peer differs from ours by more than a minute.
    ClockDiffers {
        /// The peer.
        peer: NodeId,
        /// By how many seconds its clock is ahead; negative when it is behind.
        ahead_s: i64,
    },
}

/// How gossip should treat a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Pass it on.
    Accept,
    /// Do not pass it on, and blame nobody.
    Ignore,
    /// Do not pass it on; who sent it should not have.
    Reject,
}
