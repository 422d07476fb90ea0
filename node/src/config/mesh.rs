//! The `[mesh]` section: how this node reaches others and is reached.

use comity_protocol::ids::{MeshName, NodeId};
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::section::Section;
use super::setting::TextSetting;

/// The mesh that a node joins unless told otherwise.
pub const MESH_NAME_DEFAULT: &str = "comity";
/// Seeds that one configuration may name.
pub const PEERS_MAX: usize = 256;

/// The `[mesh]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshConfig {
    /// The mesh's name; nodes of different meshes do not talk.
    pub name: MeshName,
    /// Where to listen: QUIC and TCP addresses.
    pub listen: Vec<ListenAddress>,
    /// Seeds: nodes that are dialled, and re-dialled for ever.
    pub peers: Vec<PeerAddress>,
    /// Addresses at which others reach this node, where they differ from those it listens on.
    pub external_addresses: Vec<Multiaddr>,
    /// How many neighbours the overlay keeps.
    pub neighbours: u32,
    /// Most connections at once, in and out.
    pub connections_max: u32,
}

impl Default for MeshConfig {
    fn default() -> Self {
        let listen = |text| ListenAddress::from_text(text).expect("a constant that a test parses");
        MeshConfig {
            name: MESH_NAME_DEFAULT.parse().expect("a constant that a test parses"),
            listen: vec![listen("/ip4/0.0.0.0/udp/7422/quic-v1"), listen("/ip4/0.0.0.0/tcp/7422")],
            peers: Vec::new(),
            external_addresses: Vec::new(),
            neighbours: 8,
            connections_max: 512,
        }
    }
}

impl MeshConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = MeshConfig::default();
        let config = MeshConfig {
            name: section.or("name", default.name),
            listen: section.list_of_distinct("listen").unwrap_or(default.listen),
            peers: section.list_of_distinct("peers").unwrap_or_default(),
            external_addresses: section.list_of_distinct("external_addresses").unwrap_or_default(),
            neighbours: section.or_within("neighbours", default.neighbours, 1..=64),
            connections_max: section.or_within("connections_max", default.connections_max, 1..=100_000),
        };
        if config.peers.len() > PEERS_MAX {
            section.fault(
                "peers",
                format!("names {} peers", config.peers.len()),
                format!("name at most {PEERS_MAX}"),
            );
        }
        if config.neighbours > config.connections_max {
            let hint = "raise connections_max or lower neighbours";
            section.fault("neighbours", "is more than connections_max", hint);
        }
        section.finish();
        config
    }
}

impl MeshConfig {
    /// Whether only a restart applies what `newer` changes. Peers that were added are dialled at once.
    pub(super) fn restart_needed(&self, newer: &Self) -> bool {
        let removed = self.peers.iter().any(|peer| !newer.peers.contains(peer));
        removed || *self != MeshConfig { peers: self.peers.clone(), ..newer.clone() }
    }
}

/// An address to listen on: IP, then QUIC or TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress(Multiaddr);

impl ListenAddress {
    /// The address itself.
    pub fn as_multiaddr(&self) -> &Multiaddr {
        &self.0
    }
}

impl TextSetting for ListenAddress {
    const EXPECTED: &'static str =
        "a listen address such as \"/ip4/0.0.0.0/udp/7422/quic-v1\" or \"/ip4/0.0.0.0/tcp/7422\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let address = Multiaddr::from_text(text)?;
        let parts: Vec<_> = address.iter().collect();
        match parts.as_slice() {
            [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(_)]
            | [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1] => {
                Ok(ListenAddress(address))
            }
            [Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_), ..] => {
                Err(format!("{text:?} has a name where a listen address needs an IP address"))
            }
            _ => Err(format!("{text:?} is not an address that a node can listen on")),
        }
    }
}

/// A node that can be dialled: where it is, and whose key it must prove to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Who must answer.
    pub node: NodeId,
    /// Where, without the `/p2p` part.
    pub address: Multiaddr,
}

impl PeerAddress {
    /// The whole address, `/p2p` included.
    pub fn to_multiaddr(&self) -> Multiaddr {
        let peer = libp2p::PeerId::from_bytes(&self.node.to_peer_id_bytes()).expect("a NodeId is a peer id");
        self.address.clone().with(Protocol::P2p(peer))
    }
}

impl TextSetting for PeerAddress {
    const EXPECTED: &'static str = "an address that ends in the peer's id, such as \"/dns/mesh.acme.example/udp/7422/quic-v1/p2p/12D3KooW…\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let mut address = Multiaddr::from_text(text)?;
        let Some(Protocol::P2p(peer)) = address.pop() else {
            return Err(format!("{text:?} does not say whom to expect there (it has no /p2p/… at its end)"));
        };
        let dialable = address.iter().any(|part| matches!(part, Protocol::Tcp(_) | Protocol::QuicV1));
        if !dialable {
            return Err(format!("{text:?} names neither a TCP nor a QUIC port"));
        }
        let node = NodeId::from_peer_id_bytes(&peer.to_bytes()).map_err(|error| error.to_string())?;
        Ok(PeerAddress { node, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn the_defaults_parse() {
        assert_eq!(MeshConfig::default().listen.len(), 2);
    }

    #[test]
    fn listen_addresses() {
        for (text, problem) in [
            ("/ip6/::/udp/0/quic-v1", None),
            ("/ip4/127.0.0.1/tcp/0", None),
            ("/dns/a.example/tcp/1", Some("needs an IP address")),
            ("/ip4/127.0.0.1/udp/1", Some("cannot listen on")),
            ("/ip4/127.0.0.1", Some("not an address that a node can listen on")),
        ] {
            let result = ListenAddress::from_text(text);
            assert_eq!(result.is_err(), problem.is_some(), "{text}: {result:?}");
        }
    }

    #[test]
    fn peer_addresses_name_whom_to_expect() {
        let text = format!("/dns/a.example/udp/7422/quic-v1/p2p/{NODE}");
        let peer = PeerAddress::from_text(&text).expect("a good address");
        assert_eq!((peer.node.to_string(), peer.to_multiaddr().to_string()), (NODE.to_owned(), text));
        for (text, part) in [
            ("/ip4/127.0.0.1/tcp/1".to_owned(), "whom to expect"),
            (format!("/ip4/127.0.0.1/p2p/{NODE}"), "neither a TCP nor a QUIC port"),
            (format!("/p2p/{NODE}"), "neither a TCP nor a QUIC port"),
            ("/ip4/1.2.3.4/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".to_owned(), "node id"),
        ] {
            let problem = PeerAddress::from_text(&text).expect_err(&text);
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }
}
