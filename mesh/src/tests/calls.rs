//! Calls' streams: opened on demand, straight from task to task.

use libp2p::futures::StreamExt as _;
use libp2p::futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Node, Plan, QUIC, TCP, org, within};
use crate::{INCOMING_CALLS_MAX, IncomingCall, OpenError};

/// Answers every call with what it was sent.
fn echo(node: &mut Node) {
    let (_none, empty) = tokio::sync::mpsc::channel(1);
    let mut calls = std::mem::replace(&mut node.calls, empty);
    tokio::spawn(async move {
        while let Some(IncomingCall { mut stream, .. }) = calls.recv().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                stream.read_to_end(&mut request).await.unwrap();
                stream.write_all(&request).await.unwrap();
                stream.shutdown().await.unwrap();
                let _ended = stream.read(&mut [0; 1]).await;
            });
        }
    });
}

async fn call(from: &Node, to: &Node, request: &[u8]) -> Vec<u8> {
    let mut stream = from.handle.open_call(to.id, &[]).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_dials_on_demand_and_its_bytes_come_back() {
    for transport in [TCP, QUIC] {
        let acme = org("acme.example", 1);
        let mut a = Plan::new(&acme, 1, &[]).listen(transport).start().await;
        let b = Plan::new(&acme, 2, &[]).listen(transport).start().await;
        echo(&mut a);
        assert_eq!(b.handle.last_heard(a.id), None);
        let mut stream = b.handle.open_call(a.id, &[a.address()]).await.unwrap();
        let big = vec![7; 3_000_000];
        let (mut input, mut output) = tokio::io::split(&mut stream);
        let write = async {
            output.write_all(&big).await.unwrap();
            output.shutdown().await.unwrap();
        };
        let mut answer = Vec::new();
        within("the answer", async { tokio::join!(write, input.read_to_end(&mut answer)) }).await.1.unwrap();
        assert!(answer == big, "{} bytes of {}", answer.len(), big.len());
        assert!(b.handle.last_heard(a.id).is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_share_one_dial_and_none_is_lost() {
    for transport in [TCP, QUIC] {
        let acme = org("acme.example", 1);
        let mut a = Plan::new(&acme, 1, &[]).listen(transport).start().await;
        let b = Plan::new(&acme, 2, &[]).listen(transport).to(&a).start().await;
        echo(&mut a);
        b.knows(&[&a, &b]).await;
        let calls = (0..100_u8).map(|byte| {
            let (a, b) = (&a, &b);
            async move { assert_eq!(call(b, a, &[byte; 1000]).await, [byte; 1000]) }
        });
        within("all answers", libp2p::futures::future::join_all(calls)).await;
        assert!(b.handle.snapshot().peers.iter().filter(|peer| peer.node == a.id).count() <= 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caller_is_named_by_what_it_proved() {
    let (acme, umbrella) = (org("acme.example", 1), org("umbrella.example", 2));
    let mut a = Plan::new(&acme, 1, &[&umbrella]).start().await;
    let b = Plan::new(&umbrella, 2, &[&acme]).to(&a).start().await;
    let mut stream = b.handle.open_call(a.id, &[a.address()]).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    let call = within("the call", a.calls.recv()).await.unwrap();
    assert_eq!((call.peer, call.org), (b.id, umbrella.name.clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_there_is_unreachable() {
    let acme = org("acme.example", 1);
    let a = Plan::new(&acme, 1, &[]).start().await;
    let address = a.address();
    let id = a.id;
    drop(a);
    let b = Plan::new(&acme, 2, &[]).start().await;
    for addresses in [vec![address], vec![], vec!["nonsense".to_owned()]] {
        let error = within("an error", b.handle.open_call(id, &addresses)).await.unwrap_err();
        assert!(error.is_unreachable(), "{error}");
    }
    let itself = within("an error", b.handle.open_call(b.id, &[b.address()])).await.unwrap_err();
    assert!(matches!(itself, OpenError::Unreachable { .. }), "{itself}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_queue_are_refused_and_the_node_goes_on() {
    let acme = org("acme.example", 1);
    let mut a = Plan::new(&acme, 1, &[]).start().await;
    let b = Plan::new(&acme, 2, &[]).to(&a).start().await;
    b.linked_to(&a).await;
    let mut waiting = Vec::new();
    for _ in 0..INCOMING_CALLS_MAX + 10 {
        let mut stream = b.handle.open_call(a.id, &[a.address()]).await.unwrap();
        let _it_may_be_refused_already = stream.write_all(b"x").await;
        let _it_may_be_refused_already = stream.flush().await;
        waiting.push(stream);
    }
    // A stream that is refused ends; one that waits does not.
    let reads = waiting.iter_mut().map(|stream| stream.read_u8());
    let refusals: Vec<_> =
        within("ten are refused", reads.collect::<FuturesUnordered<_>>().take(10).collect()).await;
    assert!(refusals.iter().all(Result::is_err), "{refusals:?}");
    drop(waiting);
    echo(&mut a);
    assert_eq!(within("an answer", call(&b, &a, b"again")).await, b"again");
}
