//! Enrolment over the network: the shell around `comity_protocol::enrol`.
//!
//! - [`entry`] is the joining side from the line to the files; it works with and without a running node.
//! - [`host`] and [`guest`] drive the two machines over a stream of [`frames`].
//! - [`reception`] is what an inviting node keeps: the [`book`] of invites, the [`roll`] of issued memberships, and
//!   whoever waits at a command line for a guest or with an answer ([`questions`]).
//!
//! `node::enrolment` joins these with a running node, `node::renewal` renews this node's own membership.
//!
//! Invariant: what lets somebody in is durable before it leaves. An invite is used up before anything is signed or
//! pinned, and a membership is in the roll before it is sent.

pub(crate) mod book;
pub(crate) mod entry;
pub(crate) mod frames;
pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod questions;
pub(crate) mod reception;
pub(crate) mod roll;
