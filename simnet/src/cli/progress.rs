//! A line on the terminal that says how far a run has come. Where standard error is no terminal there is none.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use crate::shrink::Status;

/// The line.
pub(super) struct Progress {
    total: Duration,
    shows: bool,
    shown: u64,
    before: String,
}

impl Progress {
    /// A line for runs of `total`; none when programs read the output.
    pub(super) fn new(total: Duration, json: bool) -> Self {
        let shows = !json && std::io::stderr().is_terminal();
        Self { total, shows, shown: u64::MAX, before: String::new() }
    }

    /// The same, with something in front.
    pub(super) fn after(self, before: String) -> Self {
        Self { before, ..self }
    }

    /// Shows where a run is, when that has changed enough to be seen.
    pub(super) fn show(&mut self, scenario: &str, seed: u64, at: Duration) {
        let percent = share_of(at, self.total);
        if self.shows && percent != self.shown {
            self.shown = percent;
            let before = &self.before;
            let _ = write!(std::io::stderr(), "\r{before}{scenario} seed {seed}: {percent:>3} %\x1b[K");
        }
    }

    /// Shows how far a search for a smaller run has come.
    pub(super) fn shrinking(&mut self, took: Duration, status: Status) {
        let shown = u64::from(status.attempts);
        if self.shows && shown != self.shown {
            self.shown = shown;
            let percent = share_of(took, self.total);
            let Status { attempts, size } = status;
            let _ = write!(
                std::io::stderr(),
                "\rshrinking, {attempts} runs, {percent} % of the time: {size}\x1b[K"
            );
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if self.shows {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn share_of(part: Duration, total: Duration) -> u64 {
    let percent = part.as_millis() * 100 / total.as_millis().max(1);
    u64::try_from(percent).unwrap_or(100).min(100)
}
