//! The Comity node.

pub mod exchange;
