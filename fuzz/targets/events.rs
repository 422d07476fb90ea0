//! Server-sent events: what an MCP server streams.
//!
//! However the bytes are cut, the same events come out; and they are those that a plain reading of the whole finds (WHATWG
//! HTML, section 9.2.6).
#![no_main]

#[path = "../../node/src/upstream/sse.rs"]
mod sse;

use libfuzzer_sys::fuzz_target;
use sse::{SseEvent, SseParser};

/// Larger than any input of the fuzzer, and so small that inputs exceed it.
const LIMITS: [usize; 2] = [1 << 20, 40];

fuzz_target!(|input: &[u8]| {
    let Some((&cut, bytes)) = input.split_first() else { return };
    for max in LIMITS {
        let whole = parse(bytes, bytes.len().max(1), max);
        assert_eq!(
            whole,
            parse(bytes, usize::from(cut) + 1, max),
            "cut into pieces of {}",
            usize::from(cut) + 1
        );
        whole.events.iter().for_each(|event| match event {
            SseEvent::Data(data) => assert!(!data.is_empty() && data.len() <= max),
            SseEvent::TooLarge { size } => assert!(*size > max),
        });
        if max > bytes.len() {
            assert_eq!(whole.events, plain(bytes));
        }
    }
});

#[derive(Debug, PartialEq)]
struct Parsed {
    events: Vec<SseEvent>,
    last_id: Option<String>,
    retry_ms: Option<u64>,
}

fn parse(bytes: &[u8], step: usize, max: usize) -> Parsed {
    let mut parser = SseParser::new(max);
    let mut events = Vec::new();
    for piece in bytes.chunks(step) {
        parser.feed(piece, |event| events.push(event));
    }
    Parsed { events, last_id: parser.last_id().map(str::to_owned), retry_ms: parser.retry_ms() }
}

/// The data of every complete event, read all at once.
fn plain(bytes: &[u8]) -> Vec<SseEvent> {
    let mut events = Vec::new();
    let mut data: Option<Vec<u8>> = None;
    for line in complete_lines(bytes) {
        if line.is_empty() {
            events.extend(data.take().filter(|data| !data.is_empty()).map(SseEvent::Data));
            continue;
        }
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        if name == b"data" {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            data = Some(match data.take() {
                Some(before) => [&before, &b"\n"[..], value].concat(),
                None => value.to_vec(),
            });
        }
    }
    events
}

/// The lines that have an end: CR LF, LF or CR.
fn complete_lines(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        lines.push(&bytes[..end]);
        bytes = bytes[end..].strip_prefix(b"\r\n").unwrap_or(&bytes[end + 1..]);
    }
    lines
}
