//! The executor's machine over a stream: a peer's call, decided anew and run at a server here.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use comity_protocol::call::executor::{Effect, HEADER_WAIT};
use comity_protocol::call::methods::SUBSCRIBE;
use comity_protocol::call::{
    CallHeader, CallerPeer, Desk, Executor, Frame, LocalOffer, STREAM_IDLE_MAX, SeenCalls, Visibility,
};
use comity_protocol::ids::CapabilityId;
use comity_protocol::json;
use comity_protocol::jsonrpc::{Limits, Message, codes};
use comity_protocol::time::Now;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, Span, debug, info, info_span};

use super::answer::{raw, to_execution_failure};
use super::follow;
use super::outgoing::hex;
use super::rename::checked;
use super::rounds::{self, Rounds};
use super::stream::{FrameReader, FrameWriter, StreamError, split};
use super::tasks::{self, TaskRef};
use super::{Calls, InFlight, counted_as, failed, faults};
use crate::config::servers::Share;
use crate::exchange::{Exchange, Failure, Incoming, Outcome, Outgoing};
use crate::mesh::IncomingCall;
use crate::metrics::Hop;
use crate::upstream::{CallOptions, VerifiedCaller};
use crate::world::gather::{Me, own_site};

/// How long the last bytes of a call may take, and the caller to leave, where its deadline is nearer.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long an accepted call whose body is here already may keep its `Accept` back, to send it with what comes next. Most
/// answers come sooner, and a packet and a waking at the caller are saved.
const ACCEPT_HOLD: Duration = Duration::from_millis(5);

impl Calls {
    /// Serves a stream that a peer has opened, in a task of its own: one call after another, until either side lets the
    /// stream go. Streams beyond `STREAMS_MAX` are reset.
    pub fn serve(self: &Arc<Self>, incoming: IncomingCall) {
        let Ok(room) = self.streams.clone().try_acquire_owned() else {
            return debug!(peer = %incoming.peer, "cut off a peer's stream: too many are open already");
        };
        let calls = self.clone();
        self.serving.spawn(async move {
            let _room = room;
            serve(&calls, incoming).await;
        });
    }

    /// Takes up a call of a peer. Beyond the bound the peer is told at once, and beyond `REFUSING_MAX` of those its stream
    /// is reset, which it takes the same way: it tries elsewhere.
    fn take_turn(&self) -> Option<Turn> {
        let counted = InFlight::begin(&self.parts.metrics);
        if let Ok(permit) = self.incoming.clone().try_acquire_owned() {
            let tracked = Some(self.tasks.token());
            return Some(Turn { has_room: true, _permit: permit, _tracked: tracked, _counted: counted });
        }
        let permit = self.refusing.clone().try_acquire_owned().ok()?;
        Some(Turn { has_room: false, _permit: permit, _tracked: None, _counted: counted })
    }

    /// What this node offers under `capability` to others now.
    fn local_offer(&self, capability: &CapabilityId) -> Option<LocalOffer> {
        let config = self.parts.config.borrow();
        let server = config.servers.get(&capability.server)?;
        let visibility = match server.share {
            Share::Local => return None,
            Share::Org => Visibility::Org,
            Share::Federation => Visibility::Federation,
        };
        let me = self.me();
        let world = self.parts.world.load();
        let own = world
            .items_under(capability)
            .iter()
            .find_map(|item| item.candidates.iter().find(|candidate| candidate.site.node == me.node))?;
        Some(LocalOffer { contract: own.contract, class_max: server.class_max, visibility })
    }
}

/// One call of a peer, counted until it ends.
struct Turn {
    /// Whether it is to run, and not only to be refused.
    has_room: bool,
    /// Its place among the calls or, of a subscription, among those.
    _permit: OwnedSemaphorePermit,
    /// What this node waits for when it stops. What is only refused ends soon by itself.
    _tracked: Option<TaskTrackerToken>,
    _counted: InFlight,
}

/// A stream between two calls.
struct Line {
    reader: FrameReader,
    writer: FrameWriter,
}

