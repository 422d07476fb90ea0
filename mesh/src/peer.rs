//! Between the core's names and libp2p's: node ids and peer ids, keys, addresses.

use comity_protocol::ids::NodeId;
use ed25519_dalek::SigningKey;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// The libp2p name of a node.
#[must_use]
pub fn peer_id(node: NodeId) -> PeerId {
    PeerId::from_bytes(&node.to_peer_id_bytes()).expect("a node id is the identity multihash of a key")
}

/// The node of a libp2p name; `None` when its key is not ed25519, so that no node has it.
#[must_use]
pub fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes()).ok()
}

/// The node's key as libp2p takes it.
#[must_use]
pub fn keypair(key: &SigningKey) -> Keypair {
    Keypair::ed25519_from_bytes(key.to_bytes()).expect("32 bytes are an ed25519 secret key")
}

/// Reads addresses, leaving out what is none: an advert may carry transports that this version does not know.
#[must_use]
pub fn addresses(texts: &[String]) -> Vec<Multiaddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The address without its trailing `/p2p/…`.
#[must_use]
pub fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let node = NodeId::from(key.verifying_key());
        assert_eq!(peer_id(node), keypair(&key).public().to_peer_id());
        assert_eq!(node_id(&peer_id(node)), Some(node));
        assert_eq!(peer_id(node).to_string(), node.to_string());
    }

    #[test]
    fn what_is_no_address_is_left_out() {
        let texts =
            ["/ip4/127.0.0.1/tcp/1".to_owned(), "nonsense".to_owned(), "/carrier-pigeon/1".to_owned()];
        assert_eq!(addresses(&texts).len(), 1);
        let node = NodeId::from(SigningKey::from_bytes(&[7; 32]).verifying_key());
        let full: Multiaddr = format!("/ip4/127.0.0.1/tcp/1/p2p/{node}").parse().unwrap();
        assert_eq!(without_peer(full).to_string(), "/ip4/127.0.0.1/tcp/1");
    }
}
