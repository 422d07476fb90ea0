//! JSON with comments and trailing commas, as editors write it, made into plain JSON of the same length.

/// Blanks comments and trailing commas with spaces, so that every byte offset in the result is one in the source.
///
/// An unterminated comment or string is left as it is: the JSON parser then says where it begins.
pub fn to_json(source: &str) -> String {
    let mut bytes = source.as_bytes().to_vec();
    // The last thing seen that is neither blank nor comment, and the one before it: only a comma between a value and a
    // closing bracket is a trailing one.
    let (mut last, mut before) = ((0, b'{'), b'{');
    let mut at = 0;
    while at < bytes.len() {
        let (byte, end) = (bytes[at], end_of_token(&bytes, at));
        if byte == b'/' && end > at + 1 {
            blank(&mut bytes[at..end]);
        } else if !byte.is_ascii_whitespace() {
            if matches!(byte, b'}' | b']') && last.1 == b',' && !matches!(before, b'{' | b'[' | b',') {
                bytes[last.0] = b' ';
            }
            (before, last) = (last.1, (at, byte));
        }
        at = end;
    }
    // Only whole comments and single ASCII commas were replaced, so this is still UTF-8.
    String::from_utf8(bytes).unwrap_or_else(|_| source.to_owned())
}

fn end_of_token(bytes: &[u8], start: usize) -> usize {
    match bytes[start] {
        b'"' => end_of_string(bytes, start),
        b'/' => end_of_comment(bytes, start).unwrap_or(start + 1),
        _ => start + 1,
    }
}

fn end_of_string(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn end_of_comment(bytes: &[u8], slash: usize) -> Option<usize> {
    let body = &bytes[slash + 1..];
    match body.first()? {
        b'/' => Some(memchr::memchr(b'\n', body).map_or(bytes.len(), |newline| slash + 1 + newline)),
        b'*' => memchr::memmem::find(&body[1..], b"*/").map(|end| slash + 2 + end + 2),
        _ => None,
    }
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_trailing_commas_are_blanked_in_place() {
        for (source, json) in [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("{ // ü\n\"a\":1}", "{      \n\"a\":1}"),
            ("[1,/*x*/2,]", "[1,     2 ]"),
            ("{\"a\":1, /* last */ }", "{\"a\":1             }"),
            (r#"["http://x",",]", "\"//"]"#, r#"["http://x",",]", "\"//"]"#),
            ("[1,,]", "[1,,]"),
            ("[,]{,}", "[,]{,}"),
            ("{\"a\":[1,],}", "{\"a\":[1 ] }"),
            ("/* open", "/* open"),
            ("[1] /", "[1] /"),
            ("\"open", "\"open"),
        ] {
            let result = to_json(source);
            assert_eq!(result, json, "{source}");
            assert_eq!(result.len(), source.len(), "{source}");
        }
    }
}
