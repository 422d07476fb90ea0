//! Checks of addresses: can this node listen, and can it reach its seeds?

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;

use super::Check;
use crate::cli::context::Context;
use crate::config::NodeConfig;
use crate::config::mesh::PeerAddress;
use crate::control::ControlClient;

/// How long one address may take to answer.
pub(super) const REACH_DEADLINE: Duration = Duration::from_secs(3);
/// Addresses tried at once.
pub(super) const AT_ONCE_MAX: usize = 16;

/// Whether every address that the node listens on is free, or used by the node itself.
pub(super) async fn ports(context: &Context, config: &NodeConfig) -> Vec<Check> {
    if ControlClient::connect(&context.dir.socket()).is_ok() {
        return vec![Check::ok("ports", "the node is running and has them")];
    }
    let mut checks = Vec::new();
    for (name, address) in
        [("port of clients", config.mcp.listen), ("port of operators", config.admin.listen)]
    {
        checks.push(bindable(name, &address.to_string(), TcpListener::bind(address).await.map(drop)));
    }
    for listen in &config.mesh.listen {
        let shown = listen.as_multiaddr().to_string();
        let bound = match target(listen.as_multiaddr()) {
            Some(Target { host: Host::Ip(ip), port, quic: true }) => {
                UdpSocket::bind(SocketAddr::new(ip, port)).await.map(drop)
            }
            Some(Target { host: Host::Ip(ip), port, quic: false }) => {
                TcpListener::bind(SocketAddr::new(ip, port)).await.map(drop)
            }
            _ => continue,
        };
        checks.push(bindable("port of the mesh", &shown, bound));
    }
    checks
}

fn bindable(name: &str, address: &str, bound: io::Result<()>) -> Check {
    match bound {
        Ok(()) => Check::ok(name, format!("{address} is free")),
        Err(error) => {
            let mend = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "stop what uses it (ss -lntup shows it), or listen elsewhere in comity.toml"
                }
                io::ErrorKind::PermissionDenied => "choose a port of 1024 or above in comity.toml",
                _ => "choose an address of this machine in comity.toml",
            };
            Check::fail(name, format!("{address}: {error}"), mend)
        }
    }
}

/// Whether each seed answers. One that does not is a warning: it is re-dialled for ever.
pub(super) async fn seeds(config: &NodeConfig) -> Vec<Check> {
    if config.mesh.peers.is_empty() {
        let mend = "fine for a first node; otherwise name one in [mesh] peers, or run: comity join LINE";
        return vec![Check::warn("seeds", "none are named, so this node waits to be dialled", mend)];
    }
    let checks = futures::stream::iter(&config.mesh.peers).map(seed).buffered(AT_ONCE_MAX);
    checks.collect().await
}

async fn seed(peer: &PeerAddress) -> Check {
    let name = format!("seed {}", peer.node.short());
    let shown = peer.address.to_string();
    let Some(target) = target(&peer.address) else {
        return Check::ok(name, format!("{shown} cannot be checked from here"));
    };
    match timeout(REACH_DEADLINE, reach(&target)).await {
        Ok(Ok(())) => Check::ok(name, format!("{shown} answers")),
        Ok(Err(error)) => unreachable_seed(name, &format!("{shown}: {error}")),
        Err(_) => unreachable_seed(name, &format!("{shown} does not answer within {REACH_DEADLINE:?}")),
    }
}

fn unreachable_seed(name: String, detail: &str) -> Check {
    Check::warn(
        name,
        detail,
        "is that node running, is the address right, and do firewalls let UDP and TCP through?",
    )
}

/// What a multiaddr's first parts lead to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) quic: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String),
}

pub(super) fn target(address: &Multiaddr) -> Option<Target> {
    let mut parts = address.iter();
    let host = match parts.next()? {
        Protocol::Ip4(ip) => Host::Ip(ip.into()),
        Protocol::Ip6(ip) => Host::Ip(ip.into()),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => Host::Name(name.into_owned()),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(Target { host, port, quic: false }),
        Protocol::Udp(port) => Some(Target { host, port, quic: true }),
        _ => None,
    }
}

async fn reach(target: &Target) -> io::Result<()> {
    let addresses: Vec<SocketAddr> = match &target.host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, target.port)],
        Host::Name(name) => lookup_host((name.as_str(), target.port)).await?.collect(),
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        let reached =
            if target.quic { reach_quic(address).await } else { TcpStream::connect(address).await.map(drop) };
        match reached {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks for a version of QUIC that nobody speaks: a QUIC server answers with those it does (RFC 9000, section 6.1), without
/// a handshake and without keeping anything.
async fn reach_quic(address: SocketAddr) -> io::Result<()> {
    let own: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(address).await?;
    socket.send(&version_probe()).await?;
    let mut answer = [0; 2048];
    loop {
        let length = socket.recv(&mut answer).await?;
        if is_version_negotiation(&answer[..length]) {
            return Ok(());
        }
    }
}

/// Connection ids of the probe; the answer must bear them the other way round.
const PROBE_DESTINATION: &[u8; 8] = b"comity-d";
const PROBE_SOURCE: &[u8; 8] = b"comity-s";

/// A long-header packet with a reserved version (RFC 9000, section 15), as large as a first packet must be.
fn version_probe() -> Vec<u8> {
    const INITIAL_BYTES_MIN: usize = 1200;
    let mut packet = vec![0xc0, 0x0a, 0x1a, 0x2a, 0x3a];
    packet.push(PROBE_DESTINATION.len() as u8);
    packet.extend_from_slice(PROBE_DESTINATION);
    packet.push(PROBE_SOURCE.len() as u8);
    packet.extend_from_slice(PROBE_SOURCE);
    packet.resize(INITIAL_BYTES_MIN, 0);
    packet
}

fn is_version_negotiation(packet: &[u8]) -> bool {
    let rest = match packet {
        [first, 0, 0, 0, 0, rest @ ..] if first & 0x80 != 0 => rest,
        _ => return false,
    };
    let expected = [&[8][..], PROBE_SOURCE, &[8], PROBE_DESTINATION].concat();
    rest.starts_with(&expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_somewhere() {
        let name = |name: &str| Host::Name(name.to_owned());
        for (text, expected) in [
            (
                "/dns/a.example/udp/7422/quic-v1",
                Some(Target { host: name("a.example"), port: 7422, quic: true }),
            ),
            (
                "/ip4/10.0.0.1/tcp/1",
                Some(Target { host: Host::Ip([10, 0, 0, 1].into()), port: 1, quic: false }),
            ),
            ("/memory/1", None),
            ("/ip4/10.0.0.1", None),
        ] {
            assert_eq!(target(&text.parse().expect("multiaddr")), expected, "{text}");
        }
    }

    #[test]
    fn only_an_answer_to_our_probe_counts() {
        let answer =
            [&[0x80, 0, 0, 0, 0, 8][..], PROBE_SOURCE, &[8], PROBE_DESTINATION, &[0, 0, 0, 1]].concat();
        assert!(is_version_negotiation(&answer));
        for end in 0..22 {
            assert!(!is_version_negotiation(&answer[..end]), "{end}");
        }
        assert!(!is_version_negotiation(&version_probe()), "an echo is no answer");
    }
}
