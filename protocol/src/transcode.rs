//! A JSON value as another format's, and back, without a tree of values in between.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

/// What most messages fit into.
const TEXT_CAPACITY: usize = 256;

/// Whether any format can have the value. JSON's grammar allows halves of characters, and numbers beyond all that there are.
pub(crate) fn check(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str(text).map(|Checked| ())
}

/// Writes the value that a checked JSON text is.
pub(crate) fn from_json<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_transcode::transcode(&mut serde_json::Deserializer::from_str(text), serializer)
}

/// The JSON text of a value. What JSON has no form for is an error: bytes, and keys that are no strings.
pub(crate) fn to_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut text = Vec::with_capacity(TEXT_CAPACITY);
    Value(&mut text).deserialize(deserializer)?;
    String::from_utf8(text).map_err(D::Error::custom)
}

/// A value that was read to its last character, and let go.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while elements.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// Takes a value, and writes its text.
struct Value<'a>(&'a mut Vec<u8>);

/// The same for what stands before a colon.
struct Key<'a>(&'a mut Vec<u8>);

impl Value<'_> {
    fn write<E: Error>(self, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
        serde_json::to_writer(self.0, value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.write(&())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.write(&value)
    }

    /// JSON has no infinities, and no NaN: they are `null`.
    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.write(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        self.0.push(b'[');
        let begin = self.0.len();
        // The comma is taken back behind the last one.
        while elements.next_element_seed(Value(self.0))?.is_some() {
            self.0.push(b',');
        }
        end(self.0, begin, b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.0.push(b'{');
        let begin = self.0.len();
        while entries.next_key_seed(Key(self.0))?.is_some() {
            self.0.push(b':');
            entries.next_value_seed(Value(self.0))?;
            self.0.push(b',');
        }
        end(self.0, begin, b'}');
        Ok(())
    }
}

fn end(text: &mut Vec<u8>, begin: usize, bracket: u8) {
    if text.len() > begin {
        text.pop();
    }
    text.push(bracket);
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        serde_json::to_writer(self.0, key).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn to_messagepack(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        from_json(text, &mut rmp_serde::Serializer::new(&mut bytes)).unwrap();
        bytes
    }

    fn to_text(bytes: &[u8]) -> Result<String, rmp_serde::decode::Error> {
        to_json(&mut rmp_serde::Deserializer::from_read_ref(bytes))
    }

    #[test]
    fn a_value_goes_there_and_back() {
        for value in [
            json!(null),
            json!([]),
            json!({}),
            json!([[], {}, [{}], null]),
            json!({"a": {"b": [1, -2, 0.5, true, false, "\"\n\u{1F600}"]}, "": []}),
            json!([u64::MAX, i64::MIN, 1.0e300, 0, -1]),
            json!("text"),
        ] {
            let text = value.to_string();
            assert_eq!(to_messagepack(&text), rmp_serde::to_vec(&value).unwrap(), "{text}");
            assert_eq!(to_text(&to_messagepack(&text)).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let bytes = rmp_serde::to_vec(&serde_bytes(b"x")).unwrap();
        assert!(to_text(&bytes).is_err());
        let keys = rmp_serde::to_vec(&std::collections::BTreeMap::from([(1, 2)])).unwrap();
        assert!(to_text(&keys).is_err());
        assert_eq!(to_text(&rmp_serde::to_vec(&f64::NAN).unwrap()).unwrap(), "null");
    }

    fn serde_bytes(bytes: &[u8]) -> crate::Binary {
        crate::Binary(bytes::Bytes::copy_from_slice(bytes))
    }
}
