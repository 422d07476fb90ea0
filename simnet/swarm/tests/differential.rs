//! The same scenario and seed in both tiers: what the pure machines promise, the real swarm must keep, and in like time.
//!
//! Federation, paths, faults and their moments are the same in both, for one stage is set for both. What differs is real: the swarm
//! dials with TCP, Noise and Yamux (some three round trips more), gossipsub chooses whom it tells, and the machines draw other
//! numbers for whom they dial when. So times are compared with a tolerance:
//!
//! - a factor of 1.5, since how often somebody is dialled again is drawn;
//! - and 3 s: three more round trips of at most 0.4 s, the driver's 20 ms for a snapshot and the judge's 100 ms between looks, and
//!   one more turn of dialling, which comes at most every two seconds.

mod common;

use std::path::{Path, PathBuf};

use comity_simnet::library;
use comity_simnet::run::{Report, Source, run as machines};

use common::{Told, run as swarm};

const FACTOR: f64 = 1.5;
const MARGIN_MS: f64 = 3000.0;

/// By how many hundredths of all calls the share of those that were answered may differ: who calls whom when is drawn, and faults
/// meet other calls.
const ANSWERED_MARGIN: f64 = 0.05;

fn source(place: &str) -> Source {
    match library::find(place) {
        Some(built_in) => built_in.source().expect("it has no mistakes"),
        None => {
            let text = std::fs::read_to_string(place).expect("a file");
            library::source(place, &text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
        }
    }
}

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(name)
}

/// Runs both and compares what can be compared; the two for whatever else there is to ask.
#[track_caller]
fn both(place: &str, seed: u64) -> (Report, Told) {
    let machines = machines(&source(place), seed, "test", |_| ()).expect("it can be run");
    let swarm = swarm(place, seed);
    assert!(machines.is_ok(), "{}: {:?}", machines.replay, machines.violations);
    assert_eq!(machines.figures.nodes, swarm.figures.nodes);
    let times = [
        ("converged", machines.figures.converged_ms, swarm.figures.converged_ms),
        ("healed", machines.figures.healed_ms, swarm.figures.healed_ms),
    ];
    for (what, one, other) in times {
        match (one, other) {
            (Some(one), Some(other)) => {
                assert!(is_like(one, other), "{}: {what}: {one} and {other} ms", swarm.replay)
            }
            (one, other) => assert_eq!(one, other, "{}: {what}", swarm.replay),
        }
    }
    let shares = (
        answered(machines.figures.calls.iter().map(|(word, count)| (*word, *count))),
        answered(swarm.figures.calls.iter().map(|(word, count)| (word.as_str(), *count))),
    );
    assert!((shares.0 - shares.1).abs() <= ANSWERED_MARGIN, "{}: answered {shares:?}", swarm.replay);
    (machines, swarm)
}

/// The share of calls that were answered, of those whose caller lived to see their end.
fn answered<'a>(outcomes: impl Iterator<Item = (&'a str, u64)>) -> f64 {
    let seen: Vec<_> = outcomes.filter(|(word, _)| *word != "caller_gone").collect();
    let all: u64 = seen.iter().map(|(_, count)| count).sum();
    let answered: u64 = seen.iter().filter(|(word, _)| *word == "answered").map(|(_, count)| count).sum();
    answered as f64 / all.max(1) as f64
}

fn is_like(one: u64, other: u64) -> bool {
    let (short, long) = (one.min(other) as f64, one.max(other) as f64);
    long <= short * FACTOR + MARGIN_MS
}

/// In a federation in which all have pinned all and nobody stays away, everybody knows everybody in the end.
#[track_caller]
fn all_know_all(swarm: &Told) {
    let nodes = swarm.figures.nodes as u64;
    assert_eq!(swarm.figures.known, nodes * nodes, "{}", swarm.replay);
}

#[test]
fn nodes_that_meet_converge_in_like_time() {
    for seed in [1, 2] {
        all_know_all(&both("calm", seed).1);
    }
}

#[test]
fn a_split_heals_in_like_time() {
    all_know_all(&both("split", 1).1);
}

#[test]
fn what_is_known_ends_where_trust_ends_in_both() {
    both("narrow-trust", 1);
}

#[test]
fn cuts_crashes_and_flapping_heal_in_like_time() {
    let place = scenario("crashes.toml");
    all_know_all(&both(place.to_str().expect("a path of this repository"), 1).1);
}
