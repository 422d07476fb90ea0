//! One call between two nodes: `/comity/call/1`, on a stream from the caller's node to the executor's that carries
//! nothing else meanwhile.
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
//!
//! A stream may carry another call of the same caller once its call has ended with a receipt, if the caller said nothing
//! after the body: then neither side has anything of it on its way. Every other stream ends with its call. A caller lets
//! an idle stream go after [`STREAM_KEPT`], an executor after the longer [`STREAM_IDLE_MAX`], so that no header meets
//! an executor that is just leaving.

use core::time::Duration;

pub mod admit;
pub mod caller;
pub mod executor;
pub mod frame;
pub mod header;
pub mod methods;
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

/// How long a caller keeps a stream for its next call.
pub const STREAM_KEPT: Duration = Duration::from_secs(10);

/// How long an executor waits for the next call on a stream. Longer than [`STREAM_KEPT`] by more than any connection
/// lives unheard.
pub const STREAM_IDLE_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod pair_tests;
#[cfg(test)]
mod tests;
