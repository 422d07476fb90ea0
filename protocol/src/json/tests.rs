use super::*;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("test input is JSON")
}

fn canonical_text(text: &str) -> Result<String, JsonError> {
    canonical(&raw(text)).map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn depth_counts_brackets_outside_strings_only() {
    assert_eq!(check_depth(br#"{"a":[1,{"b":2}]}"#, 3), Ok(()));
    assert_eq!(check_depth(br#"{"a":[1,{"b":2}]}"#, 2), Err(JsonError::TooDeep { max: 2 }));
    assert_eq!(check_depth(br#""[[[[\"[[[[""#, 0), Ok(()));
    assert_eq!(check_depth(br#"[[],[],[{}]]"#, 3), Ok(()));
    assert_eq!(check_depth(&b"[".repeat(1_000_000), 64), Err(JsonError::TooDeep { max: 64 }));
    assert_eq!(check_depth(b"\"unterminated \\", 0), Ok(()));
}

#[test]
fn untouched_values_keep_their_bytes_and_order() {
    let text = r#"{"z":  18446744073709551616123 ,"a":{"y" : 1.50, "x":1e400},"_meta":null,"s":"\u00e9\/"}"#;
    let mut object = RawObject::parse(&raw(text)).unwrap();
    object.set_str("_meta", "new");
    object.set("last", raw("true"));
    assert_eq!(
        object.to_raw().get(),
        r#"{"z":18446744073709551616123,"a":{"y" : 1.50, "x":1e400},"_meta":"new","s":"\u00e9\/","last":true}"#
    );
}

#[test]
fn objects_are_edited_by_key() {
    let mut object = RawObject::parse(&raw(r#"{"a":1,"b":"two","c":{"d":3}}"#)).unwrap();
    assert_eq!(object.len(), 3);
    assert_eq!(object.get("a").unwrap().get(), "1");
    assert_eq!(object.get_str("b").unwrap(), "two");
    assert_eq!(object.get_str("a"), None);
    assert_eq!(object.get_object("c").unwrap().unwrap().get("d").unwrap().get(), "3");
    assert!(object.get_object("absent").unwrap().is_none());
    assert_eq!(object.get_object("a").unwrap_err(), JsonError::Expected { expected: "an object" });
    assert_eq!(object.remove("a").unwrap().get(), "1");
    assert!(object.remove("a").is_none());
    object.retain(|key| key != "c");
    assert_eq!(object.to_raw().get(), r#"{"b":"two"}"#);
    assert_eq!(RawObject::new().to_raw().get(), "{}");
}

#[test]
fn duplicate_keys_are_refused_few_or_many_escaped_or_not() {
    let few = RawObject::parse(&raw(r#"{"a":1,"b":2,"\u0061":3}"#));
    assert_eq!(few.unwrap_err(), JsonError::DuplicateKey { key: "a".into() });
    let many: Vec<String> = (0..100).chain([50]).map(|n| format!("\"k{n}\":{n}")).collect();
    let many = RawObject::parse(&raw(&format!("{{{}}}", many.join(","))));
    assert_eq!(many.unwrap_err(), JsonError::DuplicateKey { key: "k50".into() });
    let twice = raw(r#"{"a":1,"b":2,"a":3}"#);
    assert_eq!(field(&twice, "a").unwrap_err(), JsonError::DuplicateKey { key: "a".into() });
    assert_eq!(field(&twice, "b").unwrap().unwrap().get(), "2");
}

#[test]
fn anything_but_an_object_is_refused() {
    for text in ["[]", "1", "\"{}\"", "null", "true"] {
        let expected = JsonError::Expected { expected: "an object" };
        assert_eq!(RawObject::parse(&raw(text)).unwrap_err(), expected, "{text}");
        assert_eq!(field(&raw(text), "a").unwrap_err(), expected, "{text}");
    }
}

#[test]
fn fields_and_paths_are_borrowed() {
    let object = raw(r#"{"_meta":{"progressToken":7,"x":[1]},"e\"sc":1}"#);
    assert_eq!(path(&object, &["_meta", "progressToken"]).unwrap().get(), "7");
    assert_eq!(field(&object, "e\"sc").unwrap().unwrap().get(), "1");
    assert!(path(&object, &["_meta", "absent"]).is_none());
    assert!(path(&object, &["_meta", "x", "y"]).is_none());
}

#[test]
fn strings_are_read_through_escapes() {
    assert_eq!(as_str(&raw(r#""plain""#)).unwrap(), "plain");
    assert!(matches!(as_str(&raw(r#""plain""#)), Some(Cow::Borrowed(_))));
    assert_eq!(as_str(&raw(r#""a\"\u00e9""#)).unwrap(), "a\"é");
    assert_eq!(as_str(&raw("12")), None);
    assert_eq!(as_str(&raw(r#""\ud800""#)), None);
}

#[test]
fn canonical_form_sorts_and_strips_but_keeps_numbers() {
    let cases = [
        (r#" { "b" : 1 , "a" : [ 1.0 , 1 , -0 , 1E5 ] } "#, r#"{"a":[1.0,1,-0,1E5],"b":1}"#),
        (r#"{"a":{"d":{},"c":[]},"A":null}"#, r#"{"A":null,"a":{"c":[],"d":{}}}"#),
        (r#""\u00e9\/\n\u0001\"""#, "\"é/\\n\\u0001\\\"\""),
        (r#"{"é":1,"z":2,"\u007a2":3}"#, r#"{"z":2,"z2":3,"é":1}"#),
        (r#"123456789012345678901234567890.10"#, "123456789012345678901234567890.10"),
        (r#"[[],[[]],{"x":"]}"}]"#, r#"[[],[[]],{"x":"]}"}]"#),
        ("true", "true"),
    ];
    for (text, expected) in cases {
        assert_eq!(canonical_text(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn canonical_form_is_a_fixed_point() {
    let text = r#"{"q":[{"z":1,"a":{"k":"v","b":[3,2,1]}}],"\u0062":"\\","a":-1.0e-9}"#;
    let once = canonical_text(text).unwrap();
    assert_eq!(canonical_text(&once).unwrap(), once);
}

#[test]
fn canonical_form_refuses_what_has_no_single_meaning() {
    assert_eq!(canonical_text(r#"[{"a":1,"\u0061":2}]"#), Err(JsonError::DuplicateKey { key: "a".into() }));
    assert!(matches!(canonical_text(r#"["\ud800"]"#), Err(JsonError::Syntax(_))));
    let deep = format!("{}{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
    assert_eq!(canonical_text(&deep), Err(JsonError::TooDeep { max: DEPTH_MAX }));
    let deepest = format!("{}{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    assert_eq!(canonical_text(&deepest), Ok(deepest.clone()));
}

#[test]
fn debug_shows_no_values() {
    let object = RawObject::parse(&raw(r#"{"token":"s3cret"}"#)).unwrap();
    assert_eq!(format!("{object:?}"), r#"["token"]"#);
}

#[test]
fn brackets_in_strings_never_count_wherever_the_string_ends() {
    let naive = |text: &str| {
        let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
        for byte in text.bytes() {
            match (in_string, escaped, byte) {
                (true, true, _) => escaped = false,
                (true, false, b'\\') => escaped = true,
                (_, _, b'"') => in_string = !in_string,
                (false, _, b'[' | b'{') => depth += 1,
                (false, _, b']' | b'}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    };
    // Every alignment of quotes, backslashes and their neighbours in value (`!`, `#`, `[`, `]`) within words of eight.
    let pieces = ["", "[", "\\\"", "\\\\", "!", "#", "]", "x", "\u{e9}"];
    for length in 0..20 {
        for (index, piece) in pieces.iter().enumerate() {
            let other = pieces[(index + length) % pieces.len()];
            let text = format!(
                r#"["{}{piece}{other}",["{}",[]],"{piece}[""#,
                "a".repeat(length),
                "[".repeat(length)
            );
            let deepest = naive(&text);
            assert!(check_depth(text.as_bytes(), deepest).is_ok(), "{text}");
            assert!(check_depth(text.as_bytes(), deepest - 1).is_err(), "{text}");
        }
    }
}
