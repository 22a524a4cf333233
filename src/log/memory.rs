//! The log of what need not outlive the process: retention `recent` keeps a channel's newest publications in
//! memory, `none` keeps their order only.
//!
//! Everything happens under one short lock of one shard, so an append is done when it is polled, and what it
//! gives is ready.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    iter,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{self, BoxFuture, FutureExt};
use tokio::time::Instant;
use xpush_protocol::{ChannelName, Cursor, Epoch, MessageId};

use super::{Appended, Extent, From, Keep, KeepByNamespace, Log, LogError, Page, Pending, Query};
use crate::publication::{Draft, Publication, Publisher};

/// Channels of different shards never wait for each other. Some times the cores of a large machine.
const SHARDS: usize = 64;

/// A retry comes at most so many messages of its channel later: where less is kept, the ids of so many are.
const DEDUP_WINDOW: usize = 128;

/// A channel of which nothing can be read is forgotten after this time, with the ids of its last messages: a
/// publisher that retries has long given up.
const IDLE: Duration = super::HOLD;

/// Looking for idle channels takes time in proportion to the channels of a shard, so it isn't done at every append.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Keeps publications in memory.
pub struct Memory {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    keep: KeepByNamespace,
    limit: usize,
    channels: AtomicUsize,
}

struct Shard {
    channels: HashMap<ChannelName, Channel>,
    /// The epoch of a channel that isn't there yet. It changes whenever a channel is forgotten, so no channel has
    /// one epoch in two lives, and yet nothing needs to be kept of those that are gone.
    next_epoch: Epoch,
    swept: Instant,
}

struct Channel {
    epoch: Epoch,
    top: u64,
    /// The newest is `top`; there is no hole.
    kept: VecDeque<Kept>,
    offsets: HashMap<Identity, u64>,
    /// The keys of `offsets`, oldest first.
    identities: VecDeque<Identity>,
    touched: Instant,
}

struct Kept {
    since: Instant,
    publication: Arc<Publication>,
}

type Identity = (Publisher, MessageId);

impl Memory {
    /// Keeps of each channel what `keep` says for its namespace, and has at most `limit` channels. Beware that a
    /// namespace that `keep` doesn't name keeps everything.
    #[must_use]
    pub fn new(keep: KeepByNamespace, limit: usize) -> Self {
        let now = Instant::now();
        let shard =
            || Mutex::new(Shard { channels: HashMap::new(), next_epoch: Epoch::random(), swept: now });
        Self {
            shards: iter::repeat_with(shard).take(SHARDS).collect(),
            hasher: RandomState::new(),
            keep,
            limit,
            channels: AtomicUsize::new(0),
        }
    }

    fn append_now(&self, channel: &ChannelName, draft: Draft) -> Result<Appended, LogError> {
        let (now, keep) = (Instant::now(), self.keep_of(channel));
        let mut shard = self.shard(channel);
        self.sweep_if_due(&mut shard, now);
        if !shard.channels.contains_key(channel) {
            if !self.take_place() {
                drop(shard);
                self.sweep_all(now);
                shard = self.shard(channel);
                // Another append may have made it meanwhile; then the place isn't needed.
                if !shard.channels.contains_key(channel) && !self.take_place() {
                    return Err(LogError::TooManyChannels { limit: self.limit });
                }
            }
            let epoch = shard.next_epoch;
            shard.channels.entry(channel.clone()).or_insert_with(|| Channel::new(epoch, now));
        }
        // It was made just now, if it wasn't there.
        let Some(channel) = shard.channels.get_mut(channel) else {
            return Err(LogError::TooManyChannels { limit: self.limit });
        };
        Ok(channel.append(draft, keep, now))
    }

    fn read_now(&self, channel: &ChannelName, query: Query) -> Page {
        let (now, keep) = (Instant::now(), self.keep_of(channel));
        let mut shard = self.shard(channel);
        match shard.channels.get_mut(channel) {
            Some(channel) => channel.read(query, keep, now),
            None => Page { extent: shard.empty(), publications: Vec::new() },
        }
    }

    /// A channel that nobody has written to yet gets its place now: its epoch has to be the one that is told. Where
    /// there is no place, it is told all the same; then the first append fails as well.
    fn hold_now(&self, channel: &ChannelName) -> Extent {
        let now = Instant::now();
        let mut shard = self.shard(channel);
        let epoch = shard.next_epoch;
        if !shard.channels.contains_key(channel) && self.take_place() {
            shard.channels.insert(channel.clone(), Channel::new(epoch, now));
        }
        if let Some(channel) = shard.channels.get_mut(channel) {
            channel.touched = now;
        }
        drop(shard);
        self.extent_now(channel)
    }

