//! The Comity node.

pub mod exchange;
pub mod gateway;
