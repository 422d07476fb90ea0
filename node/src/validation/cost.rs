//! What checking against a schema may cost, found out before it is compiled.
//!
//! A validator has no budget of its own, and a schema of a few lines can keep one busy for ever: a chain of definitions
//! each of which refers twice to the next, or a recursive one that refers to itself twice from one place. So the schema
//! is walked once with every reference followed, up to a bound, and what the walk counts bounds each check:
//! no more than `schemas x values x recursions ^ depth` steps, no deeper than `levels x depth`.
//!
//! The walk takes every object and array in a schema for one, and so counts too much rather than too little.

use serde_json::Value;

/// Schemas that a walk may see, each as often as it is referred to.
const SCHEMAS_MAX: u64 = 20_000;

/// How deep schemas may nest when references are followed.
const LEVELS_MAX: usize = 128;

/// How deep a check may nest: a few hundred bytes of stack each, of which a thread has two megabytes.
const CHECK_LEVELS_MAX: usize = 400;

/// Steps that one check may take: a fraction of a second at worst.
const STEPS_MAX: u64 = 4_000_000;

/// Why a schema is not checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CostError {
    /// It has too many schemas.
    #[error("with its references followed it has more than {SCHEMAS_MAX} parts")]
    TooLarge,
    /// It nests too deeply.
    #[error("with its references followed it nests more than {LEVELS_MAX} levels deep")]
    TooDeep,
    /// It refers to itself without descending into the value.
    #[error("it refers to itself without an end")]
    Endless,
    /// Its references are not plain pointers into itself.
    #[error("it refers to other than parts of itself by `#/...`")]
    Reference,
}

/// What a check against one schema costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    schemas: u64,
    levels: usize,
    recursions: u64,
}

impl Cost {
    /// Walks a schema.
    pub(super) fn of(schema: &Value) -> Result<Self, CostError> {
        let mut walk = Walk {
            root: schema,
            followed: vec![Followed { pointer: String::new(), descents: 0 }],
            cost: Self { schemas: 0, levels: 0, recursions: 0 },
        };
        walk.schema(schema, Place { level: 0, descents: 0 })?;
        Ok(walk.cost)
    }

    /// The most steps that checking `value` can take; `None` when that is too many.
    pub(super) fn affordable(&self, value: &Value) -> Option<u64> {
        let (values, depth) = measure(value);
        let again = self.recursions.max(1).saturating_pow(u32::try_from(depth).unwrap_or(u32::MAX));
        let steps = self.schemas.saturating_mul(values).saturating_mul(again);
        let descents = if self.recursions > 0 { depth + 1 } else { 1 };
        (steps <= STEPS_MAX && self.levels * descents <= CHECK_LEVELS_MAX).then_some(steps)
    }
}

/// How many values there are in one, itself among them, and how deep they nest.
fn measure(value: &Value) -> (u64, usize) {
    let sum = |(values, depth): (u64, usize), inner: &Value| {
        let (more, deeper) = measure(inner);
        (values + more, depth.max(deeper + 1))
    };
    match value {
        Value::Array(items) => items.iter().fold((1, 0), sum),
        Value::Object(members) => members.values().fold((1, 0), sum),
        _ => (1, 0),
    }
}

struct Walk<'a> {
    root: &'a Value,
    /// The references that led here.
    followed: Vec<Followed>,
    cost: Cost,
}

struct Followed {
    pointer: String,
    descents: usize,
}

#[derive(Clone, Copy)]
struct Place {
    level: usize,
    /// How many steps into the value led here.
    descents: usize,
}

impl Place {
    fn deeper(self) -> Self {
        Self { level: self.level + 1, ..self }
    }

    fn into_value(self) -> Self {
        Self { descents: self.descents + 1, ..self.deeper() }
    }
}

/// What a keyword's value is.
enum Kind {
    /// A schema, or a list of them, for the same value.
    Same,
    /// Schemas by name for the same value.
    SameByName,
    /// A schema, or a list of them, for what is in the value.
    Inside,
    /// Schemas by name for what is in the value.
    InsideByName,
    /// Nothing until it is referred to.
    Apart,
    /// Data.
    Data,
}

fn kind(keyword: &str) -> Kind {
    match keyword {
        "allOf" | "anyOf" | "oneOf" | "not" | "if" | "then" | "else" => Kind::Same,
        "dependentSchemas" | "dependencies" => Kind::SameByName,
        "items"
        | "prefixItems"
        | "additionalItems"
        | "contains"
        | "unevaluatedItems"
        | "additionalProperties"
        | "unevaluatedProperties"
        | "propertyNames"
        | "contentSchema"
        | "extends"
        | "disallow" => Kind::Inside,
        "properties" | "patternProperties" => Kind::InsideByName,
        "$defs" | "definitions" => Kind::Apart,
        _ => Kind::Data,
    }
}

impl<'a> Walk<'a> {
    fn schema(&mut self, schema: &'a Value, place: Place) -> Result<(), CostError> {
        self.count(place)?;
        match schema {
            Value::Object(members) => {
                members.iter().try_for_each(|(key, value)| self.member(key, value, place))
            }
            Value::Array(items) => items.iter().try_for_each(|item| self.schema(item, place.deeper())),
            _ => Ok(()),
        }
    }

