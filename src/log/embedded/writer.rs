//! The one thread that writes: it takes what is waiting, gives it its offsets, commits it with one sync, and
//! acknowledges it. While it syncs, the next commit gathers.
//!
//! An append is answered when its commit is synced, and not before; what isn't synced isn't seen by any reader.
//! A commit that fails takes all its appends with it, and then the database is not written to any more until it
//! was opened anew: what of a failed commit reached the disk is known only then.

mod redact;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, PoisonError, mpsc},
    time::{Duration, Instant},
};

use fjall::{OwnedWriteBatch as WriteBatch, PersistMode};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{error, info, warn};
use xpush_protocol::{ChannelName, Cursor};

use super::{
    super::{Appended, Extent, LogError},
    Shared,
    record::{self, MessageKey},
    retention::Retention,
    store::{Directory, Store},
};
use crate::{
    disk::{self, journal, probe},
    publication::Draft,
};

pub(super) use self::redact::Redaction;

/// A commit holds so many appends at most: more would only make the first of them wait longer.
const MAX_COMMIT: usize = 2048;

/// And so many bytes, for the same reason.
const MAX_COMMIT_BYTES: usize = 4 * 1024 * 1024;

/// The ends of so many channels are remembered, twice: the last used, and those before.
const CACHED_EXTENTS: usize = 32 * 1024;

/// The first pause after a failure. It doubles up to `MAX_RETRY_PAUSE`.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// What goes well for so long has nothing to do with an earlier failure.
const STABLE: Duration = Duration::from_secs(60);

/// An append that waits.
pub(super) struct Append {
    pub(super) channel: ChannelName,
    pub(super) draft: Draft,
    pub(super) reply: Reply,
}

/// Who waits for it.
pub(super) struct Reply {
    pub(super) reply: oneshot::Sender<Result<Appended, LogError>>,
    /// Its place in the line, until it is answered.
    pub(super) _place: OwnedSemaphorePermit,
}

pub(super) enum Request {
    Append(Append),
    Redact(Redaction),
    /// The last one.
    Close,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    directory: Directory,
    requests: mpsc::Receiver<Request>,
    extents: Extents,
    retention: Retention,
    failure: Option<Failure>,
    /// From a failure to the next try.
    pause: Duration,
    /// When it went on after the last failure.
    recovered: Option<Instant>,
}

/// Why nothing can be written now.
struct Failure {
    error: LogError,
    retry_at: Instant,
}

