//! The simulator's second tier: the shipped mesh of a node (`comity-mesh`), with real libp2p, in one process and in virtual time.
//!
//! The first tier runs the pure machines alone and stands in for all that carries them. Here gossipsub, identify, ping, Noise,
//! Yamux, our streams, the gate and the driver are the real ones; only the sockets, the clocks and the random generator are not.
//! One scenario and one seed give one run, on every machine, in every process: [`run::run`] makes it.
//!
//! Read [`run`] first. `world` plays the scenario; `nodes` starts and ends nodes; `calls` makes their calls; `judge` looks at what
//! they know. `net` is the network and `pipe` and `transport` libp2p's way into it. [`entropy`] and the stand-ins under `shims/` are
//! what makes a run repeatable, and [`linked`] makes sure of them.

mod calls;
pub mod cli;
pub mod entropy;
mod judge;
pub mod linked;
mod net;
mod nodes;
mod pipe;
pub mod run;
mod transport;
mod world;
