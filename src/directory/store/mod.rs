//! Where the directory is kept: an ordered map of keys to values, with commits that happen whole or not at all.
//!
//! That is all that a backend has to be. What a user or a member is, which rules hold and which key leads to what is
//! decided once, above; so a backend never sees a client's text but inside a key's component or a value, and neither
//! is ever a query.
//!
//! Invariant: nothing here but the backends' own rooms names a store. `contract` (tests) holds all of them to `Store`.

#[cfg(test)]
pub(crate) mod contract;
#[cfg(feature = "embedded")]
mod embedded;
mod key;
mod memory;
#[cfg(feature = "mongodb")]
mod mongodb;

use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;

#[cfg(feature = "embedded")]
pub use self::embedded::Embedded;
pub use self::key::{Key, MAX_KEY, Prefix};
pub use self::memory::Memory;
#[cfg(feature = "mongodb")]
pub use self::mongodb::MongoDb;

/// Keys that one commit may name, expected and written together: no change of the directory needs more, and a store's
/// own transactions are bounded too.
pub const COMMIT_KEYS: usize = 1_000;

/// Entries that one scan gives at most.
pub const SCAN_LIMIT: usize = 1_000;

/// Bytes of a value.
pub const MAX_VALUE: usize = 1 << 20;

/// Bytes of all values and keys of one commit. What one request brings is far below; a store that writes them as one
/// message or one journal entry has a bound of its own not far above.
pub const COMMIT_BYTES: usize = 16 << 20;

/// An ordered map of keys to values.
///
/// What a commit wrote is seen by every read that begins after it was answered, on every node. Reads see whole commits'
/// entries; two reads may see different times.
pub trait Store: Send + Sync + 'static {
    /// One entry. One that has expired is not there.
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, StoreError>>;

    /// Several, in the order of the keys asked for: one way to the store and back.
    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>>;

    /// Entries in the order of their keys (or from the last to the first).
    fn scan<'a>(&'a self, scan: Scan) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>>;

    /// Does all of it or nothing. Two commits that expect or write the same key never both succeed from the same
    /// version: the later one gets `Conflict`, and reads again.
    fn commit<'a>(&'a self, commit: Commit) -> BoxFuture<'a, Result<(), CommitError>>;
}

/// A value and its place in the key's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub value: Bytes,
    /// Another one with every write of the key, and never the same again, even after a deletion.
    pub version: u64,
    pub expires: Option<SystemTime>,
}

impl Entry {
    fn is_live(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|at| at > now)
    }
}

/// Which entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub prefix: Prefix,
    /// Behind this key, in the direction of the scan.
    pub after: Option<Key>,
    /// 1 to `SCAN_LIMIT`.
    pub limit: usize,
    /// From the last key to the first.
    pub backward: bool,
}

impl Scan {
    /// The first entries.
    #[must_use]
    pub fn of(prefix: Prefix) -> Self {
        Self { prefix, after: None, limit: SCAN_LIMIT, backward: false }
    }
}

/// What is to be true, and what then shall be.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The versions that were read; `None`: the key was not there. A key that is written but not expected is written
    /// whatever it was.
    pub expects: Vec<(Key, Option<u64>)>,
    pub writes: Vec<Write>,
    pub durability: Durability,
}

#[derive(Debug, Clone)]
pub struct Write {
    pub key: Key,
    /// `None`: it goes.
    pub value: Option<Bytes>,
    /// It goes by itself then, to the millisecond. Only for what is written.
    pub expires: Option<SystemTime>,
}

/// When a commit is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once a crash can't take it back.
    #[default]
    Synced,
    /// Once others can see it: a power failure may take back the last moments. For cursors, which only lag then.
    Soon,
}

impl Commit {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn expect(mut self, key: Key, version: Option<u64>) -> Self {
        self.expects.push((key, version));
        self
    }

    #[must_use]
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write { key, value: Some(value.into()), expires: None });
        self
    }

    #[must_use]
    pub fn put_until(mut self, key: Key, value: impl Into<Bytes>, expires: SystemTime) -> Self {
        self.writes.push(Write { key, value: Some(value.into()), expires: Some(expires) });
        self
    }

    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.writes.push(Write { key, value: None, expires: None });
        self
    }

    #[must_use]
    pub fn soon(mut self) -> Self {
        self.durability = Durability::Soon;
        self
    }

    /// Keys that it names and bytes that it writes.
    fn size(&self) -> (usize, usize) {
        let written = |write: &Write| write.key.as_str().len() + write.value.as_ref().map_or(0, Bytes::len);
        let expected = |(key, _): &(Key, Option<u64>)| key.as_str().len();
        let bytes =
            self.writes.iter().map(written).sum::<usize>() + self.expects.iter().map(expected).sum::<usize>();
        (self.expects.len() + self.writes.len(), bytes)
    }

    /// What no store takes. The rooms above have bounds of their own, so this is for what they forgot.
    fn check(&self) -> Result<(), StoreError> {
        let (keys, bytes) = self.size();
        let mut written = self.writes.iter();
        let is_key = |key: &Key| (1..=MAX_KEY).contains(&key.as_str().len());
        let what = if keys > COMMIT_KEYS {
            "so many entries at once"
        } else if bytes > COMMIT_BYTES {
            "so much at once"
        } else if !self.expects.iter().all(|(key, _)| is_key(key))
            || !self.writes.iter().all(|write| is_key(&write.key))
        {
            "a name of that length"
        } else if written.any(|write| write.value.as_ref().is_some_and(|value| value.len() > MAX_VALUE)) {
            "an entry of that size"
        } else {
            return Ok(());
        };
        Err(StoreError::TooLarge(what))
    }
}

/// Why a store can't do it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Worth a retry.
    #[error("the directory can't be reached: {0}")]
    Unavailable(String),
    /// What is stored is not what was written. No retry helps.
    #[error("the directory is damaged: {0}")]
    Damaged(String),
    /// At opening. No retry helps: somebody else has it, it is of a newer version, or the address is none.
    #[error("the directory can't be opened: {0}")]
    Refused(String),
    #[error("the directory does not keep {0}")]
    TooLarge(&'static str),
}

/// Why a commit was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitError {
    /// A key is not at the version that was expected; nothing was written.
    #[error("something changed meanwhile")]
    Conflict,
    /// Whether it was written is not known if the store was lost while it answered.
    #[error(transparent)]
    Store(#[from] StoreError),
}
