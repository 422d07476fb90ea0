//! The executor's side of one call: decides on the header, and only then lets the request through to the upstream.
//!
//! A refusal ([`admit`] has the checks) always comes before anything is handed over, so that the caller may try
//! elsewhere; afterwards the machine says by `handed_over` what the upstream was given.
//!
//! Drain contract: after each `handle_*` call, take effects with [`Executor::poll_effect`] until there is none, in
//! order; then sleep until [`Executor::poll_timeout`] at most and call [`Executor::handle_timeout`]. [`Effect::Close`]
//! comes exactly once and last; whatever is fed afterwards does nothing.

use std::collections::VecDeque;
use std::time::Duration;

use ed25519_dalek::SigningKey;

use crate::constraints::DEADLINE_MS_MAX;
use crate::ids::{MeshName, PayloadDigest};
use crate::route::SiteFacts;
use crate::time::{Mono, Now, Wall};
use crate::trust::seal;

use super::admit::{self, CallerPeer, Desk, RefuseCode};
use super::frame::{ExecutionFailure, Frame, PAYLOAD_BYTES_MAX};
use super::header::CallHeader;
use super::receipt::{Receipt, ReceiptOutcome};

/// How long the header may take from the stream's beginning.
pub const HEADER_WAIT: Duration = Duration::from_secs(5);

/// How long the body may take from the accepted header, eight megabytes over a slow line included.
pub const BODY_WAIT: Duration = Duration::from_secs(30);

/// How long the upstream may take to end a call that was cancelled or has run out of time.
pub const UPSTREAM_CANCEL_WAIT: Duration = Duration::from_secs(1);

/// What the shell is to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a frame.
    Send(Frame),
    /// Hand the request to the upstream. [`Executor::header`] says what it is and for whom. The tool to run is the
    /// header's: whatever tool the body names is to be replaced by it.
    StartUpstream {
        /// The request's `params`, raw JSON that has not been looked at.
        body: Vec<u8>,
    },
    /// Pass the caller's message on to the upstream.
    ToUpstream(Vec<u8>),
    /// Tell the upstream to stop. Its end is still to be reported.
    CancelUpstream {
        /// For its log.
        reason: Option<String>,
    },
    /// The call is over: finish writing what was sent. Nothing follows.
    Close {
        /// Whether the stream may carry another call; otherwise it is to be closed. See [`super`] for the rule.
        again: bool,
    },
}

/// The executor's side of one call. See the module for its contract.
#[derive(Debug)]
pub struct Executor {
    mesh: MeshName,
    key: SigningKey,
    peer: CallerPeer,
    stage: Stage,
    until: Mono,
    header: Option<Box<CallHeader>>,
    /// The site under which the call was accepted: the receipt states it, whatever is configured meanwhile.
    site: Option<SiteFacts>,
    deadline: Mono,
    started: Wall,
    /// Whether the caller said anything after its body: something more of it may be on its way when the call ends.
    spoken: bool,
    effects: VecDeque<Effect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has come yet.
    Fresh,
    /// Accepted; the body has not come.
    Accepted,
    /// The upstream has the request.
    Running,
    /// The upstream was told to stop, for this reason.
    Stopping(Stop),
    /// Closed.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Cancelled,
    Timeout,
    /// The caller is gone: nobody is told.
    CallerGone,
}

impl Executor {
    /// A call stream that `peer` has opened. `key` is this node's, and signs the receipt.
    pub fn new(mesh: MeshName, key: SigningKey, peer: CallerPeer, now: Now) -> Self {
        Self {
            mesh,
            key,
            peer,
            stage: Stage::Fresh,
            until: now.mono + HEADER_WAIT,
            header: None,
            site: None,
            deadline: now.mono + HEADER_WAIT,
            started: now.wall,
            spoken: false,
            effects: VecDeque::new(),
        }
    }

    /// The header, once it was accepted.
    pub fn header(&self) -> Option<&CallHeader> {
        self.header.as_deref()
    }

    /// When the caller gives up on an accepted call.
    pub const fn deadline(&self) -> Mono {
        self.deadline
    }

