//! A legacy call's stream that outlives its connection: what is not sent yet waits, what was sent can be sent again.
//!
//! One writer (the call's task) and at most one reader (the connection that the client has open for it). A reader that
//! comes takes the stream over from the one before. Source: MCP 2025-11-25 "Resumability and Redelivery".

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use comity_protocol::jsonrpc::Message;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::sse::{self, EventId, Source};

/// Events that one stream holds, sent or not. When so many are unsent, the call waits; sent ones give way.
pub(super) const EVENTS_MAX: usize = 256;

/// Bytes that one stream holds, with the same behaviour; a single larger event is taken when nothing else is unsent.
pub(super) const BYTES_MAX: usize = 256 * 1024;

/// One resumable stream.
#[derive(Debug)]
pub(super) struct StreamLog {
    id: u64,
    state: Mutex<State>,
    /// There is something to read, or the reader has lost its place.
    readable: Notify,
    /// There is room, or everything has been read.
    writable: Notify,
    /// When the last reader left; `None` while there is one.
    detached: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// The sequence number of the first event held.
    first: u64,
    /// The sequence number that the reader takes next; within what is held, or one past it.
    next: u64,
    /// Bytes from `next` on.
    unsent_bytes: usize,
    /// Grows with each reader.
    reader: u64,
    finished: bool,
}

impl StreamLog {
    /// An empty stream. With `primed`, its first event only carries an id.
    pub(super) fn new(id: u64, primed: bool) -> Arc<Self> {
        let mut state = State::default();
        if primed {
            state.push(sse::priming(EventId { stream: id, sequence: 0 }));
        }
        let (detached, _) = watch::channel(Some(Instant::now()));
        let (readable, writable) = (Notify::new(), Notify::new());
        Arc::new(Self { id, state: Mutex::new(state), readable, writable, detached })
    }

    /// Adds an event; waits while the unsent ones fill the stream. Cancel-safe: the event is added whole or not at all.
    pub(super) async fn append(&self, message: &Message) {
        loop {
            let room = self.writable.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.try_append(message) {
                self.readable.notify_waiters();
                return;
            }
            room.await;
        }
    }

