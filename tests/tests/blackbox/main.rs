//! Black-box tests: a federation of real processes, asked the questions that its users would ask.
//!
//! One program for all of them, so that the fixtures are looked for once. [`comity_tests`] is the harness.

mod admission;
mod bridge;
mod commands;
mod conformance;
mod conformance_client;
mod contracts;
mod documents;
mod enrolment;
mod hostile;
mod libraries;
mod lossless;
mod operating;
mod purity;
mod real_servers;
mod routing;
mod soak;
mod survival;
mod world;
