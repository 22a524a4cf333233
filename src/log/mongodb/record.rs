//! What stands in the database: a publication as a document, and the keys by which it is found.
//!
//! Typed BSON both ways: a number is written as a 64-bit one and read as nothing else, and what doesn't fit is damage,
//! never a guess.

use std::{fmt::Display, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use mongodb::bson::{
    DateTime, Document, RawBinaryRef, RawDocument, RawDocumentBuf, doc, oid::ObjectId, raw::cstr,
    spec::BinarySubtype,
};
use ring::digest::{SHA256, digest};
use xpush_protocol::{AppId, Binary, ChannelName, Json, Payload, UserId};

use super::super::LogError;
use crate::publication::{Draft, Publication, Publisher};

/// Between an app's id and a channel's name: neither has this byte.
const END_OF_APP: u8 = 0;

/// The documents of a channel.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// Of app and channel: the shard key. MongoDB hashes one by itself, but a hashed index can't be unique.
    hash: i64,
    app: AppId,
    pub(super) channel: ChannelName,
}

impl Key {
    pub(super) fn new(channel: &ChannelName) -> Self {
        let app = channel.app();
        let mut name = Vec::with_capacity(app.as_str().len() + channel.local().len() + 1);
        name.extend_from_slice(app.as_str().as_bytes());
        name.push(END_OF_APP);
        name.extend_from_slice(channel.local().as_bytes());
        let digest = digest(&SHA256, &name);
        let hash = digest.as_ref().first_chunk().copied().map_or(0, i64::from_be_bytes);
        Self { hash, app, channel: channel.clone() }
    }

    pub(super) fn hash(&self) -> i64 {
        self.hash
    }

    /// All of them.
    pub(super) fn all(&self) -> Document {
        doc! { "h": self.hash, "app": self.app.as_str(), "channel": self.channel.local() }
    }

    /// Those from one offset to another, both of them included.
    pub(super) fn range(&self, from: u64, to: u64) -> Document {
        let mut filter = self.all();
        filter.insert("offset", doc! { "$gte": to_number(from), "$lte": to_number(to) });
        filter
    }

    /// The one that has the id of this draft, if any has.
    pub(super) fn message(&self, draft: &Draft) -> Document {
        let mut filter = self.all();
        filter.insert("publisher", draft.publisher.as_str());
        filter.insert("message_id", draft.message_id.as_str());
        filter
    }

    /// Those that have these ids of a publisher.
    pub(super) fn messages(&self, publisher: &Publisher, ids: Vec<&str>) -> Document {
        let mut filter = self.all();
        filter.insert("publisher", publisher.as_str());
        filter.insert("message_id", doc! { "$in": ids });
        filter
    }

    pub(super) fn encode(&self, draft: &Draft, place: Place, keep: Option<Duration>) -> RawDocumentBuf {
        let mut document = RawDocumentBuf::new();
        document.append(cstr!("_id"), place.id);
        document.append(cstr!("h"), self.hash);
        document.append(cstr!("app"), self.app.as_str());
        document.append(cstr!("channel"), self.channel.local());
        document.append(cstr!("offset"), to_number(place.offset));
        document.append(cstr!("publisher"), draft.publisher.as_str());
        document.append(cstr!("message_id"), draft.message_id.as_str());
        document.append(cstr!("event"), draft.event.as_str());
        if let Some(user) = &draft.user {
            document.append(cstr!("user"), user.local());
        }
        document.append(cstr!("time"), to_number(draft.time));
        if let Some(offset) = draft.reply_to {
            document.append(cstr!("reply_to"), to_number(offset));
        }
        match &draft.payload {
            Payload::Json(json) => document.append(cstr!("data"), json.as_str()),
            Payload::Binary(Binary(bytes)) => {
                document.append(cstr!("binary"), RawBinaryRef { subtype: BinarySubtype::Generic, bytes });
            }
        }
        if let Some(age) = keep {
            let expire = draft.time.saturating_add(millis(age));
            document.append(cstr!("expire"), DateTime::from_millis(to_number(expire)));
        }
        document
    }
}

/// One document, for as long as it is there: an offset may be written anew when it was trimmed, an id never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) id: ObjectId,
}

impl Place {
    pub(super) fn new(offset: u64) -> Self {
        Self { offset, id: ObjectId::new() }
    }
}

/// The order of a channel's publications, and its guard: no offset is taken twice.
pub(super) fn by_offset() -> Document {
    doc! { "h": 1, "app": 1, "channel": 1, "offset": 1 }
}

/// What MongoDB calls that index, in its errors too.
pub(super) const BY_OFFSET: &str = "h_1_app_1_channel_1_offset_1";

/// No message stands twice.
pub(super) fn by_message() -> Document {
    doc! { "h": 1, "app": 1, "channel": 1, "publisher": 1, "message_id": 1 }
}

/// What is too old, however many channels there are. Only what expires is in it.
pub(super) fn by_expire() -> Document {
    doc! { "expire": 1 }
}

/// Newest first. All of its fields run backward, so that the index of `by_offset` gives it.
pub(super) fn newest_first() -> Document {
    doc! { "h": -1, "app": -1, "channel": -1, "offset": -1 }
}