async fn serve(calls: &Calls, incoming: IncomingCall) {
    let connection = incoming.stream.connection().clone();
    let peer = CallerPeer { node: incoming.peer, org: incoming.org, is_client: incoming.is_client };
    let (reader, writer) = split(incoming.stream);
    let (mut line, mut patience) = (Line { reader, writer }, HEADER_WAIT);
    while let Ok(Ok(())) = timeout(patience, line.reader.readable()).await {
        let _work = connection.work();
        let Some(turn) = calls.take_turn() else {
            return debug!(peer = %peer.node, "cut off a peer's call: too many are being refused already");
        };
        let span = info_span!("serve", peer = %peer.node, org = %peer.org, call_id = tracing::field::Empty,
            capability = tracing::field::Empty, principal = tracing::field::Empty, trace_id = tracing::field::Empty);
        match serve_one(calls, peer.clone(), line, turn).instrument(span).await {
            Some(idle) => line = idle,
            None => return,
        }
        patience = STREAM_IDLE_MAX;
    }
}

/// Serves one call; the stream, if it may carry another.
async fn serve_one(calls: &Calls, peer: CallerPeer, mut line: Line, turn: Turn) -> Option<Line> {
    line.reader.header_first();
    let now = calls.parts.clock.now();
    let driver = Driver {
        calls,
        me: calls.me(),
        machine: Executor::new(calls.parts.mesh_name.clone(), calls.parts.key.clone(), peer.clone(), now),
        peer,
        reader: Some(line.reader),
        writer: Some(line.writer),
        exchange: None,
        rounds: None,
        task: None,
        unsaid: None,
        timer: Box::pin(sleep_until(Instant::now())),
        accept_by: None,
        turn,
        began: now,
    };
    driver.drive().await
}

struct Driver<'a> {
    calls: &'a Calls,
    me: Me,
    peer: CallerPeer,
    machine: Executor,
    reader: Option<FrameReader>,
    writer: Option<FrameWriter>,
    exchange: Option<Exchange>,
    /// What it takes to make the call again, where its server may ask for that.
    rounds: Option<Box<Rounds>>,
    /// The task that the call follows up, as the caller knows it.
    task: Option<String>,
    /// What the caller says and the server has no room for. While there is some nothing more is read of the caller.
    unsaid: Option<Message>,
    timer: Pin<Box<Sleep>>,
    /// Set while nothing but `Accept` waits to be written: when it is to go at the latest.
    accept_by: Option<Instant>,
    turn: Turn,
    began: Now,
}

enum Happened {
    Frame(Result<Frame, StreamError>),
    Written(std::io::Result<()>),
    Upstream(Incoming),
    /// The server has taken what waited for it, or never will.
    Said,
    /// This node stops.
    Stopping,
    Timeout,
}

