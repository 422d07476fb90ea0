//! The Comity node.
