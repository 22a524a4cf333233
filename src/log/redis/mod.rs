//! The log of what need not last, shared by a cluster: retention `recent` keeps a channel's newest publications in
//! Redis, `none` keeps their order only.
//!
//! One script gives a message its offset, keeps it, lets go of the oldest, and sends it to the nodes that listen, so
//! nobody can come between. What is kept is bounded for each channel by its namespace, and a channel of which nobody
//! hears is forgotten in time. Redis gives up what it acknowledged when it dies or another server takes its part:
//! then a channel begins anew with another epoch, whatever is still there of it, as the same offset must not be given
//! to two messages.

mod line;
#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use ::redis::{Cmd, FromRedisValue, Value, from_redis_value};
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use xpush_protocol::{ChannelName, Cursor, Epoch};

use self::line::{Line, Request};
use super::{Extent, From, HOLD, Keep, KeepByNamespace, Log, LogError, Page, Pending, Query};
use crate::{
    broker::Topic,
    publication::Draft,
    redis::{Envelope, Keys, Link, LinkError, Script, placed, read, without_place},
};

/// Channels of different lines never wait for each other.
const LINES: usize = 8;
/// Drafts that wait in one line; who brings one more waits with it.
const LINE_CAPACITY: usize = 1024;
/// Channels that are asked for in one go, so that the answer comes well within its deadline.
const TOPS_AT_ONCE: usize = 256;
/// An idle channel is kept longer than it has to be, as a node that holds it may be late.
const SLACK: Duration = Duration::from_secs(60);

/// Keeps publications in Redis.
pub struct Redis {
    link: Arc<Link>,
    lines: Box<[mpsc::Sender<Request>]>,
    hasher: RandomState,
    scripts: Arc<Scripts>,
    keep: KeepByNamespace,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

struct Scripts {
    append: Script,
    extent: Script,
    read: Script,
    redact: Script,
    /// What the envelope of an appended publication begins with.
    envelope: String,
}

impl Redis {
    /// Keeps of each channel what `keep` says for its namespace (what it doesn't name keeps everything). `instance`
    /// is this run of this node, as its broker knows it.
    #[must_use]
    pub fn new(link: Arc<Link>, instance: u64, keep: KeepByNamespace) -> Self {
        let begun = |script: &str| Script::new(format!("{}{script}", include_str!("channel.lua")));
        let scripts = Arc::new(Scripts {
            append: begun(include_str!("append.lua")),
            extent: begun(include_str!("extent.lua")),
            read: begun(include_str!("read.lua")),
            redact: begun(include_str!("redact.lua")),
            envelope: Envelope::head(instance),
        });
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let line = |_| {
            let (sender, requests) = mpsc::channel(LINE_CAPACITY);
            let line = Line { link: Arc::clone(&link), scripts: Arc::clone(&scripts), requests };
            tasks.spawn(line.run(cancel.clone()));
            sender
        };
        let lines = (0..LINES).map(line).collect();
        Self { link, lines, hasher: RandomState::new(), scripts, keep, tasks, cancel }
    }

    /// Appends what is in line, and takes no more.
    pub async fn close(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn tell_extent(&self, channel: &ChannelName, hold: bool) -> Result<Extent, LogError> {
        let keys = keys(&self.link.keys, channel);
        let keep = self.keep_of(channel);
        let answer = self.link.run::<Vec<Value>>(&self.scripts.extent, &keys[..2], |call, run| {
            begin(call, run, keep);
            call.arg(u8::from(hold));
        });
        extent(&answer.await?)
    }

    async fn read_page(&self, channel: &ChannelName, query: Query) -> Result<Page, LogError> {
        let (command, from, limit) = match query.from {
            From::After(offset) => ("XRANGE", format!("({offset}-0"), query.limit),
            From::Before(None) => ("XREVRANGE", "+".to_owned(), query.limit),
            // Nothing is before the first.
            From::Before(Some(0)) => ("XREVRANGE", "+".to_owned(), 0),
            From::Before(Some(offset)) => ("XREVRANGE", format!("({offset}-0"), query.limit),
        };
        let keys = keys(&self.link.keys, channel);
        let keep = self.keep_of(channel);
        let answer = self.link.run::<Vec<Value>>(&self.scripts.read, &keys[..2], |call, run| {
            begin(call, run, keep);
            call.arg(command).arg(&from).arg(limit).arg(query.bytes);
        });
        let answer = answer.await?;
        let extent = extent(&answer)?;
        let entries = answer[3..].chunks_exact(2).map(|entry| {
            let (offset, body) = (field::<u64>(&entry[0])?, field::<Vec<u8>>(&entry[1])?);
            let damaged =
                || LogError::Damaged { reason: format!("{channel} {offset} in Redis can't be read") };
            placed(&body, offset).map(|(_, publication)| Arc::new(publication)).ok_or_else(damaged)
        });
        let publications = entries.collect::<Result<_, _>>()?;
        Ok(Page { extent, publications })
    }

    /// What is left is made of what is there; in that place of that epoch there is never anything else.
    async fn redact_one(&self, channel: &ChannelName, offset: u64) -> Result<bool, LogError> {
        let Some(before) = offset.checked_sub(1) else { return Ok(false) };
        let page = self.read_page(channel, Query { from: From::After(before), limit: 1, bytes: 0 }).await?;
        let Some(there) = page.publications.first().filter(|there| there.offset == offset) else {
            return Ok(false);
        };
        let left = without_place(channel, there.redacted());
        let keys = keys(&self.link.keys, channel);
        let answer = self.link.run::<u8>(&self.scripts.redact, &keys[..2], |call, run| {
            begin(call, run, self.keep_of(channel));
            call.arg(page.extent.epoch.0).arg(offset).arg(&left);
        });
        Ok(answer.await? == 1)
    }

    fn keep_of(&self, channel: &ChannelName) -> Keep {
        self.keep.get(channel.namespace()).copied().unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Who did not close it does not want to wait for its tasks; they end all the same.
        self.cancel.cancel();
    }
}

impl Log for Redis {
    fn append<'a>(
        &'a self,
        channel: &'a ChannelName,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Pending, LogError>> {
        async move {
            let (answer, answered) = oneshot::channel();
            let keep = self.keep_of(channel);
            let request = Request {
                keys: keys(&self.link.keys, channel),
                keep,
                draft: draft.clone(),
                answer,
                body: without_place(channel, draft.into_publication(0)),
            };
            let line = self.hasher.hash_one(channel) as usize % self.lines.len();
            let closed = || LogError::Unavailable { reason: "the log was closed".into() };
            self.lines[line].send(request).await.map_err(|_| closed())?;
            Ok(async move { answered.await.unwrap_or_else(|_| Err(closed())) }.boxed())
        }
        .boxed()
    }