impl Driver<'_> {
    async fn drive(mut self) -> Option<Line> {
        loop {
            if let Some(again) = self.carry_out() {
                return match again {
                    true => self.rest().await,
                    false => {
                        self.end().await;
                        None
                    }
                };
            }
            let happened = match self.arrived() {
                Some(frame) => Happened::Frame(frame),
                None => self.wait().await,
            };
            self.tell(happened);
        }
    }

    /// What has come already is taken in before anything is written, so that what it brings about is written with it.
    fn arrived(&mut self) -> Option<Result<Frame, StreamError>> {
        match (&mut self.reader, &self.unsaid) {
            (Some(reader), None) => reader.arrived().transpose(),
            _ => None,
        }
    }

    /// Writes what waits, the answer and its receipt among it, and keeps the stream for the next call.
    async fn rest(mut self) -> Option<Line> {
        self.exchange = None;
        let (mut reader, mut writer) = (self.reader.take()?, self.writer.take()?);
        if !in_time(self.patience(), writer.drive()).await {
            return None;
        }
        reader.rest();
        Some(Line { reader, writer })
    }

    /// Writes what waits and ends the stream.
    async fn end(mut self) {
        self.exchange = None;
        let Some(writer) = self.writer.take() else { return };
        if !in_time(self.patience(), writer.finish()).await {
            return;
        }
        // The caller reads to the end before it lets go; leaving first would cut the answer off.
        if let Some(mut reader) = self.reader.take() {
            let left = async { while reader.next().await.is_ok() {} };
            let _ = timeout(FAREWELL, left).await;
        }
    }

    /// A large answer over a slow line takes its time: the caller reads on for as long as it waits at all.
    fn patience(&self) -> Duration {
        self.machine.deadline().since(self.calls.parts.clock.mono()).max(FAREWELL)
    }

    async fn wait(&mut self) -> Happened {
        if self.exchange.is_none() {
            // The caller waits for the word before it sends the body.
            self.accept_by = None;
        }
        self.set_timer();
        let held = self.accept_by.is_some();
        let writing = !held && self.writer.as_ref().is_some_and(|writer| !writer.is_idle());
        let has_room = self.writer.as_ref().is_none_or(FrameWriter::has_room);
        let (running, full) = (self.exchange.is_some(), self.unsaid.is_some());
        let server = self.exchange.as_ref().filter(|_| full).map(|exchange| exchange.outgoing.clone());
        tokio::select! {
            biased;
            result = drive(&mut self.writer), if writing => Happened::Written(result),
            () = pass_on(server, &mut self.unsaid), if full => Happened::Said,
            frame = next_frame(&mut self.reader), if !full => Happened::Frame(frame),
            incoming = next_incoming(&mut self.exchange), if running && has_room => Happened::Upstream(incoming),
            () = self.calls.stopping.cancelled(), if self.lasts() => Happened::Stopping,
            () = &mut self.timer => Happened::Timeout,
        }
    }

    /// Whether it is a subscription under way, which ends when this node stops.
    fn lasts(&self) -> bool {
        self.exchange.is_some() && self.machine.header().is_some_and(|header| header.method == SUBSCRIBE)
    }

    fn set_timer(&mut self) {
        let Some(at) = self.machine.poll_timeout() else { return };
        let at = self.calls.parts.clock.instant(at);
        let at = self.accept_by.map_or(at, |accept_by| at.min(accept_by));
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
    }

    fn tell(&mut self, happened: Happened) {
        let now = self.calls.parts.clock.now();
        match happened {
            Happened::Frame(Ok(frame)) => self.handle_frame(frame, now),
            Happened::Frame(Err(error)) => {
                debug!(%error, "the call's stream ended");
                self.reader = None;
                self.machine.handle_lost(now);
            }
            Happened::Written(Ok(())) => {}
            Happened::Written(Err(error)) => {
                debug!(%error, "the caller takes nothing more");
                (self.reader, self.writer) = (None, None);
                self.machine.handle_lost(now);
            }
            Happened::Upstream(Incoming::Message(message)) if faults::loses(&message) => {}
            Happened::Upstream(Incoming::Message(message)) => {
                self.machine.handle_upstream_message(message.to_vec(), now);
            }
            Happened::Upstream(Incoming::Done(outcome)) => {
                if let Some(outcome) = self.ask_on(outcome) {
                    self.upstream_done(outcome, now);
                }
            }
            Happened::Said => {}
            Happened::Stopping => {
                let stopping =
                    Failure::UpstreamDied { handed_over: true, detail: "this node is stopping".into() };
                self.upstream_done(Outcome::Failed(stopping), now);
            }
            Happened::Timeout => {
                self.accept_by.take_if(|accept_by| *accept_by <= Instant::now());
                self.machine.handle_timeout(now);
            }
        }
    }

    fn handle_frame(&mut self, frame: Frame, now: Now) {
        let calls = self.calls;
        if self.machine.header().is_some() {
            // The desk is for the header: no other call waits while this one's body is digested.
            return self.at_desk(frame, &mut SeenCalls::new(), now);
        }
        let mut seen = calls.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.at_desk(frame, &mut seen, now);
        drop(seen);
        self.name_span();
    }

    fn at_desk(&mut self, frame: Frame, seen: &mut SeenCalls, now: Now) {
        let calls = self.calls;
        let site = own_site(&self.me, comity_protocol::constraints::DataClass::Restricted);
        let offer = |capability: &CapabilityId| calls.local_offer(capability);
        let mut desk = Desk {
            site: &site,
            offer: &offer,
            seen,
            has_room: self.turn.has_room,
            is_executor: self.me.executor,
        };
        self.machine.handle_frame(frame, &mut desk, now);
    }

    /// Puts into the log's span what the header says, once it was accepted.
    fn name_span(&self) {
        let Some(header) = self.machine.header() else { return };
        let span = Span::current();
        span.record("call_id", tracing::field::display(header.call));
        span.record("capability", tracing::field::display(&header.capability));
        span.record("principal", header.principal.name.as_str());
        if let Some(trace) = &header.trace {
            span.record("trace_id", hex(&trace.trace_id()));
        }
    }

    /// Goes on with a server that asks for input; the outcome when that is not what it is.
    fn ask_on(&mut self, outcome: Outcome) -> Option<Outcome> {
        let Some(rounds) = self.rounds.take() else { return Some(outcome) };
        match rounds.go_on(outcome) {
            Ok(exchange) => {
                self.exchange = Some(exchange);
                None
            }
            Err(outcome) => Some(outcome),
        }
    }

    fn upstream_done(&mut self, outcome: Outcome, now: Now) {
        self.exchange = None;
        let capability =
            self.machine.header().map(|header| counted_as(&header.capability)).unwrap_or_default();
        let took = now.mono.since(self.began.mono);
        self.calls.parts.metrics.call_ended(&capability, &outcome, Hop::In, took);
        debug!(took_ms = took.as_secs_f64() * 1000.0, "served");
        match outcome {
            Outcome::Result(result) => {
                let result = self.with_task_of_ours(result);
                self.machine.handle_upstream_result(bytes_of(result), now);
            }
            Outcome::Error(error) => self.machine.handle_upstream_error(bytes_of(error), now),
            Outcome::Failed(failure) => {
                info!(%failure, "a peer's call failed here");
                self.machine.handle_upstream_failed(&to_execution_failure(&failure), now);
            }
        }
    }

    /// Carries out what the machine wants. At the end of the call, whether the stream may carry another.
    fn carry_out(&mut self) -> Option<bool> {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Send(frame) => self.send(&frame),
                Effect::StartUpstream { body } => self.start(body),
                Effect::ToUpstream(bytes) => self.say(&bytes),
                Effect::CancelUpstream { reason } => self.cancel(reason),
                Effect::Close { again } => return Some(again),
            }
        }
        None
    }

    fn send(&mut self, frame: &Frame) {
        self.accept_by = matches!(frame, Frame::Accept).then(|| Instant::now() + ACCEPT_HOLD);
        if let Frame::Refuse(refusal) = frame {
            info!(peer = %self.peer.node, org = %self.peer.org, code = %refusal.code, detail = %refusal.detail, "refused a peer's call");
        }
        if let Some(Err(error)) = self.writer.as_mut().map(|writer| writer.queue(frame)) {
            debug!(%error, "an answer does not fit a frame");
            self.machine.handle_lost(self.calls.parts.clock.now());
        }
    }

    fn start(&mut self, body: Vec<u8>) {
        let params = self.params(body).and_then(|params| self.change_place().map(|()| params));
        let exchange = params.map_or_else(Exchange::failed, |params| self.open(params));
        self.exchange = Some(exchange);
    }

    /// A subscription lasts: it leaves its place among the calls to one that does not.
    fn change_place(&mut self) -> Result<(), Failure> {
        if self.machine.header().is_some_and(|header| header.method == SUBSCRIBE) {
            let full = |_| Failure::Overloaded {
                handed_over: false,
                detail: "this node has as many subscriptions as it may".into(),
            };
            self.turn._permit = self.calls.watched.clone().try_acquire_owned().map_err(full)?;
        }
        Ok(())
    }

    /// Whose a task is that this call begins or follows up.
    fn holder(&self, header: &CallHeader) -> String {
        format!("{}/{}", self.peer.node, header.principal.name)
    }

    /// The result under the id by which the caller is to know the task in it, if it is about one.
    fn with_task_of_ours(&self, result: Box<RawValue>) -> Box<RawValue> {
        let Some(header) = self.machine.header() else { return result };
        if let Some(id) = &self.task {
            return if tasks::id_of(&result).is_some() { tasks::with_id(&result, id) } else { result };
        }
        match tasks::is_task(&result).then(|| tasks::id_of(&result)).flatten() {
            Some(task) => {
                let (holder, capability) = (self.holder(header), header.capability.clone());
                let task = TaskRef { holder, executor: self.me.node, capability, task };
                tasks::with_id(&result, &self.calls.task_ids.seal(&task))
            }
            None => result,
        }
    }

    fn params(&mut self, body: Vec<u8>) -> Result<Box<RawValue>, Failure> {
        let header = self.machine.header().ok_or(Failure::Cancelled { handed_over: false })?;
        let wrong = |detail| Failure::Refused { code: codes::INVALID_PARAMS, detail };
        let params = raw(body).map_err(wrong)?;
        if tasks::is_follow_up(&header.method) {
            let id = tasks::id_of(&params).ok_or_else(follow::unknown_task)?;
            let task = self.calls.task_ids.open(&id, &self.holder(header));
            let task = task.filter(|task| task.capability == header.capability);
            let params = tasks::with_id(&params, &task.ok_or_else(follow::unknown_task)?.task);
            self.task = Some(id);
            return Ok(params);
        }
        let capability = &header.capability;
        let checked = match checked(&params, &header.method, capability.kind, &capability.name)? {
            Cow::Owned(renamed) => Some(renamed),
            Cow::Borrowed(_) => None,
        };
        Ok(checked.unwrap_or(params))
    }

    fn open(&mut self, params: Box<RawValue>) -> Exchange {
        let Some(header) = self.machine.header() else {
            return Exchange::failed(Failure::Cancelled { handed_over: false });
        };
        let caller = VerifiedCaller {
            org: self.peer.org.clone(),
            node: self.peer.node,
            principal: header.principal.name.clone(),
        };
        let now = self.calls.parts.clock.now();
        let options = CallOptions {
            deadline: Some(self.machine.deadline().since(now.mono)),
            traceparent: header.trace.as_ref().map(|trace| trace.to_string()),
            capabilities: None,
        };
        let upstreams = &self.calls.parts.upstreams;
        let (server, method) = (&header.capability.server, &header.method);
        let exchange = upstreams.open(server, method, &params, &caller, &options);
        if rounds::may_come(upstreams, server, &params) {
            let deadline = self.calls.parts.clock.instant(self.machine.deadline());
            let patience = self.machine.deadline().since(now.mono);
            let (upstreams, server, method) = (upstreams.clone(), server.clone(), method.clone());
            let rounds = Rounds { upstreams, server, method, params, caller, options, deadline, patience };
            self.rounds = Some(Box::new(rounds));
        }
        exchange
    }

    fn say(&mut self, bytes: &[u8]) {
        let limits = Limits { bytes_max: bytes.len(), depth_max: json::DEPTH_MAX };
        let message = match Message::parse(bytes, limits) {
            Ok(message) => message,
            Err(error) => return debug!(%error, "the caller sent a message that cannot be read"),
        };
        self.unsaid = Some(message);
    }

    fn cancel(&mut self, reason: Option<String>) {
        self.rounds = None;
        let Some(exchange) = &self.exchange else { return };
        if exchange.outgoing.try_send(Outgoing::Cancel { reason }).is_err() {
            // Too much waits already: dropping the exchange cancels as well.
            self.exchange = None;
            let failure = to_execution_failure(&Failure::Cancelled { handed_over: true });
            self.machine.handle_upstream_failed(&failure, self.calls.parts.clock.now());
        }
    }
}

