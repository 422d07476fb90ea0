//! The calling side: candidates out of the directory, the route, and the caller's machine.

use comity_protocol::advert::Offer;
use comity_protocol::approval::Judgement;
use comity_protocol::call::caller::Effect;
use comity_protocol::call::frame::{FrameKind, prefix};
use comity_protocol::call::{
    Answer, AttemptId, CallFailure, CallOutcome, CallPlan, Caller, FrameDecoder, HeaderParts, Principal,
    Target,
};
use comity_protocol::constraints::{CertificationSet, TrustLevel};
use comity_protocol::ids::{NodeId, PayloadDigest};
use comity_protocol::mesh::directory::Entry;
use comity_protocol::mesh::{ConnectionId, Mesh};
use comity_protocol::route::{self, Candidate, Health, Reach, Route, RouteRequest, Standing};
use comity_protocol::testing::mesh;
use comity_protocol::time::{Mono, Wall};

use super::{BODY, Call, CallEvent, Leg, Stream, StreamId, UpstreamEnd};
use crate::moment::Moment;
use crate::sabotage::Sabotage;
use crate::scenario::{SiteId, Verdict};
use crate::world::{Event, Lane, Opening, Side, World};

/// What stands for a call in front of a machine that would rather have none: after the last leg nothing was tried.
const NOTHING_LEFT: Verdict = Verdict::Unreachable;

impl World {
    /// A site makes a call, from a node of it that runs, and the next one is put into the queue.
    pub(super) fn begin_call(&mut self, source: usize, site: SiteId) {
        let every = self.scenario.calls[source].every.draw(&mut self.calls.rng);
        self.later(every, Event::Call(CallEvent::Begin { source, site }));
        let here: Vec<usize> = (0..self.nodes.len())
            .filter(|at| self.federation.members[*at].site == site && self.is_honest(*at))
            .collect();
        let Some(caller) = self.calls.rng.pick(&here).copied() else { return };
        let call = self.new_call(source, caller, false);
        self.trace.event(self.now, 21, caller, &[]);
        self.route(call);
    }

    fn new_call(&mut self, source: usize, caller: usize, hostile: bool) -> usize {
        let call = Call {
            source,
            hostile,
            caller,
            boot: self.nodes[caller].boot,
            id: self.call_id(),
            began: self.now,
            deadline: self.local(caller).mono + self.scenario.calls[source].deadline,
            legs: Default::default(),
            machine: None,
            stream: None,
            attempt: None,
            again: false,
            executions: Vec::new(),
            handed: Vec::new(),
            outcome: None,
            answered_by: None,
            said_not_run: false,
            tampered: Vec::new(),
        };
        self.calls.list.push(call);
        let call = self.calls.list.len() - 1;
        let scenario = self.scenario.clone();
        let name = &scenario.calls[source].name;
        self.note(|chronicle, now| chronicle.call_began(call, name, caller, now));
        call
    }

    /// A hostile node calls somebody who offers a tool and may not run it for that call, as if nobody had told it.
    pub(crate) fn call_unlawfully(&mut self, node: usize) {
        if self.scenario.calls.is_empty() {
            return;
        }
        let source = self.calls.rng.below(self.scenario.calls.len());
        let tool = &self.scenario.tools[self.scenario.calls[source].tool];
        let offering = (0..self.nodes.len())
            .filter(|at| *at != node && tool.sites.contains(&self.federation.members[*at].site));
        let offering: Vec<usize> = offering.collect();
        let call = self.new_call(source, node, true);
        let forbidden: Vec<usize> = offering.into_iter().filter(|at| !self.may_run(call, *at)).collect();
        let Some(victim) = self.calls.rng.pick(&forbidden).copied() else {
            return self.finish_call(call, Verdict::Denied, None);
        };
        self.trace.event(self.now, 25, node, &(victim as u64).to_le_bytes());
        let site =
            self.federation.facts(victim, self.scenario.tools[self.scenario.calls[source].tool].class_max);
        let target = Target {
            node: site.node,
            org: site.org,
            name: self.federation.members[victim].name.as_str().into(),
            connected: self.admitted_wire(node, victim).is_some(),
        };
        self.run_there(call, vec![target]);
    }

