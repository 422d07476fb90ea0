//! Holds the reference in docs/operator-guide.md to the parser: every key that is read is in it, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{ConfigError, NodeConfig};

/// Each table by its name in the reference, and a document that has it with one key that nobody knows.
const TABLES: [(&str, &str); 17] = [
    ("", "qqqq = 1"),
    ("node", "[node]\nqqqq = 1"),
    ("org", "[org]\nqqqq = 1"),
    ("site", "[site]\nqqqq = 1"),
    ("mesh", "[mesh]\nqqqq = 1"),
    ("mcp", "[mcp]\nqqqq = 1"),
    ("mcp.tokens[]", "[[mcp.tokens]]\nqqqq = 1"),
    ("mcp.tokens[].constraints", "[[mcp.tokens]]\nconstraints = { qqqq = 1 }"),
    ("mcp.profiles.NAME", "[mcp.profiles.x]\nqqqq = 1"),
    ("admin", "[admin]\nqqqq = 1"),
    ("servers.NAME", "[servers.x]\nqqqq = 1"),
    ("servers_from[]", "[[servers_from]]\nqqqq = 1"),
    ("trust", "[trust]\nqqqq = 1"),
    ("trust.orgs[]", "[[trust.orgs]]\nqqqq = 1"),
    ("constraints", "[constraints]\nqqqq = 1"),
    ("log", "[log]\nqqqq = 1"),
    ("limits", "[limits]\nqqqq = 1"),
];

/// The keys that the parser reads in one table, as it tells somebody who wrote another.
fn keys_read(document: &str) -> BTreeSet<String> {
    let parsed = NodeConfig::parse(Path::new("comity.toml"), document, &|_| None);
    let Err(ConfigError::Faults(faults)) = parsed else { panic!("{document} has no fault") };
    let unknown = faults.list.iter().find(|fault| fault.key.ends_with("qqqq"));
    let hint = &unknown.unwrap_or_else(|| panic!("{document}: {faults}")).hint;
    let keys = hint.strip_prefix("known here: ").unwrap_or_else(|| panic!("{document}: {hint}"));
    keys.split(", ").map(str::to_owned).collect()
}

/// The keys of the reference: the first cell of each row of its table.
fn keys_documented() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operator-guide.md");
    let guide = fs::read_to_string(path).expect("the operator guide");
    let (_, reference) = guide.split_once("## Configuration reference").expect("the reference");
    let (reference, _) = reference.split_once("\n## ").expect("a section after it");
    let cells = reference.lines().filter_map(|line| line.strip_prefix("| `"));
    cells.filter_map(|cell| cell.split_once('`')).map(|(key, _)| key.to_owned()).collect()
}

/// Whether `key` is a table that has rows of its own, rather than a setting.
fn is_table(key: &str) -> bool {
    let below = |table: &str| {
        table.trim_end_matches("[]") == key || table.strip_suffix(".NAME").is_some_and(|table| table == key)
    };
    TABLES.iter().any(|(table, _)| !table.is_empty() && below(table))
}

#[test]
fn the_operator_guide_has_every_key_and_no_other() {
    let mut read = BTreeSet::new();
    for (table, document) in TABLES.iter().filter(|(table, _)| *table != "mcp.tokens[].constraints") {
        let name = |key: String| if table.is_empty() { key } else { format!("{table}.{key}") };
        read.extend(keys_read(document).into_iter().map(name));
    }
    let settings: BTreeSet<_> =
        read.into_iter().filter(|key| !is_table(key) || key == "mcp.tokens[].constraints").collect();
    let documented = keys_documented();
    let missing: Vec<_> = settings.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&settings).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "the guide lacks {missing:?} and invents {unknown:?}");
}

#[test]
fn a_tokens_constraints_are_those_of_the_endpoint() {
    let document = |wanted: &str| TABLES.iter().find(|(table, _)| *table == wanted).expect("a table").1;
    assert_eq!(keys_read(document("mcp.tokens[].constraints")), keys_read(document("constraints")));
}
