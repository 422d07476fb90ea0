use serde_json::{Value, json};

use comity_protocol::ids::Kind;

use super::*;

fn descriptor(tool: &Value) -> Arc<Descriptor> {
    Arc::new(Descriptor::parse(Kind::Tool, &tool.to_string()).unwrap())
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn tool(input: Value) -> Arc<Descriptor> {
    let mut schema = json!({ "type": "object" });
    schema.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
    descriptor(&json!({ "name": "t", "inputSchema": schema }))
}

/// Holds `arguments` against an input schema.
async fn arguments(input: Value, arguments: &str) -> Result<(), Faults> {
    let checks = Checks::compile(&tool(input));
    checks.arguments(&raw(&format!(r#"{{"name":"t","arguments":{arguments}}}"#))).await
}

fn paths(faults: Result<(), Faults>) -> Vec<String> {
    faults.err().map(|faults| faults.0.into_iter().map(|fault| fault.path).collect()).unwrap_or_default()
}

fn place() -> Value {
    json!({
        "properties": {
            "city": { "type": "string", "pattern": "^[A-Z]" },
            "days": { "type": "array", "items": { "type": "integer", "minimum": 1 } },
        },
        "required": ["city"],
        "additionalProperties": false,
    })
}

#[tokio::test]
async fn each_fault_is_told_with_its_path() {
    assert_eq!(arguments(place(), r#"{"city":"Berlin","days":[1,2]}"#).await, Ok(()));
    let faults = arguments(place(), r#"{"city":"berlin","days":[1,"x",0],"secret":1}"#).await.unwrap_err();
    let mut found: Vec<_> =
        faults.0.iter().map(|fault| (fault.path.as_str(), fault.keyword.as_str())).collect();
    found.sort_unstable();
    let expected =
        [("", "additionalProperties"), ("/city", "pattern"), ("/days/1", "type"), ("/days/2", "minimum")];
    assert_eq!(found, expected);
    assert!(!faults.to_string().contains("berlin"), "values are not quoted: {faults}");
    assert_eq!(paths(arguments(place(), "{}").await), [""]);
    assert_eq!(paths(arguments(place(), "[]").await), [""]);
    let checks = Checks::compile(&tool(place()));
    assert_eq!(paths(checks.arguments(&raw(r#"{"name":"t"}"#)).await), [""], "none are as good as {{}}");
}

#[tokio::test]
async fn faults_are_bounded_in_number_and_size() {
    let many = format!("{{\"city\":\"B\",\"days\":[{}0]}}", "0,".repeat(1_000));
    assert_eq!(paths(arguments(place(), &many).await).len(), FAULTS_MAX);
    let very_many = format!("{{\"city\":\"B\",\"days\":[{}0]}}", "0,".repeat(50_000));
    assert_eq!(paths(arguments(place(), &very_many).await).len(), 1, "checked elsewhere, and told once");
    let long = format!(r#"{{"city":"B","{}":1}}"#, "x".repeat(10_000));
    let faults = arguments(place(), &long).await.unwrap_err();
    assert!(faults.to_string().chars().count() < 2 * FAULT_CHARS_MAX, "{faults}");
}

#[tokio::test]
async fn the_revision_that_a_schema_names_is_the_one_that_counts() {
    let tuple = |schema: &str| json!({ "$schema": schema, "properties": { "p": { "items": [{ "type": "string" }] } } });
    let draft7 = tuple("http://json-schema.org/draft-07/schema#");
    assert_eq!(paths(arguments(draft7, r#"{"p":[1]}"#).await), ["/p/0"], "a tuple in draft 7");
    let prefix = json!({ "properties": { "p": { "prefixItems": [{ "type": "string" }] } } });
    assert_eq!(paths(arguments(prefix, r#"{"p":[1]}"#).await), ["/p/0"], "2020-12 where none is named");
    let format = json!({ "properties": { "p": { "format": "email" } } });
    assert_eq!(arguments(format, r#"{"p":"nobody"}"#).await, Ok(()), "a format is an annotation");
}

#[tokio::test]
async fn what_cannot_be_checked_passes() {
    for schema in [
        json!({ "properties": { "p": { "$ref": "http://127.0.0.1:1/schema" } } }),
        json!({ "properties": { "p": { "$ref": "file:///etc/hostname" } } }),
        json!({ "properties": { "p": { "pattern": "(?=x)y" } } }),
        json!({ "properties": { "p": { "pattern": "(x{1000}){1000}" } } }),
        json!({ "properties": { "p": { "type": "no such type" } } }),
        json!({ "$schema": "https://example.com/mine", "properties": { "p": { "type": "string" } } }),
        json!({ "$ref": "#" }),
    ] {
        assert!(Checks::compile(&tool(schema.clone())).input.is_none(), "{schema}");
        assert_eq!(arguments(schema, r#"{"p":1}"#).await, Ok(()));
    }
    let whole = json!({ "properties": { "n": { "type": "integer" } } });
    assert_eq!(arguments(whole.clone(), r#"{"n":1e400}"#).await, Ok(()), "beyond every machine type");
    assert_eq!(arguments(whole.clone(), r#"{"n":99999999999999999999}"#).await, Ok(()));
    assert_eq!(paths(arguments(whole, r#"{"n":1.5}"#).await), ["/n"]);
}

#[tokio::test]
async fn a_schema_that_could_take_for_ever_takes_no_time() {
    // Twice itself from one place: two to the power of the depth.
    let twice = json!({ "anyOf": [
        { "properties": { "x": { "$ref": "#" } }, "required": ["no"] },
        { "properties": { "x": { "$ref": "#" } }, "required": ["no"] },
    ] });
    let deep = (0..80).fold("{}".to_owned(), |inner, _| format!(r#"{{"x":{inner}}}"#));
    assert_eq!(arguments(twice.clone(), &deep).await, Ok(()));
    assert!(!paths(arguments(twice, r#"{"x":{}}"#).await).is_empty());
    let slow = json!({ "properties": { "p": { "pattern": "^(a+)+$" } } });
    let text = format!(r#"{{"p":"{}!"}}"#, "a".repeat(50_000));
    assert_eq!(paths(arguments(slow, &text).await), ["/p"]);
}

#[tokio::test]
async fn structured_results_are_held_against_the_output_schema() {
    let output = json!({ "type": "object", "properties": { "n": { "type": "number" } }, "required": ["n"] });
    let input = json!({ "type": "object" });
    let checks =
        Checks::compile(&descriptor(&json!({ "name": "t", "inputSchema": input, "outputSchema": output })));
    assert!(checks.input.is_none(), "every object satisfies it");
    for (result, expected) in [
        (r#"{"structuredContent":{"n":1},"content":[]}"#, vec![]),
        (r#"{"structuredContent":{"n":"1"},"content":[]}"#, vec!["/n"]),
        (r#"{"structuredContent":{},"content":[]}"#, vec![""]),
        (r#"{"structuredContent":{},"content":[],"isError":true}"#, vec![]),
        (r#"{"content":[]}"#, vec![]),
        (r#"{"resultType":"input_required","requestState":"s"}"#, vec![]),
    ] {
        assert_eq!(paths(checks.result(&raw(result)).await), expected, "{result}");
    }
}

#[tokio::test]
async fn contracts_are_compiled_once_and_the_oldest_gives_way() {
    let validators = Validators::default();
    let first = tool(place());
    let checks = validators.of(&first).await;
    assert!(Arc::ptr_eq(&checks, &validators.of(&first).await));
    for n in 0..CONTRACTS_MAX {
        validators
            .of(&descriptor(&json!({ "name": format!("t{n}"), "inputSchema": { "type": "object" } })))
            .await;
    }
    let known = validators.lock();
    assert_eq!((known.checks.len(), known.order.len()), (CONTRACTS_MAX, CONTRACTS_MAX));
    assert!(!known.checks.contains_key(&first.contract()));
}
