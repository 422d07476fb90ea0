//! The caller's side of one call: tries the ranked candidates until one has it, and says what became of it.
//!
//! Two-phase hand-over. The header goes first and the body only after the executor's `Accept`; whatever fails before the
//! body is out is tried at the next candidate. Once the body is out, only the executor's word that nothing was handed
//! over (`Refuse`, or `Failed` saying so) lets the call go elsewhere; without that word it is *in doubt* and is never
//! sent again. Header and body go together where the saved round trip costs nothing: on a link heard from within
//! [`PIPELINE_FRESH`], and for tools that the operator vouches for as read-only or idempotent, which may also be sent
//! again.
//!
//! Drain contract: after each `handle_*` call, take effects with [`Caller::poll_effect`] until there is none, in order;
//! then sleep until [`Caller::poll_timeout`] at most and call [`Caller::handle_timeout`]. The machine has ended when it
//! has given [`Effect::Finish`], which comes exactly once and last; whatever is fed afterwards does nothing. Events name
//! the attempt they belong to, and those of an attempt that is over are ignored.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::{MeshName, NodeId};
use crate::route::Health;
use crate::time::{Mono, Now};
use crate::trust::Verified;

use super::frame::{Cancel, ExecutionFailure, Frame};
use super::header::{CallHeader, HeaderError, HeaderParts};
use super::outcome::{
    Answer, AttemptFailure, CallFailure, CallOutcome, FailedAttempt, PATIENCE_FAIR, Target, failure_health,
};
use super::receipt::{Expected, Receipt, ReceiptError};

/// Most candidates that one call tries.
pub const ATTEMPTS_MAX: usize = 5;

/// How lately a link must have been heard from for header and body to go together.
pub const PIPELINE_FRESH: Duration = Duration::from_millis(20);

/// How long a stream may take to open on a connection that exists.
pub const OPEN_CONNECTED_WAIT: Duration = Duration::from_millis(750);

/// How long a peer that is not connected may take to be dialled and admitted while there is another candidate.
pub const OPEN_DIAL_WAIT: Duration = Duration::from_millis(1500);

/// How long the last candidate may take to be dialled and admitted.
pub const OPEN_DIAL_LAST_WAIT: Duration = Duration::from_secs(5);

/// How long an executor may take to accept while there is another candidate.
pub const ACCEPT_WAIT: Duration = Duration::from_millis(750);

/// How long the last candidate may take to accept.
pub const ACCEPT_LAST_WAIT: Duration = Duration::from_secs(10);

/// How long the receipt may take after the answer.
pub const RECEIPT_WAIT: Duration = Duration::from_secs(2);

/// How long an executor may take to end a call that was cancelled.
pub const CANCEL_WAIT: Duration = Duration::from_secs(2);

/// One call to be made.
#[derive(Clone, Debug)]
pub struct CallPlan {
    /// The mesh for which receipts are signed.
    pub mesh: MeshName,
    /// What every header says; the capability's org is replaced by each candidate's own.
    pub parts: HeaderParts,
    /// Whether the operator here vouches that the tool may run twice: read-only or idempotent. A peer's hint is no such
    /// word.
    pub vouched: bool,
    /// When the caller gives up.
    pub deadline: Mono,
}

/// One try of a call; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptId(u32);

/// What the shell is to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Open a call stream to `node`, dialling it if need be, and answer with [`Caller::handle_opened`] or
    /// [`Caller::handle_lost`]. When `retry`, take one from the retry budget first, or answer with
    /// [`Caller::handle_no_budget`].
    Open {
        /// The attempt.
        attempt: AttemptId,
        /// To whom.
        node: NodeId,
        /// Whether it is a second try.
        retry: bool,
    },
    /// Send a frame on the attempt's stream.
    Send {
        /// The attempt.
        attempt: AttemptId,
        /// The frame.
        frame: Frame,
    },
    /// Send the request's body, which the shell holds, as a frame of kind `Body`.
    SendBody {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The attempt is over: close its stream, or stop opening it, and count `health` for its peer.
    Close {
        /// The attempt.
        attempt: AttemptId,
        /// How it went, as far as it tells about the peer.
        health: Health,
        /// Whether the stream may carry another call instead of being closed. See [`super`] for the rule.
        again: bool,
    },
    /// A JSON-RPC message for the requester.
    Deliver(Vec<u8>),
    /// The end.
    Finish(Box<CallOutcome>),
}

