//! Whole enrolments between two machines in memory, honest ones first.

use proptest::prelude::*;

use super::*;
use crate::geo::CountrySet;
use crate::invite::{Invite, InviteKind, Token};
use crate::testing::{DAY, TestNode, TestOrg, mesh, places};
use crate::time::{Mono, Wall};
use crate::trust::RoleSet;

const START: Wall = Wall::from_millis(1_795_000_000_000);
const TOKEN: [u8; 16] = *b"sixteen secrets!";

fn at(seconds: u64) -> Now {
    let elapsed = Duration::from_secs(seconds);
    Now { mono: Mono::ZERO + elapsed, wall: START + elapsed }
}

/// The inviting side with everything behind it: org, ledger, operator.
struct Hosting {
    org: TestOrg,
    node: TestNode,
    ledger: Ledger,
    /// What the operator answers when asked.
    operator: Option<bool>,
    /// What the issuer signs, where it is not the honest answer.
    issuer: fn(&TestOrg, NodeId, CountrySet) -> Vec<u8>,
}

fn honest(org: &TestOrg, node: NodeId, locations: CountrySet) -> Vec<u8> {
    org.admit(node, locations).bytes().to_vec()
}

impl Hosting {
    fn new() -> Self {
        let org = TestOrg::new("acme.example", 1, START);
        let node = TestNode::new(&org, 1, places("DE"));
        Self { org, node, ledger: Ledger::new(), operator: None, issuer: honest }
    }

    fn invite(&mut self, kind: InviteKind, confirm: bool) -> Invite {
        self.invite_with(kind, confirm, Token::from_bytes(TOKEN))
    }

    fn invite_with(&mut self, kind: InviteKind, confirm: bool, token: Token) -> Invite {
        let expires = START + Duration::from_secs(3600);
        let terms = Terms {
            kind,
            locations_max: places("DE FR"),
            roles: RoleSet::standard(),
            confirm,
            issued: START,
            expires,
            approve_all: false,
        };
        self.ledger.issue(terms, token.clone(), START).unwrap();
        let (org, root) = (self.org.name.clone(), self.org.chain.pin().unwrap());
        Invite { kind, mesh: mesh(), inviter: self.node.id, addresses: vec![], org, root, token, expires }
    }

    fn host(&self) -> Host {
        Host {
            node: self.node.id,
            mesh: mesh(),
            org: self.org.name.clone(),
            root: self.org.chain.pin().unwrap(),
            roots: self.org.chain.clone(),
            membership: self.node.membership.bytes().to_vec(),
            seeds: vec!["/memory/1".into()],
        }
    }

    fn stream(&self, joiner: NodeId) -> Inviter {
        Inviter::new(self.host().into(), joiner, [0x11; 32], at(0))
    }
}

/// One exchange: what each side did, in order.
struct Pair<'a> {
    hosting: &'a mut Hosting,
    inviter: Inviter,
    joiner: Joiner,
    joiner_id: NodeId,
    now: Now,
    words: Vec<Words>,
    steps: Vec<&'static str>,
    enrolled: Option<Enrolled>,
    welcomed: Option<Result<Box<Welcomed>, EnrolError>>,
    joined: Option<Result<(), EnrolError>>,
    /// What becomes of a frame on its way to the inviter and to the joiner.
    meddle: fn(Frame) -> Frame,
}

impl<'a> Pair<'a> {
    fn new(hosting: &'a mut Hosting, invite: Invite, node: NodeId, applicant: Applicant) -> Self {
        let inviter = hosting.stream(node);
        let joiner = Joiner::new(invite, node, applicant, [0x22; 32], at(0)).unwrap();
        Self {
            hosting,
            inviter,
            joiner,
            joiner_id: node,
            now: at(0),
            words: vec![],
            steps: vec![],
            enrolled: None,
            welcomed: None,
            joined: None,
            meddle: |frame| frame,
        }
    }

    fn run(mut self) -> Self {
        while self.step_joiner() | self.step_inviter() {}
        self
    }

    fn frame(&mut self, bytes: &[u8]) -> Vec<u8> {
        let frame = Frame::decode(bytes, ENROL_FRAME_MAX).unwrap();
        self.steps.push(frame.name());
        (self.meddle)(frame).encode()
    }

