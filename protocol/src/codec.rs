//! The two codecs. Both write the same structs, and a frame's first byte tells which one wrote it.

use std::cell::RefCell;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{ClientFrame, ErrorCode};

/// How deep a frame's data may nest: deeper than any message that people write, and far from the stack's end.
pub const MAX_DEPTH: usize = 64;

/// Levels of a frame around its data.
const FRAME_DEPTH: usize = 6;

/// What a thread keeps for the next frame that it writes; a larger one's room is given back.
const SCRATCH_KEPT: usize = 16 * 1024;

thread_local! {
    /// Where a frame grows, so that its bytes are allocated once and no larger than they are.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How frames become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    Json,
    MessagePack,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct DecodeError {
    pub code: ErrorCode,
    /// What is wrong and where, for a person.
    pub message: String,
    /// The command's `id`, if the frame was whole enough to have one.
    pub id: Option<u32>,
}

impl Codec {
    /// The codec of a frame: a map is `{` in JSON, and 0x80 or more in MessagePack.
    #[must_use]
    pub fn detect(frame: &[u8]) -> Self {
        match frame.first() {
            Some(0x80..) => Self::MessagePack,
            _ => Self::Json,
        }
    }

    /// The WebSocket and WebTransport subprotocol.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => crate::SUBPROTOCOL_JSON,
            Self::MessagePack => crate::SUBPROTOCOL_MSGPACK,
        }
    }

    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        [Self::Json, Self::MessagePack].into_iter().find(|codec| codec.subprotocol() == name)
    }

    /// A frame's bytes.
    #[must_use]
    pub fn encode(self, frame: &impl Serialize) -> Bytes {
        SCRATCH.with_borrow_mut(|scratch| {
            let written = match self {
                Self::Json => serde_json::to_writer(&mut *scratch, frame).map_err(|error| error.to_string()),
                Self::MessagePack => {
                    let mut serializer = rmp_serde::Serializer::new(&mut *scratch).with_struct_map();
                    frame.serialize(&mut serializer).map_err(|error| error.to_string())
                }
            };
            // Our own types have string keys only, and their data was checked when it came in.
            #[allow(clippy::expect_used)]
            written.expect("a frame of our own types can be written");
            let bytes = Bytes::copy_from_slice(scratch);
            scratch.clear();
            scratch.shrink_to(SCRATCH_KEPT);
            bytes
        })
    }

    /// A client's frame: the server's door.
    pub fn decode_command(self, frame: &[u8]) -> Result<ClientFrame, DecodeError> {
        self.decode(frame).map_err(|message| self.explain(frame, message))
    }

    /// Any frame. The error is for a person.
    pub fn decode<T: DeserializeOwned>(self, frame: &[u8]) -> Result<T, String> {
        match self {
            Self::Json => serde_json::from_slice(frame).map_err(|error| error.to_string()),
            Self::MessagePack => {
                let mut rest = frame;
                let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
                deserializer.set_max_depth(MAX_DEPTH + FRAME_DEPTH);
                let value = T::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
                if rest.is_empty() {
                    Ok(value)
                } else {
                    Err(format!("{} bytes follow the frame", rest.len()))
                }
            }
        }
    }

    /// The slow path, for bad frames only: finds which of the ways to be bad it is, and the id to answer to.
    fn explain(self, frame: &[u8], message: String) -> DecodeError {
        let (id, whole) = match self {
            Self::Json => json_id(frame),
            Self::MessagePack => msgpack_id(frame),
        };
        let code = if message.contains("nested deeper")
            || message.contains("depth limit")
            || message.contains("recursion limit")
        {
            ErrorCode::TooDeep
        } else if message.contains("unknown variant") {
            ErrorCode::UnknownCommand
        } else if message.contains("; expected ") {
            ErrorCode::InvalidName
        } else if whole {
            ErrorCode::InvalidField
        } else {
            ErrorCode::Malformed
        };
        DecodeError { code, message, id }
    }
}

type Outer<T> = std::collections::BTreeMap<String, T>;

#[derive(serde::Deserialize)]
struct WithId {
    id: u32,
}

fn json_id(frame: &[u8]) -> (Option<u32>, bool) {
    let id = serde_json::from_slice::<Outer<WithId>>(frame).ok().and_then(|outer| outer.into_values().next());
    (id.map(|x| x.id), serde_json::from_slice::<&RawValue>(frame).is_ok())
}

