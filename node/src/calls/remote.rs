//! The caller's machine over a stream: carries out what [`Caller`] says, and tells it what happens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use comity_protocol::call::caller::{AttemptId, Effect};
use comity_protocol::call::frame::{FrameKind, PAYLOAD_BYTES_MAX};
use comity_protocol::call::header::HeaderParts;
use comity_protocol::call::methods::{SUBSCRIBE, is_repeatable};
use comity_protocol::call::{CallOutcome, CallPlan, Caller, Principal, Target};
use comity_protocol::ids::{NodeId, PayloadDigest};
use comity_protocol::json;
use comity_protocol::jsonrpc::{Limits, Message, codes};
use comity_protocol::time::Mono;
use serde_json::value::RawValue;
use tokio::time::{Sleep, sleep_until};
use tracing::debug;

use super::Calls;
use super::outgoing::{Call, addresses, deliver, to_frame_bytes};
use super::stream::{FrameReader, FrameWriter, StreamError, join, split};
use super::trying::Trying;
use crate::exchange::{ExchangePeer, Failure, Outgoing};
use crate::mesh::{MeshStream, OpenError};

type Opening = Pin<Box<dyn Future<Output = Result<MeshStream, OpenError>> + Send>>;

/// Tries `targets` in order until one has the call or none is left. `again` says that candidates were tried before.
///
/// # Errors
/// [`Failure`] when the call cannot be put into a header that anybody would read.
pub(super) async fn run(
    calls: &Arc<Calls>,
    call: &Call,
    params: &RawValue,
    targets: Vec<Target>,
    again: bool,
    peer: &mut ExchangePeer,
) -> Result<CallOutcome, Failure> {
    let plan = plan(calls, call, params);
    let machine = Caller::new(plan, targets, calls.parts.clock.now())
        .map_err(|error| Failure::Refused { code: codes::INVALID_PARAMS, detail: error.to_string() })?;
    let driver = Driver {
        calls,
        call,
        body: params.get().as_bytes(),
        machine,
        again,
        requester: Requester { peer, present: true, undelivered: None },
        opening: None,
        stream: None,
        trying: None,
        timer: Box::pin(sleep_until(Instant::now().into())),
    };
    Ok(driver.drive().await)
}

fn plan(calls: &Calls, call: &Call, params: &RawValue) -> CallPlan {
    let me = calls.me();
    let body = params.get().as_bytes();
    CallPlan {
        mesh: calls.parts.mesh_name.clone(),
        parts: HeaderParts {
            call: call.id,
            capability: call.route.capability.clone(),
            contract: call.route.contract,
            method: call.request.method.clone(),
            constraints: call.demand.constraints.clone(),
            principal: Principal {
                org: me.org,
                node: me.node,
                node_name: me.name.to_string(),
                name: call.request.caller.principal.to_string(),
            },
            request: PayloadDigest::of(body),
            request_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            trace: call.demand.trace.clone(),
            hops: 1,
        },
        vouched: is_repeatable(&call.request.method)
            || calls.parts.config.borrow().vouches_for(&call.route.capability),
        deadline: call.deadline,
    }
}

struct Requester<'a> {
    peer: &'a mut ExchangePeer,
    present: bool,
    /// A message that it has no room for. While there is one nothing more is read of the executor.
    undelivered: Option<Message>,
}

struct Open {
    attempt: AttemptId,
    reader: FrameReader,
    writer: FrameWriter,
}

struct Driver<'a> {
    calls: &'a Arc<Calls>,
    call: &'a Call,
    body: &'a [u8],
    machine: Caller,
    again: bool,
    requester: Requester<'a>,
    opening: Option<(AttemptId, NodeId, Opening)>,
    stream: Option<Open>,
    trying: Option<Trying<'a>>,
    timer: Pin<Box<Sleep>>,
}

/// What happened while waiting.
enum Happened {
    Opened(AttemptId, NodeId, Result<MeshStream, OpenError>),
    Frame(AttemptId, Result<comity_protocol::call::Frame, StreamError>),
    Written(AttemptId, std::io::Result<()>),
    Said(Option<Outgoing>),
    /// The requester has taken what waited for it, or never will.
    Delivered,
    Timeout,
}

