use super::*;
use crate::call::admit::{LocalOffer, Visibility};
use crate::call::frame::{Cancel, FrameKind, Refusal};
use crate::call::receipt::Expected;
use crate::call::seen::SeenCalls;
use crate::call::tests::{ANSWER, BODY, at, caller_node, executor_key, header, site};
use crate::constraints::{Constraints, DataClass, TrustLevel};
use crate::ids::{CapabilityId, ContractDigest, NodeId};
use crate::testing::{mesh, places};

/// An executor, its node, and what it did.
struct Pair {
    executor: Executor,
    site: SiteFacts,
    offer: Option<LocalOffer>,
    seen: SeenCalls,
    is_executor: bool,
    has_room: bool,
    effects: Vec<Effect>,
}

impl Pair {
    fn new() -> Self {
        let offer = LocalOffer {
            contract: ContractDigest::of(b"c"),
            class_max: DataClass::Internal,
            visibility: Visibility::Federation,
        };
        Self {
            executor: fresh_executor(),
            site: site(&executor_key()),
            offer: Some(offer),
            seen: SeenCalls::new(),
            is_executor: true,
            has_room: true,
            effects: Vec::new(),
        }
    }

    fn frame(&mut self, frame: Frame, ms: u64) -> &mut Self {
        let offer = self.offer;
        let lookup = move |_: &CapabilityId| offer;
        let mut desk = Desk {
            site: &self.site,
            offer: &lookup,
            seen: &mut self.seen,
            is_executor: self.is_executor,
            has_room: self.has_room,
        };
        self.executor.handle_frame(frame, &mut desk, at(ms));
        self.drain()
    }

    fn header(&mut self, change: impl FnOnce(&mut CallHeader)) -> &mut Self {
        let mut header = header();
        change(&mut header);
        self.frame(Frame::Header(header.into()), 1)
    }

    fn running() -> Self {
        let mut pair = Self::new();
        pair.header(|_| {}).frame(Frame::Body(BODY.to_vec()), 2);
        assert_eq!(pair.told(), ["Send(Accept)", "StartUpstream"]);
        pair.effects.clear();
        pair
    }

    fn drain(&mut self) -> &mut Self {
        self.effects.extend(core::iter::from_fn(|| self.executor.poll_effect()));
        self
    }

    fn tick(&mut self, ms: u64) -> &mut Self {
        self.executor.handle_timeout(at(ms));
        self.drain()
    }

    /// The effects in short.
    fn told(&self) -> Vec<String> {
        let tell = |effect: &Effect| match effect {
            Effect::Send(frame) => format!("Send({:?})", frame.kind()),
            Effect::StartUpstream { .. } => "StartUpstream".into(),
            Effect::ToUpstream(_) => "ToUpstream".into(),
            Effect::CancelUpstream { .. } => "CancelUpstream".into(),
            Effect::Close { again: true } => "Close for another".into(),
            Effect::Close { again: false } => "Close".into(),
        };
        self.effects.iter().map(tell).collect()
    }

