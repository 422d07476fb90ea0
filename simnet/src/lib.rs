//! Comity's simulator: whole federations over the real machines of `comity-protocol`, in simulated time.
//!
//! One scenario and one seed give one run, on every machine: [`run::run`] makes it and [`run::Report`] is what it came to,
//! with a hash of all that happened; [`chronicle`] is what happened, when somebody wants to see it. [`scenario`] is what
//! users write, [`library`] what is built in, [`judge`] what must hold in every run. [`stage`] is what scenario and seed decide
//! beforehand, also for the second tier, which plays the real swarm on it (`simnet/swarm`, a workspace of its own). `world`
//! is the event loop, `network` what lies between nodes, `disk` what survives a crash, `calls`
//! the life of a call. docs/simulation.md says how the simulation differs from reality.

mod calls;
pub mod chronicle;
pub mod cli;
mod disk;
mod federation;
pub mod figures;
pub mod judge;
pub mod library;
mod memory;
pub mod moment;
mod network;
pub mod replay;
pub mod report;
pub mod run;
pub mod sabotage;
pub mod scenario;
pub mod shrink;
pub mod stage;
pub mod trace;
mod world;
