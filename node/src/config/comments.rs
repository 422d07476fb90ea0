//! Comments that outlive a table: when a table is removed, the comments directly above it go with it, and those that an
//! empty line sets apart stay where they were.

use toml_edit::visit_mut::{VisitMut, visit_table_mut};
use toml_edit::{Decor, DocumentMut, RawString, Table};

/// Gives the comments before `removed`, which is no longer in `document`, to whatever now stands in its place.
pub(super) fn keep(document: &mut DocumentMut, removed: &Table) {
    let kept = standing_apart(prefix(removed.decor())).to_owned();
    if kept.trim().is_empty() {
        return;
    }
    let mut successor = Successor { after: removed.position(), best: None };
    successor.visit_document_mut(document);
    match successor.best {
        Some(position) => Prepend { position, text: &kept }.visit_document_mut(document),
        None => {
            let trailing = format!("{kept}{}", document.trailing().as_str().unwrap_or_default());
            document.set_trailing(trailing);
        }
    }
}

fn prefix(decor: &Decor) -> &str {
    decor.prefix().and_then(RawString::as_str).unwrap_or_default()
}

/// The lines up to the last empty one.
fn standing_apart(prefix: &str) -> &str {
    prefix.rfind("\n\n").map_or("", |at| &prefix[..=at])
}

/// Finds the first table after a position.
struct Successor {
    after: Option<isize>,
    best: Option<isize>,
}

impl VisitMut for Successor {
    fn visit_table_mut(&mut self, table: &mut Table) {
        let position = table.position().filter(|position| self.after.is_some_and(|after| *position > after));
        self.best = match (self.best, position) {
            (Some(best), Some(position)) => Some(best.min(position)),
            (best, position) => best.or(position),
        };
        visit_table_mut(self, table);
    }
}

/// Puts text before the table at a position.
struct Prepend<'a> {
    position: isize,
    text: &'a str,
}

impl VisitMut for Prepend<'_> {
    fn visit_table_mut(&mut self, table: &mut Table) {
        if table.position() == Some(self.position) {
            let prefix = format!("{}{}", self.text, prefix(table.decor()));
            table.decor_mut().set_prefix(prefix);
        }
        visit_table_mut(self, table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str) {
        let mut document: DocumentMut = before.parse().expect("TOML");
        let removed = document.remove("gone").expect("present").into_table().expect("a table");
        keep(&mut document, &removed);
        assert_eq!(document.to_string(), after, "{before}");
    }

    #[test]
    fn comments_set_apart_stay_and_those_above_the_table_go() {
        check("[a]\n# of a\n\n# of gone\n[gone]\nx = 1\n", "[a]\n# of a\n");
        check("[a]\n# of a\n\n[gone]\n\n# of b\n[b]\n", "[a]\n# of a\n\n# of b\n[b]\n");
        check("# head\n\n[gone]\n[a]\n[b]\n", "# head\n[a]\n[b]\n");
        check("# of gone\n[gone]\n# end\n", "# end\n");
        check("[gone]\n\n[a]\n", "\n[a]\n");
    }
}
