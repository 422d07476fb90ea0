use super::*;
use crate::ids::Kind;
use crate::route::breaker::CIRCUIT_SAMPLES_MIN;

fn at(ms: u64) -> Mono {
    Mono::from_micros(ms * 1000)
}

fn node(n: u16) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    NodeId::from_bytes(bytes)
}

fn call(n: u32) -> CallId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    CallId::from_bytes(bytes)
}

fn capability(tool: &str) -> CapabilityId {
    CapabilityId {
        org: "acme.example".parse().unwrap(),
        server: "time".parse().unwrap(),
        kind: Kind::Tool,
        name: tool.parse().unwrap(),
    }
}

/// One call that began at `began` and ended at `ended`.
fn run(stats: &mut PeerStats, n: u16, health: Health, began: Mono, ended: Mono) {
    let attempt = stats.begin(node(n), &capability("now"), call(0), began);
    stats.finish(attempt, health, ended);
}

#[test]
fn a_hung_peer_looks_worse_and_worse() {
    let mut stats = PeerStats::new();
    run(&mut stats, 1, Health::Answered, at(0), at(10));
    let _hung = stats.begin(node(1), &capability("now"), call(1), at(10));
    let scores: Vec<u64> = (1..200).map(|second| stats.score(&node(1), at(10 + second * 1000))).collect();
    assert!(scores.is_sorted_by(|a, b| a < b), "{scores:?}");
    assert!(scores[0] > 2 * 1_000_000 - 1, "a second of silence with one pending counts twice");
}

#[test]
fn a_worse_time_counts_at_once_and_is_forgotten_slowly() {
    let mut stats = PeerStats::new();
    run(&mut stats, 1, Health::Answered, at(0), at(10));
    run(&mut stats, 1, Health::Answered, at(100), at(900));
    assert_eq!(stats.score(&node(1), at(900)), 800_000);
    run(&mut stats, 1, Health::Answered, at(900), at(910));
    let after_a_good_one = stats.score(&node(1), at(910));
    assert!((600_000..800_000).contains(&after_a_good_one), "{after_a_good_one}");
    assert!(stats.score(&node(1), at(910) + HALF_LIFE) <= after_a_good_one / 2 + 1);
    assert_eq!(stats.score(&node(1), at(3_600_000)), micros(LOAD_MIN));
}

#[test]
fn pending_calls_multiply_the_score() {
    let mut stats = PeerStats::new();
    let unknown = stats.score(&node(1), at(0));
    let attempts: Vec<_> = (0..9).map(|n| stats.begin(node(1), &capability("now"), call(n), at(0))).collect();
    assert_eq!(stats.score(&node(1), at(0)), unknown * 10);
    for attempt in attempts {
        stats.finish(attempt, Health::Neutral, at(0));
    }
    assert_eq!((stats.pending(&node(1)), stats.score(&node(1), at(0))), (0, unknown));
}

#[test]
fn a_failure_costs_for_a_while() {
    let mut stats = PeerStats::new();
    run(&mut stats, 1, Health::PeerFault, at(0), at(0));
    assert!(stats.score(&node(1), at(0)) >= micros(FAILURE_PENALTY));
    assert!(stats.score(&node(1), at(600_000)) < micros(LOAD_MIN) + 10);
}

#[test]
fn a_peer_that_fails_is_left_alone_and_probed_once() {
    let mut stats = PeerStats::new();
    (0..CIRCUIT_SAMPLES_MIN).for_each(|_| run(&mut stats, 1, Health::PeerFault, at(0), at(0)));
    let allows = |stats: &PeerStats, n, tool, ms| stats.circuit_allows(&node(n), &capability(tool), at(ms));
    assert!(!allows(&stats, 1, "now", 1000));
    assert!(!allows(&stats, 1, "other", 1000), "a peer's fault counts for all it offers");
    assert!(allows(&stats, 2, "now", 1000));
    assert!(allows(&stats, 1, "now", 2000));
    let probe = stats.begin(node(1), &capability("now"), call(1), at(2000));
    assert!(!allows(&stats, 1, "now", 2001));
    stats.finish(probe, Health::Answered, at(2002));
    assert!(allows(&stats, 1, "now", 2003));
    assert!(stats.tripped.is_empty());
}

#[test]
fn one_broken_capability_does_not_close_the_others() {
    let mut stats = PeerStats::new();
    (0..CIRCUIT_SAMPLES_MIN).for_each(|_| run(&mut stats, 1, Health::CapabilityFault, at(0), at(0)));
    assert!(!stats.circuit_allows(&node(1), &capability("now"), at(1)));
    assert!(stats.circuit_allows(&node(1), &capability("other"), at(1)));
}

#[test]
fn the_table_is_bounded_and_forgets_the_longest_unused() {
    let mut stats = PeerStats::new();
    let held = stats.begin(node(0), &capability("now"), call(0), at(0));
    for n in 1..PEERS_MAX as u16 + 10 {
        run(&mut stats, n, Health::Answered, at(u64::from(n)), at(u64::from(n)));
    }
    assert_eq!(stats.len(), PEERS_MAX);
    assert_eq!(stats.pending(&node(0)), 1, "a peer with a call in flight stays");
    assert!(!stats.peers.contains_key(&node(1)));
    stats.finish(held, Health::Answered, at(9));
}

#[test]
fn what_is_kept_of_one_peer_is_bounded() {
    let mut stats = PeerStats::new();
    for n in 0..10_000 {
        let name = capability(&format!("tool{n}"));
        let _ = stats.begin(node(1), &name, call(n), at(0));
        let failing = stats.begin(node(2), &name, call(n), at(0));
        stats.finish(failing, Health::CapabilityFault, at(0));
    }
    assert_eq!(stats.peers[&node(1)].in_flight.len(), IN_FLIGHT_TRACKED_MAX);
    assert_eq!(stats.pending(&node(1)), 10_000);
    assert!(stats.peers[&node(2)].capability_circuits.len() <= CAPABILITIES_MAX);
}