/// The caller's side of one call. See the module for its contract.
#[derive(Debug)]
pub struct Caller {
    plan: CallPlan,
    waiting: VecDeque<Target>,
    current: Option<Current>,
    attempts: u32,
    failed: Vec<FailedAttempt>,
    /// Who may have run a vouched call that then went elsewhere: the end must not say that nothing was run.
    doubtful: Option<Target>,
    effects: VecDeque<Effect>,
    finished: bool,
}

#[derive(Debug)]
struct Current {
    attempt: AttemptId,
    target: Target,
    header: Option<CallHeader>,
    /// Whether a message of the upstream came: from then on the executor cannot say that nothing was handed over.
    heard: bool,
    /// Whether anything was said after the body: the executor may still be reading it when the call ends.
    spoken: bool,
    stage: Stage,
    began: Mono,
    until: Mono,
}

#[derive(Debug)]
enum Stage {
    /// The stream is being opened.
    Opening,
    /// The header is out, the body is not.
    Offered,
    /// Header and body are out, and no word came back.
    Pipelined,
    /// Accepted, and the body is out.
    Running,
    /// The answer is here, the receipt is not.
    Answered(Answer),
    /// The caller wants it to stop, and the body is out.
    Cancelling,
}

impl Caller {
    /// Begins a call. `targets` are tried in order, [`ATTEMPTS_MAX`] of them at most.
    ///
    /// # Errors
    /// [`HeaderError`] when no executor would read the header; nothing has been sent then.
    pub fn new(
        plan: CallPlan,
        targets: impl IntoIterator<Item = Target>,
        now: Now,
    ) -> Result<Self, HeaderError> {
        let probe = CallHeader::new(plan.parts.clone(), plan.parts.principal.node, now.wall, u64::MAX);
        probe.to_bytes()?;
        let mut caller = Self {
            plan,
            waiting: targets.into_iter().take(ATTEMPTS_MAX).collect(),
            current: None,
            attempts: 0,
            failed: Vec::new(),
            doubtful: None,
            effects: VecDeque::new(),
            finished: false,
        };
        caller.try_next(now);
        Ok(caller)
    }

    /// The attempt's stream is open. `heard` is when the peer was last heard from on its link.
    pub fn handle_opened(&mut self, attempt: AttemptId, heard: Option<Mono>, now: Now) {
        let last = self.waiting.is_empty();
        let Some(current) = self.current.as_mut().filter(|current| current.attempt == attempt) else {
            return;
        };
        if !matches!(current.stage, Stage::Opening) {
            return;
        }
        let left = self.plan.deadline.since(now.mono);
        let deadline_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        // One exposed name may stand for the same tool of several orgs: each candidate is asked for its own org's.
        let mut parts = self.plan.parts.clone();
        parts.capability.org = current.target.org.clone();
        let header = CallHeader::new(parts, current.target.node, now.wall, deadline_ms);
        let frame = Frame::Header(Box::new(header.clone()));
        self.effects.push_back(Effect::Send { attempt, frame });
        let fresh = heard.is_some_and(|heard| now.mono.since(heard) <= PIPELINE_FRESH);
        let accept_by = now.mono + if last { ACCEPT_LAST_WAIT } else { ACCEPT_WAIT };
        current.header = Some(header);
        if fresh || self.plan.vouched {
            self.effects.push_back(Effect::SendBody { attempt });
            current.stage = Stage::Pipelined;
            // Silence after the body is doubt, not failure: only a tool that may run twice is given up early.
            current.until = if self.plan.vouched { accept_by } else { self.plan.deadline };
        } else {
            current.stage = Stage::Offered;
            current.until = accept_by;
        }
    }

