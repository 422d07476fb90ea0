//! One try at a candidate, in the router's statistics until it ends however it ends.

use comity_protocol::route::{Attempt, Health};

use super::Calls;

/// A try in flight. One that is dropped without a verdict, because its task ended early, says nothing about its peer; it
/// must not look as if it hung for ever.
pub(super) struct Trying<'a> {
    calls: &'a Calls,
    attempt: Option<Attempt>,
}

impl<'a> Trying<'a> {
    pub(super) fn new(calls: &'a Calls, attempt: Attempt) -> Self {
        Self { calls, attempt: Some(attempt) }
    }

    /// The try has ended so.
    pub(super) fn end(mut self, health: Health) {
        self.finish(health);
    }

    fn finish(&mut self, health: Health) {
        if let Some(attempt) = self.attempt.take() {
            let now = self.calls.parts.clock.mono();
            self.calls.with_chooser(|chooser| chooser.finish(attempt, health, now));
        }
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        self.finish(Health::Neutral);
    }
}
