//! A directory that lasts as long as its process: for tests, and for what needs none.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use futures_util::future::{BoxFuture, ready};

use super::{Commit, CommitError, Entry, Key, Scan, Store, StoreError};

/// Writes between two looks for what has expired.
const SWEEP_AFTER: u64 = 1 << 14;

#[derive(Default)]
pub struct Memory(Mutex<Table>);

#[derive(Default)]
struct Table {
    entries: BTreeMap<Key, Entry>,
    versions: u64,
}

impl Memory {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn get(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key).filter(|entry| entry.is_live(SystemTime::now())).cloned()
    }

    fn commit(&mut self, commit: Commit) -> Result<(), CommitError> {
        commit.check()?;
        let holds =
            |(key, version): &(Key, Option<u64>)| self.get(key).map(|entry| entry.version) == *version;
        if !commit.expects.iter().all(holds) {
            return Err(CommitError::Conflict);
        }
        for write in commit.writes {
            self.versions += 1;
            match write.value {
                Some(value) => {
                    let entry = Entry { value, version: self.versions, expires: write.expires };
                    self.entries.insert(write.key, entry);
                }
                None => {
                    self.entries.remove(&write.key);
                }
            }
            let now = SystemTime::now();
            if self.versions.is_multiple_of(SWEEP_AFTER) {
                self.entries.retain(|_, entry| entry.is_live(now));
            }
        }
        Ok(())
    }
}

impl Store for Memory {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        Box::pin(ready(Ok(self.table().get(key))))
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        let table = self.table();
        Box::pin(ready(Ok(keys.iter().map(|key| table.get(key)).collect())))
    }

    fn scan<'a>(&'a self, scan: Scan) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        let (table, now) = (self.table(), SystemTime::now());
        let wanted = |(key, entry): &(&Key, &Entry)| {
            let behind = scan
                .after
                .as_ref()
                .is_none_or(|after| if scan.backward { *key < after } else { *key > after });
            scan.prefix.holds(key) && behind && entry.is_live(now)
        };
        let owned = |(key, entry): (&Key, &Entry)| (key.clone(), entry.clone());
        let entries = table.entries.iter();
        let page = if scan.backward {
            entries.rev().filter(wanted).take(scan.limit).map(owned).collect()
        } else {
            entries.filter(wanted).take(scan.limit).map(owned).collect()
        };
        Box::pin(ready(Ok(page)))
    }

    fn commit<'a>(&'a self, commit: Commit) -> BoxFuture<'a, Result<(), CommitError>> {
        Box::pin(ready(self.table().commit(commit)))
    }
}