fn msgpack_id(frame: &[u8]) -> (Option<u32>, bool) {
    let decode = |frame| Codec::MessagePack.decode::<Outer<WithId>>(frame);
    let id = decode(frame).ok().and_then(|outer| outer.into_values().next());
    (id.map(|x| x.id), Codec::MessagePack.decode::<serde::de::IgnoredAny>(frame).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Binary, Json, Publish};

    const CODECS: [Codec; 2] = [Codec::Json, Codec::MessagePack];

    fn publish(data: Option<Json>, binary: Option<Binary>) -> ClientFrame {
        ClientFrame::Publish(Publish {
            id: 7,
            channel: "room:lobby".parse().unwrap(),
            message_id: Some("m1".parse().unwrap()),
            event: crate::EventName::default(),
            data,
            binary,
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        })
    }

    #[test]
    fn a_frame_reads_back_in_both_codecs() {
        let json = Json::parse(r#"{"text":"hi","n":[1,-2,0.5,null,true]}"#).unwrap();
        let null = Json::parse("null").unwrap();
        let binary = Binary(Bytes::from_static(&[0, 255, 1]));
        for codec in CODECS {
            for frame in [
                publish(Some(json.clone()), None),
                publish(Some(null.clone()), None),
                publish(None, Some(binary.clone())),
            ] {
                let bytes = codec.encode(&frame);
                assert_eq!(Codec::detect(&bytes), codec);
                assert_eq!(codec.decode_command(&bytes), Ok(frame));
            }
        }
    }

    #[test]
    fn every_bad_frame_gets_its_own_code_and_id() {
        let deep = format!(
            r#"{{"publish":{{"id":7,"channel":"room:a","data":{}{}}}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        for (frame, code, id) in [
            ("{", ErrorCode::Malformed, None),
            ("hello", ErrorCode::Malformed, None),
            ("[]", ErrorCode::InvalidField, None),
            (r#"{"fly":{"id":7}}"#, ErrorCode::UnknownCommand, Some(7)),
            (r#"{"ping":{"id":"7"}}"#, ErrorCode::InvalidField, None),
            (r#"{"subscribe":{"id":7}}"#, ErrorCode::InvalidField, Some(7)),
            (r#"{"subscribe":{"id":7,"channel":"room:a","x":1}}"#, ErrorCode::InvalidField, Some(7)),
            (r#"{"subscribe":{"id":7,"channel":"../a"}}"#, ErrorCode::InvalidName, Some(7)),
            (r#"{"publish":{"id":7,"channel":"room:a","data":"\ud800"}}"#, ErrorCode::InvalidField, Some(7)),
            (&deep, ErrorCode::TooDeep, Some(7)),
        ] {
            let error = Codec::Json.decode_command(frame.as_bytes()).unwrap_err();
            assert_eq!((error.code, error.id), (code, id), "{}: {error}", &frame[..frame.len().min(60)]);
        }
    }

    #[test]
    fn a_bad_messagepack_frame_is_told_from_a_truncated_one() {
        let frame = publish(None, Some(Binary(Bytes::from_static(b"x"))));
        let bytes = Codec::MessagePack.encode(&frame);
        let truncated = Codec::MessagePack.decode_command(&bytes[..bytes.len() - 1]).unwrap_err();
        assert_eq!(truncated.code, ErrorCode::Malformed);
        let unknown = rmp_serde::to_vec_named(&serde_json::json!({"fly": {"id": 7}})).unwrap();
        let unknown = Codec::MessagePack.decode_command(&unknown).unwrap_err();
        assert_eq!((unknown.code, unknown.id), (ErrorCode::UnknownCommand, Some(7)));
        for levels in [MAX_DEPTH + 1, MAX_DEPTH + 2, MAX_DEPTH + FRAME_DEPTH, 100_000] {
            let mut deep = vec![0x91; levels];
            deep.push(0xc0);
            let deep = [&b"\x81\xa7publish\x83\xa2id\x07\xa7channel\xa6room:a\xa4data"[..], &deep].concat();
            let refused = Codec::MessagePack.decode_command(&deep).unwrap_err();
            assert_eq!(refused.code, ErrorCode::TooDeep, "{levels}: {refused}");
        }
    }
}
