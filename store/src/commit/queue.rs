//! The bounded queue between writers and the committer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

use super::batch::Batch;
use super::committer::{GROUP_BATCHES_MAX, GROUP_BYTES_MAX};
use super::ticket::Promise;
use crate::sync::{lock, wait};

/// Most batches that wait for the committer.
pub const QUEUE_BATCHES_MAX: usize = 1024;
/// Most bytes of keys and values that wait for the committer.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;

/// A batch and the promise made for it.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) batch: Batch,
    pub(crate) promise: Promise,
}

/// What to do with a batch when the queue is full.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WhenFull {
    Refuse,
    Wait,
}

/// Why a batch was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    Full,
    Closed,
}

/// First in, first out; full when either bound is reached.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Pending>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    /// Queues a batch.
    pub(crate) fn push(&self, pending: Pending, when_full: WhenFull) -> Result<(), PushError> {
        let mut state = lock(&self.state);
        let bytes = pending.batch.bytes();
        while !state.closed && !state.has_room_for(bytes) {
            match when_full {
                WhenFull::Refuse => return Err(PushError::Full),
                WhenFull::Wait => state = wait(&self.emptied, state),
            }
        }
        if state.closed {
            return Err(PushError::Closed);
        }
        state.bytes += bytes;
        state.pending.push_back(pending);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for work and takes as much of it as one group may hold; `None` once closed and drained.
    pub(crate) fn next_group(&self) -> Option<Vec<Pending>> {
        let mut state = lock(&self.state);
        while state.pending.is_empty() {
            if state.closed {
                return None;
            }
            state = wait(&self.filled, state);
        }
        let group = state.take_group();
        drop(state);
        self.emptied.notify_all();
        Some(group)
    }

    /// Refuses new work and wakes everyone; what is queued stays for the committer.
    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }
}

impl State {
    fn has_room_for(&self, bytes: usize) -> bool {
        self.pending.len() < QUEUE_BATCHES_MAX && self.bytes + bytes <= QUEUE_BYTES_MAX
    }

    fn take_group(&mut self) -> Vec<Pending> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.pending.front() {
            bytes += next.batch.bytes();
            let full = group.len() >= GROUP_BATCHES_MAX || bytes > GROUP_BYTES_MAX;
            if full && !group.is_empty() {
                break;
            }
            group.extend(self.pending.pop_front());
        }
        self.bytes -= group.iter().map(|pending| pending.batch.bytes()).sum::<usize>();
        group
    }
}