    fn member(&mut self, key: &str, value: &'a Value, place: Place) -> Result<(), CostError> {
        match key {
            "$ref" => return self.follow(value.as_str().ok_or(CostError::Reference)?, place),
            "$dynamicRef" | "$recursiveRef" => return Err(CostError::Reference),
            // A base of its own would change what the pointers in it mean.
            "$id" | "id" if place.level > 0 && value.is_string() => return Err(CostError::Reference),
            _ => {}
        }
        match kind(key) {
            Kind::Same => self.schema(value, place.deeper()),
            Kind::Inside => self.schema(value, place.into_value()),
            Kind::SameByName => self.each(value, place.deeper()),
            Kind::InsideByName => self.each(value, place.into_value()),
            Kind::Apart => Ok(()),
            Kind::Data => self.data(value, place),
        }
    }

    fn each(&mut self, schemas: &'a Value, place: Place) -> Result<(), CostError> {
        let schemas = schemas.as_object().into_iter().flat_map(serde_json::Map::values);
        schemas.into_iter().try_for_each(|schema| self.schema(schema, place))
    }

    /// A list of a thousand allowed values costs a thousand comparisons.
    fn data(&mut self, value: &Value, place: Place) -> Result<(), CostError> {
        let (values, _) = measure(value);
        self.cost.schemas += values;
        self.count(place)
    }

    fn follow(&mut self, reference: &str, place: Place) -> Result<(), CostError> {
        let pointer = pointer(reference)?;
        if let Some(before) = self.followed.iter().find(|followed| followed.pointer == pointer) {
            if before.descents == place.descents {
                return Err(CostError::Endless);
            }
            self.cost.recursions += 1;
            return Ok(());
        }
        let target = self.root.pointer(&pointer).ok_or(CostError::Reference)?;
        self.followed.push(Followed { pointer, descents: place.descents });
        let walked = self.schema(target, place.deeper());
        self.followed.pop();
        walked
    }

    fn count(&mut self, place: Place) -> Result<(), CostError> {
        self.cost.schemas += 1;
        self.cost.levels = self.cost.levels.max(place.level);
        match (self.cost.schemas > SCHEMAS_MAX, place.level > LEVELS_MAX) {
            (true, _) => Err(CostError::TooLarge),
            (_, true) => Err(CostError::TooDeep),
            _ => Ok(()),
        }
    }
}

/// The pointer of a reference into the document itself.
fn pointer(reference: &str) -> Result<String, CostError> {
    let pointer = reference.strip_prefix('#').ok_or(CostError::Reference)?;
    let plain = pointer.is_empty() || pointer.starts_with('/');
    // Percent-encoded pointers are as rare as they are ambiguous.
    if plain && !pointer.contains('%') { Ok(pointer.to_owned()) } else { Err(CostError::Reference) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(schema: Value) -> Result<Cost, CostError> {
        Cost::of(&schema)
    }

    #[test]
    fn plain_and_recursive_schemas_are_affordable() {
        let plain = of(json!({ "properties": { "a": { "enum": [1, 2, 3] } }, "required": ["a"] })).unwrap();
        assert_eq!((plain.recursions, plain.levels), (0, 1));
        assert!(plain.affordable(&json!({ "a": 1 })).unwrap() < 100);
        let tree =
            of(json!({ "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" } } })).unwrap();
        assert_eq!(tree.recursions, 2);
        assert!(tree.affordable(&json!({ "left": { "left": {} } })).is_some());
        let deep = (0..60).fold(json!({}), |inner, _| json!({ "left": inner }));
        assert_eq!(tree.affordable(&deep), None);
        let numbers = of(json!({ "items": { "type": "number" } })).unwrap();
        assert!(numbers.affordable(&Value::from(vec![1; 100_000])).is_some());
    }

    #[test]
    fn what_could_go_on_for_ever_is_refused() {
        let doubling: serde_json::Map<String, Value> = (0..20)
            .map(|n| {
                let next = json!({ "$ref": format!("#/$defs/{}", n + 1) });
                (n.to_string(), json!({ "anyOf": [next, next] }))
            })
            .chain([("20".to_owned(), json!(false))])
            .collect();
        assert_eq!(of(json!({ "$ref": "#/$defs/0", "$defs": doubling })), Err(CostError::TooLarge));
        let chain: serde_json::Map<String, Value> =
            (0..1000).map(|n| (n.to_string(), json!({ "$ref": format!("#/$defs/{}", n + 1) }))).collect();
        assert_eq!(of(json!({ "$ref": "#/$defs/0", "$defs": chain })), Err(CostError::TooDeep));
        for endless in [
            json!({ "$ref": "#" }),
            json!({ "allOf": [{ "not": { "$ref": "#" } }] }),
            json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "anyOf": [{ "$ref": "#/$defs/a" }] } } }),
        ] {
            assert_eq!(of(endless.clone()), Err(CostError::Endless), "{endless}");
        }
    }

    #[test]
    fn references_elsewhere_are_not_followed() {
        for schema in [
            json!({ "$ref": "https://example.com/schema" }),
            json!({ "$ref": "file:///etc/passwd" }),
            json!({ "$ref": "#/$defs/none" }),
            json!({ "$ref": "#anchor" }),
            json!({ "properties": { "a": { "$id": "x", "$ref": "#/y" } } }),
            json!({ "$dynamicRef": "#x" }),
        ] {
            assert_eq!(of(schema.clone()), Err(CostError::Reference), "{schema}");
        }
        // A property may be called that.
        assert!(of(json!({ "properties": { "$ref": { "type": "string" }, "$id": {} } })).is_ok());
    }

    #[test]
    fn definitions_cost_what_is_referred_to() {
        let unused: serde_json::Map<String, Value> =
            (0..30_000).map(|n| (n.to_string(), json!({}))).collect();
        assert!(of(json!({ "$defs": unused })).unwrap().schemas < 10);
        assert_eq!(of(json!({ "enum": vec![0; 30_000] })), Err(CostError::TooLarge));
    }
}
