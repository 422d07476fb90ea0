//! A member of the mesh that offers what another node offers, and does with calls what a test wants.

use std::sync::Arc;

use comity_protocol::advert::Site;
use comity_protocol::call::{CallHeader, Frame, FrameDecoder};
use comity_protocol::constraints::Constraints;
use comity_protocol::ids::{NodeId, PayloadDigest};
use comity_protocol::mesh::own::Identity;
use comity_protocol::testing::places;
use comity_protocol::trust::Anchors;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Org, Running, mesh_name, within};
use crate::clock::Clock;
use crate::identity::node_id;
use crate::mesh::{self, Bounds, Incoming, MemoryPersister, MeshHandle, MeshSetup, MeshStream, MeshTask};
use crate::world::gather::{DescriptorCache, own_offer_sets};

/// Such a node.
pub(super) struct Fake {
    pub(super) id: NodeId,
    pub(super) mesh: MeshHandle,
    pub(super) incoming: Incoming,
    _task: MeshTask,
}

impl Fake {
    /// One of `org`, in Germany, which pins `others` and dials nobody.
    pub(super) async fn start(org: &Org, others: &[&Org]) -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).unwrap();
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        let id = node_id(&key);
        let mut anchors = Anchors::new(mesh_name());
        for org in others.iter().chain([&org]) {
            anchors.pin(org.name.clone(), org.issuer.pin());
        }
        let identity = Identity {
            key,
            membership: org.admit(id, places("DE")),
            roots: org.issuer.chain().clone(),
            name: "fake".into(),
            site: Site { processing_locations: places("DE"), ..Site::default() },
            version: "test".into(),
        };
        let mut registry = Registry::default();
        let setup = MeshSetup {
            identity,
            anchors,
            seeds: Vec::new(),
            restored: MemoryPersister::default().restored(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            external: Vec::new(),
            bounds: Bounds::default(),
            persister: Arc::new(MemoryPersister::default()),
            metrics: mesh::metrics::Metrics::register(&mut registry),
            clock: Clock::start(),
            seed: 7,
        };
        let (mesh, incoming, task) = mesh::start(setup, &mut registry).await.unwrap();
        Self { id, mesh, incoming, _task: task }
    }

    /// Offers what `other` offers.
    pub(super) async fn offers_as(&self, other: &Running) {
        let shared = &other.shared;
        let config = shared.config.borrow().clone();
        let mut cache = DescriptorCache::default();
        let offers = own_offer_sets(&config.servers, &shared.upstreams.snapshot(), &mut cache, |_| true);
        assert!(!offers.descriptors.is_empty(), "the other's server is ready");
        self.mesh.set_offers(offers).await;
    }

    /// Where others dial it.
    pub(super) fn address(&self) -> String {
        format!("{}/p2p/{}", self.mesh.snapshot().listening[0], self.id)
    }

    /// The next call that comes in.
    pub(super) async fn next_call(&mut self) -> Stream {
        Stream::new(within("a call", self.incoming.calls.recv()).await.expect("the mesh runs").stream)
    }

    /// Opens a call's stream to `node`.
    pub(super) async fn open(&self, node: &Running) -> Stream {
        let address = node.address();
        let stream = within("a stream", self.mesh.open_call(node.id(), &[address])).await;
        Stream::new(stream.unwrap_or_else(|error| panic!("{error}")))
    }
}

/// A call's stream, frame by frame.
pub(super) struct Stream {
    stream: MeshStream,
    decoder: FrameDecoder,
    buffer: Vec<u8>,
}

impl Stream {
    fn new(stream: MeshStream) -> Self {
        Self { stream, decoder: FrameDecoder::new(), buffer: Vec::new() }
    }

    /// The next frame; `None` when the peer has ended or reset the stream.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut rest = &self.buffer[..];
            let frame = self.decoder.push(&mut rest).unwrap();
            self.buffer = rest.to_vec();
            if frame.is_some() {
                return frame;
            }
            let mut bytes = [0; 4096];
            match within("bytes", self.stream.read(&mut bytes)).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
            }
        }
    }

    pub(super) async fn send(&mut self, frame: &Frame) {
        self.send_bytes(&frame.to_vec().unwrap()).await.unwrap();
    }

    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// The body of the calls that fakes make.
pub(super) const BODY: &[u8] = br#"{"name":"whatever","arguments":{}}"#;

/// A header for the tool `echo` of `server` at `executor`, as an honest node of `org` would make it.
pub(super) fn header(org: &Org, fake: &Fake, executor: &Running, server: &str) -> CallHeader {
    let capability = format!("{}/{server}/echo", executor.shared.me.borrow().org);
    let world = executor.world();
    let route = world.route(&capability).expect("the executor knows its own tool");
    let parts = comity_protocol::call::HeaderParts {
        call: crate::gateway::new_call_id().unwrap(),
        capability: route.capability.clone(),
        contract: route.contract,
        method: "tools/call".into(),
        constraints: Constraints::default(),
        principal: comity_protocol::call::Principal {
            org: org.name.clone(),
            node: fake.id,
            node_name: "fake".into(),
            name: "somebody".into(),
        },
        request: PayloadDigest::of(BODY),
        request_bytes: BODY.len() as u32,
        trace: None,
        hops: 1,
    };
    CallHeader::new(parts, executor.id(), Clock::start().now().wall, 30_000)
}
