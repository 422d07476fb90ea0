//! Who is let in, and what those see who are not.

use std::collections::BTreeSet;

use comity_protocol::testing::DAY;
use libp2p::futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{gossipsub, identify, ping};

use super::harness::{EagerEvent, Plan, QUIC, TCP, eager, org, within};
use crate::clock::Clock;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_and_both_sides_know_why() {
    let (acme, other) = (org("acme.example", 1), org("other.example", 2));
    let mut expired = Plan::new(&acme, 4, &[]);
    let long_ago = Clock::start().now().wall - DAY * 30;
    expired.membership =
        acme.admit_with(expired.node.id, comity_protocol::testing::places("DE"), |membership| {
            (membership.not_before, membership.expires) = (long_ago, long_ago + DAY);
        });
    let mut stolen = Plan::new(&acme, 5, &[]);
    stolen.membership = Plan::new(&acme, 6, &[]).membership;
    for (plan, code) in [
        (Plan::new(&other, 3, &[&acme]), "unpinned_org"),
        (expired, "membership_expired"),
        (stolen, "wrong_node"),
    ] {
        for transport in [TCP, QUIC] {
            let mut a = Plan::new(&acme, 1, &[]).listen(transport).start().await;
            let mut stranger =
                Plan { seeds: Vec::new(), listen: vec![transport], ..plan.copy() }.to(&a).start().await;
            assert_eq!(a.refusal(stranger.id).await, (false, code.to_owned()));
            assert_eq!(stranger.refusal(a.id).await, (true, code.to_owned()));
            assert!(!a.handle.snapshot().nodes.contains_key(&stranger.id));
            let error = stranger.handle.open_call(a.id, &[a.address()]).await.unwrap_err();
            assert!(!error.to_string().is_empty());
            assert!(a.calls.try_recv().is_err());
        }
    }
}

/// What an eager stranger learns of the protocols that it tries.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Learned {
    NoGossip,
    NoIdentify,
    NoPing,
    Closed,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_speaks_libp2p_gets_no_application_byte() {
    for (transport, seed) in [(TCP, 91), (QUIC, 92)] {
        let acme = org("acme.example", 1);
        let mut a = Plan::new(&acme, 1, &[]).listen(transport).start().await;
        let (mut stranger, id) = eager(seed);
        stranger.dial(a.multiaddr()).unwrap();
        let mut learned = BTreeSet::new();
        within("the stranger is sent away", async {
            while !learned.contains(&Learned::Closed) {
                match stranger.select_next_some().await {
                    SwarmEvent::Behaviour(EagerEvent::Gossip(event)) => {
                        assert!(matches!(event, gossipsub::Event::GossipsubNotSupported { .. }), "{event:?}");
                        learned.insert(Learned::NoGossip);
                    }
                    SwarmEvent::Behaviour(EagerEvent::Identify(event)) => {
                        assert!(matches!(event, identify::Event::Error { .. }), "{event:?}");
                        learned.insert(Learned::NoIdentify);
                    }
                    SwarmEvent::Behaviour(EagerEvent::Ping(event)) => {
                        assert!(matches!(event.result, Err(ping::Failure::Unsupported)), "{event:?}");
                        learned.insert(Learned::NoPing);
                    }
                    SwarmEvent::Behaviour(EagerEvent::Streams(inbound)) => panic!("{inbound:?}"),
                    SwarmEvent::ConnectionClosed { .. } => {
                        learned.insert(Learned::Closed);
                    }
                    _ => {}
                }
            }
        })
        .await;
        assert!(learned.contains(&Learned::NoGossip) && learned.contains(&Learned::NoPing), "{learned:?}");
        assert_eq!(a.refusal(id).await, (false, "admission_timeout".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_org_that_is_pinned_later_gets_in_and_one_that_is_unpinned_is_sent_away() {
    let (acme, other) = (org("acme.example", 1), org("other.example", 2));
    let mut a = Plan::new(&acme, 1, &[]).start().await;
    let b = Plan::new(&other, 2, &[&acme]).to(&a).start().await;
    assert_eq!(a.refusal(b.id).await.1, "unpinned_org");
    a.handle.pin(other.name.clone(), other.chain.pin().unwrap()).await;
    a.linked_to(&b).await;
    a.knows(&[&a, &b]).await;
    a.handle.unpin(other.name.clone()).await;
    a.parted_from(b.id).await;
    a.knows(&[&a]).await;
}
