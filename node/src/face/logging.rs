//! Which log messages of a call its client wants to see.
//!
//! Source: MCP 2025-11-25 "Logging" (`logging/setLevel` for the session) and 2026-07-28 (`logLevel` in a request's
//! `_meta`; without it, none may be sent). Levels are those of RFC 5424.

use std::sync::atomic::{AtomicU8, Ordering};

use comity_protocol::json;
use serde_json::value::RawValue;

/// From least to most severe.
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// The least severe level that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Threshold(u8);

impl Threshold {
    /// Everything passes: a legacy client that never set a level.
    pub(super) const ALL: Self = Self(0);
    /// Nothing passes: a 2026-07-28 request that asked for no logs.
    pub(super) const NOTHING: Self = Self(u8::MAX);

    /// Reads a level's name; `None` when it is none of the eight.
    pub(super) fn from_raw(level: &RawValue) -> Option<Self> {
        severity(&json::as_str(level)?).map(Self)
    }

    /// Whether `params` of a `notifications/message` may be sent. A level that we do not know passes any filter but
    /// [`Threshold::NOTHING`]: better too much than a lost error.
    pub(super) fn admits(self, params: Option<&RawValue>) -> bool {
        if self == Self::NOTHING || self == Self::ALL {
            return self == Self::ALL;
        }
        let level = params.and_then(|params| json::path(params, &["level"])).and_then(json::as_str);
        level.and_then(|level| severity(&level)).is_none_or(|level| level >= self.0)
    }
}

/// A threshold that `logging/setLevel` can move while calls run.
#[derive(Debug)]
pub(super) struct SharedThreshold(AtomicU8);

impl Default for SharedThreshold {
    fn default() -> Self {
        Self(AtomicU8::new(Threshold::ALL.0))
    }
}

impl SharedThreshold {
    pub(super) fn set(&self, threshold: Threshold) {
        self.0.store(threshold.0, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Threshold {
        Threshold(self.0.load(Ordering::Relaxed))
    }
}

fn severity(level: &str) -> Option<u8> {
    let at = LEVELS.iter().position(|name| *name == level)?;
    u8::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let raw = |text: &str| RawValue::from_string(text.into()).unwrap();
        let (info, error) = (raw(r#"{"level":"info","data":1}"#), raw(r#"{"level":"error"}"#));
        let warning = Threshold::from_raw(&raw(r#""warning""#)).unwrap();
        assert!(!warning.admits(Some(&info)) && warning.admits(Some(&error)));
        assert!(warning.admits(Some(&raw(r#"{"level":"odd"}"#))) && warning.admits(None));
        assert!(Threshold::ALL.admits(Some(&info)) && !Threshold::NOTHING.admits(Some(&error)));
        for wrong in [r#""verbose""#, "3", "null"] {
            assert_eq!(Threshold::from_raw(&raw(wrong)), None);
        }
        let shared = SharedThreshold::default();
        assert_eq!(shared.get(), Threshold::ALL);
        shared.set(warning);
        assert_eq!(shared.get(), warning);
    }
}