    fn request(&self, call: usize) -> RouteRequest {
        let one = &self.calls.list[call];
        self.federation.request(one.source, one.caller)
    }

    fn route(&mut self, call: usize) {
        let caller = self.calls.list[call].caller;
        let request = self.request(call);
        let candidates = self.candidates(caller, &request);
        let now = self.local(caller);
        let Some(desk) = &mut self.calls.desks[caller] else { return };
        desk.budget.deposit();
        let route = route::decide(&request, &candidates, &desk.stats, now, &mut desk.rng);
        let (verdict, legs) = (route.verdict(), legs(&route));
        self.judge_route(call, &route);
        match verdict {
            route::Verdict::Routable => {
                self.calls.list[call].legs = legs;
                self.next_leg(call);
            }
            route::Verdict::NobodyOffers => self.finish_call(call, Verdict::Unknown, None),
            route::Verdict::Unreachable => self.finish_call(call, Verdict::Unreachable, None),
            route::Verdict::Unapproved | route::Verdict::Denied => {
                self.finish_call(call, Verdict::Denied, None);
            }
        }
    }

    /// Everybody who offers the tool, as the caller's directory has it: the shell's `world::gather`.
    fn candidates(&self, caller: usize, request: &RouteRequest) -> Vec<Candidate> {
        let Some(mesh) = &self.nodes[caller].mesh else { return Vec::new() };
        let me = self.federation.id(caller);
        let own = self.federation.local_offer(caller, &request.capability).map(|offer| {
            let site = self.federation.facts(caller, offer.class_max);
            Candidate {
                site,
                name: self.federation.members[caller].name.as_str().into(),
                executor: true,
                contract: offer.contract,
                approval: Judgement::Approved,
                reach: Reach::Local,
                same_region: true,
                expires: Wall::from_millis(u64::MAX),
            }
        });
        let others = mesh.directory().iter().filter(|(node, _)| **node != me);
        own.into_iter()
            .chain(others.flat_map(|(node, entry)| self.peer_candidates(caller, mesh, node, entry, request)))
            .collect()
    }

    fn peer_candidates(
        &self,
        caller: usize,
        mesh: &Mesh,
        node: &NodeId,
        entry: &Entry,
        request: &RouteRequest,
    ) -> Vec<Candidate> {
        let advert = entry.advert();
        let own_org = entry.org() == mesh.org();
        let sets = [advert.offers, advert.org_offers.filter(|_| own_org)];
        let wanted = |offer: &&Offer| {
            offer.server == request.capability.server
                && offer.name == request.capability.name
                && mesh.blobs().get(&offer.descriptor).is_some()
        };
        let sets = sets.iter().flatten().filter_map(|digest| mesh.blobs().set(digest));
        let offers = sets.flat_map(|set| set.offers()).filter(wanted);
        let standing = |reach| Standing {
            trust: TrustLevel::T1,
            approval: Judgement::Approved,
            reach,
            same_region: false,
            certifications: CertificationSet::default(),
        };
        let reach = self.reach(caller, node, entry);
        offers.map(|offer| Candidate::from_directory(&entry.trusted, offer, standing(reach))).collect()
    }

    fn reach(&self, caller: usize, node: &NodeId, entry: &Entry) -> Reach {
        let linked = self.federation.find(node).and_then(|peer| self.admitted_wire(caller, peer)).is_some();
        if linked {
            Reach::Connected
        } else if entry.advert().addresses.is_empty() || entry.advert().leaving {
            Reach::Unreachable
        } else if entry.suspected {
            Reach::Suspected
        } else {
            Reach::Known
        }
    }

    fn next_leg(&mut self, call: usize) {
        match self.calls.list[call].legs.pop_front() {
            Some(Leg::Here) => self.run_here(call),
            Some(Leg::There(targets)) => self.run_there(call, targets),
            None => self.finish_call(call, NOTHING_LEFT, None),
        }
    }

