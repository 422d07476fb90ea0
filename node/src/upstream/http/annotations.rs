//! The rules for `x-mcp-header` in a tool's input schema (2026-07-28, streamable HTTP): whoever calls a tool over HTTP must
//! leave out one that breaks them, because no two parties would agree on its headers.

use std::collections::BTreeSet;

use comity_protocol::json;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

const KEY: &str = "x-mcp-header";

/// What may be repeated in a header. Numbers may not: there is more than one way to write one.
const TYPES: [&str; 3] = ["string", "integer", "boolean"];

/// Keywords whose values are schemas by name.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Keywords whose values are data, whatever they look like.
const DATA: [&str; 5] = ["const", "default", "enum", "example", "examples"];

/// Why a tool's annotations are not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::upstream) enum AnnotationError {
    /// It is on something that is not reached by `properties` alone.
    #[error("x-mcp-header where no argument is")]
    Place,
    /// Its value is not the name of a header.
    #[error("x-mcp-header is no header's name")]
    Name,
    /// The argument is of a type that no header can repeat.
    #[error("x-mcp-header on an argument that is neither a string, an integer nor a boolean")]
    Type,
    /// Two arguments claim one header; case does not count.
    #[error("x-mcp-header names one header twice")]
    Twice,
}

/// Checks the annotations of a tool's input schema. A schema that cannot be read has none.
pub(in crate::upstream) fn check(tool: &RawValue) -> Result<(), AnnotationError> {
    // Most tools have no such annotation: a search is much cheaper than a parse.
    if !tool.get().contains(KEY) {
        return Ok(());
    }
    let schema = json::path(tool, &["inputSchema"]).and_then(|raw| serde_json::from_str(raw.get()).ok());
    match schema {
        Some(Value::Object(schema)) => object(&schema, Place::Root, &mut BTreeSet::new()),
        _ => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The schema of all arguments.
    Root,
    /// Reached by `properties` alone.
    Argument,
    Elsewhere,
}

fn object(
    schema: &Map<String, Value>,
    place: Place,
    taken: &mut BTreeSet<String>,
) -> Result<(), AnnotationError> {
    if let Some(header) = schema.get(KEY) {
        annotation(schema, header, place, taken)?;
    }
    for (keyword, value) in schema.iter().filter(|(keyword, _)| !DATA.contains(&keyword.as_str())) {
        let inside = match (keyword.as_str(), place) {
            ("properties", Place::Root | Place::Argument) => Place::Argument,
            _ => Place::Elsewhere,
        };
        match value {
            Value::Object(named) if NAMED.contains(&keyword.as_str()) => {
                named.values().try_for_each(|schema| any(schema, inside, taken))?;
            }
            other => any(other, Place::Elsewhere, taken)?,
        }
    }
    Ok(())
}

fn any(value: &Value, place: Place, taken: &mut BTreeSet<String>) -> Result<(), AnnotationError> {
    match value {
        Value::Object(schema) => object(schema, place, taken),
        Value::Array(list) => list.iter().try_for_each(|value| any(value, Place::Elsewhere, taken)),
        _ => Ok(()),
    }
}

fn annotation(
    schema: &Map<String, Value>,
    header: &Value,
    place: Place,
    taken: &mut BTreeSet<String>,
) -> Result<(), AnnotationError> {
    if place != Place::Argument {
        return Err(AnnotationError::Place);
    }
    let name = header.as_str().filter(|name| is_token(name)).ok_or(AnnotationError::Name)?;
    if !schema.get("type").and_then(Value::as_str).is_some_and(|kind| TYPES.contains(&kind)) {
        return Err(AnnotationError::Type);
    }
    if !taken.insert(name.to_ascii_lowercase()) {
        return Err(AnnotationError::Twice);
    }
    Ok(())
}

/// RFC 9110, section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_tchar)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: Value) -> Result<(), AnnotationError> {
        check(&json::to_raw(&json!({ "name": "t", "inputSchema": schema })))
    }

    fn one(kind: &str, header: Value) -> Result<(), AnnotationError> {
        of(json!({ "properties": { "a": { "type": kind, KEY: header } } }))
    }

    #[test]
    fn annotations_on_arguments_hold() {
        assert_eq!(one("string", json!("Region")), Ok(()));
        let deep = json!({ "type": "object", "properties": { "b": { "type": "integer", KEY: "B" } } });
        assert_eq!(
            of(json!({ "properties": { "a": deep, "c": { "type": "boolean", KEY: "C" }, KEY: {} } })),
            Ok(())
        );
        let data = json!({ "default": { KEY: 7 }, "enum": [{ KEY: 7 }] });
        assert_eq!(of(json!({ "properties": { "a": data } })), Ok(()));
    }

    #[test]
    fn each_rule_is_kept() {
        use AnnotationError::{Name, Place, Twice, Type};
        for header in [json!(""), json!("My Region"), json!("a:b"), json!("Région"), json!("a\t"), json!(1)]
        {
            assert_eq!(one("string", header), Err(Name));
        }
        for kind in ["object", "array", "null", "number"] {
            assert_eq!(one(kind, json!("X")), Err(Type));
        }
        let [upper, lower] = ["X", "x"].map(|name| json!({ "type": "string", KEY: name }));
        assert_eq!(of(json!({ "properties": { "a": upper, "b": lower } })), Err(Twice));
        for keyword in ["items", "additionalProperties", "not", "if"] {
            assert_eq!(of(json!({ "properties": { "a": { keyword: upper } } })), Err(Place));
        }
        assert_eq!(of(json!({ "$defs": { "a": upper } })), Err(Place));
        assert_eq!(of(json!({ "allOf": [{ "properties": { "a": upper } }] })), Err(Place));
        assert_eq!(of(upper), Err(Place));
    }
}
