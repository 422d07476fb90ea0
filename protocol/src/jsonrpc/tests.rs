use super::*;

fn parse(text: &str) -> Result<Message, ParseError> {
    Message::parse(text.as_bytes(), Limits::default())
}

fn envelope_fault(text: &str) -> &'static str {
    match parse(text) {
        Err(ParseError::Envelope(fault)) => fault,
        other => panic!("{text}: {other:?}"),
    }
}

fn text(message: &Message) -> String {
    String::from_utf8(message.to_vec()).unwrap()
}

#[test]
fn messages_survive_a_round_trip_to_the_byte() {
    for line in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","n":123456789012345678901234567890}}"#,
        r#"{"jsonrpc":"2.0","id":"a\"b","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1, "progress":1.0}}"#,
        r#"{"jsonrpc":"2.0","id":-7,"result":{"z":1,"a":[1e400,"\ud800"]}}"#,
        r#"{"jsonrpc":"2.0","id":0,"result":null}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?","x":1}}"#,
        r#"{"jsonrpc":"2.0","id":9223372036854775807,"error":{"code":1,"message":""}}"#,
    ] {
        assert_eq!(text(&parse(line).unwrap()), line);
    }
}

#[test]
fn the_envelope_is_read_in_any_order_and_its_extras_dropped() {
    let message =
        parse(" {\"params\" : {} ,\"id\":\"7\", \"x\":1, \"method\":\"a\\/b\",\"jsonrpc\":\"2.0\"}\r\n");
    let message = message.unwrap();
    assert_eq!(message.id(), Some(&Id::String("7".into())));
    assert_eq!(message.method(), Some("a/b"));
    assert_eq!(message.params().unwrap().get(), "{}");
}

#[test]
fn null_params_count_as_absent() {
    let message = parse(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#).unwrap();
    assert!(message.params().is_none());
}

#[test]
fn an_error_may_lack_its_id() {
    let message = parse(r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"no session"}}"#).unwrap();
    assert!(matches!(message, Message::Error { id: None, .. }));
}

#[test]
fn batches_are_refused_by_name() {
    for batch in ["[]", r#" [{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, "["] {
        assert_eq!(parse(batch).unwrap_err(), ParseError::Batch);
    }
    assert_eq!(ParseError::Batch.code(), codes::INVALID_REQUEST);
}

#[test]
fn nesting_bombs_are_refused_before_decoding() {
    let bomb = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{}"#, "[".repeat(1_000_000));
    let error = parse(&bomb).unwrap_err();
    assert_eq!(error, JsonError::TooDeep { max: json::DEPTH_MAX }.into());
    assert_eq!(error.code(), codes::INVALID_REQUEST);
    let quoted = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "[".repeat(100_000));
    assert!(parse(&quoted).is_ok());
}

#[test]
fn size_is_checked_first() {
    let limits = Limits { bytes_max: 10, depth_max: 4 };
    let error = Message::parse(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", limits).unwrap_err();
    assert_eq!(error, JsonError::TooLarge { size: 11, max: 10 }.into());
    assert_eq!(error.code(), codes::TOO_LARGE);
}

#[test]
fn invalid_utf8_is_refused_wherever_it_is() {
    let error = Message::parse(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"\xff\"}", Limits::default());
    assert_eq!(error.unwrap_err(), JsonError::NotUtf8 { valid_up_to: 34 }.into());
}

#[test]
fn syntax_errors_are_parse_errors() {
    for garbage in [
        "",
        "  ",
        "hello",
        "{",
        "{}x",
        r#"{"jsonrpc":"2.0","id":1,"result":{}}}"#,
        r#"{"a":01}"#,
        "\u{feff}{}",
    ] {
        assert_eq!(parse(garbage).unwrap_err().code(), codes::PARSE_ERROR, "{garbage:?}");
    }
}

#[test]
fn duplicate_members_are_refused() {
    for twice in [
        r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","\u006dethod":"b"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{}}"#,
    ] {
        assert!(matches!(parse(twice), Err(ParseError::Json(JsonError::Syntax(_)))), "{twice}");
    }
}

#[test]
fn impossible_envelopes_are_refused() {
    for (line, fault) in [
        ("1", "expected an object"),
        ("{}", "\"jsonrpc\" must be"),
        (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, "\"jsonrpc\" must be"),
        (r#"{"jsonrpc":"2.0","id":1}"#, "neither"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","result":{}}"#, "more than one"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, "more than one"),
        (r#"{"jsonrpc":"2.0","result":{}}"#, "needs an id"),
    ] {
        assert!(envelope_fault(line).contains(fault), "{line}");
    }
}

#[test]
fn ids_are_strings_or_64_bit_integers() {
    for id in ["1.5", "1e3", "9223372036854775808", "null", "{}", "[]", "true"] {
        let fault = envelope_fault(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#));
        assert!(fault.contains("an id is"), "{id}");
    }
    assert_ne!(Id::Number(1), Id::String("1".into()));
    assert_eq!(Id::from_raw(&Id::String("é\n".into()).to_raw()), Some(Id::String("é\n".into())));
    assert_eq!(serde_json::from_str::<Id>("-3").unwrap(), Id::Number(-3));
    assert!(serde_json::from_str::<Id>("1.5").is_err());
}

#[test]
fn lines_hold_no_line_breaks() {
    let params = RawValue::from_string("{\r\n  \"a\": \"x\\ny\"\n}".into()).unwrap();
    let mut line = b"before\n".to_vec();
    Message::notification("m", Some(params)).write_line(&mut line);
    let expected = "before\n{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":{    \"a\": \"x\\ny\" }}\n";
    assert_eq!(String::from_utf8(line).unwrap(), expected);
}

#[test]
fn errors_are_read_leniently_and_written_strictly() {
    let raw = |text: &str| RawValue::from_string(text.into()).unwrap();
    let error = RpcError::from_raw(&raw(r#"{"code":-32001,"message":"no","data":{"reasons":[]},"x":1}"#));
    assert_eq!(error.to_raw().get(), r#"{"code":-32001,"message":"no","data":{"reasons":[]}}"#);
    let odd = RpcError::from_raw(&raw(r#""just text""#));
    assert_eq!((odd.code, odd.message.as_str()), (codes::INTERNAL_ERROR, ""));
    assert_eq!(RpcError::new(1, "m").to_raw().get(), r#"{"code":1,"message":"m"}"#);
}

#[test]
fn a_request_in_parts_is_written_like_a_whole_one() {
    let params = RawValue::from_string(r#"{"a":1,"b":[2]}"#.into()).unwrap();
    let mut parts = Vec::new();
    write_request(&mut parts, &Id::Number(5), "m", &RawObject::parse(&params).unwrap());
    assert_eq!(parts, Message::request(5, "m", Some(params)).to_vec());
    let mut bare = Vec::new();
    write_request(&mut bare, &Id::Number(5), "m", &RawObject::new());
    assert_eq!(bare, Message::request(5, "m", None).to_vec());
}
