//! The one thread that writes: it takes what is waiting, compares versions, commits all that fits with one sync, and
//! answers. While it syncs, the next group gathers. Between groups it takes away what has expired.
//!
//! Nothing is answered before the sync, a conflict neither: it may come from a commit of the same group, and who reads
//! again must find that one. A group that can't be written takes all its commits with it, and then nothing is written
//! until the database was opened anew: what of it reached the disk is known only then.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime},
};

use fjall::PersistMode;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{error, info, warn};

use super::{
    super::{Commit, CommitError, Key, StoreError},
    Shared, closed,
    database::{Database, Folder, META_VERSION, read_failed},
    record,
};
use crate::disk::{catch_up, describe, journal, probe};

/// A group holds so many commits at most: more would only make the first of them wait longer.
const GROUP_COMMITS: usize = 1024;

/// And so many bytes, for the same reason; a single commit may be larger.
const GROUP_BYTES: usize = 4 << 20;

/// From one look for what has expired to the next. It is hidden from reads at its time, so this only frees the room.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Expired entries that one commit takes away, so that nobody waits long for it.
const SWEEP_STEP: usize = 500;

/// The first pause after a failure. It doubles up to `MAX_RETRY_PAUSE`.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(5);

type Answer = Result<(), CommitError>;

/// A commit that waits.
pub(super) struct Waiting {
    pub(super) commit: Commit,
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<Answer>,
    /// Its place in the line, until it is answered.
    pub(super) _place: OwnedSemaphorePermit,
}

pub(super) enum Request {
    Commit(Waiting),
    /// The last one.
    Close,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    folder: Folder,
    requests: mpsc::Receiver<Request>,
    /// The last one that was given.
    version: u64,
    next_sweep: Instant,
    failure: Option<Failure>,
    /// From a failure to the next try.
    pause: Duration,
}