/// The user is one of the channel's app.
pub(super) fn decode(app: &AppId, document: &RawDocument) -> Result<Arc<Publication>, LogError> {
    let offset = offset(document)?;
    let user = match document.get("user").map_err(damaged)? {
        Some(_) => Some(name::<UserId>(document, "user")?.within(app)),
        None => None,
    };
    let reply_to = match document.get("reply_to").map_err(damaged)? {
        Some(_) => Some(number(document, "reply_to")?),
        None => None,
    };
    let payload = if document.get("data").map_err(damaged)?.is_some() {
        Payload::Json(Json::parse(document.get_str("data").map_err(damaged)?).map_err(damaged)?)
    } else {
        let binary = document.get_binary("binary").map_err(damaged)?;
        Payload::Binary(Binary(Bytes::copy_from_slice(binary.bytes)))
    };
    Ok(Arc::new(Publication {
        offset,
        message_id: name(document, "message_id")?,
        event: name(document, "event")?,
        payload,
        user,
        time: time(document)?,
        reply_to,
    }))
}

pub(super) fn offset(document: &RawDocument) -> Result<u64, LogError> {
    number(document, "offset")
}

pub(super) fn place(document: &RawDocument, id: &str) -> Result<Place, LogError> {
    Ok(Place { offset: offset(document)?, id: document.get_object_id(id).map_err(damaged)? })
}

pub(super) fn time(document: &RawDocument) -> Result<u64, LogError> {
    number(document, "time")
}

/// The app is in another field than its name.
pub(super) fn channel(document: &RawDocument) -> Result<ChannelName, LogError> {
    Ok(name::<ChannelName>(document, "channel")?.within(&name(document, "app")?))
}

/// The publisher and the message's id.
pub(super) fn message(document: &RawDocument) -> Result<(&str, &str), LogError> {
    let text = |field| document.get_str(field).map_err(damaged);
    Ok((text("publisher")?, text("message_id")?))
}

/// MongoDB has no unsigned numbers. Offsets and times count up from 0 and stay far below this bound.
pub(super) fn to_number(number: u64) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

pub(super) fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

fn number(document: &RawDocument, field: &str) -> Result<u64, LogError> {
    let number = document.get_i64(field).map_err(damaged)?;
    number.try_into().map_err(|_| damaged(format_args!("its `{field}` is {number}")))
}

fn name<T: FromStr<Err: Display>>(document: &RawDocument, field: &str) -> Result<T, LogError> {
    let text = document.get_str(field).map_err(damaged)?;
    text.parse().map_err(|error| damaged(format_args!("its `{field}`: {error}")))
}

fn damaged(why: impl Display) -> LogError {
    LogError::Damaged { reason: format!("a publication can't be read: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fixture::{self, channel, draft};

    fn drafts() -> [Draft; 4] {
        let json = Draft { user: Some("ann".parse().unwrap()), ..draft("ann", 7) };
        let bytes = Payload::Binary(Binary(Bytes::from_static(&[0, 255, 1])));
        let empty = Payload::Binary(Binary(Bytes::new()));
        [
            Draft { payload: bytes, ..json.clone() },
            Draft { payload: empty, ..draft("bob", 8) },
            Draft { reply_to: Some(6), ..json.clone() },
            json,
        ]
    }

    #[test]
    fn a_publication_reads_back() {
        let key = Key::new(&channel("room:a"));
        for draft in drafts() {
            let document = key.encode(&draft, Place::new(5), None);
            assert_eq!(*decode(&AppId::default(), &document).unwrap(), draft.clone().into_publication(5));
            assert_eq!(message(&document).unwrap(), (draft.publisher.as_str(), draft.message_id.as_str()));
        }
    }

    #[test]
    fn app_and_names_are_fields_of_their_own() {
        let (name, shop) = (channel("room:a"), "shop".parse().unwrap());
        let of_shop = name.within(&shop);
        let draft = Draft { user: Some("ann".parse::<UserId>().unwrap().within(&shop)), ..draft("ann", 7) };
        let document = Key::new(&of_shop).encode(&draft, Place::new(5), None);
        for (field, text) in [("app", "shop"), ("channel", "room:a"), ("user", "ann")] {
            assert_eq!(document.get_str(field).unwrap(), text);
        }
        assert_eq!(super::channel(&document).unwrap(), of_shop);
        assert_eq!(*decode(&shop, &document).unwrap(), draft.into_publication(5));
        let default = Key::new(&name).encode(&fixture::draft("ann", 1), Place::new(1), None);
        assert_eq!((default.get_str("app").unwrap(), super::channel(&default).unwrap()), ("default", name));
    }

    #[test]
    fn it_expires_when_it_is_as_old_as_its_namespace_keeps() {
        let key = Key::new(&channel("room:a"));
        let document = key.encode(&draft("ann", 1), Place::new(1), Some(Duration::from_secs(2)));
        assert_eq!(document.get_datetime("expire").unwrap().timestamp_millis(), 1_700_000_002_000);
        assert!(key.encode(&draft("ann", 1), Place::new(1), None).get("expire").unwrap().is_none());
    }

    #[test]
    fn the_hash_of_a_channel_never_changes() {
        let hash = |app: &str, name| Key::new(&channel(name).within(&app.parse().unwrap())).hash();
        // printf 'default\0room:a' | sha256sum
        assert_eq!(hash("default", "room:a"), -8_610_505_364_989_376_639);
        assert_ne!(hash("default", "room:a"), hash("other", "room:a"));
    }

    #[test]
    fn a_document_that_is_damaged_is_found() {
        let key = Key::new(&channel("room:a"));
        let document = Document::try_from(key.encode(&draft("ann", 1), Place::new(1), None)).unwrap();
        for field in ["offset", "message_id", "event", "time", "data"] {
            let mut without = document.clone();
            without.remove(field);
            let mut other = document.clone();
            other.insert(field, mongodb::bson::Bson::Double(1.0));
            for document in [without, other] {
                let document = RawDocumentBuf::try_from(&document).unwrap();
                assert!(
                    matches!(decode(&AppId::default(), &document), Err(LogError::Damaged { .. })),
                    "{field}"
                );
            }
        }
    }
}
