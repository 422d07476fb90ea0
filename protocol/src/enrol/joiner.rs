//! The joiner's side of one stream.

use std::collections::VecDeque;

use minicbor::bytes::ByteArray;

use crate::geo::CountrySet;
use crate::ids::{MeshName, NodeId, OrgName, RootHash};
use crate::invite::{Invite, InviteKind};
use crate::time::{Mono, Now};
use crate::trust::{Membership, RootChain, Verified};

use super::frames::{Ask, ENROL_FRAME_MAX, Frame, Grant, Hello, Refusal, SEEDS_MAX};
use super::transcript::{Introduction, Nonce, Transcript, Words, commitment};
use super::{CONFIRM_TIMEOUT, EnrolError, Expectation, STEP_TIMEOUT, are_seeds, is_node_name};

/// Who asks.
#[derive(Clone, Debug)]
pub enum Applicant {
    /// A node that wants to be a member of the inviter's org.
    Member {
        /// What people call it.
        name: String,
        /// Where it wants to process calls.
        locations: CountrySet,
    },
    /// A node that speaks for another org.
    Org {
        /// Its membership's envelope.
        membership: Vec<u8>,
        /// Its org.
        org: OrgName,
        /// The first root of its org.
        root: RootHash,
        /// The chain from it.
        roots: RootChain,
        /// Where the node can be dialled, as multiaddrs; of more than [`SEEDS_MAX`] the first are sent.
        seeds: Vec<String>,
    },
}

/// What was granted, verified from the invite's pin. Store all of it, durably, and only then call
/// [`Joiner::handle_stored`].
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// The mesh.
    pub mesh: MeshName,
    /// The inviter's org.
    pub org: OrgName,
    /// The root to pin for it.
    pub root: RootHash,
    /// The chain from that root.
    pub roots: RootChain,
    /// This node's membership in that org; none when two orgs federate.
    pub membership: Option<Verified<Membership>>,
    /// The inviter.
    pub inviter: NodeId,
    /// Nodes to dial, as multiaddrs; unverified, as any hint is.
    pub seeds: Vec<String>,
}

/// What the joiner's shell must do.
#[derive(Clone, Debug)]
pub enum JoinerOutput {
    /// Send this frame.
    Send(Vec<u8>),
    /// The words of this exchange, to show.
    Words(Words),
    /// The inviter's operator is comparing the words.
    Waiting,
    /// Store what was granted, and answer with [`Joiner::handle_stored`].
    Store(Box<Enrolled>),
    /// It is over; nothing follows.
    Finished(Result<(), EnrolError>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for Challenge.
    Greeting,
    /// Waits for Wait, Grant or Refuse.
    Asking,
    /// The same, after Wait.
    Waiting,
    /// Waits for our own store.
    Storing,
    /// Finished.
    Over,
}

/// The joiner's side of one stream with the node that an invite names. See the module for the protocol and for how to
/// drive it. The shell must have dialled [`Invite::inviter`]'s key.
#[derive(Debug)]
pub struct Joiner {
    invite: Invite,
    node: NodeId,
    applicant: Applicant,
    nonce: Nonce,
    state: State,
    deadline: Mono,
    output: VecDeque<JoinerOutput>,
}

impl Joiner {
    /// Begins: the first output is the Hello. `nonce` is 32 fresh random bytes.
    ///
    /// # Errors
    /// [`EnrolError::Invite`] when it has expired, [`EnrolError::Misuse`] when it is for something else than
    /// `applicant` asks, is this node's own, or the name cannot be used.
    pub fn new(
        invite: Invite,
        node: NodeId,
        applicant: Applicant,
        nonce: [u8; 32],
        now: Now,
    ) -> Result<Self, EnrolError> {
        invite.check_time(now.wall)?;
        check_use(&invite, &node, &applicant)?;
        let (nonce, deadline) = (ByteArray::from(nonce), now.mono + STEP_TIMEOUT);
        let output = VecDeque::new();
        let mut joiner = Self { invite, node, applicant, nonce, state: State::Greeting, deadline, output };
        joiner.send(&Frame::Hello(joiner.hello()));
        Ok(joiner)
    }

    /// The most bytes that the next frame may have.
    pub const fn frame_bytes_max(&self) -> usize {
        ENROL_FRAME_MAX
    }

    /// Takes one frame from the inviter.
    pub fn handle_frame(&mut self, bytes: &[u8], now: Now) {
        let frame = match Frame::decode(bytes, self.frame_bytes_max()) {
            Ok(frame) => frame,
            Err(error) => return self.finish(Err(error.into())),
        };
        self.deadline = now.mono + STEP_TIMEOUT;
        match (self.state, frame) {
            (State::Over, _) => {}
            (_, Frame::Refuse(refusal)) => self.refused(refusal),
            (State::Greeting, Frame::Challenge(nonce)) => self.prove(nonce),
            (State::Asking, Frame::Wait) => {
                self.state = State::Waiting;
                self.deadline = now.mono + CONFIRM_TIMEOUT + STEP_TIMEOUT;
                self.output.push_back(JoinerOutput::Waiting);
            }
            (State::Asking | State::Waiting, Frame::Grant(grant)) => self.check_grant(grant, now),
            (_, frame) => self.finish(Err(EnrolError::Unexpected(frame.name()))),
        }
    }

    /// Takes the answer to [`JoinerOutput::Store`], once what was granted is durable.
    pub fn handle_stored(&mut self, stored: Result<(), String>) {
        if self.state != State::Storing {
            return;
        }
        match stored {
            Ok(()) => {
                self.send(&Frame::Done);
                self.finish(Ok(()));
            }
            Err(error) => self.finish(Err(EnrolError::Internal(error))),
        }
    }

