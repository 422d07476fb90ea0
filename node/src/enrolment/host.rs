//! The inviter's side of one stream: drives [`Inviter`] and does for it what only a node can.

use std::future::Future;
use std::pin::pin;

use comity_protocol::enrol::{
    EnrolError, Guest, Inviter, InviterOutput, IssuedInvite, Question, RefusalCode, Welcomed, Words,
};
use comity_protocol::invite::InviteId;
use futures::future::Either;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep_until;

use super::frames::Frames;
use crate::clock::Clock;

/// What an inviting node does for the machine.
pub(crate) trait Hosting: Sync {
    /// The invite, if this joiner may use it now.
    fn find(&self, invite: InviteId) -> Result<IssuedInvite, RefusalCode>;

    /// Counts a wrong proof, durably.
    fn count_failure(&self, invite: InviteId) -> impl Future<Output = ()> + Send;

    /// Asks the operator whether the words are the same. Dropped when the joiner goes away meanwhile.
    fn confirm(&self, invite: InviteId, question: Question) -> impl Future<Output = bool> + Send;

    /// Uses the invite up for this joiner. When this returns that is durable.
    fn consume(&self, invite: InviteId) -> impl Future<Output = Result<(), RefusalCode>> + Send;

    /// Signs a membership for a node, or pins an org. When this returns that is durable.
    fn fulfil(
        &self,
        invite: InviteId,
        guest: Guest,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, String>> + Send;
}

/// A visit, as it ended.
#[derive(Debug)]
pub(crate) struct Visit {
    /// Which invite the joiner named, if it was found.
    pub(crate) invite: Option<InviteId>,
    /// The words that both sides showed, if it came to that.
    pub(crate) words: Option<Words>,
    /// How it ended.
    pub(crate) outcome: Result<Box<Welcomed>, EnrolError>,
}

/// Serves one joiner to the end. `first` is its first frame. The stream is left to the caller to finish: whoever waits for
/// the outcome need not wait for a joiner that does not hang up.
pub(crate) async fn host<S: AsyncRead + AsyncWrite + Unpin>(
    frames: &mut Frames<S>,
    first: &[u8],
    mut inviter: Inviter,
    hosting: &impl Hosting,
    clock: Clock,
) -> Visit {
    inviter.handle_frame(first, clock.now());
    let mut visit = Host { invite: None, words: None, question: None };
    let outcome = loop {
        if let Some(outcome) = visit.carry_out(&mut inviter, frames, hosting, clock).await {
            break outcome;
        }
        visit.wait(&mut inviter, frames, hosting, clock).await;
    };
    Visit { invite: visit.invite, words: visit.words, outcome }
}

struct Host {
    invite: Option<InviteId>,
    words: Option<Words>,
    /// What the operator is to be asked next.
    question: Option<Question>,
}

impl Host {
    /// Does all that the machine wants done; returns how it ended once it has.
    async fn carry_out<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        inviter: &mut Inviter,
        frames: &mut Frames<S>,
        hosting: &impl Hosting,
        clock: Clock,
    ) -> Option<Result<Box<Welcomed>, EnrolError>> {
        while let Some(output) = inviter.poll_output() {
            match output {
                InviterOutput::Send(frame) => {
                    if frames.send(&frame).await.is_err() {
                        inviter.handle_closed();
                    }
                }
                InviterOutput::Find(id) => {
                    let found = hosting.find(id);
                    self.invite = found.is_ok().then_some(id);
                    inviter.handle_invite(found, clock.now());
                }
                InviterOutput::CountFailure(id) => hosting.count_failure(id).await,
                InviterOutput::Words(words) => self.words = Some(words),
                InviterOutput::Confirm(question) => self.question = Some(*question),
                InviterOutput::Consume(id) => {
                    let consumed = hosting.consume(id).await;
                    inviter.handle_consumed(consumed, clock.now());
                }
                InviterOutput::Fulfil(guest) => {
                    let fulfilled = self.fulfil(hosting, *guest).await;
                    inviter.handle_fulfilled(fulfilled, clock.now());
                }
                InviterOutput::Finished(outcome) => return Some(outcome),
            }
        }
        None
    }

    async fn fulfil(&self, hosting: &impl Hosting, guest: Guest) -> Result<Option<Vec<u8>>, String> {
        // The machine asks for this only after it was given the invite.
        let invite = self.invite.ok_or("no invite was found")?;
        hosting.fulfil(invite, guest).await
    }

    /// Waits for the joiner, the operator or the deadline, and tells the machine.
    async fn wait<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        inviter: &mut Inviter,
        frames: &mut Frames<S>,
        hosting: &impl Hosting,
        clock: Clock,
    ) {
        let answer = match (self.invite, self.question.take()) {
            (Some(invite), Some(question)) => Either::Left(hosting.confirm(invite, question)),
            _ => Either::Right(std::future::pending()),
        };
        let mut answer = pin!(answer);
        let Some(deadline) = inviter.poll_timeout() else { return };
        let (max, wants_frame) = (inviter.frame_bytes_max(), inviter.wants_frame());
        tokio::select! {
            frame = frames.next(max), if wants_frame => match frame {
                Ok(Some(frame)) => inviter.handle_frame(&frame, clock.now()),
                // What cannot be framed cannot be read either: the machine says so in its own words.
                Err(error) if error.is_misbehaviour() => inviter.handle_frame(&[], clock.now()),
                Ok(None) | Err(_) => inviter.handle_closed(),
            },
            yes = &mut answer => inviter.handle_confirmed(yes, clock.now()),
            () = sleep_until(clock.instant(deadline)) => inviter.handle_timeout(clock.now()),
        }
    }
}
