//! The built-in scenarios.

use std::sync::Arc;

use crate::run::Source;
use crate::scenario::{Mistakes, Scenario};

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
);

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
