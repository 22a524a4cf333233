//! The directory of a store, and the database in it.
//!
//! `STORE` says in which format the rest is and what the epoch is; it is written last, so a store that has it is
//! whole. `LOCK` is held by the process that has it open. `database` belongs to fjall.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch as WriteBatch, PersistMode, Readable,
};
use tracing::warn;
use xpush_protocol::{ChannelName, Epoch};

use super::{
    super::{Extent, From, LogError, Page, Query},
    record::{self, Header, MessageKey, Trimmed},
};
use crate::disk::{self, DiskError, describe, journal, take_lock};

/// The newest format that this version knows, and the one that it writes.
const FORMAT: u32 = 1;

/// Blocks of tables that are kept in memory, so that reading the newest of the busy channels costs no disk.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// A keyspace writes a table when so much has gathered in memory. Less is sooner read back after a crash, more
/// makes fewer tables.
const MEMTABLE_BYTES: u64 = 32 * 1024 * 1024;

/// Write tables and merge them, in the background. One alone would leave a full memtable to grow while it merges. Of two,
/// the first puts what is to be merged back in line as fast as it can while the other is busy, for some tenth of a core.
const WORKERS: usize = 2;

/// The directory of a store, held by this process.
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) epoch: Epoch,
    _lock: File,
}

impl Directory {
    /// Takes the directory for this process, and makes a store there if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, LogError> {
        let path = path.to_owned();
        let failed = |error: io::Error| LogError::Open { reason: describe(&error), path: path.clone() };
        fs::create_dir_all(&path).map_err(failed)?;
        let lock = take_lock(&path)?;
        let (store, database) = (path.join("STORE"), path.join("database"));
        let has_database = database.try_exists().map_err(failed)?;
        let epoch = match fs::read_to_string(&store) {
            Ok(text) if has_database => parse_store_file(&path, &text)?,
            Ok(_) => {
                let reason = "its directory `database` is gone. Put it back, or remove the file `STORE` to begin anew with an empty store";
                return Err(LogError::Open { path, reason: reason.into() });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let epoch = Epoch::random();
                make_database(&path, has_database)?;
                write_store_file(&path, epoch).map_err(failed)?;
                epoch
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { path, epoch, _lock: lock })
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("database")
    }
}

/// Under which keys the offset of a message may be.
pub(super) struct PlaceOfId {
    key: MessageKey,
    old: Option<Vec<u8>>,
}

/// An open database.
pub(super) struct Store {
    pub(super) db: Database,
    /// Publications by channel and offset.
    pub(super) publications: Keyspace,
    /// Offsets by message.
    ids: Keyspace,
    /// Of a store that an older version wrote to: offsets by channel, message id and publisher in full.
    old_ids: Option<Keyspace>,
    /// What was trimmed, by channel.
    pub(super) channels: Keyspace,
    epoch: Epoch,
}

impl Store {
    /// Opens the database, and says so if a crash cut off a commit in the middle.
    pub(super) fn open(directory: &Directory) -> Result<Self, LogError> {
        let path = directory.database();
        let cut = journal::mend(&path)?;
        let store =
            Self::open_database(&path, directory.epoch).map_err(|error| open_failed(&path, &error))?;
        if cut > 0 {
            warn!(
                path = %path.display(),
                bytes = cut,
                "the last write before a crash was not complete and is cut off; nothing of it was acknowledged"
            );
        }
        Ok(store)
    }

    fn open_database(path: &Path, epoch: Epoch) -> fjall::Result<Self> {
        let db = disk::open_database(path, CACHE_BYTES, WORKERS)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let old_ids =
            if db.keyspace_exists("messages") { Some(db.keyspace("messages", options)?) } else { None };
        let (publications, ids) = (db.keyspace("publications", options)?, db.keyspace("ids", options)?);
        let channels = db.keyspace("channels", options)?;
        // What fjall makes beside a database that it had made already, it does not sync.
        File::open(path.join("keyspaces"))?.sync_all()?;
        Ok(Self { publications, ids, old_ids, channels, db, epoch })
    }

