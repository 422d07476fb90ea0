//! The Comity node.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod exchange;
pub mod face;
pub mod files;
pub mod gateway;
pub mod identity;
pub mod mesh;
pub mod metrics;
pub mod org;
pub mod secret;
pub mod telemetry;
pub mod upstream;