    fn extent_now(&self, channel: &ChannelName) -> Extent {
        let (now, keep) = (Instant::now(), self.keep_of(channel));
        let mut shard = self.shard(channel);
        match shard.channels.get_mut(channel) {
            Some(channel) => {
                channel.trim(keep, now);
                channel.extent()
            }
            None => shard.empty(),
        }
    }

    fn keep_of(&self, channel: &ChannelName) -> Keep {
        self.keep.get(channel.namespace()).copied().unwrap_or_default()
    }

    fn shard(&self, channel: &ChannelName) -> MutexGuard<'_, Shard> {
        let shard = self.hasher.hash_one(channel) as usize % self.shards.len();
        lock(&self.shards[shard])
    }

    fn take_place(&self) -> bool {
        let take = |taken| (taken < self.limit).then_some(taken + 1);
        self.channels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn sweep_all(&self, now: Instant) {
        for shard in &self.shards {
            self.sweep_if_due(&mut lock(shard), now);
        }
    }

    /// Lets go of what is too old, and of channels that are idle.
    fn sweep_if_due(&self, shard: &mut Shard, now: Instant) {
        if now - shard.swept < SWEEP_INTERVAL {
            return;
        }
        shard.swept = now;
        let before = shard.channels.len();
        shard.channels.retain(|name, channel| {
            channel.trim(self.keep_of(name), now);
            !channel.kept.is_empty() || now - channel.touched < IDLE
        });
        let gone = before - shard.channels.len();
        if gone > 0 {
            shard.next_epoch = Epoch(shard.next_epoch.0.wrapping_add(1));
            self.channels.fetch_sub(gone, Ordering::Relaxed);
        }
    }
}

impl Shard {
    fn empty(&self) -> Extent {
        Extent { epoch: self.next_epoch, first: 1, top: 0 }
    }
}

