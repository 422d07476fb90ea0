//! The `[limits]` section: bounds that hold for the node as a whole.

use std::time::Duration;

use super::section::Section;
use super::setting::ByteSize;

/// The `[limits]` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Calls in flight of clients here, and as many again of peers; more are refused as overloaded.
    pub calls_in_flight_max: u32,
    /// Largest message to or from a server here. Between nodes none is larger than 8 MiB, whatever this says.
    pub message_max: ByteSize,
    /// How long a call may take when nobody demands less.
    pub call_timeout: Duration,
    /// How long running calls may go on after SIGTERM.
    pub shutdown_grace: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            calls_in_flight_max: 1024,
            message_max: ByteSize::mib(8),
            // Long enough for a person to answer a question, or a build to finish: silence alone ends no call.
            call_timeout: Duration::from_secs(60 * 60),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

impl LimitsConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let default = LimitsConfig::default();
        let day = Duration::from_secs(24 * 60 * 60);
        let config = LimitsConfig {
            calls_in_flight_max: section.or_within(
                "calls_in_flight_max",
                default.calls_in_flight_max,
                1..=100_000,
            ),
            message_max: section.or_within(
                "message_max",
                default.message_max,
                ByteSize::kib(4)..=ByteSize::mib(256),
            ),
            call_timeout: section.or_within(
                "call_timeout",
                default.call_timeout,
                Duration::from_millis(1)..=day,
            ),
            shutdown_grace: section.or_within("shutdown_grace", default.shutdown_grace, Duration::ZERO..=day),
        };
        section.finish();
        config
    }
}
