//! The network of a run as libp2p's transport: `/memory/N` is node N - 1. Noise and Yamux are put on top of it by the mesh itself,
//! as on TCP.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use comity_simnet::moment::Moment;
use libp2p::Multiaddr;
use libp2p::core::Transport;
use libp2p::core::transport::{DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p::futures::future::BoxFuture;
use libp2p::multiaddr::Protocol;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::net::{DIAL_RESENDS, DIAL_TIMEOUT, OVERHEAD_BYTES, Process, Shared};
use crate::pipe::Pipe;

/// The transport of one process.
pub(crate) struct NetTransport {
    net: Shared,
    process: Process,
    listener: Option<(ListenerId, mpsc::Receiver<Pipe>)>,
    events: VecDeque<TransportEvent<Ready<io::Result<Pipe>>, io::Error>>,
}

impl NetTransport {
    pub(crate) fn new(net: Shared, process: Process) -> Self {
        Self { net, process, listener: None, events: VecDeque::new() }
    }
}

/// Where a node can be dialled.
pub(crate) fn address(node: usize) -> Multiaddr {
    Multiaddr::empty().with(Protocol::Memory(node as u64 + 1))
}

/// The node that an address leads to.
fn node_at(address: &Multiaddr) -> Option<usize> {
    match address.iter().next() {
        Some(Protocol::Memory(number)) => usize::try_from(number).ok()?.checked_sub(1),
        _ => None,
    }
}

impl Transport for NetTransport {
    type Output = Pipe;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Pipe>>;
    type Dial = BoxFuture<'static, io::Result<Pipe>>;

    fn listen_on(&mut self, id: ListenerId, at: Multiaddr) -> Result<(), TransportError<io::Error>> {
        if node_at(&at) != Some(self.process.node) {
            return Err(TransportError::MultiaddrNotSupported(at));
        }
        self.listener = Some((id, self.net.listen(self.process)));
        self.events.push_back(TransportEvent::NewAddress { listener_id: id, listen_addr: at });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listener.take_if(|(listener, _)| *listener == id).is_some()
    }

    fn dial(&mut self, to: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some(node) = node_at(&to) else { return Err(TransportError::MultiaddrNotSupported(to)) };
        Ok(Box::pin(dial(self.net.clone(), self.process, node)))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        let here = self.process.node;
        let Some((listener_id, incoming)) = &mut self.listener else { return Poll::Pending };
        match incoming.poll_recv(cx) {
            Poll::Ready(Some(pipe)) => Poll::Ready(TransportEvent::Incoming {
                listener_id: *listener_id,
                local_addr: address(here),
                send_back_addr: address(pipe.dialler()),
                upgrade: ready(Ok(pipe)),
            }),
            _ => Poll::Pending,
        }
    }
}

/// A connection stands after a round trip, whose first packet is sent again while nothing answers it. Where nobody does, that
/// shows after a timeout.
async fn dial(net: Shared, from: Process, to: usize) -> io::Result<Pipe> {
    let begun = Instant::now();
    for sent_after in [Duration::ZERO].into_iter().chain(DIAL_RESENDS) {
        sleep_until(begun + sent_after).await;
        let Some(back) = round_trip(&net, from.node, to) else { continue };
        sleep_until(net.instant(back)).await;
        let still = net.lock().answers(from.node, to);
        if let Some(pipe) = still.then(|| net.connect(from, to)).flatten() {
            return Ok(pipe);
        }
        // Whoever answered has gone: nothing that was sent comes to anything.
        sleep(DIAL_TIMEOUT).await;
        return Err(io::ErrorKind::TimedOut.into());
    }
    sleep_until(begun + DIAL_TIMEOUT).await;
    Err(io::ErrorKind::TimedOut.into())
}

/// When the answer to a first packet that is sent now will be there, if somebody answers.
fn round_trip(net: &Shared, from: usize, to: usize) -> Option<Moment> {
    let net = &mut *net.lock();
    let now = net.now();
    net.answers(from, to).then(|| {
        let there = net.stage.arrival(from, to, OVERHEAD_BYTES, now);
        net.stage.arrival(to, from, OVERHEAD_BYTES, there)
    })
}
