use ed25519_dalek::SigningKey;

use super::*;
use crate::call::frame::{ExecutionFailure, FrameKind, Refusal};
use crate::call::tests::{ANSWER, at, parts, receipt_for};
use crate::testing::mesh;
use crate::trust::seal;

const DEADLINE_MS: u64 = 30_000;

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn target(n: u8) -> Target {
    let org = "acme.example".parse().unwrap();
    Target { node: key(n).verifying_key().into(), org, name: format!("n{n}").into(), connected: true }
}

/// How the body travels.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// After `Accept`.
    TwoPhase,
    /// With the header, on a fresh link.
    Pipelined,
    /// With the header, because the tool may run twice.
    Vouched,
}

/// A caller and a script for its peers.
struct Pair {
    caller: Caller,
    mode: Mode,
    attempt: AttemptId,
    header: Option<CallHeader>,
    effects: Vec<Effect>,
}

impl Pair {
    fn new(mode: Mode, targets: u8) -> Self {
        let plan = CallPlan {
            mesh: mesh(),
            parts: parts(),
            vouched: mode == Mode::Vouched,
            deadline: at(DEADLINE_MS).mono,
        };
        let caller = Caller::new(plan, (1..=targets).map(target), at(0)).unwrap();
        let mut pair = Self { caller, mode, attempt: AttemptId(0), header: None, effects: Vec::new() };
        pair.drain();
        pair
    }

    fn drain(&mut self) {
        while let Some(effect) = self.caller.poll_effect() {
            match &effect {
                Effect::Open { attempt, .. } => self.attempt = *attempt,
                Effect::Send { frame: Frame::Header(header), .. } => self.header = Some((**header).clone()),
                _ => {}
            }
            self.effects.push(effect);
        }
    }

    fn open(&mut self, ms: u64) -> &mut Self {
        let heard = (self.mode == Mode::Pipelined).then(|| at(ms).mono);
        self.caller.handle_opened(self.attempt, heard, at(ms));
        self.drain();
        self
    }

    fn frame(&mut self, frame: Frame, ms: u64) -> &mut Self {
        self.caller.handle_frame(self.attempt, frame, at(ms));
        self.drain();
        self
    }

    fn lost(&mut self, ms: u64) -> &mut Self {
        self.caller.handle_lost(self.attempt, "broken".into(), at(ms));
        self.drain();
        self
    }

    fn tick(&mut self, ms: u64) -> &mut Self {
        self.caller.handle_timeout(at(ms));
        self.drain();
        self
    }

    fn receipt(&self) -> Vec<u8> {
        self.receipt_with(|_| {})
    }

    fn receipt_with(&self, change: impl FnOnce(&mut Receipt)) -> Vec<u8> {
        let header = self.header.as_ref().unwrap();
        let signer =
            (1..9).map(key).find(|key| NodeId::from(key.verifying_key()) == header.executor).unwrap();
        let mut receipt = receipt_for(header);
        change(&mut receipt);
        seal(receipt, &signer, Some(&mesh())).bytes().to_vec()
    }

    fn bodies(&self) -> usize {
        self.effects.iter().filter(|effect| matches!(effect, Effect::SendBody { .. })).count()
    }

    fn opened(&self) -> usize {
        self.effects.iter().filter(|effect| matches!(effect, Effect::Open { .. })).count()
    }

    fn sent(&self, kind: FrameKind) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Send { frame, .. } if frame.kind() == kind))
    }

    fn health(&self) -> Vec<Health> {
        let close = |effect: &Effect| match effect {
            Effect::Close { health, .. } => Some(*health),
            _ => None,
        };
        self.effects.iter().filter_map(close).collect()
    }

    /// The one outcome, which came last.
    fn outcome(&self) -> &CallOutcome {
        let finished = self.effects.iter().filter(|effect| matches!(effect, Effect::Finish(_))).count();
        assert_eq!(finished, 1, "{:?}", self.effects);
        assert!(self.caller.is_finished() && self.caller.poll_timeout().is_none());
        match self.effects.last() {
            Some(Effect::Finish(outcome)) => outcome,
            other => panic!("the outcome is not last: {other:?}"),
        }
    }

    fn failure(&self) -> &CallFailure {
        match self.outcome() {
            CallOutcome::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }
}

