//! The messages of a link, `/comity/link/1`: admission first, then liveness, anti-entropy and roots.
//!
//! Each message is one frame: a length as four big-endian bytes, then a canonical CBOR array. docs/protocol.md has the
//! bytes.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::advert::Sequence;
use crate::codec::{self, CodecError};
use crate::ids::{BlobDigest, MeshName, NodeId, RootHash};
use crate::time::Wall;

/// The name of the link protocol.
pub const LINK_PROTOCOL: &str = "/comity/link/1";

/// The name of the protocol that pulls blobs by digest.
pub const BLOB_PROTOCOL: &str = "/comity/blob/1";

/// Most bytes of one link message.
pub const LINK_FRAME_MAX: usize = 128 * 1024;

/// Most bytes of a link message before admission: a stranger gets no more of our memory than this.
pub const HELLO_FRAME_MAX: usize = 72 * 1024;

/// Most digests in one request for blobs, and most bytes of that request.
pub const BLOBS_PER_REQUEST_MAX: usize = 64;
/// Most bytes of a request for blobs.
pub const BLOB_REQUEST_BYTES_MAX: usize = 4 * 1024;

/// Most pins that one node tells another; a node with more pinned orgs tells the first of them in order.
pub const INTERESTS_MAX: usize = 512;

/// Buckets into which anti-entropy divides an org's nodes.
pub const BUCKETS: usize = 64;

/// Most entries in one [`LinkMessage::Entries`] or [`LinkMessage::Want`].
pub const ENTRIES_MAX: usize = 1024;

/// Most rumours in one [`LinkMessage::Rumours`].
pub const RUMOURS_MAX: usize = 64;

/// Most advert bytes in one [`LinkMessage::Adverts`]; more go in further messages.
pub const ADVERT_BATCH_BYTES_MAX: usize = 48 * 1024;

/// Who a node says it is. The connection has already proved its key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// The mesh that the node belongs to.
    #[n(0)]
    pub mesh: MeshName,
    /// Its membership's envelope.
    #[n(1)]
    pub membership: ByteVec,
    /// Its org's chain of roots.
    #[n(2)]
    pub roots: ByteVec,
    /// Its clock, so that both can warn when clocks differ.
    #[n(3)]
    pub wall: Wall,
    /// The software's version, for people.
    #[n(4)]
    pub version: String,
}

/// What an admitted node knows of trust, so that both can tell which adverts concern both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The pins of the orgs it has pinned, its own among them, ascending.
    #[n(0)]
    pub pins: Vec<RootHash>,
    /// Those of them whose root it lacks.
    #[n(1)]
    pub missing: Vec<RootHash>,
    /// Whether it wants the other as a neighbour.
    #[n(2)]
    pub want: Want,
}

/// Whether a node wants the peer of a link as a neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Want {
    /// No: the link is for calls, or the node has neighbours enough.
    #[default]
    #[n(0)]
    No,
    /// Yes.
    #[n(1)]
    Yes,
    /// Yes, and it has no other: a full node makes room for it.
    #[n(2)]
    Lonely,
}

/// The digest of one org's adverts, or of one bucket of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OrgDigest {
    /// The org, by its pin.
    #[n(0)]
    pub org: RootHash,
    /// The digest.
    #[n(1)]
    pub digest: u64,
}

/// The digests of an org's buckets.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OrgBuckets {
    /// The org, by its pin.
    #[n(0)]
    pub org: RootHash,
    /// One digest a bucket; always [`BUCKETS`] of them.
    #[n(1)]
    pub buckets: Vec<u64>,
}

/// What a node knows of one other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EntrySummary {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// The sequence of its advert.
    #[n(1)]
    pub sequence: Sequence,
    /// The first eight bytes of the advert's digest, which decide between two of one sequence.
    #[n(2)]
    pub digest: u64,
}

/// The entries of some buckets of one org.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OrgEntries {
    /// The org, by its pin.
    #[n(0)]
    pub org: RootHash,
    /// The buckets that are listed whole.
    #[n(1)]
    pub buckets: Vec<u8>,
    /// All entries of those buckets.
    #[n(2)]
    pub entries: Vec<EntrySummary>,
}

/// That a node does not answer. It proves nothing and removes nothing: it ranks the node last for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rumour {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// The sequence of the newest advert of it that was known to whoever began the rumour. A newer advert answers it.
    #[n(1)]
    pub sequence: Sequence,
}

/// Why a node will not talk to another.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// A stable name.
    #[n(0)]
    pub code: String,
    /// A sentence for people.
    #[n(1)]
    pub detail: String,
}

/// One message of a link.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LinkMessage {
    /// The first message of each side; the dialler's comes first.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// Instead of a hello or a welcome; the connection closes after it.
    #[n(1)]
    Refuse(#[n(0)] Refusal),
    /// The peer is admitted.
    #[n(2)]
    Welcome(#[n(0)] Welcome),
    /// Are you there? With the digest of all that concerns both.
    #[n(3)]
    Ping {
        /// Echoed by the answer.
        #[n(0)]
        nonce: u32,
        /// The sender's digest of the adverts that concern both.
        #[n(1)]
        digest: u64,
    },
    /// The answer to a ping.
    #[n(4)]
    Pong {
        /// The ping's.
        #[n(0)]
        nonce: u32,
        /// The sender's digest of the adverts that concern both.
        #[n(1)]
        digest: u64,
    },
    /// The digests differ: the digest of each org that concerns both.
    #[n(5)]
    Orgs(#[n(0)] Vec<OrgDigest>),
    /// The buckets of the orgs that differ.
    #[n(6)]
    Buckets(#[n(0)] Vec<OrgBuckets>),
    /// The entries of the buckets that differ.
    #[n(7)]
    Entries(#[n(0)] Vec<OrgEntries>),
    /// Nodes whose adverts the sender wants.
    #[n(8)]
    Want(#[n(0)] Vec<NodeId>),
    /// Adverts, each an envelope.
    #[n(9)]
    Adverts(#[n(0)] Vec<ByteVec>),
    /// Chains of roots.
    #[n(10)]
    Roots(#[n(0)] Vec<ByteVec>),
    /// The sender's pins have changed, or its wish to be a neighbour.
    #[n(11)]
    Update(#[n(0)] Welcome),
    /// The sender is about to close the connection in peace.
    #[n(12)]
    Bye(#[n(0)] Refusal),
    /// Nodes that the sender, or somebody who told it, got no answer from; at most [`RUMOURS_MAX`].
    #[n(13)]
    Rumours(#[n(0)] Vec<Rumour>),
}

impl LinkMessage {
    /// The message's bytes, without the length in front.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads one message.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes, LINK_FRAME_MAX)
    }
}

/// A request on the blob protocol: the answers come as frames in the same order, each empty when the peer has it not or
/// may not give it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobRequest {
    /// What is asked for, at most [`BLOBS_PER_REQUEST_MAX`].
    #[n(0)]
    pub digests: Vec<BlobDigest>,
}
