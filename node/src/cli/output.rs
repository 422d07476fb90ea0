//! Everything that commands print.
//!
//! Results go to stdout and errors to stderr. With `--json` each is one JSON document on a line; without, text and tables
//! that are coloured only on a terminal. Text from elsewhere (names, descriptions, reasons) is stripped of control
//! characters, so that no peer can draw on the operator's terminal.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use comfy_table::presets::{NOTHING, UTF8_HORIZONTAL_ONLY};
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use serde_json::json;

use super::exit::CliError;

/// Where a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

/// What is good.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What wants attention.
pub const CAUTION: Style = AnsiColor::Yellow.on_default().bold();
/// What is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

impl Output {
    /// Output for programs (`json`) or for people.
    pub fn new(json: bool) -> Self {
        Output { json }
    }

    /// Whether JSON is wanted.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Prints a result: `data` as JSON, or the text that `human` makes of it.
    pub fn result<T: Serialize>(self, data: &T, human: impl FnOnce(&T) -> String) {
        match self.json {
            true => self.line(
                &serde_json::to_string(data)
                    .unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string()),
            ),
            false => self.line(human(data).trim_end()),
        }
    }

    /// Prints what happens on the way to a result: a JSON line of its own, or a line of text on stderr.
    pub fn progress<T: Serialize>(self, data: &T, human: impl FnOnce(&T) -> String) {
        match self.json {
            true => self.result(data, |_| String::new()),
            // A closed stderr is no reason to stop.
            false => drop(writeln!(anstream::stderr(), "{}", human(data).trim_end())),
        }
    }

    /// Prints an error, its reasons or faults, and what to do next, to stderr.
    pub fn error(self, error: &CliError) {
        let text = match self.json {
            true => json!({ "error": error }).to_string(),
            false => describe(error),
        };
        // A closed stderr is no reason to fail in another way.
        let _ = writeln!(anstream::stderr(), "{text}");
    }

    fn line(self, text: &str) {
        // A reader that has had enough (`comity tools | head`) is no failure.
        let _ = writeln!(anstream::stdout(), "{text}");
    }
}

fn describe(error: &CliError) -> String {
    let mut text = format!("{BAD}error:{BAD:#} {}", clean(&error.message));
    for fault in &error.faults {
        text.push_str(&format!("\n  {}", clean(&fault.to_string())));
    }
    for reason in &error.reasons {
        let who = reason.peer.as_deref().or(reason.org.as_deref()).unwrap_or("the call");
        text.push_str(&format!("\n  {}: {} ({})", clean(who), clean(&reason.detail), clean(&reason.code)));
    }
    if let Some(next) = &error.next {
        text.push_str(&format!("\n{CAUTION}next:{CAUTION:#} {}", clean(next)));
    }
    text
}

/// A table with a heading, as wide as the terminal where there is one. `empty` is said instead of an empty table.
pub fn table<R, C>(headings: &[&str], rows: R, empty: &str) -> String
where
    R: IntoIterator<Item = C>,
    C: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(if table.is_tty() { UTF8_HORIZONTAL_ONLY } else { NOTHING });
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>());
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(|cell| clean(&cell)).collect::<Vec<_>>()));
    match table.is_empty() {
        true => empty.to_owned(),
        false => table.trim_fmt(),
    }
}

/// Text without the characters that could move a terminal's cursor or reorder what it shows.
pub fn clean(text: &str) -> String {
    let harmful = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect()
}

/// The first `length` characters, with an ellipsis where some are left out; line breaks become spaces.
pub fn shorten(text: &str, length: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A word, or a dash where there is none.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A span of time for people: its two largest units.
pub fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (length, unit) in units {
        if rest >= length && parts.len() < 2 {
            parts.push(format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\r\u{202e}c\nd"), "a\u{fffd}[31mb\u{fffd}\u{fffd}c\nd");
        let table = table(&["NAME"], [["\u{1b}]0;x\u{7}".to_owned()]], "none");
        assert!(!table.contains('\u{1b}'), "{table}");
    }

    #[test]
    fn spans_and_lines_are_short() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (3_661, "1h 1m"), (604_800, "7d"), (90_061, "1d 1h")]
        {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!((shorten("a  b\nc", 9), shorten("äbcd", 2)), ("a b c".to_owned(), "äb…".to_owned()));
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(table(&["A"], Vec::<Vec<String>>::new(), "nothing"), "nothing");
    }
}
