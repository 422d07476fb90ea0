//! W3C Trace Context: the part of a call's identity that other people's tools understand.
//!
//! Source: W3C Recommendation "Trace Context" level 1, section 3.2 (`traceparent`) and 3.3 (`tracestate`).

use std::fmt;

use data_encoding::HEXLOWER;
use thiserror::Error;

/// Most bytes of `tracestate` that are carried; the recommendation asks for at least 512.
pub const TRACE_STATE_BYTES_MAX: usize = 512;

/// A validated `traceparent`, with the `tracestate` that came beside it.
///
/// Invariant: neither id is all zeroes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
    state: Option<String>,
}

/// Why a `traceparent` was not accepted. The caller then goes on without one, as the recommendation asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TraceError {
    /// Not `version-traceid-parentid-flags` in lower-case hexadecimal of the right lengths.
    #[error("malformed traceparent")]
    Malformed,
    /// Version `ff` is forbidden.
    #[error("forbidden traceparent version")]
    Version,
    /// An id of only zeroes means "no trace".
    #[error("traceparent with an all-zero id")]
    ZeroId,
}

impl TraceContext {
    /// Makes a context from raw ids.
    ///
    /// # Errors
    /// [`TraceError::ZeroId`] when an id has only zero bytes.
    pub fn new(trace_id: [u8; 16], parent_id: [u8; 8], flags: u8) -> Result<Self, TraceError> {
        if trace_id == [0; 16] || parent_id == [0; 8] {
            return Err(TraceError::ZeroId);
        }
        Ok(Self { trace_id, parent_id, flags, state: None })
    }

    /// Reads the value of a `traceparent` header. A version above `00` may carry more fields, which are ignored.
    ///
    /// # Errors
    /// Any [`TraceError`]; nothing is guessed.
    pub fn parse(traceparent: &str) -> Result<Self, TraceError> {
        let mut fields = traceparent.trim_matches([' ', '\t']).split('-');
        let [version] = hex_field(fields.next())?;
        let trace_id = hex_field(fields.next())?;
        let parent_id = hex_field(fields.next())?;
        let [flags] = hex_field(fields.next())?;
        match version {
            0xff => Err(TraceError::Version),
            0 if fields.next().is_some() => Err(TraceError::Malformed),
            _ => Self::new(trace_id, parent_id, flags),
        }
    }

    /// Adds the opaque `tracestate`. One that is empty, too long or not printable ASCII is left out: it is optional.
    #[must_use]
    pub fn with_state(mut self, state: &str) -> Self {
        let fits = !state.is_empty() && state.len() <= TRACE_STATE_BYTES_MAX;
        let printable = state.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        self.state = (fits && printable).then(|| state.to_owned());
        self
    }

    /// The same trace with another span as its parent: what a node passes on.
    ///
    /// # Errors
    /// [`TraceError::ZeroId`] when `parent_id` has only zero bytes.
    pub fn child(&self, parent_id: [u8; 8]) -> Result<Self, TraceError> {
        let child = Self::new(self.trace_id, parent_id, self.flags)?;
        Ok(Self { state: self.state.clone(), ..child })
    }

    /// The 16 bytes that every span of the trace shares.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span that called us.
    #[must_use]
    pub fn parent_id(&self) -> [u8; 8] {
        self.parent_id
    }

    /// The flag byte; bit 0 is "sampled".
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The `tracestate`, if an acceptable one came along.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// Writes the `traceparent` value, always as version `00`.
impl fmt::Display for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, parent) = (HEXLOWER.encode(&self.trace_id), HEXLOWER.encode(&self.parent_id));
        write!(out, "00-{trace}-{parent}-{:02x}", self.flags)
    }
}

/// Exactly `N` bytes as lower-case hexadecimal: upper case is malformed by the recommendation.
fn hex_field<const N: usize>(field: Option<&str>) -> Result<[u8; N], TraceError> {
    let mut bytes = [0; N];
    let field = field.ok_or(TraceError::Malformed)?.as_bytes();
    let decoded = data_encoding::HEXLOWER.decode_len(field.len()) == Ok(N)
        && data_encoding::HEXLOWER.decode_mut(field, &mut bytes).is_ok();
    if decoded { Ok(bytes) } else { Err(TraceError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";

    #[test]
    fn round_trip() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.flags(), 1);
        let child = context.with_state("vendor=1").child([9; 8]).unwrap();
        assert_eq!(child.to_string(), "00-0af7651916cd43dd8448eb211c80319c-0909090909090909-01");
        assert_eq!(child.state(), Some("vendor=1"));
    }

    #[test]
    fn malformed_values() {
        let cases = [
            ("", TraceError::Malformed),
            ("00", TraceError::Malformed),
            ("ff-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01", TraceError::Version),
            ("00-0AF7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01", TraceError::Malformed),
            ("00-0af7651916cd43dd8448eb211c80319-00f067aa0ba902b7-01", TraceError::Malformed),
            ("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01-x", TraceError::Malformed),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", TraceError::ZeroId),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", TraceError::ZeroId),
            ("00-é0af7651916cd43dd8448eb211c8031-00f067aa0ba902b7-01", TraceError::Malformed),
        ];
        for (value, error) in cases {
            assert_eq!(TraceContext::parse(value), Err(error), "{value}");
        }
    }

    #[test]
    fn a_later_version_may_carry_more() {
        let later = "01-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01-more";
        assert_eq!(TraceContext::parse(later).unwrap().to_string(), GOOD);
    }

    #[test]
    fn unacceptable_state_is_left_out() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert_eq!(context.clone().with_state("").state(), None);
        assert_eq!(context.clone().with_state("a\u{7f}").state(), None);
        assert_eq!(context.with_state(&"x".repeat(TRACE_STATE_BYTES_MAX + 1)).state(), None);
    }
}
