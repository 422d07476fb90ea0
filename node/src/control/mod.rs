//! How the command line talks to the node that runs: a Unix socket in the data directory.
//!
//! One connection carries one request, a JSON object on a line, and one or more replies, each a JSON object on a line:
//! any number of events, then exactly one `done` or `error`. Only the node's own user (or root) is answered. Closing the
//! connection cancels the request.

pub mod client;
pub mod frame;
pub mod messages;
pub mod reports;
pub mod server;

pub use client::{ClientError, ControlClient};
pub use messages::{ControlFault, Event, FaultKind, Request, Response};
pub use server::{BindError, ControlHandler, ControlServer, Events};

#[cfg(test)]
mod tests;