    fn step_joiner(&mut self) -> bool {
        let Some(output) = self.joiner.poll_output() else { return false };
        match output {
            JoinerOutput::Send(bytes) => {
                let bytes = self.frame(&bytes);
                // An inviter that is busy leaves the stream unread.
                while !self.inviter.wants_frame() && self.step_inviter() {}
                self.inviter.handle_frame(&bytes, self.now);
            }
            JoinerOutput::Words(words) => self.words.push(words),
            JoinerOutput::Waiting => self.steps.push("(waiting)"),
            JoinerOutput::Store(enrolled) => {
                self.enrolled = Some(*enrolled);
                self.joiner.handle_stored(Ok(()));
            }
            JoinerOutput::Finished(outcome) => {
                assert!(self.joined.replace(outcome).is_none(), "finished once")
            }
        }
        true
    }

    fn step_inviter(&mut self) -> bool {
        let (now, node) = (self.now, self.joiner_id);
        let Some(output) = self.inviter.poll_output() else { return false };
        match output {
            InviterOutput::Send(bytes) => {
                let bytes = self.frame(&bytes);
                self.joiner.handle_frame(&bytes, now);
            }
            InviterOutput::Find(id) => {
                let found = self.hosting.ledger.find(&id, &node, now.wall).cloned();
                self.inviter.handle_invite(found, now);
            }
            InviterOutput::CountFailure(id) => self.hosting.ledger.count_failure(&id, now.wall),
            InviterOutput::Words(words) => self.words.push(words),
            InviterOutput::Confirm(question) => {
                assert!(self.words.contains(&question.words));
                if let Some(answer) = self.hosting.operator {
                    self.inviter.handle_confirmed(answer, now);
                }
            }
            InviterOutput::Consume(id) => {
                self.steps.push("(consume)");
                let consumed = self.hosting.ledger.consume(&id, node, now.wall);
                self.inviter.handle_consumed(consumed, now);
            }
            InviterOutput::Fulfil(guest) => {
                self.steps.push("(fulfil)");
                let answer = match *guest {
                    Guest::Member { node, locations, .. } => {
                        Some((self.hosting.issuer)(&self.hosting.org, node, locations))
                    }
                    Guest::Org { .. } => None,
                };
                self.inviter.handle_fulfilled(Ok(answer), now);
            }
            InviterOutput::Finished(outcome) => {
                assert!(self.welcomed.replace(outcome).is_none(), "finished once");
            }
        }
        true
    }

    /// Why the inviter refused, as both sides know it.
    fn refusal(&self) -> RefusalCode {
        let Some(Err(EnrolError::Refused(told))) = &self.joined else { panic!("joiner: {:?}", self.joined) };
        let Some(Err(EnrolError::WeRefused(ours))) = &self.welcomed else { panic!("{:?}", self.welcomed) };
        assert_eq!(told, ours);
        assert!(self.enrolled.is_none());
        told.code
    }

    /// Why the joiner did not believe what it was granted.
    fn disbelief(&self) -> String {
        let Some(Err(error)) = &self.joined else { panic!("joiner: {:?}", self.joined) };
        assert!(self.enrolled.is_none());
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {cause}")
    }
}

fn node(seed: u8) -> NodeId {
    ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().into()
}

fn applicant(codes: &str) -> Applicant {
    Applicant::Member { name: "berlin-2".into(), locations: places(codes) }
}

fn join<'a>(hosting: &'a mut Hosting, invite: &Invite, seed: u8, codes: &str) -> Pair<'a> {
    Pair::new(hosting, invite.clone(), node(seed), applicant(codes)).run()
}

#[test]
fn a_node_joins() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    let pair = join(&mut hosting, &invite, 7, "DE FR");
    assert_eq!(pair.joined, Some(Ok(())));
    let enrolled = pair.enrolled.as_ref().unwrap();
    let membership = enrolled.membership.as_ref().unwrap();
    assert_eq!((membership.node, membership.locations_max), (node(7), places("DE FR")));
    assert_eq!((enrolled.root, &enrolled.seeds), (invite.root, &vec!["/memory/1".to_owned()]));
    let Some(Ok(welcomed)) = &pair.welcomed else { panic!("{:?}", pair.welcomed) };
    assert!(welcomed.acknowledged);
    assert_eq!(pair.words.len(), 2);
    assert_eq!(pair.words[0], pair.words[1], "both screens show the same words");
    let expected = ["Hello", "Challenge", "Prove", "Ask", "(consume)", "(fulfil)", "Grant", "Done"];
    assert_eq!(pair.steps, expected, "the invite is used up before anything is signed");
}

#[test]
fn a_token_works_for_one_node() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    assert_eq!(join(&mut hosting, &invite, 7, "DE").joined, Some(Ok(())));
    assert_eq!(join(&mut hosting, &invite, 8, "DE").refusal(), RefusalCode::Used);
    assert_eq!(join(&mut hosting, &invite, 7, "DE").joined, Some(Ok(())), "an answer may have been lost");
}

