//! Enrolment: the one protocol that a stranger is served.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Plan, QUIC, TCP, org, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_may_enrol_and_nothing_else() {
    for transport in [TCP, QUIC] {
        let (acme, other) = (org("acme.example", 1), org("other.example", 2));
        let mut issuer = Plan::new(&acme, 1, &[]).listen(transport).start().await;
        let stranger = Plan::new(&other, 2, &[]).listen(transport).start().await;
        let opened = stranger.handle.open_enrol(issuer.id, issuer.multiaddr());
        let mut ours = within("a stream", opened).await.unwrap();
        ours.write_all(b"token").await.unwrap();
        ours.flush().await.unwrap();
        let mut theirs = within("an enrolment", issuer.enrolments.recv()).await.unwrap();
        assert_eq!((theirs.peer, ours.peer()), (stranger.id, issuer.id));
        let mut token = [0; 5];
        theirs.stream.read_exact(&mut token).await.unwrap();
        theirs.stream.write_all(b"membership").await.unwrap();
        theirs.stream.shutdown().await.unwrap();
        drop(theirs);
        let mut answer = Vec::new();
        within("the answer", ours.read_to_end(&mut answer)).await.unwrap();
        assert_eq!((&token, &answer[..]), (b"token", &b"membership"[..]));
        assert!(issuer.handle.snapshot().linked().next().is_none());
        assert!(issuer.calls.try_recv().is_err());
        let call = stranger.handle.open_call(issuer.id, &[issuer.address()]).await;
        assert!(call.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enrolments_at_once_are_bounded() {
    let (acme, other) = (org("acme.example", 1), org("other.example", 2));
    let issuer = Plan::new(&acme, 1, &[]).start().await;
    let mut streams = Vec::new();
    for seed in 0..=crate::enrol::ENROLMENTS_MAX {
        let stranger = Plan::new(&other, 100 + seed as u16, &[]).start().await;
        let mut stream =
            within("a stream", stranger.handle.open_enrol(issuer.id, issuer.multiaddr())).await.unwrap();
        let _it_may_be_refused_already = stream.write_all(b"x").await;
        let _it_may_be_refused_already = stream.flush().await;
        streams.push((stranger, stream));
    }
    // The issuer takes none of them, so those that it has room for wait, and the one beyond is reset.
    let reads = streams.iter_mut().map(|(_, stream)| Box::pin(async { stream.read_u8().await }));
    let (refused, ..) = within("a refusal", libp2p::futures::future::select_all(reads)).await;
    assert!(refused.is_err());
}