/// Whether the caller has taken the last bytes within `patience`.
async fn in_time(patience: Duration, writing: impl Future<Output = std::io::Result<()>>) -> bool {
    match timeout(patience, writing).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            debug!(%error, "the caller left before the end");
            false
        }
        Err(_) => {
            debug!("the caller does not take its answer");
            false
        }
    }
}

fn bytes_of(raw: Box<RawValue>) -> Vec<u8> {
    Box::<str>::from(raw).into_string().into_bytes()
}

/// Gives the server what waits for it, once there is room. Cancel-safe: it is given whole or still waits.
async fn pass_on(server: Option<mpsc::Sender<Outgoing>>, unsaid: &mut Option<Message>) {
    let Some(server) = server else { return *unsaid = None };
    match server.reserve().await {
        Ok(room) => {
            if let Some(message) = unsaid.take() {
                room.send(Outgoing::Message(message));
            }
        }
        // The call has ended at the server; its outcome is on its way.
        Err(_) => *unsaid = None,
    }
}

async fn drive(writer: &mut Option<FrameWriter>) -> std::io::Result<()> {
    match writer {
        Some(writer) => writer.drive().await,
        None => std::future::pending().await,
    }
}

async fn next_frame(reader: &mut Option<FrameReader>) -> Result<Frame, StreamError> {
    match reader {
        Some(reader) => reader.next().await,
        None => std::future::pending().await,
    }
}

async fn next_incoming(exchange: &mut Option<Exchange>) -> Incoming {
    match exchange {
        Some(exchange) => exchange.next().await,
        None => Incoming::Done(failed(Failure::Cancelled { handed_over: false })),
    }
}