#[test]
fn of_two_at_once_one_is_first() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    let mut late = hosting.stream(node(8));
    let mut joiner = Joiner::new(invite.clone(), node(8), applicant("DE"), [3; 32], at(0)).unwrap();
    // The late one gets as far as its proof before the other begins, and asks after it has ended.
    let JoinerOutput::Send(hello) = joiner.poll_output().unwrap() else { panic!() };
    late.handle_frame(&hello, at(0));
    let Some(InviterOutput::Find(id)) = late.poll_output() else { panic!() };
    late.handle_invite(hosting.ledger.find(&id, &node(8), START).cloned(), at(0));
    let Some(InviterOutput::Send(challenge)) = late.poll_output() else { panic!() };
    joiner.handle_frame(&challenge, at(0));
    assert_eq!(join(&mut hosting, &invite, 7, "DE").joined, Some(Ok(())));
    while let Some(JoinerOutput::Send(frame)) = joiner.poll_output() {
        late.handle_frame(&frame, at(0));
    }
    assert!(matches!(late.poll_output(), Some(InviterOutput::Words(_))));
    assert_eq!(late.poll_output(), Some(InviterOutput::Consume(id)));
    let consumed = hosting.ledger.consume(&id, node(8), START);
    assert_eq!(consumed, Err(RefusalCode::Used));
    late.handle_consumed(consumed, at(0));
    let Some(InviterOutput::Send(frame)) = late.poll_output() else { panic!() };
    assert!(matches!(Frame::decode(&frame, 1024), Ok(Frame::Refuse(_))));
}

#[test]
fn what_has_expired_is_refused_on_both_sides() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    let late = Joiner::new(invite.clone(), node(7), applicant("DE"), [0; 32], at(3600));
    assert!(matches!(late, Err(EnrolError::Invite(_))));
    let mut pair = Pair::new(&mut hosting, invite, node(7), applicant("DE"));
    pair.now = at(3600);
    assert_eq!(pair.run().refusal(), RefusalCode::Expired);
}

#[test]
fn wrong_tokens_void_the_invite() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    let spoil: fn(Frame) -> Frame = |frame| match frame {
        Frame::Prove(nonce, _) => Frame::Prove(nonce, [0; 32].into()),
        other => other,
    };
    for _ in 0..ATTEMPTS_MAX {
        let mut pair = Pair::new(&mut hosting, invite.clone(), node(7), applicant("DE"));
        pair.meddle = spoil;
        let pair = pair.run();
        assert_eq!(pair.refusal(), RefusalCode::Proof);
        assert!(pair.words.len() < 2, "the inviter shows no words to whom has no token");
    }
    assert_eq!(join(&mut hosting, &invite, 7, "DE").refusal(), RefusalCode::Void);
    let stranger = Invite { token: Token::from_bytes([1; 16]), ..invite };
    assert_eq!(join(&mut hosting, &stranger, 7, "DE").refusal(), RefusalCode::Unknown);
}

#[test]
fn a_nonce_that_was_not_committed_to_is_refused() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    let mut pair = Pair::new(&mut hosting, invite, node(7), applicant("DE"));
    pair.meddle = |frame| match frame {
        Frame::Hello(hello) => Frame::Hello(Hello { commitment: [9; 32].into(), ..hello }),
        other => other,
    };
    assert_eq!(pair.run().refusal(), RefusalCode::Proof);
}

#[test]
fn places_beyond_the_invite_are_refused_and_the_invite_stays_open() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    let pair = join(&mut hosting, &invite, 7, "DE US");
    assert_eq!(pair.refusal(), RefusalCode::Locations);
    assert!(pair.joined.unwrap().unwrap_err().to_string().contains("US is not among"));
    assert_eq!(join(&mut hosting, &invite, 7, "DE").joined, Some(Ok(())));
}

#[test]
fn the_operator_decides_when_asked() {
    for (answer, expected) in [(true, None), (false, Some(RefusalCode::Declined))] {
        let mut hosting = Hosting::new();
        hosting.operator = Some(answer);
        let invite = hosting.invite(InviteKind::Member, true);
        let pair = join(&mut hosting, &invite, 7, "DE");
        assert!(pair.steps.contains(&"(waiting)"), "{:?}", pair.steps);
        match expected {
            None => assert_eq!(pair.joined, Some(Ok(()))),
            Some(code) => {
                assert_eq!(pair.refusal(), code);
                assert!(!pair.steps.contains(&"(consume)"));
            }
        }
    }
}

