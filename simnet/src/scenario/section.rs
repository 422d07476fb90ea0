//! Reading one table of a scenario, key by key, without stopping at mistakes.
//!
//! A [`Section`] remembers which keys were asked for; what is left when it is finished is unknown. The list of known keys
//! can therefore never drift from the code that reads them.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Report, nearest};

/// Most entries of one list.
pub(super) const LIST_MAX: usize = 1024;

/// A type that one TOML value can be read into.
pub(super) trait Setting: Sized {
    /// Completes the sentence "give ...".
    const EXPECTED: &'static str;

    /// Reads the value, or says what is wrong with it.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
}

/// One table that is being read.
#[must_use = "call finish() so that unknown keys are reported"]
pub(super) struct Section<'a> {
    report: &'a Report<'a>,
    table: Option<&'a DeTable<'a>>,
    span: Range<usize>,
    path: String,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn root(report: &'a Report<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Self { report, table: Some(table.get_ref()), span: 0..0, path: String::new(), known: Vec::new() }
    }

    /// Where the value of a key stands; the table itself where the key is absent.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        let found = self.table.and_then(|table| table.iter().find(|(name, _)| name.get_ref() == key));
        found.map_or(self.span.clone(), |(_, value)| value.span())
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.iter().any(|(name, _)| name.get_ref() == key))
    }

    /// Whether the document has this table.
    pub(super) const fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether a key is there; it counts as known, and what it holds is not looked at.
    pub(super) fn take(&mut self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// A list that may not name the same thing twice.
    pub(super) fn distinct<T: Setting + PartialEq>(&mut self, key: &'static str) -> Option<Vec<T>> {
        let list = self.list::<T>(key)?;
        if list.iter().enumerate().any(|(at, item)| list[..at].contains(item)) {
            self.mistake(key, "names the same value twice", "name each value once");
        }
        Some(list)
    }

    /// A table whose keys are the user's own.
    pub(super) fn entries<T: Setting>(&mut self, key: &'static str) -> Vec<(String, T)> {
        let mut section = self.section(key);
        let Some(table) = section.table.take() else { return Vec::new() };
        let path = section.path.clone();
        let read = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &std::borrow::Cow<'_, str> = name.get_ref();
            Some((name.to_string(), self.read_at(value, &format!("{path}.{name}"))?))
        };
        table.iter().filter_map(read).collect()
    }

    /// A table of lists whose keys are the user's own.
    pub(super) fn lists<T: Setting>(&mut self, key: &'static str) -> Vec<(String, Vec<T>)> {
        let section = self.section(key);
        let Some(table) = section.table else { return Vec::new() };
        let read = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &std::borrow::Cow<'_, str> = name.get_ref();
            let path = format!("{}.{name}", section.path);
            let DeValue::Array(items) = value.get_ref() else {
                let problem = format!("is {}, not a list", describe(value.get_ref()));
                self.report.mistake(&value.span(), &path, problem, format!("give a list of {}", T::EXPECTED));
                return None;
            };
            Some((name.to_string(), items.iter().filter_map(|item| self.read_at(item, &path)).collect()))
        };
        table.iter().filter_map(read).collect()
    }

    /// Tables whose names are the user's own.
    pub(super) fn named_sections(&mut self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let path = self.key_path(key);
        let section = self.section(key);
        let Some(table) = section.table else { return Vec::new() };
        let sections = table.iter().map(|(name, value)| {
            let name = name.get_ref().to_string();
            let section = self.table_at(value, format!("{path}.{name}"));
            (name, section)
        });
        sections.collect()
    }

    pub(super) fn key_path(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (_, true) => self.path.clone(),
            _ => format!("{}.{key}", self.path),
        }
    }

    pub(super) const fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// Notes a mistake at a key of this table.
    pub(super) fn mistake(&self, key: &str, problem: impl Into<String>, hint: impl Into<String>) {
        self.report.mistake(&self.span_of(key), &self.key_path(key), problem, hint);
    }

    /// The value of a key; `None` where it is absent or faulty.
    pub(super) fn get<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let value = self.value(key)?;
        self.read(value, key)
    }

    /// The value of a key, or its default.
    pub(super) fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// The value of a key that has no default.
    pub(super) fn required<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        if self.value(key).is_none() {
            self.mistake(key, "is missing", format!("give {}", T::EXPECTED));
            return None;
        }
        self.get(key)
    }

    /// A list of values.
    pub(super) fn list<T: Setting>(&mut self, key: &'static str) -> Option<Vec<T>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Array(items) if items.len() > LIST_MAX => {
                self.mistake(key, format!("has {} entries", items.len()), format!("keep at most {LIST_MAX}"));
                None
            }
            DeValue::Array(items) => Some(items.iter().filter_map(|item| self.read(item, key)).collect()),
            other => {
                self.mistake(
                    key,
                    format!("is {}, not a list", describe(other)),
                    format!("give a list of {}", T::EXPECTED),
                );
                None
            }
        }
    }

    /// A nested table; where it is absent the section is empty.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let path = self.key_path(key);
        match self.value(key) {
            Some(value) => self.table_at(value, path),
            None => {
                Section { report: self.report, table: None, span: self.span.clone(), path, known: Vec::new() }
            }
        }
    }

    /// An array of tables.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let path = self.key_path(key);
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            let problem = format!("is {}, not a list of tables", describe(value.get_ref()));
            self.mistake(key, problem, format!("begin each entry with [[{path}]]"));
            return Vec::new();
        };
        if items.len() > LIST_MAX {
            self.mistake(key, format!("has {} entries", items.len()), format!("keep at most {LIST_MAX}"));
        }
        let items = items.iter().take(LIST_MAX).enumerate();
        items.map(|(at, item)| self.table_at(item, format!("{path}[{at}]"))).collect()
    }

    /// This table as a JSON object, for the parts of the protocol that read JSON. Its keys count as known.
    pub(super) fn to_json(&self) -> serde_json::Value {
        self.table.map_or_else(|| serde_json::json!({}), table_json)
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for (name, _) in self.table.into_iter().flatten() {
            if self.known.contains(&name.get_ref().as_ref()) {
                continue;
            }
            let hint = match nearest(name.get_ref(), self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.report.mistake(&name.span(), &self.key_path(name.get_ref()), "unknown key", hint);
        }
    }

    fn read<T: Setting>(&self, value: &Spanned<DeValue<'_>>, key: &str) -> Option<T> {
        self.read_at(value, &self.key_path(key))
    }

    fn read_at<T: Setting>(&self, value: &Spanned<DeValue<'_>>, path: &str) -> Option<T> {
        match T::read(value.get_ref()) {
            Ok(read) => Some(read),
            Err(problem) => {
                self.report.mistake(&value.span(), path, problem, format!("give {}", T::EXPECTED));
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

    fn table_at(&self, value: &'a Spanned<DeValue<'a>>, path: String) -> Section<'a> {
        let table = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let problem = format!("is {}, not a table", describe(other));
                self.report.mistake(&value.span(), &path, problem, "write it as a table");
                None
            }
        };
        Section { report: self.report, table, span: value.span(), path, known: Vec::new() }
    }
}

/// Names a value's TOML type, with its article.
pub(super) fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn table_json(table: &DeTable<'_>) -> serde_json::Value {
    let entries = table.iter().map(|(key, value)| (key.get_ref().to_string(), value_json(value.get_ref())));
    serde_json::Value::Object(entries.collect())
}

/// What is neither text, number, flag, list nor table becomes null, which no reader takes.
fn value_json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(serde_json::Value::Null, Into::into)
        }
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Array(items) => items.iter().map(|item| value_json(item.get_ref())).collect(),
        DeValue::Table(table) => table_json(table),
        DeValue::Float(_) | DeValue::Datetime(_) => serde_json::Value::Null,
    }
}
