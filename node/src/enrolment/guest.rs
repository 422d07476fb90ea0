//! The joiner's side of one stream: drives [`Joiner`] and does for it what only its node and its operator can.

use std::future::Future;
use std::pin::pin;

use comity_protocol::enrol::{CONFIRM_TIMEOUT, EnrolError, Enrolled, Joiner, JoinerOutput, Words};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep_until, timeout};

use super::frames::Frames;
use crate::clock::Clock;

/// What a joining node does for the machine.
pub(crate) trait Visiting: Sync {
    /// Shows the words and asks the operator whether the other side shows the same. Dropped when the exchange ends.
    fn compare(&self, words: Words) -> impl Future<Output = bool> + Send;

    /// Tells that the other side's operator is comparing the words.
    fn waiting(&self) -> impl Future<Output = ()> + Send;

    /// Keeps what was granted. When this returns that is durable.
    fn store(&self, enrolled: Enrolled) -> impl Future<Output = Result<(), String>> + Send;
}

/// Why an enrolment did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VisitError {
    /// The machine's reason.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// This side's operator said that the words differ.
    #[error("the words were not confirmed, so nothing was stored")]
    Declined,
}

/// Takes the joiner's side of a stream to its end.
pub(crate) async fn visit<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    mut joiner: Joiner,
    visiting: &impl Visiting,
    clock: Clock,
) -> Result<(), VisitError> {
    let mut frames = Frames::new(stream);
    let words = loop {
        match carry_out(&mut joiner, &mut frames).await {
            Some(Step::Words(words)) => break words,
            Some(Step::Finished(outcome)) => return end(frames, outcome).await,
            Some(_) => {}
            None => wait(&mut joiner, &mut frames, clock).await,
        }
    };
    let mut compared = pin!(visiting.compare(words));
    let mut same = None;
    loop {
        match carry_out(&mut joiner, &mut frames).await {
            Some(Step::Store(enrolled)) => {
                // Both operators have had their say before anything is kept.
                let said = match same {
                    Some(said) => said,
                    None => timeout(CONFIRM_TIMEOUT, &mut compared).await.unwrap_or(false),
                };
                if !said {
                    return Err(VisitError::Declined);
                }
                same = Some(said);
                joiner.handle_stored(visiting.store(*enrolled).await);
            }
            Some(Step::Waiting) => visiting.waiting().await,
            Some(Step::Finished(outcome)) => return end(frames, outcome).await,
            Some(Step::Words(_)) => {}
            None => tokio::select! {
                said = &mut compared, if same.is_none() => match said {
                    // The stream ends here, and the other side learns it from that.
                    false => return Err(VisitError::Declined),
                    true => same = Some(true),
                },
                () = wait(&mut joiner, &mut frames, clock) => {}
            },
        }
    }
}

/// What the machine wants of the operator or of the store.
enum Step {
    Words(Words),
    Waiting,
    Store(Box<Enrolled>),
    Finished(Result<(), EnrolError>),
}

/// Sends what the machine wants sent, up to the next step that is not for the stream.
async fn carry_out<S: AsyncRead + AsyncWrite + Unpin>(
    joiner: &mut Joiner,
    frames: &mut Frames<S>,
) -> Option<Step> {
    while let Some(output) = joiner.poll_output() {
        match output {
            JoinerOutput::Send(frame) => {
                if frames.send(&frame).await.is_err() {
                    joiner.handle_closed();
                }
            }
            JoinerOutput::Words(words) => return Some(Step::Words(words)),
            JoinerOutput::Waiting => return Some(Step::Waiting),
            JoinerOutput::Store(enrolled) => return Some(Step::Store(enrolled)),
            JoinerOutput::Finished(outcome) => return Some(Step::Finished(outcome)),
        }
    }
    None
}

/// Waits for a frame, the end of the stream or the deadline, and tells the machine. Cancel-safe.
async fn wait<S: AsyncRead + AsyncWrite + Unpin>(joiner: &mut Joiner, frames: &mut Frames<S>, clock: Clock) {
    let Some(deadline) = joiner.poll_timeout() else { return };
    tokio::select! {
        frame = frames.next(joiner.frame_bytes_max()) => match frame {
            Ok(Some(frame)) => joiner.handle_frame(&frame, clock.now()),
            Ok(None) | Err(_) => joiner.handle_closed(),
        },
        () = sleep_until(clock.instant(deadline)) => joiner.handle_timeout(clock.now()),
    }
}

async fn end<S: AsyncRead + AsyncWrite + Unpin>(
    frames: Frames<S>,
    outcome: Result<(), EnrolError>,
) -> Result<(), VisitError> {
    frames.finish().await;
    Ok(outcome?)
}