fn failed(handed_over: bool) -> Frame {
    Frame::Failed(ExecutionFailure::new("upstream_died", "gone", handed_over))
}

fn refused() -> Frame {
    Frame::Refuse(Refusal::new("unknown_capability", "not here"))
}

#[test]
fn a_call_goes_through_in_every_mode() {
    for mode in [Mode::TwoPhase, Mode::Pipelined, Mode::Vouched] {
        let mut pair = Pair::new(mode, 2);
        pair.open(1);
        assert_eq!(pair.bodies(), usize::from(mode != Mode::TwoPhase), "{mode:?}");
        pair.frame(Frame::Accept, 2).frame(Frame::Message(b"{}".to_vec()), 3);
        assert_eq!(pair.bodies(), 1);
        pair.frame(Frame::Result(ANSWER.to_vec()), 4);
        let receipt = pair.receipt();
        pair.frame(Frame::Receipt(receipt), 5);
        let CallOutcome::Answered { executor, answer, receipt } = pair.outcome() else { panic!() };
        assert_eq!((executor, answer), (&target(1), &Answer::Result(ANSWER.to_vec())));
        assert!(receipt.is_ok());
        assert_eq!(pair.health(), [Health::Answered]);
    }
}

#[test]
fn the_header_says_what_was_planned_and_how_long_is_left() {
    let mut pair = Pair::new(Mode::TwoPhase, 1);
    pair.open(12);
    let header = pair.header.unwrap();
    assert_eq!(header.deadline_ms, DEADLINE_MS - 12);
    assert_eq!((header.executor, header.sent), (target(1).node, at(12).wall));
    assert_eq!(header.request, parts().request);
}

/// What a broken attempt comes to.
#[derive(Debug, PartialEq)]
enum Fate {
    FailsOver,
    InDoubt,
    TimedOut,
    Ends,
}

fn fate(mode: Mode, fail: impl FnOnce(&mut Pair)) -> Fate {
    let mut pair = Pair::new(mode, 2);
    fail(&mut pair);
    if pair.opened() == 2 {
        return Fate::FailsOver;
    }
    match pair.outcome() {
        CallOutcome::Failed(CallFailure::InDoubt { .. }) => Fate::InDoubt,
        CallOutcome::Failed(CallFailure::Timeout { handed_over: true }) => Fate::TimedOut,
        CallOutcome::Answered { .. } => Fate::Ends,
        other => panic!("{other:?}"),
    }
}

