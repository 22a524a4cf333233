//! What stands in the database: an entry as bytes, and the keys by which expired ones are found.
//!
//! The first byte of an entry is its format. A change to this layout takes a new one that is read beside the old.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::super::{Entry, Key, StoreError};

const FORMAT: u8 = 1;

/// The format, the version, and when it expires: 0 is never.
const HEAD: usize = 1 + 8 + 8;

pub(super) fn encode(value: &[u8], version: u64, expires: Option<SystemTime>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + value.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&expires.map_or(0, millis).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes
}

pub(super) fn decode(key: &Key, bytes: &[u8]) -> Result<Entry, StoreError> {
    let parsed = bytes.split_at_checked(HEAD).and_then(|(head, value)| {
        let (version, expires) = head.strip_prefix(&[FORMAT])?.split_first_chunk::<8>()?;
        let expires = u64::from_be_bytes(expires.try_into().ok()?);
        Some(Entry {
            value: Bytes::copy_from_slice(value),
            version: u64::from_be_bytes(*version),
            expires: (expires != 0).then(|| UNIX_EPOCH + Duration::from_millis(expires)),
        })
    });
    parsed.ok_or_else(|| StoreError::Damaged(format!("{key:?} is of no format that this xpush knows")))
}

/// What expires, in the order in which it does.
pub(super) fn expiry_key(expires: SystemTime, key: &Key) -> Vec<u8> {
    let mut bytes = millis(expires).to_be_bytes().to_vec();
    bytes.extend_from_slice(key.as_str().as_bytes());
    bytes
}

pub(super) fn parse_expiry_key(bytes: &[u8]) -> Result<(u64, Key), StoreError> {
    let parsed = bytes.split_first_chunk::<8>().and_then(|(expires, key)| {
        Some((u64::from_be_bytes(*expires), Key::from_stored(str::from_utf8(key).ok()?)))
    });
    parsed.ok_or_else(|| StoreError::Damaged("an expiry has no key".into()))
}

/// Since 1970, at least one: 0 is never.
pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back() {
        let key = Key::new(&["user", "app", "ann"]);
        let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        for (value, expires) in [("", None), ("{}", Some(at))] {
            let entry = Entry { value: value.into(), version: 7, expires };
            assert_eq!(decode(&key, &encode(value.as_bytes(), 7, expires)), Ok(entry));
        }
        assert_eq!(parse_expiry_key(&expiry_key(at, &key)), Ok((1_700_000_000_123, key)));
    }

    #[test]
    fn what_is_no_entry_is_damage() {
        let key = Key::new(&["user", "app", "ann"]);
        for bytes in [&[][..], &[FORMAT; 5], &[FORMAT + 1; HEAD]] {
            assert!(matches!(decode(&key, bytes), Err(StoreError::Damaged(_))), "{bytes:?}");
        }
        assert!(matches!(parse_expiry_key(&[1; 5]), Err(StoreError::Damaged(_))));
    }
}
