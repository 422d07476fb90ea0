//! Text.

use std::collections::BTreeMap;

use rmcp::schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tool::DemoTool;

/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Most lines of each text that are compared: the work grows with their product.
const LINES_MAX: usize = 1_000;
/// Words that `count_text` names as the most frequent.
const FREQUENT_MAX: usize = 5;
/// Words that people read in a minute.
const READING_SPEED: usize = 230;

pub(super) fn tools() -> Vec<DemoTool> {
    vec![
        DemoTool::new(
            "count_text",
            "Count a text",
            "Counts the characters, words, sentences and lines of a text, names its most frequent words and estimates \
             how long it takes to read.",
            count,
        ),
        DemoTool::new(
            "change_case",
            "Change the case",
            "Rewrites a text in upper, lower or title case, in a programmer's case, or as a slug for a URL.",
            change_case,
        ),
        DemoTool::new(
            "compare_text",
            "Compare texts",
            "Compares two texts line by line and lists what was removed, added and kept.",
            compare,
        ),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct Text {
    /// The text, at most 256 KiB.
    text: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Counted {
    characters: usize,
    words: usize,
    sentences: usize,
    lines: usize,
    /// The most frequent words of four letters and more, the most frequent first.
    frequent: Vec<Frequent>,
    reading_seconds: usize,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Frequent {
    word: String,
    times: usize,
}

fn count(Text { text }: Text) -> Result<Counted, String> {
    check(&text)?;
    let words = words(&text);
    Ok(Counted {
        characters: text.chars().count(),
        words: words.len(),
        sentences: sentences(&text),
        lines: text.lines().count(),
        frequent: frequent(&words),
        reading_seconds: (words.len() * 60).div_ceil(READING_SPEED),
    })
}

fn check(text: &str) -> Result<(), String> {
    match text.len() {
        ..=TEXT_BYTES_MAX => Ok(()),
        length => Err(format!("the text has {length} bytes: at most {TEXT_BYTES_MAX} are taken")),
    }
}

/// Runs of letters and digits; an apostrophe or a hyphen within one belongs to it.
fn words(text: &str) -> Vec<&str> {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '\'' | '’' | '-');
    let trimmed =
        text.split(|c: char| !inside(c)).map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    trimmed.filter(|word| !word.is_empty()).collect()
}

fn sentences(text: &str) -> usize {
    let parts = text.split(['.', '!', '?', '…']);
    parts.filter(|part| part.contains(char::is_alphanumeric)).count()
}

fn frequent(words: &[&str]) -> Vec<Frequent> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for word in words.iter().filter(|word| word.chars().count() >= 4) {
        *times.entry(word.to_lowercase()).or_default() += 1;
    }
    let mut counted: Vec<_> = times.into_iter().map(|(word, times)| Frequent { word, times }).collect();
    // The sort is stable: words of the same count stay in the alphabet's order.
    counted.sort_by_key(|frequent| std::cmp::Reverse(frequent.times));
    counted.truncate(FREQUENT_MAX);
    counted
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct ChangeCase {
    /// The text, at most 256 KiB.
    text: String,
    /// What to make of it.
    to: Case,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars", inline)]
#[serde(rename_all = "snake_case")]
enum Case {
    Upper,
    Lower,
    Title,
    Camel,
    Snake,
    Kebab,
    Slug,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Rewritten {
    text: String,
}

fn change_case(ChangeCase { text, to }: ChangeCase) -> Result<Rewritten, String> {
    check(&text)?;
    let text = match to {
        Case::Upper => text.to_uppercase(),
        Case::Lower => text.to_lowercase(),
        Case::Title => title(&text),
        Case::Camel => camel(&text),
        Case::Snake => parts(&text).join("_"),
        Case::Kebab => parts(&text).join("-"),
        Case::Slug => slug(&text),
    };
    Ok(Rewritten { text })
}

fn title(text: &str) -> String {
    let mut starts = true;
    let mut titled = String::with_capacity(text.len());
    for c in text.chars() {
        match (starts, c.is_alphanumeric()) {
            (true, true) => titled.extend(c.to_uppercase()),
            (false, true) => titled.extend(c.to_lowercase()),
            (_, false) => titled.push(c),
        }
        starts = !c.is_alphanumeric() && !matches!(c, '\'' | '’');
    }
    titled
}

fn camel(text: &str) -> String {
    let parts = parts(text);
    let named = parts.iter().enumerate().map(|(at, part)| if at == 0 { part.clone() } else { title(part) });
    named.collect()
}

/// The words of a text or of an identifier, in lower case: `HTTPServer` has two, as has `httpServer`.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let chars: Vec<char> = text.chars().collect();
    for (at, &c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| chars[before]);
        let after = chars.get(at + 1);
        let hump = c.is_uppercase()
            && (before.is_some_and(|before| before.is_lowercase() || before.is_numeric())
                || (before.is_some_and(char::is_uppercase)
                    && after.is_some_and(|after| after.is_lowercase())));
        if hump || !c.is_alphanumeric() {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| c.is_alphanumeric()) {
            part.extend(c.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Letters and digits of ASCII with hyphens between; the accents and ligatures of European languages are spelt out.
fn slug(text: &str) -> String {
    let spelt: String = text.to_lowercase().chars().map(spell).collect();
    let words = spelt.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

fn spell(c: char) -> String {
    let spelt = match c {
        'ä' | 'æ' => "ae",
        'ö' | 'œ' | 'ø' => "oe",
        'ü' => "ue",
        'ß' => "ss",
        'à' | 'á' | 'â' | 'ã' | 'å' | 'ą' | 'ă' => "a",
        'ç' | 'ć' | 'č' => "c",
        'ď' | 'đ' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ę' | 'ě' => "e",
        'ì' | 'í' | 'î' | 'ï' => "i",
        'ł' | 'ľ' => "l",
        'ñ' | 'ń' | 'ň' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ő' => "o",
        'ř' => "r",
        'ś' | 'š' | 'ş' | 'ș' => "s",
        'ť' | 'ț' => "t",
        'ù' | 'ú' | 'û' | 'ů' | 'ű' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        '\'' | '’' => "",
        other => return other.to_string(),
    };
    spelt.to_owned()
}

#[derive(Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
struct Compare {
    /// The older text, at most 1000 lines.
    before: String,
    /// The newer text, at most 1000 lines.
    after: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct Compared {
    same: bool,
    removed: usize,
    added: usize,
    /// Every line in order.
    lines: Vec<ComparedLine>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
struct ComparedLine {
    change: Change,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars", inline)]
#[serde(rename_all = "snake_case")]
enum Change {
    Kept,
    Removed,
    Added,
}

fn compare(Compare { before, after }: Compare) -> Result<Compared, String> {
    check(&before)?;
    check(&after)?;
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let longest = before.len().max(after.len());
    if longest > LINES_MAX {
        return Err(format!("a text has {longest} lines: at most {LINES_MAX} are compared"));
    }
    let lines = difference(&before, &after);
    let count = |change| lines.iter().filter(|line| line.change == change).count();
    let (removed, added) = (count(Change::Removed), count(Change::Added));
    Ok(Compared { same: removed + added == 0, removed, added, lines })
}

/// The shortest list of removals and additions, by the longest common subsequence.
fn difference(before: &[&str], after: &[&str]) -> Vec<ComparedLine> {
    let common = common_lengths(before, after);
    let line = |change, text: &str| ComparedLine { change, text: text.to_owned() };
    let (mut old, mut new) = (0, 0);
    let mut lines = Vec::new();
    while old < before.len() || new < after.len() {
        let at_end = (old == before.len(), new == after.len());
        if at_end == (false, false) && before[old] == after[new] {
            lines.push(line(Change::Kept, before[old]));
            (old, new) = (old + 1, new + 1);
        } else if at_end.1 || (!at_end.0 && common[old + 1][new] >= common[old][new + 1]) {
            lines.push(line(Change::Removed, before[old]));
            old += 1;
        } else {
            lines.push(line(Change::Added, after[new]));
            new += 1;
        }
    }
    lines
}

/// `[i][j]` is the length of the longest common subsequence of `before[i..]` and `after[j..]`.
fn common_lengths(before: &[&str], after: &[&str]) -> Vec<Vec<u16>> {
    let mut common = vec![vec![0_u16; after.len() + 1]; before.len() + 1];
    for old in (0..before.len()).rev() {
        for new in (0..after.len()).rev() {
            common[old][new] = match before[old] == after[new] {
                true => common[old + 1][new + 1] + 1,
                false => common[old + 1][new].max(common[old][new + 1]),
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(name: &str, arguments: Value) -> Result<Value, String> {
        super::super::tool::run(&tools(), name, arguments)
    }

    #[test]
    fn a_text_is_counted() {
        let text = "Der Vertrag läuft aus. Der Kunde kündigt den Vertrag!\nWell-known, isn't it?";
        let counted = run("count_text", json!({ "text": text })).unwrap();
        assert_eq!(
            counted,
            json!({
                "characters": 75, "words": 12, "sentences": 3, "lines": 2, "reading_seconds": 4,
                "frequent": [
                    { "word": "vertrag", "times": 2 }, { "word": "isn't", "times": 1 }, { "word": "kunde", "times": 1 },
                    { "word": "kündigt", "times": 1 }, { "word": "läuft", "times": 1 }
                ]
            })
        );
        let empty = run("count_text", json!({ "text": "" })).unwrap();
        assert_eq!(
            (&empty["words"], &empty["sentences"], &empty["lines"]),
            (&json!(0), &json!(0), &json!(0))
        );
    }

    #[test]
    fn the_case_is_changed() {
        for (text, to, expected) in [
            ("straße", "upper", "STRASSE"),
            ("ÉTÉ", "lower", "été"),
            ("the customer's LETTER", "title", "The Customer's Letter"),
            ("parse HTTPRequest v2", "camel", "parseHttpRequestV2"),
            ("parseHTTPRequest", "snake", "parse_http_request"),
            ("Two  words", "kebab", "two-words"),
            ("Größe & L'été à Łódź!", "slug", "groesse-lete-a-lodz"),
        ] {
            let rewritten = run("change_case", json!({ "text": text, "to": to }));
            assert_eq!(rewritten, Ok(json!({ "text": expected })), "{text} to {to}");
        }
        let error = run("change_case", json!({ "text": "x", "to": "shouting" })).unwrap_err();
        assert!(error.contains("`slug`"), "names what there is: {error}");
    }

    #[test]
    fn texts_are_compared_line_by_line() {
        let compared = run("compare_text", json!({ "before": "a\nb\nc", "after": "a\nx\nc\nd" })).unwrap();
        let lines: Vec<String> = compared["lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| format!("{} {}", line["change"].as_str().unwrap(), line["text"].as_str().unwrap()))
            .collect();
        assert_eq!(lines, ["kept a", "removed b", "added x", "kept c", "added d"]);
        assert_eq!((&compared["removed"], &compared["added"]), (&json!(1), &json!(2)));
        let same = run("compare_text", json!({ "before": "a\n", "after": "a" })).unwrap();
        assert_eq!(same["same"], true);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        assert!(run("count_text", json!({ "text": long })).unwrap_err().contains("bytes"));
        let lines = "x\n".repeat(LINES_MAX + 1);
        assert!(run("compare_text", json!({ "before": lines, "after": "" })).unwrap_err().contains("lines"));
    }
}
