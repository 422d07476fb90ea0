//! Nodes find each other, and come to know the same.

use comity_protocol::ids::BlobDigest;

use super::harness::{Plan, QUIC, TCP, offers, org};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_two_orgs_that_pinned_each_other_converge() {
    for transport in [TCP, QUIC] {
        let (acme, umbrella) = (org("acme.example", 1), org("umbrella.example", 2));
        let a = Plan::new(&acme, 1, &[&umbrella]).listen(transport).start().await;
        let b = Plan::new(&umbrella, 2, &[&acme]).listen(transport).to(&a).start().await;
        let c = Plan::new(&acme, 3, &[&umbrella]).listen(transport).to(&b).start().await;
        for node in [&a, &b, &c] {
            node.knows(&[&a, &b, &c]).await;
        }
        let digest = a.handle.snapshot().digest;
        for node in [&b, &c] {
            node.until("the digests are equal", |snapshot| snapshot.digest == digest).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_late_learns_all_that_was_said_before() {
    let acme = org("acme.example", 1);
    let a = Plan::new(&acme, 1, &[]).start().await;
    let b = Plan::new(&acme, 2, &[]).to(&a).start().await;
    a.handle.set_offers(offers(3, 2000)).await;
    b.until("b has a's offers", |snapshot| descriptors(snapshot, &offers(3, 2000)) == 3).await;
    let late = Plan::new(&acme, 3, &[]).to(&b).start().await;
    late.knows(&[&a, &b, &late]).await;
    late.until("late has a's offers", |snapshot| descriptors(snapshot, &offers(3, 2000)) == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_and_descriptors_are_pulled_by_digest_and_replaced() {
    let acme = org("acme.example", 1);
    let a = Plan::new(&acme, 1, &[]).listen(QUIC).start().await;
    let b = Plan::new(&acme, 2, &[]).listen(QUIC).to(&a).start().await;
    for (count, bytes) in [(100, 5000), (2, 100)] {
        let own = offers(count, bytes);
        a.handle.set_offers(own.clone()).await;
        let digest = BlobDigest::of(&own.federation.encode());
        let has_set = |snapshot: &crate::MeshSnapshot| {
            let advert = snapshot.nodes.get(&a.id).and_then(|entry| entry.advert().offers);
            advert == Some(digest) && snapshot.blobs.set(&digest).is_some()
        };
        b.until("b has the set and all that it names", |snapshot| {
            has_set(snapshot) && descriptors(snapshot, &own) == count
        })
        .await;
    }
}

fn descriptors(snapshot: &crate::MeshSnapshot, offers: &comity_protocol::mesh::own::OwnOffers) -> usize {
    let here = |digest: &&BlobDigest| snapshot.blobs.get(digest) == offers.descriptors.get(*digest);
    offers.descriptors.keys().filter(here).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarts_goes_on_with_a_higher_sequence_and_what_it_knew() {
    let acme = org("acme.example", 1);
    let a = Plan::new(&acme, 1, &[]).start().await;
    let plan = Plan::new(&acme, 2, &[]).to(&a);
    let b = plan.start().await;
    for node in [&a, &b] {
        node.knows(&[&a, &b]).await;
    }
    let before = a.handle.snapshot().nodes[&b.id].advert().sequence();
    let (id, restored) = (b.id, plan.kept.restored());
    assert!(restored.own >= before, "what was published was durable before");
    drop(b);
    a.parted_from(id).await;
    let b = plan.start().await;
    assert!(b.handle.snapshot().nodes.contains_key(&a.id), "it remembers a before it reaches it");
    a.until("a has b's new advert", |snapshot| snapshot.nodes[&id].advert().sequence() > before).await;
    a.linked_to(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_is_down_at_start_is_found_when_it_comes_up() {
    let acme = org("acme.example", 1);
    let seed = Plan::new(&acme, 1, &[]);
    let down = seed.start().await;
    let address = down.address();
    drop(down);
    let b = Plan::new(&acme, 2, &[]).seed(&address).start().await;
    let address: &'static str = address.leak();
    let a = seed.listen(address).start().await;
    b.linked_to(&a).await;
    b.knows(&[&a, &b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_shuts_down_says_so() {
    let acme = org("acme.example", 1);
    let a = Plan::new(&acme, 1, &[]).listen(QUIC).start().await;
    let mut b = Plan::new(&acme, 2, &[]).listen(QUIC).to(&a).start().await;
    a.knows(&[&a, &b]).await;
    super::harness::within("b has left", b.handle.shut_down()).await;
    super::harness::within("b's task ends", b.task.stopped()).await.unwrap();
    let leaving =
        |snapshot: &crate::MeshSnapshot| snapshot.nodes.get(&b.id).is_none_or(|entry| entry.advert().leaving);
    a.until("a knows that b has left", leaving).await;
    a.parted_from(b.id).await;
    assert!(b.handle.open_call(a.id, &[]).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_flows_through_a_gate_that_opened_late_and_is_counted() {
    for transport in [TCP, QUIC] {
        let acme = org("acme.example", 1);
        let a = Plan::new(&acme, 1, &[]).listen(transport).start().await;
        let b = Plan::new(&acme, 2, &[]).listen(transport).to(&a).start().await;
        b.knows(&[&a, &b]).await;
        // Each publication goes by gossip once gossipsub has exchanged subscriptions; before that anti-entropy brings it.
        let mut count = 0;
        while gossip_received(&b) == 0 {
            count += 1;
            a.handle.set_offers(offers(count, 10)).await;
            let set = BlobDigest::of(&offers(count, 10).federation.encode());
            b.until("b has the offers", |snapshot| snapshot.blobs.set(&set).is_some()).await;
            assert!(count < 10, "gossip never came");
        }
        assert!(metric(&b, "comity_peers ") >= 1);
        assert_eq!(metric(&b, "comity_directory_size "), 2);
        assert!(metric(&b, "libp2p_swarm_connections_established_total") >= 1);
    }
}

fn gossip_received(node: &super::harness::Node) -> u64 {
    metric(node, "comity_gossip_bytes_total{direction=\"received\"} ")
}

/// The value of the first metric whose line begins with `name`; 0 when there is none.
fn metric(node: &super::harness::Node, name: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &node.registry).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}