/// The rule of the whole machine, as a table: every point of failure against every way in which the body travels.
#[test]
fn only_what_was_not_handed_over_is_tried_elsewhere() {
    use Fate::{Ends, FailsOver, InDoubt, TimedOut};
    type Fault = (&'static str, fn(&mut Pair), [Fate; 3]);
    let table: [Fault; 16] = [
        ("cannot be opened", |p| _ = p.lost(1), [FailsOver, FailsOver, FailsOver]),
        ("opens too slowly", |p| _ = p.tick(750), [FailsOver, FailsOver, FailsOver]),
        ("refuses the header", |p| _ = p.open(1).frame(refused(), 2), [FailsOver, FailsOver, FailsOver]),
        ("breaks before it accepts", |p| _ = p.open(1).lost(2), [FailsOver, InDoubt, FailsOver]),
        ("never accepts", |p| _ = p.open(1).tick(751).tick(DEADLINE_MS), [FailsOver, TimedOut, FailsOver]),
        (
            "answers unaccepted",
            |p| _ = p.open(1).frame(Frame::Result(vec![]), 2),
            [FailsOver, InDoubt, FailsOver],
        ),
        (
            "accepts twice",
            |p| _ = p.open(1).frame(Frame::Accept, 2).frame(Frame::Accept, 3),
            [InDoubt, InDoubt, FailsOver],
        ),
        (
            "refuses the body",
            |p| _ = p.open(1).frame(Frame::Accept, 2).frame(refused(), 3),
            [FailsOver, FailsOver, FailsOver],
        ),
        (
            "breaks when running",
            |p| _ = p.open(1).frame(Frame::Accept, 2).lost(3),
            [InDoubt, InDoubt, FailsOver],
        ),
        (
            "sends a header",
            |p| {
                let header = crate::call::tests::header();
                p.open(1).frame(Frame::Accept, 2).frame(Frame::Header(header.into()), 3);
            },
            [InDoubt, InDoubt, FailsOver],
        ),
        (
            "fails before its upstream",
            |p| _ = p.open(1).frame(Frame::Accept, 2).frame(failed(false), 3),
            [FailsOver, FailsOver, FailsOver],
        ),
        (
            "fails in its upstream",
            |p| {
                p.open(1).frame(Frame::Accept, 2).frame(failed(true), 3).tick(60_000);
            },
            [Ends, Ends, FailsOver],
        ),
        (
            "never answers",
            |p| _ = p.open(1).frame(Frame::Accept, 2).tick(DEADLINE_MS),
            [TimedOut, TimedOut, TimedOut],
        ),
        (
            "breaks after a message",
            |p| {
                p.open(1).frame(Frame::Accept, 2).frame(Frame::Message(vec![]), 3).lost(4);
            },
            [InDoubt, InDoubt, InDoubt],
        ),
        (
            "refuses after a message",
            |p| {
                p.open(1).frame(Frame::Accept, 2).frame(Frame::Message(vec![]), 3).frame(refused(), 4);
            },
            [InDoubt, InDoubt, InDoubt],
        ),
        (
            "denies the hand-over after a message",
            |p| {
                p.open(1)
                    .frame(Frame::Accept, 2)
                    .frame(Frame::Message(vec![]), 3)
                    .frame(failed(false), 4)
                    .tick(60_000);
            },
            [Ends, Ends, Ends],
        ),
    ];
    for (fault, fail, fates) in table {
        for (mode, expected) in [Mode::TwoPhase, Mode::Pipelined, Mode::Vouched].into_iter().zip(fates) {
            assert_eq!(fate(mode, fail), expected, "a peer that {fault}, {mode:?}");
        }
    }
}

#[test]
fn the_body_never_goes_to_a_second_peer_unless_the_first_said_no() {
    let mut pair = Pair::new(Mode::TwoPhase, 5);
    for attempt in 0..4_u64 {
        pair.open(attempt * 1000 + 1).tick(attempt * 1000 + 800);
    }
    assert_eq!((pair.opened(), pair.bodies()), (5, 0));
    pair.open(4001).frame(Frame::Accept, 4002).lost(4003);
    assert_eq!(pair.bodies(), 1);
    assert!(matches!(pair.failure(), CallFailure::InDoubt { executor, .. } if *executor == target(5)));
}

#[test]
fn when_nobody_takes_it_every_try_is_told() {
    let mut pair = Pair::new(Mode::TwoPhase, 2);
    pair.lost(1).open(2).frame(refused(), 3);
    let CallFailure::Exhausted { attempts, budget_spent: false } = pair.failure() else { panic!() };
    let told: Vec<_> =
        attempts.iter().map(|a| (&*a.target.name, a.cause.code(), a.cause.to_string())).collect();
    let (first, second) = ("broken".to_owned(), "refused: not here".to_owned());
    assert_eq!(told, [("n1", "unreachable", first), ("n2", "unknown_capability", second)]);
    assert_eq!(pair.health(), [Health::PeerFault, Health::Neutral]);
}

/// Found by the simulator: a tool that may run twice was tried, lost, tried elsewhere in vain, and reported as not run.
#[test]
fn a_vouched_call_that_may_have_run_somewhere_is_never_said_not_to_have() {
    let mut pair = Pair::new(Mode::Vouched, 2);
    pair.open(1).frame(Frame::Accept, 2).lost(3);
    pair.lost(4);
    let in_doubt = |failure: &CallFailure| matches!(failure, CallFailure::InDoubt { executor, .. } if *executor == target(1));
    assert!(in_doubt(pair.failure()), "{:?}", pair.failure());

    let mut pair = Pair::new(Mode::Vouched, 2);
    pair.open(1).frame(Frame::Accept, 2).frame(failed(true), 2);
    pair.caller.handle_cancel(None, at(3));
    pair.drain();
    assert_eq!(*pair.failure(), CallFailure::Cancelled { handed_over: true });

    let mut pair = Pair::new(Mode::Vouched, 2);
    pair.open(1).lost(2).tick(DEADLINE_MS);
    assert_eq!(*pair.failure(), CallFailure::Timeout { handed_over: true });

    let mut pair = Pair::new(Mode::Vouched, 2);
    pair.open(1).frame(refused(), 2).lost(3);
    assert!(matches!(pair.failure(), CallFailure::Exhausted { .. }), "a refusal leaves no doubt");
}

#[test]
fn second_tries_are_asked_for_and_bounded() {
    let mut pair = Pair::new(Mode::TwoPhase, 100);
    (0..100).for_each(|ms| _ = pair.lost(ms));
    let retries: Vec<bool> = pair
        .effects
        .iter()
        .filter_map(|effect| if let Effect::Open { retry, .. } = effect { Some(*retry) } else { None })
        .collect();
    assert_eq!(retries, [false, true, true, true, true]);
    assert!(matches!(pair.failure(), CallFailure::Exhausted { budget_spent: false, .. }));

    let mut pair = Pair::new(Mode::TwoPhase, 3);
    pair.lost(1);
    pair.caller.handle_no_budget(pair.attempt);
    pair.drain();
    let CallFailure::Exhausted { attempts, budget_spent: true } = pair.failure() else { panic!() };
    assert_eq!(attempts.len(), 1);
}

#[test]
fn the_last_candidate_is_given_longer() {
    let mut pair = Pair::new(Mode::TwoPhase, 1);
    pair.open(1).tick(5000).frame(Frame::Accept, 5001);
    assert_eq!(pair.bodies(), 1);
}

#[test]
fn a_peer_that_must_be_dialled_is_given_longer() {
    let plan = CallPlan { mesh: mesh(), parts: parts(), vouched: false, deadline: at(DEADLINE_MS).mono };
    let away = Target { connected: false, ..target(1) };
    let caller = Caller::new(plan, [away], at(0)).unwrap();
    assert_eq!(caller.poll_timeout(), Some(at(5000).mono));
}

#[test]
fn nobody_to_try_and_no_time_left_are_outcomes_too() {
    let pair = Pair::new(Mode::TwoPhase, 0);
    assert!(matches!(pair.failure(), CallFailure::Exhausted { attempts, .. } if attempts.is_empty()));
    let mut pair = Pair::new(Mode::TwoPhase, 2);
    pair.tick(DEADLINE_MS);
    assert_eq!(*pair.failure(), CallFailure::Timeout { handed_over: false });
}

#[test]
fn a_cancelled_call_ends_once_and_says_whether_it_may_have_run() {
    let cancel = |pair: &mut Pair, ms| {
        pair.caller.handle_cancel(Some("enough"), at(ms));
        pair.drain();
    };
    let mut pair = Pair::new(Mode::TwoPhase, 2);
    pair.open(1);
    cancel(&mut pair, 2);
    assert_eq!(*pair.failure(), CallFailure::Cancelled { handed_over: false });
    assert!(!pair.sent(FrameKind::Cancel));

    for (last_word, handed_over) in
        [(Some(failed(true)), true), (Some(failed(false)), false), (Some(refused()), false), (None, true)]
    {
        let mut pair = Pair::new(Mode::Pipelined, 2);
        pair.open(1);
        cancel(&mut pair, 2);
        cancel(&mut pair, 3);
        assert!(pair.sent(FrameKind::Cancel) && !pair.caller.is_finished());
        pair.frame(Frame::Accept, 4).frame(Frame::Message(vec![]), 5);
        match last_word {
            Some(frame) => pair.frame(frame, 6),
            None => pair.tick(2002),
        };
        assert_eq!(*pair.failure(), CallFailure::Cancelled { handed_over });
        assert!(!pair.effects.iter().any(|effect| matches!(effect, Effect::Deliver(_))));
    }
}

#[test]
fn a_result_that_overtakes_the_cancellation_is_the_outcome() {
    let mut pair = Pair::new(Mode::TwoPhase, 1);
    pair.open(1).frame(Frame::Accept, 2);
    pair.caller.handle_cancel(None, at(3));
    pair.frame(Frame::Result(ANSWER.to_vec()), 4);
    let receipt = pair.receipt();
    pair.frame(Frame::Receipt(receipt), 5);
    assert!(matches!(pair.outcome(), CallOutcome::Answered { receipt: Ok(_), .. }));
}

#[test]
fn at_the_deadline_a_running_call_is_cancelled_and_given_up() {
    let mut pair = Pair::new(Mode::TwoPhase, 2);
    pair.open(1).frame(Frame::Accept, 2).tick(DEADLINE_MS - 1);
    assert!(!pair.caller.is_finished());
    pair.tick(DEADLINE_MS);
    assert!(pair.sent(FrameKind::Cancel));
    assert_eq!(*pair.failure(), CallFailure::Timeout { handed_over: true });
    assert_eq!(pair.health(), [Health::CapabilityFault]);
}

#[test]
fn a_caller_in_haste_and_a_request_that_is_wrong_are_not_held_against_the_peer() {
    let plan = |ms| CallPlan { mesh: mesh(), parts: parts(), vouched: false, deadline: at(ms).mono };
    for (accepted, ms, expected) in [
        (false, 300, Health::Neutral),
        (true, 300, Health::Neutral),
        (true, PATIENCE_FAIR.as_millis() as u64, Health::CapabilityFault),
    ] {
        let mut pair = Pair::new(Mode::TwoPhase, 1);
        pair.caller = Caller::new(plan(ms), [target(1)], at(0)).unwrap();
        pair.effects.clear();
        pair.drain();
        pair.open(1);
        if accepted {
            pair.frame(Frame::Accept, 2);
        }
        pair.tick(ms);
        assert_eq!(*pair.failure(), CallFailure::Timeout { handed_over: accepted });
        assert_eq!(pair.health(), [expected], "accepted {accepted}, after {ms} ms");
    }
    for (code, handed_over, expected) in [
        ("refused", false, Health::Neutral),
        ("too_large", false, Health::Neutral),
        ("overloaded", false, Health::CapabilityFault),
        ("upstream_died", false, Health::CapabilityFault),
        ("overloaded", true, Health::Neutral),
        ("upstream_died", true, Health::CapabilityFault),
    ] {
        let mut pair = Pair::new(Mode::TwoPhase, 1);
        let failure = ExecutionFailure::new(code, "why", handed_over);
        pair.open(1).frame(Frame::Accept, 2).frame(Frame::Failed(failure), 3);
        if handed_over {
            let receipt = pair.receipt_with(|receipt| {
                (receipt.outcome, receipt.answer) = (crate::call::ReceiptOutcome::Failed, None);
            });
            pair.frame(Frame::Receipt(receipt), 4);
        }
        assert_eq!(pair.health(), [expected], "{code}, handed over: {handed_over}");
    }
}

#[test]
fn a_result_without_a_good_receipt_is_delivered_and_held_against_the_peer() {
    type Script = fn(&mut Pair);
    let scripts: [(Script, &str); 5] = [
        (|p| _ = p.tick(60_000), "receipt_missing"),
        (|p| _ = p.lost(5), "receipt_missing"),
        (|p| _ = p.frame(Frame::Result(b"again".to_vec()), 5), "receipt_misplaced"),
        (|p| _ = p.frame(Frame::Message(b"late".to_vec()), 5), "receipt_misplaced"),
        (
            |p| {
                let forged = p.receipt_with(|receipt| receipt.answer = None);
                p.frame(Frame::Receipt(forged), 5);
            },
            "receipt_mismatch",
        ),
    ];
    for (script, code) in scripts {
        let mut pair = Pair::new(Mode::TwoPhase, 2);
        pair.open(1).frame(Frame::Accept, 2).frame(Frame::Result(ANSWER.to_vec()), 3);
        script(&mut pair);
        let CallOutcome::Answered { answer, receipt, .. } = pair.outcome() else { panic!() };
        assert_eq!(*answer, Answer::Result(ANSWER.to_vec()));
        assert_eq!(receipt.as_ref().unwrap_err().code(), code);
        assert_eq!(pair.health(), [Health::PeerFault]);
        assert!(!pair.effects.iter().any(|effect| matches!(effect, Effect::Deliver(_))));
    }
}

#[test]
fn a_stream_is_for_another_call_only_when_nothing_of_this_one_can_follow() {
    type Script = fn(&mut Pair);
    let scripts: [(Script, bool); 4] = [
        (|_| {}, true),
        (|p| p.caller.handle_message(b"{}".to_vec()), false),
        (|p| p.caller.handle_cancel(None, at(3)), false),
        (|p| _ = p.lost(5), false),
    ];
    for (script, expected) in scripts {
        let mut pair = Pair::new(Mode::TwoPhase, 1);
        pair.open(1).frame(Frame::Accept, 2);
        script(&mut pair);
        pair.drain();
        pair.frame(Frame::Result(ANSWER.to_vec()), 6);
        let receipt = pair.receipt();
        pair.frame(Frame::Receipt(receipt), 7);
        let again: Vec<bool> = pair
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Close { again, .. } => Some(*again),
                _ => None,
            })
            .collect();
        assert_eq!(again, [expected]);
    }
}