    pub(super) fn extent(&self, channel: &ChannelName) -> Result<Extent, LogError> {
        self.extent_in(&self.db.snapshot(), channel)
    }

    /// Where the message is, if it is there already.
    pub(super) fn offset_of(
        &self,
        key: &MessageKey,
        name: impl FnOnce() -> Vec<u8>,
    ) -> Result<Option<u64>, LogError> {
        let mut found = self.ids.get(key).map_err(|error| read_failed(&error))?;
        if let (None, Some(old_ids)) = (&found, &self.old_ids) {
            found = old_ids.get(name()).map_err(|error| read_failed(&error))?;
        }
        found.map(|bytes| record::decode_offset(&bytes)).transpose()
    }

    pub(super) fn note_offset(&self, batch: &mut WriteBatch, key: MessageKey, offset: u64) {
        batch.insert(&self.ids, key, record::encode_offset(offset));
    }

    /// What `forget` needs to know of a message.
    pub(super) fn place_of_id(&self, channel: &ChannelName, header: &Header<'_>) -> PlaceOfId {
        let Header { publisher, message_id, .. } = header;
        PlaceOfId {
            key: record::message_key(channel, publisher, message_id),
            old: self.old_ids.as_ref().map(|_| record::message_name(channel, publisher, message_id)),
        }
    }

    /// The message is no longer there, and comes anew if it is sent again.
    pub(super) fn forget(&self, batch: &mut WriteBatch, PlaceOfId { key, old }: PlaceOfId) {
        batch.remove(&self.ids, key);
        if let (Some(old_ids), Some(old)) = (&self.old_ids, old) {
            batch.remove(old_ids, old);
        }
    }

    /// Lets fjall's workers catch up before they must.
    pub(super) fn catch_up(&self) -> fjall::Result<()> {
        let keyspaces = [&self.publications, &self.ids, &self.channels];
        disk::catch_up(&self.db, keyspaces.into_iter().chain(&self.old_ids))
    }

    pub(super) fn read(&self, channel: &ChannelName, query: Query) -> Result<Page, LogError> {
        // One snapshot, so that the extent is of the same moment as the page. It shows whole commits only, and
        // fjall shows a commit when it is synced.
        let snapshot = self.db.snapshot();
        let extent = self.extent_in(&snapshot, channel)?;
        let publications = match query.from {
            From::After(offset) => {
                let first = offset.saturating_add(1).max(extent.first);
                if first > extent.top {
                    return Ok(Page { extent, publications: Vec::new() });
                }
                let range =
                    record::publication_key(channel, first)..=record::publication_key(channel, u64::MAX);
                collect(query, channel, first.., snapshot.range(&self.publications, range))?
            }
            From::Before(offset) => {
                let end = offset.unwrap_or(u64::MAX).clamp(extent.first, extent.top + 1);
                if end == extent.first {
                    return Ok(Page { extent, publications: Vec::new() });
                }
                let range =
                    record::publication_key(channel, extent.first)..record::publication_key(channel, end);
                collect(query, channel, (0..end).rev(), snapshot.range(&self.publications, range).rev())?
            }
        };
        Ok(Page { extent, publications })
    }

    fn extent_in(&self, snapshot: &impl Readable, channel: &ChannelName) -> Result<Extent, LogError> {
        let trimmed =
            snapshot.get(&self.channels, &*record::name(channel)).map_err(|error| read_failed(&error))?;
        let trimmed = trimmed.map_or(Ok(Trimmed { first: 1, top: 0 }), |bytes| Trimmed::decode(&bytes))?;
        let range =
            record::publication_key(channel, trimmed.first)..=record::publication_key(channel, u64::MAX);
        let top = match snapshot.range(&self.publications, range).next_back() {
            Some(newest) => {
                let key = newest.key().map_err(|error| read_failed(&error))?;
                record::parse_publication_key(&key)?.1.max(trimmed.top)
            }
            None => trimmed.top,
        };
        Ok(Extent { epoch: self.epoch, first: trimmed.first, top })
    }
}