    fn run_here(&mut self, call: usize) {
        let caller = self.calls.list[call].caller;
        self.note(|chronicle, now| chronicle.call_ran(call, caller, now));
        self.judge_execution(call, caller);
        let (takes, end) = self.draw_upstream(call);
        self.later(takes, Event::Call(CallEvent::Local { call, end }));
    }

    pub(super) fn local_ended(&mut self, call: usize, end: UpstreamEnd) {
        let one = &self.calls.list[call];
        if one.outcome.is_some() {
            return;
        }
        let (caller, late) = (one.caller, self.local(one.caller).mono >= one.deadline);
        let verdict = match end {
            _ if late => Verdict::Timeout,
            UpstreamEnd::Result => Verdict::Answered,
            UpstreamEnd::Broken | UpstreamEnd::Stopped => Verdict::InDoubt,
        };
        self.finish_call(call, verdict, Some(caller));
    }

    fn run_there(&mut self, call: usize, targets: Vec<Target>) {
        let one = &self.calls.list[call];
        let (caller, now) = (one.caller, self.local(one.caller));
        let calls = &self.scenario.calls[one.source];
        let tool = &self.scenario.tools[calls.tool];
        let request = self.request(call);
        let member = &self.federation.members[caller];
        let plan = CallPlan {
            mesh: mesh(),
            parts: HeaderParts {
                call: one.id,
                capability: request.capability.clone(),
                contract: request.contract,
                method: "tools/call".into(),
                constraints: request.constraints.clone(),
                principal: Principal {
                    org: request.capability.org,
                    node: member.node.id,
                    node_name: member.name.clone(),
                    name: "simnet".into(),
                },
                request: PayloadDigest::of(BODY),
                request_bytes: u32::try_from(BODY.len()).unwrap_or(u32::MAX),
                trace: None,
                hops: 1,
            },
            vouched: tool.repeatable || self.is_sabotaged(Sabotage::ResendsAfterHandOver),
            deadline: one.deadline,
        };
        match Caller::new(plan, targets, now) {
            Ok(machine) => {
                self.calls.list[call].machine = Some(machine);
                self.drain_caller(call);
            }
            Err(_) => self.finish_call(call, Verdict::Denied, None),
        }
    }

    fn feed_caller(&mut self, call: usize, feed: impl FnOnce(&mut Caller)) {
        let one = &mut self.calls.list[call];
        if self.nodes[one.caller].boot != one.boot || self.nodes[one.caller].mesh.is_none() {
            return;
        }
        let Some(machine) = one.machine.as_mut() else { return };
        feed(machine);
        self.drain_caller(call);
    }

    fn drain_caller(&mut self, call: usize) {
        while let Some(effect) = self.calls.list[call].machine.as_mut().and_then(Caller::poll_effect) {
            self.carry_out_call(call, effect);
        }
        let one = &self.calls.list[call];
        let due = one.machine.as_ref().and_then(Caller::poll_timeout);
        if let Some(due) = due {
            let due = self.nodes[one.caller].clock.when(due);
            self.at(due, Event::Call(CallEvent::CallerDue { call }));
        }
    }

    pub(super) fn caller_due(&mut self, call: usize) {
        let one = &self.calls.list[call];
        let now = self.local(one.caller);
        let due = one.machine.as_ref().and_then(Caller::poll_timeout);
        if due.is_some_and(|due| due <= now.mono) {
            self.feed_caller(call, |machine| machine.handle_timeout(now));
        }
    }

    fn carry_out_call(&mut self, call: usize, effect: Effect) {
        match effect {
            Effect::Open { attempt, node, retry } => self.open_stream(call, attempt, node, retry),
            Effect::Send { attempt, frame } => {
                if let Ok(bytes) = frame.to_vec() {
                    self.caller_writes(call, attempt, bytes);
                }
            }
            Effect::SendBody { attempt } => {
                if let Ok(head) = prefix(FrameKind::Body, BODY.len()) {
                    self.caller_writes(call, attempt, [&head[..], BODY].concat());
                }
            }
            Effect::Close { attempt, health, .. } => self.close_stream(call, attempt, health),
            Effect::Deliver(_) => {}
            Effect::Finish(outcome) => self.caller_finished(call, *outcome),
        }
    }

