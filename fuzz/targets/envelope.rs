//! JSON-RPC messages, and the objects inside that a node edits: what clients, servers and peers send.
//!
//! What is read is written so that it is read as the same; what a node does not edit keeps its bytes; the canonical form is
//! its own canonical form; and serde_json takes nothing for JSON that we do not, but for what is said to be refused.
#![no_main]

use comity_protocol::json::{self, DEPTH_MAX, RawObject};
use comity_protocol::jsonrpc::{Limits, Message, RpcError};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const LIMITS: Limits = Limits { bytes_max: 1 << 16, depth_max: DEPTH_MAX };

fuzz_target!(|input: &[u8]| {
    if let Ok(message) = Message::parse(input, LIMITS) {
        is_read_as_it_was_written(&message);
        message.params().into_iter().for_each(object);
        if let Message::Error { error, .. } = &message {
            let read = RpcError::from_raw(error);
            assert_eq!(RpcError::from_raw(&read.to_raw()).code, read.code);
        }
    }
    // Whatever is JSON can be looked at, whether it is a message or not.
    if json::check_depth(input, DEPTH_MAX).is_ok() {
        if let Ok(raw) = serde_json::from_slice::<Box<RawValue>>(input) {
            object(&raw);
        }
    }
});

fn is_read_as_it_was_written(message: &Message) {
    let written = message.to_vec();
    let unlimited = Limits { bytes_max: usize::MAX, ..LIMITS };
    let again = Message::parse(&written, unlimited).expect("what was written can be read");
    assert_eq!(again.to_vec(), written);
    assert_eq!((again.id(), again.method()), (message.id(), message.method()));
    assert_eq!(again.params().map(RawValue::get), message.params().map(RawValue::get));
    let mut line = Vec::new();
    message.write_line(&mut line);
    assert_eq!(memchr::memchr(b'\n', &line), Some(line.len() - 1), "a line is one line");
    let line = Message::parse(&line, unlimited).expect("a line can be read");
    assert_eq!(canonical(line.params()), canonical(message.params()), "a line says the same");
}

fn canonical(raw: Option<&RawValue>) -> Option<Vec<u8>> {
    raw.and_then(|raw| json::canonical(raw).ok())
}

fn object(raw: &RawValue) {
    if let Ok(form) = json::canonical(raw) {
        let text = String::from_utf8(form).expect("canonical JSON is text");
        let again = RawValue::from_string(text.clone()).expect("canonical JSON is JSON");
        assert_eq!(json::canonical(&again).expect("it is not deeper"), text.as_bytes());
    }
    let Ok(mut object) = RawObject::parse(raw) else { return };
    let written = object.to_raw();
    let before: Vec<_> = object.iter().map(|(key, value)| (key.to_owned(), value.get().to_owned())).collect();
    let again = RawObject::parse(&written).expect("what was written can be read");
    assert_eq!(again.to_raw().get(), written.get());
    object.set_str("fuzzed", "\u{1}\"\\");
    assert_eq!(object.get_str("fuzzed").as_deref(), Some("\u{1}\"\\"));
    let kept = RawObject::parse(&object.to_raw()).expect("what was set can be read");
    for (key, value) in before.iter().filter(|(key, _)| key != "fuzzed") {
        assert_eq!(kept.get(key).map(RawValue::get), Some(value.as_str()), "{key}");
    }
}
