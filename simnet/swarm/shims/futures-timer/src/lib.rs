//! Stands in for the package `futures-timer` in the simulator: its [`Delay`] runs on a thread of its own by the machine's clock,
//! this one on tokio's, which the simulator pauses.
//!
//! Must be used within a tokio runtime; the original may be used anywhere.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Longest delay that tokio's timer is given; whatever is longer is so in no simulation.
const DELAY_MAX: Duration = Duration::from_secs(365 * 86_400);

/// A future that is ready when its time has come.
pub struct Delay(Pin<Box<Sleep>>);

impl Delay {
    /// Ready in `duration` from now.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        Self(Box::pin(sleep(duration.min(DELAY_MAX))))
    }

    /// Sets it anew, to `duration` from now.
    pub fn reset(&mut self, duration: Duration) {
        self.0.as_mut().reset(Instant::now() + duration.min(DELAY_MAX));
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay").finish_non_exhaustive()
    }
}
