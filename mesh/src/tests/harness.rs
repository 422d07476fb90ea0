//! Nodes for tests: made in a line, with everything observable.

use std::future::Future;
use std::time::Duration;

use comity_protocol::advert::{Offer, OfferSet, Site};
use comity_protocol::constraints::DataClass;
use comity_protocol::ids::{BlobDigest, ContractDigest, Kind, NodeId};
use comity_protocol::mesh::MeshEvent;
use comity_protocol::mesh::overlay::Seed;
use comity_protocol::mesh::own::{Identity, OwnOffers};
use comity_protocol::testing::{DAY, TestNode, TestOrg, mesh as mesh_name, places};
use comity_protocol::trust::{Anchors, Membership, Verified};
use libp2p::Multiaddr;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::swarm::{NetworkBehaviour, Swarm};
use libp2p::{PeerId, gossipsub, identify, ping};
use prometheus_client::registry::Registry;
use tokio::sync::{broadcast, mpsc};

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::streams::{IncomingCall, Streams};
use crate::*;

pub(super) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub(super) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// Fails the test when `future` takes longer than any machine should need.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

pub(super) fn org(name: &str, seed: u8) -> TestOrg {
    TestOrg::new(name, seed, Clock::start().now().wall - DAY)
}

/// A node that is yet to start.
pub(super) struct Plan {
    pub(super) org: TestOrg,
    pub(super) node: TestNode,
    pub(super) pins: Vec<TestOrg>,
    pub(super) seeds: Vec<Seed>,
    pub(super) listen: Vec<&'static str>,
    pub(super) membership: Verified<Membership>,
    pub(super) external: Vec<Multiaddr>,
    pub(super) kept: MemoryPersister,
}

impl Plan {
    pub(super) fn new(org: &TestOrg, seed: u16, pins: &[&TestOrg]) -> Self {
        let node = TestNode::new(org, seed, places("DE"));
        Self {
            org: org.clone(),
            membership: node.membership.clone(),
            node,
            pins: pins.iter().map(|org| (*org).clone()).collect(),
            seeds: Vec::new(),
            listen: vec![TCP],
            external: Vec::new(),
            kept: MemoryPersister::default(),
        }
    }

    /// The same plan with another memory.
    pub(super) fn copy(&self) -> Self {
        Self {
            org: self.org.clone(),
            node: self.node.clone(),
            pins: self.pins.clone(),
            seeds: self.seeds.clone(),
            listen: self.listen.clone(),
            membership: self.membership.clone(),
            external: self.external.clone(),
            kept: MemoryPersister::default(),
        }
    }

    pub(super) fn listen(mut self, address: &'static str) -> Self {
        self.listen = vec![address];
        self
    }

    pub(super) fn seed(mut self, address: &str) -> Self {
        self.seeds.push(Seed { node: None, address: address.to_owned() });
        self
    }

    pub(super) fn to(self, other: &Node) -> Self {
        let address = other.address();
        self.seed(&address)
    }

    pub(super) async fn start(&self) -> Node {
        let mut anchors = Anchors::new(mesh_name());
        for org in &self.pins {
            anchors.pin(org.name.clone(), org.chain.pin().unwrap());
        }
        let identity = Identity {
            key: self.node.key.clone(),
            membership: self.membership.clone(),
            roots: self.org.chain.clone(),
            name: "test".into(),
            site: Site { processing_locations: places("DE"), ..Site::default() },
            version: "test".into(),
        };
        let mut registry = Registry::default();
        let setup = MeshSetup {
            identity,
            anchors,
            seeds: self.seeds.clone(),
            restored: self.kept.restored(),
            listen: self.listen.iter().map(|address| address.parse().unwrap()).collect(),
            external: self.external.clone(),
            bounds: Bounds::default(),
            persister: std::sync::Arc::new(self.kept.clone()),
            metrics: Metrics::register(registry.sub_registry_with_prefix("comity")),
            clock: Clock::start(),
            seed: 7,
        };
        let (handle, incoming, task) = start(setup, &mut registry).await.unwrap();
        let events = handle.events();
        let Incoming { calls, enrolments } = incoming;
        Node { id: self.node.id, handle, calls, enrolments, events, task, registry }
    }
}

/// A running node.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) handle: MeshHandle,
    pub(super) calls: mpsc::Receiver<IncomingCall>,
    pub(super) enrolments: mpsc::Receiver<IncomingEnrolment>,
    pub(super) events: broadcast::Receiver<MeshEvent>,
    pub(super) task: MeshTask,
    pub(super) registry: Registry,
}

