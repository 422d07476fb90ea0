//! Comity's pure core: types, wire format and state machines.
//!
//! Nothing here reads a clock, does I/O, draws randomness or depends on hash order: time and seeds are arguments, and
//! what should happen in the world is returned as an effect. The node's tasks and the simulator drive the same code.
//!
//! Read in this order: [`ids`], [`geo`] and [`constraints`] are the vocabulary; [`trust`] is who may speak for whom;
//! [`advert`] is what nodes promise; [`codec`] is how all of it becomes bytes. [`json`] and [`jsonrpc`] are how
//! MCP's messages are read without rewriting them; [`contract`], [`approval`] and [`catalogue`] lead from the JSON
//! of a tool, a prompt or a resource to what clients see ([`uri_template`] tells whose a URI is); [`invite`] and [`enrol`] are how a node joins. [`route`] decides who may run a call (the law is
//! [`route::residency`]), and [`call`] makes it.

pub mod advert;
pub mod approval;
pub mod call;
pub mod catalogue;
pub mod codec;
pub mod constraints;
pub mod contract;
pub mod enrol;
pub mod geo;
pub mod ids;
pub mod invite;
pub mod json;
pub mod jsonrpc;
pub mod mesh;
pub mod rng;
pub mod route;
pub mod testing;
pub mod time;
pub mod trace;
pub mod trust;
pub mod uri_template;
