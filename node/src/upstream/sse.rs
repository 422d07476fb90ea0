//! Server-sent events (WHATWG HTML, section 9.2) out of a byte stream, with bounded memory.

/// Longest event id that is kept; a longer one is ignored, and the stream cannot be resumed there.
const ID_BYTES_MAX: usize = 1024;

/// Bytes that an event may have besides its data: field names, ids.
const ENVELOPE_BYTES_MAX: usize = 4096;

/// What a chunk completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SseEvent {
    /// An event's `data` lines, joined by line breaks. Never empty.
    Data(Vec<u8>),
    /// An event that exceeded the limit and was discarded.
    TooLarge {
        /// Bytes that it had.
        size: usize,
    },
}

/// A parser fed with chunks as they come.
#[derive(Debug)]
pub(super) struct SseParser {
    max: usize,
    /// The present line, and how long it is even where it is no longer kept.
    line: Vec<u8>,
    line_len: usize,
    after_cr: bool,
    /// The present event.
    data: Vec<u8>,
    has_data: bool,
    size: usize,
    overflow: bool,
    id: Option<String>,
    last_id: Option<String>,
    retry_ms: Option<u64>,
}

impl SseParser {
    /// A parser for events of at most `max` bytes of data.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            line_len: 0,
            after_cr: false,
            data: Vec::new(),
            has_data: false,
            size: 0,
            overflow: false,
            id: None,
            last_id: None,
            retry_ms: None,
        }
    }

    /// The id of the last complete event that had one: what resumes the stream as `Last-Event-ID`.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How long the server wants clients to wait before they reconnect, in milliseconds.
    pub(super) fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Reads a chunk and hands each event that it completes to `on_event`.
    pub(super) fn feed(&mut self, mut chunk: &[u8], mut on_event: impl FnMut(SseEvent)) {
        if !chunk.is_empty() && std::mem::take(&mut self.after_cr) {
            chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', chunk) {
            self.extend_line(&chunk[..end]);
            let was_cr = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
            if was_cr {
                self.after_cr = chunk.is_empty();
                chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
            }
            if let Some(event) = self.end_line() {
                on_event(event);
            }
        }
        self.extend_line(chunk);
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        self.line_len += bytes.len();
        self.size += bytes.len();
        if self.size > self.max.saturating_add(ENVELOPE_BYTES_MAX) {
            self.overflow = true;
            self.line = Vec::new();
            self.data = Vec::new();
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self) -> Option<SseEvent> {
        if std::mem::take(&mut self.line_len) == 0 {
            return self.end_event();
        }
        let line = std::mem::take(&mut self.line);
        if !self.overflow {
            self.field(&line);
        }
        self.line = line;
        self.line.clear();
        None
    }

    fn field(&mut self, line: &[u8]) {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &b""[..]),
        };
        match name {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"id" if value.len() <= ID_BYTES_MAX && !value.contains(&0) => {
                self.id = std::str::from_utf8(value).ok().map(str::to_owned);
            }
            b"retry" => {
                let digits = std::str::from_utf8(value).ok();
                self.retry_ms = digits.and_then(|digits| digits.parse().ok()).or(self.retry_ms);
            }
            // A comment is a sign of life and nothing more: any number of them may come.
            b"" => self.size -= line.len(),
            _ => {}
        }
    }

    fn end_event(&mut self) -> Option<SseEvent> {
        let size = std::mem::take(&mut self.size);
        let data = std::mem::take(&mut self.data);
        self.has_data = false;
        if let Some(id) = self.id.take() {
            self.last_id = Some(id);
        }
        if std::mem::take(&mut self.overflow) || data.len() > self.max {
            return Some(SseEvent::TooLarge { size });
        }
        (!data.is_empty()).then_some(SseEvent::Data(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(input: &[u8], max: usize, step: usize) -> (Vec<SseEvent>, SseParser) {
        let mut parser = SseParser::new(max);
        let mut events = Vec::new();
        for chunk in input.chunks(step) {
            parser.feed(chunk, |event| events.push(event));
        }
        (events, parser)
    }

    fn data(text: &str) -> SseEvent {
        SseEvent::Data(text.into())
    }

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let input = b": hello\nevent: message\nid: 7\ndata: one\ndata:two\n\nretry: 250\r\ndata\r\n\r\nid\rdata:  x\r\rdata: cut";
        for step in [1, 2, 3, 5, 1000] {
            let (events, parser) = parse(input, 100, step);
            assert_eq!(events, [data("one\ntwo"), data(" x")], "{step}");
            assert_eq!(parser.last_id(), Some(""));
            assert_eq!(parser.retry_ms(), Some(250));
        }
    }

    #[test]
    fn an_id_counts_once_its_event_is_complete() {
        let (events, parser) = parse(b"id: 1\ndata: a\n\nid: 2\ndata: b\n", 100, 4);
        assert_eq!(events, [data("a")]);
        assert_eq!(parser.last_id(), Some("1"));
        let (_, parser) = parse(b"id: 1\n\nid: 2\n\n", 100, 4);
        assert_eq!(parser.last_id(), Some("2"));
    }

    #[test]
    fn a_huge_event_is_dropped_and_the_next_one_is_read() {
        let huge = [&b"data: "[..], &b"x".repeat(1 << 20), b"\ndata: more\n\ndata: next\n\n"].concat();
        for step in [1000, 1 << 21] {
            let mut parser = SseParser::new(1000);
            let (mut events, mut kept) = (Vec::new(), 0);
            for chunk in huge.chunks(step) {
                parser.feed(chunk, |event| events.push(event));
                kept = kept.max(parser.line.capacity() + parser.data.capacity());
            }
            assert!(matches!(events[0], SseEvent::TooLarge { size } if size > 1 << 20), "{events:?}");
            assert_eq!(events[1..], [data("next")]);
            assert!(kept < 4 * (1000 + ENVELOPE_BYTES_MAX), "{kept} bytes kept");
        }
    }

    #[test]
    fn many_small_lines_are_one_event_and_bounded_too() {
        let input = [b"data: y\n".repeat(10_000), b"\ndata: z\n\n".to_vec()].concat();
        let (events, _) = parse(&input, 1000, 4096);
        assert!(matches!(events[0], SseEvent::TooLarge { .. }));
        assert_eq!(events[1..], [data("z")]);
    }

    #[test]
    fn comments_without_end_do_not_add_up() {
        let input = [b": ping\n".repeat(10_000), b"data: z\n\n".to_vec()].concat();
        assert_eq!(parse(&input, 100, 4096).0, [data("z")]);
    }
}
