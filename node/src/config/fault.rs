//! What is wrong in a configuration file, and where.
//!
//! Reading never stops at the first fault: every reader puts what it finds into one [`Report`], so that the operator
//! mends a file in one go.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// How many faults (and how many warnings) one report keeps. Those beyond it are counted, not kept.
pub const FAULTS_MAX: usize = 200;

/// One thing that is wrong in one place, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file it was found in.
    pub file: PathBuf,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The key's path, such as `mesh.listen[1]`; empty where the file itself cannot be read as TOML or JSON.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub hint: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.problem)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// Everything found in one configuration, in the order of the files and lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// The faults kept, at most [`FAULTS_MAX`] a file.
    pub list: Vec<Fault>,
    /// How many more there were.
    pub omitted: usize,
}

impl Faults {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds those of another file.
    pub fn append(&mut self, other: Faults) {
        self.list.extend(other.list);
        self.omitted += other.omitted;
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        match self.omitted {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

/// Collects what is wrong in one file while it is read.
///
/// Readers of nested tables share it, hence the interior mutability; it never leaves the thread that reads.
#[derive(Debug)]
pub struct Report<'a> {
    file: &'a Path,
    source: &'a str,
    faults: RefCell<Faults>,
    warnings: RefCell<Faults>,
}

impl<'a> Report<'a> {
    /// A report for `file`, whose text is `source`.
    pub fn new(file: &'a Path, source: &'a str) -> Self {
        Report { file, source, faults: RefCell::default(), warnings: RefCell::default() }
    }

    /// The file that is being read.
    pub fn file(&self) -> &'a Path {
        self.file
    }

    /// Notes a fault at a span of byte offsets.
    pub fn fault(&self, span: Range<usize>, key: &str, problem: impl Into<String>, hint: impl Into<String>) {
        self.push(&self.faults, span, key, problem.into(), hint.into());
    }

    /// Notes something that the operator should know of but that stops nothing.
    pub fn warning(
        &self,
        span: Range<usize>,
        key: &str,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(&self.warnings, span, key, problem.into(), hint.into());
    }

    /// The faults and the warnings, each sorted by place.
    pub fn finish(self) -> (Faults, Faults) {
        (sorted(self.faults.into_inner()), sorted(self.warnings.into_inner()))
    }

    /// The place is worked out only for what is kept: a hostile file may hold hundreds of thousands of faults.
    fn push(&self, into: &RefCell<Faults>, span: Range<usize>, key: &str, problem: String, hint: String) {
        let mut faults = into.borrow_mut();
        if faults.list.len() == FAULTS_MAX {
            faults.omitted += 1;
            return;
        }
        let (line, column) = position(self.source, span.start);
        faults.list.push(Fault {
            file: self.file.to_owned(),
            line,
            column,
            key: key.to_owned(),
            problem,
            hint,
        });
    }
}

fn sorted(mut faults: Faults) -> Faults {
    faults.list.sort_by_key(|fault| (fault.line, fault.column));
    faults
}

/// Line and column, both from 1, of a byte offset; an offset past the end is the end.
pub fn position(source: &str, offset: usize) -> (usize, usize) {
    let before = &source.as_bytes()[..offset.min(source.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    let column = 1 + String::from_utf8_lossy(&before[line_start..]).chars().count();
    (line, column)
}

/// The known word nearest to `word`, if one is near enough that it was probably meant.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    /// Jaro-Winkler similarity below which a suggestion would confuse more than it helps.
    const SIMILARITY_MIN: f64 = 0.75;
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word.to_lowercase(), candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = "a\nüb = 1\n\nlast";
        for (offset, expected) in
            [(0, (1, 1)), (2, (2, 1)), (4, (2, 2)), (9, (2, 7)), (10, (3, 1)), (11, (4, 1)), (999, (4, 5))]
        {
            assert_eq!(position(source, offset), expected, "offset {offset}");
        }
    }

    #[test]
    fn the_nearest_word_is_suggested_only_when_it_is_near() {
        let known = ["listen", "peers", "external_addresses"];
        for (word, expected) in [
            ("lisen", Some("listen")),
            ("Peers", Some("peers")),
            ("external_address", Some("external_addresses")),
            ("zzz", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn a_report_keeps_a_bounded_number_of_faults_and_counts_the_rest() {
        let report = Report::new(Path::new("x.toml"), "");
        for _ in 0..FAULTS_MAX + 7 {
            report.fault(0..0, "k", "bad", "");
        }
        let (faults, warnings) = report.finish();
        assert_eq!((faults.list.len(), faults.omitted), (FAULTS_MAX, 7));
        assert!(warnings.is_empty());
        assert!(faults.to_string().ends_with("… and 7 more"));
    }
}
