//! What is wrong in a scenario, and where. Reading never stops at the first mistake, so that a file is mended in one go.

use core::fmt;
use std::cell::RefCell;
use std::ops::Range;

/// Most mistakes that one report keeps; those beyond are counted.
pub(super) const MISTAKES_MAX: usize = 100;

/// Jaro-Winkler similarity below which a suggestion would confuse more than it helps.
const SIMILARITY_MIN: f64 = 0.75;

/// One thing that is wrong in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1.
    pub line: usize,
    /// The key's path, such as `sites[1].nodes`; empty where the text is no TOML.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub hint: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.problem, self.hint)
    }
}

/// Everything that is wrong in one scenario, in the order of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    /// The mistakes kept.
    pub list: Vec<Mistake>,
    /// How many more there were.
    pub omitted: usize,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.list.iter().enumerate() {
            write!(f, "{}{mistake}", if at > 0 { "\n" } else { "" })?;
        }
        if self.omitted > 0 {
            write!(f, "\n... and {} more", self.omitted)?;
        }
        Ok(())
    }
}

/// Collects mistakes while a scenario is read. Readers of nested tables share it, hence the interior mutability.
#[derive(Debug)]
pub(super) struct Report<'a> {
    source: &'a str,
    mistakes: RefCell<Mistakes>,
}

impl<'a> Report<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self { source, mistakes: RefCell::default() }
    }

    pub(super) fn mistake(
        &self,
        span: &Range<usize>,
        key: &str,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let mut mistakes = self.mistakes.borrow_mut();
        if mistakes.list.len() >= MISTAKES_MAX {
            mistakes.omitted += 1;
            return;
        }
        let line = line_of(self.source, span.start);
        mistakes.list.push(Mistake { line, key: key.to_owned(), problem: problem.into(), hint: hint.into() });
    }

    /// Notes a name that nothing in the scenario has, with the near one that was probably meant.
    pub(super) fn unknown<'k>(
        &self,
        span: &Range<usize>,
        key: &str,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'k str> + Clone,
    ) {
        let hint = match nearest(name, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        self.mistake(span, key, format!("no {what} is called `{name}`"), hint);
    }

    pub(super) fn has_mistakes(&self) -> bool {
        !self.mistakes.borrow().list.is_empty()
    }

    pub(super) fn finish(self) -> Result<(), Mistakes> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.list.sort_by_key(|mistake| mistake.line);
        if mistakes.list.is_empty() { Ok(()) } else { Err(mistakes) }
    }
}

/// The line, from 1, of a byte offset; an offset past the end is on the last line.
fn line_of(source: &str, offset: usize) -> usize {
    let before = &source.as_bytes()[..offset.min(source.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// The known word nearest to `word`, if one is near enough that it was probably meant.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word.to_lowercase(), candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
