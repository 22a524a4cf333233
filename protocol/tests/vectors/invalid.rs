//! What is no frame, and what it is answered with.

use xpush_protocol::*;

pub(super) fn frames() -> Vec<(String, Vec<u8>, ErrorCode)> {
    use ErrorCode::{InvalidField, InvalidName, Malformed, TooDeep, UnknownCommand};
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"publish":{{"id":7,"channel":"room:a","data":{open}{close}}}}}"#)
    };
    let long = format!(r#"{{"presence":{{"id":7,"channel":"room:{}"}}}}"#, "x".repeat(251));
    let text = [
        ("empty", "", Malformed),
        ("no JSON", "hello", Malformed),
        ("cut short", r#"{"ping":{"id":7"#, Malformed),
        ("followed by another", r#"{"ping":{"id":7}}{"ping":{"id":8}}"#, Malformed),
        ("a list", "[]", InvalidField),
        ("no command", "{}", InvalidField),
        ("two commands", r#"{"ping":{"id":7},"presence":{"id":8,"channel":"room:a"}}"#, InvalidField),
        ("an unknown command", r#"{"fly":{"id":7}}"#, UnknownCommand),
        ("a server's frame", r#"{"pong":{"id":7}}"#, UnknownCommand),
        ("no id", r#"{"ping":{}}"#, InvalidField),
        ("an id of another type", r#"{"ping":{"id":"7"}}"#, InvalidField),
        ("a negative id", r#"{"ping":{"id":-1}}"#, InvalidField),
        ("an id beyond 32 bits", r#"{"ping":{"id":4294967296}}"#, InvalidField),
        ("an id with a fraction", r#"{"ping":{"id":1.5}}"#, InvalidField),
        ("an id twice", r#"{"ping":{"id":7,"id":8}}"#, InvalidField),
        ("an unknown field", r#"{"ping":{"id":7,"x":1}}"#, InvalidField),
        ("a missing field", r#"{"subscribe":{"id":7}}"#, InvalidField),
        (
            "a cursor with an unknown field",
            r#"{"subscribe":{"id":7,"channel":"room:a","cursor":{"epoch":1,"offset":1,"x":1}}}"#,
            InvalidField,
        ),
        (
            "a cursor without an epoch",
            r#"{"subscribe":{"id":7,"channel":"room:a","cursor":{"offset":1}}}"#,
            InvalidField,
        ),
        ("no data", r#"{"publish":{"id":7,"channel":"room:a"}}"#, InvalidField),
        (
            "both kinds of data",
            r#"{"publish":{"id":7,"channel":"room:a","data":1,"binary":"AA=="}}"#,
            InvalidField,
        ),
        ("base64 without padding", r#"{"publish":{"id":7,"channel":"room:a","binary":"AA"}}"#, InvalidField),
        ("base64url", r#"{"publish":{"id":7,"channel":"room:a","binary":"_-8="}}"#, InvalidField),
        (
            "two receivers",
            r#"{"send":{"id":7,"to":{"user":"a","session":"jR3oB9nV5mJq0aZ7yXc1Ew"},"data":1}}"#,
            InvalidField,
        ),
        ("a channel without a namespace", r#"{"presence":{"id":7,"channel":"lobby"}}"#, InvalidName),
        ("a channel that climbs", r#"{"presence":{"id":7,"channel":"room:../etc"}}"#, InvalidName),
        ("a channel with NUL", r#"{"presence":{"id":7,"channel":"room:a\u0000"}}"#, InvalidName),
        ("a channel with CRLF", r#"{"presence":{"id":7,"channel":"room:a\r\nb"}}"#, InvalidName),
        ("a channel with an umlaut", r#"{"presence":{"id":7,"channel":"room:ä"}}"#, InvalidName),
        ("a namespace in upper case", r#"{"presence":{"id":7,"channel":"Room:a"}}"#, InvalidName),
        ("a channel that is too long", &long, InvalidName),
        (
            "an event with a space",
            r#"{"publish":{"id":7,"channel":"room:a","event":"a b","data":1}}"#,
            InvalidName,
        ),
        (
            "an empty message id",
            r#"{"publish":{"id":7,"channel":"room:a","message_id":"","data":1}}"#,
            InvalidName,
        ),
        ("a session that is none", r#"{"send":{"id":7,"to":{"session":"short"},"data":1}}"#, InvalidName),
        ("data one level too deep", &nested(MAX_DEPTH + 1), TooDeep),
        ("data much too deep", &nested(200), TooDeep),
    ];
    let text = text.map(|(name, frame, code)| (name.to_owned(), frame.as_bytes().to_vec(), code));
    let pack = |value: serde_json::Value| Codec::MessagePack.encode(&value).to_vec();
    let ping = pack(serde_json::json!({"ping": {"id": 7}}));
    let deep =
        [&b"\x81\xa7publish\x83\xa2id\x07\xa7channel\xa6room:a\xa4data"[..], &[0x91; 200], &[0xc0]].concat();
    let bytes = [
        ("cut short", ping[..ping.len() - 1].to_vec(), Malformed),
        ("followed by another", [&ping[..], &ping].concat(), Malformed),
        ("a byte that MessagePack never uses", vec![0xc1], Malformed),
        ("an unknown command", pack(serde_json::json!({"fly": {"id": 7}})), UnknownCommand),
        ("an id of another type", pack(serde_json::json!({"ping": {"id": "7"}})), InvalidField),
        ("an unknown field", pack(serde_json::json!({"ping": {"id": 7, "x": 1}})), InvalidField),
        (
            "data with bytes in it",
            b"\x81\xa7publish\x83\xa2id\x07\xa7channel\xa6room:a\xa4data\xc4\x01\x00".to_vec(),
            InvalidField,
        ),
        (
            "a channel that climbs",
            pack(serde_json::json!({"presence": {"id": 7, "channel": "room:../a"}})),
            InvalidName,
        ),
        ("data much too deep", deep, TooDeep),
    ];
    let bytes = bytes.map(|(name, frame, code)| (format!("MessagePack: {name}"), frame, code));
    text.into_iter().chain(bytes).collect()
}
