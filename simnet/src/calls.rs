//! Calls: who makes them, the real `route::decide`, the real `call::Caller` and `call::Executor`, and the shell between
//! them. What a real node's `calls` and `world` modules do is done here without tasks.
//!
//! `caller` is the calling side, `executor` the other; both meet on a [`Stream`].

mod caller;
mod executor;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use comity_protocol::call::{AttemptId, Caller, Executor, FrameDecoder, SeenCalls, Target};
use comity_protocol::ids::CallId;
use comity_protocol::mesh::ConnectionId;
use comity_protocol::rng::Rng;
use comity_protocol::route::{Attempt, PeerStats, RetryBudget};
use comity_protocol::time::Now;

use crate::moment::Moment;
use crate::scenario::{Scenario, SiteId, Verdict};
use crate::world::{Event, Side, World};

/// A call's stream, by number.
pub(crate) type StreamId = u64;

/// Most calls that one node runs for others at once, as in the shell.
const RUNNING_MAX: u32 = 512;

/// What every call asks, and what every tool answers.
const BODY: &[u8] = br#"{"name":"tool","arguments":{}}"#;
const ANSWER: &[u8] = br#"{"content":[]}"#;

/// What happens to calls.
pub(crate) enum CallEvent {
    /// A site makes its next call.
    Begin { source: usize, site: SiteId },
    /// A caller's machine is due.
    CallerDue { call: usize },
    /// A stream is open.
    Opened { stream: StreamId },
    /// A stream could not be opened.
    NotOpened { stream: StreamId },
    /// A frame arrives.
    Frame { stream: StreamId, to_executor: bool, bytes: Vec<u8> },
    /// The other side has closed the stream.
    Closed { stream: StreamId, to_executor: bool },
    /// An executor's machine is due.
    ExecutorDue { stream: StreamId },
    /// An upstream has come to an end.
    Upstream { stream: StreamId, end: UpstreamEnd },
    /// A tool of the caller's own node has come to an end.
    Local { call: usize, end: UpstreamEnd },
}

/// How a tool ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamEnd {
    /// With a result.
    Result,
    /// Its server broke down in the middle.
    Broken,
    /// It was told to stop, and did.
    Stopped,
}

/// What a node remembers of calls.
pub(crate) struct Desk {
    pub(crate) stats: PeerStats,
    budget: RetryBudget,
    rng: Rng,
    pub(crate) seen: SeenCalls,
    running: u32,
}

/// Where a call may go, in order.
enum Leg {
    Here,
    There(Vec<Target>),
}

/// One call, from its beginning to its outcome.
pub(crate) struct Call {
    pub(crate) source: usize,
    /// Whether its caller had turned on the others: nothing is promised to it.
    pub(crate) hostile: bool,
    pub(crate) caller: usize,
    boot: u32,
    id: CallId,
    pub(crate) began: Moment,
    deadline: comity_protocol::time::Mono,
    legs: VecDeque<Leg>,
    /// The machine of the leg that is under way.
    machine: Option<Caller>,
    stream: Option<StreamId>,
    attempt: Option<(AttemptId, Attempt)>,
    again: bool,
    /// Every time that an honest node began to run it.
    pub(crate) executions: Vec<usize>,
    /// Nodes that were given the request, honest or not.
    pub(crate) handed: Vec<usize>,
    pub(crate) outcome: Option<(Verdict, Moment)>,
    /// Who answered.
    pub(crate) answered_by: Option<usize>,
    /// Whether its caller was told for certain that it did not run.
    pub(crate) said_not_run: bool,
    /// Nodes that have answered with a false receipt.
    pub(crate) tampered: Vec<usize>,
}

/// One call's stream between two nodes.
struct Stream {
    call: usize,
    attempt: AttemptId,
    caller: usize,
    executor: usize,
    executor_boot: u32,
    /// The connection, and the side that calls.
    wire: Option<(ConnectionId, Side)>,
    caller_open: bool,
    executor_open: bool,
    to_executor: FrameDecoder,
    to_caller: FrameDecoder,
    machine: Option<Executor>,
    /// When its executor's machine is due.
    due: Option<Moment>,
    /// Whether it counts as running at its executor.
    counted: bool,
}

/// All calls of a run.
pub(crate) struct Calls {
    pub(crate) list: Vec<Call>,
    streams: BTreeMap<StreamId, Stream>,
    next_stream: StreamId,
    pub(crate) desks: Vec<Option<Desk>>,
    rng: Rng,
    scenario: Arc<Scenario>,
}

impl Calls {
    pub(crate) fn new(scenario: &Arc<Scenario>, nodes: usize, seed: u64) -> Self {
        Self {
            list: Vec::new(),
            streams: BTreeMap::new(),
            next_stream: 0,
            desks: (0..nodes).map(|_| None).collect(),
            rng: Rng::new(seed),
            scenario: scenario.clone(),
        }
    }