/// Why nothing can be written now.
struct Failure {
    error: StoreError,
    retry_at: Instant,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        folder: Folder,
        requests: mpsc::Receiver<Request>,
        version: u64,
    ) -> Self {
        // What expired while it was closed goes first.
        let next_sweep = Instant::now();
        Self { shared, folder, requests, version, next_sweep, failure: None, pause: RETRY_PAUSE }
    }

    pub(super) fn run(mut self) {
        let mut open = true;
        while open {
            let waiting = self.gather(&mut open);
            if let Err(error) = self.get_ready() {
                waiting.into_iter().for_each(|waiting| waiting.answer(Err(error.clone().into())));
                continue;
            }
            if !waiting.is_empty() {
                self.write(waiting);
            }
            if open && Instant::now() >= self.next_sweep && self.get_ready().is_ok() {
                self.sweep();
            }
        }
        self.shared.close_database();
    }

    /// What is there, at once; what comes first, if nothing is.
    fn gather(&self, open: &mut bool) -> Vec<Waiting> {
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        let mut next = match self.requests.recv_timeout(self.idle_time()) {
            Ok(request) => Some(request),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => Some(Request::Close),
        };
        while let Some(request) = next.take() {
            match request {
                Request::Commit(commit) => {
                    bytes += commit.bytes;
                    waiting.push(commit);
                }
                Request::Close => {
                    *open = false;
                    break;
                }
            }
            if waiting.len() < GROUP_COMMITS && bytes < GROUP_BYTES {
                next = self.requests.try_recv().ok();
            }
        }
        waiting
    }

    fn idle_time(&self) -> Duration {
        let until = self.failure.as_ref().map_or(self.next_sweep, |failure| failure.retry_at);
        until.saturating_duration_since(Instant::now())
    }

    /// After this a group can be written, as far as one can know.
    fn get_ready(&mut self) -> Result<(), StoreError> {
        if self.failure.is_none() {
            let shared = Arc::clone(&self.shared);
            let database = shared.database.read().unwrap_or_else(PoisonError::into_inner);
            let caught_up = database.as_ref().map(|database| {
                catch_up(&database.db, [&database.entries, &database.expiring, &database.meta].into_iter())
            });
            if let Some(Err(error)) = caught_up {
                return Err(self.fail(&error));
            }
        }
        self.recover()
    }

    fn write(&mut self, waiting: Vec<Waiting>) {
        let shared = Arc::clone(&self.shared);
        let database = shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = database.as_ref() else {
            // `get_ready` saw to it.
            waiting.into_iter().for_each(|waiting| waiting.answer(Err(closed().into())));
            return;
        };
        let mut group = Group::new(database, self.version);
        let mut answers = Vec::with_capacity(waiting.len());
        for mut waiting in waiting {
            let commit = std::mem::take(&mut waiting.commit);
            answers.push((waiting, group.add(commit)));
        }
        match group.commit() {
            Ok(version) => {
                self.version = version;
                answers.into_iter().for_each(|(waiting, answer)| waiting.answer(answer));
            }
            Err(error) => {
                let error = self.fail(&error);
                answers.into_iter().for_each(|(waiting, _)| waiting.answer(Err(error.clone().into())));
            }
        }
    }

    /// One step of taking away what has expired. If there is more, the next step comes after the next group.
    fn sweep(&mut self) {
        let shared = Arc::clone(&self.shared);
        let database = shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = database.as_ref() else { return };
        let mut group = Group::new(database, self.version);
        match group.add_expired() {
            Ok(SWEEP_STEP) => {}
            Ok(_) => self.next_sweep = Instant::now() + SWEEP_INTERVAL,
            Err(error) => {
                warn!(%error, "expired entries of the directory can't be taken away");
                self.next_sweep = Instant::now() + SWEEP_INTERVAL;
                return;
            }
        }
        if let Err(error) = group.commit() {
            self.fail(&error);
        }
    }

    /// From here on nothing is written, until `recover` opened the database anew.
    fn fail(&mut self, error: &fjall::Error) -> StoreError {
        let path = self.folder.path.display();
        let reason = match error {
            fjall::Error::Io(error) => describe(error),
            // One of fjall's workers failed, which it doesn't tell more of. Mostly this is why:
            _ => match probe(&self.folder.path) {
                Err(error) => describe(&error),
                Ok(()) => format!("the database could not write in the background ({error})"),
            },
        };
        error!(%path, reason, "the directory can't be written");
        let error = StoreError::Unavailable(format!("{path}: {reason}"));
        self.failure = Some(Failure { error: error.clone(), retry_at: Instant::now() + self.pause });
        error
    }

    /// After a failure: tries to go on, if it is time to. Readers go on with what they had until there is room.
    fn recover(&mut self) -> Result<(), StoreError> {
        let Some(failure) = &mut self.failure else { return Ok(()) };
        if Instant::now() < failure.retry_at {
            return Err(failure.error.clone());
        }
        let path = &self.folder.path;
        let unavailable =
            |error: io::Error| StoreError::Unavailable(format!("{}: {}", path.display(), describe(&error)));
        let opened = probe(path).map_err(unavailable).and_then(|()| {
            self.shared.close_database();
            journal::rewrite(&self.folder.database()).map_err(unavailable)?;
            let database = Database::open(&self.folder)?;
            // What of the failed group is there had versions that nobody else may get.
            let version = database.version()?;
            self.shared.open_database(database);
            Ok(version)
        });
        match opened {
            Ok(version) => {
                info!(path = %path.display(), "the directory can be written again");
                self.version = version;
                self.failure = None;
                self.pause = RETRY_PAUSE;
                Ok(())
            }
            Err(error) => {
                // Whatever it is, it is tried again.
                let error = StoreError::Unavailable(error.to_string());
                failure.error = error.clone();
                self.pause = (self.pause * 2).min(MAX_RETRY_PAUSE);
                failure.retry_at = Instant::now() + self.pause;
                Err(error)
            }
        }
    }
}

impl Waiting {
    fn answer(self, answer: Answer) {
        // Nobody listens if the caller dropped its future. The commit stands all the same.
        let _ = self.reply.send(answer);
    }
}

