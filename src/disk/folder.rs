//! A folder that one process holds, and whether there is room in it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use fjall::{Database, Keyspace, PersistMode};
use tracing::debug;

use super::{DiskError, journal};

/// A process that was told to stop may not have let go of the folder yet.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// After a failure a store goes on when so much can be written: with less, it would fail again at once.
const PROBE_BYTES: usize = 4 * 1024 * 1024;

/// Memtables that wait to be written as a table, of one keyspace. At 4 of them fjall waits within a commit, and
/// goes on waiting if its workers have failed; so we wait before, where that can be seen.
const MAX_SEALED_MEMTABLES: usize = 2;

/// Tables that were not merged yet. At 20 fjall slows down within a commit, at 30 it waits in the same way.
const MAX_UNMERGED_TABLES: usize = 18;

/// How often it is looked whether fjall's workers caught up.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(2);

/// Holds the folder for this process, as long as the file is open.
pub(crate) fn take_lock(path: &Path) -> Result<File, DiskError> {
    let failed = |error: io::Error| DiskError::Open { reason: describe(&error), path: path.to_owned() };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join("LOCK"))
        .map_err(failed)?;
    let asked = Instant::now();
    let locked = loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if asked.elapsed() < LOCK_PATIENCE => thread::sleep(LOCK_INTERVAL),
            locked => break locked,
        }
    };
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let reason = format!(
                "another xpush has it open (process {}). Stop that one, or point `store.path` elsewhere",
                holder.trim()
            );
            return Err(DiskError::Open { path: path.to_owned(), reason });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // For the message above; the lock holds without it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Opens a database, after its journals were looked at, or makes one.
pub(crate) fn open_database(path: &Path, cache_bytes: u64, workers: usize) -> fjall::Result<Database> {
    let db = Database::builder(path).cache_size(cache_bytes).worker_threads(workers).open()?;
    if let Err(error) = journal::preallocate(path) {
        debug!(path = %path.display(), %error, "the journal is appended to, and each sync takes longer");
    }
    Ok(db)
}

/// Lets fjall's workers catch up before they must.
pub(crate) fn catch_up<'a>(
    db: &Database,
    keyspaces: impl Iterator<Item = &'a Keyspace> + Clone,
) -> fjall::Result<()> {
    let behind = |keyspace: &Keyspace| {
        keyspace.sealed_memtable_count() >= MAX_SEALED_MEMTABLES
            || keyspace.l0_table_count() >= MAX_UNMERGED_TABLES
    };
    while keyspaces.clone().any(behind) {
        // Writes nothing; it fails if a worker has failed.
        db.persist(PersistMode::Buffer)?;
        thread::sleep(CATCH_UP_INTERVAL);
    }
    Ok(())
}

/// Is there room to go on?
pub(crate) fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join("probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![1; PROBE_BYTES])?;
        file.sync_all()
    });
    let removed = fs::remove_file(path);
    written.and(removed)
}

/// An I/O error and what to do about it.
pub(crate) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{error}. The user that xpush runs as must be able to write there")
        }
        io::ErrorKind::ReadOnlyFilesystem => format!("{error}. Mount it writable"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            format!("the disk is full ({error}). Make room there; it goes on by itself")
        }
        _ => error.to_string(),
    }
}
