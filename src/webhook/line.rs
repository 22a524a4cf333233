//! A line: what one webhook is told of one subject, in order, by one node at a time.
//!
//! What a line has come to is one entry of the directory: its cursor (for messages, whose outbox is the log), who tells
//! it and until when, how often the next one has failed. Every step compares that entry's version, so a node that was
//! taken for dead and was not finds out before it notes anything. What was told and not noted is told again, with the
//! same id: at least once.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use xpush_protocol::{AppId, ChannelName, Cursor};

use super::{
    HookEvent, Webhooks,
    mark::{self, Mark},
    notice::Notice,
    outbox::{self, DeadLetter, Entry, raw},
    table::Hook,
};
use crate::{
    directory::{
        Directory, DirectoryError, Record,
        record::{decode, encode},
        store::{Commit, CommitError, Key, Scan, StoreError},
    },
    log::{From, Log, LogError, Query},
    publication::Publication,
};

/// Messages or entries that are read at once.
const PAGE: usize = 32;
const PAGE_BYTES: usize = 256 * 1024;
/// A node that tells a line has it for one answer and as much more, and takes it anew in time.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// Milliseconds of it that have to be left beyond an answer's time.
const LEASE_SPARE: u64 = 1_000;
/// How soon a line that another node tells is looked at again.
const HELD_ELSEWHERE: Duration = Duration::from_secs(1);
/// A store or a log that fails is asked again so soon.
const BACKEND_PAUSE: Duration = Duration::from_secs(2);
/// A line that nobody tells for as long is of a webhook that is gone.
const STATE_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// After the first failure, doubled with each more.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Bytes of an answer that nobody reads.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Clocks differ: a message this much older than its webhook may still be newer.
const CLOCK_SKEW: u64 = 5_000;

/// One of a webhook's lines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Line {
    app: AppId,
    hook: String,
    source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Source {
    /// A channel's log.
    Messages(ChannelName),
    /// A subject's entries.
    Events(String),
}

/// What a line has come to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Of messages: told so far.
    pub(super) cursor: Option<Cursor>,
    /// The instance that tells it, until then (milliseconds since 1970).
    pub(super) holder: Option<String>,
    until: u64,
    /// Failures of the next one.
    attempts: u32,
    /// Not to be tried before.
    next: u64,
}

impl Record for State {}

/// When a webhook was first seen: what was before is not told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Since {
    pub(super) since: u64,
}

impl Record for Since {}

/// One thing to tell.
struct Item {
    entry: Entry,
    place: Place,
}

/// What is noted once it is told.
enum Place {
    /// Of the log.
    At(Cursor),
    /// Its entry goes.
    Entry(Key),
}

/// Why a line is left for now.
enum Pause {
    /// There is nothing more to tell; or never was.
    Done,
    After(Duration),
}

impl std::convert::From<DirectoryError> for Pause {
    fn from(error: DirectoryError) -> Self {
        debug!(%error, "a webhook's line waits for the directory");
        Self::After(BACKEND_PAUSE)
    }
}

impl std::convert::From<StoreError> for Pause {
    fn from(error: StoreError) -> Self {
        DirectoryError::from(error).into()
    }
}

impl std::convert::From<LogError> for Pause {
    fn from(error: LogError) -> Self {
        debug!(%error, "a webhook's line waits for the log");
        Self::After(BACKEND_PAUSE)
    }
}

impl Line {
    pub(super) fn of_messages(hook: &Hook, channel: &ChannelName) -> Self {
        let source = Source::Messages(channel.clone());
        Self { app: hook.app.clone(), hook: hook.webhook.id.clone(), source }
    }

    pub(super) fn of_events(app: &AppId, hook: &str, subject: &str) -> Self {
        Self { app: app.clone(), hook: hook.into(), source: Source::Events(subject.into()) }
    }

    pub(super) fn of_hook(&self) -> (AppId, String) {
        (self.app.clone(), self.hook.clone())
    }

    fn subject(&self) -> &str {
        match &self.source {
            Source::Messages(channel) => channel.local(),
            Source::Events(subject) => subject,
        }
    }

    pub(super) fn key(&self) -> Key {
        let kind = match self.source {
            Source::Messages(_) => "messages",
            Source::Events(_) => "events",
        };
        Key::new(&["hook-line", self.app.as_str(), &self.hook, kind, self.subject()])
    }
}

pub(super) fn since_key(app: &AppId, hook: &str) -> Key {
    Key::new(&["hook-since", app.as_str(), hook])
}

/// The pause after so many failures, the jitter (0 to 1) of it from half to the whole: those that failed together do not
/// come back together.
fn pause(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE).mul_f64(0.5 + jitter / 2.0)
}

fn jitter() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

/// A line that this node tells now.
struct Held<'a> {
    hooks: &'a Webhooks,
    directory: &'a Directory,
    log: &'a dyn Log,
    line: &'a Line,
    hook: &'a Hook,
    state: State,
    version: Option<u64>,
}

