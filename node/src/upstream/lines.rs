//! Lines out of a byte stream, with bounded memory whatever the stream does.

/// Bytes of an over-long line that are kept from each end of it, to tell whose answer it was.
const ENDS_BYTES: usize = 128;

/// Splits a byte stream into lines of at most `max` bytes. A longer line is discarded to its end
/// while only its two ends are kept.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Where the present line starts in `buffer`.
    start: usize,
    /// Bytes of `buffer` already searched for a line break.
    searched: usize,
    max: usize,
    discarding: Option<Discarded>,
}

/// What one line was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A whole line without its line break.
    Whole(&'a [u8]),
    /// A line that was longer than allowed.
    TooLong(Discarded),
}

/// What is left of a line that was too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Discarded {
    /// Its first bytes.
    pub(super) head: Vec<u8>,
    /// Its last bytes.
    pub(super) tail: Vec<u8>,
    /// Its length in bytes.
    pub(super) size: usize,
}

impl Lines {
    /// A splitter for lines of at most `max` bytes.
    pub(super) fn new(max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, max, discarding: None }
    }

    /// Where to append what was read. Call [`next`](Self::next) until `None` before reading more.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        // A single large line must not pin its memory for ever.
        if self.buffer.capacity() > KEPT_BYTES && self.buffer.len() < KEPT_BYTES {
            self.buffer.shrink_to(KEPT_BYTES);
        }
        &mut self.buffer
    }

    /// The next complete line.
    pub(super) fn next(&mut self) -> Option<Line<'_>> {
        match memchr::memchr(b'\n', &self.buffer[self.searched..]) {
            Some(offset) => {
                let (start, end) = (self.start, self.searched + offset);
                self.start = end + 1;
                self.searched = end + 1;
                if self.discarding.is_some() || end - start > self.max {
                    return self.end_discard(start, end);
                }
                let line = &self.buffer[start..end];
                Some(Line::Whole(line.strip_suffix(b"\r").unwrap_or(line)))
            }
            None => {
                self.searched = self.buffer.len();
                if self.discarding.is_some() || self.buffer.len() - self.start > self.max {
                    self.discard(self.start, self.buffer.len());
                    self.start = self.buffer.len();
                }
                None
            }
        }
    }

    fn discard(&mut self, from: usize, to: usize) {
        let bytes = &self.buffer[from..to];
        let kept = self.discarding.get_or_insert_with(|| Discarded {
            head: bytes[..bytes.len().min(ENDS_BYTES)].to_vec(),
            tail: Vec::new(),
            size: 0,
        });
        kept.size += bytes.len();
        kept.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(ENDS_BYTES)..]);
        let excess = kept.tail.len().saturating_sub(ENDS_BYTES);
        kept.tail.drain(..excess);
    }

    fn end_discard(&mut self, from: usize, to: usize) -> Option<Line<'_>> {
        self.discard(from, to);
        self.discarding.take().map(Line::TooLong)
    }
}

/// Buffer that is kept between lines.
const KEPT_BYTES: usize = 256 << 10;

impl Discarded {
    /// The id of the answer that the line was, where its ends show it for certain. Servers write the
    /// small members of the envelope before the payload or after it:
    /// `{"jsonrpc":"2.0","id":N,"result":…}`, `{"result":…,"jsonrpc":"2.0","id":N}`. A request of the
    /// server has an id of its own making and is never taken for an answer.
    pub(super) fn id(&self) -> Option<i64> {
        let head = std::str::from_utf8(&self.head[..ascii_len(&self.head)]).ok()?;
        let mut members = head.trim_start().strip_prefix('{')?.trim_start();
        let mut id = None;
        while !is_answer(members) {
            let rest = match strip_member(members, "\"id\"") {
                Some(value) => {
                    let (number, rest) = leading_integer(value)?;
                    id = Some(number);
                    rest
                }
                None => strip_member(members, "\"jsonrpc\"")?.strip_prefix("\"2.0\"")?,
            };
            members = rest.trim_start().strip_prefix(',')?.trim_start();
        }
        id.or_else(|| self.id_at_end())
    }

