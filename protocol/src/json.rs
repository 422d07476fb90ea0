//! Raw JSON: reading and editing a document without re-encoding the parts that are not ours.
//!
//! MCP payloads pass through a node unchanged. Decoding them into typed models would lose unknown
//! fields, round integers that no machine type holds and reorder keys. This module therefore works
//! on [`RawValue`]s: text that is known to be valid JSON and is otherwise left alone.
//!
//! Every entry point is safe on hostile input: depth is measured by a scan before anything recurses,
//! and duplicate keys, which different readers resolve differently, are refused.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How deeply a document may nest by default; real MCP traffic stays under 20.
pub const DEPTH_MAX: usize = 96;

/// Why a JSON text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Arrays and objects nest more deeply than allowed.
    #[error("nested more than {max} levels deep")]
    TooDeep {
        /// The limit that was exceeded.
        max: usize,
    },
    /// The text has more bytes than allowed.
    #[error("{size} bytes of JSON exceed the limit of {max}")]
    TooLarge {
        /// Bytes found.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The bytes are not UTF-8.
    #[error("not UTF-8 from byte {valid_up_to} on")]
    NotUtf8 {
        /// Bytes before the first fault.
        valid_up_to: usize,
    },
    /// The same key twice in one object.
    #[error("duplicate key {key:?}")]
    DuplicateKey {
        /// The key, shortened if it is long.
        key: String,
    },
    /// A value of another kind was needed here.
    #[error("expected {expected}")]
    Expected {
        /// What was needed, for example `"an object"`.
        expected: &'static str,
    },
    /// Not JSON, or a string that no Unicode text can hold (a lone surrogate).
    #[error("{0}")]
    Syntax(String),
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self::Syntax(error.to_string())
    }
}

/// Refuses `text` if arrays and objects nest more than `max` deep. One pass, no recursion, no
/// allocation; brackets inside strings do not count. The text need not be valid JSON.
pub fn check_depth(text: &[u8], max: usize) -> Result<(), JsonError> {
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > max {
                    return Err(JsonError::TooDeep { max });
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => rest = after_string(after),
            _ => {}
        }
    }
    Ok(())
}

/// What follows the closing quote of a string whose opening quote was just taken.
fn after_string(mut text: &[u8]) -> &[u8] {
    loop {
        text = &text[plain_len(text)..];
        match text {
            [b'"', rest @ ..] => return rest,
            [_backslash, _escaped, rest @ ..] => text = rest,
            [_] | [] => return &[],
        }
    }
}

/// How many bytes come before the first quote or backslash. Eight at a time: this scan sees every byte of every text
/// that passes, and long texts are mostly strings.
fn plain_len(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
    const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    // The high bit of each byte that is zero; of bytes above the first zero one it may be set wrongly.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ QUOTES) | zeros(word ^ BACKSLASHES);
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
    words.len() * 8 + plain.unwrap_or(rest.len())
}

/// Serialises a value of ours. For values that always serialise: structs, strings, numbers, lists.
///
/// # Panics
/// If `T`'s `Serialize` fails, which for plain data (no maps with non-string keys) it cannot.
pub fn to_raw<T: serde::Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("plain data always serialises")
}

/// The string that `raw` is, borrowed where it has no escapes; `None` if it is no string.
pub fn as_str(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(text).ok().map(Cow::Owned)
}

/// The value under `key` of the object `object`, borrowed; `None` if absent. Cheaper than
/// [`RawObject::parse`] when nothing is edited. Refuses non-objects and a key found twice.
pub fn field<'a>(object: &'a RawValue, key: &str) -> Result<Option<&'a RawValue>, JsonError> {
    let mut de = serde_json::Deserializer::from_str(object.get());
    if !object.get().starts_with('{') {
        return Err(JsonError::Expected { expected: "an object" });
    }
    match de.deserialize_map(FieldVisitor { key })? {
        Found::No => Ok(None),
        Found::Once(value) => Ok(Some(value)),
        Found::Twice => Err(duplicate(key)),
    }
}

