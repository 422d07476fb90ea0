//! The frames of a call stream: four bytes of length (big-endian, of the payload), one byte of kind, the payload.

mod decoder;
mod notes;

pub use decoder::FrameDecoder;
pub use notes::{Cancel, ExecutionFailure, REASONS_MAX, Reason, Refusal};

use crate::codec::{self, CodecError};
use crate::trust::SealedType;

use super::header::{CallHeader, HEADER_BYTES_MAX, HeaderError};
use super::receipt::Receipt;
use notes::Note;

/// Most bytes of a request, a message, a result or an error.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most bytes of a frame that carries a refusal, a failure or a cancellation.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;

/// Bytes before the payload.
pub const PREFIX_BYTES: usize = 5;

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
        Ok(match kind {
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
        })
    }
}

fn read_note<T: Note>(kind: FrameKind, payload: &[u8]) -> Result<T, FrameError> {
    let note: T = codec::decode(payload, NOTE_BYTES_MAX).map_err(|error| FrameError::Payload(kind, error))?;
    if note.is_clean() { Ok(note) } else { Err(FrameError::Bound(kind)) }
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

#[cfg(test)]
mod tests;
