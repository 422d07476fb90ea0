//! The executing side: the executor's machine, and an upstream that takes as long as the scenario says.

use std::time::Duration;

use comity_protocol::call::executor::Effect;
use comity_protocol::call::{CallerPeer, Desk, ExecutionFailure, Executor, Frame, FrameKind, Receipt};
use comity_protocol::constraints::DataClass;
use comity_protocol::ids::PayloadDigest;
use comity_protocol::testing::mesh;
use comity_protocol::trust::{Role, Unverified, seal};

use super::{ANSWER, CallEvent, RUNNING_MAX, StreamId, UpstreamEnd};
use crate::moment::Moment;
use crate::scenario::Act;
use crate::world::{Event, HOLD_BACK, Lane, World};

/// How long a tool takes to stop when it is told to.
const STOP_MIN: Duration = Duration::from_millis(10);
const STOP_SPREAD_MICROS: usize = 200_000;

impl World {
    pub(super) fn executor_reads(&mut self, stream: StreamId, bytes: &[u8]) {
        let Some(one) = self.calls.streams.get(&stream).filter(|stream| stream.executor_open) else { return };
        let (node, fresh, Some((connection, side))) = (one.executor, one.machine.is_none(), one.wire) else {
            return;
        };
        if self.receive(connection, side.other()) != Some(node) {
            return;
        }
        if fresh && !self.begin_executor(stream) {
            // The caller's welcome is on its way on another stream; the shell holds the call back until then.
            let event = CallEvent::Frame { stream, to_executor: true, bytes: bytes.to_vec() };
            return self.later(HOLD_BACK, Event::Call(event));
        }
        self.trace.event(self.now, 23, node, bytes);
        let mut input = bytes;
        loop {
            let Some(one) = self.calls.streams.get_mut(&stream).filter(|stream| stream.executor_open) else {
                return;
            };
            match one.to_executor.push(&mut input) {
                Ok(Some(frame)) => self.executor_takes(stream, frame),
                Ok(None) => return,
                Err(_) => return self.stream_lost_to_executor(stream),
            }
        }
    }

    /// Makes the machine of a stream that has just arrived; `false` when the peer is not admitted here yet.
    fn begin_executor(&mut self, stream: StreamId) -> bool {
        let Some(one) = self.calls.streams.get(&stream) else { return true };
        let Some((connection, side)) = one.wire else { return true };
        let Some(wire) = self.wires.get(&connection) else { return true };
        let Some((org, roles)) = wire.end(side.other()).admitted.clone() else { return false };
        let node = one.executor;
        let peer =
            CallerPeer { node: self.federation.id(one.caller), org, is_client: roles.has(Role::Client) };
        let key = self.federation.members[node].node.key.clone();
        let machine = Executor::new(mesh(), key, peer, self.local(node));
        if let Some(one) = self.calls.streams.get_mut(&stream) {
            one.machine = Some(machine);
        }
        true
    }

    fn executor_takes(&mut self, stream: StreamId, frame: Frame) {
        let Some(one) = self.calls.streams.get(&stream) else { return };
        let (node, call) = (one.executor, one.call);
        if frame.kind() == FrameKind::Body {
            self.note(|chronicle, now| chronicle.call_handed(call, node, now));
            self.judge_hand_over(call, node);
        }
        let now = self.local(node);
        let constraints = &self.scenario.calls[self.calls.list[call].source].constraints;
        let site = self.told_site(self.federation.facts(node, DataClass::Restricted), constraints);
        let federation = &self.federation;
        let offer = |capability: &_| federation.local_offer(node, capability);
        let Some(desk) = &mut self.calls.desks[node] else { return };
        let has_room = desk.running < RUNNING_MAX;
        let mut desk = Desk { site: &site, offer: &offer, seen: &mut desk.seen, is_executor: true, has_room };
        if let Some(machine) = self.calls.streams.get_mut(&stream).and_then(|one| one.machine.as_mut()) {
            machine.handle_frame(frame, &mut desk, now);
        }
        self.drain_executor(stream);
    }

    fn feed_executor(&mut self, stream: StreamId, feed: impl FnOnce(&mut Executor)) {
        let Some(one) = self.calls.streams.get_mut(&stream).filter(|stream| stream.executor_open) else {
            return;
        };
        if !(self.nodes[one.executor].mesh.is_some() && self.nodes[one.executor].boot == one.executor_boot) {
            return;
        }
        if let Some(machine) = one.machine.as_mut() {
            feed(machine);
            self.drain_executor(stream);
        }
    }

    fn drain_executor(&mut self, stream: StreamId) {
        while let Some(effect) =
            self.calls.streams.get_mut(&stream).and_then(|one| one.machine.as_mut()?.poll_effect())
        {
            match effect {
                Effect::Send(frame) => self.executor_writes(stream, frame),
                Effect::StartUpstream { body } => self.start_upstream(stream, &body),
                Effect::ToUpstream(_) => {}
                Effect::CancelUpstream { .. } => self.cancel_upstream(stream),
                Effect::Close { .. } => self.close_executor(stream),
            }
        }
        let Some(one) = self.calls.streams.get(&stream) else { return };
        let Some(due) = one.machine.as_ref().and_then(Executor::poll_timeout) else { return };
        let due: Moment = self.nodes[one.executor].clock.when(due);
        if one.due != Some(due) {
            if let Some(one) = self.calls.streams.get_mut(&stream) {
                one.due = Some(due);
            }
            self.at(due, Event::Call(CallEvent::ExecutorDue { stream }));
        }
    }

