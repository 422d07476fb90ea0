//! The inviter's side of one stream.

use std::collections::VecDeque;
use std::sync::Arc;

use minicbor::bytes::ByteArray;

use crate::geo::CountrySet;
use crate::ids::{MeshName, NodeId, OrgName, RootHash};
use crate::invite::{InviteId, InviteKind};
use crate::time::{Mono, Now};
use crate::trust::{RoleSet, RootChain};

use super::frames::{
    Ask, ENROL_FRAME_MAX, Frame, Grant, Hello, Refusal, RefusalCode, SEEDS_MAX, STRANGER_FRAME_MAX,
};
use super::ledger::IssuedInvite;
use super::transcript::{Introduction, Nonce, Transcript, Words, commitment};
use super::{CONFIRM_TIMEOUT, EnrolError, Expectation, STEP_TIMEOUT, are_seeds, chain_of, is_node_name};

/// The inviting node, as it presents itself.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its key.
    pub node: NodeId,
    /// Its mesh.
    pub mesh: MeshName,
    /// Its org.
    pub org: OrgName,
    /// The first root of its org: what the invite's line says.
    pub root: RootHash,
    /// Its org's chain of roots.
    pub roots: RootChain,
    /// Its own membership's envelope, for those who federate.
    pub membership: Vec<u8>,
    /// Nodes to dial; of more than [`SEEDS_MAX`] the first are sent.
    pub seeds: Vec<String>,
}

/// What the joiner asks for, once it has been found to be within the terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guest {
    /// A node that wants to be a member.
    Member {
        /// Its key.
        node: NodeId,
        /// Its name.
        name: String,
        /// Where it wants to process calls; all of them are allowed.
        locations: CountrySet,
        /// What the invite lets it do.
        roles: RoleSet,
    },
    /// Another org.
    Org {
        /// The node that speaks for it.
        node: NodeId,
        /// The org.
        org: OrgName,
        /// The first root, to pin.
        root: RootHash,
        /// The chain from it, verified.
        roots: RootChain,
        /// Where that node says that it can be dialled, as multiaddrs; unverified, as any hint is.
        seeds: Vec<String>,
    },
}

/// What the operator is asked: do you hear these words from the right person?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The words that the joiner's screen shows too.
    pub words: Words,
    /// What will be granted.
    pub guest: Guest,
}

/// How an enrolment ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcomed {
    /// Whom.
    pub guest: Guest,
    /// Whether the joiner said that it has stored all of it. If not it may come again with the same invite.
    pub acknowledged: bool,
}

/// What the inviter's shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InviterOutput {
    /// Send this frame.
    Send(Vec<u8>),
    /// Look the invite up for this joiner ([`super::Ledger::find`]) and answer with [`Inviter::handle_invite`].
    Find(InviteId),
    /// Count a wrong proof ([`super::Ledger::count_failure`]); no answer.
    CountFailure(InviteId),
    /// The words of this exchange, to show.
    Words(Words),
    /// Ask the operator, and answer with [`Inviter::handle_confirmed`].
    Confirm(Box<Question>),
    /// Use the invite up ([`super::Ledger::consume`]) and answer with [`Inviter::handle_consumed`] once that is
    /// durable.
    Consume(InviteId),
    /// Sign a membership for this guest, or pin its org, durably, and answer with [`Inviter::handle_fulfilled`].
    Fulfil(Box<Guest>),
    /// It is over; nothing follows.
    Finished(Result<Box<Welcomed>, EnrolError>),
}

#[derive(Debug)]
enum State {
    /// Waits for Hello.
    Greeting,
    /// Waits for the ledger.
    Finding(Hello),
    /// Waits for Prove.
    Proving(Hello, Box<IssuedInvite>),
    /// Waits for Ask.
    Asking(Box<Proved>),
    /// Waits for the operator.
    Confirming(InviteId, Guest),
    /// Waits for the ledger's durable word.
    Consuming(Guest),
    /// Waits for a signature or a pin.
    Fulfilling(Guest),
    /// Waits for Done.
    Granted(Guest),
    /// Finished.
    Over,
}