    /// A frame came on the attempt's stream.
    pub fn handle_frame(&mut self, attempt: AttemptId, frame: Frame, now: Now) {
        let Some(current) = self.current.as_mut().filter(|current| current.attempt == attempt) else {
            return;
        };
        match (&current.stage, frame) {
            (Stage::Offered, Frame::Accept) => {
                self.effects.push_back(Effect::SendBody { attempt });
                self.run();
            }
            (Stage::Pipelined, Frame::Accept) => self.run(),
            (Stage::Running, Frame::Message(message)) => {
                current.heard = true;
                self.effects.push_back(Effect::Deliver(message));
            }
            (Stage::Offered | Stage::Pipelined | Stage::Running, Frame::Refuse(refusal))
                if !current.heard =>
            {
                self.fail_over(AttemptFailure::Refused(refusal), now);
            }
            (Stage::Running, Frame::Failed(failure)) => self.handle_failed(failure, now),
            (Stage::Running | Stage::Cancelling, Frame::Result(bytes)) => {
                self.await_receipt(Answer::Result(bytes), now);
            }
            (Stage::Running | Stage::Cancelling, Frame::Error(bytes)) => {
                self.await_receipt(Answer::Error(bytes), now);
            }
            (Stage::Answered(_), Frame::Receipt(bytes)) => self.settle(Some(&bytes)),
            (Stage::Answered(_), _) => self.finish_answered(Err(ReceiptError::Misplaced), Health::PeerFault),
            (Stage::Cancelling, Frame::Accept | Frame::Message(_)) => {}
            (Stage::Cancelling, Frame::Refuse(_)) => self.finish_cancelled(false),
            (Stage::Cancelling, Frame::Failed(failure)) => {
                let handed_over = failure.handed_over || current.heard;
                self.finish_cancelled(handed_over);
            }
            (_, frame) => {
                let detail = format!("it sent a {:?} frame out of turn", frame.kind());
                self.handle_lost(attempt, detail, now);
            }
        }
    }

    /// The attempt's stream could not be opened, broke, ended, or carried what is no frame.
    pub fn handle_lost(&mut self, attempt: AttemptId, detail: String, now: Now) {
        let Some(current) = self.current.as_ref().filter(|current| current.attempt == attempt) else {
            return;
        };
        match current.stage {
            Stage::Opening | Stage::Offered => self.fail_over(AttemptFailure::Lost(detail), now),
            Stage::Pipelined | Stage::Running if self.plan.vouched && !current.heard => {
                self.fail_over(AttemptFailure::Lost(detail), now);
            }
            Stage::Pipelined | Stage::Running => self.finish_in_doubt(detail),
            Stage::Answered(_) => self.settle(None),
            Stage::Cancelling => self.finish_cancelled(true),
        }
    }

    /// The retry budget has nothing left for the attempt.
    pub fn handle_no_budget(&mut self, attempt: AttemptId) {
        let Some(current) = self.current.take_if(|current| current.attempt == attempt) else { return };
        let attempt = current.attempt;
        self.effects.push_back(Effect::Close { attempt, health: Health::Neutral, again: false });
        self.finish_exhausted(true);
    }

    /// The requester says something to the upstream. Before the call runs nothing can be meant by it: dropped.
    pub fn handle_message(&mut self, message: Vec<u8>) {
        if let Some(Current { attempt, stage: Stage::Running, spoken, .. }) = &mut self.current {
            *spoken = true;
            let attempt = *attempt;
            self.effects.push_back(Effect::Send { attempt, frame: Frame::Message(message) });
        }
    }