/// The version of an entry and when it goes.
type Standing = Option<(u64, Option<SystemTime>)>;

/// Commits that are written together, each seeing what those before it wrote.
struct Group<'a> {
    database: &'a Database,
    /// What stands at each key afterwards, as bytes. Gathered here and not in a batch of fjall's, where a key that is
    /// written twice has two values of one sequence number.
    entries: HashMap<Key, Option<Vec<u8>>>,
    standing: HashMap<Key, Standing>,
    /// Whether the key of an expiry is there afterwards.
    expiring: HashMap<Vec<u8>, bool>,
    version: u64,
    now: SystemTime,
}

impl<'a> Group<'a> {
    fn new(database: &'a Database, version: u64) -> Self {
        let (entries, standing, expiring) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { database, entries, standing, expiring, version, now: SystemTime::now() }
    }

    fn add(&mut self, commit: Commit) -> Answer {
        for (key, expected) in &commit.expects {
            let now = self.now;
            let live = |(_, expires): &(u64, Option<SystemTime>)| expires.is_none_or(|at| at > now);
            let found = self.standing(key)?.filter(live).map(|(version, _)| version);
            if found != *expected {
                return Err(CommitError::Conflict);
            }
        }
        // What can fail comes before what counts.
        for write in &commit.writes {
            self.standing(&write.key)?;
        }
        for write in commit.writes {
            self.version += 1;
            let standing = write.value.as_ref().map(|_| (self.version, write.expires));
            let before = self.standing.insert(write.key.clone(), standing).flatten();
            if let Some(expires) = before.and_then(|(_, expires)| expires) {
                self.expiring.insert(record::expiry_key(expires, &write.key), false);
            }
            if let Some(expires) = write.expires.filter(|_| standing.is_some()) {
                self.expiring.insert(record::expiry_key(expires, &write.key), true);
            }
            let bytes = write.value.map(|value| record::encode(&value, self.version, write.expires));
            self.entries.insert(write.key, bytes);
        }
        Ok(())
    }

    /// Gives how many it found, `SWEEP_STEP` at most.
    fn add_expired(&mut self) -> Result<usize, StoreError> {
        let until = record::millis(self.now).to_be_bytes().to_vec();
        let mut found = 0;
        for guard in self.database.expiring.range(..until).take(SWEEP_STEP) {
            let index = guard.key().map_err(|error| read_failed(&error))?;
            let (expires, key) = record::parse_expiry_key(&index)?;
            let standing = self.standing(&key)?.and_then(|(_, expires)| expires).map(record::millis);
            if standing == Some(expires) {
                self.entries.insert(key, None);
            }
            self.expiring.insert(index.to_vec(), false);
            found += 1;
        }
        Ok(found)
    }

    /// Gives the last version.
    fn commit(self) -> fjall::Result<u64> {
        if self.entries.is_empty() && self.expiring.is_empty() {
            return Ok(self.version);
        }
        let Database { db, entries, expiring, meta } = self.database;
        let mut batch = db.batch().durability(Some(PersistMode::SyncData));
        for (key, bytes) in self.entries {
            match bytes {
                Some(bytes) => batch.insert(entries, key.as_str(), bytes),
                None => batch.remove(entries, key.as_str()),
            }
        }
        for (key, is_there) in self.expiring {
            if is_there {
                batch.insert(expiring, key, []);
            } else {
                batch.remove(expiring, key);
            }
        }
        batch.insert(meta, META_VERSION, self.version.to_be_bytes());
        batch.commit()?;
        Ok(self.version)
    }

    /// What is at the key now. It is kept, so that a group asks for each key once.
    fn standing(&mut self, key: &Key) -> Result<Standing, StoreError> {
        if let Some(standing) = self.standing.get(key) {
            return Ok(*standing);
        }
        let entry = self.database.stored(&self.database.db.snapshot(), key)?;
        let standing = entry.map(|entry| (entry.version, entry.expires));
        self.standing.insert(key.clone(), standing);
        Ok(standing)
    }
}
