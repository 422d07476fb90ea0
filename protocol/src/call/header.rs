//! The header of a call: everything by which the executor decides, before it sees the request.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::codec::{self, CodecError};
use crate::constraints::Constraints;
use crate::ids::{CallId, CapabilityId, ContractDigest, NodeId, OrgName, PayloadDigest};
use crate::time::Wall;
use crate::trace::TraceContext;

/// The version of this layout.
const LAYOUT: u16 = 1;

/// Most bytes of a header. A caller whose constraints do not fit is told so; see [`HeaderError`].
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Most bytes of a method, a node's name and a principal's name.
pub const METHOD_BYTES_MAX: usize = 64;
/// Most bytes of a node's name.
pub const NODE_NAME_BYTES_MAX: usize = 64;
/// Most bytes of a principal's name.
pub const PRINCIPAL_BYTES_MAX: usize = 256;

/// The hop limit of a call that a client makes: how many nodes in a row may pass it on through their upstreams.
pub const HOPS_DEFAULT: u8 = 4;

/// Flags that a reader must understand to go on; none is defined yet.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// For whom a call is made. The connection proves the node and its org; the rest is the node's word.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Principal {
    /// The org of the caller's node.
    #[n(0)]
    pub org: OrgName,
    /// The caller's node.
    #[n(1)]
    pub node: NodeId,
    /// What people call that node.
    #[n(2)]
    pub node_name: String,
    /// Who asked it: `local`, or the name of a client's token.
    #[n(3)]
    pub name: String,
}

/// The header of a call. The principal's assertion is bound to the executor and to the digest of the request: the same
/// header is of no use at another node or for another request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CallHeader {
    #[n(0)]
    layout: u16,
    /// The call, unique for its caller.
    #[n(1)]
    pub call: CallId,
    /// What is called.
    #[n(2)]
    pub capability: CapabilityId,
    /// The contract under which the caller knows it.
    #[n(3)]
    pub contract: ContractDigest,
    /// The MCP method, such as `tools/call`.
    #[n(4)]
    pub method: String,
    /// What the caller demands of the executor.
    #[n(5)]
    pub constraints: Constraints,
    /// For whom.
    #[n(6)]
    pub principal: Principal,
    /// Who is to run it.
    #[n(7)]
    pub executor: NodeId,
    /// The digest of the body.
    #[n(8)]
    pub request: PayloadDigest,
    /// The bytes of the body.
    #[n(9)]
    pub request_bytes: u32,
    /// When the header was sent, by the caller's clock.
    #[n(10)]
    pub sent: Wall,
    /// How long the caller still waits, in milliseconds.
    #[n(11)]
    pub deadline_ms: u64,
    /// The caller's trace.
    #[n(12)]
    pub trace: Option<TraceContext>,
    /// How many nodes may still pass the call on, the executor included.
    #[n(13)]
    pub hops: u8,
    /// The upper half must be understood, the lower half may be ignored. No flag is defined yet.
    #[n(14)]
    flags: u32,
}

/// Why a header was refused, or cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not a header, or longer than [`HEADER_BYTES_MAX`].
    #[error("the call's header cannot be read")]
    Codec(#[from] CodecError),
    /// Made by a version of Comity that this one does not know.
    #[error("the call's header has layout {0}; this node knows layout {LAYOUT}")]
    Layout(u16),
    /// It demands something that this version does not know.
    #[error("the call's header has critical flags {0:#x} that this node does not know")]
    Flags(u32),
    /// A text in it is too long or has control characters.
    #[error("the call's header has a {0} that is too long or has control characters")]
    Text(&'static str),
    /// It does not fit when encoded.
    #[error(
        "the call's header would have {0} bytes and may have {HEADER_BYTES_MAX}: are its constraints too long?"
    )]
    TooLarge(usize),
}

