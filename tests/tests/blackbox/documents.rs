//! The pages of the repository: what they link to is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use comity_tests::workspace;

/// Directories that hold no pages of ours.
const SKIPPED: [&str; 4] = ["target", ".git", ".fixtures", "node_modules"];

fn pages(under: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(under).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !SKIPPED.contains(&name) {
            pages(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The text outside fenced blocks: in those, brackets mean something else.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).expect("a page");
    let mut fenced = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    };
    text.lines().filter(outside).map(|line| format!("{line}\n")).collect()
}

/// The targets of `[text](target)`.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// The anchors of a page's headings, as the hosts of repositories make them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let slug = |heading: &str| -> String {
        heading.trim().to_lowercase().replace(' ', "-").chars().filter(|c| kept(*c)).collect()
    };
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| slug(line.trim_start_matches('#'))).collect()
}

/// What is wrong with a link of `page`, if anything.
fn fault(page: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if file.is_empty() { page.to_owned() } else { page.parent()?.join(file) };
    let broken = |why: &str| Some(format!("{}: {target} {why}", page.display()));
    if !file.exists() {
        return broken("is not there");
    }
    if !anchor.is_empty() && !anchors(&file).contains(anchor) {
        return broken("has no such heading");
    }
    None
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut found = Vec::new();
    pages(workspace(), &mut found);
    let texts: Vec<(PathBuf, String)> = found.into_iter().map(|page| (page.clone(), prose(&page))).collect();
    let checked: usize = texts.iter().map(|(_, text)| links(text).count()).sum();
    assert!(texts.len() > 10 && checked > 40, "{} pages and {checked} links: are they read?", texts.len());
    let faults: Vec<String> =
        texts.iter().flat_map(|(page, text)| links(text).filter_map(|target| fault(page, target))).collect();
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn what_leads_nowhere_is_noticed() {
    let page = workspace().join("README.md");
    assert_eq!(fault(&page, "ARCHITECTURE.md"), None);
    assert_eq!(fault(&page, "https://example.org/x"), None);
    for wrong in ["no-such-page.md", "ARCHITECTURE.md#no-such-heading", "#no-such-heading"] {
        assert!(fault(&page, wrong).is_some(), "{wrong}");
    }
}
