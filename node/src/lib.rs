//! The Comity node.

pub mod admin;
pub mod config;
pub mod exchange;
pub mod gateway;
pub mod files;
pub mod secret;
pub mod telemetry;