/// What is to be committed, and who is to be told.
struct Commit {
    batch: WriteBatch,
    /// Offsets of this commit by message key: a retry may come while the first one is under way.
    offsets: HashMap<MessageKey, u64>,
    appended: HashMap<ChannelName, u64>,
    replies: Vec<(Reply, Appended)>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        directory: Directory,
        requests: mpsc::Receiver<Request>,
        retention: Retention,
    ) -> Self {
        Self {
            shared,
            directory,
            requests,
            extents: Extents::default(),
            retention,
            failure: None,
            pause: RETRY_PAUSE,
            recovered: None,
        }
    }

    pub(super) fn run(mut self) {
        let mut open = true;
        while open {
            let (mut waiting, mut redactions) = (Vec::new(), Vec::new());
            let mut bytes = 0;
            let mut next = match self.requests.recv_timeout(self.idle_time()) {
                Ok(request) => Some(request),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => Some(Request::Close),
            };
            while let Some(request) = next.take() {
                match request {
                    Request::Append(append) => {
                        bytes += append.draft.payload.len();
                        waiting.push(append);
                    }
                    Request::Redact(redaction) => redactions.push(redaction),
                    Request::Close => {
                        open = false;
                        break;
                    }
                }
                if waiting.len() + redactions.len() < MAX_COMMIT && bytes < MAX_COMMIT_BYTES {
                    next = self.requests.try_recv().ok();
                }
            }
            if let Err(error) = self.get_ready() {
                waiting.drain(..).for_each(|append| append.reply.answer(Err(error.clone())));
                redactions.drain(..).for_each(|redaction| redaction.answer(Err(error.clone())));
                continue;
            }
            if !waiting.is_empty() {
                self.append(waiting);
            }
            if !redactions.is_empty() {
                self.redact(redactions);
            }
            if self.retention.is_due() && self.get_ready().is_ok() {
                self.trim();
            }
        }
        self.shared.close_store();
    }

    /// How long there is nothing to do but for what comes in.
    fn idle_time(&self) -> Duration {
        match &self.failure {
            Some(failure) => failure.retry_at.saturating_duration_since(Instant::now()),
            None => self.retention.pause(),
        }
    }

    /// After this a commit can be written, as far as one can know.
    fn get_ready(&mut self) -> Result<(), LogError> {
        if self.failure.is_none() {
            let shared = self.shared.clone();
            let store = shared.store.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(Err(error)) = store.as_ref().map(Store::catch_up) {
                return Err(self.fail(&error));
            }
        }
        self.recover()
    }

    fn append(&mut self, waiting: Vec<Append>) {
        let shared = self.shared.clone();
        let store = shared.store.read().unwrap_or_else(PoisonError::into_inner);
        let Some(store) = store.as_ref() else {
            // `get_ready` saw to it.
            waiting.into_iter().for_each(|append| append.reply.answer(Err(super::closed())));
            return;
        };
        let mut commit = Commit {
            batch: store.db.batch().durability(Some(PersistMode::SyncData)),
            offsets: HashMap::new(),
            appended: HashMap::new(),
            replies: Vec::with_capacity(waiting.len()),
        };
        for Append { channel, draft, reply } in waiting {
            match self.place(store, &mut commit, &channel, draft) {
                Ok(Placed::InThisCommit(appended)) => commit.replies.push((reply, appended)),
                Ok(Placed::Before(cursor)) => reply.answer(Ok(Appended::Duplicate(cursor))),
                Err(error) => reply.answer(Err(error)),
            }
        }
        if commit.replies.is_empty() {
            return;
        }
        for (channel, appended) in &commit.appended {
            let trimmed = self.extents.get(store, channel).and_then(|extent| {
                self.retention.make_room(store, &mut commit.batch, channel, extent, *appended)
            });
            match trimmed {
                Ok(extent) => self.extents.set(channel, extent),
                // It is tried again with the next append; this one needn't fail for it.
                Err(error) => warn!(%channel, %error, "old publications can't be trimmed"),
            }
        }
        match commit.batch.commit() {
            Ok(()) => {
                commit.replies.into_iter().for_each(|(reply, appended)| reply.answer(Ok(appended)));
            }
            Err(error) => {
                let error = self.fail(&error);
                commit.replies.into_iter().for_each(|(reply, _)| reply.answer(Err(error.clone())));
            }
        }
    }

    /// Gives a draft its offset, or finds the one that it has.
    fn place(
        &mut self,
        store: &Store,
        commit: &mut Commit,
        channel: &ChannelName,
        draft: Draft,
    ) -> Result<Placed, LogError> {
        let epoch = self.directory.epoch;
        let (publisher, message_id) = (draft.publisher.as_str(), &draft.message_id);
        let key = record::message_key(channel, publisher, message_id);
        if let Some(offset) = commit.offsets.get(&key) {
            let cursor = Cursor { epoch, offset: *offset };
            return Ok(Placed::InThisCommit(Appended::Duplicate(cursor)));
        }
        let mut extent = self.extents.get(store, channel)?;
        let name = || record::message_name(channel, publisher, message_id);
        // An older version that trimmed the message knew nothing of its digest.
        if let Some(offset) = store.offset_of(&key, name)?.filter(|offset| *offset >= extent.first) {
            return Ok(Placed::Before(Cursor { epoch, offset }));
        }
        extent.top += 1;
        self.extents.set(channel, extent);
        let offset = extent.top;
        commit.batch.insert(
            &store.publications,
            record::publication_key(channel, offset),
            record::encode(&draft),
        );
        store.note_offset(&mut commit.batch, key, offset);
        commit.offsets.insert(key, offset);
        *commit.appended.entry(channel.clone()).or_default() += 1;
        let publication = Arc::new(draft.into_publication(offset));
        Ok(Placed::InThisCommit(Appended::New { epoch, publication }))
    }

    /// One step of trimming what nobody appends to.
    fn trim(&mut self) {
        let shared = self.shared.clone();
        let store = shared.store.read().unwrap_or_else(PoisonError::into_inner);
        let Some(store) = store.as_ref() else { return };
        // Synced like any other, so that only the last commit of a journal can be torn (see `journal`).
        let mut batch = store.db.batch().durability(Some(PersistMode::SyncData));
        match self.retention.step(store, &mut batch) {
            Ok(extents) => {
                if extents.is_empty() {
                    return;
                }
                match batch.commit() {
                    Ok(()) => extents.iter().for_each(|(channel, extent)| self.extents.set(channel, *extent)),
                    Err(error) => {
                        self.fail(&error);
                    }
                }
            }
            Err(error) => error!(%error, "old publications can't be trimmed"),
        }
    }

    /// From here on nothing is written, until `recover` opened the database anew.
    fn fail(&mut self, error: &fjall::Error) -> LogError {
        let path = self.directory.path.display();
        let reason = match error {
            fjall::Error::Io(error) => disk::describe(error),
            // One of fjall's workers failed, which it doesn't tell more of. Mostly this is why:
            _ => match probe(&self.directory.path) {
                Err(error) => disk::describe(&error),
                Ok(()) => format!("the database could not write in the background ({error})"),
            },
        };
        let error = LogError::Unavailable { reason: format!("{path}: {reason}") };
        error!(%path, reason, "the log can't be written");
        // Offsets of the failed commit are in there.
        self.extents = Extents::default();
        // What fails again soon is tried less often.
        let is_new = self.recovered.is_none_or(|recovered| recovered.elapsed() > STABLE);
        self.pause = if is_new { RETRY_PAUSE } else { (self.pause * 2).min(MAX_RETRY_PAUSE) };
        self.failure = Some(Failure { error: error.clone(), retry_at: Instant::now() + self.pause });
        error
    }

    /// After a failure: tries to go on, if it is time to. Readers go on with what they had until there is room.
    fn recover(&mut self) -> Result<(), LogError> {
        let Some(failure) = &mut self.failure else { return Ok(()) };
        if Instant::now() < failure.retry_at {
            return Err(failure.error.clone());
        }
        let path = &self.directory.path;
        let unavailable = |error: io::Error| {
            let reason = format!("{}: {}", path.display(), disk::describe(&error));
            LogError::Unavailable { reason }
        };
        let opened = probe(&self.directory.path).map_err(unavailable).and_then(|()| {
            self.shared.close_store();
            journal::rewrite(&self.directory.database()).map_err(unavailable)?;
            let store = Store::open(&self.directory)
                .map_err(|error| LogError::Unavailable { reason: error.to_string() })?;
            self.shared.open_store(store);
            Ok(())
        });
        match opened {
            Ok(()) => {
                info!(path = %path.display(), "the log can be written again");
                self.failure = None;
                self.recovered = Some(Instant::now());
                Ok(())
            }
            Err(error) => {
                failure.error = error.clone();
                self.pause = (self.pause * 2).min(MAX_RETRY_PAUSE);
                failure.retry_at = Instant::now() + self.pause;
                Err(error)
            }
        }
    }
}