impl Webhooks {
    /// Tells what there is to tell of a line. Gives when it is to be looked at again, if it is.
    pub(super) async fn tell(
        &self,
        directory: &Directory,
        log: &dyn Log,
        line: &Line,
        cancel: &CancellationToken,
    ) -> Option<Duration> {
        let hook = self.table.find(&line.app, &line.hook)?;
        let mut held = match self.take(directory, log, line, &hook).await {
            Ok(held) => held,
            Err(Pause::Done) => return None,
            Err(Pause::After(after)) => return Some(after),
        };
        match held.tell_all(cancel).await {
            Pause::Done => None,
            Pause::After(after) => Some(after),
        }
    }

    /// Makes this node the one that tells the line.
    async fn take<'a>(
        &'a self,
        directory: &'a Directory,
        log: &'a dyn Log,
        line: &'a Line,
        hook: &'a Hook,
    ) -> Result<Held<'a>, Pause> {
        let present = directory.read::<State>(&line.key()).await?;
        let version = present.as_ref().map(|state| state.version);
        let state = present.map(|state| state.value).unwrap_or_default();
        let now = self.now();
        let is_elsewhere = state.holder.as_ref().is_some_and(|holder| *holder != self.instance);
        if is_elsewhere && state.until > now {
            return Err(Pause::After(HELD_ELSEWHERE));
        }
        if state.next > now {
            return Err(Pause::After(Duration::from_millis(state.next - now)));
        }
        let mut held = Held { hooks: self, directory, log, line, hook, state, version };
        if let (Source::Messages(channel), None) = (&line.source, held.state.cursor) {
            let Some(mark) = directory.read::<Mark>(&mark::key(channel)).await? else {
                return Err(Pause::Done);
            };
            held.state.cursor = Some(mark.value.from);
        }
        held.note(Commit::new()).await?;
        Ok(held)
    }
}

