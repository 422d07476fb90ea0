//! The trace of a run: everything that happened, in order, as one hash. Two runs are the same when their hashes are.

use crate::moment::Moment;

/// Hashes what happens.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hasher: blake3::Hasher,
    events: u64,
}

impl Trace {
    /// One event: when, what kind, whom it concerns and what it carries.
    pub fn event(&mut self, at: Moment, kind: u8, node: usize, payload: &[u8]) {
        self.events += 1;
        self.hasher.update(&at.0.to_le_bytes());
        self.hasher.update(&[kind]);
        self.hasher.update(&(node as u64).to_le_bytes());
        self.hasher.update(&(payload.len() as u64).to_le_bytes());
        self.hasher.update(payload);
    }

    /// How many events there were.
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The hash so far, in hexadecimal.
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex()[..32].to_owned()
    }
}
