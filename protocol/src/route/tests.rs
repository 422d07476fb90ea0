use std::collections::BTreeMap;

use super::*;
use crate::advert::{Offer, TrustedAdvert};
use crate::approval::Judgement;
use crate::constraints::{CertificationSet, DataClass, TrustLevel};
use crate::geo::CountrySet;
use crate::ids::{BlobDigest, CallId, Kind, NodeId};
use crate::testing::{DAY, TestNode, TestOrg, mesh, places};
use crate::time::{Mono, Wall};
use crate::trust::{Anchors, RoleSet};

const NOW: Now = Now { mono: Mono::from_micros(1_000_000), wall: Wall::from_millis(1_795_000_000_000) };

const QUARANTINED: Judgement = Judgement::Quarantined {
    approved: ContractDigest::from_bytes([1; 32]),
    seen: ContractDigest::from_bytes([2; 32]),
};

fn node(n: u16) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn candidate(n: u16, reach: Reach) -> Candidate {
    Candidate {
        site: SiteFacts {
            node: node(n),
            org: "acme.example".parse().unwrap(),
            processing: places("DE"),
            locations_max: CountrySet::ALL,
            operator_country: Some("DE".parse().unwrap()),
            trust: TrustLevel::T1,
            class_max: DataClass::Internal,
            certifications: CertificationSet::default(),
        },
        name: format!("n{n}").into(),
        executor: true,
        contract: ContractDigest::of(b"c"),
        approval: Judgement::Approved,
        reach,
        same_region: false,
        expires: NOW.wall + DAY,
    }
}

fn request(constraints: Constraints) -> RouteRequest {
    let capability = CapabilityId {
        org: "acme.example".parse().unwrap(),
        server: "time".parse().unwrap(),
        kind: Kind::Tool,
        name: "now".parse().unwrap(),
    };
    RouteRequest { capability, contract: ContractDigest::of(b"c"), constraints }
}

fn only_in(codes: &str) -> RouteRequest {
    request(Constraints { allow_locations: Some(places(codes)), ..Constraints::default() })
}

fn order(candidates: &[Candidate], stats: &PeerStats, seed: u64) -> Vec<NodeId> {
    let route = decide(&request(Constraints::default()), candidates, stats, NOW, &mut Rng::new(seed));
    assert!(route.rejected.is_empty());
    route.ranked.iter().map(|candidate| candidate.site.node).collect()
}

#[test]
fn every_candidate_lands_in_exactly_one_list() {
    let mut candidates: Vec<_> = (0..50).map(|n| candidate(n, Reach::Known)).collect();
    for candidate in candidates.iter_mut().step_by(3) {
        candidate.site.processing = places("DE US");
    }
    let route = decide(&only_in("DE"), &candidates, &PeerStats::new(), NOW, &mut Rng::new(1));
    assert_eq!((route.ranked.len(), route.rejected.len()), (33, 17));
    assert!(route.ranked.iter().all(|candidate| candidate.site.processing == places("DE")));
}

#[test]
fn what_is_not_law_rejects_too_each_by_its_code() {
    for (change, code) in [
        ((|c| c.executor = false) as fn(&mut Candidate), "not_executor"),
        (|c| c.expires = NOW.wall, "advert_expired"),
        (|c| c.contract = ContractDigest::of(b"other"), "contract_mismatch"),
        (|c| c.approval = Judgement::Unapproved, "contract_unapproved"),
        (|c| c.approval = QUARANTINED, "contract_quarantined"),
        (|c| c.reach = Reach::Unreachable, "unreachable"),
    ] {
        let mut one = [candidate(1, Reach::Known)];
        change(&mut one[0]);
        let request = request(Constraints::default());
        let route = decide(&request, &one, &PeerStats::new(), NOW, &mut Rng::new(1));
        let reasons = RouteReport::new(&request, &route).reasons();
        assert_eq!(reasons.iter().map(|reason| reason.code.as_str()).collect::<Vec<_>>(), [code]);
    }
}

