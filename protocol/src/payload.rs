//! A message's data: a JSON value or bytes, each as itself in both codecs.
//!
//! A JSON value is kept as the text it came as, so that what a publisher wrote is what a subscriber reads, and
//! the JSON codec never parses it twice. MessagePack turns it into its own maps and arrays, value by value: no tree of
//! them is built on the way.

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::{RawValue, to_raw_value};
use thiserror::Error;

use crate::{codec::MAX_DEPTH, transcode};

/// What a message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Json(Json),
    Binary(Binary),
}

/// Why a pair of wire fields is no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PayloadError {
    #[error("a message has `data` or `binary`, not both")]
    Both,
    #[error("a message needs `data` (JSON) or `binary`")]
    Neither,
}

impl Payload {
    /// The door: a frame's two fields become one payload.
    pub fn from_fields(data: Option<Json>, binary: Option<Binary>) -> Result<Self, PayloadError> {
        match (data, binary) {
            (Some(data), None) => Ok(Self::Json(data)),
            (None, Some(binary)) => Ok(Self::Binary(binary)),
            (Some(_), Some(_)) => Err(PayloadError::Both),
            (None, None) => Err(PayloadError::Neither),
        }
    }

    #[must_use]
    pub fn into_fields(self) -> (Option<Json>, Option<Binary>) {
        match self {
            Self::Json(data) => (Some(data), None),
            Self::Binary(binary) => (None, Some(binary)),
        }
    }

    /// The size that limits and retention count, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(json) => json.as_str().len(),
            Self::Binary(binary) => binary.0.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A JSON value, as the text it came as.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl Json {
    /// Takes a value's text if it is one JSON value, not nested deeper than `MAX_DEPTH`.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The text of any value that serialises to JSON.
    pub fn from_value(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        to_raw_value(value).map(|raw| Self(raw.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// For a field that is there: `"data": null` is data, the JSON value `null`, and not an absent field.
    pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        Self::deserialize(deserializer).map(Some)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.0.serialize(serializer)
        } else {
            transcode::from_json(self.as_str(), serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let raw = Box::<RawValue>::deserialize(deserializer)?;
            refuse_too_deep(raw.get())?;
            transcode::check(raw.get()).map_err(de::Error::custom)?;
            Ok(Self(raw.into()))
        } else {
            let text = transcode::to_json(deserializer)?;
            refuse_too_deep(&text)?;
            Ok(Self(RawValue::from_string(text).map_err(de::Error::custom)?.into()))
        }
    }
}

fn refuse_too_deep<E: de::Error>(json: &str) -> Result<(), E> {
    if depth(json) > MAX_DEPTH {
        return Err(E::custom(format_args!("the data is nested deeper than {MAX_DEPTH}")));
    }
    Ok(())
}

/// How deep the arrays and objects of a valid JSON text nest.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    deepest
}

/// Bytes: MessagePack's `bin`, base64 (RFC 4648, section 4) in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Binary(pub Bytes);

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&base64::display::Base64Display::new(&self.0, &STANDARD))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Binary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64 in JSON, bin in MessagePack")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Binary, E> {
                let bytes =
                    STANDARD.decode(text).map_err(|error| E::custom(format_args!("not base64: {error}")))?;
                Ok(Binary(bytes.into()))
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Binary, E> {
                Ok(Binary(Bytes::copy_from_slice(bytes)))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Binary, E> {
                Ok(Binary(bytes.into()))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

#[cfg(feature = "typescript")]
mod typescript {
    macro_rules! written_as {
        ($type:ty, $ts:literal) => {
            impl ts_rs::TS for $type {
                type WithoutGenerics = Self;
                type OptionInnerType = Self;
                fn name(_: &ts_rs::Config) -> String {
                    $ts.into()
                }
                fn inline(_: &ts_rs::Config) -> String {
                    $ts.into()
                }
            }
        };
    }
    written_as!(super::Json, "unknown");
    written_as!(super::Binary, "string | Uint8Array");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_value_keeps_its_text() {
        let text = r#"{"b": 1.0, "a":[null,"]\"["]}"#;
        assert_eq!(Json::parse(text).unwrap().as_str(), text);
    }

    #[test]
    fn a_value_nested_too_deep_is_refused() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(Json::parse(&nested(MAX_DEPTH)).is_ok());
        assert!(Json::parse(&nested(MAX_DEPTH + 1)).is_err());
        assert!(Json::parse(&nested(100_000)).is_err());
        // The frame around it has levels of its own, which the data must not use.
        let packed = |n: usize| [vec![0x91; n - 1], vec![0x90]].concat();
        let read = |bytes: &[u8]| Json::deserialize(&mut rmp_serde::Deserializer::from_read_ref(bytes));
        assert_eq!(read(&packed(MAX_DEPTH)).unwrap().as_str(), nested(MAX_DEPTH));
        assert!((MAX_DEPTH + 1..MAX_DEPTH + 10).all(|depth| read(&packed(depth)).is_err()));
    }

    #[test]
    fn what_no_other_format_can_have_is_refused() {
        for text in [r#""\ud800""#, r#"["\udc00\ud800"]"#, r#"{"\ud83d": 1}"#, "1e999", "[-1e400]"] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
        for text in [r#""\ud83d\ude00""#, "1e308", "-0.0", "123456789012345678901234567890"] {
            let json = Json::parse(text).unwrap();
            assert_eq!(json.as_str(), text);
            assert!(rmp_serde::to_vec(&json).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_message_carries_one_of_the_two() {
        let (data, binary) = (Json::parse("1").unwrap(), Binary(Bytes::from_static(b"x")));
        assert_eq!(Payload::from_fields(None, None), Err(PayloadError::Neither));
        assert_eq!(Payload::from_fields(Some(data.clone()), Some(binary)), Err(PayloadError::Both));
        assert_eq!(Payload::from_fields(Some(data.clone()), None), Ok(Payload::Json(data)));
    }
}
