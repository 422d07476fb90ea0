//! Upstreams: the MCP servers that this node fronts.
//!
//! [`UpstreamSet`] starts them, keeps them running, knows what they offer and carries calls to them.
//! Each upstream has one supervisor task and one session that all its calls share.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`config`], [`set`], [`view`] | what is configured, what runs, what is seen of it |
//! | `supervisor`, `backoff` | one upstream's life |
//! | `negotiate`, [`profile`], [`list`] | the first words with a server: era, capabilities, offerings |
//! | `watch` | subscriptions to resources, from one life of the server to the next |
//! | `session`, `table`, [`meta`] | calls in flight: whose message is it, and what is changed in it |
//! | `stdio`, `child`, `guard`, `queue`, `lines`, `noise` | child processes and their pipes |
//! | `http`, `sse` | streamable HTTP |

mod backoff;
mod child;
pub mod config;
mod guard;
mod http;
mod lines;
pub mod list;
pub mod meta;
mod negotiate;
mod noise;
pub mod profile;
mod queue;
mod session;
pub mod set;
mod sse;
mod stdio;
mod supervisor;
mod table;
pub mod view;
mod watch;

pub(crate) use self::backoff::Backoff;
pub use self::config::{EraChoice, UpstreamConfig};
pub(crate) use self::guard::Guard;
pub use self::list::{Offerings, Tool};
pub use self::meta::VerifiedCaller;
pub use self::profile::{Era, ServerProfile};
pub use self::set::{CallOptions, UpstreamSet};
pub use self::view::{UpstreamState, UpstreamView, Upstreams};

#[cfg(test)]
mod tests;