    /// No event will follow.
    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.readable.notify_waiters();
    }

    /// Whether it holds more than [`BYTES_MAX`], which takes a single large event.
    pub(super) fn is_oversized(&self) -> bool {
        self.lock().bytes > BYTES_MAX
    }

    /// Waits until the stream is finished and read to its end. Cancel-safe.
    pub(super) async fn read_out(&self) {
        loop {
            let read = self.writable.notified();
            tokio::pin!(read);
            read.as_mut().enable();
            if self.lock().is_read_out() {
                return;
            }
            read.await;
        }
    }

    /// Waits until nobody has read the stream for `grace`. Cancel-safe.
    pub(super) async fn abandoned(&self, grace: Duration) {
        let mut detached = self.detached.subscribe();
        loop {
            let since = *detached.borrow_and_update();
            let over = async {
                match since {
                    Some(since) => tokio::time::sleep_until(since + grace).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                changed = detached.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Reads on after the event `after`, or from the start. Events that gave way are skipped.
    pub(super) fn attach(self: &Arc<Self>, after: Option<u64>) -> Reader {
        let mut state = self.lock();
        state.reader += 1;
        state.seek(after.map_or(0, |after| after.saturating_add(1)));
        let reader = Reader { log: Arc::clone(self), number: state.reader };
        drop(state);
        self.detached.send_replace(None);
        self.readable.notify_waiters();
        reader
    }

    fn try_append(&self, message: &Message) -> bool {
        let mut state = self.lock();
        let unsent = state.unsent();
        let fits = unsent < EVENTS_MAX && state.unsent_bytes + message.payload_len() <= BYTES_MAX;
        if unsent > 0 && !fits {
            return false;
        }
        let sequence = state.end();
        state.push(sse::event(Some(EventId { stream: self.id, sequence }), message));
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change keeps the sums true before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One past the last event.
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn unsent(&self) -> usize {
        usize::try_from(self.end() - self.next).unwrap_or(usize::MAX)
    }

    fn push(&mut self, event: Bytes) {
        self.bytes += event.len();
        self.unsent_bytes += event.len();
        self.events.push_back(event);
        self.evict();
    }

    /// Sent events give way to keep the bounds.
    fn evict(&mut self) {
        while self.first < self.next && (self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX) {
            let Some(event) = self.events.pop_front() else { return };
            self.bytes -= event.len();
            self.first += 1;
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let at = usize::try_from(self.next - self.first).ok()?;
        let event = self.events.get(at)?.clone();
        self.next += 1;
        self.unsent_bytes -= event.len();
        self.evict();
        Some(event)
    }

    fn seek(&mut self, sequence: u64) {
        self.next = sequence.clamp(self.first, self.end());
        let unsent = self.unsent();
        self.unsent_bytes = self.events.iter().rev().take(unsent).map(Bytes::len).sum();
    }

    fn is_read_out(&self) -> bool {
        self.finished && self.unsent() == 0
    }
}

/// The connection that reads a stream. Dropping it leaves the stream to be resumed.
#[derive(Debug)]
pub(super) struct Reader {
    log: Arc<StreamLog>,
    number: u64,
}

enum Step {
    Event(Bytes),
    End,
    Wait,
}

impl Reader {
    fn step(&self) -> Step {
        let mut state = self.log.lock();
        if state.reader != self.number {
            return Step::End;
        }
        match state.take() {
            Some(event) => Step::Event(event),
            None if state.finished => Step::End,
            None => Step::Wait,
        }
    }
}

impl Source for Reader {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let more = self.log.readable.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            match self.step() {
                Step::Event(event) => {
                    self.log.writable.notify_waiters();
                    return Some(event);
                }
                Step::End => return None,
                Step::Wait => more.await,
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.log.lock().reader == self.number {
            self.log.detached.send_replace(Some(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use comity_protocol::json;

    use super::*;

    fn message(n: u64) -> Message {
        Message::notification("n", Some(json::to_raw(&n)))
    }

    async fn read(reader: &mut Reader) -> String {
        String::from_utf8(reader.next().await.unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_misses_nothing() {
        let log = StreamLog::new(4, true);
        let mut reader = log.attach(None);
        assert!(read(&mut reader).await.starts_with("id: 4-0\nretry: 3000\ndata: \n"));
        for n in 1..=3 {
            log.append(&message(n)).await;
        }
        assert!(read(&mut reader).await.starts_with("id: 4-1\n"));
        assert!(read(&mut reader).await.starts_with("id: 4-2\n"));
        drop(reader);
        log.append(&message(4)).await;
        log.finish();
        let mut again = log.attach(Some(1));
        for n in 2..=4 {
            let event = read(&mut again).await;
            assert!(event.starts_with(&format!("id: 4-{n}\n")) && event.contains(&format!("\"params\":{n}")));
        }
        assert!(again.next().await.is_none());
        log.read_out().await;
    }

    #[tokio::test]
    async fn a_later_reader_takes_over() {
        let log = StreamLog::new(1, false);
        let mut first = log.attach(None);
        let mut second = log.attach(None);
        log.append(&message(0)).await;
        assert!(first.next().await.is_none());
        assert!(read(&mut second).await.starts_with("id: 1-0\n"));
        drop(first);
        assert!(log.detached.borrow().is_none(), "the stream still has its second reader");
    }

    #[tokio::test]
    async fn a_full_stream_makes_the_call_wait_and_loses_nothing() {
        let log = StreamLog::new(1, false);
        for n in 0..EVENTS_MAX as u64 {
            log.append(&message(n)).await;
        }
        let overflow = message(EVENTS_MAX as u64);
        let mut blocked = Box::pin(log.append(&overflow));
        assert!(futures::poll!(&mut blocked).is_pending());
        let mut reader = log.attach(None);
        assert!(read(&mut reader).await.contains("\"params\":0}"));
        blocked.await;
        for n in 1..=EVENTS_MAX {
            assert!(read(&mut reader).await.contains(&format!("\"params\":{n}}}")));
        }
        let state = log.lock();
        assert!(state.events.len() <= EVENTS_MAX && state.bytes <= BYTES_MAX && state.unsent_bytes == 0);
    }

    #[tokio::test]
    async fn an_event_larger_than_the_stream_passes_alone() {
        let log = StreamLog::new(1, false);
        let large = Message::notification("n", Some(json::to_raw(&"x".repeat(BYTES_MAX * 2))));
        log.append(&large).await;
        let (mut blocked, mut reader) = (Box::pin(log.append(&large)), log.attach(None));
        assert!(futures::poll!(&mut blocked).is_pending());
        assert!(reader.next().await.unwrap().len() > BYTES_MAX * 2);
        blocked.await;
        assert_eq!(log.lock().events.len(), 1);
        assert!(log.is_oversized());
    }

    #[tokio::test]
    async fn abandonment_counts_from_the_last_reader() {
        let log = StreamLog::new(1, false);
        let grace = Duration::from_millis(5);
        let reader = log.attach(None);
        let mut abandoned = Box::pin(log.abandoned(grace));
        assert!(futures::poll!(&mut abandoned).is_pending());
        drop(reader);
        let again = log.attach(None);
        assert!(futures::poll!(&mut abandoned).is_pending());
        let left = Instant::now();
        drop(again);
        abandoned.await;
        assert!(left.elapsed() >= grace);
    }
}