    /// The code of the refusal that ended the call.
    fn refusal(&self) -> &Refusal {
        match &self.effects[..] {
            [.., Effect::Send(Frame::Refuse(refusal)), Effect::Close { again: false }] => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn failure(&self) -> &ExecutionFailure {
        let found = self.effects.iter().find_map(|effect| match effect {
            Effect::Send(Frame::Failed(failure)) => Some(failure),
            _ => None,
        });
        found.unwrap()
    }

    fn receipt(&self, outcome: ReceiptOutcome, answer: Option<&[u8]>) -> bool {
        let header = header();
        let expected = Expected {
            header: &header,
            executor_org: &self.site.org,
            outcome,
            answer: answer.map(PayloadDigest::of),
        };
        self.effects.iter().any(|effect| match effect {
            Effect::Send(Frame::Receipt(bytes)) => Receipt::verify(bytes, expected, &mesh()).is_ok(),
            _ => false,
        })
    }
}

fn fresh_executor() -> Executor {
    executor_for(true)
}

fn executor_for(is_client: bool) -> Executor {
    let peer = CallerPeer { node: caller_node(), org: "umbrella.example".parse().unwrap(), is_client };
    Executor::new(mesh(), executor_key(), peer, at(0))
}

#[test]
fn a_call_runs_and_leaves_a_receipt_that_verifies() {
    let mut pair = Pair::running();
    pair.executor.handle_upstream_message(b"{}".to_vec(), at(3));
    pair.frame(Frame::Message(b"{}".to_vec()), 4);
    pair.executor.handle_upstream_result(ANSWER.to_vec(), at(5));
    pair.drain();
    let told = ["Send(Message)", "ToUpstream", "Send(Result)", "Send(Receipt)", "Close"];
    assert_eq!(pair.told(), told);
    assert!(pair.receipt(ReceiptOutcome::Result, Some(ANSWER)));
    assert_eq!(pair.executor.poll_timeout(), None);
}

#[test]
fn a_stream_is_for_another_call_only_when_nothing_of_this_one_can_follow() {
    let answered = |spoken: Option<Frame>| {
        let mut pair = Pair::running();
        if let Some(frame) = spoken {
            pair.frame(frame, 3);
        }
        pair.executor.handle_upstream_result(ANSWER.to_vec(), at(5));
        pair.drain().told().pop().unwrap()
    };
    assert_eq!(answered(None), "Close for another");
    assert_eq!(answered(Some(Frame::Message(b"{}".to_vec()))), "Close");
    assert_eq!(answered(Some(Frame::Cancel(Cancel::new(None)))), "Close");
}

#[test]
fn an_upstreams_error_is_an_answer_and_a_failure_says_what_was_handed_over() {
    let mut pair = Pair::running();
    pair.executor.handle_upstream_error(ANSWER.to_vec(), at(5));
    assert!(pair.drain().receipt(ReceiptOutcome::Error, Some(ANSWER)));
    for (handed_over, told) in [
        (true, &["Send(Failed)", "Send(Receipt)", "Close for another"][..]),
        (false, &["Send(Failed)", "Close"]),
    ] {
        let mut pair = Pair::running();
        pair.executor
            .handle_upstream_failed(&ExecutionFailure::new("upstream_died", "x", handed_over), at(5));
        assert_eq!(pair.drain().told(), told);
        assert_eq!(pair.failure().handed_over, handed_over);
        assert_eq!(pair.receipt(ReceiptOutcome::Failed, None), handed_over);
    }
}

#[test]
fn a_header_that_does_not_hold_is_refused_before_anything_is_handed_over() {
    type Change = fn(&mut Pair, &mut CallHeader);
    let table: [(Change, &str); 16] = [
        (|_, h| h.executor = NodeId::from_bytes([9; 32]), "wrong_executor"),
        (|_, h| h.principal.node = NodeId::from_bytes([9; 32]), "wrong_principal"),
        (|_, h| h.principal.org = "acme.example".parse().unwrap(), "wrong_principal"),
        (|_, h| h.hops = 0, "hop_limit"),
        (|_, h| h.deadline_ms = 0, "deadline_passed"),
        (|_, h| h.method = "tools/list".into(), "unknown_method"),
        (|_, h| h.request_bytes = u32::MAX, "too_large"),
        (|p, _| p.has_room = false, "overloaded"),
        (|p, _| p.is_executor = false, "not_executor"),
        (|p, _| p.executor = executor_for(false), "not_client"),
        (|p, _| p.offer = None, "unknown_capability"),
        (|_, h| h.capability.org = "other.example".parse().unwrap(), "unknown_capability"),
        (|p, _| p.offer.as_mut().unwrap().visibility = Visibility::Org, "unknown_capability"),
        (|_, h| h.contract = ContractDigest::of(b"other"), "contract_mismatch"),
        (|_, h| h.sent = at(200_000).wall, "stale_call"),
        (|_, h| h.sent = Wall::from_millis(0), "stale_call"),
    ];
    for (change, code) in table {
        let (mut pair, mut header) = (Pair::new(), header());
        change(&mut pair, &mut header);
        pair.frame(Frame::Header(header.into()), 1);
        assert_eq!(pair.refusal().code, code);
        assert!(pair.seen.is_empty(), "a refused call is not remembered: {code}");
        pair.frame(Frame::Body(BODY.to_vec()), 2);
        assert_eq!(pair.told(), ["Send(Refuse)", "Close"]);
    }
}

#[test]
fn constraints_are_checked_again_here_and_every_rule_that_fails_is_told() {
    let mut pair = Pair::new();
    pair.site.processing = places("DE FR");
    pair.header(|header| {
        header.constraints = Constraints {
            allow_locations: Some(places("DE")),
            deny_operator_countries: places("DE"),
            class: DataClass::Confidential,
            min_trust: TrustLevel::T2,
            ..Constraints::default()
        };
    });
    let refusal = pair.refusal();
    let codes: Vec<_> = refusal.reasons.iter().map(|reason| reason.code.as_str()).collect();
    let all = ["location_not_allowed", "operator_country_denied", "trust_too_low", "class_too_high"];
    assert_eq!((refusal.code.as_str(), &codes[..]), ("location_not_allowed", &all[..]));
    assert_eq!(refusal.detail, "processes in DE,FR; allowed: DE; not allowed: FR");
}

#[test]
fn the_class_that_counts_is_the_offers() {
    let mut pair = Pair::new();
    assert_eq!(pair.site.class_max, DataClass::Restricted);
    pair.header(|header| header.constraints.class = DataClass::Restricted);
    assert_eq!(pair.refusal().code, "class_too_high");
}

#[test]
fn an_offer_to_the_org_is_for_the_org() {
    let mut pair = Pair::new();
    pair.offer.as_mut().unwrap().visibility = Visibility::Org;
    let peer = CallerPeer { node: caller_node(), org: pair.site.org.clone(), is_client: true };
    pair.executor = Executor::new(mesh(), executor_key(), peer, at(0));
    pair.header(|header| header.principal.org = "acme.example".parse().unwrap());
    assert_eq!(pair.told(), ["Send(Accept)"]);
}

#[test]
fn a_replayed_header_is_refused() {
    let mut pair = Pair::new();
    pair.header(|_| {});
    assert_eq!(pair.told(), ["Send(Accept)"]);
    for ms in [1, 100_000] {
        pair.executor = fresh_executor();
        pair.frame(Frame::Header(header().into()), ms);
        assert_eq!(pair.refusal().code, "duplicate_call");
    }
    pair.executor = fresh_executor();
    pair.frame(Frame::Header(header().into()), 3_600_000);
    assert_eq!(pair.refusal().code, "stale_call");
}

#[test]
fn a_body_that_was_not_promised_is_refused() {
    for body in [b"{}".to_vec(), Vec::new(), [BODY, b" "].concat(), BODY.to_ascii_uppercase()] {
        let mut pair = Pair::new();
        pair.header(|_| {}).frame(Frame::Body(body), 2);
        assert_eq!(pair.refusal().code, "wrong_request");
    }
}

#[test]
fn frames_out_of_turn_close_the_stream_and_stop_the_upstream() {
    let every = || {
        [
            Frame::Header(header().into()),
            Frame::Body(BODY.to_vec()),
            Frame::Accept,
            Frame::Refuse(Refusal::new("x", "y")),
            Frame::Message(Vec::new()),
            Frame::Result(Vec::new()),
            Frame::Error(Vec::new()),
            Frame::Failed(ExecutionFailure::new("x", "y", true)),
            Frame::Receipt(Vec::new()),
            Frame::Cancel(Cancel::default()),
        ]
    };
    for frame in every() {
        let kind = frame.kind();
        if kind != FrameKind::Header {
            assert_eq!(Pair::new().frame(frame.clone(), 1).told(), ["Close"], "{kind:?} first");
        }
        if !matches!(kind, FrameKind::Body | FrameKind::Cancel) {
            let mut pair = Pair::new();
            assert_eq!(
                pair.header(|_| {}).frame(frame.clone(), 2).told(),
                ["Send(Accept)", "Close"],
                "{kind:?}"
            );
        }
        if !matches!(kind, FrameKind::Message | FrameKind::Cancel) {
            let mut pair = Pair::running();
            assert_eq!(pair.frame(frame, 3).told(), ["CancelUpstream"], "{kind:?}");
            assert_eq!(pair.tick(2000).told(), ["CancelUpstream", "Close"]);
        }
    }
}

#[test]
fn a_cancelled_call_stops_its_upstream_and_says_so() {
    let mut pair = Pair::new();
    pair.header(|_| {}).frame(Frame::Cancel(Cancel::default()), 2);
    assert_eq!(pair.told(), ["Send(Accept)", "Send(Failed)", "Close"]);
    assert!(!pair.failure().handed_over);

    let mut pair = Pair::running();
    pair.frame(Frame::Cancel(Cancel::default()), 3).frame(Frame::Cancel(Cancel::default()), 3);
    assert_eq!(pair.told(), ["CancelUpstream"]);
    pair.executor.handle_upstream_failed(&ExecutionFailure::new("cancelled", "x", true), at(4));
    assert_eq!(pair.drain().told(), ["CancelUpstream", "Send(Failed)", "Send(Receipt)", "Close"]);
    assert_eq!(pair.failure().code, "cancelled");

    let mut stubborn = Pair::running();
    stubborn.frame(Frame::Cancel(Cancel::default()), 3).tick(1002);
    assert_eq!(stubborn.told(), ["CancelUpstream"]);
    assert_eq!(stubborn.tick(1003).told(), ["CancelUpstream", "Send(Failed)", "Send(Receipt)", "Close"]);
}

#[test]
fn a_result_that_overtakes_the_cancellation_is_passed_on() {
    let mut pair = Pair::running();
    pair.frame(Frame::Cancel(Cancel::default()), 3);
    pair.executor.handle_upstream_result(ANSWER.to_vec(), at(4));
    assert_eq!(pair.drain().told(), ["CancelUpstream", "Send(Result)", "Send(Receipt)", "Close"]);
}

#[test]
fn an_upstream_that_never_answers_is_stopped_at_the_deadline() {
    let mut pair = Pair::running();
    assert_eq!(pair.executor.poll_timeout(), Some(at(30_001).mono));
    pair.tick(30_000);
    assert!(pair.effects.is_empty());
    assert_eq!(pair.tick(30_001).told(), ["CancelUpstream"]);
    pair.tick(31_001);
    assert_eq!(pair.failure().code, "timeout");
    assert!(pair.failure().handed_over && pair.receipt(ReceiptOutcome::Failed, None));
}

#[test]
fn a_body_that_comes_after_the_deadline_is_not_handed_over() {
    let mut pair = Pair::new();
    pair.header(|header| header.deadline_ms = 50).frame(Frame::Body(BODY.to_vec()), 60);
    assert_eq!((pair.failure().code.as_str(), pair.failure().handed_over), ("timeout", false));
    assert!(!pair.effects.iter().any(|effect| matches!(effect, Effect::StartUpstream { .. })));
}

#[test]
fn silence_costs_a_stream_its_time() {
    let mut pair = Pair::new();
    assert_eq!(pair.tick(4999).told().len(), 0);
    assert_eq!(pair.tick(5000).told(), ["Close"]);
    let mut pair = Pair::new();
    pair.header(|_| {}).tick(30_001);
    assert_eq!(pair.told(), ["Send(Accept)", "Close"]);
}

#[test]
fn a_caller_that_leaves_stops_the_upstream_and_hears_nothing() {
    let mut pair = Pair::running();
    pair.executor.handle_lost(at(3));
    pair.executor.handle_upstream_message(Vec::new(), at(4));
    pair.executor.handle_upstream_result(ANSWER.to_vec(), at(5));
    assert_eq!(pair.drain().told(), ["CancelUpstream", "Close"]);
}

#[test]
fn what_is_too_large_for_a_frame_fails_the_call() {
    for feed in [Executor::handle_upstream_result, Executor::handle_upstream_message] {
        let mut pair = Pair::running();
        feed(&mut pair.executor, vec![b' '; PAYLOAD_BYTES_MAX + 1], at(3));
        assert_eq!(pair.drain().failure().code, "too_large");
        assert!(matches!(pair.effects.last(), Some(Effect::Close { .. })));
    }
}

#[test]
fn after_the_end_nothing_happens() {
    let mut pair = Pair::running();
    pair.executor.handle_upstream_result(ANSWER.to_vec(), at(3));
    let ended = pair.drain().effects.len();
    pair.executor.handle_upstream_result(ANSWER.to_vec(), at(4));
    pair.executor.handle_upstream_message(Vec::new(), at(4));
    pair.executor.handle_upstream_failed(&ExecutionFailure::new("x", "y", true), at(4));
    pair.executor.handle_lost(at(5));
    pair.frame(Frame::Cancel(Cancel::default()), 6).tick(99_999);
    assert_eq!(pair.effects.len(), ended);
}
