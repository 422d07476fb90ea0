//! One schema, compiled, and values held against it.

use std::fmt;

use comity_protocol::json::{self, DEPTH_MAX};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;
use serde_json::value::RawValue;

use super::cost::{Cost, CostError};
use super::{FAULTS_MAX, Fault, Faults, shorten};

/// Bytes that one regular expression may take compiled, and again for its cache of states. The engine is linear in the
/// text: there is no backtracking to bound.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Steps after which a value that is wrong is told the first fault only: finding all may need memory for each.
const ALL_FAULTS_STEPS_MAX: u64 = 100_000;

/// Why a schema is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SchemaError {
    /// It has a number that no machine type holds.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Checking against it could take too long.
    #[error(transparent)]
    Cost(#[from] CostError),
    /// It is no schema, or refers to what is not in it.
    #[error("it cannot be compiled: {0}")]
    Invalid(String),
}

/// A schema that is worth checking against.
pub(super) struct Schema {
    validator: Validator,
    cost: Cost,
}

/// A value to be checked, and how many steps that can take.
pub(super) struct Read {
    value: Value,
    pub(super) steps: u64,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl Schema {
    /// Compiles a schema; `None` when every object satisfies it.
    pub(super) fn compile(raw: &RawValue) -> Result<Option<Self>, SchemaError> {
        let schema: Value = serde_json::from_str(raw.get())?;
        if takes_every_object(&schema) {
            return Ok(None);
        }
        let cost = Cost::of(&schema)?;
        let validator = jsonschema::options()
            .offline()
            .should_validate_formats(false)
            .with_pattern_options(
                PatternOptions::regex().size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX),
            )
            .build(&schema)
            .map_err(|error| SchemaError::Invalid(shorten(&error.to_string())))?;
        Ok(Some(Self { validator, cost }))
    }

    /// Reads a value; `None` for one that is not to be checked.
    pub(super) fn read(&self, text: &str) -> Option<Read> {
        json::check_depth(text.as_bytes(), DEPTH_MAX).ok()?;
        // A number beyond every machine type is the server's to judge.
        let value = serde_json::from_str(text).ok()?;
        let steps = self.cost.affordable(&value);
        if steps.is_none() {
            tracing::debug!("a value is not checked: it would take too long");
        }
        steps.map(|steps| Read { value, steps })
    }

    /// Holds a value against the schema.
    pub(super) fn check(&self, Read { value, steps }: &Read) -> Result<(), Faults> {
        if self.validator.is_valid(value) {
            return Ok(());
        }
        let faults: Vec<Fault> = if *steps <= ALL_FAULTS_STEPS_MAX {
            self.validator.iter_errors(value).take(FAULTS_MAX).map(|error| fault(&error)).collect()
        } else {
            self.validator.validate(value).err().iter().map(fault).collect()
        };
        if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
    }
}

fn fault(error: &ValidationError<'_>) -> Fault {
    Fault {
        path: shorten(error.instance_path().as_str()),
        keyword: shorten(error.kind().keyword()),
        detail: shorten(&error.masked().to_string()),
    }
}

/// Whether nothing in a schema can fail for an object: the usual schema of a tool without parameters, and of one that
/// leaves all to its server.
fn takes_every_object(schema: &Value) -> bool {
    const VACUOUS: [&str; 6] =
        ["$schema", "type", "title", "description", "properties", "additionalProperties"];
    let Some(schema) = schema.as_object() else { return false };
    let vacuous = |key: &str, value: &Value| match key {
        "type" => value == "object",
        "properties" => value.as_object().is_some_and(serde_json::Map::is_empty),
        "additionalProperties" => {
            *value == Value::Bool(true) || value.as_object().is_some_and(serde_json::Map::is_empty)
        }
        _ => true,
    };
    schema.iter().all(|(key, value)| VACUOUS.contains(&key.as_str()) && vacuous(key, value))
}
