//! The folder of a store, the database in it, and how it is read.
//!
//! `LOCK` is held by the process that has it open. `database` belongs to fjall.

use std::{
    fs::{self, File},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    time::SystemTime,
};

use fjall::{Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use tracing::warn;

use super::{
    super::{Entry, Key, SCAN_LIMIT, Scan, StoreError},
    record,
};
use crate::disk::{DiskError, describe, journal, open_database, take_lock};

/// The newest format that this version knows, and the one that it writes.
const FORMAT: u32 = 1;

/// Blocks of tables that are kept in memory: what sessions ask for again and again.
const CACHE_BYTES: u64 = 32 << 20;

/// How much larger blocks are in the cache than on the disk, at most.
const COMPRESSION: u64 = 4;

/// A keyspace writes a table when so much has gathered in memory. Less is sooner read back after a crash.
const MEMTABLE_BYTES: u64 = 16 << 20;

/// Write tables and merge them, in the background.
const WORKERS: usize = 1;

/// In `meta`: the format of the rest.
const META_FORMAT: &str = "format";

/// In `meta`: the last version that was given.
pub(super) const META_VERSION: &str = "version";

/// A folder that this process holds.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder for this process, and makes a database there if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let failed =
            |error: io::Error| StoreError::Refused(format!("{}: {}", path.display(), describe(&error)));
        fs::create_dir_all(path).map_err(failed)?;
        let folder = Self { path: path.to_owned(), _lock: take_lock(path)? };
        if !folder.database().try_exists().map_err(failed)? {
            folder.make_database().map_err(|error| open_failed(path, &error))?;
        }
        Ok(folder)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("database")
    }

    /// Makes it beside its place and then moves it there: a crash on the way leaves nothing that looks like one.
    fn make_database(&self) -> fjall::Result<()> {
        let draft = self.path.join("database.new");
        if draft.try_exists()? {
            fs::remove_dir_all(&draft)?;
        }
        let database = Database::open_at(&draft)?;
        let mut batch = database.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&database.meta, META_FORMAT, FORMAT.to_be_bytes());
        batch.commit()?;
        drop(database);
        fs::rename(&draft, self.database())?;
        File::open(&self.path)?.sync_all()?;
        if let Some(parent) = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

/// An open database.
pub(super) struct Database {
    pub(super) db: fjall::Database,
    pub(super) entries: Keyspace,
    /// The keys of what expires, by when it does.
    pub(super) expiring: Keyspace,
    pub(super) meta: Keyspace,
}

impl Database {
    /// Opens the database, and says so if a crash cut off a commit in the middle.
    pub(super) fn open(folder: &Folder) -> Result<Self, StoreError> {
        let path = folder.database();
        let cut = journal::mend(&path)?;
        let database = Self::open_at(&path).map_err(|error| open_failed(&path, &error))?;
        if cut > 0 {
            warn!(
                path = %path.display(),
                bytes = cut,
                "the last write before a crash was not complete and is cut off; nothing of it was acknowledged"
            );
        }
        let format =
            database.meta(META_FORMAT)?.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        match format {
            Some(format) if format <= FORMAT => Ok(database),
            Some(format) => Err(StoreError::Refused(format!(
                "{} has format {format}; this version of xpush knows {FORMAT} at most. Start a version that is as new as the one that wrote it",
                path.display()
            ))),
            None => {
                Err(StoreError::Damaged(format!("{} does not say of which format it is", path.display())))
            }
        }
    }

    fn open_at(path: &Path) -> fjall::Result<Self> {
        let db = open_database(path, CACHE_BYTES, WORKERS)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        Ok(Self {
            entries: db.keyspace("entries", options)?,
            expiring: db.keyspace("expiring", options)?,
            meta: db.keyspace("meta", options)?,
            db,
        })
    }