/// A joiner that has proved the token.
#[derive(Debug)]
struct Proved {
    invite: InviteId,
    issued: IssuedInvite,
    introduction: Option<Introduction>,
    words: Words,
}

/// The inviter's side of one stream with one joiner. See the module for the protocol and for how to drive it.
#[derive(Debug)]
pub struct Inviter {
    host: Arc<Host>,
    joiner: NodeId,
    nonce: Nonce,
    state: State,
    deadline: Mono,
    output: VecDeque<InviterOutput>,
}

impl Inviter {
    /// The side of `host` towards `joiner`, whose key the channel has proved. `nonce` is 32 fresh random bytes.
    pub fn new(host: Arc<Host>, joiner: NodeId, nonce: [u8; 32], now: Now) -> Self {
        let deadline = now.mono + STEP_TIMEOUT;
        let nonce = ByteArray::from(nonce);
        Self { host, joiner, nonce, state: State::Greeting, deadline, output: VecDeque::new() }
    }

    /// The most bytes that the next frame may have. Before a proof this is [`STRANGER_FRAME_MAX`].
    pub const fn frame_bytes_max(&self) -> usize {
        if matches!(self.state, State::Asking(_)) { ENROL_FRAME_MAX } else { STRANGER_FRAME_MAX }
    }

    /// Whether a frame, or the end of the stream, is awaited now. While none is, leave the stream unread: a joiner that
    /// sends ahead waits in its own buffers. While the operator compares words no frame is due, and the end means that
    /// the joiner's operator said no.
    pub const fn wants_frame(&self) -> bool {
        !matches!(self.state, State::Finding(_) | State::Consuming(_) | State::Fulfilling(_) | State::Over)
    }

    /// Takes one frame from the joiner.
    pub fn handle_frame(&mut self, bytes: &[u8], now: Now) {
        if matches!(self.state, State::Over) {
            return;
        }
        let frame = match Frame::decode(bytes, self.frame_bytes_max()) {
            Ok(frame) => frame,
            Err(error) => return self.refuse(Refusal::new(RefusalCode::Frame, error)),
        };
        match (self.take(now), frame) {
            (State::Greeting, Frame::Hello(hello)) => self.greet(hello),
            (State::Proving(hello, issued), Frame::Prove(nonce, proof)) => {
                self.check_proof(hello, *issued, nonce, &proof);
            }
            (State::Asking(proved), Frame::Ask(ask)) => self.consider(*proved, ask, now),
            (State::Granted(guest), Frame::Done) => self.finish(guest, true),
            (_, frame) => self.refuse(Refusal::new(RefusalCode::Frame, frame.name())),
        }
    }

    /// Takes the ledger's answer to [`InviterOutput::Find`].
    pub fn handle_invite(&mut self, found: Result<IssuedInvite, RefusalCode>, now: Now) {
        let hello = match self.take(now) {
            State::Finding(hello) => hello,
            other => return self.state = other,
        };
        match found {
            Ok(issued) if issued.terms.kind != hello.kind => self.refuse(RefusalCode::Kind.into()),
            Ok(issued) => {
                self.send(&Frame::Challenge(self.nonce));
                self.state = State::Proving(hello, issued.into());
            }
            Err(code) => self.refuse(code.into()),
        }
    }

    /// Takes the operator's answer to [`InviterOutput::Confirm`].
    pub fn handle_confirmed(&mut self, yes: bool, now: Now) {
        let (invite, guest) = match self.take(now) {
            State::Confirming(invite, guest) => (invite, guest),
            other => return self.state = other,
        };
        if yes { self.consume(invite, guest) } else { self.refuse(RefusalCode::Declined.into()) }
    }

