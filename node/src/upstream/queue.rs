//! What is to be written to a child's standard input: one shared buffer instead of a channel of
//! messages, so that messages queued together leave in one write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// Bytes that may wait for a child that does not read. One message may exceed it, so that any
/// message that is allowed at all can be sent.
pub(super) const QUEUED_BYTES_MAX: usize = 4 << 20;

/// Further bytes kept for answers and cancellations, which matter most when the queue is full.
const CONTROL_BYTES_RESERVE: usize = 1 << 20;

/// Buffer that is kept between writes.
const KEPT_BYTES: usize = 64 << 10;

/// A bounded buffer with many writers and one reader, [`pump`](Self::pump).
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    state: Mutex<State>,
    wake: Notify,
    taken: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// Bytes ever queued.
    end: u64,
    closed: bool,
}

/// Why nothing was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueueError {
    /// The child does not read.
    #[error("the server does not read its input")]
    Full,
    /// The pipe is closed.
    #[error("the server's input is closed")]
    Closed,
}

/// How a message counts against the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// A request.
    Call,
    /// An answer or a cancellation.
    Control,
}

impl WriteQueue {
    /// Appends what `write` writes. Returns where it starts, to be asked about with
    /// [`is_taken`](Self::is_taken).
    pub(super) fn push(
        &self,
        priority: Priority,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, QueueError> {
        let max = match priority {
            Priority::Call => QUEUED_BYTES_MAX,
            Priority::Control => QUEUED_BYTES_MAX + CONTROL_BYTES_RESERVE,
        };
        let mut state = self.lock();
        if state.closed {
            return Err(QueueError::Closed);
        }
        if state.bytes.len() >= max {
            return Err(QueueError::Full);
        }
        let (start, before) = (state.end, state.bytes.len());
        write(&mut state.bytes);
        state.end += (state.bytes.len() - before) as u64;
        drop(state);
        self.wake.notify_one();
        Ok(start)
    }

    /// Whether the bytes queued at `start` have begun to be written: from then on the server may
    /// have seen them.
    pub(super) fn is_taken(&self, start: u64) -> bool {
        self.taken.load(Ordering::Acquire) > start
    }

    /// Refuses everything from now on and lets [`pump`](Self::pump) end after what is queued.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Writes what is queued until the queue is closed and empty, or the pipe breaks; then shuts the
    /// pipe, which tells the child to end.
    pub(super) async fn pump(&self, mut pipe: impl AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut batch = Vec::new();
        loop {
            let closed = self.take(&mut batch);
            if batch.is_empty() {
                if closed {
                    return pipe.shutdown().await;
                }
                self.wake.notified().await;
                continue;
            }
            if let Err(error) = pipe.write_all(&batch).await {
                self.close();
                return Err(error);
            }
            pipe.flush().await?;
            batch.clear();
            batch.shrink_to(KEPT_BYTES);
        }
    }

    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut state = self.lock();
        std::mem::swap(&mut state.bytes, batch);
        self.taken.store(state.end, Ordering::Release);
        state.closed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic while appending leaves whole bytes at worst cut short; the pipe's reader copes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn put(queue: &WriteQueue, bytes: &[u8]) -> Result<u64, QueueError> {
        queue.push(Priority::Call, |out| out.extend_from_slice(bytes))
    }

    #[tokio::test]
    async fn messages_leave_in_order_and_are_known_to_have_left() {
        let queue = WriteQueue::default();
        let (ours, mut theirs) = tokio::io::duplex(8);
        let first = put(&queue, b"first\n").unwrap();
        let second = put(&queue, b"second\n").unwrap();
        assert!(!queue.is_taken(first));
        queue.close();
        assert_eq!(put(&queue, b"late"), Err(QueueError::Closed));
        let mut read = String::new();
        let (pumped, _) = tokio::join!(queue.pump(ours), theirs.read_to_string(&mut read));
        pumped.unwrap();
        assert_eq!(read, "first\nsecond\n");
        assert!(queue.is_taken(second));
    }

    #[tokio::test]
    async fn a_child_that_does_not_read_costs_bounded_memory() {
        let queue = WriteQueue::default();
        let chunk = vec![b'x'; 1 << 20];
        let queued = (0..100).take_while(|_| put(&queue, &chunk).is_ok()).count();
        assert_eq!(queued, 4);
        assert_eq!(put(&queue, b"x"), Err(QueueError::Full));
        assert!(queue.push(Priority::Control, |out| out.extend_from_slice(&chunk)).is_ok());
        assert_eq!(queue.push(Priority::Control, |out| out.push(0)), Err(QueueError::Full));
    }

    #[tokio::test]
    async fn a_broken_pipe_closes_the_queue() {
        let queue = WriteQueue::default();
        let (ours, theirs) = tokio::io::duplex(8);
        drop(theirs);
        put(&queue, b"x").unwrap();
        assert!(queue.pump(ours).await.is_err());
        assert_eq!(put(&queue, b"x"), Err(QueueError::Closed));
    }
}
