//! Stands in for the package `web-time` in the simulator. There it is `std::time`, whose clocks are the machine's; here
//! [`Instant`] is tokio's, which the simulator pauses, and [`SystemTime`] stands still.
//!
//! libp2p reads the time of day for two things only: sequence numbers of signed gossip and of peer records. The mesh uses
//! neither, so it is enough that no run can depend on the machine's calendar.

pub use std::time::{Duration, SystemTimeError};

pub use tokio::time::Instant;

/// A moment of the year 2026, in seconds since the epoch.
const STANDS_AT_S: u64 = 1_795_000_000;

/// The time of day, which stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemTime(std::time::SystemTime);

/// The epoch.
pub const UNIX_EPOCH: SystemTime = SystemTime::UNIX_EPOCH;

impl SystemTime {
    /// The epoch.
    pub const UNIX_EPOCH: Self = Self(std::time::SystemTime::UNIX_EPOCH);

    /// Always the same moment.
    #[must_use]
    pub fn now() -> Self {
        Self(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(STANDS_AT_S))
    }

    /// The time from `earlier` to `self`.
    ///
    /// # Errors
    /// When `earlier` is later.
    pub fn duration_since(&self, earlier: Self) -> Result<Duration, SystemTimeError> {
        self.0.duration_since(earlier.0)
    }
}
