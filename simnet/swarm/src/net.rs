//! The network of a run: every connection between two processes, and when what is sent over it arrives.
//!
//! Paths, cuts and losses are the first tier's (`comity_simnet::stage`), so that both tiers run over the same network. A
//! connection is like TCP's: bytes keep their order, a lost packet costs time, a cut holds bytes back until it is mended, and a
//! process that is gone answers nothing.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use comity_simnet::moment::Moment;
use comity_simnet::stage::Stage;
use comity_simnet::trace::Trace;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::pipe::Pipe;

/// Bytes of one direction of a connection that are under way or unread; whoever writes more waits, as for TCP's window.
pub(crate) const WINDOW_BYTES: usize = 256 * 1024;

/// What every write costs besides itself: headers of TCP and IP.
pub(crate) const OVERHEAD_BYTES: usize = 60;

/// When the first packet of a dial is sent again, as in the first tier: RFC 9002, 6.2.2, and twice that each time after.
pub(crate) const DIAL_RESENDS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(7)];
/// How long a dial to nowhere takes to fail, as in the first tier.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted by one node; more are dropped.
pub(crate) const BACKLOG: usize = 256;

/// Kinds of traced events; those of nodes are in [`crate::world`].
const WRITTEN: u8 = 1;
const CONNECTED: u8 = 2;
const CLOSED: u8 = 3;

/// A node's process: which node, and its how manieth start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) node: usize,
    pub(crate) boot: u32,
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Dialler,
    Listener,
}

