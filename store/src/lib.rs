//! Comity’s durable store.
