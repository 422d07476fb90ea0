//! What a server writes that is no message: its standard error, and stray lines on its standard
//! output. Both go to the log, cut short and slowed down, so that a server cannot flood it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use comity_protocol::ids::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::lines::{Line, Lines};

/// Bytes of a line that are logged.
pub(super) const LOGGED_BYTES_MAX: usize = 2048;

/// Lines that may be logged at once before the rate applies.
const BURST_LINES: u32 = 200;

/// Lines a second that are logged in the long run.
const LINES_PER_SECOND: f64 = 20.0;

/// Bytes asked of the pipe at a time.
const READ_BYTES: usize = 4096;

/// Lines of standard error that are kept to say why a server ended.
const LAST_WORDS_LINES: usize = 5;

/// A token bucket that counts what it refuses.
#[derive(Debug)]
pub(super) struct Throttle {
    tokens: f64,
    at: Instant,
    suppressed: u64,
}

impl Throttle {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: f64::from(BURST_LINES), at: now, suppressed: 0 }
    }

    /// Whether one more line may be logged, and if so how many were suppressed before it.
    pub(super) fn admit(&mut self, now: Instant) -> Option<u64> {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * LINES_PER_SECOND;
        self.tokens = (self.tokens + gained).min(f64::from(BURST_LINES));
        self.at = now;
        if self.tokens < 1.0 {
            self.suppressed += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// The text of a line as it may stand in a log: valid, short, without control characters.
pub(super) fn printable(line: &[u8]) -> String {
    let cut = &line[..line.len().min(LOGGED_BYTES_MAX)];
    let mut text: String = String::from_utf8_lossy(cut)
        .chars()
        .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
        .collect();
    if line.len() > cut.len() {
        text.push('…');
    }
    text
}

/// The last lines that a server wrote to its standard error.
#[derive(Debug, Clone, Default)]
pub(super) struct LastWords(Arc<Mutex<VecDeque<String>>>);

impl LastWords {
    fn hear(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_WORDS_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The most telling line: the last that is not blank. For the operator only; it may hold
    /// anything that the server knows.
    pub(super) fn last(&self) -> Option<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().rev().find(|line| !line.trim().is_empty()).cloned()
    }
}

/// Copies a server's standard error into the log until it ends.
pub(super) async fn log_stderr(server: ServerName, mut stderr: impl AsyncRead + Unpin, words: LastWords) {
    let mut lines = Lines::new(LOGGED_BYTES_MAX);
    let mut throttle = Throttle::new(Instant::now());
    loop {
        let buffer = lines.buffer();
        buffer.reserve(READ_BYTES);
        match stderr.read_buf(buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        while let Some(line) = lines.next() {
            let text = match &line {
                Line::Whole(bytes) => printable(bytes),
                Line::TooLong(discarded) => format!("{}…", printable(&discarded.head)),
            };
            words.hear(&text);
            if let Some(suppressed) = throttle.admit(Instant::now()) {
                tracing::info!(%server, suppressed, "stderr: {text}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_slowed_and_counted() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let logged = (0..10_000).filter(|_| throttle.admit(start).is_some()).count();
        assert_eq!(logged, BURST_LINES as usize);
        let later = start + Duration::from_secs(1);
        assert_eq!(throttle.admit(later), Some(10_000 - u64::from(BURST_LINES)));
        assert_eq!(throttle.admit(later), Some(0));
        let again = (0..10_000).filter(|_| throttle.admit(later).is_some()).count();
        assert_eq!(again, LINES_PER_SECOND as usize - 2);
    }

    #[test]
    fn what_is_logged_is_text_on_one_line() {
        assert_eq!(printable(b"\x1b[31mred\x1b[0m\ttab\xff"), " [31mred [0m\ttab\u{fffd}");
        let long = printable(&b"y".repeat(10_000));
        assert!(long.len() < LOGGED_BYTES_MAX + 4 && long.ends_with('…'));
    }

    #[tokio::test]
    async fn last_words_are_kept_even_of_a_flood() {
        let words = LastWords::default();
        let flood =
            [b"x".repeat(1 << 20), b"\n".repeat(1000), b"Traceback\nModuleNotFoundError: no\n\n".to_vec()];
        log_stderr("s".parse().unwrap(), &flood.concat()[..], words.clone()).await;
        assert_eq!(words.last().as_deref(), Some("ModuleNotFoundError: no"));
    }
}
