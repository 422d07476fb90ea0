//! The frames of `/comity/enrol/1`: canonical CBOR arrays. docs/protocol-enrolment.md has the bytes.

use core::fmt;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::geo::CountrySet;
use crate::ids::MeshName;
use crate::invite::{InviteId, InviteKind};

use super::transcript::{Introduction, Nonce};

/// The name of the protocol.
pub const ENROL_PROTOCOL: &str = "/comity/enrol/1";

/// Most bytes of a frame from somebody who has not proved a token yet. A stranger gets no more of our memory: a
/// membership of the largest kind fits, and little else.
pub const STRANGER_FRAME_MAX: usize = 2560;

/// Most bytes of any frame: a chain of roots, a membership and some seeds.
pub const ENROL_FRAME_MAX: usize = 80 * 1024;

/// Most addresses of nodes to dial that an inviter tells, and most bytes of each.
pub const SEEDS_MAX: usize = 16;

/// Most bytes of a refusal's text.
pub(super) const DETAIL_BYTES_MAX: usize = 256;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Frame {
    /// Joiner: which invite, and a commitment to a nonce.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// Inviter: its nonce.
    #[n(1)]
    Challenge(#[n(0)] Nonce),
    /// Joiner: its nonce, and the proof that it has the token.
    #[n(2)]
    Prove(#[n(0)] Nonce, #[n(1)] ByteArray<32>),
    /// Joiner: what it asks for; sent right after the proof, read only when that holds.
    #[n(3)]
    Ask(#[n(0)] Ask),
    /// Inviter: a person is comparing the words.
    #[n(4)]
    Wait,
    /// Inviter: what was asked for.
    #[n(5)]
    Grant(#[n(0)] Grant),
    /// Inviter: no.
    #[n(6)]
    Refuse(#[n(0)] Refusal),
    /// Joiner: all of it is verified and stored.
    #[n(7)]
    Done,
    /// Member: its present membership, to be replaced before it ends. Answered by Grant or Refuse, and nothing follows.
    #[n(8)]
    Renew(#[n(0)] ByteVec),
}

impl Frame {
    /// Reads a frame of at most `max` bytes.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8], max: usize) -> Result<Self, CodecError> {
        codec::decode(bytes, max)
    }

    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// What it is called where it comes out of turn.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Challenge(_) => "Challenge",
            Self::Prove(..) => "Prove",
            Self::Ask(_) => "Ask",
            Self::Wait => "Wait",
            Self::Grant(_) => "Grant",
            Self::Refuse(_) => "Refuse",
            Self::Done => "Done",
            Self::Renew(_) => "Renew",
        }
    }
}

/// How a joiner begins.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// The mesh of the invite.
    #[n(0)]
    pub mesh: MeshName,
    /// Which invite.
    #[n(1)]
    pub invite: InviteId,
    /// What it is for.
    #[n(2)]
    pub kind: InviteKind,
    /// A commitment to the joiner's nonce.
    #[n(3)]
    pub commitment: ByteArray<32>,
    /// Who the joiner is, when two orgs federate.
    #[n(4)]
    pub introduction: Option<Introduction>,
}

/// What a joiner asks for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// To be a member of the inviter's org.
    #[n(0)]
    Member {
        /// What people call the node.
        #[n(0)]
        name: String,
        /// Where it wants to process calls.
        #[n(1)]
        locations: CountrySet,
    },
    /// To federate.
    #[n(1)]
    Federate {
        /// The joiner's membership in its own org.
        #[n(0)]
        membership: ByteVec,
        /// Its org's chain of roots.
        #[n(1)]
        roots: ByteVec,
        /// Where the joiner can be dialled, as multiaddrs; none when it does not know.
        #[n(2)]
        seeds: Vec<String>,
    },
}

/// What an inviter grants: to a new member its membership, to another org the inviter's own, to a member that renews
/// its next one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Grant {
    /// The joiner's new membership, or when two orgs federate the inviter's.
    #[n(0)]
    pub membership: ByteVec,
    /// The chain of roots of the inviter's org.
    #[n(1)]
    pub roots: ByteVec,
    /// Nodes to dial, as multiaddrs.
    #[n(2)]
    pub seeds: Vec<String>,
}

/// Why an inviter refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RefusalCode {
    /// No such invite was issued here, or it was cleared away.
    #[n(0)]
    Unknown,
    /// Too late.
    #[n(1)]
    Expired,
    /// Another node used it.
    #[n(2)]
    Used,
    /// It was revoked, or too many wrong proofs were tried on it.
    #[n(3)]
    Void,
    /// The proof of the token is wrong.
    #[n(4)]
    Proof,
    /// The invite is for something else.
    #[n(5)]
    Kind,
    /// The inviter is in another mesh.
    #[n(6)]
    Mesh,
    /// A frame that cannot be read, or out of turn.
    #[n(7)]
    Frame,
    /// The node's name cannot be used.
    #[n(8)]
    Name,
    /// Places that the invite does not allow.
    #[n(9)]
    Locations,
    /// The joiner's roots or membership do not hold.
    #[n(10)]
    Introduction,
    /// The operator said no.
    #[n(11)]
    Declined,
    /// It took too long.
    #[n(12)]
    Timeout,
    /// The inviter could not do its part.
    #[n(13)]
    Internal,
    /// The node does not issue memberships for the org: another one does.
    #[n(14)]
    NotIssuer,
}

impl RefusalCode {
    /// A sentence for the joiner's operator.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Unknown => "the inviter does not know this invite: ask for a new one",
            Self::Expired => "the invite has expired: ask for a new one",
            Self::Used => "the invite was used by another node: ask for a new one",
            Self::Void => "the invite is void: ask for a new one",
            Self::Proof => "the invite's token is not the inviter's: copy the line again",
            Self::Kind => "the invite is for something else than what was asked",
            Self::Mesh => "the inviter is in another mesh",
            Self::Frame => "the inviter could not read what was sent: are both on the same version?",
            Self::Name => "the node's name cannot be used",
            Self::Locations => "the invite does not allow every place that the site names",
            Self::Introduction => "the inviter does not accept this org's roots or this node's membership",
            Self::Declined => "the inviter's operator declined: did the words differ?",
            Self::Timeout => "the exchange took too long: try again",
            Self::Internal => "the inviter could not complete the exchange: its log says why; try again",
            Self::NotIssuer => "this node does not issue memberships for the org: ask another one",
        }
    }
}

/// An inviter's no.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// Why.
    #[n(0)]
    pub code: RefusalCode,
    /// More, for people.
    #[n(1)]
    detail: String,
}

impl Refusal {
    /// A refusal; of `detail` the first 256 bytes are kept.
    pub fn new(code: RefusalCode, detail: impl fmt::Display) -> Self {
        let mut detail = detail.to_string();
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Self { code, detail }
    }

    /// More, for people, without control characters: it came from a peer.
    pub fn detail(&self) -> String {
        self.detail.chars().filter(|c| !c.is_control()).take(DETAIL_BYTES_MAX).collect()
    }
}

impl From<RefusalCode> for Refusal {
    fn from(code: RefusalCode) -> Self {
        Self { code, detail: String::new() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = self.detail();
        f.write_str(self.code.advice())?;
        if detail.is_empty() { Ok(()) } else { write!(f, " ({detail})") }
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refusal({:?}, {:?})", self.code, self.detail())
    }
}