#[test]
fn nobody_waits_for_ever() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, true);
    let mut pair = join(&mut hosting, &invite, 7, "DE");
    assert_eq!(pair.joined, None, "the operator has not answered");
    pair.now = at(STEP_TIMEOUT.as_secs());
    pair.inviter.handle_timeout(pair.now);
    assert!(pair.inviter.poll_output().is_none(), "two people take longer than two machines");
    pair.now = at(CONFIRM_TIMEOUT.as_secs());
    pair.inviter.handle_timeout(pair.now);
    let pair = pair.run();
    assert_eq!(pair.refusal(), RefusalCode::Timeout);
    assert_eq!((pair.inviter.poll_timeout(), pair.joiner.poll_timeout()), (None, None));

    let mut silent = hosting.stream(node(7));
    silent.handle_timeout(at(STEP_TIMEOUT.as_secs() - 1));
    assert!(silent.poll_output().is_none());
    silent.handle_timeout(at(STEP_TIMEOUT.as_secs()));
    assert!(matches!(silent.poll_output(), Some(InviterOutput::Send(_))));
    let mut joiner = Joiner::new(invite, node(7), applicant("DE"), [0; 32], at(0)).unwrap();
    joiner.poll_output();
    joiner.handle_timeout(at(STEP_TIMEOUT.as_secs()));
    assert!(matches!(joiner.poll_output(), Some(JoinerOutput::Finished(Err(EnrolError::Timeout)))));
}

#[test]
fn the_operators_of_both_sides_may_take_their_time() {
    let mut hosting = Hosting::new();
    hosting.operator = Some(true);
    let invite = hosting.invite(InviteKind::Member, true);
    let mut pair = Pair::new(&mut hosting, invite.clone(), node(7), applicant("DE"));
    while !pair.steps.contains(&"Grant") {
        assert!(pair.step_joiner() | pair.step_inviter());
    }
    pair.now = at(CONFIRM_TIMEOUT.as_secs() - 1);
    pair.inviter.handle_timeout(pair.now);
    let pair = pair.run();
    assert!(matches!(&pair.welcomed, Some(Ok(welcomed)) if welcomed.acknowledged), "{:?}", pair.welcomed);

    hosting.operator = None;
    let mut pair = join(&mut hosting, &invite, 7, "DE");
    assert!(pair.inviter.wants_frame(), "the end of the stream is a no of the other operator");
    pair.inviter.handle_closed();
    let pair = pair.run();
    assert_eq!(pair.welcomed, Some(Err(EnrolError::Closed)));
}

#[test]
fn a_lost_farewell_is_not_a_failure() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    let mut pair = Pair::new(&mut hosting, invite, node(7), applicant("DE"));
    while !pair.steps.contains(&"Grant") {
        assert!(pair.step_joiner() | pair.step_inviter());
    }
    pair.inviter.handle_closed();
    let Some(InviterOutput::Finished(Ok(welcomed))) = pair.inviter.poll_output() else { panic!() };
    assert!(!welcomed.acknowledged);
    let mut early = pair.hosting.stream(node(9));
    early.handle_closed();
    assert_eq!(early.poll_output(), Some(InviterOutput::Finished(Err(EnrolError::Closed))));
}

#[test]
fn a_joiner_believes_only_what_follows_from_its_pin() {
    type Issuer = fn(&TestOrg, NodeId, CountrySet) -> Vec<u8>;
    let cases: [(Issuer, &str); 6] = [
        (|org, _, places| honest(org, node(99), places), "presented it"),
        (|org, node, _| honest(org, node, places("FR")), "lacks a place"),
        (|_, node, places| honest(&TestOrg::new("acme.example", 66, START), node, places), "may not issue"),
        (|_, node, places| honest(&TestOrg::new("evil.example", 66, START), node, places), "not pinned"),
        (|org, node, places| org.admit_with(node, places, |m| m.expires = START).bytes().to_vec(), "expired"),
        (|_, _, _| b"garbage".to_vec(), "membership"),
    ];
    for (issuer, reason) in cases {
        let mut hosting = Hosting::new();
        hosting.issuer = issuer;
        let invite = hosting.invite(InviteKind::Member, false);
        let pair = join(&mut hosting, &invite, 7, "DE");
        let said = deep(pair.joined.as_ref().unwrap().as_ref().unwrap_err());
        assert!(said.contains(reason), "{said} should say {reason}");
        assert!(pair.enrolled.is_none());
    }
}

/// An error with all its causes.
fn deep(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(deep).unwrap_or_default();
    format!("{error}: {cause}")
}

