//! Whole runs of real nodes, each in a process of its own: that one seed gives one run, and that what should hold holds.

mod common;

use common::{run, simnet_swarm};

#[test]
fn one_seed_gives_one_run_in_two_processes_and_another_seed_another() {
    let output = simnet_swarm(&["run", "calm", "--seed", "3", "--twice"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_ne!(run("calm", 3).trace_hash, run("calm", 4).trace_hash);
}

#[test]
fn what_only_machines_can_do_is_refused_by_its_word() {
    let output = simnet_swarm(&["run", "hostile"]);
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("`byzantine`"), "{told}");
}

#[test]
fn mistakes_are_told_as_in_the_first_tier() {
    let output = simnet_swarm(&["run", "splitt"]);
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("did you mean `split`?"), "{told}");
}