/// Where a draft's place is.
enum Placed {
    /// Durable when this commit is.
    InThisCommit(Appended),
    /// Durable already.
    Before(Cursor),
}

impl Reply {
    fn answer(self, answer: Result<Appended, LogError>) {
        // Nobody listens if the caller dropped its future. The publication stands all the same.
        let _ = self.reply.send(answer);
    }
}

/// The ends of the channels that were written to last, as they will be after the commit under way.
#[derive(Default)]
struct Extents {
    recent: HashMap<ChannelName, Extent>,
    earlier: HashMap<ChannelName, Extent>,
}

impl Extents {
    fn get(&mut self, store: &Store, channel: &ChannelName) -> Result<Extent, LogError> {
        if let Some(extent) = self.recent.get(channel) {
            return Ok(*extent);
        }
        let extent = match self.earlier.get(channel) {
            Some(extent) => *extent,
            None => store.extent(channel)?,
        };
        self.set(channel, extent);
        Ok(extent)
    }

    fn set(&mut self, channel: &ChannelName, extent: Extent) {
        if let Some(known) = self.recent.get_mut(channel) {
            *known = extent;
            return;
        }
        if self.recent.len() >= CACHED_EXTENTS {
            self.earlier = std::mem::take(&mut self.recent);
        }
        self.recent.insert(channel.clone(), extent);
    }
}
