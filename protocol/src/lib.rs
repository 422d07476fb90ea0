//! Comity’s pure core.
