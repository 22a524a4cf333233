//! The log of a server that runs alone: on the local disk, in fjall, an LSM tree with a journal.
//!
//! An append is durable when it is answered (`fdatasync`). What a sync costs is shared by all who wait for one:
//! a single thread commits whatever came together during the last commit (`writer`).
//!
//! Reads run where they may block. Mostly they find their blocks in memory (`benches/log.rs`, on two cores that were
//! busy: 35 µs for an extent, 110 µs for the last 50, the way to the other thread and back included), but the slowest
//! of a hundred took 4 ms, and no connection of the same worker should wait for that.

mod record;
mod retention;
mod store;
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
    task,
};
use xpush_protocol::{ChannelName, Epoch};

use self::{
    retention::Retention,
    store::{Directory, Store},
    writer::{Append, Redaction, Reply, Request, Writer},
};
use super::{Extent, KeepByNamespace, Log, LogError, Page, Pending, Query};
use crate::publication::Draft;

/// What waits to be written, in bytes. Full means that the disk can't keep up: who appends waits for a place.
const LINE_BYTES: usize = 32 * 1024 * 1024;

/// What a waiting append takes beside its payload, roughly. It bounds how many wait.
const APPEND_BYTES: usize = 512;

/// Reads at one time. They mostly find their blocks in memory; more at once would only take cores from each other.
const READERS: usize = 16;

/// Keeps publications on the local disk.
pub struct Embedded {
    shared: Arc<Shared>,
    epoch: Epoch,
    /// `places` bounds it. With a bound of its own it would be a ring of so many slots, through which the few that wait
    /// would wander, always in memory that no cache has.
    requests: mpsc::Sender<Request>,
    /// The places in the line, in bytes.
    places: Arc<Semaphore>,
    readers: Semaphore,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer and the readers share.
struct Shared {
    /// None while it is opened anew after a failure, and when the log is closed.
    store: RwLock<Option<Store>>,
}

impl Embedded {
    /// Opens the store in this directory, or makes one. Blocks: after a crash it reads the journals back.
    pub fn open(path: &Path, keep: KeepByNamespace) -> Result<Self, LogError> {
        let directory = Directory::open(path)?;
        let epoch = directory.epoch;
        let store = Store::open(&directory)?;
        let shared = Arc::new(Shared { store: RwLock::new(Some(store)) });
        #[allow(clippy::disallowed_methods, reason = "`places` bounds it")]
        let (requests, line) = mpsc::channel();
        let writer = Writer::new(shared.clone(), directory, line, Retention::new(keep));
        let writer =
            thread::Builder::new().name("log".into()).spawn(move || writer.run()).map_err(|error| {
                LogError::Open { path: path.to_owned(), reason: format!("no thread for it: {error}") }
            })?;
        Ok(Self {
            shared,
            epoch,
            requests,
            places: Arc::new(Semaphore::new(LINE_BYTES)),
            readers: Semaphore::new(READERS),
            writer: Mutex::new(Some(writer)),
        })
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Writes what is in line, takes nothing more, and lets go of the directory. Blocks until that is done, which
    /// is a matter of some commits; dropping does the same.
    pub fn close(&self) {
        self.places.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It fails if the writer is gone already, which is what is wanted.
            let _ = self.requests.send(Request::Close);
            if writer.join().is_err() {
                tracing::error!("the log's writer panicked");
            }
        }
    }

    async fn put_in_line(&self, channel: &ChannelName, draft: Draft) -> Result<Pending, LogError> {
        let bytes = (APPEND_BYTES + draft.payload.len()).min(LINE_BYTES);
        let place = self.places.clone().acquire_many_owned(bytes as u32).await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let reply = Reply { reply, _place: place };
        let append = Append { channel: channel.clone(), draft, reply };
        self.requests.send(Request::Append(append)).map_err(|_| closed())?;
        Ok(async move { answer.await.unwrap_or_else(|_| Err(closed())) }.boxed())
    }

    async fn redact_in_turn(&self, channel: &ChannelName, offset: u64) -> Result<bool, LogError> {
        let place =
            self.places.clone().acquire_many_owned(APPEND_BYTES as u32).await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let redaction = Redaction { channel: channel.clone(), offset, reply, _place: place };
        self.requests.send(Request::Redact(redaction)).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn with_store<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let _reader = self.readers.acquire().await.map_err(|_| closed())?;
        let shared = self.shared.clone();
        let read = move || {
            let store = shared.store.read().unwrap_or_else(PoisonError::into_inner);
            store.as_ref().ok_or_else(closed).and_then(read)
        };
        task::spawn_blocking(read)
            .await
            .unwrap_or_else(|error| Err(LogError::Unavailable { reason: format!("a read failed: {error}") }))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Waits for the readers, and for fjall's workers.
    fn close_store(&self) {
        drop(self.store.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn open_store(&self, store: Store) {
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }
}

impl Log for Embedded {
    fn append<'a>(
        &'a self,
        channel: &'a ChannelName,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Pending, LogError>> {
        self.put_in_line(channel, draft).boxed()
    }

    fn read<'a>(&'a self, channel: &'a ChannelName, query: Query) -> BoxFuture<'a, Result<Page, LogError>> {
        let channel = channel.clone();
        self.with_store(move |store| store.read(&channel, query)).boxed()
    }

    fn redact<'a>(&'a self, channel: &'a ChannelName, offset: u64) -> BoxFuture<'a, Result<bool, LogError>> {
        self.redact_in_turn(channel, offset).boxed()
    }

    fn extent<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        let channel = channel.clone();
        self.with_store(move |store| store.extent(&channel)).boxed()
    }
}

fn closed() -> LogError {
    LogError::Unavailable { reason: "the log is closed".into() }
}