impl Channel {
    fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            epoch,
            top: 0,
            kept: VecDeque::new(),
            offsets: HashMap::new(),
            identities: VecDeque::new(),
            touched: now,
        }
    }

    fn append(&mut self, draft: Draft, keep: Keep, now: Instant) -> Appended {
        self.touched = now;
        let identity = (draft.publisher.clone(), draft.message_id.clone());
        if let Some(offset) = self.offsets.get(&identity) {
            return Appended::Duplicate(Cursor { epoch: self.epoch, offset: *offset });
        }
        self.top += 1;
        self.offsets.insert(identity.clone(), self.top);
        self.identities.push_back(identity);
        let publication = Arc::new(draft.into_publication(self.top));
        self.kept.push_back(Kept { since: now, publication: publication.clone() });
        self.trim(keep, now);
        Appended::New { epoch: self.epoch, publication }
    }

    fn trim(&mut self, keep: Keep, now: Instant) {
        let count = keep.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        while let Some(oldest) = self.kept.front()
            && (self.kept.len() > count || keep.age.is_some_and(|age| now - oldest.since >= age))
        {
            self.kept.pop_front();
        }
        // By size, not by age: what is too old to be read may still be retried.
        let window = self.kept.len().max(DEDUP_WINDOW).max(keep.count.map_or(0, |_| count));
        while self.identities.len() > window
            && let Some(identity) = self.identities.pop_front()
        {
            self.offsets.remove(&identity);
        }
    }

    fn extent(&self) -> Extent {
        Extent { epoch: self.epoch, first: self.top - self.kept.len() as u64 + 1, top: self.top }
    }

    fn read(&mut self, query: Query, keep: Keep, now: Instant) -> Page {
        self.trim(keep, now);
        let extent = self.extent();
        // How many of the kept are older than the offset `before`.
        let older = |before: u64| before.clamp(extent.first, extent.top + 1) - extent.first;
        let shared = |kept: &Kept| kept.publication.clone();
        let publications = match query.from {
            From::After(offset) => {
                let skipped = older(offset.saturating_add(1)) as usize;
                query.page(self.kept.range(skipped..).map(shared))
            }
            From::Before(offset) => {
                let end = older(offset.unwrap_or(u64::MAX)) as usize;
                query.page(self.kept.range(..end).rev().map(shared))
            }
        };
        Page { extent, publications }
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

    fn read<'a>(&'a self, channel: &'a ChannelName, query: Query) -> BoxFuture<'a, Result<Page, LogError>> {
        async move { Ok(self.read_now(channel, query)) }.boxed()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fixture::{append, channel, draft, keep, offsets};

    const MINUTE: Duration = Duration::from_secs(60);

    fn recent(count: u64, age: Option<Duration>) -> Memory {
        Memory::new(keep("room", Keep { count: Some(count), age }), 1000)
    }

    #[tokio::test]
    async fn the_newest_are_kept() {
        let (log, room) = (recent(3, None), channel("room:a"));
        for n in 1..=5 {
            append(&log, &room, draft("ann", n)).await;
        }
        let page = log.read(&room, Query { from: From::After(0), limit: 10, bytes: 1000 }).await.unwrap();
        assert_eq!((page.extent.first, page.extent.top), (3, 5));
        assert_eq!(offsets(&page), [3, 4, 5]);
    }

    #[tokio::test]
    async fn a_channel_that_keeps_nothing_still_counts_and_knows_duplicates() {
        let (log, room) = (recent(0, None), channel("room:a"));
        let first = append(&log, &room, draft("ann", 1)).await;
        for n in 2..=100 {
            append(&log, &room, draft("ann", n)).await;
        }
        let again = append(&log, &room, draft("ann", 1)).await;
        assert_eq!(again, Appended::Duplicate(first.cursor()));
        let extent = log.extent(&room).await.unwrap();
        assert_eq!((extent.first, extent.top), (101, 100));
    }

    #[tokio::test]
    async fn the_ids_that_are_remembered_are_bounded() {
        let (log, room) = (recent(1, None), channel("room:a"));
        for n in 0..=DEDUP_WINDOW as u64 {
            append(&log, &room, draft("ann", n)).await;
        }
        assert!(matches!(append(&log, &room, draft("ann", 1)).await, Appended::Duplicate(_)));
        assert!(matches!(append(&log, &room, draft("ann", 0)).await, Appended::New { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_old_is_not_read_and_the_extent_says_so() {
        let (log, room) = (recent(100, Some(MINUTE)), channel("room:a"));
        append(&log, &room, draft("ann", 1)).await;
        tokio::time::advance(MINUTE / 2).await;
        append(&log, &room, draft("ann", 2)).await;
        tokio::time::advance(MINUTE / 2).await;
        let page = log.read(&room, Query { from: From::After(0), limit: 10, bytes: 1000 }).await.unwrap();
        assert_eq!((page.extent.first, offsets(&page)), (2, vec![2]));
        tokio::time::advance(MINUTE / 2).await;
        let extent = log.extent(&room).await.unwrap();
        assert_eq!((extent.first, extent.top), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_channel_is_forgotten_and_comes_back_in_another_epoch() {
        let (log, room) =
            (Memory::new(keep("room", Keep { count: Some(0), age: None }), 1), channel("room:a"));
        let before = append(&log, &room, draft("ann", 1)).await.cursor();
        let refused = log.append(&channel("room:b"), draft("ann", 1)).await.err();
        assert!(matches!(refused, Some(LogError::TooManyChannels { limit: 1 })));
        tokio::time::advance(IDLE).await;
        append(&log, &channel("room:b"), draft("ann", 1)).await;
        tokio::time::advance(IDLE).await;
        let after = append(&log, &room, draft("ann", 2)).await.cursor();
        assert_eq!((before.offset, after.offset), (1, 1));
        assert_ne!(before.epoch, after.epoch);
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_that_is_held_keeps_its_epoch_even_before_its_first_message() {
        let (log, room) =
            (Memory::new(keep("room", Keep { count: Some(0), age: None }), 100), channel("room:a"));
        let held = log.hold(&room).await.unwrap();
        for n in 0..10 {
            append(&log, &channel(&format!("room:b{n}")), draft("ann", 1)).await;
            tokio::time::advance(IDLE / 2).await;
            assert_eq!(log.hold(&room).await.unwrap(), held);
        }
        assert_eq!(
            append(&log, &room, draft("ann", 1)).await.cursor(),
            Cursor { epoch: held.epoch, offset: 1 }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_with_something_to_read_is_never_forgotten() {
        let (log, room) = (recent(1, None), channel("room:a"));
        let first = append(&log, &room, draft("ann", 1)).await.cursor();
        tokio::time::advance(IDLE * 100).await;
        append(&log, &channel("room:b"), draft("ann", 1)).await;
        assert_eq!(append(&log, &room, draft("ann", 2)).await.cursor(), Cursor { offset: 2, ..first });
    }

    #[tokio::test]
    async fn the_epoch_of_a_channel_is_known_before_its_first_message() {
        let (log, room) = (recent(1, None), channel("room:a"));
        let before = log.extent(&room).await.unwrap();
        assert_eq!(append(&log, &room, draft("ann", 1)).await.cursor().epoch, before.epoch);
    }
}
