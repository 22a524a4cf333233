//! The directory of a server that runs alone: on the local disk, in fjall, beside the log and apart from it.
//!
//! One thread writes (`writer`): it compares versions and commits, so two commits never see the same version, and
//! what a sync costs is shared by all who wait for one. A commit is answered when it is synced, also one that need not
//! be: only the last commit of a journal can be torn then, which is how a crash is told from damage (`disk::journal`).
//!
//! Reads are each of one snapshot. Those of a few keys are done at once while the whole directory fits into its cache: they
//! hardly ever wait for the disk then, and a thread that may would take several times as long to wake. All others run
//! where they may block.

mod database;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock, mpsc},
    thread::{self, JoinHandle},
};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::{
    sync::{Semaphore, oneshot},
    task::{self, consume_budget},
};

use self::{
    database::{Database, Folder},
    writer::{Request, Waiting, Writer},
};
use super::{Commit, CommitError, Entry, Key, Scan, Store, StoreError};

/// What waits to be written, in bytes. Full means that the disk can't keep up: who commits waits for a place.
const LINE_BYTES: usize = 32 << 20;

/// What a waiting commit takes for each of its keys, roughly, and for itself. It bounds how many wait.
const KEY_BYTES: usize = 512;

/// Reads at one time. They mostly find their blocks in memory; more at once would only take cores from each other.
const READERS: usize = 16;

/// Keeps the directory on the local disk.
pub struct Embedded {
    shared: Arc<Shared>,
    requests: mpsc::SyncSender<Request>,
    /// The places in the line, in bytes.
    places: Arc<Semaphore>,
    readers: Semaphore,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer and the readers share.
struct Shared {
    /// None while it is opened anew after a failure, and when the store is closed.
    database: RwLock<Option<Database>>,
}

impl Embedded {
    /// Opens the store in this folder, or makes one. Blocks: after a crash it reads the journals back.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let folder = Folder::open(path)?;
        let database = Database::open(&folder)?;
        let version = database.version()?;
        let shared = Arc::new(Shared { database: RwLock::new(Some(database)) });
        // A place takes KEY_BYTES at least, so all who have one fit in, and `Close` beside them.
        let (requests, line) = mpsc::sync_channel(LINE_BYTES / KEY_BYTES + 1);
        let writer = Writer::new(Arc::clone(&shared), folder, line, version);
        let writer = thread::Builder::new()
            .name("directory".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Refused(format!("no thread for it: {error}")))?;
        Ok(Self {
            shared,
            requests,
            places: Arc::new(Semaphore::new(LINE_BYTES)),
            readers: Semaphore::new(READERS),
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Writes what is in line, takes nothing more, and lets go of the folder. Blocks until that is done, which is a
    /// matter of some commits; dropping does the same.
    pub fn close(&self) {
        self.places.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It fails if the writer is gone already, which is what is wanted.
            let _ = self.requests.send(Request::Close);
            if writer.join().is_err() {
                tracing::error!("the directory's writer panicked");
            }
        }
    }

    async fn put_in_line(&self, commit: Commit) -> Result<(), CommitError> {
        commit.check()?;
        let (keys, bytes) = commit.size();
        let bytes = (bytes + KEY_BYTES * (keys + 1)).min(LINE_BYTES);
        let place = Arc::clone(&self.places).acquire_many_owned(bytes as u32).await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { commit, bytes, reply, _place: place };
        self.requests.try_send(Request::Commit(waiting)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed().into()))
    }

    /// As `read`. Keys are few.
    async fn read_few<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // Done at once, it has to leave others their turn by itself.
        consume_budget().await;
        // Held for long only while the database is opened anew. Within, fjall lets readers wait while it adds a table to
        // its list: for two syncs, once in 16 MiB that were written.
        if let Ok(database) = self.shared.database.try_read()
            && let Some(database) = database.as_ref().filter(|database| database.fits_in_cache())
        {
            return read(database);
        }
        self.read(read).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _reader = self.readers.acquire().await.map_err(|_| closed())?;
        let shared = Arc::clone(&self.shared);
        let read = move || {
            let database = shared.database.read().unwrap_or_else(PoisonError::into_inner);
            database.as_ref().ok_or_else(closed).and_then(read)
        };
        task::spawn_blocking(read)
            .await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(format!("a read failed: {error}"))))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Waits for the readers, and for fjall's workers.
    fn close_database(&self) {
        drop(self.database.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn open_database(&self, database: Database) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
    }
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        let key = key.clone();
        self.read_few(move |database| database.get(&key)).boxed()
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Option<Entry>>, StoreError>> {
        let keys = keys.to_vec();
        self.read_few(move |database| database.get_many(&keys)).boxed()
    }

    fn scan<'a>(&'a self, scan: Scan) -> BoxFuture<'a, Result<Vec<(Key, Entry)>, StoreError>> {
        self.read(move |database| database.scan(&scan)).boxed()
    }

    fn commit<'a>(&'a self, commit: Commit) -> BoxFuture<'a, Result<(), CommitError>> {
        self.put_in_line(commit).boxed()
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed".into())
}