    fn open_stream(&mut self, call: usize, attempt: AttemptId, node: NodeId, retry: bool) {
        let one = &mut self.calls.list[call];
        let (caller, id) = (one.caller, one.id);
        let retry = retry || core::mem::take(&mut one.again);
        let now = self.local(caller);
        let capability = self.request(call).capability;
        let Some(desk) = &mut self.calls.desks[caller] else { return };
        if retry && !desk.budget.withdraw(now.mono) {
            if let Some(machine) = &mut self.calls.list[call].machine {
                machine.handle_no_budget(attempt);
            }
            return;
        }
        let begun = desk.stats.begin(node, &capability, id, now.mono);
        let stream = self.new_stream(call, attempt, caller, node);
        let one = &mut self.calls.list[call];
        one.attempt = Some((attempt, begun));
        one.stream = Some(stream);
        let directory = self.nodes[caller].mesh.as_ref().map(Mesh::directory);
        let entry = directory.and_then(|directory| directory.get(&node));
        let addresses = entry.map(|entry| entry.advert().addresses.clone()).unwrap_or_default();
        self.open(caller, node, addresses, Opening::Call(stream));
    }

    fn new_stream(&mut self, call: usize, attempt: AttemptId, caller: usize, node: NodeId) -> StreamId {
        let executor = self.federation.find(&node).unwrap_or(caller);
        self.calls.next_stream += 1;
        let stream = Stream {
            call,
            attempt,
            caller,
            executor,
            executor_boot: 0,
            wire: None,
            caller_open: true,
            executor_open: false,
            to_executor: FrameDecoder::new(),
            to_caller: FrameDecoder::new(),
            machine: None,
            due: None,
            counted: false,
        };
        self.calls.streams.insert(self.calls.next_stream, stream);
        self.calls.next_stream
    }

    /// The connection for a stream stands.
    pub(crate) fn call_opened(
        &mut self,
        _node: usize,
        connection: ConnectionId,
        side: Side,
        stream: StreamId,
    ) {
        let executor_boot =
            self.calls.streams.get(&stream).map_or(0, |stream| self.nodes[stream.executor].boot);
        let Some(one) = self.calls.streams.get_mut(&stream).filter(|stream| stream.caller_open) else {
            return;
        };
        one.wire = Some((connection, side));
        one.executor_boot = executor_boot;
        one.executor_open = true;
        if let Some(wire) = self.wires.get_mut(&connection) {
            wire.busy += 1;
        }
        self.at(self.now, Event::Call(CallEvent::Opened { stream }));
    }

    /// There will be no connection for a stream.
    pub(crate) fn call_not_opened(&mut self, stream: StreamId) {
        self.at(self.now, Event::Call(CallEvent::NotOpened { stream }));
    }

    pub(super) fn stream_opened(&mut self, stream: StreamId) {
        let Some(one) = self.calls.streams.get(&stream).filter(|stream| stream.caller_open) else { return };
        let (call, attempt, caller) = (one.call, one.attempt, one.caller);
        let heard =
            one.wire.and_then(|(connection, side)| Some(self.wires.get(&connection)?.end(side).heard));
        let heard = heard.map(|heard: Moment| -> Mono { self.nodes[caller].clock.now(heard).mono });
        let now = self.local(caller);
        self.feed_caller(call, |machine| machine.handle_opened(attempt, heard, now));
    }

    fn caller_writes(&mut self, call: usize, attempt: AttemptId, bytes: Vec<u8>) {
        let Some(stream) = self.calls.list[call].stream else { return };
        let Some(one) = self.calls.streams.get(&stream).filter(|one| one.attempt == attempt) else { return };
        if let Some((connection, side)) = one.wire {
            let length = bytes.len();
            let event = Event::Call(CallEvent::Frame { stream, to_executor: true, bytes });
            self.transmit(connection, side.other(), Lane::Call(stream), length, event);
        }
    }

