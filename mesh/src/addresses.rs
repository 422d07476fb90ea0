//! At which addresses this node says it can be dialled.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use comity_protocol::advert::ADDRESSES_MAX;
use comity_protocol::ids::NodeId;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::peer;

/// How many peers must say the same before an address at which we were seen is believed: one alone could send the whole
/// mesh to a third party's door.
const WITNESSES_MIN: usize = 2;

/// What is known of the ways to this node.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses {
    /// What the operator says; nothing else counts then.
    configured: Vec<Multiaddr>,
    listening: BTreeSet<Multiaddr>,
    /// At which address each connected peer sees us: one a peer.
    seen: BTreeMap<NodeId, Multiaddr>,
}

impl OwnAddresses {
    pub(super) fn new(configured: Vec<Multiaddr>) -> Self {
        Self { configured, ..Self::default() }
    }

    pub(super) fn listening(&mut self, address: Multiaddr) {
        self.listening.insert(peer::without_peer(address));
    }

    pub(super) fn expired(&mut self, address: &Multiaddr) {
        self.listening.remove(address);
    }

    pub(super) fn seen_at(&mut self, by: NodeId, address: Multiaddr) {
        self.seen.insert(by, peer::without_peer(address));
    }

    pub(super) fn gone(&mut self, peer: &NodeId) {
        self.seen.remove(peer);
    }

    pub(super) fn listening_at(&self) -> Vec<Multiaddr> {
        self.listening.iter().cloned().collect()
    }

    /// The addresses to advertise, best first. Loopback counts only for a node that listens nowhere else: a federation on
    /// one machine.
    pub(super) fn advertised(&self) -> Vec<String> {
        let mut addresses: Vec<_> = if self.configured.is_empty() {
            let listening = self.listening.iter().filter(|address| reach(address) > Reach::Loopback);
            let witnessed = self.witnessed().filter(|address| reach(address) > Reach::Loopback);
            listening.chain(witnessed).collect::<BTreeSet<_>>().into_iter().collect()
        } else {
            self.configured.iter().collect()
        };
        if addresses.is_empty() {
            addresses.extend(self.listening.iter().filter(|address| reach(address) == Reach::Loopback));
        }
        addresses.sort_by_key(|address| (std::cmp::Reverse(reach(address)), !is_quic(address)));
        addresses.truncate(ADDRESSES_MAX);
        addresses.into_iter().map(ToString::to_string).collect()
    }

    fn witnessed(&self) -> impl Iterator<Item = &Multiaddr> {
        let mut witnesses: BTreeMap<&Multiaddr, usize> = BTreeMap::new();
        for address in self.seen.values() {
            *witnesses.entry(address).or_default() += 1;
        }
        witnesses.into_iter().filter(|(_, count)| *count >= WITNESSES_MIN).map(|(address, _)| address)
    }
}

/// From how far away an address can be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Nowhere,
    Loopback,
    Private,
    Anywhere,
}

fn reach(address: &Multiaddr) -> Reach {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => reach_v4(ip),
        Some(Protocol::Ip6(ip)) => reach_v6(ip),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)) => Reach::Anywhere,
        // A simulator's transport.
        Some(Protocol::Memory(_)) => Reach::Private,
        _ => Reach::Nowhere,
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    if ip.is_unspecified() || ip.is_link_local() || ip.is_broadcast() || ip.is_multicast() {
        Reach::Nowhere
    } else if ip.is_loopback() {
        Reach::Loopback
    } else if ip.is_private() {
        Reach::Private
    } else {
        Reach::Anywhere
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    if ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast() {
        Reach::Nowhere
    } else if ip.is_loopback() {
        Reach::Loopback
    } else if ip.is_unique_local() {
        Reach::Private
    } else {
        Reach::Anywhere
    }
}

fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(configured: &[&str], listening: &[&str]) -> OwnAddresses {
        let mut own = OwnAddresses::new(configured.iter().map(|text| text.parse().unwrap()).collect());
        listening.iter().for_each(|text| own.listening(text.parse().unwrap()));
        own
    }

    #[test]
    fn what_can_be_dialled_from_afar_comes_first() {
        let loopback = ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/quic-v1"];
        let far = ["/ip4/10.0.0.5/tcp/1", "/ip4/203.0.113.9/tcp/1", "/ip4/203.0.113.9/udp/1/quic-v1"];
        for (configured, listening, expected) in [
            (&[][..], &loopback[..], &[loopback[1], loopback[0]][..]),
            (&[], &[loopback[0], far[0], far[1], far[2], "/ip6/fe80::1/tcp/1"], &[far[2], far[1], far[0]]),
            (&["/dns/a.example/tcp/2"], &far, &["/dns/a.example/tcp/2"]),
            (&[], &["/ip4/0.0.0.0/tcp/1"], &[]),
        ] {
            assert_eq!(own(configured, listening).advertised(), expected);
        }
    }

    #[test]
    fn one_peer_alone_cannot_move_us() {
        let mut own = own(&[], &["/ip4/10.0.0.5/tcp/1"]);
        let claimed: Multiaddr = "/ip4/203.0.113.9/tcp/1".parse().unwrap();
        own.seen_at(NodeId::from_bytes([1; 32]), claimed.clone());
        assert_eq!(own.advertised(), ["/ip4/10.0.0.5/tcp/1"]);
        own.seen_at(NodeId::from_bytes([2; 32]), claimed.clone());
        assert_eq!(own.advertised(), ["/ip4/203.0.113.9/tcp/1", "/ip4/10.0.0.5/tcp/1"]);
        own.gone(&NodeId::from_bytes([1; 32]));
        assert_eq!(own.advertised(), ["/ip4/10.0.0.5/tcp/1"]);
    }
}