    /// Takes the ledger's answer to [`InviterOutput::Consume`], once it is durable.
    pub fn handle_consumed(&mut self, consumed: Result<(), RefusalCode>, now: Now) {
        let guest = match self.take(now) {
            State::Consuming(guest) => guest,
            other => return self.state = other,
        };
        match consumed {
            Ok(()) => {
                self.output.push_back(InviterOutput::Fulfil(guest.clone().into()));
                self.state = State::Fulfilling(guest);
            }
            Err(code) => self.refuse(code.into()),
        }
    }

    /// Takes the answer to [`InviterOutput::Fulfil`]: for a member its new membership's envelope, for an org nothing.
    /// An error's text goes to our own log and not to the joiner.
    pub fn handle_fulfilled(&mut self, fulfilled: Result<Option<Vec<u8>>, String>, now: Now) {
        let guest = match self.take(now) {
            State::Fulfilling(guest) => guest,
            other => return self.state = other,
        };
        let membership = match (&guest, fulfilled) {
            (Guest::Member { .. }, Ok(Some(membership))) => membership,
            (Guest::Org { .. }, Ok(None)) => self.host.membership.clone(),
            (_, Ok(_)) => return self.fail("the issuer answered something else than was asked".to_owned()),
            (_, Err(error)) => return self.fail(error),
        };
        let seeds = self.host.seeds.iter().take(SEEDS_MAX).cloned().collect();
        let roots = self.host.roots.encode().into();
        self.send(&Frame::Grant(Grant { membership: membership.into(), roots, seeds }));
        // The joiner stores only when its own operator has compared the words too.
        self.deadline = now.mono + CONFIRM_TIMEOUT;
        self.state = State::Granted(guest);
    }

    /// Takes the end of the stream.
    pub fn handle_closed(&mut self) {
        match core::mem::replace(&mut self.state, State::Over) {
            State::Granted(guest) => self.finish(guest, false),
            State::Over => {}
            _ => self.output.push_back(InviterOutput::Finished(Err(EnrolError::Closed))),
        }
    }