    /// The requester wants the call to stop.
    pub fn handle_cancel(&mut self, reason: Option<&str>, now: Now) {
        let Some(current) = self.current.as_mut() else { return };
        match current.stage {
            Stage::Opening | Stage::Offered => self.finish_cancelled(false),
            Stage::Pipelined | Stage::Running => {
                current.stage = Stage::Cancelling;
                current.spoken = true;
                current.until = now.mono + CANCEL_WAIT;
                let (attempt, frame) = (current.attempt, Frame::Cancel(Cancel::new(reason)));
                self.effects.push_back(Effect::Send { attempt, frame });
            }
            Stage::Answered(_) | Stage::Cancelling => {}
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let Some(current) = self.current.as_ref() else { return };
        let expired = now.mono >= self.plan.deadline;
        let due = expired || now.mono >= current.until;
        match current.stage {
            Stage::Answered(_) if due => self.settle(None),
            Stage::Cancelling if due => self.finish_cancelled(true),
            Stage::Opening | Stage::Offered if expired => self.finish_timeout(false, now),
            Stage::Pipelined | Stage::Running if expired => {
                let (attempt, frame) = (current.attempt, Frame::Cancel(Cancel::new(Some("deadline"))));
                self.effects.push_back(Effect::Send { attempt, frame });
                self.finish_timeout(true, now);
            }
            Stage::Opening if due => self.fail_over(AttemptFailure::Silent("opening a stream"), now),
            Stage::Offered if due => self.fail_over(AttemptFailure::Silent("waiting to be accepted"), now),
            Stage::Pipelined if due => {
                let (attempt, frame) = (current.attempt, Frame::Cancel(Cancel::new(None)));
                self.effects.push_back(Effect::Send { attempt, frame });
                self.fail_over(AttemptFailure::Silent("waiting to be accepted"), now);
            }
            _ => {}
        }
    }

    /// When [`Self::handle_timeout`] is to be called next; `None` when the call has ended.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.current.as_ref().map(|current| current.until.min(self.plan.deadline))
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether the call has ended.
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    fn try_next(&mut self, now: Now) {
        if now.mono >= self.plan.deadline {
            return self.finish_timeout(false, now);
        }
        let Some(target) = self.waiting.pop_front() else { return self.finish_exhausted(false) };
        let (attempt, node) = (AttemptId(self.attempts), target.node);
        let wait = match target.connected {
            true => OPEN_CONNECTED_WAIT,
            false if self.waiting.is_empty() => OPEN_DIAL_LAST_WAIT,
            false => OPEN_DIAL_WAIT,
        };
        self.effects.push_back(Effect::Open { attempt, node, retry: self.attempts > 0 });
        self.attempts += 1;
        let (began, until) = (now.mono, now.mono + wait);
        self.current = Some(Current {
            attempt,
            target,
            header: None,
            heard: false,
            spoken: false,
            stage: Stage::Opening,
            began,
            until,
        });
    }

    fn run(&mut self) {
        if let Some(current) = &mut self.current {
            current.stage = Stage::Running;
            current.until = self.plan.deadline;
        }
    }

    /// The executor says that the call failed. Whether it may go elsewhere depends on what the upstream was given.
    fn handle_failed(&mut self, failure: ExecutionFailure, now: Now) {
        let heard = self.current.as_ref().is_some_and(|current| current.heard);
        let may_run_again = !heard && (self.plan.vouched || !failure.handed_over);
        if may_run_again {
            self.fail_over(AttemptFailure::Failed(failure), now);
        } else {
            self.await_receipt(Answer::Failed(ExecutionFailure { handed_over: true, ..failure }), now);
        }
    }

    fn await_receipt(&mut self, answer: Answer, now: Now) {
        if let Some(current) = &mut self.current {
            current.stage = Stage::Answered(answer);
            current.until = now.mono + RECEIPT_WAIT;
        }
    }

    fn fail_over(&mut self, cause: AttemptFailure, now: Now) {
        let Some(Current { attempt, target, stage, .. }) = self.current.take() else { return };
        self.effects.push_back(Effect::Close { attempt, health: cause.health(), again: false });
        if may_have_run(&stage, &cause) {
            self.doubtful = Some(target.clone());
        }
        self.failed.push(FailedAttempt { target, cause });
        self.try_next(now);
    }

    /// The end of an answered call, with its receipt or without one.
    fn settle(&mut self, receipt: Option<&[u8]>) {
        let Some(Current { target, header: Some(header), stage: Stage::Answered(answer), .. }) =
            &self.current
        else {
            return;
        };
        let (outcome, digest) = (answer.outcome(), answer.digest());
        let expected = Expected { header, executor_org: &target.org, outcome, answer: digest };
        let receipt = receipt
            .ok_or(ReceiptError::Missing)
            .and_then(|bytes| Receipt::verify(bytes, expected, &self.plan.mesh));
        let health = match (&receipt, answer) {
            (Err(_), _) => Health::PeerFault,
            (Ok(_), Answer::Failed(failure)) => failure_health(failure),
            (Ok(_), Answer::Result(_) | Answer::Error(_)) => Health::Answered,
        };
        self.finish_answered(receipt, health);
    }

    fn finish_answered(&mut self, receipt: Result<Verified<Receipt>, ReceiptError>, health: Health) {
        let Some(Current { attempt, target, spoken, stage: Stage::Answered(answer), .. }) =
            self.current.take()
        else {
            return;
        };
        let again = receipt.is_ok() && !spoken;
        self.effects.push_back(Effect::Close { attempt, health, again });
        self.finish(CallOutcome::Answered { executor: target, answer, receipt });
    }

    fn finish_in_doubt(&mut self, detail: String) {
        let Some(Current { attempt, target, .. }) = self.current.take() else { return };
        self.effects.push_back(Effect::Close { attempt, health: Health::PeerFault, again: false });
        self.finish(CallOutcome::Failed(CallFailure::InDoubt { executor: target, detail }));
    }

    fn finish_exhausted(&mut self, budget_spent: bool) {
        if let Some(executor) = self.doubtful.take() {
            let detail = "it was given the call and did not answer, and nobody else did".to_owned();
            return self.finish(CallOutcome::Failed(CallFailure::InDoubt { executor, detail }));
        }
        let attempts = core::mem::take(&mut self.failed);
        self.finish(CallOutcome::Failed(CallFailure::Exhausted { attempts, budget_spent }));
    }

    fn finish_cancelled(&mut self, handed_over: bool) {
        self.close(Health::Neutral);
        let handed_over = handed_over || self.doubtful.is_some();
        self.finish(CallOutcome::Failed(CallFailure::Cancelled { handed_over }));
    }

    fn finish_timeout(&mut self, handed_over: bool, now: Now) {
        let waited = self.current.as_ref().map_or(Duration::ZERO, |current| now.mono.since(current.began));
        let health = match handed_over {
            _ if waited < PATIENCE_FAIR => Health::Neutral,
            true => Health::CapabilityFault,
            false => Health::PeerFault,
        };
        self.close(health);
        let handed_over = handed_over || self.doubtful.is_some();
        self.finish(CallOutcome::Failed(CallFailure::Timeout { handed_over }));
    }

    fn close(&mut self, health: Health) {
        if let Some(Current { attempt, .. }) = self.current.take() {
            self.effects.push_back(Effect::Close { attempt, health, again: false });
        }
    }

    fn finish(&mut self, outcome: CallOutcome) {
        self.current = None;
        self.waiting.clear();
        self.finished = true;
        self.effects.push_back(Effect::Finish(Box::new(outcome)));
    }
}

/// Whether an attempt that failed may have been run: its body was out, and nobody said that it went no further.
const fn may_have_run(stage: &Stage, cause: &AttemptFailure) -> bool {
    match cause {
        AttemptFailure::Refused(_) => false,
        AttemptFailure::Failed(failure) => failure.handed_over,
        AttemptFailure::Lost(_) | AttemptFailure::Silent(_) => {
            matches!(stage, Stage::Pipelined | Stage::Running)
        }
    }
}

#[cfg(test)]
mod tests;