    /// Takes the end of the stream. What was granted and is being stored stays good.
    pub fn handle_closed(&mut self) {
        if !matches!(self.state, State::Storing | State::Over) {
            self.finish(Err(EnrolError::Closed));
        }
    }

    /// Ends the exchange when it has taken too long.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.poll_timeout().is_some_and(|deadline| now.mono >= deadline) {
            self.finish(Err(EnrolError::Timeout));
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout). Our own store has all the time that it needs.
    pub const fn poll_timeout(&self) -> Option<Mono> {
        if matches!(self.state, State::Storing | State::Over) { None } else { Some(self.deadline) }
    }

    /// What to do next. Drain it after every `handle_*`, and once after [`Self::new`].
    pub fn poll_output(&mut self) -> Option<JoinerOutput> {
        self.output.pop_front()
    }

    fn introduction(&self) -> Option<Introduction> {
        match &self.applicant {
            Applicant::Member { .. } => None,
            Applicant::Org { org, root, .. } => Some(Introduction { org: org.clone(), root: *root }),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            mesh: self.invite.mesh.clone(),
            invite: self.invite.token.id(),
            kind: self.invite.kind,
            commitment: commitment(&self.nonce),
            introduction: self.introduction(),
        }
    }

    /// Proves the token and asks in one go: the inviter reads the second frame only if the first holds.
    fn prove(&mut self, inviter_nonce: Nonce) {
        let transcript = Transcript {
            kind: self.invite.kind,
            mesh: self.invite.mesh.clone(),
            inviter: self.invite.inviter,
            joiner: self.node,
            org: self.invite.org.clone(),
            root: self.invite.root,
            introduction: self.introduction(),
            inviter_nonce,
            joiner_nonce: self.nonce,
        };
        self.send(&Frame::Prove(self.nonce, transcript.proof(&self.invite.token)));
        self.send(&Frame::Ask(self.ask()));
        self.output.push_back(JoinerOutput::Words(transcript.words(&self.invite.token)));
        self.state = State::Asking;
    }

    fn ask(&self) -> Ask {
        match &self.applicant {
            Applicant::Member { name, locations } => {
                Ask::Member { name: name.clone(), locations: *locations }
            }
            Applicant::Org { membership, roots, seeds, .. } => Ask::Federate {
                membership: membership.clone().into(),
                roots: roots.encode().into(),
                seeds: seeds.iter().take(SEEDS_MAX).cloned().collect(),
            },
        }
    }

    fn check_grant(&mut self, grant: Grant, now: Now) {
        match self.verify(grant, now) {
            Ok(enrolled) => {
                self.state = State::Storing;
                self.output.push_back(JoinerOutput::Store(enrolled.into()));
            }
            Err(error) => self.finish(Err(error)),
        }
    }

    /// Believes nothing that does not follow from the invite's pin.
    fn verify(&self, grant: Grant, now: Now) -> Result<Enrolled, EnrolError> {
        let Invite { mesh, org, root, inviter, .. } = &self.invite;
        let joins = matches!(self.applicant, Applicant::Member { .. });
        let node = if joins { self.node } else { *inviter };
        let expected = Expectation { mesh, org, pin: *root, node };
        let introduced = expected.verify(&grant.roots, &grant.membership, now)?;
        if let Applicant::Member { locations, .. } = &self.applicant
            && !locations.is_subset(&introduced.membership.locations_max)
        {
            return Err(EnrolError::Grant("the membership lacks a place that was asked for"));
        }
        if !are_seeds(&grant.seeds) {
            return Err(EnrolError::Grant("its seeds break the bounds of seeds"));
        }
        Ok(Enrolled {
            mesh: mesh.clone(),
            org: org.clone(),
            root: *root,
            roots: introduced.chain,
            membership: joins.then_some(introduced.membership),
            inviter: *inviter,
            seeds: grant.seeds,
        })
    }

    fn refused(&mut self, refusal: Refusal) {
        // Ours is done already: a refusal that crosses with our store changes nothing.
        if self.state != State::Storing {
            self.finish(Err(EnrolError::Refused(refusal)));
        }
    }

    fn finish(&mut self, outcome: Result<(), EnrolError>) {
        if self.state != State::Over {
            self.state = State::Over;
            self.output.push_back(JoinerOutput::Finished(outcome));
        }
    }

    fn send(&mut self, frame: &Frame) {
        self.output.push_back(JoinerOutput::Send(frame.encode()));
    }
}

fn check_use(invite: &Invite, node: &NodeId, applicant: &Applicant) -> Result<(), EnrolError> {
    let fault = match (invite.kind, applicant) {
        _ if invite.inviter == *node => "it is this node's own invite",
        (InviteKind::Member, Applicant::Member { name, .. }) if !is_node_name(name) => {
            "a node's name has 1 to 64 bytes and no control characters"
        }
        (InviteKind::Member, Applicant::Member { .. }) => return Ok(()),
        (InviteKind::Federate, Applicant::Org { org, .. }) if *org == invite.org => {
            "it invites to federate with this node's own org"
        }
        (InviteKind::Federate, Applicant::Org { .. }) => return Ok(()),
        (InviteKind::Member, _) => "it invites a node to join an org, and this node has one",
        (InviteKind::Federate, _) => "it invites an org to federate, and this node is in none",
    };
    Err(EnrolError::Misuse(fault))
}