    /// `…,"id":N}` at the very end belongs to the envelope: its brace is the last one.
    fn id_at_end(&self) -> Option<i64> {
        let tail = self.tail.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
        let digits = tail.iter().rev().take_while(|byte| byte.is_ascii_digit() || **byte == b'-').count();
        let (before, number) = tail.split_at(tail.len() - digits);
        let before = before.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end().strip_suffix(b"\"id\"")?;
        before.trim_ascii_end().strip_suffix(b",")?;
        std::str::from_utf8(number).ok()?.parse().ok()
    }
}

fn is_answer(members: &str) -> bool {
    strip_member(members, "\"result\"").or_else(|| strip_member(members, "\"error\"")).is_some()
}

fn ascii_len(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii()).count()
}

fn strip_member<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    Some(text.strip_prefix(key)?.trim_start().strip_prefix(':')?.trim_start())
}

fn leading_integer(text: &str) -> Option<(i64, &str)> {
    let end = text.find(|c: char| c != '-' && !c.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes and returns every line, and the largest buffer seen.
    fn split(input: &[u8], max: usize, step: usize) -> (Vec<Result<Vec<u8>, Discarded>>, usize) {
        let mut lines = Lines::new(max);
        let (mut out, mut largest) = (Vec::new(), 0);
        for piece in input.chunks(step) {
            lines.buffer().extend_from_slice(piece);
            largest = largest.max(lines.buffer.len());
            while let Some(line) = lines.next() {
                out.push(match line {
                    Line::Whole(bytes) => Ok(bytes.to_vec()),
                    Line::TooLong(discarded) => Err(discarded),
                });
            }
        }
        (out, largest)
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        for step in [1, 2, 3, 7, 100] {
            let (lines, _) = split(b"one\ntwo\r\n\nthree\nrest", 10, step);
            let lines: Vec<_> = lines.into_iter().map(Result::unwrap).collect();
            assert_eq!(lines, [&b"one"[..], b"two", b"", b"three"], "{step}");
        }
    }

    #[test]
    fn a_long_line_is_dropped_and_the_next_one_is_read() {
        for step in [1, 5, 1000, 1 << 20] {
            let input = [&b"a\n"[..], &b"x".repeat(1 << 20), b"END\nb\n"].concat();
            let (lines, largest) = split(&input, 1000, step);
            assert_eq!(lines.len(), 3);
            assert_eq!(lines[0].as_deref(), Ok(&b"a"[..]));
            let discarded = lines[1].as_ref().unwrap_err();
            assert_eq!(discarded.size, (1 << 20) + 3);
            assert!(discarded.tail.ends_with(b"xEND") && discarded.head.len() <= ENDS_BYTES);
            assert_eq!(lines[2].as_deref(), Ok(&b"b"[..]));
            assert!(largest <= 1000 + 2 * step, "{largest} bytes held for steps of {step}");
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes() {
        let (lines, _) = split(b"12345\n123456\n", 5, 100);
        assert!(lines[0].is_ok() && lines[1].is_err());
    }

    #[test]
    fn a_long_answer_shows_its_id_only_where_it_is_certain() {
        let id = |head: &str, tail: &str| Discarded { head: head.into(), tail: tail.into(), size: 0 }.id();
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":17,"result":{"#, ""), Some(17));
        assert_eq!(id(r#" { "id" : 4 , "error" : "#, ""), Some(4));
        assert_eq!(id(r#"{"id":5,"jsonrpc":"2.0","result":{"#, ""), Some(5));
        assert_eq!(id(r#"{"result":{"id":9,"#, r#"..."}],"jsonrpc":"2.0","id":18}"#), Some(18));
        assert_eq!(id(r#"{"jsonrpc":"2.0","result":{"#, r#""x","id":18 } "#), Some(18));
        assert_eq!(id(r#"{"result":{"#, r#"{"x":1,"id":18}}"#), None);
        assert_eq!(id(r#"{"result":"id\":"#, r#"\"id\":18}"#), None);
        assert_eq!(id("{\"jsonrpc\":\"2.0\",\"id\":12", ""), None);
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":17,"method":"sampling/createMessage""#, ""), None);
        assert_eq!(
            id(r#"{"method":"sampling/createMessage","params":{"#, r#"},"jsonrpc":"2.0","id":18}"#),
            None
        );
        assert_eq!(id("", ""), None);
    }
}
