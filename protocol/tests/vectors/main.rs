//! `vectors/` holds frames of every kind in both codecs, for whoever writes a client. They are made here, and tested
//! here: `XPUSH_BLESS=1 cargo test -p xpush-protocol --test vectors` writes them anew.

// Not in a `#[test]` itself, but nothing else calls it.
#![allow(clippy::unwrap_used)]

mod client;
mod invalid;
mod server;

use std::{collections::BTreeSet, env, fmt::Debug, fs, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use xpush_protocol::*;

#[test]
fn client_vectors_hold_in_both_codecs() {
    let frames = client::frames();
    let kinds: BTreeSet<usize> = frames.iter().map(|(_, frame)| client::kind(frame)).collect();
    assert_eq!(kinds, (0..13).collect(), "a kind of frame has no vector");
    check("client.json", &frames);
}

#[test]
fn server_vectors_hold_in_both_codecs() {
    let frames = server::frames();
    let kinds: BTreeSet<usize> = frames.iter().map(|(_, frame)| server::kind(frame)).collect();
    assert_eq!(kinds, (0..23).collect(), "a kind of frame has no vector");
    check("server.json", &frames);
}

#[test]
fn every_invalid_vector_gets_its_code() {
    let mut lines = Vec::new();
    for (name, frame, code) in invalid::frames() {
        assert_eq!(refusal(&frame), Some(code), "{name}");
        let (field, text) = match String::from_utf8(frame) {
            Ok(text) => ("json", text),
            Err(bytes) => ("hex", hex(bytes.as_bytes())),
        };
        lines.push(format!(r#"{{"name":{},"{field}":{},"code":{}}}"#, json(&name), json(&text), json(&code)));
    }
    compare("invalid.json", &lines);
}

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(file: &str, frames: &[(&str, T)]) {
    let mut lines = Vec::new();
    for (name, frame) in frames {
        for codec in [Codec::Json, Codec::MessagePack] {
            let bytes = codec.encode(frame);
            assert_eq!(Codec::detect(&bytes), codec, "{name}");
            assert_eq!(codec.decode::<T>(&bytes).as_ref(), Ok(frame), "{name}");
        }
        let bytes = hex(&Codec::MessagePack.encode(frame));
        lines.push(format!(r#"{{"name":{},"json":{},"msgpack":"{bytes}"}}"#, json(name), json(frame)));
    }
    compare(file, &lines);
}

/// One vector a line, so that a change can be read in a diff.
fn compare(file: &str, lines: &[String]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
    if env::var_os("XPUSH_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "{file} is not what this test makes; run it with XPUSH_BLESS=1 and look at the diff"
    );
}

/// What a server answers to these bytes. A message with both kinds of data, or none, is readable and still wrong.
fn refusal(frame: &[u8]) -> Option<ErrorCode> {
    let payload = match Codec::detect(frame).decode_command(frame) {
        Err(error) => return Some(error.code),
        Ok(ClientFrame::Publish(Publish { data, binary, .. })) => Payload::from_fields(data, binary),
        Ok(ClientFrame::Send(Send { data, binary, .. })) => Payload::from_fields(data, binary),
        Ok(_) => return None,
    };
    payload.err().map(|_| ErrorCode::InvalidField)
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lobby() -> ChannelName {
    "room:lobby".parse().unwrap()
}

fn session() -> SessionId {
    "jR3oB9nV5mJq0aZ7yXc1Ew".parse().unwrap()
}

fn user(name: &str) -> Option<UserId> {
    Some(name.parse().unwrap())
}

fn event(name: &str) -> EventName {
    name.parse().unwrap()
}

fn cursor(offset: u64) -> Cursor {
    Cursor { epoch: Epoch(1_530_822_917), offset }
}

fn data(text: &str) -> Option<Json> {
    Some(Json::parse(text).unwrap())
}

fn binary(bytes: &'static [u8]) -> Option<Binary> {
    Some(Binary(bytes::Bytes::from_static(bytes)))
}