/// Like [`field`] for a value nested in objects: `path(params, &["_meta", "progressToken"])`.
/// A missing step, or a step into something that is no object, is `None`.
pub fn path<'a>(object: &'a RawValue, keys: &[&str]) -> Option<&'a RawValue> {
    keys.iter().try_fold(object, |value, key| field(value, key).ok().flatten())
}

/// One level of a JSON object: its entries in the order they were written, each value exactly as it
/// was written. Editing one entry leaves the bytes of the others alone.
#[derive(Clone, Default)]
pub struct RawObject {
    entries: Vec<(String, Box<RawValue>)>,
}

impl RawObject {
    /// An object without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one level of `raw`. Refuses anything but an object, and duplicate keys.
    pub fn parse(raw: &RawValue) -> Result<Self, JsonError> {
        if !raw.get().starts_with('{') {
            return Err(JsonError::Expected { expected: "an object" });
        }
        let mut de = serde_json::Deserializer::from_str(raw.get());
        let entries = de.deserialize_map(EntriesVisitor)?;
        refuse_duplicates(entries.iter().map(|(key, _)| key.as_str()))?;
        Ok(Self { entries })
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&RawValue> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| &**value)
    }

    /// The string under `key`; `None` if absent or no string.
    pub fn get_str(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key).and_then(as_str)
    }

    /// The object under `key`: `None` if absent, an error if it is something else.
    pub fn get_object(&self, key: &str) -> Result<Option<RawObject>, JsonError> {
        self.get(key).map(RawObject::parse).transpose()
    }

    /// Replaces the value under `key` where it stands, or appends the entry.
    pub fn set(&mut self, key: &str, value: Box<RawValue>) {
        match self.entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, slot)) => *slot = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// [`set`](Self::set) with a string.
    pub fn set_str(&mut self, key: &str, value: &str) {
        self.set(key, to_raw(value));
    }

    /// Takes the entry out; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<Box<RawValue>> {
        let index = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(index).1)
    }

    /// Keeps the entries whose key satisfies `keep`.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.entries.retain(|(key, _)| keep(key));
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), &**value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how many bytes [`write`](Self::write) appends; exact but for escapes in keys.
    pub fn text_len(&self) -> usize {
        2 + self.entries.iter().map(|(key, value)| key.len() + value.get().len() + 4).sum::<usize>()
    }

    /// Appends the object's text to `out`. Keys are re-escaped minimally, values are copied.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (key, value)) in self.entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_string(out, key);
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b'}');
    }

    /// The object as raw JSON.
    pub fn to_raw(&self) -> Box<RawValue> {
        let mut out = Vec::with_capacity(self.text_len());
        self.write(&mut out);
        let text = String::from_utf8(out).expect("keys and values are strings");
        RawValue::from_string(text).expect("an object of valid entries is valid")
    }
}

impl fmt::Debug for RawObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may hold secrets or megabytes: keys only.
        f.debug_list().entries(self.entries.iter().map(|(key, _)| key)).finish()
    }
}

/// Appends `text` as a JSON string, escaping only what must be.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory does not fail");
}

/// The canonical form of `raw`, for hashing: no insignificant whitespace, keys sorted by their UTF-8
/// bytes at each level, strings re-escaped minimally, numbers exactly as written (so that `1` and
/// `1.0` differ: a node must not decide what a tool's numbers mean). Refuses duplicate keys, lone
/// surrogates and nesting beyond [`DEPTH_MAX`].
///
/// Unlike RFC 8785 it neither rewrites numbers nor sorts by UTF-16 units.
pub fn canonical(raw: &RawValue) -> Result<Vec<u8>, JsonError> {
    let text = raw.get();
    check_depth(text.as_bytes(), DEPTH_MAX)?;
    let mut writer = Canonical { text, at: 0, out: Vec::with_capacity(text.len()) };
    writer.value()?;
    Ok(writer.out)
}

