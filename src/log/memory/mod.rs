//! The log of what need not outlive the process: retention `recent` keeps a channel's newest publications in
//! memory, `none` keeps their order only.
//!
//! Everything happens under one short lock of one shard, so an append is done when it is polled, and what it
//! gives is ready.
//!
//! Memory is bounded whatever the namespaces say. Over the budget, room is made at once: a channel that has more than
//! its share lets go of its own oldest messages, and else the oldest of the fullest shard go. Readers see it as they
//! see all that went: by `Extent::first`. Where the id of a message went too, a retry of it is a new message.

mod channel;
mod ledger;
mod shard;
#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::{self, BoxFuture, FutureExt};
use tokio::time::Instant;
use xpush_protocol::ChannelName;

use self::{channel::Identifier, ledger::Ledger, shard::Shard};
use super::{Appended, Extent, Keep, KeepByNamespace, Log, LogError, Page, Pending, Query};
use crate::publication::Draft;

/// Channels of different shards never wait for each other. Some times the cores of a large machine.
const SHARDS: usize = 64;

/// Keeps publications in memory.
pub struct Memory {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    identifier: Identifier,
    keep: KeepByNamespace,
    capacity: Capacity,
    channels: AtomicUsize,
    ledger: Arc<Ledger>,
}

/// What may be in memory, over all channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// One more is refused.
    pub channels: usize,
    /// Of payloads, and of what is kept beside each of them and each message id. Over this the oldest go. A channel
    /// of which nothing is kept counts as a channel only.
    pub bytes: usize,
}

impl Memory {
    /// Keeps of each channel what `keep` says for its namespace (what it doesn't name keeps everything), as far as
    /// there is room for it.
    #[must_use]
    pub fn new(keep: KeepByNamespace, capacity: Capacity) -> Self {
        let now = Instant::now();
        let ledger = Arc::new(Ledger::new(capacity.bytes, SHARDS));
        Self {
            shards: (0..SHARDS)
                .map(|number| Mutex::new(Shard::new(number, Arc::clone(&ledger), now)))
                .collect(),
            hasher: RandomState::new(),
            identifier: Identifier::default(),
            keep,
            capacity,
            channels: AtomicUsize::new(0),
            ledger,
        }
    }

    fn append_now(&self, channel: &ChannelName, draft: Draft) -> Result<Appended, LogError> {
        let (now, keep) = (Instant::now(), self.keep_of(channel));
        let identity = self.identifier.of(&draft);
        let refused = || LogError::TooManyChannels { limit: self.capacity.channels };
        let mut shard = self.shard(channel);
        self.sweep_if_due(&mut shard, now);
        let share = || self.capacity.bytes / self.channels.load(Ordering::Relaxed).max(1);
        let appended = match shard.append(channel, draft, identity, keep, now, share()) {
            Ok(appended) => appended,
            Err(draft) => {
                if !self.take_place() {
                    drop(shard);
                    self.sweep_all(now);
                    shard = self.shard(channel);
                    // Another append may have made it meanwhile; then the place isn't needed.
                    if !shard.has(channel) && !self.take_place() {
                        return Err(refused());
                    }
                }
                shard.open(channel, now);
                shard.append(channel, draft, identity, keep, now, share()).map_err(|_| refused())?
            }
        };
        drop(shard);
        self.make_room();
        Ok(appended)
    }

    /// What an append brought too much goes now: every append is paid for when it is done, and no message goes
    /// twice, so this takes time in proportion to what was appended.
    fn make_room(&self) {
        while self.ledger.is_over() {
            // Emptied by another append meanwhile: then that one goes on.
            if !lock(&self.shards[self.ledger.fullest()]).let_go() {
                break;
            }
        }
    }

    fn read_now(&self, channel: &ChannelName, query: Query) -> Page {
        let (now, keep) = (Instant::now(), self.keep_of(channel));
        let mut shard = self.shard(channel);
        shard
            .with(channel, |channel| channel.read(query, keep, now))
            .unwrap_or_else(|| Page { extent: shard.empty(), publications: Vec::new() })
    }

    /// A channel that nobody has written to yet gets its place now: its epoch has to be the one that is told. Where
    /// there is no place, it is told all the same; then the first append fails as well.
    fn hold_now(&self, channel: &ChannelName) -> Extent {
        let now = Instant::now();
        let mut shard = self.shard(channel);
        if !shard.has(channel) && self.take_place() {
            shard.open(channel, now);
        }
        shard.with(channel, |channel| channel.touched = now);
        drop(shard);
        self.extent_now(channel)
    }

    fn extent_now(&self, channel: &ChannelName) -> Extent {
        let (now, keep) = (Instant::now(), self.keep_of(channel));
        let mut shard = self.shard(channel);
        let extent = shard.with(channel, |channel| {
            channel.trim(keep, now);
            channel.extent()
        });
        extent.unwrap_or_else(|| shard.empty())
    }

    fn keep_of(&self, channel: &ChannelName) -> Keep {
        self.keep.get(channel.namespace()).copied().unwrap_or_default()
    }

    fn shard(&self, channel: &ChannelName) -> MutexGuard<'_, Shard> {
        let shard = self.hasher.hash_one(channel) as usize % self.shards.len();
        lock(&self.shards[shard])
    }

    fn take_place(&self) -> bool {
        let take = |taken| (taken < self.capacity.channels).then_some(taken + 1);
        self.channels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn sweep_all(&self, now: Instant) {
        for shard in &self.shards {
            self.sweep_if_due(&mut lock(shard), now);
        }
    }

    fn sweep_if_due(&self, shard: &mut Shard, now: Instant) {
        let gone = shard.sweep_if_due(now, |channel| self.keep_of(channel));
        self.channels.fetch_sub(gone, Ordering::Relaxed);
    }
}

impl Log for Memory {
    fn append<'a>(
        &'a self,
        channel: &'a ChannelName,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Pending, LogError>> {
        async move {
            let appended = self.append_now(channel, draft)?;
            Ok(future::ready(Ok(appended)).boxed())
        }
        .boxed()
    }

    fn append_at_once(
        &self,
        channel: &ChannelName,
        draft: Draft,
    ) -> Result<Result<Appended, LogError>, Draft> {
        Ok(self.append_now(channel, draft))
    }

    fn read<'a>(&'a self, channel: &'a ChannelName, query: Query) -> BoxFuture<'a, Result<Page, LogError>> {
        async move { Ok(self.read_now(channel, query)) }.boxed()
    }

    fn redact<'a>(&'a self, channel: &'a ChannelName, offset: u64) -> BoxFuture<'a, Result<bool, LogError>> {
        async move {
            let redacted = self.shard(channel).with(channel, |channel| channel.redact(offset));
            Ok(redacted.unwrap_or(false))
        }
        .boxed()
    }

    fn extent<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        async move { Ok(self.extent_now(channel)) }.boxed()
    }

    fn hold<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        async move { Ok(self.hold_now(channel)) }.boxed()
    }
}

/// A panic under the lock leaves a channel that is whole: nothing between its changes can panic.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
