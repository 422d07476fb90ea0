//! Reading one table of a TOML document, key by key, without stopping at faults.
//!
//! A [`Section`] remembers which keys were asked for. What is left when it is finished is unknown, so the list of known
//! keys can never drift from the code that reads them.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Report, nearest};
use super::setting::{Setting, describe};
use crate::files::parent;

/// Values that one list may hold.
pub const LIST_MAX: usize = 1024;

/// One table that is being read. Finish it with [`Section::finish`], or unknown keys in it go unnoticed.
#[derive(Debug)]
#[must_use = "call finish() so that unknown keys are reported"]
pub struct Section<'a> {
    report: &'a Report<'a>,
    /// `None` where the document does not have this table: every key then takes its default.
    table: Option<&'a DeTable<'a>>,
    span: Range<usize>,
    path: String,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The document's root table.
    pub fn root(report: &'a Report<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Section::new(report, Some(table.get_ref()), 0..0, String::new())
    }

    fn new(report: &'a Report<'a>, table: Option<&'a DeTable<'a>>, span: Range<usize>, path: String) -> Self {
        Section { report, table, span, path, known: Vec::new() }
    }

    /// Whether the document has this table at all.
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Where this table begins, for faults that belong to no single key.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// This table's own path, such as `servers.crm`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the key is written in the document, whatever its value.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// The value of a key; `None` where it is absent or faulty (the fault has been noted).
    pub fn get<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let value = self.value(key)?;
        self.read(value, &self.join(key))
    }

    /// The value of a key, or its default.
    pub fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// The value of a key that must lie within a range, or its default.
    pub fn or_within<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: Setting + PartialOrd + std::fmt::Debug,
    {
        let Some(value) = self.get::<T>(key) else { return default };
        if range.contains(&value) {
            return value;
        }
        let hint = format!("give a value from {:?} to {:?}", range.start(), range.end());
        self.fault(key, format!("{value:?} is out of range"), hint);
        default
    }

    /// The value of a key that has no default; its absence is a fault.
    pub fn required<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        if self.value(key).is_none() {
            let key_path = self.join(key);
            self.report.fault(self.span(), &key_path, "is missing", format!("give {}", T::EXPECTED));
            return None;
        }
        self.get(key)
    }

    /// A list of values; faulty elements are noted one by one and left out.
    pub fn list<T: Setting>(&mut self, key: &'static str) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let path = self.join(key);
        match value.get_ref() {
            DeValue::Array(items) if items.len() > LIST_MAX => {
                let problem = format!("has {} entries", items.len());
                self.report.fault(value.span(), &path, problem, format!("keep at most {LIST_MAX}"));
                None
            }
            DeValue::Array(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .filter_map(|(index, item)| self.read(item, &format!("{path}[{index}]")))
                    .collect(),
            ),
            _ => {
                let problem = format!("is {}, not a list", describe(value.get_ref()));
                self.report.fault(value.span(), &path, problem, format!("give a list of {}", T::EXPECTED));
                None
            }
        }
    }

    /// A list that may not name the same thing twice; the repetition is noted and left out.
    pub fn list_of_distinct<T: Setting + PartialEq>(&mut self, key: &'static str) -> Option<Vec<T>> {
        let mut distinct: Vec<T> = Vec::new();
        for item in self.list(key)? {
            if distinct.contains(&item) {
                self.fault(key, "names the same value twice", "name each value once");
            } else {
                distinct.push(item);
            }
        }
        Some(distinct)
    }

    /// A table whose keys are the operator's own, such as `labels` or `env`.
    pub fn map<T: Setting>(&mut self, key: &'static str) -> BTreeMap<String, T> {
        let path = self.join(key);
        self.entries(key)
            .into_iter()
            .filter_map(|(name, value)| {
                let read = self.read(value, &format!("{path}.{}", name.get_ref()))?;
                Some((name.get_ref().to_string(), read))
            })
            .collect()
    }

    /// A nested table; where it is absent the section is empty and every key takes its default.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let path = self.join(key);
        let Some(value) = self.value(key) else { return Section::new(self.report, None, self.span(), path) };
        self.table_at(value, path)
    }

    /// An array of tables, such as `[[trust.orgs]]`.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let path = self.join(key);
        let Some(value) = self.value(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.table_at(item, format!("{path}[{index}]")))
                .collect(),
            other => {
                let problem = format!("is {}, not a list of tables", describe(other));
                self.report.fault(value.span(), &path, problem, format!("begin each entry with [[{path}]]"));
                Vec::new()
            }
        }
    }

    /// Tables named by the operator, such as `[servers.crm]`: the name, where it stands, and its table.
    pub fn named_sections(&mut self, key: &'static str) -> Vec<(String, Range<usize>, Section<'a>)> {
        let path = self.join(key);
        self.entries(key)
            .into_iter()
            .map(|(name, value)| {
                let section = self.table_at(value, format!("{path}.{}", name.get_ref()));
                (name.get_ref().to_string(), name.span(), section)
            })
            .collect()
    }

    /// Notes a fault at a key of this table (at the table itself where the key is absent).
    pub fn fault(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) {
        self.report.fault(self.span_of(key), &self.join(key), problem, hint);
    }

    /// Notes a warning at a key of this table.
    pub fn warning(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) {
        self.report.warning(self.span_of(key), &self.join(key), problem, hint);
    }

    /// Notes a fault that concerns the table as a whole.
    pub fn fault_here(&self, problem: impl Into<String>, hint: impl Into<String>) {
        self.report.fault(self.span(), &self.path, problem, hint);
    }

    /// Notes a fault at a place inside or beside this table, such as its name.
    pub fn fault_at(&self, span: Range<usize>, problem: impl Into<String>, hint: impl Into<String>) {
        self.report.fault(span, &self.path, problem, hint);
    }

    /// The file that is being read.
    pub fn file(&self) -> &'a Path {
        self.report.file()
    }

    /// A path written in this file: relative ones start at the file's directory, `~/` at the home directory.
    pub fn resolve_path(&self, path: &Path) -> PathBuf {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        match (path.strip_prefix("~"), home) {
            (Ok(below_home), Some(home)) => Path::new(&home).join(below_home),
            _ => parent(self.file()).join(path),
        }
    }

    /// Reports every key that nobody asked for, with the near one that was probably meant.
    pub fn finish(self) {
        for (name, _) in self.table.into_iter().flatten() {
            if self.known.contains(&name.get_ref().as_ref()) {
                continue;
            }
            let hint = match nearest(name.get_ref(), self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.report.fault(name.span(), &self.join(name.get_ref()), "unknown key", hint);
        }
    }

    fn read<T: Setting>(&self, value: &Spanned<DeValue<'_>>, path: &str) -> Option<T> {
        match T::read(value.get_ref()) {
            Ok(read) => Some(read),
            Err(problem) => {
                self.report.fault(value.span(), path, problem, format!("give {}", T::EXPECTED));
                None
            }
        }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table?.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn entries(
        &mut self,
        key: &'static str,
    ) -> Vec<(&'a Spanned<toml::de::DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Table(table) => table.iter().collect(),
            other => {
                let path = self.join(key);
                let problem = format!("is {}, not a table", describe(other));
                self.report.fault(
                    value.span(),
                    &path,
                    problem,
                    format!("write it as [{path}] or {{ name = value }}"),
                );
                Vec::new()
            }
        }
    }

    fn table_at(&self, value: &'a Spanned<DeValue<'a>>, path: String) -> Section<'a> {
        if let DeValue::Table(table) = value.get_ref() {
            return Section::new(self.report, Some(table), value.span(), path);
        }
        let problem = format!("is {}, not a table", describe(value.get_ref()));
        self.report.fault(value.span(), &path, problem, format!("write it as [{path}]"));
        Section::new(self.report, None, value.span(), path)
    }

    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        let found = self.table.and_then(|table| table.iter().find(|(name, _)| name.get_ref() == key));
        found.map_or(self.span(), |(_, value)| value.span())
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
