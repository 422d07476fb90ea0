//! The MCP face: how AI clients reach this node.
//!
//! [`Face`] serves two transports over one core: streamable HTTP on a TCP socket (`POST /mcp`, with GET and DELETE for
//! the legacy era) and newline-framed JSON-RPC on a Unix socket, which `comity stdio` pipes to a client's
//! stdin and stdout ([`stdio::bridge`]). Both eras of MCP are spoken on each.
//!
//! Payloads are raw JSON from end to end. What arrives on a call's [`Exchange`](crate::exchange::Exchange) is written
//! to the client as it is, but for ids and tokens that belong to this leg of the journey.
//!
//! | room | what happens there |
//! | --- | --- |
//! | [`config`], [`auth`] | what the operator sets; who is asking |
//! | `server` | sockets, connection bounds, graceful drain |
//! | `http` | the HTTP binding of both eras; `guard`, `media`, `headers` check what arrives |
//! | `session`, `stream_log` | legacy sessions and resumable streams |
//! | `line`, [`stdio`] | the newline binding and its bridge |
//! | `door`, `about` | the endpoints under one address, and what each says of itself |
//! | `methods`, `core`, `handshake`, `listing`, `find` | which methods exist and what answers them |
//! | `watches` | the resources that a client watches |
//! | `call`, `conversation` | one call in flight; what ties a client's messages to it |
//! | `suspended` | calls that wait for a modern client's input |

pub mod auth;
pub mod config;
pub mod stdio;

mod about;
mod call;
mod conversation;
mod core;
mod door;
mod find;
mod guard;
mod handshake;
mod headers;
mod http;
mod line;
mod listing;
mod logging;
mod media;
mod methods;
mod params;
mod server;
mod session;
mod sse;
mod stream_log;
mod suspended;
mod watches;

#[cfg(test)]
pub(crate) mod tests;

pub use auth::{TokenConfig, TokenSecret};
pub use config::{FaceConfig, FaceLimits};
pub use door::{Profile, RAW};
pub use server::{Face, FaceError, FaceGauges};