#[test]
fn a_wrong_root_or_org_is_refused_by_the_joiner() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    // Another org took over the node: its roots are not those of the line.
    for (org, reason) in [
        (TestOrg::new("acme.example", 66, START), "is pinned"),
        (TestOrg::new("evil.example", 66, START), "evil.example's where acme.example's"),
    ] {
        let mut pair = Pair::new(&mut hosting, invite.clone(), node(7), applicant("DE"));
        let mut host = pair.hosting.host();
        host.roots = org.chain.clone();
        pair.inviter = Inviter::new(host.into(), node(7), [0x11; 32], at(0));
        let said = pair.run().disbelief();
        assert!(said.contains(reason), "{said}");
    }
    // And a root that the line does not name changes the words and the proof.
    let mut pair = Pair::new(&mut hosting, invite, node(7), applicant("DE"));
    let mut host = pair.hosting.host();
    host.root = RootHash::of(b"another");
    pair.inviter = Inviter::new(host.into(), node(7), [0x11; 32], at(0));
    assert_eq!(pair.run().refusal(), RefusalCode::Proof);
}

#[test]
fn another_mesh_or_purpose_is_refused() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    let elsewhere = Invite { mesh: "other".parse().unwrap(), ..invite.clone() };
    assert_eq!(join(&mut hosting, &elsewhere, 7, "DE").refusal(), RefusalCode::Mesh);
    let other = TestOrg::new("beta.example", 2, START);
    let federate = Invite { kind: InviteKind::Federate, ..invite.clone() };
    let pair = Pair::new(&mut hosting, federate.clone(), node(7), org_applicant(&other, 7)).run();
    assert_eq!(pair.refusal(), RefusalCode::Kind);
    for (invite, applicant, own) in [
        (&invite, org_applicant(&other, 7), node(7)),
        (&federate, applicant("DE"), node(7)),
        (&federate, org_applicant(&hosting.org, 7), node(7)),
        (&invite, applicant("DE"), invite.inviter),
        (&invite, Applicant::Member { name: "a\nb".into(), locations: places("DE") }, node(7)),
    ] {
        let misuse = Joiner::new(invite.clone(), own, applicant, [0; 32], at(0));
        assert!(matches!(misuse, Err(EnrolError::Misuse(_))), "{misuse:?}");
    }
}

fn org_applicant(org: &TestOrg, seed: u8) -> Applicant {
    Applicant::Org {
        membership: org.admit(node(seed), places("FR")).bytes().to_vec(),
        org: org.name.clone(),
        root: org.chain.pin().unwrap(),
        roots: org.chain.clone(),
        seeds: vec!["/memory/7".into()],
    }
}

#[test]
fn two_orgs_federate_and_each_learns_the_others_root() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Federate, false);
    let beta = TestOrg::new("beta.example", 2, START);
    let pair = Pair::new(&mut hosting, invite.clone(), node(7), org_applicant(&beta, 7)).run();
    assert_eq!(pair.joined, Some(Ok(())));
    let enrolled = pair.enrolled.unwrap();
    assert_eq!((enrolled.org.as_str(), enrolled.root), ("acme.example", invite.root));
    assert!(enrolled.membership.is_none(), "nobody becomes a member");
    let Guest::Org { org, root, roots, node: by, seeds } = pair.welcomed.unwrap().unwrap().guest else {
        panic!()
    };
    assert_eq!(seeds, ["/memory/7"]);
    assert_eq!((org, Some(root), roots, by), (beta.name, beta.chain.pin(), beta.chain, node(7)));
    assert_eq!(pair.words[0], pair.words[1]);
}

#[test]
fn who_does_not_speak_for_an_org_cannot_federate_it() {
    let beta = TestOrg::new("beta.example", 2, START);
    let impostor = TestOrg::new("beta.example", 66, START);
    let honest = org_applicant(&beta, 7);
    let change = |change: fn(&mut Applicant, &TestOrg)| {
        let mut applicant = honest.clone();
        change(&mut applicant, &impostor);
        applicant
    };
    for applicant in [
        org_applicant(&beta, 8), // another node's membership
        change(|a, evil| {
            if let Applicant::Org { roots, .. } = a {
                *roots = evil.chain.clone()
            }
        }),
        change(|a, evil| {
            if let Applicant::Org { root, .. } = a {
                *root = evil.chain.pin().unwrap()
            }
        }),
        change(|a, _| {
            if let Applicant::Org { membership, .. } = a {
                membership.truncate(20)
            }
        }),
        change(|a, _| {
            if let Applicant::Org { seeds, .. } = a {
                *seeds = vec!["x".repeat(300)]
            }
        }),
        change(|a, _| {
            if let Applicant::Org { org, .. } = a {
                *org = "gamma.example".parse().unwrap()
            }
        }),
    ] {
        let mut hosting = Hosting::new();
        let invite = hosting.invite(InviteKind::Federate, false);
        let pair = Pair::new(&mut hosting, invite, node(7), applicant).run();
        assert_eq!(pair.refusal(), RefusalCode::Introduction);
        assert!(!pair.steps.contains(&"(consume)"));
    }
}