impl Node {
    pub(super) fn address(&self) -> String {
        self.handle.snapshot().listening[0].to_string()
    }

    pub(super) fn multiaddr(&self) -> Multiaddr {
        self.handle.snapshot().listening[0].clone()
    }

    pub(super) async fn until(&self, what: &str, holds: impl Fn(&MeshSnapshot) -> bool) {
        within(what, self.handle.wait_until(holds)).await.expect("the mesh runs");
    }

    /// Waits until exactly `nodes` are known, with addresses.
    pub(super) async fn knows(&self, nodes: &[&Self]) {
        let ids: std::collections::BTreeSet<_> = nodes.iter().map(|node| node.id).collect();
        let holds = |snapshot: &MeshSnapshot| {
            snapshot.nodes.keys().copied().collect::<std::collections::BTreeSet<_>>() == ids
                && snapshot.nodes.values().all(|entry| !entry.advert().addresses.is_empty())
        };
        self.until("it knows exactly these nodes", holds).await;
    }

    pub(super) async fn linked_to(&self, other: &Self) {
        self.until("it is linked", |snapshot| snapshot.linked().any(|peer| peer.node == other.id)).await;
    }

    pub(super) async fn parted_from(&self, other: NodeId) {
        self.until("it has parted", |snapshot| snapshot.peers.iter().all(|peer| peer.node != other)).await;
    }

    pub(super) async fn event(&mut self, what: &str, wanted: impl Fn(&MeshEvent) -> bool) -> MeshEvent {
        within(what, async {
            loop {
                let event = self.events.recv().await.expect("the mesh runs");
                if wanted(&event) {
                    return event;
                }
            }
        })
        .await
    }

    /// The code of the next refusal of `peer`, by it or by us.
    pub(super) async fn refusal(&mut self, peer: NodeId) -> (bool, String) {
        let refused =
            |event: &MeshEvent| matches!(event, MeshEvent::Refused { peer: who, .. } if *who == peer);
        match self.event("a refusal", refused).await {
            MeshEvent::Refused { by_peer, code, .. } => (by_peer, code),
            _ => unreachable!(),
        }
    }
}

/// `count` offers to everybody, each with a descriptor of `bytes` bytes.
pub(super) fn offers(count: usize, bytes: usize) -> OwnOffers {
    let mut own = OwnOffers::default();
    let mut offers = Vec::new();
    for index in 0..count {
        let descriptor: std::sync::Arc<[u8]> = format!("{index:0>bytes$}").into_bytes().into();
        let digest = BlobDigest::of(&descriptor);
        offers.push(Offer {
            server: "tools".parse().unwrap(),
            kind: Kind::Tool,
            name: format!("tool{index}").parse().unwrap(),
            contract: ContractDigest::of(&descriptor),
            descriptor: digest,
            class_max: DataClass::Internal,
        });
        own.descriptors.insert(digest, descriptor);
    }
    own.federation = OfferSet::new(offers).unwrap();
    own
}

/// What another implementation of libp2p would speak: everything, at once, without asking.
#[derive(NetworkBehaviour)]
pub(super) struct Eager {
    pub(super) streams: Streams,
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
}

/// A swarm that is no node of ours. It subscribes to the adverts' topic.
pub(super) fn eager(seed: u8) -> (Swarm<Eager>, NodeId) {
    eager_with(seed, libp2p::swarm::Config::with_tokio_executor())
}

pub(super) fn eager_with(seed: u8, config: libp2p::swarm::Config) -> (Swarm<Eager>, NodeId) {
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let keypair = peer::keypair(&key);
    let gossip_config =
        gossipsub::ConfigBuilder::default().validation_mode(gossipsub::ValidationMode::Anonymous).build();
    let mut gossip =
        gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, gossip_config.unwrap()).unwrap();
    gossip.subscribe(&gossip::advert_topic(&mesh_name())).unwrap();
    let behaviour = Eager {
        streams: Streams::new(Clock::start(), mpsc::channel(1).0),
        gossip,
        identify: identify::Behaviour::new(identify::Config::new("/comity/1".into(), keypair.public())),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(100))),
    };
    let transport: Boxed<(PeerId, StreamMuxerBox)> = transport::transport(&keypair).unwrap();
    let swarm = Swarm::new(transport, behaviour, keypair.public().to_peer_id(), config);
    (swarm, key.verifying_key().into())
}
