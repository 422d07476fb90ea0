//! The promise that a batch will be durable, for threads and for tasks.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};

use super::CommitError;
use crate::sync::{lock, wait};

type Outcome = Result<(), CommitError>;

/// Resolves to `Ok` once the batch would survive a power cut, and to an error if it will not be written.
///
/// Await it in a task, or [`Ticket::wait`] for it on a thread. Dropping it forgets the answer; the batch
/// is committed all the same. As a future it is cancel-safe: polling again later loses nothing.
#[must_use = "nothing is durable until the ticket says so"]
#[derive(Debug)]
pub struct Ticket(Arc<Slot>);

/// The committer's half. Dropping it unkept resolves the ticket to [`CommitError::Closed`].
#[derive(Debug)]
pub(crate) struct Promise(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

/// A connected pair.
pub(crate) fn ticket() -> (Promise, Ticket) {
    let slot = Arc::new(Slot::default());
    (Promise(Arc::clone(&slot)), Ticket(slot))
}

impl Ticket {
    /// Blocks the thread until the batch is durable or failed.
    ///
    /// # Errors
    /// As [`CommitError`] says.
    pub fn wait(self) -> Result<(), CommitError> {
        let mut state = lock(&self.0.state);
        loop {
            match &state.outcome {
                Some(outcome) => return outcome.clone(),
                None => state = wait(&self.0.done, state),
            }
        }
    }

    /// The outcome if it is known.
    pub fn poll_now(&self) -> Option<Result<(), CommitError>> {
        lock(&self.0.state).outcome.clone()
    }
}

impl Future for Ticket {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = lock(&self.0.state);
        match &state.outcome {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Promise {
    /// Resolves the ticket.
    pub(crate) fn keep(self, outcome: Outcome) {
        self.resolve(outcome);
    }

    fn resolve(&self, outcome: Outcome) {
        let mut state = lock(&self.0.state);
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        self.0.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.resolve(Err(CommitError::Closed));
    }
}
