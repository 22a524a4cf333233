//! An entry as a document, and the filters that find it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::mongodb::bson::{Binary, Bson, DateTime, Document, doc, spec::BinarySubtype};
use bytes::Bytes;

use super::super::{Entry, Key, Scan, StoreError};

const KEY: &str = "_id";
const VERSION: &str = "v";
const VALUE: &str = "d";

/// Absent where it never does. MongoDB deletes what has expired, within a minute or so.
pub(super) const EXPIRES: &str = "e";

/// Counts how often a transaction expected the entry and left it as it was.
const GUARD: &str = "g";

/// Without the key, which is the filter's.
pub(super) fn encode(value: &[u8], expires: Option<SystemTime>) -> Document {
    let binary = Binary { subtype: BinarySubtype::Generic, bytes: value.to_vec() };
    let mut document = doc! { VERSION: new_version(), VALUE: binary };
    if let Some(expires) = expires {
        document.insert(EXPIRES, date(expires));
    }
    document
}

/// What stands where nothing is, so that another transaction meets it: an entry that had expired when it was written.
pub(super) fn absence() -> Document {
    encode(&[], Some(UNIX_EPOCH))
}

pub(super) fn guard() -> Document {
    doc! { "$inc": { GUARD: 1_i64 } }
}

pub(super) fn decode(mut document: Document) -> Result<(Key, Entry), StoreError> {
    let Some(Bson::String(key)) = document.remove(KEY) else {
        return Err(StoreError::Damaged("a document has no key".into()));
    };
    let key = Key::from_stored(&key);
    let damaged = |field: &str| StoreError::Damaged(format!("{key:?} has no valid `{field}`"));
    let version = document.get_i64(VERSION).ok().and_then(|version| u64::try_from(version).ok());
    let version = version.ok_or_else(|| damaged(VERSION))?;
    let Some(Bson::Binary(binary)) = document.remove(VALUE) else { return Err(damaged(VALUE)) };
    let expires = match document.remove(EXPIRES) {
        None => None,
        Some(Bson::DateTime(date)) => Some(time(date)),
        Some(_) => return Err(damaged(EXPIRES)),
    };
    Ok((key, Entry { value: Bytes::from(binary.bytes), version, expires }))
}

/// The index that every query walks. The server might take the one of the expiries else, where few have one.
pub(super) fn by_key() -> Document {
    doc! { KEY: 1 }
}

pub(super) fn at(key: &Key) -> Document {
    doc! { KEY: key.as_str() }
}

pub(super) fn among(keys: &[Key]) -> Document {
    let keys: Vec<&str> = keys.iter().map(Key::as_str).collect();
    doc! { KEY: { "$in": keys } }
}

/// At this version, and not expired.
pub(super) fn at_version(key: &Key, version: u64, now: SystemTime) -> Document {
    // None that is too large was ever given, nor a negative one.
    let version = i64::try_from(version).unwrap_or(-1);
    doc! { KEY: key.as_str(), VERSION: version, EXPIRES: live(now) }
}

/// Only one that has expired: as an upsert it makes the document where none is, and fails with a duplicate key where
/// one lives.
pub(super) fn expired(key: &Key, now: SystemTime) -> Document {
    doc! { KEY: key.as_str(), EXPIRES: { "$lte": date(now) } }
}

/// MongoDB compares strings by their bytes, as the other stores do.
pub(super) fn within(scan: &Scan, now: SystemTime) -> Document {
    let range = doc! { "$gte": scan.prefix.as_str(), "$lt": end(scan.prefix.as_str()) };
    let mut conditions = vec![doc! { KEY: range, EXPIRES: live(now) }];
    if let Some(after) = &scan.after {
        let behind = if scan.backward { "$lt" } else { "$gt" };
        conditions.push(doc! { KEY: { behind: after.as_str() } });
    }
    doc! { "$and": conditions }
}

/// The first text behind all that begin so.
fn end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The next one that is a character; bytewise they are in the order of their numbers.
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            break;
        }
    }
    end
}

fn live(now: SystemTime) -> Document {
    doc! { "$not": { "$lte": date(now) } }
}

/// Random, so that it is another one also after a deletion, whichever node writes.
fn new_version() -> i64 {
    let mut bytes = [0; 8];
    // As for the ids of sessions: without the system's random numbers nothing of a server is safe.
    #[allow(clippy::expect_used)]
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    i64::from_le_bytes(bytes) & i64::MAX
}

fn date(time: SystemTime) -> DateTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    DateTime::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn time(date: DateTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(date.timestamp_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back() {
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        for expires in [None, Some(at)] {
            let mut document = encode(b"{}", expires);
            let version = document.get_i64(VERSION).unwrap();
            document.insert(KEY, "user\u{1f}app\u{1f}ann");
            let (key, entry) = decode(document).unwrap();
            assert_eq!(key, Key::new(&["user", "app", "ann"]));
            let version = u64::try_from(version).unwrap();
            assert_eq!(entry, Entry { value: "{}".into(), version, expires });
        }
    }

    #[test]
    fn a_document_that_is_damaged_is_found() {
        let mut document = encode(b"{}", Some(SystemTime::now()));
        assert!(matches!(decode(document.clone()), Err(StoreError::Damaged(_))));
        document.insert(KEY, "user");
        for field in [VERSION, VALUE, EXPIRES] {
            let mut other = document.clone();
            other.insert(field, "x");
            assert!(matches!(decode(other), Err(StoreError::Damaged(_))), "{field}");
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_that_begin_so() {
        for (prefix, next) in [
            ("a", "b"),
            ("user\u{1f}", "user "),
            ("a\u{d7ff}", "a\u{e000}"),
            ("a\u{10ffff}", "b"),
            ("aÿ", "aĀ"),
        ] {
            assert_eq!(end(prefix), next);
            assert!(end(prefix).as_bytes() > format!("{prefix}\u{10ffff}\u{10ffff}").as_bytes());
        }
    }
}
