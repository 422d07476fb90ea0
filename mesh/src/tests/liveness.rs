//! Peers that die, with and without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use comity_protocol::mesh::MeshEvent;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{Plan, QUIC, TCP, org, within};
use crate::MeshStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_noticed() {
    for transport in [TCP, QUIC] {
        let acme = org("acme.example", 1);
        let mut a = Plan::new(&acme, 1, &[]).listen(transport).start().await;
        let b = Plan::new(&acme, 2, &[]).listen(transport).to(&a).start().await;
        let id = b.id;
        a.linked_to(&b).await;
        a.knows(&[&a, &b]).await;
        drop(b);
        let down = |event: &MeshEvent| matches!(event, MeshEvent::PeerDown { peer, .. } if *peer == id);
        a.event("it is down", down).await;
        a.parted_from(id).await;
        assert!(a.handle.snapshot().nodes.contains_key(&id), "that it died removes nothing");
    }
}

/// A wire between two nodes that can go dead without closing.
async fn wire(to: String) -> (String, Arc<AtomicBool>) {
    let port = to.rsplit('/').next().unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let dead = Arc::new(AtomicBool::new(false));
    let cut = dead.clone();
    tokio::spawn(async move {
        while let Ok((inbound, _)) = listener.accept().await {
            let outbound = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
            let (from_a, to_a) = inbound.into_split();
            let (from_b, to_b) = outbound.into_split();
            tokio::spawn(carry(from_a, to_b, cut.clone()));
            tokio::spawn(carry(from_b, to_a, cut.clone()));
        }
    });
    (address, dead)
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    dead: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !dead.load(Ordering::Acquire) && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    if dead.load(Ordering::Acquire) {
        // What is dead does not say that one end has gone either.
        std::future::pending::<()>().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_falls_silent_is_closed_and_found_again() {
    let acme = org("acme.example", 1);
    let mut a = Plan::new(&acme, 1, &[]).start().await;
    let (address, dead) = wire(a.address()).await;
    // Nobody can dial b, so that the wire is the only way.
    let mut plan = Plan::new(&acme, 2, &[]).seed(&address);
    plan.external = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    let mut b = plan.start().await;
    a.linked_to(&b).await;
    dead.store(true, Ordering::Release);
    let (a_id, b_id) = (a.id, b.id);
    for (node, other) in [(&mut a, b_id), (&mut b, a_id)] {
        let down = |event: &MeshEvent| matches!(event, MeshEvent::PeerDown { peer, .. } if *peer == other);
        node.event("silence is noticed", down).await;
    }
    dead.store(false, Ordering::Release);
    a.linked_to(&b).await;
    b.linked_to(&a).await;
}

/// Whether whoever reads the stream is woken by its end. A timeout's own last look would hide that nobody was.
async fn ends(stream: &mut MeshStream) -> bool {
    tokio::select! {
        biased;
        () = tokio::time::sleep(Duration::from_secs(60)) => false,
        read = stream.read_u8() => read.is_err(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_on_both_sides_when_the_peer_has_fallen_silent() {
    let acme = org("acme.example", 1);
    let mut a = Plan::new(&acme, 1, &[]).start().await;
    let (address, dead) = wire(a.address()).await;
    // Nobody can dial b, so that the wire is the only way.
    let mut plan = Plan::new(&acme, 2, &[]).seed(&address);
    plan.external = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()];
    let b = plan.start().await;
    b.linked_to(&a).await;
    let mut calling = b.handle.open_call(a.id, &[]).await.unwrap();
    calling.write_all(b"?").await.unwrap();
    calling.flush().await.unwrap();
    let mut called = within("the call", a.calls.recv()).await.unwrap().stream;
    assert_eq!(called.read_u8().await.unwrap(), b'?');
    dead.store(true, Ordering::Release);
    let (caller, executor) = tokio::join!(ends(&mut calling), ends(&mut called));
    assert!(caller && executor, "caller: {caller}, executor: {executor}");
    within("nothing more is written", called.write_all(&[0; 1 << 20])).await.unwrap_err();
}