impl Held<'_> {
    async fn tell_all(&mut self, cancel: &CancellationToken) -> Pause {
        loop {
            match self.tell_page(cancel).await {
                Ok(true) => {}
                Ok(false) => return Pause::Done,
                Err(pause) => return pause,
            }
        }
    }

    /// Tells a page of it. `false`: there is no more, and the line is let go.
    async fn tell_page(&mut self, cancel: &CancellationToken) -> Result<bool, Pause> {
        let items = self.read().await?;
        if items.is_empty() {
            self.let_go().await?;
            return Ok(false);
        }
        for Item { entry, place } in items {
            if self.state.until
                < self.hooks.now() + self.hook.webhook.timeout().as_millis() as u64 + LEASE_SPARE
            {
                self.note(Commit::new()).await?;
            }
            let attempt = self.state.attempts + 1;
            let answer = tokio::select! {
                answer = self.post(&entry, attempt) => answer,
                () = cancel.cancelled() => {
                    self.let_go().await?;
                    return Err(Pause::Done);
                }
            };
            match answer {
                Ok(()) => {
                    (self.state.attempts, self.state.next) = (0, 0);
                    match place {
                        // Noted with the page: one write for all of it.
                        Place::At(cursor) => self.state.cursor = Some(cursor),
                        Place::Entry(key) => self.note(Commit::new().delete(key)).await?,
                    }
                }
                Err(error) => return self.failed(entry, place, error).await,
            }
        }
        self.note(Commit::new().soon()).await?;
        Ok(true)
    }

    /// It was not taken: tried again later, or given up.
    async fn failed(&mut self, entry: Entry, place: Place, error: String) -> Result<bool, Pause> {
        let (app, hook) = (&self.hook.app, &self.hook.webhook.id);
        self.state.attempts += 1;
        let attempts = self.state.attempts;
        if attempts >= self.hook.webhook.max_attempts {
            warn!(%app, %hook, delivery = entry.id, attempts, error, "a webhook's delivery is given up");
            let letter = DeadLetter::new(hook, self.line.subject(), entry, attempts, error);
            let mut commit = Commit::new().bury(app, &letter);
            (self.state.attempts, self.state.next) = (0, 0);
            match place {
                Place::At(cursor) => self.state.cursor = Some(cursor),
                Place::Entry(key) => commit = commit.delete(key),
            }
            self.note(commit).await?;
            return Ok(true);
        }
        let after = pause(attempts, jitter());
        info!(%app, %hook, delivery = entry.id, attempts, error, ?after, "a webhook's delivery failed");
        self.state.next = self.hooks.now() + after.as_millis() as u64;
        self.let_go().await?;
        Err(Pause::After(after))
    }

    async fn post(&self, entry: &Entry, attempt: u32) -> Result<(), String> {
        let Entry { id, event, time, data } = entry;
        let (app, hook) = (&self.hook.app, self.hook.webhook.id.as_str());
        let notice = Notice { id, event: *event, app, hook, time: *time, data };
        match self.hooks.dial().call(notice.call(self.hook, attempt, ANSWER_LIMIT)).await {
            Ok(answer) if answer.is_success() => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What comes next.
    async fn read(&mut self) -> Result<Vec<Item>, Pause> {
        match &self.line.source {
            Source::Messages(channel) => self.messages(channel).await,
            Source::Events(subject) => {
                let prefix = outbox::entries(&self.line.app, &self.line.hook, subject);
                let scan = Scan { limit: PAGE, ..Scan::of(prefix) };
                let mut items = Vec::new();
                for (key, stored) in self.directory.store.scan(scan).await? {
                    let entry = decode::<Entry>(&key, &stored)?.value;
                    items.push(Item { entry, place: Place::Entry(key) });
                }
                Ok(items)
            }
        }
    }

    async fn messages(&mut self, channel: &ChannelName) -> Result<Vec<Item>, Pause> {
        let since = self.since().await?;
        loop {
            let cursor = self.state.cursor;
            let offset = cursor.map_or(0, |cursor| cursor.offset);
            let query = Query { from: From::After(offset), limit: PAGE, bytes: PAGE_BYTES };
            let page = self.log.read(channel, query).await?;
            let epoch = page.extent.epoch;
            if cursor.is_some_and(|cursor| cursor.epoch != epoch) {
                // Another log than the one that was told of: all of it is new.
                self.state.cursor = Some(Cursor { epoch, offset: 0 });
                continue;
            }
            if page.publications.is_empty() {
                return Ok(Vec::new());
            }
            if page.extent.first > offset + 1 {
                let (from, to) = (offset + 1, page.extent.first - 1);
                warn!(%channel, hook = self.hook.webhook.id, from, to, "messages went before a webhook was told of them");
            }
            let newest = page.publications.last().map(|last| Cursor { epoch, offset: last.offset });
            let items: Vec<_> = page
                .publications
                .iter()
                .filter(|publication| publication.time + CLOCK_SKEW >= since)
                .map(|publication| item(channel, Cursor { epoch, offset: publication.offset }, publication))
                .collect();
            if !items.is_empty() {
                return Ok(items);
            }
            // From before the webhook.
            self.state.cursor = newest;
            self.note(Commit::new().soon()).await?;
        }
    }

    async fn since(&self) -> Result<u64, Pause> {
        let key = since_key(&self.line.app, &self.line.hook);
        let since = self.directory.read::<Since>(&key).await?;
        // `run` writes it as soon as it sees the webhook.
        since.map(|since| since.value.since).ok_or(Pause::After(HELD_ELSEWHERE))
    }

    /// Milliseconds.
    fn lease(&self) -> u64 {
        (self.hook.webhook.timeout() + LEASE_MARGIN).as_millis() as u64
    }

    /// Notes what the line has come to, and what this commit does, if the line is still this node's.
    async fn note(&mut self, commit: Commit) -> Result<(), Pause> {
        self.state.holder = Some(self.hooks.instance.clone());
        self.state.until = self.hooks.now() + self.lease();
        let key = self.line.key();
        let commit = commit.expect(key.clone(), self.version).put_until(
            key.clone(),
            encode(&self.state),
            SystemTime::now() + STATE_KEPT,
        );
        self.commit(commit).await?;
        match self.directory.read::<State>(&key).await? {
            Some(written) if written.value.holder == self.state.holder => {
                self.version = Some(written.version);
                Ok(())
            }
            _ => Err(Pause::After(HELD_ELSEWHERE)),
        }
    }

    /// Lets another node, or this one later, go on. A line of entries without any is forgotten.
    async fn let_go(&mut self) -> Result<(), Pause> {
        (self.state.holder, self.state.until) = (None, 0);
        let key = self.line.key();
        let commit = Commit::new().soon().expect(key.clone(), self.version);
        let is_over = self.state.cursor.is_none() && self.state.next == 0;
        let commit = if is_over {
            commit.delete(key)
        } else {
            commit.put_until(key, encode(&self.state), SystemTime::now() + STATE_KEPT)
        };
        self.commit(commit).await
    }

    async fn commit(&self, commit: Commit) -> Result<(), Pause> {
        match self.directory.store.commit(commit).await {
            Ok(()) => Ok(()),
            // Another node has it.
            Err(CommitError::Conflict) => Err(Pause::After(HELD_ELSEWHERE)),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}

/// A message as it is told.
fn item(channel: &ChannelName, cursor: Cursor, publication: &Publication) -> Item {
    let frame = publication.to_frame(channel, Some(cursor.epoch));
    let data = raw(&frame);
    let id = format!("m-{}-{}-{}", channel.local(), cursor.epoch, cursor.offset);
    let entry = Entry { id, event: HookEvent::MessagePublished, time: publication.time, data };
    Item { entry, place: Place::At(cursor) }
}