/// Our own joiner would not even ask, so this one is made by hand.
#[test]
fn an_org_does_not_federate_with_itself() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Federate, false);
    let mut stream = hosting.stream(node(7));
    let introduction = Some(Introduction { org: invite.org.clone(), root: invite.root });
    let transcript = Transcript {
        kind: invite.kind,
        mesh: mesh(),
        inviter: invite.inviter,
        joiner: node(7),
        org: invite.org.clone(),
        root: invite.root,
        introduction: introduction.clone(),
        inviter_nonce: [0x11; 32].into(),
        joiner_nonce: [0x22; 32].into(),
    };
    let hello = Hello {
        mesh: mesh(),
        invite: invite.token.id(),
        kind: invite.kind,
        commitment: commitment(&transcript.joiner_nonce),
        introduction,
    };
    let ask = Ask::Federate {
        membership: honest(&hosting.org, node(7), places("DE")).into(),
        roots: hosting.org.chain.encode().into(),
        seeds: vec![],
    };
    stream.handle_frame(&Frame::Hello(hello).encode(), at(0));
    stream.handle_invite(hosting.ledger.find(&invite.token.id(), &node(7), START).cloned(), at(0));
    let proof = transcript.proof(&invite.token);
    stream.handle_frame(&Frame::Prove(transcript.joiner_nonce, proof).encode(), at(0));
    stream.handle_frame(&Frame::Ask(ask).encode(), at(0));
    let last = std::iter::from_fn(|| stream.poll_output()).last();
    let Some(InviterOutput::Finished(Err(EnrolError::WeRefused(refusal)))) = last else { panic!("{last:?}") };
    assert_eq!(refusal.code, RefusalCode::Introduction);
    assert!(refusal.detail().contains("with itself"), "{refusal:?}");
}

#[test]
fn a_man_in_the_middle_shows_different_words() {
    // He has the line, so he proves the token to the inviter; and he has handed the joiner a line of his own, with the
    // true token, so that the joiner proves it to him. Even with the very same nonces the keys differ.
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    let mut middle = Hosting::new();
    middle.node = TestNode::new(&middle.org, 66, places("DE"));
    let forged = middle.invite(InviteKind::Member, false);
    let towards_inviter = join(&mut hosting, &invite, 66, "DE");
    let towards_joiner = join(&mut middle, &forged, 7, "DE");
    assert_eq!(towards_inviter.words.len() + towards_joiner.words.len(), 4);
    assert_ne!(towards_inviter.words[0], towards_joiner.words[0]);
}

#[test]
fn a_relayed_proof_is_worth_nothing_under_another_key() {
    let mut hosting = Hosting::new();
    let invite = hosting.invite(InviteKind::Member, false);
    let mut pair = Pair::new(&mut hosting, invite, node(7), applicant("DE"));
    pair.inviter = pair.hosting.stream(node(66)); // the channel proved the relay's key, not the joiner's
    assert_eq!(pair.run().refusal(), RefusalCode::Proof);
}

#[test]
fn a_stranger_costs_little() {
    let mut stream = Hosting::new().stream(node(7));
    assert_eq!(stream.frame_bytes_max(), STRANGER_FRAME_MAX);
    stream.handle_frame(&[0; STRANGER_FRAME_MAX + 1], at(0));
    let Some(InviterOutput::Send(frame)) = stream.poll_output() else { panic!() };
    let Ok(Frame::Refuse(refusal)) = Frame::decode(&frame, STRANGER_FRAME_MAX) else { panic!() };
    assert_eq!(refusal.code, RefusalCode::Frame);
}

