//! A network of forwarders on loopback, for machines that let nobody make a namespace. It carries QUIC alone.
//!
//! Every site has an address of its own in 127.0.0.0/8, from which its node speaks, and a *front*: a UDP socket at which
//! the others are told to find it. The front knows from which site a datagram comes by its source address, asks the rules,
//! and passes it on from a socket of that flow, so that the answers come back the same way.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::delayer::{Delayer, Sender};
use super::rules::Rules;

/// The first two bytes of the addresses of nodes, and of fronts; the third is the site's number.
const OWN: [u8; 2] = [127, 91];
const FRONT: [u8; 2] = [127, 92];

/// How often a thread that waits for datagrams looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Flows of one front; datagrams of more are lost. A node speaks from one port at a time.
const FLOWS_MAX: usize = 256;

const DATAGRAM_MAX: usize = 2048;

/// A datagram, the socket that sends it, and where to; to whoever the socket is connected where nothing is said.
type Outgoing = (Arc<UdpSocket>, Option<SocketAddr>, Vec<u8>);

/// The address from which the node of a site speaks.
fn own_address(site: usize) -> Ipv4Addr {
    address(OWN, site)
}

fn address([a, b]: [u8; 2], site: usize) -> Ipv4Addr {
    Ipv4Addr::new(a, b, u8::try_from(site).expect("fewer sites than SITES_MAX"), 1)
}

/// The fronts of one network.
#[derive(Debug)]
pub struct Loopback {
    fronts: Vec<Front>,
    rules: Arc<Rules>,
    wire: Delayer<Outgoing>,
}

impl Loopback {
    pub(super) fn new(sites: usize, rules: Arc<Rules>) -> Self {
        let wire = Delayer::new(|(socket, to, bytes): Outgoing| {
            // Nobody may listen any more: the datagram is lost.
            let _lost = match to {
                Some(to) => socket.send_to(&bytes, to),
                None => socket.send(&bytes),
            };
        });
        let fronts = (0..sites).map(|site| Front::open(site, rules.clone(), wire.sender())).collect();
        Loopback { fronts, rules, wire }
    }

    pub(super) fn len(&self) -> usize {
        self.fronts.len()
    }

    /// Where a site's node is dialled.
    pub(super) fn front(&self, site: usize) -> String {
        quic(self.fronts[site].at)
    }

    /// Where a site's node listens.
    pub(super) fn own(&self, site: usize) -> String {
        quic(self.fronts[site].shared.node)
    }

    /// The site is found elsewhere, and its node listens elsewhere, from now on.
    pub(super) fn move_away(&mut self, site: usize) {
        self.fronts[site] = Front::open(site, self.rules.clone(), self.wire.sender());
    }
}

fn quic(at: SocketAddr) -> String {
    format!("/ip4/{}/udp/{}/quic-v1", at.ip(), at.port())
}

#[derive(Debug)]
struct Front {
    at: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    site: usize,
    socket: Arc<UdpSocket>,
    /// Where the node listens.
    node: SocketAddr,
    closed: AtomicBool,
    rules: Arc<Rules>,
    wire: Sender<Outgoing>,
    answers: Mutex<Vec<JoinHandle<()>>>,
}

impl Front {
    fn open(site: usize, rules: Arc<Rules>, wire: Sender<Outgoing>) -> Self {
        let socket = Arc::new(bind(address(FRONT, site)));
        let at = socket.local_addr().expect("a bound socket has an address");
        // A port that is free now. It is the test's own address, so hardly anybody takes it before the node does.
        let node = bind(own_address(site)).local_addr().expect("a bound socket has an address");
        let (closed, answers) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { site, socket, node, closed, rules, wire, answers });
        let serving = shared.clone();
        Front { at, shared, thread: Some(thread::spawn(move || serving.serve())) }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        // It begins flows, so it goes first.
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        let answers =
            std::mem::take(&mut *self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in answers {
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    /// Carries what comes for the site's node.
    fn serve(self: Arc<Self>) {
        let mut flows: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        while let Some((bytes, from)) = self.receive(&self.socket) {
            let Some(site) = site_of(from) else {
                self.rules.count_stray();
                continue;
            };
            let Some(delay) = self.rules.fate(site, self.site) else { continue };
            if flows.len() >= FLOWS_MAX && !flows.contains_key(&from) {
                continue;
            }
            let flow = flows.entry(from).or_insert_with(|| self.begin_flow(from, site));
            self.wire.send((flow.clone(), None, bytes), delay);
        }
    }

    /// A socket from which the node hears `from`, and a thread that carries the answers.
    fn begin_flow(self: &Arc<Self>, from: SocketAddr, site: usize) -> Arc<UdpSocket> {
        let flow = Arc::new(bind(address(FRONT, self.site)));
        flow.connect(self.node).expect("a UDP socket can be connected");
        let (shared, answers) = (self.clone(), flow.clone());
        let thread = thread::spawn(move || {
            while let Some((bytes, _)) = shared.receive(&answers) {
                if let Some(delay) = shared.rules.fate(shared.site, site) {
                    shared.wire.send((shared.socket.clone(), Some(from), bytes), delay);
                }
            }
        });
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        flow
    }

    /// The next datagram; `None` when the network is taken down.
    fn receive(&self, socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = [0; DATAGRAM_MAX];
        while !self.closed.load(Ordering::Acquire) {
            match socket.recv_from(&mut buffer) {
                Ok((length, from)) => return Some((buffer[..length].to_vec(), from)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                // The node is not there: what was sent to it is lost, and it may come back.
                Err(_refused) => thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }
}

fn bind(ip: Ipv4Addr) -> UdpSocket {
    let socket =
        UdpSocket::bind((ip, 0)).unwrap_or_else(|error| panic!("cannot bind to {ip} on loopback: {error}"));
    socket.set_read_timeout(Some(LOOK_EVERY)).expect("a timeout can be set");
    socket
}

fn site_of(from: SocketAddr) -> Option<usize> {
    match from.ip() {
        IpAddr::V4(ip) if ip.octets()[..2] == OWN => Some(usize::from(ip.octets()[2])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_and_answers_pass_and_a_cut_stops_one_direction() {
        let rules = Arc::new(Rules::new(1));
        let network = Loopback::new(2, rules.clone());
        let caller = bind(own_address(0));
        let node = UdpSocket::bind(network.fronts[1].shared.node).expect("its port is free");
        node.set_read_timeout(Some(LOOK_EVERY)).expect("a timeout can be set");
        let front = network.fronts[1].at;
        let mut buffer = [0; 16];
        caller.send_to(b"ask", front).expect("loopback takes it");
        let (_, flow) = receive(&node, &mut buffer);
        assert_eq!(&buffer[..3], b"ask");
        node.send_to(b"yes", flow).expect("loopback takes it");
        assert_eq!(receive(&caller, &mut buffer), (3, front));
        rules.cut(1, 0);
        node.send_to(b"no", flow).expect("loopback takes it");
        caller.send_to(b"more", front).expect("loopback takes it");
        assert_eq!(receive(&node, &mut buffer), (4, flow));
        assert!(caller.recv_from(&mut buffer).is_err(), "its answer was cut off");
    }

    fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> (usize, SocketAddr) {
        crate::wait::until("a datagram", || socket.recv_from(buffer))
    }
}
