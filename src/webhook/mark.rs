//! Which channels may have messages that a webhook was not told of: a mark, written before a channel's first message
//! and again every few minutes, as long as messages come. A node that dies right after it acknowledged a message has
//! left the mark, and another finds the message behind the webhook's cursor.
//!
//! So a publish costs no write but one each `TRUSTED`, and nothing at all where the app has no such webhook.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use xpush_protocol::{ChannelName, Cursor};

use super::{HookEvent, Webhooks};
use crate::{
    directory::{
        Directory, DirectoryError, Record,
        record::encode,
        store::{Commit, CommitError, Key},
    },
    log::Log,
    namespace::{INBOX, Policy, Retention},
    session::{Refusal, now},
};

/// How long a node relies on a mark that it has written.
const TRUSTED: Duration = Duration::from_secs(5 * 60);
/// A mark that nobody has written for as long may go: much longer than anybody relies on it, since clocks differ.
pub(super) const KEPT: Duration = Duration::from_secs(20 * 60);
/// Marks known at once. Beyond it all are forgotten, and written again.
const KNOWN: usize = 100_000;
/// Tries where several nodes mark a channel at once.
const TRIES: usize = 8;

/// The channel had messages up to `from` when it was marked first, and gets more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) from: Cursor,
    /// When it was written last.
    pub(super) marked: u64,
}

impl Record for Mark {}

/// Those that this node has written.
#[derive(Default)]
pub(super) struct Marks(Mutex<HashMap<ChannelName, Instant>>);

impl Marks {
    fn holds(&self, channel: &ChannelName) -> bool {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(channel).is_some_and(|at| at.elapsed() < TRUSTED)
    }

    /// `at`: from before it was written.
    fn note(&self, channel: &ChannelName, at: Instant) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() >= KNOWN {
            marks.clear();
        }
        marks.insert(channel.clone(), at);
    }
}

pub(super) fn key(channel: &ChannelName) -> Key {
    Key::new(&["hook-mark", channel.app().as_str(), channel.local()])
}

impl Webhooks {
    /// Whether messages of the channel are told to somebody.
    fn follows(&self, policy: &Policy, channel: &ChannelName) -> bool {
        !self.table.is_empty()
            && matches!(policy.retention, Retention::Durable { .. })
            // What is in it is said by the server, of things that are told themselves.
            && channel.namespace() != INBOX
            && self.table.has(&channel.app(), HookEvent::MessagePublished)
    }

    /// Whether `mark` has to be awaited before a message may be appended.
    pub(crate) fn must_mark(&self, policy: &Policy, channel: &ChannelName) -> bool {
        self.follows(policy, channel) && !self.marks.holds(channel)
    }

    /// Notes, so that it lasts, that the channel gets messages.
    pub(crate) async fn mark(
        &self,
        directory: &Directory,
        log: &dyn Log,
        channel: &ChannelName,
    ) -> Result<(), Refusal> {
        let (key, began) = (key(channel), Instant::now());
        for _ in 0..TRIES {
            let present = directory.read::<Mark>(&key).await?;
            let version = present.as_ref().map(|mark| mark.version);
            let from = match present {
                Some(mark) => mark.value.from,
                None => {
                    let extent = log.extent(channel).await?;
                    Cursor { epoch: extent.epoch, offset: extent.top }
                }
            };
            let mark = Mark { from, marked: now() };
            let commit = Commit::new().expect(key.clone(), version).put(key.clone(), encode(&mark));
            match directory.store.commit(commit).await {
                Ok(()) => {
                    self.marks.note(channel, began);
                    return Ok(());
                }
                Err(CommitError::Conflict) => {}
                Err(CommitError::Store(error)) => return Err(DirectoryError::from(error).into()),
            }
        }
        Err(DirectoryError::Busy("others are marking the channel; try again".into()).into())
    }

    /// A message was appended: it is told as soon as can be.
    pub(crate) fn published(&self, policy: &Policy, channel: &ChannelName) {
        if self.follows(policy, channel) {
            for hook in self.table.of(&channel.app(), HookEvent::MessagePublished) {
                self.due.add(super::line::Line::of_messages(&hook, channel));
            }
        }
    }
}
