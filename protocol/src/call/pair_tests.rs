//! Caller and executors against each other, over byte streams that break wherever a test wants.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;

use crate::constraints::DataClass;
use crate::ids::ContractDigest;
use crate::route::SiteFacts;
use crate::testing::{mesh, places};
use crate::time::Now;

use super::frame::prefix;
use super::tests::{ANSWER, BODY, at, caller_node, parts, site};
use super::{
    Answer, AttemptId, CallFailure, CallOutcome, CallPlan, Caller, CallerPeer, Desk, Executor, Frame,
    FrameDecoder, FrameKind, LocalOffer, SeenCalls, Target, Visibility, caller, executor,
};

/// Where the first attempt's stream breaks: after so many bytes of one direction.
#[derive(Clone, Copy, Debug)]
enum Cut {
    ToExecutor(usize),
    ToCaller(usize),
    Never,
}

/// One direction of a stream: bytes in, frames out, until it breaks.
struct Pipe {
    decoder: FrameDecoder,
    left: usize,
    carried: usize,
}

impl Pipe {
    fn new(left: usize) -> Self {
        Self { decoder: FrameDecoder::new(), left, carried: 0 }
    }

    fn carry(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut arriving = &bytes[..bytes.len().min(self.left)];
        self.left -= arriving.len();
        self.carried += arriving.len();
        let mut frames = Vec::new();
        while let Some(frame) = self.decoder.push(&mut arriving).unwrap() {
            frames.push(frame);
        }
        frames
    }
}

struct Stream {
    executor: Executor,
    site: SiteFacts,
    to_executor: Pipe,
    to_caller: Pipe,
    starts: usize,
}

struct World {
    caller: Caller,
    mode: Mode,
    cut: Cut,
    sites: Vec<(SigningKey, SiteFacts)>,
    streams: BTreeMap<AttemptId, Stream>,
    delivered: usize,
    outcome: Option<CallOutcome>,
    now: Now,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    TwoPhase,
    Pipelined,
    Vouched,
}

impl World {
    fn new(mode: Mode, cut: Cut) -> Self {
        let sites: Vec<_> =
            [1, 2].map(|n| SigningKey::from_bytes(&[n; 32])).map(|key| (key.clone(), site(&key))).into();
        let target = |(_, site): &(SigningKey, SiteFacts)| Target {
            node: site.node,
            org: site.org.clone(),
            name: "n".into(),
            connected: true,
        };
        let plan = CallPlan {
            mesh: mesh(),
            parts: parts(),
            vouched: mode == Mode::Vouched,
            deadline: at(30_000).mono,
        };
        let caller = Caller::new(plan, sites.iter().map(target), at(0)).unwrap();
        Self { caller, mode, cut, sites, streams: BTreeMap::new(), delivered: 0, outcome: None, now: at(1) }
    }

    fn run(mut self) -> Self {
        while let Some(effect) = self.caller.poll_effect() {
            self.perform(effect);
        }
        assert!(self.outcome.is_some());
        self
    }

    fn perform(&mut self, effect: caller::Effect) {
        match effect {
            caller::Effect::Open { attempt, node, .. } => self.open(attempt, node),
            caller::Effect::Send { attempt, frame } => self.carry(attempt, &frame.to_vec().unwrap()),
            caller::Effect::SendBody { attempt } => {
                let framed = [&prefix(FrameKind::Body, BODY.len()).unwrap()[..], BODY].concat();
                self.carry(attempt, &framed);
            }
            caller::Effect::Close { .. } => {}
            caller::Effect::Deliver(_) => self.delivered += 1,
            caller::Effect::Finish(outcome) => assert!(self.outcome.replace(*outcome).is_none()),
        }
    }

    fn open(&mut self, attempt: AttemptId, node: crate::ids::NodeId) {
        let first = self.streams.is_empty();
        let (key, site) = self.sites.iter().find(|(_, site)| site.node == node).unwrap().clone();
        let peer =
            CallerPeer { node: caller_node(), org: "umbrella.example".parse().unwrap(), is_client: true };
        let (mut there, mut back) = (usize::MAX, usize::MAX);
        match self.cut {
            Cut::ToExecutor(bytes) if first => there = bytes,
            Cut::ToCaller(bytes) if first => back = bytes,
            _ => {}
        }
        let stream = Stream {
            executor: Executor::new(mesh(), key, peer, self.now),
            site,
            to_executor: Pipe::new(there),
            to_caller: Pipe::new(back),
            starts: 0,
        };
        self.streams.insert(attempt, stream);
        let heard = (self.mode == Mode::Pipelined).then_some(self.now.mono);
        self.caller.handle_opened(attempt, heard, self.now);
    }