/// The page of these, which must have exactly the offsets that are expected.
fn collect(
    query: Query,
    channel: &ChannelName,
    expected: impl Iterator<Item = u64>,
    stored: impl Iterator<Item = fjall::Guard>,
) -> Result<Vec<Arc<crate::publication::Publication>>, LogError> {
    let (mut failure, app) = (None, channel.app());
    let publications = stored.zip(expected).map_while(|(guard, expected)| {
        let decoded = guard.into_inner().map_err(|error| read_failed(&error)).and_then(|(key, value)| {
            let (_, offset) = record::parse_publication_key(&key)?;
            if offset != expected {
                let reason = format!("{channel} has {offset} where {expected} should be");
                return Err(LogError::Damaged { reason });
            }
            record::decode(offset, &app, &value)
        });
        decoded.map_err(|error| failure = Some(error)).ok()
    });
    let page = query.page(publications);
    failure.map_or(Ok(page), Err)
}

/// Makes the database beside its place and then moves it there: a crash on the way leaves nothing that looks like
/// one.
fn make_database(path: &Path, exists: bool) -> Result<(), LogError> {
    let (place, draft) = (path.join("database"), path.join("database.new"));
    let failed = |error: &fjall::Error| open_failed(path, error);
    if exists {
        // A crash between the move and the file that ends the making. What has publications is no such case.
        let store = Store::open_database(&place, Epoch(0)).map_err(|error| failed(&error))?;
        if store.publications.first_key_value().is_none() {
            return Ok(());
        }
        let reason = "its file `STORE` is gone, and with it the epoch of its publications. Put it back";
        return Err(LogError::Open { path: path.to_owned(), reason: reason.into() });
    }
    let make = || -> fjall::Result<()> {
        if draft.try_exists()? {
            fs::remove_dir_all(&draft)?;
        }
        let store = Store::open_database(&draft, Epoch(0))?;
        store.db.persist(PersistMode::SyncAll)?;
        drop(store);
        fs::rename(&draft, &place)?;
        File::open(path)?.sync_all()?;
        Ok(())
    };
    make().map_err(|error| failed(&error))
}

fn write_store_file(path: &Path, epoch: Epoch) -> io::Result<()> {
    let draft = path.join("STORE.new");
    let mut file = File::create(&draft)?;
    write!(file, "format = {FORMAT}\nepoch = {epoch}\n")?;
    file.sync_all()?;
    fs::rename(draft, path.join("STORE"))?;
    File::open(path)?.sync_all()
}

fn parse_store_file(path: &Path, text: &str) -> Result<Epoch, LogError> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix('='));
        value.and_then(|value| value.trim().parse::<u32>().ok()).ok_or_else(|| LogError::Open {
            path: path.to_owned(),
            reason: format!("its file `STORE` doesn't say what `{name}` is"),
        })
    };
    let found = field("format")?;
    if found > FORMAT {
        let store = format!("the store in {}", path.display());
        return Err(LogError::NewerFormat { store, found, known: FORMAT });
    }
    field("epoch").map(Epoch)
}

fn open_failed(path: &Path, error: &fjall::Error) -> LogError {
    let reason = match error {
        fjall::Error::Locked => {
            "another process has the database open. Stop that one, or point `store.path` elsewhere".into()
        }
        fjall::Error::Io(error) => describe(error),
        fjall::Error::InvalidVersion(_) => {
            "its database is of a version of fjall that this xpush doesn't know".into()
        }
        error => format!("its database is damaged ({error})"),
    };
    LogError::Open { path: path.to_owned(), reason }
}

impl std::convert::From<DiskError> for LogError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Open { path, reason } => Self::Open { path, reason },
            DiskError::Damaged { reason } => Self::Damaged { reason },
        }
    }
}

pub(super) fn read_failed(error: &fjall::Error) -> LogError {
    match error {
        fjall::Error::Io(error) => LogError::Unavailable { reason: format!("a read failed: {error}") },
        fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            LogError::Unavailable { reason: format!("a read failed: {error}") }
        }
        error => LogError::Damaged { reason: error.to_string() },
    }
}
