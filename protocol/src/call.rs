//! One call between two nodes: `/comity/call/1`, a stream of its own from the caller's node to the executor's.
//!
//! ```text
//! caller                                   executor
//!   Header ------------------------------->   checks everything, hands nothing over yet
//!          <------------------------------- Accept | Refuse
//!   Body   ------------------------------->   hands the request to its upstream
//!          <-- Message* (both ways) ------->
//!          <------------------------------- Result | Error | Failed
//!          <------------------------------- Receipt
//! ```
//!
//! The request's body goes out only after [`frame::Frame::Accept`], so that whatever fails before can be tried elsewhere; where
//! the peer has just been heard from, or the tool is vouched for, both go together and save a round trip. [`caller`] and
//! [`executor`] are the two machines, [`admit`] the checks of the second, [`header`] and [`frame`] what travels,
//! [`receipt`] what stays. docs/protocol.md has the bytes.

pub mod admit;
pub mod caller;
pub mod executor;
pub mod frame;
pub mod header;
pub mod outcome;
pub mod receipt;
pub mod seen;

pub use admit::{CallerPeer, Desk, LocalOffer, RefuseCode, Visibility};
pub use caller::{AttemptId, CallPlan, Caller};
pub use executor::Executor;
pub use frame::{ExecutionFailure, Frame, FrameDecoder, FrameError, FrameKind, Refusal};
pub use header::{CallHeader, HeaderParts, Principal};
pub use outcome::{Answer, AttemptFailure, CallFailure, CallOutcome, FailedAttempt, Target};
pub use receipt::{Receipt, ReceiptError, ReceiptOutcome};
pub use seen::SeenCalls;

/// The name of the call protocol.
pub const CALL_PROTOCOL: &str = "/comity/call/1";

#[cfg(test)]
mod pair_tests;
#[cfg(test)]
mod tests;