    /// The last version that was given to an entry.
    pub(super) fn version(&self) -> Result<u64, StoreError> {
        let Some(bytes) = self.meta(META_VERSION)? else { return Ok(0) };
        let version = bytes.try_into().map(u64::from_be_bytes);
        version.map_err(|_| StoreError::Damaged("the last version is no number".into()))
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.meta.get(name).map_err(|error| read_failed(&error))?;
        Ok(value.map(|bytes| bytes.to_vec()))
    }

    /// Whether all that is read can be in memory.
    pub(super) fn fits_in_cache(&self) -> bool {
        self.entries.disk_space() <= CACHE_BYTES / COMPRESSION
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let entry = self.stored(&self.db.snapshot(), key)?;
        Ok(entry.filter(|entry| entry.is_live(SystemTime::now())))
    }

    pub(super) fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
        let (snapshot, now) = (self.db.snapshot(), SystemTime::now());
        let live = |key| Ok(self.stored(&snapshot, key)?.filter(|entry| entry.is_live(now)));
        keys.iter().map(live).collect()
    }

    /// Also one that has expired and was not swept yet.
    pub(super) fn stored(&self, snapshot: &impl Readable, key: &Key) -> Result<Option<Entry>, StoreError> {
        let bytes = snapshot.get(&self.entries, key.as_str()).map_err(|error| read_failed(&error))?;
        bytes.map(|bytes| record::decode(key, &bytes)).transpose()
    }

    pub(super) fn scan(&self, scan: &Scan) -> Result<Vec<(Key, Entry)>, StoreError> {
        let Some(range) = bounds(scan) else { return Ok(Vec::new()) };
        let limit = scan.limit.clamp(1, SCAN_LIMIT);
        let found = self.db.snapshot().range(&self.entries, range);
        if scan.backward { page(found.rev(), limit) } else { page(found, limit) }
    }
}

/// From a key to another.
type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Between which keys the scan's entries are; none if there are none.
fn bounds(scan: &Scan) -> Option<Range> {
    let first = scan.prefix.as_str().as_bytes().to_vec();
    let mut end = first.clone();
    // What is text never has the highest byte, so the last one can be counted up.
    *end.last_mut()? += 1;
    let after = scan.after.as_ref().map(|after| after.as_str().as_bytes().to_vec());
    Some(match after {
        Some(after) if scan.backward => {
            if after <= first {
                return None;
            }
            (Bound::Included(first), Bound::Excluded(after.min(end)))
        }
        Some(after) if after >= end => return None,
        Some(after) if after >= first => (Bound::Excluded(after), Bound::Excluded(end)),
        _ => (Bound::Included(first), Bound::Excluded(end)),
    })
}

fn page(found: impl Iterator<Item = Guard>, limit: usize) -> Result<Vec<(Key, Entry)>, StoreError> {
    let now = SystemTime::now();
    let mut page = Vec::new();
    for guard in found {
        let (key, bytes) = guard.into_inner().map_err(|error| read_failed(&error))?;
        let key = str::from_utf8(&key).map_err(|_| StoreError::Damaged("a key is no text".into()))?;
        let key = Key::from_stored(key);
        let entry = record::decode(&key, &bytes)?;
        if entry.is_live(now) {
            page.push((key, entry));
            if page.len() == limit {
                break;
            }
        }
    }
    Ok(page)
}

fn open_failed(path: &Path, error: &fjall::Error) -> StoreError {
    let path = path.display();
    match error {
        fjall::Error::Locked => StoreError::Refused(format!(
            "another process has {path} open. Stop that one, or point `store.path` elsewhere"
        )),
        fjall::Error::Io(error) => StoreError::Refused(format!("{path}: {}", describe(error))),
        fjall::Error::InvalidVersion(_) => {
            StoreError::Refused(format!("{path} is of a version of fjall that this xpush doesn't know"))
        }
        error => StoreError::Damaged(format!("{path}: {error}")),
    }
}

pub(super) fn read_failed(error: &fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            StoreError::Unavailable(format!("a read failed: {error}"))
        }
        error => StoreError::Damaged(error.to_string()),
    }
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Open { .. } => Self::Refused(error.to_string()),
            DiskError::Damaged { reason } => Self::Damaged(reason),
        }
    }
}
