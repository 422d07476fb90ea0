//! Whole nodes in one process, over real sockets on loopback. They wait for states, never for a time to pass.

#![cfg(feature = "sockets")]

mod admission;
mod calls;
mod convergence;
mod enrolment;
mod harness;
mod hostile;
mod liveness;
