//! One typed entry: read, and changed by comparing versions, so that two who change it at once both count.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Directory, DirectoryError, Result,
    store::{Commit, CommitError, Entry, Key, Prefix, SCAN_LIMIT, Scan, StoreError},
};

/// Tries of a change that others get in the way of.
const MAX_TRIES: usize = 16;

/// A typed value of the directory. It is kept as JSON, so an operator can read it; fields that this version does not
/// know are left out of what it reads.
pub(crate) trait Record: Serialize + DeserializeOwned + Send {}

/// A record with the version that its ETag is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged<T> {
    pub value: T,
    pub version: u64,
}

impl<T> Tagged<T> {
    /// As HTTP has it, quotes included.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("\"{:x}\"", self.version)
    }
}

pub(crate) fn encode(record: &impl Serialize) -> Vec<u8> {
    // Records are structs of texts, numbers and JSON.
    #[allow(clippy::expect_used)]
    serde_json::to_vec(record).expect("it can be written")
}

pub(crate) fn decode<T: DeserializeOwned>(key: &Key, entry: &Entry) -> Result<Tagged<T>> {
    let value = serde_json::from_slice(&entry.value)
        .map_err(|error| StoreError::Damaged(format!("{key:?}: {error}")))?;
    Ok(Tagged { value, version: entry.version })
}

impl Directory {
    pub(crate) async fn read<T: Record>(&self, key: &Key) -> Result<Option<Tagged<T>>> {
        self.store.get(key).await?.map(|entry| decode(key, &entry)).transpose()
    }

    /// In the order of the keys asked for.
    pub(crate) async fn read_many<T: Record>(&self, keys: &[Key]) -> Result<Vec<Option<Tagged<T>>>> {
        let entries = self.store.get_many(keys).await?;
        keys.iter()
            .zip(entries)
            .map(|(key, entry)| entry.map(|entry| decode(key, &entry)).transpose())
            .collect()
    }

    /// A page: at most `limit`, behind `after`.
    pub(crate) async fn list<T: Record>(
        &self,
        prefix: Prefix,
        after: Option<Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Tagged<T>)>> {
        let limit = limit.clamp(1, SCAN_LIMIT);
        let page = self.store.scan(Scan { prefix, after, limit, backward: false }).await?;
        page.into_iter().map(|(key, entry)| Ok((key.clone(), decode(&key, &entry)?))).collect()
    }

    /// Commits what `plan` makes of the present state; if somebody was quicker, plans again.
    ///
    /// The plan is a closure that gives a future (`|| async { … }`): that of an async closure can't be sent to another
    /// thread, as what serves HTTP and sessions has to be.
    pub(crate) async fn change<T, F>(&self, plan: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<(Commit, T)>>,
    {
        for _ in 0..MAX_TRIES {
            let (commit, outcome) = plan().await?;
            if commit.writes.is_empty() {
                return Ok(outcome);
            }
            match self.store.commit(commit).await {
                Ok(()) => return Ok(outcome),
                Err(CommitError::Conflict) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(DirectoryError::Busy("others are changing the same; try again".into()))
    }
}
