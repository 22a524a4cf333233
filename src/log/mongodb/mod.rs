//! The log of a cluster: in MongoDB, where any node may append to any channel, without a lock, a lease or a leader.
//!
//! Two unique indexes are what gives a channel its order: one of its offsets, one of its messages' ids (`write`). A
//! node only adds to what a majority has, so one that was frozen, or is told old news, is refused and looks again.
//! Appends that wait while the database is written to share the next write (`line`).

mod failure;
mod ground;
mod lane;
mod lately;
mod line;
mod look;
mod read;
mod record;
mod redact;
mod retention;
mod stall;
mod store;
#[cfg(test)]
mod tests;
mod tops;
mod write;
mod written;

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, FutureExt};
use mongodb::options::ReadConcern;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use xpush_protocol::{ChannelName, Cursor, Epoch};

#[cfg(test)]
pub(super) use self::tests::open;
#[cfg(test)]
pub(crate) use self::tests::{database, server};
use self::{
    lately::Lately,
    line::{APPEND_LIMIT, Line, Request},
    read::TOPS,
    retention::Due,
    store::Store,
    tops::Tops,
    write::{Append, Standing},
};
use super::{Extent, KeepByNamespace, Log, LogError, Page, Pending, Query};
use crate::publication::Draft;

/// What waits to be written, in bytes. Full means that MongoDB can't keep up: who appends waits for a place.
const LINE_BYTES: usize = 32 * 1024 * 1024;

/// What a waiting append takes beside its payload, roughly. It bounds how many wait.
const APPEND_BYTES: usize = 512;

/// Keeps publications in MongoDB.
pub struct MongoDb {
    store: Arc<Store>,
    requests: mpsc::Sender<Request>,
    /// Shared with the line.
    tops: Arc<Tops>,
    /// The channels in which other nodes append.
    rivals: Arc<Lately>,
    /// The places in the line, in bytes.
    places: Arc<Semaphore>,
    tasks: Mutex<Option<Tasks>>,
}

struct Tasks {
    line: JoinHandle<()>,
    retention: JoinHandle<()>,
    /// Ends the retention, also where the log is dropped and never closed.
    retaining: DropGuard,
}

impl MongoDb {
    /// Connects, and makes the collections and indexes of this database that are not there. With no MongoDB there,
    /// or none that has a primary, it fails with `LogError::Unavailable` after some seconds, and may be tried again.
    pub async fn connect(url: &str, database: &str, keep: KeepByNamespace) -> Result<Self, LogError> {
        let store = Arc::new(Store::open(url, database, keep).await?);
        let (due, tops, rivals) = (Arc::<Due>::default(), Arc::<Tops>::default(), Arc::<Lately>::default());
        // A place takes APPEND_BYTES at least, so all who have one fit in, and `Close` beside them.
        let (requests, line) = mpsc::channel(LINE_BYTES / APPEND_BYTES + 1);
        let token = CancellationToken::new();
        let tasks = Tasks {
            line: tokio::spawn(
                Line::new(store.clone(), due.clone(), tops.clone(), rivals.clone(), line).run(),
            ),
            retention: tokio::spawn(retention::run(store.clone(), due, token.clone())),
            retaining: token.drop_guard(),
        };
        let places = Arc::new(Semaphore::new(LINE_BYTES));
        Ok(Self { store, requests, tops, rivals, places, tasks: Mutex::new(Some(tasks)) })
    }

    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.store.epoch
    }

    /// Writes what is in line, takes nothing more, and lets go of the database. It takes some seconds at most, also
    /// where MongoDB is gone: then what is in line is refused. A log that is dropped writes what is in line too, but
    /// nobody hears when.
    pub async fn close(&self) {
        self.places.close();
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Tasks { line, retention, retaining }) = tasks else { return };
        // It fails if the line has ended already, which is what is wanted.
        let _ = self.requests.send(Request::Close).await;
        drop(retaining);
        for task in [line, retention] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the log failed");
            }
        }
        self.store.close().await;
    }

    async fn put_in_line(&self, channel: &ChannelName, draft: Draft) -> Result<Pending, LogError> {
        let bytes = (APPEND_BYTES + draft.payload.len()).min(LINE_BYTES);
        let place = self.places.clone().acquire_many_owned(bytes as u32).await.map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + APPEND_LIMIT;
        let append = Append { draft, reply, deadline, standing: Standing::New, _place: place };
        self.requests.try_send(Request::Append(channel.clone(), append)).map_err(|_| closed())?;
        Ok(async move { answer.await.unwrap_or_else(|_| Err(closed())) }.boxed())
    }
}

impl Log for MongoDb {
    fn append<'a>(
        &'a self,
        channel: &'a ChannelName,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Pending, LogError>> {
        self.put_in_line(channel, draft).boxed()
    }

    fn told(&self, channel: &ChannelName, top: Cursor) {
        if top.epoch == self.store.epoch {
            self.tops.told(channel, top.offset);
            self.rivals.note(channel);
        }
    }

    fn has_rivals(&self, channel: &ChannelName) -> bool {
        self.rivals.has(channel)
    }

    fn read<'a>(&'a self, channel: &'a ChannelName, query: Query) -> BoxFuture<'a, Result<Page, LogError>> {
        self.store.bounded(self.store.page(channel, query)).boxed()
    }

    fn redact<'a>(&'a self, channel: &'a ChannelName, offset: u64) -> BoxFuture<'a, Result<bool, LogError>> {
        async move { Ok(self.store.redact(channel, offset).await?) }.boxed()
    }

    fn extent<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        self.store.bounded(self.store.extent(channel, ReadConcern::majority())).boxed()
    }

    fn confirm<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        // The primary answers this one only when a majority confirmed that it is the primary.
        self.store.bounded(self.store.extent(channel, ReadConcern::linearizable())).boxed()
    }

    fn tops<'a>(&'a self, channels: &'a [ChannelName]) -> BoxFuture<'a, Result<Vec<Cursor>, LogError>> {
        let tops = async {
            let epoch = self.store.epoch;
            let mut tops = Vec::with_capacity(channels.len());
            for channels in channels.chunks(TOPS) {
                let found = self.store.bounded(self.store.tops(channels)).await?;
                let offsets = found.into_iter().map(|top| top.map_or(0, |top| top.offset));
                tops.extend(offsets.map(|offset| Cursor { epoch, offset }));
            }
            Ok(tops)
        };
        tops.boxed()
    }
}

fn closed() -> LogError {
    LogError::Unavailable { reason: "the log is closed".into() }
}