#[test]
fn whatever_comes_after_the_end_or_from_an_earlier_attempt_does_nothing() {
    let mut pair = Pair::new(Mode::TwoPhase, 2);
    let first = pair.attempt;
    pair.lost(1);
    let before = pair.effects.len();
    for frame in [Frame::Accept, Frame::Result(vec![]), refused()] {
        pair.caller.handle_frame(first, frame, at(2));
    }
    pair.caller.handle_opened(first, None, at(2));
    pair.caller.handle_lost(first, "late".into(), at(2));
    pair.drain();
    assert_eq!(pair.effects.len(), before);

    pair.open(3).frame(Frame::Accept, 4).lost(5);
    let ended = pair.effects.len();
    pair.frame(Frame::Result(vec![]), 6).lost(7).tick(99_000).open(8);
    pair.caller.handle_cancel(None, at(9));
    pair.caller.handle_message(vec![]);
    pair.caller.handle_no_budget(pair.attempt);
    pair.drain();
    assert_eq!(pair.effects.len(), ended);
}

#[test]
fn the_requester_speaks_to_a_running_call_only() {
    let mut pair = Pair::new(Mode::TwoPhase, 1);
    pair.caller.handle_message(b"early".to_vec());
    pair.open(1).frame(Frame::Accept, 2);
    pair.caller.handle_message(b"answer".to_vec());
    pair.drain();
    let sent: Vec<_> = pair
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Send { frame: Frame::Message(_), .. }))
        .collect();
    assert!(matches!(sent[..], [Effect::Send { frame: Frame::Message(bytes), .. }] if bytes == b"answer"));
}