#[test]
fn this_node_goes_first_unless_it_is_loaded() {
    let candidates =
        [candidate(1, Reach::Connected), candidate(2, Reach::Local), candidate(3, Reach::Connected)];
    let mut stats = PeerStats::new();
    assert!((0..20).all(|seed| order(&candidates, &stats, seed)[0] == node(2)));
    let capability = request(Constraints::default()).capability;
    for n in 0..LOCAL_PENDING_MAX {
        let call = CallId::from_bytes([n as u8; 16]);
        let _ = stats.begin(node(2), &capability, call, NOW.mono);
    }
    assert!((0..20).all(|seed| order(&candidates, &stats, seed)[2] == node(2)));
}

#[test]
fn suspected_peers_come_last() {
    let candidates =
        [candidate(1, Reach::Suspected), candidate(2, Reach::Known), candidate(3, Reach::Connected)];
    assert!((0..20).all(|seed| order(&candidates, &PeerStats::new(), seed)[2] == node(1)));
}

#[test]
fn the_best_of_the_sample_leads_and_the_choice_spreads() {
    let candidates: Vec<_> =
        (0..40).map(|n| candidate(n, if n < 20 { Reach::Connected } else { Reach::Known })).collect();
    let mut stats = PeerStats::new();
    let capability = request(Constraints::default()).capability;
    // Node 0 hangs; it must hardly ever lead.
    let _ = stats.begin(node(0), &capability, CallId::from_bytes([0; 16]), Mono::ZERO);
    let mut led = BTreeMap::<NodeId, u32>::new();
    for seed in 0..2000 {
        let order = order(&candidates, &stats, seed);
        assert_eq!(order.len(), 40);
        *led.entry(order[0]).or_default() += 1;
    }
    assert_eq!(led.get(&node(0)), None);
    assert_eq!(led.len(), 19, "where loads are equal a near one leads: {led:?}");
    assert!(led.values().all(|count| *count < 200), "{led:?}");
}

#[test]
fn a_far_peer_leads_when_the_near_ones_are_slow() {
    let candidates: Vec<_> =
        (0..40).map(|n| candidate(n, if n < 20 { Reach::Connected } else { Reach::Known })).collect();
    let mut stats = PeerStats::new();
    let capability = request(Constraints::default()).capability;
    for n in 0..20 {
        let _ = stats.begin(node(n), &capability, CallId::from_bytes([0; 16]), Mono::ZERO);
    }
    let far: std::collections::BTreeSet<_> = (20..40).map(node).collect();
    let led: std::collections::BTreeSet<_> =
        (0..500).map(|seed| order(&candidates, &stats, seed)[0]).collect();
    assert_eq!(led, far);
}

#[test]
fn one_seed_gives_one_route() {
    let candidates: Vec<_> = (0..100).map(|n| candidate(n, Reach::Known)).collect();
    assert_eq!(order(&candidates, &PeerStats::new(), 7), order(&candidates, &PeerStats::new(), 7));
    assert_ne!(order(&candidates, &PeerStats::new(), 7), order(&candidates, &PeerStats::new(), 8));
}

#[test]
fn the_verdict_names_the_obstacle_that_is_easiest_to_remove() {
    let abroad = |n| Candidate {
        site: SiteFacts { processing: places("US"), ..candidate(n, Reach::Known).site },
        ..candidate(n, Reach::Known)
    };
    let unapproved = Candidate { approval: Judgement::Unapproved, ..candidate(2, Reach::Known) };
    let unreachable = candidate(3, Reach::Unreachable);
    for (candidates, verdict) in [
        (vec![], Verdict::NobodyOffers),
        (vec![abroad(1)], Verdict::Denied),
        (vec![abroad(1), unapproved.clone()], Verdict::Unapproved),
        (vec![abroad(1), unapproved.clone(), unreachable.clone()], Verdict::Unreachable),
        (vec![unreachable, candidate(4, Reach::Known)], Verdict::Routable),
    ] {
        let route = decide(&only_in("DE"), &candidates, &PeerStats::new(), NOW, &mut Rng::new(1));
        assert_eq!(route.verdict(), verdict);
    }
}

