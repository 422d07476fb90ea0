//! Enrolment, `/comity/enrol/1`: how a node joins an org, and how two orgs come to pin each other.
//!
//! The only protocol that is open to a stranger, so it gives nothing and remembers nothing before a proof. The channel
//! has already proved both keys; the joiner dialled the key that its invite names. Then:
//!
//! ```text
//! joiner                                      inviter
//!   Hello: invite id, H(nonce), who I am  ──▶   is there such an invite, open, for this?
//!                                         ◀──   Challenge: nonce
//!   Prove: nonce, MAC(token, transcript)  ──▶   compare in constant time; count a wrong one
//!   Ask: name and places | roots          ──▶   within the terms?
//!         both show the same four words, keyed by token, keys, roots and nonces
//!                                         ◀──   Wait (when the operator must compare the words)
//!                                               use the invite up; durable; then sign, or pin
//!                                         ◀──   Grant: membership, roots, seeds | Refuse
//!   verify from the invite's pin; store
//!   Done                                  ──▶
//! ```
//!
//! A member whose certificate ends soon sends Renew on the same protocol instead and is answered with the next one:
//! [`Renewal`] and [`Registrar`].
//!
//! [`Inviter`] and [`Joiner`] are the two sides of one stream, [`Ledger`] the issued invites. Each side is a machine
//! without clock or I/O: feed it `handle_*`, then drain `poll_output` until it is empty; call `handle_timeout` at
//! `poll_timeout`. After `Finished` send what is still queued and close the stream.

use minicbor::bytes::ByteVec;

use crate::codec::CodecError;
use crate::ids::{MeshName, NodeId, OrgName, RootHash};
use crate::invite::INVITE_ADDRESS_BYTES_MAX;
use crate::time::Now;
use crate::trust::{Anchors, Membership, MembershipError, RootChain, RootError, RootRefusal, Verified};

mod frames;
mod inviter;
mod joiner;
mod ledger;
mod renewal;
mod transcript;

pub use frames::{
    Ask, ENROL_FRAME_MAX, ENROL_PROTOCOL, Frame, Grant, Hello, Refusal, RefusalCode, SEEDS_MAX,
    STRANGER_FRAME_MAX,
};
pub use inviter::{Guest, Host, Inviter, InviterOutput, Question, Welcomed};
pub use joiner::{Applicant, Enrolled, Joiner, JoinerOutput};
pub use ledger::{
    ATTEMPTS_MAX, INVITES_MAX, InviteState, IssuedInvite, Ledger, LedgerEffect, LedgerError, Terms,
};
pub use renewal::{Registrar, Renewal, Renewed};
pub use transcript::{Introduction, Nonce, Transcript, Words, commitment};

use std::time::Duration;

/// How long each step of the machines may take.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// How long two people may take to compare the words.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Most enrolment streams that a node serves at a time; the shell resets one more. With [`STRANGER_FRAME_MAX`] this
/// bounds what strangers can make it hold.
pub const STREAMS_MAX: usize = 16;

/// Most bytes of a node's name.
pub const NODE_NAME_BYTES_MAX: usize = 64;

/// Why an enrolment ended without success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// The invite does not hold, before anything was sent.
    #[error(transparent)]
    Invite(#[from] crate::invite::InviteError),
    /// The inviter said no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// We said no to the joiner.
    #[error("the joiner was refused: {0}")]
    WeRefused(Refusal),
    /// The other side sent what cannot be read.
    #[error("the other side sent a frame that cannot be read")]
    Frame(#[from] CodecError),
    /// The other side sent something out of turn.
    #[error("the other side sent {0} out of turn")]
    Unexpected(&'static str),
    /// The other side's roots or membership do not hold.
    #[error(transparent)]
    Introduction(#[from] IntroductionError),
    /// The grant is not what was asked for.
    #[error("the inviter granted something else than was asked: {0}")]
    Grant(&'static str),
    /// What this side was asked to do does not go with the invite.
    #[error("this cannot be asked with this invite: {0}")]
    Misuse(&'static str),
    /// It took too long.
    #[error("the other side did not answer in time")]
    Timeout,
    /// The stream ended before its time.
    #[error("the other side ended the exchange")]
    Closed,
    /// Our own store or issuer failed.
    #[error("this node could not do its part: {0}")]
    Internal(String),
}

/// Why an org's roots, or a membership under them, were not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntroductionError {
    /// The roots do not verify, or do not begin at the pin.
    #[error("the roots do not hold")]
    Roots(#[from] RootRefusal),
    /// The roots are another org's.
    #[error("the roots are {actual}'s where {expected}'s were expected")]
    Org {
        /// Whose they should be.
        expected: OrgName,
        /// Whose they are.
        actual: OrgName,
    },
    /// The newest root is past its end, or not valid yet.
    #[error("the newest root does not hold now")]
    Time(#[source] RootError),
    /// The membership does not hold.
    #[error("the membership does not hold")]
    Membership(#[from] MembershipError),
}

/// An org's roots, verified from a pin, and a node's membership under them.
struct Introduced {
    chain: RootChain,
    membership: Verified<Membership>,
}

/// What to check an introduction against.
struct Expectation<'a> {
    mesh: &'a MeshName,
    org: &'a OrgName,
    pin: RootHash,
    node: NodeId,
}

impl Expectation<'_> {
    /// Checks everything from the pin down: roots, org, times, issuer, signature, and that it is this node's.
    fn verify(&self, roots: &ByteVec, membership: &[u8], now: Now) -> Result<Introduced, IntroductionError> {
        let chain = RootChain::decode(roots).map_err(RootRefusal::from)?;
        let root = chain.verify().map_err(RootRefusal::from)?;
        if root.org != *self.org {
            return Err(IntroductionError::Org { expected: self.org.clone(), actual: root.org });
        }
        root.check_time(now.wall).map_err(IntroductionError::Time)?;
        let mut anchors = Anchors::new(self.mesh.clone());
        anchors.pin(self.org.clone(), self.pin);
        anchors.learn(chain.clone())?;
        let membership = anchors.verify_membership(membership, now.wall)?;
        if membership.node != self.node {
            let (claimed, actual) = (membership.node, self.node);
            return Err(MembershipError::WrongNode { claimed, actual }.into());
        }
        Ok(Introduced { chain, membership })
    }
}

fn are_seeds(seeds: &[String]) -> bool {
    let good = |seed: &String| seed.len() <= INVITE_ADDRESS_BYTES_MAX && !seed.chars().any(char::is_control);
    seeds.len() <= SEEDS_MAX && seeds.iter().all(good)
}

/// An error and its causes in one line.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn is_node_name(name: &str) -> bool {
    (1..=NODE_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests;
