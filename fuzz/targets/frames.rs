//! The frames of a call: what a peer sends on `/comity/call/1`.
//!
//! However the bytes are cut, the same frames come out; a frame that was read is written as it was; and a decoder sets
//! aside no more than its documentation says.
#![no_main]

use comity_protocol::call::{Frame, FrameDecoder, FrameError};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first byte says how the rest is cut.
    let Some((&cut, bytes)) = input.split_first() else { return };
    let (whole, error) = decode(bytes, bytes.len().max(1));
    let (pieces, other) = decode(bytes, usize::from(cut) + 1);
    assert_eq!((&whole, &error), (&pieces, &other), "cut into pieces of {}", usize::from(cut) + 1);
    let mut written = Vec::new();
    for frame in &whole {
        frame.write(&mut written).expect("what was read can be written");
    }
    assert!(bytes.starts_with(&written), "one encoding for every frame");
});

fn decode(bytes: &[u8], step: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    for mut piece in bytes.chunks(step) {
        loop {
            match decoder.push(&mut piece) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