    fn carry(&mut self, attempt: AttemptId, bytes: &[u8]) {
        let stream = self.streams.get_mut(&attempt).unwrap();
        let now = self.now;
        for frame in stream.to_executor.carry(bytes) {
            let offer = |_: &_| {
                Some(LocalOffer {
                    contract: ContractDigest::of(b"c"),
                    class_max: DataClass::Internal,
                    visibility: Visibility::Federation,
                })
            };
            let mut seen = SeenCalls::new();
            let mut desk = Desk {
                site: &stream.site,
                offer: &offer,
                seen: &mut seen,
                is_executor: true,
                has_room: true,
            };
            stream.executor.handle_frame(frame, &mut desk, now);
        }
        if stream.to_executor.left == 0 {
            stream.executor.handle_lost(now);
        }
        self.drain_executor(attempt);
        let broken =
            self.streams.get(&attempt).is_some_and(|s| s.to_executor.left == 0 || s.to_caller.left == 0);
        if broken {
            self.caller.handle_lost(attempt, "the stream broke".into(), now);
        }
    }

    /// What the executor does; its upstream says one thing and answers at once.
    fn drain_executor(&mut self, attempt: AttemptId) {
        let stream = self.streams.get_mut(&attempt).unwrap();
        while let Some(effect) = stream.executor.poll_effect() {
            match effect {
                executor::Effect::Send(frame) => {
                    for frame in stream.to_caller.carry(&frame.to_vec().unwrap()) {
                        self.caller.handle_frame(attempt, frame, self.now);
                    }
                    if stream.to_caller.left == 0 {
                        stream.executor.handle_lost(self.now);
                    }
                }
                executor::Effect::StartUpstream { body } => {
                    assert_eq!(body, BODY);
                    stream.starts += 1;
                    stream.executor.handle_upstream_message(b"{}".to_vec(), self.now);
                    stream.executor.handle_upstream_result(ANSWER.to_vec(), self.now);
                }
                executor::Effect::ToUpstream(_)
                | executor::Effect::CancelUpstream { .. }
                | executor::Effect::Close { .. } => {}
            }
        }
    }

    fn starts(&self) -> usize {
        self.streams.values().map(|stream| stream.starts).sum()
    }

    fn has_result(&self) -> bool {
        matches!(self.outcome, Some(CallOutcome::Answered { answer: Answer::Result(ref bytes), .. }) if bytes == ANSWER)
    }
}

#[test]
fn the_machines_agree_when_nothing_breaks() {
    for mode in [Mode::TwoPhase, Mode::Pipelined, Mode::Vouched] {
        let world = World::new(mode, Cut::Never).run();
        assert!(world.has_result());
        let Some(CallOutcome::Answered { receipt, .. }) = &world.outcome else { panic!() };
        assert_eq!(receipt.as_ref().unwrap().processing_locations, places("DE"));
        assert_eq!((world.starts(), world.delivered, world.streams.len()), (1, 1, 1));
    }
}

/// Breaks the first stream after every single byte in either direction. Whatever happens, a tool that may not run twice
/// runs at most once, and nobody says that nothing was run when something was.
#[test]
fn wherever_the_stream_breaks_nothing_runs_twice_and_nothing_is_hidden() {
    for mode in [Mode::TwoPhase, Mode::Pipelined, Mode::Vouched] {
        let whole = World::new(mode, Cut::Never).run();
        let stream = whole.streams.values().next().unwrap();
        let there = (0..stream.to_executor.carried).map(Cut::ToExecutor);
        let back = (0..stream.to_caller.carried).map(Cut::ToCaller);
        let (mut doubts, mut failovers) = (0, 0);
        for cut in there.chain(back) {
            let world = World::new(mode, cut).run();
            let went_elsewhere = world.streams.len() == 2;
            match &world.outcome {
                Some(CallOutcome::Failed(CallFailure::InDoubt { .. })) => {
                    assert!(!went_elsewhere && !world.has_result());
                    doubts += 1;
                }
                Some(CallOutcome::Answered { .. }) => assert!(world.has_result()),
                other => panic!("{mode:?} {cut:?}: {other:?}"),
            }
            assert!(mode == Mode::Vouched || world.starts() <= 1, "{mode:?} {cut:?} ran twice");
            failovers += usize::from(went_elsewhere);
        }
        assert!(failovers > 0 || mode == Mode::Pipelined, "{mode:?}");
        assert!(doubts > 0, "{mode:?}: after a message even a vouched call is not sent again");
    }
}