impl CallHeader {
    /// A header of this version. `parts` are those that do not change from candidate to candidate.
    pub fn new(parts: HeaderParts, executor: NodeId, sent: Wall, deadline_ms: u64) -> Self {
        Self {
            layout: LAYOUT,
            call: parts.call,
            capability: parts.capability,
            contract: parts.contract,
            method: parts.method,
            constraints: parts.constraints,
            principal: parts.principal,
            executor,
            request: parts.request,
            request_bytes: parts.request_bytes,
            sent,
            deadline_ms,
            trace: parts.trace,
            hops: parts.hops,
            flags: 0,
        }
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderError> {
        let header: Self = codec::decode(bytes, HEADER_BYTES_MAX)?;
        header.check()?;
        Ok(header)
    }

    /// The header's bytes.
    ///
    /// # Errors
    /// [`HeaderError`] when a receiver would refuse it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, HeaderError> {
        self.check()?;
        let bytes = codec::encode(self);
        if bytes.len() > HEADER_BYTES_MAX { Err(HeaderError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    fn check(&self) -> Result<(), HeaderError> {
        if self.layout != LAYOUT {
            return Err(HeaderError::Layout(self.layout));
        }
        if self.flags & CRITICAL_FLAGS != 0 {
            return Err(HeaderError::Flags(self.flags & CRITICAL_FLAGS));
        }
        for (what, text, max) in [
            ("method", &self.method, METHOD_BYTES_MAX),
            ("node name", &self.principal.node_name, NODE_NAME_BYTES_MAX),
            ("principal", &self.principal.name, PRINCIPAL_BYTES_MAX),
        ] {
            if text.len() > max || text.chars().any(char::is_control) {
                return Err(HeaderError::Text(what));
            }
        }
        Ok(())
    }
}

/// The parts of a header that are the same for every candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderParts {
    /// The call, unique for its caller.
    pub call: CallId,
    /// What is called.
    pub capability: CapabilityId,
    /// The contract under which the caller knows it.
    pub contract: ContractDigest,
    /// The MCP method.
    pub method: String,
    /// What the caller demands of the executor.
    pub constraints: Constraints,
    /// For whom.
    pub principal: Principal,
    /// The digest of the body.
    pub request: PayloadDigest,
    /// The bytes of the body.
    pub request_bytes: u32,
    /// The caller's trace.
    pub trace: Option<TraceContext>,
    /// How many nodes may still pass the call on.
    pub hops: u8,
}

/// `[traceparent, tracestate or null]`.
impl<C> Encode<C> for TraceContext {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.array(2)?.str(&self.to_string())?;
        self.state().encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for TraceContext {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, decode::Error> {
        if d.array()? != Some(2) {
            return Err(decode::Error::message("a trace context has two parts"));
        }
        let trace = Self::parse(d.str()?).map_err(|error| decode::Error::message(error.to_string()))?;
        // A state that `with_state` leaves out makes the value differ from what was sent, which the codec refuses.
        Ok(match Option::<&str>::decode(d, ctx)? {
            Some(state) => trace.with_state(state),
            None => trace,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::tests::{header, parts};
    use crate::ids::NodeId;

    #[test]
    fn a_header_reads_back() {
        let header = header();
        assert!(header.trace.is_some());
        assert_eq!(CallHeader::from_bytes(&header.to_bytes().unwrap()), Ok(header));
    }

    #[test]
    fn every_truncation_and_extension_is_refused() {
        let bytes = header().to_bytes().unwrap();
        for length in 0..bytes.len() {
            assert!(CallHeader::from_bytes(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(CallHeader::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_later_layout_and_critical_flags_are_refused_and_other_flags_are_not() {
        let later = CallHeader { layout: 2, ..header() };
        assert_eq!(CallHeader::from_bytes(&codec::encode(&later)), Err(HeaderError::Layout(2)));
        let critical = CallHeader { flags: 0x0001_0001, ..header() };
        assert_eq!(CallHeader::from_bytes(&codec::encode(&critical)), Err(HeaderError::Flags(0x0001_0000)));
        let ignorable = CallHeader { flags: 1, ..header() };
        assert_eq!(CallHeader::from_bytes(&codec::encode(&ignorable)), Ok(ignorable));
    }

    #[test]
    fn texts_are_bounded_and_clean() {
        for (change, what) in [
            ((|h| h.method = "x".repeat(65)) as fn(&mut CallHeader), "method"),
            (|h| h.method = "a\nb".into(), "method"),
            (|h| h.principal.name = "x".repeat(257), "principal"),
            (|h| h.principal.node_name = "\u{7}".into(), "node name"),
        ] {
            let mut header = header();
            change(&mut header);
            assert_eq!(CallHeader::from_bytes(&codec::encode(&header)), Err(HeaderError::Text(what)));
        }
    }

    #[test]
    fn a_header_that_would_not_fit_is_an_error_for_its_caller() {
        let mut parts = parts();
        parts.constraints.require_certifications =
            (0..256).map(|n| format!("{n}{}", "x".repeat(100))).collect();
        let header = CallHeader::new(parts, NodeId::from_bytes([1; 32]), Wall::from_millis(0), 1);
        assert!(matches!(header.to_bytes(), Err(HeaderError::TooLarge(_))));
    }

    #[test]
    fn a_trace_that_is_not_one_is_refused() {
        let mut header = header();
        let good = header.to_bytes().unwrap();
        header.trace = None;
        assert!(CallHeader::from_bytes(&header.to_bytes().unwrap()).is_ok());
        let at = good.windows(3).position(|window| window == b"00-").unwrap();
        let mut bad = good;
        bad[at + 4] = b'Z';
        assert!(CallHeader::from_bytes(&bad).is_err());
    }
}