#[test]
fn a_peer_whose_circuit_is_open_is_rejected_and_never_denied() {
    let candidates = [candidate(1, Reach::Known)];
    let mut stats = PeerStats::new();
    let request = request(Constraints::default());
    for n in 0..CIRCUIT_SAMPLES_MIN {
        let call = CallId::from_bytes([n as u8; 16]);
        let attempt = stats.begin(node(1), &request.capability, call, NOW.mono);
        stats.finish(attempt, Health::PeerFault, NOW.mono);
    }
    let route = decide(&request, &candidates, &stats, NOW, &mut Rng::new(1));
    assert_eq!(route.verdict(), Verdict::Unreachable);
    assert!(route.rejected[0].1.contains(Rejection::CircuitOpen));
}

#[test]
fn the_report_is_stable_json() {
    let mut abroad = candidate(2, Reach::Connected);
    abroad.site.processing = places("DE US");
    let candidates = [candidate(1, Reach::Known), abroad];
    let request = only_in("DE");
    let route = decide(&request, &candidates, &PeerStats::new(), NOW, &mut Rng::new(1));
    let report = serde_json::to_value(RouteReport::new(&request, &route)).unwrap();
    let (lawful, other) = (node(1).to_string(), node(2).to_string());
    assert_eq!(
        report,
        serde_json::json!({
            "capability": "acme.example/time/now",
            "contract": ContractDigest::of(b"c").to_string(),
            "verdict": "routable",
            "ranked": [{
                "peer": lawful, "org": "acme.example", "node": "n1", "processing_locations": "DE",
                "operator_country": "DE", "trust": "T1", "reach": "known",
            }],
            "rejected": [{
                "peer": other, "org": "acme.example", "node": "n2", "processing_locations": "DE,US",
                "operator_country": "DE", "trust": "T1", "reach": "connected",
                "reasons": [{
                    "peer": other, "org": "acme.example", "node": "n2", "code": "location_not_allowed",
                    "detail": "processes in DE,US; allowed: DE; not allowed: US",
                }],
            }],
        })
    );
}

#[test]
fn a_candidate_is_made_from_what_was_verified() {
    let org = TestOrg::new("acme.example", 1, NOW.wall);
    let mut anchors = Anchors::new(mesh());
    anchors.pin(org.name.clone(), org.chain.pin().unwrap());
    anchors.learn(org.chain.clone()).unwrap();
    let mut node = TestNode::new(&org, 1, places("DE FR"));
    node.membership =
        org.admit_with(node.id, places("DE FR"), |membership| membership.roles = RoleSet::default());
    let advert = node.advert_with(1, NOW.wall, |advert| advert.site.processing_locations = places("DE"));
    let trusted = TrustedAdvert::verify(advert.bytes(), &mut anchors, NOW.wall).unwrap();
    let offer = Offer {
        server: "time".parse().unwrap(),
        kind: Kind::Tool,
        name: "now".parse().unwrap(),
        contract: ContractDigest::of(b"c"),
        descriptor: BlobDigest::of(b"d"),
        class_max: DataClass::Confidential,
    };
    let standing = Standing {
        trust: TrustLevel::T1,
        approval: Judgement::Approved,
        reach: Reach::Connected,
        same_region: true,
        certifications: CertificationSet::default(),
    };
    let made = Candidate::from_directory(&trusted, &offer, standing);
    assert_eq!((made.site.processing, made.site.locations_max), (places("DE"), places("DE FR")));
    assert_eq!((made.site.node, made.site.class_max), (node.id, DataClass::Confidential));
    assert!(!made.executor, "the membership has no role to execute");
    assert_eq!(made.expires, advert.expires);
}