    /// A frame came. `desk` is looked at for the header only.
    pub fn handle_frame(&mut self, frame: Frame, desk: &mut Desk<'_>, now: Now) {
        self.spoken |= matches!(frame, Frame::Message(_) | Frame::Cancel(_));
        match (self.stage, frame) {
            (Stage::Fresh, Frame::Header(header)) => self.handle_header(header, desk, now),
            (Stage::Accepted, Frame::Body(body)) => self.handle_body(body, now),
            (Stage::Accepted, Frame::Cancel(_)) => {
                self.end_with(Frame::Failed(ExecutionFailure::new(
                    "cancelled",
                    "cancelled by the caller",
                    false,
                )));
            }
            (Stage::Running, Frame::Message(message)) => self.effects.push_back(Effect::ToUpstream(message)),
            (Stage::Running, Frame::Cancel(cancel)) => self.stop(Stop::Cancelled, cancel.reason, now),
            (Stage::Stopping(_), Frame::Message(_) | Frame::Cancel(_)) | (Stage::Done, _) => {}
            _ => self.handle_lost(now),
        }
    }

    /// The stream broke, ended before its time, or carried what is no frame.
    pub fn handle_lost(&mut self, now: Now) {
        match self.stage {
            Stage::Fresh | Stage::Accepted => self.close(),
            Stage::Running => self.stop(Stop::CallerGone, Some("the caller is gone".to_owned()), now),
            Stage::Stopping(_) => self.stage = Stage::Stopping(Stop::CallerGone),
            Stage::Done => {}
        }
    }

    /// The upstream sent a message for the caller.
    pub fn handle_upstream_message(&mut self, message: Vec<u8>, now: Now) {
        if self.stage != Stage::Running {
            return;
        }
        if message.len() > PAYLOAD_BYTES_MAX {
            self.stop(Stop::Cancelled, Some("a message is too large".to_owned()), now);
            return self.fail(&too_large(message.len()), now);
        }
        self.effects.push_back(Effect::Send(Frame::Message(message)));
    }

    /// The upstream gave a result: raw JSON.
    pub fn handle_upstream_result(&mut self, result: Vec<u8>, now: Now) {
        self.answer(Frame::Result, ReceiptOutcome::Result, result, now);
    }

    /// The upstream gave a JSON-RPC error: the error object as raw JSON.
    pub fn handle_upstream_error(&mut self, error: Vec<u8>, now: Now) {
        self.answer(Frame::Error, ReceiptOutcome::Error, error, now);
    }

