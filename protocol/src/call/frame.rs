//! The frames of a call stream: four bytes of length (big-endian, of the payload), one byte of kind, the payload.

use minicbor::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::trust::SealedType;

use super::header::{CallHeader, HEADER_BYTES_MAX, HeaderError};
use super::receipt::Receipt;

/// Most bytes of a request, a message, a result or an error.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most bytes of a frame that carries a refusal, a failure or a cancellation.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;

/// Bytes before the payload.
pub const PREFIX_BYTES: usize = 5;

/// Most reasons in one refusal.
pub const REASONS_MAX: usize = 16;

/// Most bytes of a code.
const CODE_BYTES_MAX: usize = 64;
/// Most bytes of a detail; longer ones are cut by the sender.
const DETAIL_BYTES_MAX: usize = 1024;

/// What a decoder sets aside for a payload of which nothing has arrived. Beyond that it grows with what arrives, to at
/// most twice that: a length alone reserves nothing.
const RESERVE_BYTES: usize = 4 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FrameKind {
    /// Caller: the [`CallHeader`].
    Header = 1,
    /// Caller: the request's `params` as raw JSON.
    Body = 2,
    /// Executor: the header holds; send the body.
    Accept = 3,
    /// Executor: no, and nothing was handed over.
    Refuse = 4,
    /// Either: a JSON-RPC message that belongs to the call.
    Message = 5,
    /// Executor: the JSON-RPC `result` as raw JSON. The end, but for the receipt.
    Result = 6,
    /// Executor: the JSON-RPC `error` as raw JSON. The end, but for the receipt.
    Error = 7,
    /// Executor: the call failed without an answer of the upstream.
    Failed = 8,
    /// Executor: the sealed [`Receipt`].
    Receipt = 9,
    /// Caller: stop.
    Cancel = 10,
}

impl FrameKind {
    const ALL: [Self; 10] = [
        Self::Header,
        Self::Body,
        Self::Accept,
        Self::Refuse,
        Self::Message,
        Self::Result,
        Self::Error,
        Self::Failed,
        Self::Receipt,
        Self::Cancel,
    ];

    fn from_byte(byte: u8) -> Result<Self, FrameError> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte).ok_or(FrameError::Kind(byte))
    }

    /// Most bytes of a payload of this kind.
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Header => HEADER_BYTES_MAX,
            Self::Body | Self::Message | Self::Result | Self::Error => PAYLOAD_BYTES_MAX,
            Self::Accept => 0,
            Self::Refuse | Self::Failed | Self::Cancel => NOTE_BYTES_MAX,
            Self::Receipt => Receipt::BYTES_MAX,
        }
    }
}

/// Why bytes are no frame, or a frame cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind that this version does not know.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// Longer than its kind may be.
    #[error("a {kind:?} frame of {actual} bytes, where {max} are allowed")]
    TooLong {
        /// The kind.
        kind: FrameKind,
        /// The length announced.
        actual: usize,
        /// The length allowed.
        max: usize,
    },
    /// The header is not acceptable.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The payload is not what its kind says.
    #[error("a {0:?} frame cannot be read")]
    Payload(FrameKind, #[source] CodecError),
    /// A text or a list in it breaks a bound.
    #[error("a {0:?} frame breaks a bound")]
    Bound(FrameKind),
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// See [`FrameKind::Header`].
    Header(Box<CallHeader>),
    /// See [`FrameKind::Body`].
    Body(Vec<u8>),
    /// See [`FrameKind::Accept`].
    Accept,
    /// See [`FrameKind::Refuse`].
    Refuse(Refusal),
    /// See [`FrameKind::Message`].
    Message(Vec<u8>),
    /// See [`FrameKind::Result`].
    Result(Vec<u8>),
    /// See [`FrameKind::Error`].
    Error(Vec<u8>),
    /// See [`FrameKind::Failed`].
    Failed(ExecutionFailure),
    /// See [`FrameKind::Receipt`]: the sealed envelope, not yet verified.
    Receipt(Vec<u8>),
    /// See [`FrameKind::Cancel`].
    Cancel(Cancel),
}

/// Why the executor does not run a call. Nothing was handed to its upstream: the call may be tried elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refusal {
    /// The first reason's stable name.
    #[n(0)]
    pub code: String,
    /// The same for people.
    #[n(1)]
    pub detail: String,
    /// Every rule that failed, where constraints did.
    #[n(2)]
    pub reasons: Vec<Reason>,
}

/// One rule that failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reason {
    /// The rule's stable name.
    #[n(0)]
    pub code: String,
    /// The facts of the case.
    #[n(1)]
    pub detail: String,
}