    fn carries(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, channel: &'a ChannelName, query: Query) -> BoxFuture<'a, Result<Page, LogError>> {
        self.read_page(channel, query).boxed()
    }

    fn redact<'a>(&'a self, channel: &'a ChannelName, offset: u64) -> BoxFuture<'a, Result<bool, LogError>> {
        self.redact_one(channel, offset).boxed()
    }

    fn extent<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        self.tell_extent(channel, false).boxed()
    }

    fn tops<'a>(&'a self, channels: &'a [ChannelName]) -> BoxFuture<'a, Result<Vec<Cursor>, LogError>> {
        async move {
            let mut tops = Vec::with_capacity(channels.len());
            for channels in channels.chunks(TOPS_AT_ONCE) {
                let keys: Vec<_> =
                    channels.iter().map(|channel| keys(&self.link.keys, channel)[..2].to_vec()).collect();
                let answers = self.link.run_each(&self.scripts.extent, &keys, |at, call, run| {
                    begin(call, run, self.keep_of(&channels[at]));
                    call.arg(0);
                });
                for answer in answers.await {
                    let Extent { epoch, top, .. } = extent(&answer.and_then(read::<Vec<Value>>)?)?;
                    tops.push(Cursor { epoch, offset: top });
                }
            }
            Ok(tops)
        }
        .boxed()
    }

    fn hold<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        self.tell_extent(channel, true).boxed()
    }
}

/// The keys of a channel, as the scripts number them.
fn keys(keys: &Keys, channel: &ChannelName) -> [String; 3] {
    let topic = keys.topic(&Topic::Channel(channel.clone()));
    [keys.of_channel("log", channel), keys.of_channel("kept", channel), topic]
}

/// What every script is told first.
fn begin(call: &mut Cmd, run: &str, keep: Keep) {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let idle = match keep {
        Keep { count: Some(0), .. } => millis(HOLD + SLACK),
        Keep { age: Some(age), .. } => millis(age.max(HOLD) + SLACK),
        // What is kept for ever is not forgotten.
        Keep { age: None, .. } => "0".to_owned(),
    };
    call.arg(run)
        // 0 is what a channel is told to have that nobody knows.
        .arg(Epoch::random().0.max(1))
        .arg(keep.count.map_or_else(String::new, |count| count.to_string()))
        .arg(keep.age.map_or_else(String::new, millis))
        .arg(idle);
}

fn extent(answer: &[Value]) -> Result<Extent, LogError> {
    let [epoch, first, top, ..] = answer else {
        return Err(LogError::Damaged { reason: "Redis's answer is too short".into() });
    };
    Ok(Extent { epoch: Epoch(field(epoch)?), first: field(first)?, top: field(top)? })
}

fn field<T: FromRedisValue>(value: &Value) -> Result<T, LogError> {
    from_redis_value(value.clone())
        .map_err(|error| LogError::Damaged { reason: format!("Redis's answer can't be read: {error}") })
}

impl std::convert::From<LinkError> for LogError {
    fn from(error: LinkError) -> Self {
        Self::Unavailable { reason: error.to_string() }
    }
}