    /// The upstream will give no answer.
    pub fn handle_upstream_failed(&mut self, failure: &ExecutionFailure, now: Now) {
        match self.stage {
            Stage::Running => self.fail(failure, now),
            Stage::Stopping(stop) => self.fail_stopped(stop, failure.handed_over, now),
            Stage::Fresh | Stage::Accepted | Stage::Done => {}
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.stage == Stage::Done || now.mono < self.until {
            return;
        }
        match self.stage {
            Stage::Running => self.stop(Stop::Timeout, Some("deadline".to_owned()), now),
            Stage::Stopping(stop) => self.fail_stopped(stop, true, now),
            Stage::Fresh | Stage::Accepted | Stage::Done => self.close(),
        }
    }

    /// When [`Self::handle_timeout`] is to be called next; `None` when the stream is closed.
    pub fn poll_timeout(&self) -> Option<Mono> {
        (self.stage != Stage::Done).then_some(self.until)
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn handle_header(&mut self, header: Box<CallHeader>, desk: &mut Desk<'_>, now: Now) {
        if let Err(refusal) = admit::check(&header, &self.peer, desk, now) {
            return self.end_with(Frame::Refuse(refusal));
        }
        self.deadline = now.mono + Duration::from_millis(header.deadline_ms.min(DEADLINE_MS_MAX));
        self.until = self.deadline.min(now.mono + BODY_WAIT);
        self.header = Some(header);
        self.site = Some(desk.site.clone());
        self.stage = Stage::Accepted;
        self.effects.push_back(Effect::Send(Frame::Accept));
    }

    fn handle_body(&mut self, body: Vec<u8>, now: Now) {
        let promised = self.header.as_ref().map(|header| (header.request_bytes as usize, header.request));
        if promised != Some((body.len(), PayloadDigest::of(&body))) {
            let refusal =
                RefuseCode::WrongRequest.because("the body is not the one that the header promised");
            return self.end_with(Frame::Refuse(refusal));
        }
        if now.mono >= self.deadline {
            let failure = ExecutionFailure::new("timeout", "the request came after its deadline", false);
            return self.end_with(Frame::Failed(failure));
        }
        self.stage = Stage::Running;
        self.until = self.deadline;
        self.started = now.wall;
        self.effects.push_back(Effect::StartUpstream { body });
    }

    fn stop(&mut self, stop: Stop, reason: Option<String>, now: Now) {
        self.stage = Stage::Stopping(stop);
        self.until = now.mono + UPSTREAM_CANCEL_WAIT;
        self.effects.push_back(Effect::CancelUpstream { reason });
    }

    /// An answer of the upstream. One that comes while it was told to stop is still the truth, and is passed on.
    fn answer(&mut self, frame: fn(Vec<u8>) -> Frame, outcome: ReceiptOutcome, bytes: Vec<u8>, now: Now) {
        match self.stage {
            Stage::Running | Stage::Stopping(Stop::Cancelled | Stop::Timeout) => {}
            Stage::Stopping(Stop::CallerGone) => return self.close(),
            Stage::Fresh | Stage::Accepted | Stage::Done => return,
        }
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return self.fail(&too_large(bytes.len()), now);
        }
        let digest = PayloadDigest::of(&bytes);
        self.effects.push_back(Effect::Send(frame(bytes)));
        self.send_receipt(outcome, Some(digest), now);
        self.close_after_receipt();
    }

    fn fail_stopped(&mut self, stop: Stop, handed_over: bool, now: Now) {
        match stop {
            Stop::CallerGone => self.close(),
            Stop::Cancelled => {
                self.fail(&ExecutionFailure::new("cancelled", "cancelled by the caller", handed_over), now);
            }
            Stop::Timeout => {
                self.fail(
                    &ExecutionFailure::new("timeout", "no answer before the deadline", handed_over),
                    now,
                );
            }
        }
    }

    fn fail(&mut self, failure: &ExecutionFailure, now: Now) {
        // Again through the constructor: what comes from an upstream may be too long for a frame.
        let failure = ExecutionFailure::new(&failure.code, &failure.detail, failure.handed_over);
        let handed_over = failure.handed_over;
        self.effects.push_back(Effect::Send(Frame::Failed(failure)));
        if handed_over {
            self.send_receipt(ReceiptOutcome::Failed, None, now);
            return self.close_after_receipt();
        }
        self.close();
    }

    fn send_receipt(&mut self, outcome: ReceiptOutcome, answer: Option<PayloadDigest>, now: Now) {
        let (Some(header), Some(site)) = (&self.header, &self.site) else { return };
        let receipt = Receipt {
            call: header.call,
            executor: site.node,
            executor_org: site.org.clone(),
            caller: self.peer.node,
            caller_org: self.peer.org.clone(),
            capability: header.capability.clone(),
            contract: header.contract,
            request: header.request,
            answer,
            outcome,
            processing_locations: site.processing,
            operator_country: site.operator_country,
            started: self.started,
            // A clock that was set back meanwhile must not make the receipt contradict itself.
            finished: now.wall.max(self.started),
        };
        let sealed = seal(receipt, &self.key, Some(&self.mesh));
        self.effects.push_back(Effect::Send(Frame::Receipt(sealed.bytes().to_vec())));
    }

    fn end_with(&mut self, frame: Frame) {
        self.effects.push_back(Effect::Send(frame));
        self.close();
    }

    /// Nothing of this call can follow from the caller, unless it has spoken.
    fn close_after_receipt(&mut self) {
        self.stage = Stage::Done;
        self.effects.push_back(Effect::Close { again: !self.spoken });
    }

    fn close(&mut self) {
        self.stage = Stage::Done;
        self.effects.push_back(Effect::Close { again: false });
    }
}

fn too_large(bytes: usize) -> ExecutionFailure {
    let detail = format!("the upstream sent {bytes} bytes where {PAYLOAD_BYTES_MAX} are allowed");
    ExecutionFailure::new("too_large", &detail, true)
}

#[cfg(test)]
mod tests;
