//! What is too old, or too much, goes: in small steps, between commits, so that no append waits long for it.
//!
//! A trimmed publication is deleted together with its message's id, and the channel's first offset is moved in the
//! same commit. So a reader sees where the channel begins now, never a hole.
//!
//! They are deleted one by one, which an LSM tree does by writing; a range of keys at once is nothing that fjall
//! offers, and its compaction filters would keep a deleted message's id for as long as its table. Measured with
//! `benches/log_retention.rs` (1,000,000 messages of 200 bytes in 100 channels, 256 appends at a time, two cores
//! that others used too, load 3): 27,200 appends/s while all are kept. While the older half goes, 15,500 appends/s
//! beside 39,000 deletes/s; 15,600 afterwards, with as many deletes as appends. Disk: 355 MB before, 378 MB when the
//! half was deleted, 264 MB when as many again had been appended. A page of the last 50 takes 120 to 150 µs all the
//! time: reads begin at the first offset that is kept, so they never walk over what was deleted.

use std::{
    ops::Bound,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fjall::OwnedWriteBatch as WriteBatch;
use xpush_protocol::{ChannelName, Namespace};

use super::{
    super::{Extent, Keep, KeepByNamespace, LogError},
    record::{self, Header, Trimmed},
    store::{self, Store},
};

/// One step deletes so many publications at most: some milliseconds of work.
const STEP: u64 = 1024;

/// One step looks at so many channels at most, which is a seek for each.
const STEP_CHANNELS: usize = 128;

/// A channel may hold so many more than it keeps before an append trims it: deleting many that lie together is
/// cheaper than one at each append.
const SLACK: u64 = 64;

/// An append deletes so many times what it adds, so that a channel that holds too much comes down.
const CATCH_UP: u64 = 4;

/// From the end of one round through all channels to the next.
const ROUND_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Retention {
    keep: KeepByNamespace,
    /// The namespaces that don't keep everything.
    rounds: Vec<Namespace>,
    at: Option<Place>,
    next_step: Instant,
}

/// How far a round has come.
struct Place {
    namespace: usize,
    /// Everything before this key was looked at.
    key: Vec<u8>,
}

impl Retention {
    pub(super) fn new(keep: KeepByNamespace) -> Self {
        let limited = |keep: &Keep| keep.count.is_some() || keep.age.is_some();
        let rounds = keep.iter().filter(|(_, keep)| limited(keep)).map(|(name, _)| name.clone()).collect();
        Self { keep, rounds, at: None, next_step: Instant::now() }
    }

    pub(super) fn is_due(&self) -> bool {
        !self.rounds.is_empty() && Instant::now() >= self.next_step
    }

    /// How long nothing will be due.
    pub(super) fn pause(&self) -> Duration {
        if self.rounds.is_empty() {
            ROUND_PAUSE
        } else {
            self.next_step.saturating_duration_since(Instant::now())
        }
    }

    /// Trims a channel by what was appended to it in this commit. Gives its extent after the commit.
    pub(super) fn make_room(
        &self,
        store: &Store,
        batch: &mut WriteBatch,
        channel: &ChannelName,
        extent: Extent,
        appended: u64,
    ) -> Result<Extent, LogError> {
        let Some(Keep { count: Some(count), .. }) = self.keep.get(channel.namespace()).copied() else {
            return Ok(extent);
        };
        // What this very commit appends can't be read yet, so it isn't trimmed either.
        let stored = (extent.top - extent.first + 1).saturating_sub(appended);
        let excess = (extent.top - extent.first + 1).saturating_sub(count).min(stored);
        if excess < SLACK {
            return Ok(extent);
        }
        let budget = excess.min(SLACK.max(appended * CATCH_UP));
        let keep = Keep { count: Some(count), age: None };
        trim(store, batch, channel, extent, keep, budget)
    }

    /// The next step of a round through the channels. Gives the extents that changed.
    pub(super) fn step(
        &mut self,
        store: &Store,
        batch: &mut WriteBatch,
    ) -> Result<Vec<(ChannelName, Extent)>, LogError> {
        let mut changed = Vec::new();
        let mut budget = STEP;
        let mut at = self.at.take().unwrap_or_else(|| Place { namespace: 0, key: Vec::new() });
        // If it fails, the next round begins after a pause.
        self.next_step = Instant::now() + ROUND_PAUSE;
        for _ in 0..STEP_CHANNELS {
            let Some(namespace) = self.rounds.get(at.namespace) else { return Ok(changed) };
            let Some(channel) = next_channel(store, namespace, &at.key)? else {
                at = Place { namespace: at.namespace + 1, key: Vec::new() };
                continue;
            };
            let extent = store.extent(&channel)?;
            let keep = self.keep.get(namespace).copied().unwrap_or_default();
            let trimmed = trim(store, batch, &channel, extent, keep, budget)?;
            budget -= trimmed.first - extent.first;
            if trimmed != extent {
                changed.push((channel.clone(), trimmed));
            }
            if budget == 0 {
                break;
            }
            at.key = record::publication_key(&channel, u64::MAX);
        }
        self.at = Some(at);
        self.next_step = Instant::now();
        Ok(changed)
    }
}

/// The first channel of the namespace behind this key.
fn next_channel(store: &Store, namespace: &Namespace, key: &[u8]) -> Result<Option<ChannelName>, LogError> {
    let (first, end) = (format!("{namespace}:"), format!("{namespace};"));
    let from = if key.is_empty() { Bound::Included(first.as_bytes()) } else { Bound::Excluded(key) };
    let Some(next) = store.publications.range::<&[u8], _>((from, Bound::Excluded(end.as_bytes()))).next()
    else {
        return Ok(None);
    };
    let key = next.key().map_err(|error| store::read_failed(&error))?;
    let (name, _) = record::parse_publication_key(&key)?;
    record::parse_name(name).map(Some)
}

/// Deletes from the old end what isn't kept, `budget` at most. Gives what is left.
fn trim(
    store: &Store,
    batch: &mut WriteBatch,
    channel: &ChannelName,
    extent: Extent,
    keep: Keep,
    budget: u64,
) -> Result<Extent, LogError> {
    // Before this offset everything goes.
    let kept_by_count = keep.count.map_or(0, |count| (extent.top + 1).saturating_sub(count));
    let kept_by_age = keep.age.map_or(0, |age| {
        let since = SystemTime::now().checked_sub(age).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    });
    let (mut first, mut gone) = (extent.first, Vec::new());
    let range = record::publication_key(channel, extent.first)..=record::publication_key(channel, extent.top);
    for guard in store.publications.range(range).take(usize::try_from(budget).unwrap_or(usize::MAX)) {
        let (key, value) = guard.into_inner().map_err(|error| store::read_failed(&error))?;
        let (_, offset) = record::parse_publication_key(&key)?;
        let header = Header::decode(&value)?;
        if offset >= kept_by_count && header.time >= kept_by_age {
            break;
        }
        gone.push((store.place_of_id(channel, &header), key));
        first = offset + 1;
    }
    // Only now, when nothing can fail any more: half of it would be a hole.
    for (id, publication) in gone {
        store.forget(batch, id);
        batch.remove(&store.publications, publication);
    }
    if first > extent.first {
        batch.insert(&store.channels, &*record::name(channel), Trimmed { first, top: extent.top }.encode());
    }
    Ok(Extent { first, ..extent })
}
