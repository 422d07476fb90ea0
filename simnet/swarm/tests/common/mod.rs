//! Runs of the binary: one process each, as `comity_swarm::run::run` wants it.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::process::{Command, Output};

use comity_swarm::run::Figures;
use serde::Deserialize;

/// What a run told as JSON.
#[derive(Debug, Deserialize)]
pub(crate) struct Told {
    pub(crate) trace_hash: String,
    pub(crate) violations: Vec<serde_json::Value>,
    pub(crate) figures: Figures,
    pub(crate) replay: String,
}

pub(crate) fn simnet_swarm(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simnet-swarm"));
    command.args(arguments).output().expect("the binary starts")
}

/// One run, in which nothing may be violated.
#[track_caller]
pub(crate) fn run(scenario: &str, seed: u64) -> Told {
    let output = simnet_swarm(&["run", scenario, "--json", "--seed", &seed.to_string()]);
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{scenario} seed {seed}: {told}{errors}");
    let told: Told = serde_json::from_str(&told).expect("a report");
    assert!(told.violations.is_empty(), "{}: {:?}", told.replay, told.violations);
    told
}
