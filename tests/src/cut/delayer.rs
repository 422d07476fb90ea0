//! The wire: packets that wait for their time, in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Packets that may be under way at once; more are lost, as in a router whose queue is full.
pub const UNDER_WAY_MAX: usize = 65_536;

/// Delivers each packet when its time has come, and packets of the same delay in the order in which they came. Its
/// thread ends when this is dropped; what is under way then is lost.
#[derive(Debug)]
pub struct Delayer<T> {
    wire: Arc<Wire<T>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Wire<T> {
    queue: Mutex<Queue<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Queue<T> {
    /// By due time, then by arrival.
    waiting: BinaryHeap<Reverse<Waiting<T>>>,
    arrivals: u64,
    closed: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    due: Instant,
    arrival: u64,
    packet: T,
}

impl<T> Waiting<T> {
    fn key(&self) -> (Instant, u64) {
        (self.due, self.arrival)
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> Wire<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next packet when it is due; `None` when the wire has been taken down.
    fn next(&self) -> Option<T> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            let now = Instant::now();
            queue = match queue.waiting.peek().map(|Reverse(first)| first.due) {
                Some(due) if due <= now => return queue.waiting.pop().map(|Reverse(first)| first.packet),
                Some(due) => {
                    let wait = self.changed.wait_timeout(queue, due - now);
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Where packets enter a wire. Cheap to clone.
#[derive(Debug)]
pub struct Sender<T>(Arc<Wire<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Delivers a packet so much later.
    pub fn send(&self, packet: T, delay: Duration) {
        let mut queue = self.0.lock();
        if queue.waiting.len() < UNDER_WAY_MAX {
            queue.arrivals += 1;
            let arrival = queue.arrivals;
            queue.waiting.push(Reverse(Waiting { due: Instant::now() + delay, arrival, packet }));
            self.0.changed.notify_one();
        }
    }
}

impl<T: Send + 'static> Delayer<T> {
    /// A wire that gives what arrives to `deliver`.
    pub fn new(mut deliver: impl FnMut(T) + Send + 'static) -> Self {
        let queue = Queue { waiting: BinaryHeap::new(), arrivals: 0, closed: false };
        let wire = Arc::new(Wire { queue: Mutex::new(queue), changed: Condvar::new() });
        let carried = wire.clone();
        let thread = thread::spawn(move || {
            while let Some(packet) = carried.next() {
                deliver(packet);
            }
        });
        Delayer { wire, thread: Some(thread) }
    }

    /// Its entrance.
    pub fn sender(&self) -> Sender<T> {
        Sender(self.wire.clone())
    }
}

impl<T> Drop for Delayer<T> {
    fn drop(&mut self) {
        self.wire.lock().closed = true;
        self.wire.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn packets_come_late_and_in_order() {
        let (arrived, arrivals) = mpsc::channel();
        let wire = Delayer::new(move |packet| arrived.send((packet, Instant::now())).expect("it is read"));
        let (began, late, later) = (Instant::now(), Duration::from_millis(30), Duration::from_millis(60));
        for (packet, delay) in [(1, later), (2, late), (3, late), (4, later)] {
            wire.sender().send(packet, delay);
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            let (packet, at) = arrivals.recv_timeout(Duration::from_secs(60)).expect("it arrives");
            let delay = if matches!(packet, 2 | 3) { late } else { later };
            assert!(at >= began + delay, "{packet} came after {:?}", at - began);
            order.push(packet);
        }
        assert_eq!(order, [2, 3, 1, 4]);
    }
}
