//! Peers that break the protocols: each is told or cut off, and the node goes on.

use comity_protocol::mesh::wire::{HELLO_FRAME_MAX, Hello, LinkMessage};
use comity_protocol::testing::mesh as mesh_name;
use libp2p::Transport as _;
use libp2p::futures::StreamExt as _;
use libp2p::futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::swarm::{Swarm, SwarmEvent};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Eager, Node, Plan, QUIC, TCP, eager, eager_with, org, within};
use crate::OpenError;
use crate::behaviour::swarm_config;
use crate::connections::Connection;
use crate::streams::{MeshStream, StreamKind};
use crate::{peer, transport};

/// A stranger on a connection to `node`, and the connection.
async fn stranger(node: &Node, seed: u8) -> (Swarm<Eager>, std::sync::Arc<Connection>) {
    connected(eager(seed).0, node).await
}

async fn connected(mut swarm: Swarm<Eager>, node: &Node) -> (Swarm<Eager>, std::sync::Arc<Connection>) {
    swarm.dial(node.multiaddr()).unwrap();
    loop {
        if let SwarmEvent::ConnectionEstablished { connection_id, .. } = swarm.select_next_some().await {
            let connection = swarm.behaviour().streams.connection(connection_id).unwrap().clone();
            return (swarm, connection);
        }
    }
}

/// Runs the swarm until it is closed.
fn run(mut swarm: Swarm<Eager>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {}
    })
}

async fn link(connection: &Connection) -> MeshStream {
    within("a link", connection.open(StreamKind::Link)).await.unwrap()
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_link_frames_end_the_connection() {
    let acme = org("acme.example", 1);
    let hello = LinkMessage::Hello(Hello {
        mesh: mesh_name(),
        membership: vec![1; 300].into(),
        roots: vec![2; 300].into(),
        wall: Default::default(),
        version: "x".into(),
    });
    let cases: [(&str, Vec<u8>); 7] = [
        ("garbage", frame(b"\xffgarbage")),
        ("empty", frame(b"")),
        ("a forged hello", frame(&hello.encode())),
        ("too early", frame(&LinkMessage::Ping { nonce: 1, digest: 2 }.encode())),
        ("oversized", (u32::try_from(HELLO_FRAME_MAX).unwrap() + 1).to_be_bytes().to_vec()),
        ("absurd", vec![0xff; 64]),
        ("truncated", vec![0, 0, 1, 0, 7, 7, 7]),
    ];
    let a = Plan::new(&acme, 1, &[]).start().await;
    for (seed, (name, bytes)) in (100..).zip(cases) {
        let (swarm, connection) = stranger(&a, seed).await;
        let running = run(swarm);
        let mut stream = link(&connection).await;
        let _it_may_have_ended = stream.write_all(&bytes).await;
        let _it_may_have_ended = stream.shutdown().await;
        let _whatever_it_says = stream.read_to_end(&mut Vec::new()).await;
        within(name, running).await.unwrap();
    }
    let b = Plan::new(&acme, 2, &[]).to(&a).start().await;
    a.linked_to(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_link_on_a_connection_is_refused() {
    let acme = org("acme.example", 1);
    let a = Plan::new(&acme, 1, &[]).start().await;
    let (swarm, connection) = stranger(&a, 120).await;
    let _running = run(swarm);
    let mut first = link(&connection).await;
    first.write_all(&[0]).await.unwrap();
    first.flush().await.unwrap();
    let mut second = link(&connection).await;
    let _it_may_have_ended = second.write_all(&[0]).await;
    let _it_may_have_ended = second.flush().await;
    let read = within("the second ends", async { second.read(&mut [0; 1]).await }).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

/// A listener that agrees to nothing in ways of its own: every stream is answered with `answer`.
async fn liar(answer: &'static [u8]) -> (String, comity_protocol::ids::NodeId) {
    let key = ed25519_dalek::SigningKey::from_bytes(&[200; 32]);
    let mut transport = transport::transport(&peer::keypair(&key)).unwrap();
    let id = libp2p::core::transport::ListenerId::next();
    transport.listen_on(id, TCP.parse().unwrap()).unwrap();
    let (address_sender, address) = tokio::sync::oneshot::channel();
    let mut address_sender = Some(address_sender);
    tokio::spawn(async move {
        loop {
            match transport.select_next_some().await {
                libp2p::core::transport::TransportEvent::NewAddress { listen_addr, .. } => {
                    let _once = address_sender.take().map(|sender| sender.send(listen_addr.to_string()));
                }
                libp2p::core::transport::TransportEvent::Incoming { upgrade, .. } => {
                    tokio::spawn(async move {
                        let Ok((_, mut muxer)) = upgrade.await else { return };
                        lie(&mut muxer, answer).await;
                    });
                }
                _ => {}
            }
        }
    });
    (within("an address", address).await.unwrap(), key.verifying_key().into())
}

async fn lie(muxer: &mut libp2p::core::muxing::StreamMuxerBox, answer: &'static [u8]) {
    use libp2p::core::muxing::StreamMuxerExt as _;
    use libp2p::futures::future::poll_fn;
    use std::task::Poll;
    loop {
        let stream = poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = muxer.poll_unpin(cx) {
                return Poll::Ready(None);
            }
            muxer.poll_inbound_unpin(cx).map(Result::ok)
        });
        let Some(mut stream) = stream.await else { return };
        tokio::spawn(async move {
            let _sent = stream.write_all(answer).await;
            let _sent = stream.flush().await;
            let _read = stream.read_to_end(&mut Vec::new()).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_lies_about_protocols_breaks_its_own_connection_only() {
    for answer in [
        &b"\x13/multistream/1.0.0\n\x03na\n"[..],
        b"\x13/multistream/1.0.0\n\x0b/something\n",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00",
    ] {
        let (address, id) = liar(answer).await;
        let acme = org("acme.example", 1);
        let a = Plan::new(&acme, 1, &[]).start().await;
        let error = within("it fails", a.handle.open_call(id, &[address])).await.unwrap_err();
        assert!(matches!(error, OpenError::Unreachable { .. } | OpenError::Refused { .. }), "{error}");
        let b = Plan::new(&acme, 2, &[]).to(&a).start().await;
        a.linked_to(&b).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_hears_that_it_may_not_call() {
    let acme = org("acme.example", 1);
    let a = Plan::new(&acme, 1, &[]).listen(QUIC).start().await;
    let (swarm, connection) = stranger(&a, 130).await;
    let _running = run(swarm);
    let opened = within("an answer", connection.open(StreamKind::Call)).await;
    let error = opened.expect_err("a stranger may not call, and hears so");
    assert_eq!(error.to_string(), "the peer does not speak /comity/call/1");
}

/// With lazy negotiation the refusal comes with the first read, and the library's stream panics when it is used after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_negotiation_failed_answers_with_errors() {
    for transport in [TCP, QUIC] {
        let acme = org("acme.example", 1);
        let a = Plan::new(&acme, 1, &[]).listen(transport).start().await;
        let (lazy, _) = eager_with(131, swarm_config());
        let (swarm, connection) = connected(lazy, &a).await;
        let _running = run(swarm);
        let mut stream = within("a stream", connection.open(StreamKind::Call)).await.unwrap();
        stream.write_all(b"request").await.unwrap();
        stream.flush().await.unwrap();
        within("a refusal", async { stream.read_u8().await }).await.unwrap_err();
        stream.write_all(b"more").await.unwrap_err();
        stream.flush().await.unwrap_err();
        stream.read_u8().await.unwrap_err();
        stream.shutdown().await.unwrap_err();
    }
}
