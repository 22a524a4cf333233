//! What is to be told and has not been: kept in the directory, written in the commit that makes it true, so that neither
//! is there without the other. And what could not be told at last: dead letters.
//!
//! `["hook", app, hook, subject, sequence]` is an entry; those of one subject (a channel, a user) are told in the order of
//! their sequence, which begins with the time. Messages have no entries: the log is their outbox (`line`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use xpush_protocol::{AppId, SessionId};

use super::HookEvent;
use crate::{
    directory::{
        Directory, DirectoryError, Page, PageQuery, Record, Result,
        record::encode,
        store::{Commit, Key, Prefix},
    },
    session::now,
};

/// An entry that could not be told for as long goes by itself: its webhook is gone, or nobody misses it.
const ENTRY_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// An operator has as long to see a dead letter.
const DEAD_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Something that happened, to be told to one webhook.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The delivery's id.
    pub(super) id: String,
    pub(super) event: HookEvent,
    pub(super) time: u64,
    /// As it was: a message's numbers are its publisher's.
    pub(super) data: Box<RawValue>,
}

impl Record for Entry {}

/// A delivery that was given up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    pub id: String,
    pub hook: String,
    /// What is told in one order: a channel, or a user.
    pub subject: String,
    /// As receivers know it.
    pub delivery: String,
    pub event: HookEvent,
    /// When it happened, and when it was given up.
    pub time: u64,
    pub failed: u64,
    pub attempts: u32,
    /// What the last attempt came to.
    pub error: String,
    pub data: Box<RawValue>,
}

impl Record for DeadLetter {}

/// Sorts by time, in microseconds: what one node does one after the other is further apart.
fn sequence() -> String {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    format!("{micros:018}-{}", SessionId::random())
}

/// A value as text. What can't be written is `null`; nothing here can't.
pub(super) fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

pub(super) fn entries(app: &AppId, hook: &str, subject: &str) -> Prefix {
    Prefix::new(&["hook", app.as_str(), hook, subject])
}

impl Commit {
    /// Tells the app's webhooks of it, if this is done. `subject`: what keeps its order, a channel or a user, by its local
    /// name. Costs nothing where no webhook wants it.
    #[must_use]
    pub(crate) fn after(
        self,
        directory: &Directory,
        event: HookEvent,
        app: &AppId,
        subject: &str,
        data: impl FnOnce() -> Value,
    ) -> Self {
        let hooks = directory.hooks.of(app, event);
        if hooks.is_empty() {
            return self;
        }
        let (data, until) = (raw(&data()), SystemTime::now() + ENTRY_KEPT);
        hooks.iter().fold(self, |commit, hook| {
            let sequence = sequence();
            let id = format!("e-{sequence}");
            let entry = Entry { id, event, time: now(), data: data.clone() };
            let key = Key::new(&["hook", app.as_str(), &hook.webhook.id, subject, &sequence]);
            commit.put_until(key, encode(&entry), until)
        })
    }

    /// Gives one up.
    #[must_use]
    pub(super) fn bury(self, app: &AppId, letter: &DeadLetter) -> Self {
        let key = Key::new(&["dead", app.as_str(), &letter.id]);
        self.put_until(key, encode(letter), SystemTime::now() + DEAD_KEPT)
    }
}

impl DeadLetter {
    pub(super) fn new(hook: &str, subject: &str, entry: Entry, attempts: u32, error: String) -> Self {
        let Entry { id: delivery, event, time, data } = entry;
        Self {
            id: sequence(),
            hook: hook.into(),
            subject: subject.into(),
            delivery,
            event,
            time,
            failed: now(),
            attempts,
            error,
            data,
        }
    }
}

impl Directory {
    /// What an app's webhooks could not be told, the oldest first.
    pub async fn dead_letters(&self, app: &AppId, query: PageQuery) -> Result<Page<DeadLetter>> {
        let page = self.page::<DeadLetter>(Prefix::new(&["dead", app.as_str()]), query).await?;
        Ok(page.filter_map(|_, letter| Some(letter)))
    }

    /// Has one told again, with the id that it had. It comes behind what waits of its subject.
    pub async fn retry_dead_letter(&self, app: &AppId, id: &str) -> Result<()> {
        let key = &Key::new(&["dead", app.as_str(), id]);
        self.change(|| async {
            let found = self.read::<DeadLetter>(key).await?.ok_or(DirectoryError::NotFound("dead letter"))?;
            let DeadLetter { hook, subject, delivery, event, time, data, .. } = found.value;
            if self.hooks.find(app, &hook).is_none() {
                let message = format!("there is no webhook {hook:?} any more to which it could be sent");
                return Err(DirectoryError::Invalid(message));
            }
            let entry = Entry { id: delivery, event, time, data };
            let place = Key::new(&["hook", app.as_str(), &hook, &subject, &sequence()]);
            let commit = Commit::new()
                .expect(key.clone(), Some(found.version))
                .delete(key.clone())
                .put_until(place, encode(&entry), SystemTime::now() + ENTRY_KEPT);
            Ok((commit, ()))
        })
        .await
    }

    pub async fn delete_dead_letter(&self, app: &AppId, id: &str) -> Result<()> {
        let key = &Key::new(&["dead", app.as_str(), id]);
        self.change(|| async {
            let found = self.read::<DeadLetter>(key).await?.ok_or(DirectoryError::NotFound("dead letter"))?;
            Ok((Commit::new().expect(key.clone(), Some(found.version)).delete(key.clone()), ()))
        })
        .await
    }
}