    pub(super) fn executor_due(&mut self, stream: StreamId) {
        let Some(node) = self.calls.streams.get(&stream).map(|one| one.executor) else { return };
        let now = self.local(node);
        self.feed_executor(stream, |machine| machine.handle_timeout(now));
    }

    fn executor_writes(&mut self, stream: StreamId, frame: Frame) {
        let Some(one) = self.calls.streams.get(&stream) else { return };
        let (node, wire, call) = (one.executor, one.wire, one.call);
        let frame = match frame {
            Frame::Receipt(bytes) if self.does(node, Act::TamperReceipt) => {
                self.calls.list[call].tampered.push(node);
                Frame::Receipt(self.tamper(node, bytes))
            }
            frame => frame,
        };
        let (Some((connection, side)), Ok(bytes)) = (wire, frame.to_vec()) else { return };
        let length = bytes.len();
        let event = Event::Call(CallEvent::Frame { stream, to_executor: false, bytes });
        self.transmit(connection, side, Lane::Call(stream), length, event);
    }

    /// A receipt that is not true: of other bytes, of another request or answer, or for another caller.
    fn tamper(&mut self, node: usize, mut bytes: Vec<u8>) -> Vec<u8> {
        let Ok(receipt) = Unverified::<Receipt>::decode(&bytes) else { return bytes };
        let mut receipt = receipt.claimed().clone();
        match self.rng.below(4) {
            0 => {
                let at = self.rng.below(bytes.len());
                bytes[at] ^= 1;
                return bytes;
            }
            1 => receipt.request = PayloadDigest::of(b"another request"),
            2 => receipt.answer = Some(PayloadDigest::of(b"another answer")),
            _ => receipt.caller = self.federation.id(node),
        }
        seal(receipt, &self.federation.members[node].node.key, Some(&mesh())).bytes().to_vec()
    }

    fn start_upstream(&mut self, stream: StreamId, body: &[u8]) {
        let Some(one) = self.calls.streams.get_mut(&stream) else { return };
        one.counted = true;
        let (call, node) = (one.call, one.executor);
        if let Some(desk) = &mut self.calls.desks[node] {
            desk.running += 1;
        }
        self.trace.event(self.now, 24, node, body);
        self.note(|chronicle, now| chronicle.call_ran(call, node, now));
        self.judge_execution(call, node);
        if self.does(node, Act::NeverAnswer) {
            return;
        }
        let (takes, end) = self.draw_upstream(call);
        self.later(takes, Event::Call(CallEvent::Upstream { stream, end }));
    }

    /// Every second tool stops when it is told to; the others go on, and their answer comes too late.
    fn cancel_upstream(&mut self, stream: StreamId) {
        if self.calls.rng.below(2) == 0 {
            let spread = Duration::from_micros(self.calls.rng.below(STOP_SPREAD_MICROS) as u64);
            let event = CallEvent::Upstream { stream, end: UpstreamEnd::Stopped };
            self.later(STOP_MIN + spread, Event::Call(event));
        }
    }

    pub(super) fn upstream_ended(&mut self, stream: StreamId, end: UpstreamEnd) {
        let Some(node) = self.calls.streams.get(&stream).map(|one| one.executor) else { return };
        let now = self.local(node);
        self.feed_executor(stream, |machine| match end {
            UpstreamEnd::Result => machine.handle_upstream_result(ANSWER.to_vec(), now),
            UpstreamEnd::Broken => machine.handle_upstream_failed(
                &ExecutionFailure::new("upstream_died", "the server broke down", true),
                now,
            ),
            UpstreamEnd::Stopped => machine.handle_upstream_failed(
                &ExecutionFailure::new("cancelled", "it was told to stop", true),
                now,
            ),
        });
    }

    pub(super) fn stream_lost_to_executor(&mut self, stream: StreamId) {
        let Some(one) = self.calls.streams.get(&stream).filter(|stream| stream.executor_open) else { return };
        let node = one.executor;
        if one.machine.is_none() {
            return self.close_executor(stream);
        }
        let now = self.local(node);
        self.feed_executor(stream, |machine| machine.handle_lost(now));
    }

    fn close_executor(&mut self, stream: StreamId) {
        let Some(one) = self.calls.streams.get_mut(&stream) else { return };
        one.executor_open = false;
        let (node, wire, caller_open) = (one.executor, one.wire, one.caller_open);
        if core::mem::take(&mut one.counted)
            && let Some(desk) = &mut self.calls.desks[node]
        {
            desk.running = desk.running.saturating_sub(1);
        }
        if !caller_open {
            return self.end_stream(stream);
        }
        if let Some((connection, side)) = wire {
            let event = Event::Call(CallEvent::Closed { stream, to_executor: false });
            self.transmit(connection, side, Lane::Call(stream), 0, event);
        }
    }
}