#[test]
fn frames_out_of_turn_end_the_exchange() {
    let hosting = Hosting::new();
    for frame in [Frame::Done, Frame::Wait, Frame::Prove([0; 32].into(), [0; 32].into())] {
        let mut stream = hosting.stream(node(7));
        stream.handle_frame(&frame.encode(), at(0));
        stream.poll_output();
        let Some(InviterOutput::Finished(Err(EnrolError::WeRefused(refusal)))) = stream.poll_output() else {
            panic!()
        };
        assert_eq!((refusal.code, refusal.detail().as_str()), (RefusalCode::Frame, frame.name()));
    }
    let mut hosting = hosting;
    let invite = hosting.invite(InviteKind::Member, false);
    for frame in [Frame::Done, Frame::Wait] {
        let mut joiner = Joiner::new(invite.clone(), node(7), applicant("DE"), [0; 32], at(0)).unwrap();
        joiner.poll_output();
        joiner.handle_frame(&frame.encode(), at(0));
        let expected = EnrolError::Unexpected(frame.name());
        assert!(
            matches!(joiner.poll_output(), Some(JoinerOutput::Finished(Err(error))) if error == expected)
        );
    }
}

#[test]
fn a_refusals_text_is_bounded_and_clean() {
    let refusal = Refusal::new(RefusalCode::Internal, format!("\u{1b}[2J{}é", "x".repeat(300)));
    assert!(refusal.detail().len() <= 256 && !refusal.detail().contains('\u{1b}'));
    assert!(Frame::Refuse(refusal).encode().len() < STRANGER_FRAME_MAX);
}

#[test]
fn a_grant_may_not_bring_endless_seeds() {
    for seeds in [vec!["/memory/1".to_owned(); SEEDS_MAX + 1], vec!["x".repeat(300)], vec!["a\nb".into()]] {
        let mut hosting = Hosting::new();
        let invite = hosting.invite(InviteKind::Member, false);
        let grant = Grant {
            membership: honest(&hosting.org, node(7), places("DE")).into(),
            roots: hosting.org.chain.encode().into(),
            seeds,
        };
        let mut joiner = Joiner::new(invite, node(7), applicant("DE"), [0; 32], at(0)).unwrap();
        joiner.handle_frame(&Frame::Challenge([0; 32].into()).encode(), at(0));
        joiner.handle_frame(&Frame::Grant(grant).encode(), at(0));
        let last = std::iter::from_fn(|| joiner.poll_output()).last();
        assert!(matches!(last, Some(JoinerOutput::Finished(Err(EnrolError::Grant(_))))), "{last:?}");
    }
}

mod ledger {
    use super::*;

    fn terms(seconds: u64) -> Terms {
        Terms {
            kind: InviteKind::Member,
            locations_max: places("DE"),
            roles: RoleSet::standard(),
            confirm: false,
            issued: START,
            expires: START + Duration::from_secs(seconds),
            approve_all: false,
        }
    }

    fn token(n: u16) -> Token {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        Token::from_bytes(bytes)
    }

    #[test]
    fn it_is_bounded_and_makes_room_by_forgetting_what_expired() {
        let mut ledger = Ledger::new();
        for n in 0..INVITES_MAX as u16 {
            ledger.issue(terms(60), token(n), START).unwrap();
        }
        assert_eq!(ledger.issue(terms(60), token(999), START), Err(LedgerError::Full));
        let later = START + Duration::from_secs(60);
        assert!(ledger.issue(terms(120), token(999), later).is_ok());
        assert_eq!(ledger.invites().count(), 1);
    }

    #[test]
    fn lifetimes_and_tokens_are_checked() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.issue(terms(0), token(1), START), Err(LedgerError::Lifetime));
        let week = 8 * DAY.as_secs();
        assert_eq!(ledger.issue(terms(week), token(1), START), Err(LedgerError::Lifetime));
        ledger.issue(terms(60), token(1), START).unwrap();
        assert_eq!(ledger.issue(terms(60), token(1), START), Err(LedgerError::Token));
    }

    #[test]
    fn its_records_are_its_state_and_show_no_token() {
        let mut ledger = Ledger::new();
        let ids: Vec<_> = (0..3).map(|n| ledger.issue(terms(60), token(n), START).unwrap()).collect();
        ledger.consume(&ids[0], node(7), START).unwrap();
        assert!(ledger.revoke(&ids[1], START) && !ledger.revoke(&ids[1], START));
        ledger.count_failure(&ids[2], START);
        let mut stored = std::collections::BTreeMap::new();
        while let Some(effect) = ledger.poll_effect() {
            assert!(!format!("{effect:?}").contains("token: Token(["), "{effect:?}");
            match effect {
                LedgerEffect::Put(id, invite) => stored.insert(id, crate::codec::encode(&invite)),
                LedgerEffect::Remove(id) => stored.remove(&id),
            };
        }
        let records = stored.values().map(|bytes| crate::codec::decode(bytes, 4096).unwrap());
        let restored = Ledger::restore(records);
        assert!(restored.invites().eq(ledger.invites()));
        let states: Vec<_> =
            ids.iter().map(|id| restored.find(id, &node(8), START).map(|i| i.state)).collect();
        assert_eq!(states, [Err(RefusalCode::Used), Err(RefusalCode::Void), Ok(InviteState::Open(1))]);
    }

    #[test]
    fn what_is_void_or_used_counts_no_failures() {
        let mut ledger = Ledger::new();
        let id = ledger.issue(terms(60), token(1), START).unwrap();
        ledger.consume(&id, node(7), START).unwrap();
        (0..10).for_each(|_| ledger.count_failure(&id, START));
        assert!(ledger.find(&id, &node(7), START).is_ok(), "its own node may come again");
    }
}

