use proptest::prelude::*;

use super::decoder::RESERVE_BYTES;
use super::*;
use crate::call::tests::header;

fn one_of_each() -> Vec<Frame> {
    vec![
        Frame::Header(header().into()),
        Frame::Body(b"{}".to_vec()),
        Frame::Accept,
        Frame::Refuse(Refusal::new("overloaded", "no room").because([("a".into(), "b".into())].into_iter())),
        Frame::Message(b"{\"jsonrpc\":\"2.0\"}".to_vec()),
        Frame::Result(Vec::new()),
        Frame::Error(b"{\"code\":1}".to_vec()),
        Frame::Failed(ExecutionFailure::new("timeout", "late", true)),
        Frame::Receipt(vec![0xd2; 100]),
        Frame::Cancel(Cancel::new(Some("enough"))),
    ]
}

fn decode_all(mut input: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let (mut decoder, mut frames) = (FrameDecoder::new(), Vec::new());
    while let Some(frame) = decoder.push(&mut input)? {
        frames.push(frame);
    }
    assert!(input.is_empty());
    Ok(frames)
}

#[test]
fn every_kind_reads_back_whole_and_byte_by_byte() {
    let frames = one_of_each();
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.to_vec().unwrap()).collect();
    assert_eq!(decode_all(&bytes), Ok(frames.clone()));
    let (mut decoder, mut slowly) = (FrameDecoder::new(), Vec::new());
    for byte in &bytes {
        let mut input = core::slice::from_ref(byte);
        while let Some(frame) = decoder.push(&mut input).unwrap() {
            slowly.push(frame);
        }
    }
    assert_eq!(slowly, frames);
    assert!(decoder.is_between_frames());
}

#[test]
fn a_truncated_frame_is_never_a_frame() {
    for frame in one_of_each() {
        let bytes = frame.to_vec().unwrap();
        for length in 0..bytes.len() {
            let mut decoder = FrameDecoder::new();
            assert_eq!(decoder.push(&mut &bytes[..length]), Ok(None), "{:?} at {length}", frame.kind());
            assert_eq!(decoder.is_between_frames(), length == 0);
        }
    }
}

#[test]
fn unknown_kinds_and_excessive_lengths_are_refused_by_the_prefix_alone() {
    for kind in [0, 11, 255] {
        assert_eq!(decode_all(&[0, 0, 0, 0, kind]), Err(FrameError::Kind(kind)));
    }
    for kind in FrameKind::ALL {
        let length = kind.bytes_max() as u32 + 1;
        let prefix = [&length.to_be_bytes()[..], &[kind as u8]].concat();
        assert!(matches!(decode_all(&prefix), Err(FrameError::TooLong { .. })), "{kind:?}");
        assert!(matches!(super::prefix(kind, length as usize), Err(FrameError::TooLong { .. })));
    }
    let absurd = [0xff, 0xff, 0xff, 0xff, FrameKind::Message as u8];
    assert!(decode_all(&absurd).is_err());
}

#[test]
fn a_length_alone_reserves_next_to_nothing() {
    let mut decoder = FrameDecoder::new();
    let announced = super::prefix(FrameKind::Body, PAYLOAD_BYTES_MAX).unwrap();
    assert_eq!(decoder.push(&mut &announced[..]), Ok(None));
    assert_eq!(decoder.payload.capacity(), 0);
    let mut arrived = 0;
    for _ in 0..100 {
        arrived += 1000;
        assert_eq!(decoder.push(&mut &[b' '; 1000][..]), Ok(None));
        assert!(decoder.payload.capacity() <= 2 * arrived + RESERVE_BYTES);
    }
}

#[test]
fn the_largest_payload_passes() {
    let largest = Frame::Message(vec![b' '; PAYLOAD_BYTES_MAX]);
    assert_eq!(decode_all(&largest.to_vec().unwrap()), Ok(vec![largest]));
    assert!(Frame::Message(vec![b' '; PAYLOAD_BYTES_MAX + 1]).to_vec().is_err());
}

#[test]
fn what_a_peer_says_for_people_is_short_and_clean() {
    let refuse = |code: &str, detail: &str| {
        let refusal = Refusal { code: code.into(), detail: detail.into(), reasons: Vec::new() };
        decode_all(&Frame::Refuse(refusal).to_vec().unwrap())
    };
    assert!(refuse("x", "fine").is_ok());
    for (code, detail) in [("a\nb", ""), (&*"x".repeat(65), ""), ("", "\u{1b}[2J"), ("", &*"x".repeat(1025))]
    {
        assert_eq!(refuse(code, detail), Err(FrameError::Bound(FrameKind::Refuse)));
    }
    let reason = || Reason { code: "x".into(), detail: "y".into() };
    let many = Refusal { reasons: (0..=REASONS_MAX).map(|_| reason()).collect(), ..Refusal::new("x", "y") };
    assert!(decode_all(&Frame::Refuse(many).to_vec().unwrap()).is_err());
}

#[test]
fn what_we_say_fits_whatever_it_was_made_from() {
    let long = "\u{7}é\u{1f600}".repeat(5000);
    let reasons = (0..1000).map(|_| (long.clone(), long.clone()));
    for frame in [
        Frame::Refuse(Refusal::new(&long, long.clone()).because(reasons)),
        Frame::Failed(ExecutionFailure::new(&long, &long, true)),
        Frame::Cancel(Cancel::new(Some(&long))),
    ] {
        let bytes = frame.to_vec().unwrap();
        assert_eq!(decode_all(&bytes), Ok(vec![frame]));
    }
}

proptest! {
    #[test]
    fn garbage_never_panics_and_never_reserves_much(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cuts in proptest::collection::vec(1_usize..40, 1..20),
    ) {
        let (mut decoder, mut input, mut cuts) = (FrameDecoder::new(), &bytes[..], cuts.into_iter().cycle());
        while !input.is_empty() {
            let (mut head, rest) = input.split_at(cuts.next().unwrap().min(input.len()));
            while let Ok(Some(_)) = decoder.push(&mut head) {}
            prop_assert!(decoder.payload.capacity() <= 2 * bytes.len() + RESERVE_BYTES);
            if decoder.push(&mut head).is_err() {
                break;
            }
            input = rest;
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(kind in 0_usize..10, at in any::<proptest::sample::Index>(), bit in 0..8) {
        let mut bytes = one_of_each()[kind].to_vec().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let _ = FrameDecoder::new().push(&mut &bytes[..]);
    }
}
