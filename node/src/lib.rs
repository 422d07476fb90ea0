//! The Comity node: the shell around the pure core of `comity-protocol`.
//!
//! Where to look:
//! - [`node`] puts every part together, runs it and ends it. Read it first.
//! - [`face`] is how AI clients reach the node, [`gateway`] what it needs from the rest, [`exchange`] where every call's two
//!   sides meet.
//! - [`calls`] decides and runs calls, here and over the mesh. [`world`] is what they decide from.
//! - [`upstream`] fronts MCP servers. [`mesh`] is libp2p, in a crate of its own. [`keeping`] is what must survive.
//! - [`demo`] shows a small federation at work.
//! - `enrolment` lets nodes and orgs in.
//! - [`cli`], [`control`] and [`admin`] are for people; [`config`], [`identity`] and [`org`] are the files they keep.

pub mod admin;
pub mod calls;
pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
mod enrolment;
pub mod exchange;
pub mod face;
pub mod files;
pub mod gateway;
pub mod identity;
pub mod input;
pub mod keeping;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod org;
pub mod secret;
pub mod slot;
pub mod telemetry;
pub mod upstream;
pub mod validation;
pub mod world;

pub use comity_mesh as mesh;
pub use comity_mesh::clock;