impl Driver<'_> {
    async fn drive(mut self) -> CallOutcome {
        loop {
            if let Some(outcome) = self.carry_out().await {
                return outcome;
            }
            let happened = self.wait().await;
            self.tell(happened);
        }
    }

    fn now(&self) -> comity_protocol::time::Now {
        self.calls.parts.clock.now()
    }

    async fn wait(&mut self) -> Happened {
        self.set_timer();
        let busy_writing = self.stream.as_ref().is_some_and(|open| !open.writer.is_idle());
        let has_room = self.stream.as_ref().is_none_or(|open| open.writer.has_room());
        let (peer, undelivered) = (&mut *self.requester.peer, &mut self.requester.undelivered);
        let full = undelivered.is_some();
        let (reader, writer) = match &mut self.stream {
            Some(open) => (Some((open.attempt, &mut open.reader)), Some((open.attempt, &mut open.writer))),
            None => (None, None),
        };
        tokio::select! {
            biased;
            Some(happened) = opened(&mut self.opening) => happened,
            happened = written(writer), if busy_writing => happened,
            said = peer.outgoing.recv(), if self.requester.present && has_room => Happened::Said(said),
            _ = deliver(&peer.sender, undelivered), if full => Happened::Delivered,
            happened = next_frame(reader), if !full => happened,
            () = &mut self.timer => Happened::Timeout,
        }
    }

    fn set_timer(&mut self) {
        let at: Mono = self.machine.poll_timeout().unwrap_or(self.call.deadline);
        let at = self.calls.parts.clock.instant(at);
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
    }

    fn tell(&mut self, happened: Happened) {
        let now = self.now();
        match happened {
            Happened::Opened(attempt, node, Ok(stream)) => {
                let (reader, writer) = split(stream);
                self.stream = Some(Open { attempt, reader, writer });
                self.opening = None;
                self.machine.handle_opened(attempt, self.last_heard(node), now);
            }
            Happened::Opened(attempt, _, Err(error)) => {
                self.opening = None;
                self.machine.handle_lost(attempt, error.to_string(), now);
            }
            Happened::Frame(attempt, Ok(frame)) => self.machine.handle_frame(attempt, frame, now),
            Happened::Frame(attempt, Err(error)) => {
                self.stream = None;
                self.machine.handle_lost(attempt, error.to_string(), now);
            }
            Happened::Written(_, Ok(())) => {}
            Happened::Written(attempt, Err(error)) => {
                self.stream = None;
                self.machine.handle_lost(attempt, error.to_string(), now);
            }
            Happened::Said(Some(outgoing)) => match to_frame_bytes(outgoing) {
                Ok(message) if message.len() > PAYLOAD_BYTES_MAX => {
                    debug!(bytes = message.len(), "the requester said more than a frame holds: dropped");
                }
                Ok(message) => self.machine.handle_message(message),
                Err(reason) => self.cancel(reason.as_deref(), now),
            },
            Happened::Said(None) => {
                self.requester.present = false;
                self.cancel(Some("the requester is gone"), now);
            }
            Happened::Delivered => self.requester.undelivered = None,
            Happened::Timeout => self.machine.handle_timeout(now),
        }
    }

    /// A requester that has cancelled waits for the outcome only.
    fn cancel(&mut self, reason: Option<&str>, now: comity_protocol::time::Now) {
        self.requester.undelivered = None;
        self.machine.handle_cancel(reason, now);
    }

    fn last_heard(&self, node: NodeId) -> Option<Mono> {
        let silence = self.calls.parts.mesh.get()?.last_heard(node)?;
        let micros = self.now().mono.as_micros();
        Some(Mono::from_micros(micros.saturating_sub(u64::try_from(silence.as_micros()).unwrap_or(u64::MAX))))
    }

    /// Carries out what the machine wants; the outcome when it is the end.
    async fn carry_out(&mut self) -> Option<CallOutcome> {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Open { attempt, node, retry } => self.open(attempt, node, retry),
                Effect::Send { attempt, frame } => {
                    let queued = self.writer_of(attempt).map(|writer| writer.queue(&frame));
                    self.note_queued(attempt, queued);
                }
                Effect::SendBody { attempt } => {
                    let body = self.body;
                    let queued =
                        self.writer_of(attempt).map(|writer| writer.queue_payload(FrameKind::Body, body));
                    self.note_queued(attempt, queued);
                }
                Effect::Close { attempt, health, again } => self.close(attempt, health, again).await,
                Effect::Deliver(bytes) => self.deliver(&bytes),
                Effect::Finish(outcome) => return Some(*outcome),
            }
        }
        None
    }

    fn writer_of(&mut self, attempt: AttemptId) -> Option<&mut FrameWriter> {
        self.stream.as_mut().filter(|open| open.attempt == attempt).map(|open| &mut open.writer)
    }

    fn note_queued(
        &mut self,
        attempt: AttemptId,
        queued: Option<Result<(), comity_protocol::call::FrameError>>,
    ) {
        if let Some(Err(error)) = queued {
            let now = self.now();
            self.machine.handle_lost(attempt, error.to_string(), now);
        }
    }

    fn open(&mut self, attempt: AttemptId, node: NodeId, retry: bool) {
        let now = self.now();
        let retry = retry || core::mem::take(&mut self.again);
        if retry && !self.calls.with_chooser(|chooser| chooser.may_retry(now.mono)) {
            return self.machine.handle_no_budget(attempt);
        }
        let Some(mesh) = self.calls.parts.mesh.get() else {
            return self.machine.handle_lost(attempt, "this node has joined no mesh".into(), now);
        };
        // A subscription that lasts must not look like a call that hangs.
        if self.call.request.method != SUBSCRIBE {
            self.trying = Some(self.calls.begin_try(node, &self.call.route.capability, self.call.id));
        }
        let addresses = addresses(self.calls, &node);
        let opening = Box::pin(async move { mesh.open_call(node, &addresses).await });
        self.opening = Some((attempt, node, opening));
    }

    async fn close(&mut self, attempt: AttemptId, health: comity_protocol::route::Health, again: bool) {
        self.opening.take_if(|(opening, ..)| *opening == attempt);
        if let Some(Open { reader, writer, .. }) = self.stream.take_if(|open| open.attempt == attempt) {
            if again {
                if let Some(stream) = join(reader, writer) {
                    stream.keep_for_another();
                }
            } else if !writer.is_idle() {
                // A cancellation may wait: give it a moment. A stream that is dropped tells the executor the same.
                let _ = tokio::time::timeout(std::time::Duration::from_millis(100), writer.finish()).await;
            }
        }
        if let Some(trying) = self.trying.take() {
            trying.end(health);
        }
    }

    /// Gives the requester a message. A slow one holds up its own call: nothing more is read until it has room.
    fn deliver(&mut self, bytes: &[u8]) {
        let limits = Limits { bytes_max: bytes.len(), depth_max: json::DEPTH_MAX };
        let message = match Message::parse(bytes, limits) {
            Ok(message) => message,
            Err(error) => return debug!(%error, "the executor sent a message that cannot be read"),
        };
        let Requester { peer, undelivered, .. } = &mut self.requester;
        if peer.sender.has_room(&message) {
            // A requester that has gone shows at its other half.
            let _ = peer.sender.try_send(message);
        } else {
            *undelivered = Some(message);
        }
    }
}

async fn opened(opening: &mut Option<(AttemptId, NodeId, Opening)>) -> Option<Happened> {
    let (attempt, node, opening) = opening.as_mut()?;
    let outcome = opening.await;
    Some(Happened::Opened(*attempt, *node, outcome))
}

async fn written(writer: Option<(AttemptId, &mut FrameWriter)>) -> Happened {
    match writer {
        Some((attempt, writer)) => Happened::Written(attempt, writer.drive().await),
        None => std::future::pending().await,
    }
}

async fn next_frame(reader: Option<(AttemptId, &mut FrameReader)>) -> Happened {
    match reader {
        Some((attempt, reader)) => Happened::Frame(attempt, reader.next().await),
        None => std::future::pending().await,
    }
}