/// A frame as an attacker makes them: a true one, cut, changed, or noise.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let frames = [
        Frame::Done,
        Frame::Wait,
        Frame::Challenge([7; 32].into()),
        Frame::Prove([7; 32].into(), [7; 32].into()),
        Frame::Ask(Ask::Member { name: "n".into(), locations: places("DE") }),
        Frame::Refuse(RefusalCode::Used.into()),
    ];
    let real = prop::sample::select(frames.to_vec()).prop_map(|frame| frame.encode());
    let cut = (real.clone(), any::<prop::sample::Index>())
        .prop_map(|(bytes, at)| bytes[..at.index(bytes.len())].to_vec());
    let changed =
        (real.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, value)| {
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes
        });
    prop_oneof![real, cut, changed, prop::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    /// Whatever arrives after whatever honest beginning: no panic, one end at most; the invite is touched only after a
    /// proof, nothing is signed without the ledger's word, and nothing is stored without a true grant.
    #[test]
    fn no_frame_does_harm(honest_steps in 0..8_usize, frames in prop::collection::vec(hostile(), 1..5)) {
        let mut hosting = Hosting::new();
        let invite = hosting.invite(InviteKind::Member, false);
        let mut pair = Pair::new(&mut hosting, invite, node(7), applicant("DE"));
        for _ in 0..honest_steps {
            let _ = pair.step_joiner() | pair.step_inviter();
        }
        let proved = pair.steps.contains(&"Prove");
        let Pair { mut inviter, mut joiner, .. } = pair;
        let mut ends = (0, 0);
        // What the honest beginning left to do comes first, and is not done.
        for bytes in std::iter::once(None).chain(frames.iter().map(Some)) {
            if let Some(bytes) = bytes {
                inviter.handle_frame(bytes, at(1));
                joiner.handle_frame(bytes, at(1));
            }
            while let Some(output) = inviter.poll_output() {
                ends.0 += usize::from(matches!(output, InviterOutput::Finished(_)));
                prop_assert!(proved || !matches!(output, InviterOutput::Consume(_)));
                prop_assert!(bytes.is_none() || !matches!(output, InviterOutput::Fulfil(_)));
            }
            while let Some(output) = joiner.poll_output() {
                ends.1 += usize::from(matches!(output, JoinerOutput::Finished(_)));
                prop_assert!(bytes.is_none() || !matches!(output, JoinerOutput::Store(_)));
            }
        }
        prop_assert!(ends.0 <= 1 && ends.1 <= 1);
    }
}

/// Fixed for ever within `/comity/enrol/1`: the forms of docs/protocol-enrolment.md.
#[test]
fn the_bytes_are_pinned() {
    let hello = Hello {
        mesh: mesh(),
        invite: Token::from_bytes(TOKEN).id(),
        kind: InviteKind::Member,
        commitment: commitment(&[0x22; 32].into()),
        introduction: None,
    };
    let hello_bytes = concat!(
        "82008184647465737450ec3afc117179ff2ab41a35a9ca83d53b005820",
        "29351ef3d608bbe32358bc8c95dc172a583f2bf7dc5ed04ba6269ac5258ef2c0"
    );
    for (frame, expected) in [
        (Frame::Hello(hello), hello_bytes),
        (
            Frame::Ask(Ask::Member { name: "berlin-2".into(), locations: places("DE FR") }),
            "820381820082686265726c696e2d3282624445624652",
        ),
        (Frame::Wait, "820480"),
        (Frame::Refuse(Refusal::new(RefusalCode::Locations, "US")), "8206818209625553"),
        (Frame::Done, "820780"),
    ] {
        assert_eq!(data_encoding::HEXLOWER.encode(&frame.encode()), expected, "{}", frame.name());
    }
}
