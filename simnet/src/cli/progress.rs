//! A line on the terminal that says how far a run has come. Where standard error is no terminal there is none.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// The line.
pub(super) struct Progress {
    total: Duration,
    shows: bool,
    shown: u64,
}

impl Progress {
    /// A line for runs of `total`; none when programs read the output.
    pub(super) fn new(total: Duration, json: bool) -> Self {
        Self { total, shows: !json && std::io::stderr().is_terminal(), shown: u64::MAX }
    }

    /// Shows where a run is, when that has changed enough to be seen.
    pub(super) fn show(&mut self, scenario: &str, seed: u64, at: Duration) {
        let percent = at.as_millis() * 100 / self.total.as_millis().max(1);
        let percent = u64::try_from(percent).unwrap_or(100).min(100);
        if self.shows && percent != self.shown {
            self.shown = percent;
            let _ = write!(std::io::stderr(), "\r{scenario} seed {seed}: {percent:>3} %\x1b[K");
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.shows {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