/// How a call failed that had been accepted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ExecutionFailure {
    /// A stable name: `upstream_died`, `timeout`, `cancelled`, `overloaded`, `too_large`, `internal`.
    #[n(0)]
    pub code: String,
    /// The same for people.
    #[n(1)]
    pub detail: String,
    /// Whether the upstream may have begun to run it.
    #[n(2)]
    pub handed_over: bool,
}

/// The caller's wish that a call stop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Cancel {
    /// For the upstream's log.
    #[n(0)]
    pub reason: Option<String>,
}

impl Refusal {
    /// A refusal for one reason.
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        Self {
            code: tidy(code, CODE_BYTES_MAX),
            detail: tidy(&detail.into(), DETAIL_BYTES_MAX),
            reasons: Vec::new(),
        }
    }

    /// Adds rules, as many as a refusal may have.
    #[must_use]
    pub fn because(mut self, reasons: impl Iterator<Item = (String, String)>) -> Self {
        let reasons = reasons.map(|(code, detail)| Reason {
            code: tidy(&code, CODE_BYTES_MAX),
            detail: tidy(&detail, DETAIL_BYTES_MAX / 2),
        });
        self.reasons = reasons.take(REASONS_MAX).collect();
        self
    }
}

impl ExecutionFailure {
    /// A failure; what is too long for a frame is cut.
    pub fn new(code: &str, detail: &str, handed_over: bool) -> Self {
        Self { code: tidy(code, CODE_BYTES_MAX), detail: tidy(detail, DETAIL_BYTES_MAX), handed_over }
    }
}

impl Cancel {
    /// A wish to stop, with what is too long for a frame cut.
    pub fn new(reason: Option<&str>) -> Self {
        Self { reason: reason.map(|reason| tidy(reason, DETAIL_BYTES_MAX)) }
    }
}

/// `text` without control characters and cut to `bytes_max`, at a character's end.
fn tidy(text: &str, bytes_max: usize) -> String {
    let mut tidy: String = text.chars().take(bytes_max).filter(|c| !c.is_control()).collect();
    tidy.truncate(tidy.floor_char_boundary(bytes_max));
    tidy
}

impl Frame {
    /// What the frame is.
    pub const fn kind(&self) -> FrameKind {
        match self {
            Self::Header(_) => FrameKind::Header,
            Self::Body(_) => FrameKind::Body,
            Self::Accept => FrameKind::Accept,
            Self::Refuse(_) => FrameKind::Refuse,
            Self::Message(_) => FrameKind::Message,
            Self::Result(_) => FrameKind::Result,
            Self::Error(_) => FrameKind::Error,
            Self::Failed(_) => FrameKind::Failed,
            Self::Receipt(_) => FrameKind::Receipt,
            Self::Cancel(_) => FrameKind::Cancel,
        }
    }

    /// Appends the frame's bytes to `out`; on an error nothing is appended.
    ///
    /// # Errors
    /// [`FrameError`] when a receiver would refuse it.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let kind = self.kind();
        match self {
            Self::Header(header) => write_payload(kind, &header.to_bytes()?, out),
            Self::Body(bytes)
            | Self::Message(bytes)
            | Self::Result(bytes)
            | Self::Error(bytes)
            | Self::Receipt(bytes) => write_payload(kind, bytes, out),
            Self::Accept => write_payload(kind, &[], out),
            Self::Refuse(refusal) => write_payload(kind, &codec::encode(refusal), out),
            Self::Failed(failure) => write_payload(kind, &codec::encode(failure), out),
            Self::Cancel(cancel) => write_payload(kind, &codec::encode(cancel), out),
        }
    }

    /// The frame's bytes.
    ///
    /// # Errors
    /// [`FrameError`] when a receiver would refuse it.
    pub fn to_vec(&self) -> Result<Vec<u8>, FrameError> {
        let mut out = Vec::new();
        self.write(&mut out)?;
        Ok(out)
    }

    fn decode(kind: FrameKind, payload: Vec<u8>) -> Result<Self, FrameError> {
        let frame = match kind {
            FrameKind::Header => Self::Header(CallHeader::from_bytes(&payload)?.into()),
            FrameKind::Body => Self::Body(payload),
            FrameKind::Accept => Self::Accept,
            FrameKind::Refuse => Self::Refuse(read_note(kind, &payload)?),
            FrameKind::Message => Self::Message(payload),
            FrameKind::Result => Self::Result(payload),
            FrameKind::Error => Self::Error(payload),
            FrameKind::Failed => Self::Failed(read_note(kind, &payload)?),
            FrameKind::Receipt => Self::Receipt(payload),
            FrameKind::Cancel => Self::Cancel(read_note(kind, &payload)?),
        };
        if frame.keeps_bounds() { Ok(frame) } else { Err(FrameError::Bound(kind)) }
    }

    /// What a peer says is shown to people and logged: it is short and has no control characters.
    fn keeps_bounds(&self) -> bool {
        let code = |text: &str| is_clean(text, CODE_BYTES_MAX);
        let detail = |text: &str| is_clean(text, DETAIL_BYTES_MAX);
        match self {
            Self::Refuse(refusal) => {
                code(&refusal.code)
                    && detail(&refusal.detail)
                    && refusal.reasons.len() <= REASONS_MAX
                    && refusal.reasons.iter().all(|reason| code(&reason.code) && detail(&reason.detail))
            }
            Self::Failed(failure) => code(&failure.code) && detail(&failure.detail),
            Self::Cancel(cancel) => cancel.reason.as_deref().is_none_or(detail),
            _ => true,
        }
    }
}