    pub(super) fn caller_reads(&mut self, stream: StreamId, bytes: &[u8]) {
        let Some(one) = self.calls.streams.get(&stream).filter(|stream| stream.caller_open) else { return };
        let (call, attempt, caller) = (one.call, one.attempt, one.caller);
        if let Some((connection, side)) = one.wire
            && self.receive(connection, side).is_none()
        {
            return;
        }
        self.trace.event(self.now, 22, caller, bytes);
        let now = self.local(caller);
        let mut input = bytes;
        loop {
            let Some(one) = self.calls.streams.get_mut(&stream).filter(|stream| stream.caller_open) else {
                return;
            };
            match one.to_caller.push(&mut input) {
                Ok(Some(frame)) => {
                    self.feed_caller(call, |machine| machine.handle_frame(attempt, frame, now));
                }
                Ok(None) => return,
                Err(error) => {
                    let detail = error.to_string();
                    return self.feed_caller(call, |machine| machine.handle_lost(attempt, detail, now));
                }
            }
        }
    }

    pub(super) fn stream_lost_to_caller(&mut self, stream: StreamId, why: &str) {
        let Some(one) = self.calls.streams.get_mut(&stream).filter(|stream| stream.caller_open) else {
            return;
        };
        one.caller_open = false;
        let (call, attempt, caller, over) = (one.call, one.attempt, one.caller, !one.executor_open);
        if over {
            self.end_stream(stream);
        }
        let now = self.local(caller);
        self.feed_caller(call, |machine| machine.handle_lost(attempt, why.to_owned(), now));
    }

    /// The caller is done with an attempt: its peer hears of it after all that was sent.
    fn close_stream(&mut self, call: usize, attempt: AttemptId, health: Health) {
        let one = &mut self.calls.list[call];
        let (caller, stream) = (one.caller, one.stream.take());
        let begun = one.attempt.take_if(|(begun, _)| *begun == attempt);
        let now = self.local(caller);
        if let (Some((_, begun)), Some(desk)) = (begun, &mut self.calls.desks[caller]) {
            desk.stats.finish(begun, health, now.mono);
        }
        let Some(stream) = stream else { return };
        let Some(one) = self.calls.streams.get_mut(&stream) else { return };
        one.caller_open = false;
        let (wire, over) = (one.wire, !one.executor_open);
        if over {
            self.end_stream(stream);
        } else if let Some((connection, side)) = wire {
            let event = Event::Call(CallEvent::Closed { stream, to_executor: true });
            self.transmit(connection, side.other(), Lane::Call(stream), 0, event);
        }
    }

    fn caller_finished(&mut self, call: usize, outcome: CallOutcome) {
        match outcome {
            CallOutcome::Answered { executor, answer, receipt } => {
                let by = self.federation.find(&executor.node);
                self.judge_receipt(call, by, receipt.is_ok());
                let verdict = match (answer, receipt.is_ok()) {
                    (Answer::Failed(_), _) => Verdict::InDoubt,
                    (Answer::Result(_) | Answer::Error(_), true) => Verdict::Answered,
                    (Answer::Result(_) | Answer::Error(_), false) => Verdict::Unproved,
                };
                self.finish_call(call, verdict, by);
            }
            CallOutcome::Failed(CallFailure::Exhausted { .. }) => {
                self.calls.list[call].machine = None;
                self.calls.list[call].again = true;
                self.next_leg(call);
            }
            CallOutcome::Failed(CallFailure::InDoubt { executor, .. }) => {
                let by = self.federation.find(&executor.node);
                self.finish_call(call, Verdict::InDoubt, by);
            }
            CallOutcome::Failed(
                CallFailure::Timeout { handed_over } | CallFailure::Cancelled { handed_over },
            ) => {
                self.judge_denial_of_execution(call, handed_over);
                self.finish_call(call, Verdict::Timeout, None);
            }
        }
    }
}

/// The ranked candidates, cut where this node itself stands among them.
fn legs(route: &Route<'_>) -> std::collections::VecDeque<Leg> {
    let mut legs = std::collections::VecDeque::new();
    for candidate in &route.ranked {
        match (legs.back_mut(), candidate.reach) {
            (_, Reach::Local) => legs.push_back(Leg::Here),
            (Some(Leg::There(targets)), _) => targets.push(Target::from(*candidate)),
            _ => legs.push_back(Leg::There(vec![Target::from(*candidate)])),
        }
    }
    legs
}