    /// Ends the exchange when it has taken too long.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.poll_timeout().is_none_or(|deadline| now.mono < deadline) {
            return;
        }
        match core::mem::replace(&mut self.state, State::Over) {
            State::Granted(guest) => self.finish(guest, false),
            _ => self.refuse(RefusalCode::Timeout.into()),
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub const fn poll_timeout(&self) -> Option<Mono> {
        if matches!(self.state, State::Over) { None } else { Some(self.deadline) }
    }

    /// What to do next. Drain it after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<InviterOutput> {
        self.output.pop_front()
    }

    fn greet(&mut self, hello: Hello) {
        if hello.mesh != self.host.mesh {
            return self.refuse(RefusalCode::Mesh.into());
        }
        if (hello.kind == InviteKind::Federate) != hello.introduction.is_some() {
            return self
                .refuse(Refusal::new(RefusalCode::Frame, "an introduction goes with federation only"));
        }
        self.output.push_back(InviterOutput::Find(hello.invite));
        self.state = State::Finding(hello);
    }

    fn check_proof(&mut self, hello: Hello, issued: IssuedInvite, nonce: Nonce, proof: &ByteArray<32>) {
        let transcript = Transcript {
            kind: hello.kind,
            mesh: hello.mesh,
            inviter: self.host.node,
            joiner: self.joiner,
            org: self.host.org.clone(),
            root: self.host.root,
            introduction: hello.introduction,
            inviter_nonce: self.nonce,
            joiner_nonce: nonce,
        };
        let committed = commitment(&nonce) == hello.commitment;
        if !transcript.check_proof(&issued.token, proof) || !committed {
            self.output.push_back(InviterOutput::CountFailure(hello.invite));
            return self.refuse(RefusalCode::Proof.into());
        }
        let words = transcript.words(&issued.token);
        self.output.push_back(InviterOutput::Words(words));
        let proved = Proved { invite: hello.invite, issued, introduction: transcript.introduction, words };
        self.state = State::Asking(proved.into());
    }

    fn consider(&mut self, proved: Proved, ask: Ask, now: Now) {
        let guest = match self.guest(&proved, ask, now) {
            Ok(guest) => guest,
            Err(refusal) => return self.refuse(refusal),
        };
        if !proved.issued.terms.confirm {
            return self.consume(proved.invite, guest);
        }
        self.send(&Frame::Wait);
        let question = Question { words: proved.words, guest: guest.clone() };
        self.output.push_back(InviterOutput::Confirm(question.into()));
        self.deadline = now.mono + CONFIRM_TIMEOUT;
        self.state = State::Confirming(proved.invite, guest);
    }

    /// Holds what is asked against the invite's terms.
    fn guest(&self, proved: &Proved, ask: Ask, now: Now) -> Result<Guest, Refusal> {
        match (ask, &proved.introduction) {
            (Ask::Member { name, locations }, None) => self.member(&proved.issued, name, locations),
            (Ask::Federate { membership, roots, seeds }, Some(introduction)) => {
                self.org(introduction, &roots, &membership, seeds, now)
            }
            _ => Err(RefusalCode::Kind.into()),
        }
    }

    fn member(&self, issued: &IssuedInvite, name: String, locations: CountrySet) -> Result<Guest, Refusal> {
        if !is_node_name(&name) {
            return Err(RefusalCode::Name.into());
        }
        let beyond = locations.difference(&issued.terms.locations_max);
        if !beyond.is_empty() {
            let allowed = issued.terms.locations_max;
            let detail = format!("{beyond} is not among what the invite allows: {allowed}");
            return Err(Refusal::new(RefusalCode::Locations, detail));
        }
        Ok(Guest::Member { node: self.joiner, name, locations, roles: issued.terms.roles.clone() })
    }

    fn org(
        &self,
        introduction: &Introduction,
        roots: &minicbor::bytes::ByteVec,
        membership: &[u8],
        seeds: Vec<String>,
        now: Now,
    ) -> Result<Guest, Refusal> {
        let Introduction { org, root } = introduction;
        if !are_seeds(&seeds) {
            return Err(Refusal::new(RefusalCode::Introduction, "its seeds break the bounds of seeds"));
        }
        if *org == self.host.org {
            return Err(Refusal::new(RefusalCode::Introduction, "an org does not federate with itself"));
        }
        let expected = Expectation { mesh: &self.host.mesh, org, pin: *root, node: self.joiner };
        let introduced = expected
            .verify(roots, membership, now)
            .map_err(|error| Refusal::new(RefusalCode::Introduction, chain_of(&error)))?;
        Ok(Guest::Org { node: self.joiner, org: org.clone(), root: *root, roots: introduced.chain, seeds })
    }

    fn consume(&mut self, invite: InviteId, guest: Guest) {
        self.output.push_back(InviterOutput::Consume(invite));
        self.state = State::Consuming(guest);
    }

    fn finish(&mut self, guest: Guest, acknowledged: bool) {
        self.output.push_back(InviterOutput::Finished(Ok(Welcomed { guest, acknowledged }.into())));
    }

    fn fail(&mut self, error: String) {
        self.send(&Frame::Refuse(RefusalCode::Internal.into()));
        self.output.push_back(InviterOutput::Finished(Err(EnrolError::Internal(error))));
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.state = State::Over;
        self.send(&Frame::Refuse(refusal.clone()));
        self.output.push_back(InviterOutput::Finished(Err(EnrolError::WeRefused(refusal))));
    }

    fn send(&mut self, frame: &Frame) {
        self.output.push_back(InviterOutput::Send(frame.encode()));
    }

    /// Takes the state out, leaving `Over`, and gives the next step its time.
    fn take(&mut self, now: Now) -> State {
        self.deadline = now.mono + STEP_TIMEOUT;
        core::mem::replace(&mut self.state, State::Over)
    }
}