    /// A node starts: it remembers nothing of earlier calls.
    pub(crate) fn node_started(&mut self, node: usize, seed: u64, now: Now) {
        self.desks[node] = Some(Desk {
            stats: PeerStats::new(),
            budget: RetryBudget::new(now.mono),
            rng: Rng::new(seed ^ 0x0005_eed0_ca11),
            seen: SeenCalls::new(),
            running: 0,
        });
    }
}

impl World {
    /// Puts the first call of each source and site into the queue.
    pub(crate) fn begin_calls(&mut self) {
        for source in 0..self.scenario.calls.len() {
            for site in self.scenario.calls[source].from.clone() {
                let every = self.scenario.calls[source].every;
                let first = self.scenario.calls[source].start + every.draw(&mut self.calls.rng);
                self.at(Moment::after(first), Event::Call(CallEvent::Begin { source, site }));
            }
        }
    }

    pub(crate) fn on_call(&mut self, event: CallEvent) {
        match event {
            CallEvent::Begin { source, site } => self.begin_call(source, site),
            CallEvent::CallerDue { call } => self.caller_due(call),
            CallEvent::Opened { stream } => self.stream_opened(stream),
            CallEvent::NotOpened { stream } => self.stream_lost_to_caller(stream, "it could not be opened"),
            CallEvent::Frame { stream, to_executor: true, bytes } => self.executor_reads(stream, &bytes),
            CallEvent::Frame { stream, to_executor: false, bytes } => self.caller_reads(stream, &bytes),
            CallEvent::Closed { stream, to_executor: true } => self.stream_lost_to_executor(stream),
            CallEvent::Closed { stream, to_executor: false } => {
                self.stream_lost_to_caller(stream, "the stream ended");
            }
            CallEvent::ExecutorDue { stream } => self.executor_due(stream),
            CallEvent::Upstream { stream, end } => self.upstream_ended(stream, end),
            CallEvent::Local { call, end } => self.local_ended(call, end),
        }
    }

    /// A connection is gone for one side: so are its streams.
    pub(crate) fn streams_of_gone(&mut self, connection: ConnectionId, side: Side) {
        let over =
            |stream: &Stream| stream.wire.filter(|(wire, _)| *wire == connection).map(|(_, side)| side);
        let gone: Vec<_> =
            self.calls.streams.iter().filter_map(|(id, stream)| Some((*id, over(stream)?))).collect();
        for (id, caller_side) in gone {
            if caller_side == side {
                self.stream_lost_to_caller(id, "the connection closed");
            } else {
                self.stream_lost_to_executor(id);
            }
        }
    }

    /// A node has gone down with all its calls.
    pub(crate) fn calls_of_crashed(&mut self, node: usize) {
        self.calls.desks[node] = None;
        for call in 0..self.calls.list.len() {
            let one = &self.calls.list[call];
            if one.caller == node && one.outcome.is_none() {
                self.finish_call(call, Verdict::CallerGone, None);
            }
        }
        let streams = self.calls.streams.iter_mut();
        let mut ended = Vec::new();
        for (id, stream) in streams {
            stream.caller_open &= stream.caller != node;
            if stream.executor == node {
                (stream.executor_open, stream.machine, stream.counted) = (false, None, false);
            }
            if !stream.caller_open && !stream.executor_open {
                ended.push(*id);
            }
        }
        ended.into_iter().for_each(|id| self.end_stream(id));
    }

    /// Forgets a stream that neither side uses.
    fn end_stream(&mut self, id: StreamId) {
        let Some(stream) = self.calls.streams.remove(&id) else { return };
        if let Some((connection, _)) = stream.wire {
            self.forget_lane(connection, crate::world::Lane::Call(id));
            self.unbusy(connection);
        }
    }

    /// The call has its outcome.
    fn finish_call(&mut self, call: usize, verdict: Verdict, answered_by: Option<usize>) {
        let now = self.now;
        let one = &mut self.calls.list[call];
        one.machine = None;
        let again = one.outcome.replace((verdict, now)).is_some();
        one.answered_by = answered_by;
        self.note(|chronicle, now| chronicle.call_ended(call, verdict, answered_by, now));
        self.trace.event(now, 20, call, &[verdict as u8]);
        if self.calls.list[call].hostile {
            return;
        }
        let took = now.since(self.calls.list[call].began);
        self.figures.call_ended(verdict, took);
        self.judge_call(call, again);
    }

    fn call_id(&mut self) -> CallId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.calls.rng.next_u64().to_le_bytes());
        bytes[8..].copy_from_slice(&self.calls.rng.next_u64().to_le_bytes());
        CallId::from_bytes(bytes)
    }

    /// How long a tool takes this time, and how it ends.
    fn draw_upstream(&mut self, call: usize) -> (Duration, UpstreamEnd) {
        let scenario = self.calls.scenario.clone();
        let tool = &scenario.tools[scenario.calls[self.calls.list[call].source].tool];
        let takes = tool.takes.draw(&mut self.calls.rng);
        let broken = tool.breaks.happens(&mut self.calls.rng);
        (takes, if broken { UpstreamEnd::Broken } else { UpstreamEnd::Result })
    }
}