/// A recursive walk over text that is known to be valid JSON of bounded depth.
struct Canonical<'a> {
    text: &'a str,
    at: usize,
    out: Vec<u8>,
}

impl<'a> Canonical<'a> {
    fn value(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => {
                let text = self.string()?;
                write_string(&mut self.out, &text);
                Ok(())
            }
            _ => {
                self.atom();
                Ok(())
            }
        }
    }

    fn array(&mut self) -> Result<(), JsonError> {
        self.copy();
        while self.peek() != b']' {
            self.value()?;
            if self.peek() == b',' {
                self.copy();
            }
        }
        self.copy();
        Ok(())
    }

    /// Writes the entries as they come and puts them in order afterwards, so that sorted input, the
    /// usual case on the second reading, moves nothing.
    fn object(&mut self) -> Result<(), JsonError> {
        self.copy();
        let start = self.out.len();
        let mut entries: Vec<(Cow<'a, str>, Range<usize>)> = Vec::new();
        while self.peek() != b'}' {
            let key = self.string()?;
            let from = self.out.len();
            write_string(&mut self.out, &key);
            self.peek();
            self.copy(); // the colon
            self.value()?;
            entries.push((key, from..self.out.len()));
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(duplicate(&pair[0].0));
        }
        self.join(start, entries.into_iter().map(|(_, range)| range));
        self.out.push(b'}');
        Ok(())
    }

    /// Rewrites everything from `start` on as the given ranges of it, separated by commas.
    fn join(&mut self, start: usize, ranges: impl ExactSizeIterator<Item = Range<usize>>) {
        let written = self.out.split_off(start);
        for (index, range) in ranges.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.out.extend_from_slice(&written[range.start - start..range.end - start]);
        }
    }

    fn atom(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
        let len = rest.iter().position(ends).unwrap_or(rest.len());
        self.out.extend_from_slice(&rest[..len]);
        self.at += len;
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let end = self.text.len() - after_string(&self.text.as_bytes()[self.at + 1..]).len();
        let literal = &self.text[self.at..end];
        self.at = end;
        let inner = &literal[1..literal.len() - 1];
        if !inner.contains('\\') {
            return Ok(Cow::Borrowed(inner));
        }
        Ok(Cow::Owned(serde_json::from_str(literal)?))
    }

    /// Skips whitespace and shows the next byte; 0 at the end, which valid JSON never reaches here.
    fn peek(&mut self) -> u8 {
        let rest = &self.text.as_bytes()[self.at..];
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.at += blank;
        rest.get(blank).copied().unwrap_or(0)
    }

    fn copy(&mut self) {
        self.out.push(self.text.as_bytes()[self.at]);
        self.at += 1;
    }
}

fn duplicate(key: &str) -> JsonError {
    const SHOWN_CHARS: usize = 64;
    JsonError::DuplicateKey { key: key.chars().take(SHOWN_CHARS).collect() }
}

/// Below this many keys comparing each with each is cheaper than sorting.
const FEW_KEYS: usize = 12;

fn refuse_duplicates<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), JsonError> {
    let mut keys: Vec<&str> = keys.collect();
    let twice = if keys.len() <= FEW_KEYS {
        keys.iter().enumerate().find(|(index, key)| keys[..*index].contains(key)).map(|(_, key)| *key)
    } else {
        keys.sort_unstable();
        keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    };
    twice.map_or(Ok(()), |key| Err(duplicate(key)))
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

enum Found<'a> {
    No,
    Once(&'a RawValue),
    Twice,
}

struct FieldVisitor<'k> {
    key: &'k str,
}

impl<'de> Visitor<'de> for FieldVisitor<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::No;
        while let Some(wanted) = map.next_key_seed(KeyIs(self.key))? {
            if !wanted {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value()?;
            found = if matches!(found, Found::No) { Found::Once(value) } else { Found::Twice };
        }
        Ok(found)
    }
}

/// Compares a key without allocating it.
struct KeyIs<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests;
