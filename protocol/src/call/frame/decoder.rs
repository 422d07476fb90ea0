//! From bytes to frames.

use super::{Frame, FrameError, FrameKind, PREFIX_BYTES};

/// What a decoder sets aside for a payload of which nothing has arrived. Beyond that it grows with what arrives, to at
/// most twice that: a length alone reserves nothing.
pub(super) const RESERVE_BYTES: usize = 4 * 1024;

/// Cuts a byte stream into frames.
///
/// It holds at most one frame that is not complete, and sets aside no more than twice what has arrived of it plus a
/// constant. After an error the stream has no meaning any more: close it.
#[derive(Clone, Debug, Default)]
pub struct FrameDecoder {
    prefix: [u8; PREFIX_BYTES],
    prefix_filled: usize,
    pub(super) payload: Vec<u8>,
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

    /// What the frame that is half arrived is, once its prefix has told.
    pub fn arriving(&self) -> Option<FrameKind> {
        self.expected.map(|(kind, _)| kind)
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