impl Side {
    const fn index(self) -> usize {
        match self {
            Self::Dialler => 0,
            Self::Listener => 1,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }
}

/// Shared by all ends of all connections of a run.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Net>>);

/// The network.
pub(crate) struct Net {
    pub(crate) stage: Stage,
    pub(crate) trace: Trace,
    origin: Instant,
    wires: BTreeMap<u64, Wire>,
    next_wire: u64,
    nodes: Vec<Host>,
}

/// A node as the network sees it.
#[derive(Default)]
struct Host {
    boot: u32,
    /// Where connections to it go; `None` while it is down.
    accepts: Option<mpsc::Sender<Pipe>>,
    bytes_sent: u64,
}

struct Wire {
    ends: [End; 2],
}

struct End {
    process: Process,
    /// Whether somebody holds it.
    held: bool,
    /// What is on its way to this end.
    incoming: Lane,
}

/// One direction of a connection.
#[derive(Default)]
struct Lane {
    queue: VecDeque<Chunk>,
    bytes: usize,
    last: Moment,
    /// Whether nothing more is sent.
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Chunk {
    /// When it arrives; `None` while a cut holds it back.
    at: Option<Moment>,
    bytes: Vec<u8>,
    read: usize,
}

/// What a read comes to.
pub(crate) enum Read {
    /// So many bytes; none at the end of the stream.
    Got(usize),
    /// Nothing before this moment.
    NotBefore(Moment),
    /// Nothing yet; the waker is kept.
    Wait,
    /// This process is gone.
    Gone,
}

/// What a write comes to.
pub(crate) enum Write {
    /// So many bytes were taken.
    Took(usize),
    /// The window is full; the waker is kept.
    Wait,
    /// This process is gone, or the peer has closed.
    Broken,
}

impl Shared {
    pub(crate) fn new(stage: Stage) -> Self {
        let nodes = (0..stage.nodes()).map(|_| Host::default()).collect();
        let (trace, origin) = (Trace::default(), Instant::now());
        Self(Arc::new(Mutex::new(Net { stage, trace, origin, wires: BTreeMap::new(), next_wire: 0, nodes })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Net> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a moment comes, by tokio's clock.
    pub(crate) fn instant(&self, at: Moment) -> Instant {
        self.lock().origin + Duration::from_micros(at.0)
    }

    /// A process starts to take connections.
    pub(crate) fn listen(&self, process: Process) -> mpsc::Receiver<Pipe> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let host = &mut self.lock().nodes[process.node];
        (host.boot, host.accepts) = (process.boot, Some(sender));
        receiver
    }

    /// A process is gone from one moment to the next. Nobody is told; what was on its way to it is lost.
    pub(crate) fn vanish(&self, node: usize) {
        let mut wakers = Vec::new();
        {
            let net = &mut *self.lock();
            net.nodes[node].accepts = None;
            net.nodes[node].boot += 1;
            for end in net.wires.values_mut().flat_map(|wire| &mut wire.ends) {
                if end.process.node == node {
                    wakers.extend(end.incoming.reader.take());
                    end.incoming.queue.clear();
                }
            }
            net.wake_writers(node, &mut wakers);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Two processes are connected, if the listener still lives. The dialler's end is returned, the listener's is on its way.
    pub(crate) fn connect(&self, dialler: Process, to: usize) -> Option<Pipe> {
        let (wire, accepts, heard_of) = {
            let net = &mut *self.lock();
            let host = &net.nodes[to];
            let (accepts, listener) = (host.accepts.clone()?, Process { node: to, boot: host.boot });
            let now = net.now();
            let heard_of = net.stage.arrival(dialler.node, to, OVERHEAD_BYTES, now);
            let wire = net.next_wire;
            net.next_wire += 1;
            let end = |process, last| End { process, held: true, incoming: Lane { last, ..Lane::default() } };
            net.wires.insert(wire, Wire { ends: [end(dialler, now), end(listener, heard_of)] });
            net.trace.event(now, CONNECTED, dialler.node, &(to as u64).to_le_bytes());
            (wire, accepts, heard_of)
        };
        let accepted = Pipe::new(self.clone(), wire, Side::Listener);
        let at = self.instant(heard_of);
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            // A full backlog drops the connection, which the dialler hears of.
            let _dropped = accepts.try_send(accepted);
        });
        Some(Pipe::new(self.clone(), wire, Side::Dialler))
    }

    /// The node that dialled a connection, one of whose ends somebody holds.
    pub(crate) fn dialler(&self, wire: u64) -> usize {
        self.lock().process(wire, Side::Dialler).map_or(0, |process| process.node)
    }

    /// What a cut held back and holds no longer goes on.
    pub(crate) fn mended(&self) {
        let mut wakers = Vec::new();
        self.lock().release(&mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn read(&self, wire: u64, side: Side, buffer: &mut [u8], waker: &Waker) -> Read {
        let (read, writer) = self.lock().read(wire, side, buffer, waker);
        writer.into_iter().for_each(Waker::wake);
        read
    }

    pub(crate) fn write(&self, wire: u64, side: Side, bytes: &[u8], waker: &Waker) -> Write {
        let (write, reader) = self.lock().write(wire, side, bytes, waker);
        reader.into_iter().for_each(Waker::wake);
        write
    }

    /// One side sends no more.
    pub(crate) fn end(&self, wire: u64, side: Side) {
        let reader = self.lock().end(wire, side);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Nobody holds one side any more.
    pub(crate) fn drop_end(&self, wire: u64, side: Side) {
        self.end(wire, side);
        let writer = self.lock().release_end(wire, side);
        writer.into_iter().for_each(Waker::wake);
    }
}

impl Net {
    /// How long the run has gone on.
    pub(crate) fn now(&self) -> Moment {
        Moment::after(self.origin.elapsed())
    }

    /// Whether a dial from a node to another can come to anything now.
    pub(crate) fn answers(&self, from: usize, to: usize) -> bool {
        from != to
            && self.nodes.get(to).is_some_and(|host| host.accepts.is_some())
            && self.stage.is_reachable(from, to)
    }

    /// Bytes that a node has sent.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.nodes.iter().map(|host| host.bytes_sent).sum()
    }

    fn lives(&self, process: Process) -> bool {
        self.nodes[process.node].boot == process.boot
    }

    fn wake_writers(&mut self, node: usize, wakers: &mut Vec<Waker>) {
        for wire in self.wires.values_mut() {
            for at in [0, 1] {
                if wire.ends[at].process.node == node {
                    wakers.extend(wire.ends[1 - at].incoming.writer.take());
                }
            }
        }
    }

    fn read(&mut self, wire: u64, side: Side, buffer: &mut [u8], waker: &Waker) -> (Read, Option<Waker>) {
        let now = self.now();
        if !self.process(wire, side).is_some_and(|process| self.lives(process)) {
            return (Read::Gone, None);
        }
        let Some(wire) = self.wires.get_mut(&wire) else { return (Read::Gone, None) };
        let lane = &mut wire.ends[side.index()].incoming;
        match lane.queue.front_mut() {
            None | Some(Chunk { at: None, .. }) => {
                lane.reader = Some(waker.clone());
                (Read::Wait, None)
            }
            Some(Chunk { at: Some(at), .. }) if *at > now => {
                lane.reader = Some(waker.clone());
                (Read::NotBefore(*at), None)
            }
            // The end of the stream stays where it is.
            Some(chunk) if chunk.bytes.is_empty() => (Read::Got(0), None),
            Some(chunk) => {
                let count = buffer.len().min(chunk.bytes.len() - chunk.read);
                buffer[..count].copy_from_slice(&chunk.bytes[chunk.read..chunk.read + count]);
                chunk.read += count;
                if chunk.read == chunk.bytes.len() {
                    lane.queue.pop_front();
                }
                lane.bytes -= count;
                (Read::Got(count), lane.writer.take())
            }
        }
    }

    fn write(&mut self, wire: u64, side: Side, bytes: &[u8], waker: &Waker) -> (Write, Option<Waker>) {
        let Some(process) = self.process(wire, side).filter(|process| self.lives(*process)) else {
            return (Write::Broken, None);
        };
        if self.has_heard_end(wire, side) {
            return (Write::Broken, None);
        }
        let Some(lane) = self.lane_from(wire, side).filter(|lane| !lane.ended) else {
            return (Write::Broken, None);
        };
        let count = bytes.len().min(WINDOW_BYTES.saturating_sub(lane.bytes));
        if count == 0 && !bytes.is_empty() {
            lane.writer = Some(waker.clone());
            return (Write::Wait, None);
        }
        lane.bytes += count;
        self.nodes[process.node].bytes_sent += (count + OVERHEAD_BYTES) as u64;
        let (now, taken) = (self.now(), bytes[..count].to_vec());
        self.trace.event(now, WRITTEN, process.node, &taken);
        let reader = self.send(wire, side, taken);
        (Write::Took(count), reader)
    }

    /// Whether the peer has closed and this side has had time to hear of it.
    fn has_heard_end(&self, wire: u64, side: Side) -> bool {
        let now = self.now();
        self.wires.get(&wire).is_none_or(|wire| {
            let gone = !wire.ends[side.other().index()].held;
            let last = wire.ends[side.index()].incoming.queue.back();
            gone && last.is_some_and(|end| end.bytes.is_empty() && end.at.is_some_and(|at| at <= now))
        })
    }

    fn end(&mut self, wire: u64, side: Side) -> Option<Waker> {
        let process = self.process(wire, side).filter(|process| self.lives(*process))?;
        let lane = self.lane_from(wire, side)?;
        if std::mem::replace(&mut lane.ended, true) {
            return None;
        }
        let now = self.now();
        self.trace.event(now, CLOSED, process.node, &wire.to_le_bytes());
        self.send(wire, side, Vec::new())
    }

    fn release_end(&mut self, wire: u64, side: Side) -> Option<Waker> {
        let ends = &mut self.wires.get_mut(&wire)?.ends;
        ends[side.index()].held = false;
        let writer = ends[side.index()].incoming.writer.take();
        if ends.iter().all(|end| !end.held) {
            self.wires.remove(&wire);
        }
        writer
    }

    fn process(&self, wire: u64, side: Side) -> Option<Process> {
        Some(self.wires.get(&wire)?.ends[side.index()].process)
    }

    /// What one side sends into.
    fn lane_from(&mut self, wire: u64, side: Side) -> Option<&mut Lane> {
        Some(&mut self.wires.get_mut(&wire)?.ends[side.other().index()].incoming)
    }

    /// Puts bytes, or the end of the stream, on their way. The reader to be woken is returned.
    fn send(&mut self, wire: u64, side: Side, bytes: Vec<u8>) -> Option<Waker> {
        let (now, from) = (self.now(), self.process(wire, side)?);
        let to = self.process(wire, side.other())?;
        if !self.lives(to) {
            return None;
        }
        let behind = self.lane_from(wire, side)?.queue.back().is_some_and(|chunk| chunk.at.is_none());
        let at = (!behind && !self.stage.is_cut(from.node, to.node))
            .then(|| self.stage.arrival(from.node, to.node, bytes.len() + OVERHEAD_BYTES, now));
        let lane = self.lane_from(wire, side)?;
        let at = at.map(|at| at.max(lane.last));
        lane.last = at.unwrap_or(lane.last);
        lane.queue.push_back(Chunk { at, bytes, read: 0 });
        lane.reader.take()
    }

    fn release(&mut self, wakers: &mut Vec<Waker>) {
        let now = self.now();
        let Self { stage, wires, .. } = self;
        for wire in wires.values_mut() {
            for to in [0, 1] {
                let (from, into) = (wire.ends[1 - to].process.node, wire.ends[to].process.node);
                if stage.is_cut(from, into) {
                    continue;
                }
                let lane = &mut wire.ends[to].incoming;
                for chunk in lane.queue.iter_mut().filter(|chunk| chunk.at.is_none()) {
                    let at =
                        stage.arrival(from, into, chunk.bytes.len() + OVERHEAD_BYTES, now).max(lane.last);
                    (chunk.at, lane.last) = (Some(at), at);
                    wakers.extend(lane.reader.take());
                }
            }
        }
    }
}
