//! Whole nodes in one process: real meshes on loopback, real servers as children.

mod approvals;
mod bridging;
mod calls;
mod failures;
mod fake;
mod following;
mod harness;
mod items;
mod lasting;
mod life;
mod residency;
