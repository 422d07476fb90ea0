//! The built-in scenarios.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::run::Source;
use crate::scenario::{Files, Mistakes, Scenario};

/// One built-in scenario.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// Its TOML text.
    pub text: &'static str,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// Every built-in scenario, by name.
        pub const BUILT_IN: &[BuiltIn] = &[
            $(BuiltIn { name: $name, text: include_str!(concat!("../scenarios/", $name, ".toml")) }),*
        ];
    };
}

built_in!(
    "calm",
    "mixed",
    "split",
    "edge",
    "hostile",
    "residency",
    "narrow-trust",
    "clocks",
    "lossy",
    "disks",
    "thousand",
);

/// Those that a soak runs when none is named: all but the one that takes a minute a seed.
pub fn soaked() -> impl Iterator<Item = &'static BuiltIn> {
    BUILT_IN.iter().filter(|built_in| built_in.name != "thousand")
}

/// The built-in scenario of a name.
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|built_in| built_in.name == name)
}

impl BuiltIn {
    /// The scenario, ready to run.
    ///
    /// # Errors
    /// [`Mistakes`]; a test reads every one.
    pub fn source(&self) -> Result<Source, Mistakes> {
        source(self.name, self.text)
    }
}

/// A scenario's text, ready to run; `place` is what replay lines call it.
///
/// # Errors
/// [`Mistakes`].
pub fn source(place: &str, text: &str) -> Result<Source, Mistakes> {
    let scenario = Arc::new(Scenario::parse(text)?);
    Ok(Source { place: place.to_owned(), hash: Scenario::hash(text), scenario })
}

/// A scenario's text that may import files, ready to run. The hash covers every file that was read.
///
/// # Errors
/// [`Mistakes`].
pub fn source_with(place: &str, text: &str, files: Files<'_>) -> Result<Source, Mistakes> {
    let read = RefCell::new(BTreeMap::new());
    let remember = |path: &str| -> Result<String, String> {
        let text = files(path)?;
        read.borrow_mut().insert(path.to_owned(), text.clone());
        Ok(text)
    };
    let scenario = Arc::new(Scenario::parse_with(text, &remember)?);
    let hash = hash_with(text, &read.into_inner());
    Ok(Source { place: place.to_owned(), hash, scenario })
}

/// The hash of a scenario's text and of the files that it imports: that of the text alone where it imports none.
fn hash_with(text: &str, files: &BTreeMap<String, String>) -> String {
    if files.is_empty() {
        return Scenario::hash(text);
    }
    let parts = files.iter().flat_map(|(path, text)| [path.as_str(), text.as_str()]);
    let mut whole = String::new();
    for part in [text].into_iter().chain(parts) {
        // With their lengths, so that no two lists of parts are one text.
        whole.push_str(&format!("{}\n{part}\n", part.len()));
    }
    Scenario::hash(&whole)
}
