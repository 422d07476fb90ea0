//! What a call costs before it leaves: the decision over a directory of 1,000 nodes, and the checks on what arrives.
//!
//! Goals: a decision in 50 microseconds; an advert verified in about the cost of its two signatures.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

use comity_protocol::advert::TrustedAdvert;
use comity_protocol::approval::Judgement;
use comity_protocol::constraints::{CertificationSet, Constraints, DataClass, OrgSet, TrustLevel};
use comity_protocol::geo::CountrySet;
use comity_protocol::ids::{CallId, CapabilityId, ContractDigest, Kind, NodeId, OrgName};
use comity_protocol::rng::Rng;
use comity_protocol::route::{
    Candidate, Health, PeerStats, Reach, RouteReport, RouteRequest, SiteFacts, decide,
};
use comity_protocol::testing::{DAY, TestNode, TestOrg, mesh, places};
use comity_protocol::time::{Mono, Now, Wall};
use comity_protocol::trust::Anchors;

const NODES: usize = 1000;
const NOW: Now = Now { mono: Mono::from_micros(60_000_000), wall: Wall::from_millis(1_795_000_000_000) };

fn node(n: usize) -> NodeId {
    // Spread as real keys are, so that lookups cost what they cost in a mesh.
    NodeId::from_bytes(*blake3::hash(&n.to_be_bytes()).as_bytes())
}

fn candidates() -> Vec<Candidate> {
    let sites = ["DE", "FR", "US", "DE US", "GB", "IE", "NL SE", ""].map(places);
    let orgs: [OrgName; 3] =
        ["acme.example", "umbrella.example", "initech.example"].map(|org| org.parse().expect("a name"));
    let candidate = |n: usize| Candidate {
        site: SiteFacts {
            node: node(n),
            org: orgs[n % orgs.len()].clone(),
            processing: sites[n % sites.len()],
            locations_max: CountrySet::ALL,
            operator_country: sites[n % sites.len()].iter().next(),
            trust: TrustLevel::T1,
            class_max: DataClass::Confidential,
            certifications: CertificationSet::default(),
        },
        name: "node".into(),
        executor: true,
        contract: ContractDigest::of(b"contract"),
        approval: Judgement::Approved,
        reach: if n.is_multiple_of(50) { Reach::Connected } else { Reach::Known },
        same_region: n.is_multiple_of(10),
        expires: NOW.wall + DAY,
    };
    (0..NODES).map(candidate).collect()
}

fn request(constraints: Constraints) -> RouteRequest {
    let capability = CapabilityId {
        org: "acme.example".parse().expect("a name"),
        server: "time".parse().expect("a name"),
        kind: Kind::Tool,
        name: "now".parse().expect("a name"),
    };
    RouteRequest { capability, contract: ContractDigest::of(b"contract"), constraints }
}

/// A mesh in use: every peer was measured, some have calls in flight, a few are failing.
fn stats(capability: &CapabilityId) -> PeerStats {
    let mut stats = PeerStats::new();
    for n in 0..NODES {
        let began = Mono::from_micros(50_000_000 + n as u64);
        let health = if n % 100 == 7 { Health::PeerFault } else { Health::Answered };
        for call in 0..6 {
            let attempt = stats.begin(node(n), capability, CallId::from_bytes([call; 16]), began);
            if call < 5 || n % 3 != 0 {
                stats.finish(attempt, health, Mono::from_micros(51_000_000));
            }
        }
    }
    stats
}

fn decisions(c: &mut Criterion) {
    let candidates = candidates();
    let eu = Constraints { allow_locations: Some(places("EU")), ..Constraints::default() };
    let strict = Constraints {
        deny_operator_countries: places("US"),
        class: DataClass::Internal,
        min_trust: TrustLevel::T1,
        allow_orgs: Some(OrgSet::from_iter(["acme.example".parse().expect("a name")])),
        ..eu.clone()
    };
    let nobody = Constraints { allow_locations: Some(CountrySet::EMPTY), ..Constraints::default() };
    let mut group = c.benchmark_group("decide over 1000 nodes");
    for (name, constraints) in [
        ("no constraints", Constraints::default()),
        ("EU", eu),
        ("five constraints", strict),
        ("denied", nobody),
    ] {
        let (request, mut rng) = (request(constraints), Rng::new(1));
        let stats = stats(&request.capability);
        group.bench_function(name, |b| {
            b.iter(|| decide(black_box(&request), black_box(&candidates), &stats, NOW, &mut rng));
        });
    }
    group.finish();
    let denied = request(Constraints { allow_locations: Some(CountrySet::EMPTY), ..Constraints::default() });
    let route = decide(&denied, &candidates, &PeerStats::new(), NOW, &mut Rng::new(1));
    c.bench_function("report a denial by 1000 nodes", |b| b.iter(|| RouteReport::new(&denied, &route)));
}

fn adverts(c: &mut Criterion) {
    let org = TestOrg::new("acme.example", 1, NOW.wall);
    let mut anchors = Anchors::new(mesh());
    anchors.pin(org.name.clone(), org.chain.pin().expect("a chain has a pin"));
    anchors.learn(org.chain.clone()).expect("the chain is the pinned one");
    let node = TestNode::new(&org, 1, places("DE"));
    let advert = node.advert(1, NOW.wall);
    c.bench_function("verify an advert, membership known", |b| {
        b.iter(|| TrustedAdvert::verify(black_box(advert.bytes()), &mut anchors, NOW.wall));
    });
    let fresh = anchors.clone();
    let mut unverified = Anchors::new(mesh());
    for (org, pinned) in fresh.orgs() {
        unverified.pin(org.clone(), pinned.pin);
        unverified.learn(pinned.chain.clone().expect("it was learned")).expect("the chain is the pinned one");
    }
    c.bench_function("verify an advert, membership new", |b| {
        b.iter_batched(
            || unverified.clone(),
            |mut anchors| TrustedAdvert::verify(black_box(advert.bytes()), &mut anchors, NOW.wall),
            criterion::BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, decisions, adverts);
criterion_main!(benches);