fn is_clean(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.chars().any(char::is_control)
}

fn read_note<T: for<'b> Decode<'b, ()> + Encode<()>>(
    kind: FrameKind,
    payload: &[u8],
) -> Result<T, FrameError> {
    codec::decode(payload, NOTE_BYTES_MAX).map_err(|error| FrameError::Payload(kind, error))
}

/// The bytes that stand before a payload of `length` bytes, for a sender that writes the payload from where it lies.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn prefix(kind: FrameKind, length: usize) -> Result<[u8; PREFIX_BYTES], FrameError> {
    let max = kind.bytes_max();
    let announced = u32::try_from(length).ok().filter(|_| length <= max);
    let [a, b, c, d] = announced.ok_or(FrameError::TooLong { kind, actual: length, max })?.to_be_bytes();
    Ok([a, b, c, d, kind as u8])
}

fn write_payload(kind: FrameKind, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    out.extend_from_slice(&prefix(kind, payload.len())?);
    out.extend_from_slice(payload);
    Ok(())
}

/// Cuts a byte stream into frames.
///
/// It holds at most one frame that is not complete, and sets aside no more than twice what has arrived of it plus a
/// constant. After an error the stream has no meaning any more: close it.
#[derive(Clone, Debug, Default)]
pub struct FrameDecoder {
    prefix: [u8; PREFIX_BYTES],
    prefix_filled: usize,
    payload: Vec<u8>,
    /// The kind and the length of the frame that is arriving, once its prefix has.
    expected: Option<(FrameKind, usize)>,
}

impl FrameDecoder {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off the front of `input` until a frame is complete or `input` is empty. Call it again while it
    /// returns frames.
    ///
    /// # Errors
    /// [`FrameError`], as soon as the prefix shows it.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let Some((kind, length)) = self.take_prefix(input)? else { return Ok(None) };
        self.take_payload(input, length);
        if self.payload.len() < length {
            return Ok(None);
        }
        self.expected = None;
        self.prefix_filled = 0;
        Frame::decode(kind, core::mem::take(&mut self.payload)).map(Some)
    }

    /// Whether the stream may end here: no frame is half arrived.
    pub const fn is_between_frames(&self) -> bool {
        self.prefix_filled == 0
    }

    fn take_prefix(&mut self, input: &mut &[u8]) -> Result<Option<(FrameKind, usize)>, FrameError> {
        if self.expected.is_some() {
            return Ok(self.expected);
        }
        let taken = (PREFIX_BYTES - self.prefix_filled).min(input.len());
        let (head, rest) = input.split_at(taken);
        self.prefix[self.prefix_filled..self.prefix_filled + taken].copy_from_slice(head);
        self.prefix_filled += taken;
        *input = rest;
        if self.prefix_filled < PREFIX_BYTES {
            return Ok(None);
        }
        let [a, b, c, d, kind] = self.prefix;
        let (kind, actual) = (FrameKind::from_byte(kind)?, u32::from_be_bytes([a, b, c, d]) as usize);
        let max = kind.bytes_max();
        if actual > max {
            return Err(FrameError::TooLong { kind, actual, max });
        }
        self.expected = Some((kind, actual));
        Ok(self.expected)
    }

    fn take_payload(&mut self, input: &mut &[u8], length: usize) {
        let taken = (length - self.payload.len()).min(input.len());
        let (head, rest) = input.split_at(taken);
        let needed = self.payload.len() + taken;
        if needed > self.payload.capacity() {
            let roomy = (2 * needed).max(RESERVE_BYTES).min(length);
            self.payload.reserve_exact(roomy - self.payload.len());
        }
        self.payload.extend_from_slice(head);
        *input = rest;
    }
}

#[cfg(test)]
mod tests;
