//! Scenarios by name or by path.

use std::io::Read as _;
use std::path::Path;

use super::CliError;
use crate::library::{self, BUILT_IN};
use crate::run::Source;
use crate::scenario::node_file::NODE_FILE_BYTES_MAX;
use crate::scenario::{SCENARIO_BYTES_MAX, nearest};

/// The built-in scenario of a name, or what a file says.
pub(super) fn find(place: &str) -> Result<Source, CliError> {
    let mistaken = |mistakes| CliError::Mistakes { place: place.to_owned(), mistakes };
    if let Some(built_in) = library::find(place) {
        return built_in.source().map_err(mistaken);
    }
    if !Path::new(place).is_file() {
        return Err(unknown(place));
    }
    let base = Path::new(place).parent().unwrap_or(Path::new(""));
    library::source_with(place, &read(place)?, &|path| imported(&base.join(path))).map_err(mistaken)
}

/// The text of a node's configuration.
fn imported(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    // Asked before it is opened: opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    let limit = NODE_FILE_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
}

fn read(place: &str) -> Result<String, CliError> {
    let failed = |error| CliError::Read(place.to_owned(), error);
    let length = std::fs::metadata(place).map_err(failed)?.len();
    if length > SCENARIO_BYTES_MAX as u64 {
        return Err(CliError::NoText(place.to_owned()));
    }
    String::from_utf8(std::fs::read(place).map_err(failed)?).map_err(|_| CliError::NoText(place.to_owned()))
}

/// That there is no such scenario, with the one that was probably meant.
pub(super) fn unknown(place: &str) -> CliError {
    let near = nearest(place, BUILT_IN.iter().map(|built_in| built_in.name));
    let hint = near.map_or("; `simnet list` has the built-in ones".to_owned(), |near| {
        format!("; did you mean `{near}`?")
    });
    CliError::NoScenario(place.to_owned(), hint)
}
