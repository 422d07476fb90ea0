//! The end of a connection, as the streams on it hear of it.
//!
//! A multiplexer does not always tell its streams that their connection is over. Yamux 0.14 does when the peer goes away,
//! and does not when *we* close: whoever waits for a stream then waits for ever, which for a call means until its
//! deadline. A node closes a connection whose peer has fallen silent or whose link has ended, so this is the ordinary
//! case. Streams are therefore woken, and told, when the handler of their connection is dropped, which is the end under
//! every transport.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use libp2p::futures::task::AtomicWaker;

/// Wakes the reader and the writer of a stream, whichever of them wait.
#[derive(Debug, Default)]
pub(crate) struct BothHalves {
    pub(super) reader: AtomicWaker,
    pub(super) writer: AtomicWaker,
}

impl Wake for BothHalves {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

/// Whether a connection is over, and whom to wake when it is. Holds one entry for each open stream.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    over: AtomicBool,
    streams: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    halves: BTreeMap<u64, Arc<BothHalves>>,
}

impl Ending {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection is over. A stream that has registered its wakers and then finds that it is not will be woken
    /// when it is.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The connection is over: wakes everybody.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        let halves = std::mem::take(&mut self.lock().halves);
        halves.values().for_each(|halves| halves.wake_by_ref());
    }

    /// A stream begins; the number is for [`Self::leave`].
    pub(super) fn enter(&self, halves: Arc<BothHalves>) -> u64 {
        let mut waiting = self.lock();
        waiting.next += 1;
        let number = waiting.next;
        waiting.halves.insert(number, halves);
        number
    }

    /// A stream has ended.
    pub(super) fn leave(&self, number: u64) {
        self.lock().halves.remove(&number);
    }
}
