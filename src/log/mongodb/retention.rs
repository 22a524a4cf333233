//! What is too old, or too much, goes: beside the appends, from the old end, and never a channel's newest publication,
//! for it says how far the channel has come.
//!
//! A channel is always trimmed from its oldest publication on, up to the first that is to be kept. So what is left has
//! no hole, whatever the nodes' clocks say and however many nodes trim at once. When it is trimmed is another
//! question: by number, when its offsets pass a step; by age, when a publication of it expires. The index of what
//! expires only finds the channel. What it can't be rid of yet, it forgets: the newest publication, or one that was
//! sent by a slower clock than an older one, goes when a later one expires.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mongodb::{
    bson::{Bson, DateTime, doc},
    options::Hint,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use xpush_protocol::ChannelName;

use super::{
    super::Keep,
    failure::{Failure, within},
    read::{begin_of_kept, kept_by_count, now},
    record::{self, Key},
    store::{READ_LIMIT, Store, WRITE_LIMIT},
};
use crate::mongodb::majority;

/// A channel is trimmed when it passes a multiple of this. So it may hold so many more than it keeps, unseen.
const STEP: u64 = 100;

/// So many are deleted in one command at most.
const DELETE: u64 = 1000;

/// Channels that wait to be trimmed. One that finds no place waits for its next step.
const DUE_CHANNELS: usize = 10_000;

/// From the end of one look for what has expired to the next. All nodes look, which is harmless.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// So many are looked for at one time.
const SWEEP: i64 = 1000;

/// And so often in a row, if there are always more.
const SWEEPS: usize = 100;

/// The channels that hold too much.
#[derive(Default)]
pub(super) struct Due {
    channels: Mutex<HashSet<ChannelName>>,
    added: Notify,
}

impl Due {
    /// Whether a channel that came so far has passed a step.
    pub(super) fn is_reached(&self, from: u64, to: u64) -> bool {
        from / STEP != to / STEP
    }

    pub(super) fn add(&self, store: &Store, channel: &ChannelName) {
        if store.keep(channel) == Keep::default() {
            return;
        }
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if channels.len() < DUE_CHANNELS {
            channels.insert(channel.clone());
            self.added.notify_one();
        }
    }

    fn take(&self) -> HashSet<ChannelName> {
        std::mem::take(&mut *self.channels.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Trims until it is cancelled. What is deleted then, or not yet, makes no difference to anybody.
pub(super) async fn run(store: Arc<Store>, due: Arc<Due>, token: CancellationToken) {
    token.run_until_cancelled(trim_forever(&store, &due)).await;
}

async fn trim_forever(store: &Store, due: &Due) {
    let mut next_sweep = Instant::now();
    loop {
        tokio::select! {
            () = due.added.notified() => {
                for channel in due.take() {
                    if let Err(failure) = trim(store, &channel).await {
                        // Its next step, or its next look, tries again.
                        warn!(%channel, ?failure, "old publications can't be trimmed");
                    }
                }
            }
            () = sleep_until(next_sweep), if store.expires() => {
                if let Err(failure) = sweep(store).await {
                    warn!(?failure, "expired publications can't be looked for");
                }
                next_sweep = Instant::now() + SWEEP_INTERVAL;
            }
        }
    }
}

/// Gives the oldest offset that is left.
pub(super) async fn trim(store: &Store, channel: &ChannelName) -> Result<u64, Failure> {
    let key = Key::new(channel);
    let keep = store.keep(channel);
    let Some((oldest, top)) = within(READ_LIMIT, store.ends(&key)).await? else { return Ok(1) };
    let mut oldest = oldest;
    while oldest < top {
        let last = (top - 1).min(oldest.saturating_add(DELETE - 1));
        let mut first = kept_by_count(keep, top);
        if let Some(begin) = begin_of_kept(keep) {
            let young = within(READ_LIMIT, store.first_since(&key, oldest, last, begin)).await?;
            first = first.max(young.unwrap_or(last + 1));
        }
        // One more is left, as the ground of what is kept.
        let first = first.min(last + 1) - 1;
        if first <= oldest {
            break;
        }
        // By this index, the oldest goes first: whoever looks meanwhile sees no hole.
        let delete = store
            .messages
            .delete_many(key.range(0, first - 1))
            .hint(Hint::Keys(record::by_offset()))
            .write_concern(majority());
        let deleted = within(WRITE_LIMIT, delete.into_future()).await?.deleted_count;
        debug!(%channel, deleted, first, "trimmed");
        oldest = first;
        if first < last {
            break;
        }
    }
    Ok(oldest)
}

/// Trims the channels of which something has expired.
pub(super) async fn sweep(store: &Store) -> Result<(), Failure> {
    for _ in 0..SWEEPS {
        let expired = within(READ_LIMIT, expired(store)).await?;
        let count: usize = expired.values().map(Vec::len).sum();
        for (channel, offsets) in expired {
            let oldest = trim(store, &channel).await?;
            let left: Vec<_> = offsets.into_iter().filter(|offset| *offset >= oldest).collect();
            if !left.is_empty() {
                forget(store, &channel, &left).await?;
            }
        }
        if count < SWEEP as usize {
            break;
        }
    }
    Ok(())
}

async fn expired(store: &Store) -> Result<HashMap<ChannelName, Vec<u64>>, Failure> {
    let now = DateTime::from_millis(record::to_number(now()));
    let mut cursor = store
        .messages
        .find(doc! { "expire": { "$lte": now } })
        .sort(doc! { "expire": 1 })
        .projection(doc! { "_id": 0, "app": 1, "channel": 1, "offset": 1 })
        .limit(SWEEP)
        .hint(Hint::Keys(record::by_expire()))
        .max_time(READ_LIMIT)
        .await?;
    let mut expired = HashMap::<_, Vec<_>>::new();
    while cursor.advance().await? {
        let document = cursor.current();
        expired.entry(record::channel(document)?).or_default().push(record::offset(document)?);
    }
    Ok(expired)
}

/// Takes these out of the index of what expires, or, where the namespace keeps them longer than when they were sent,
/// says when they do.
async fn forget(store: &Store, channel: &ChannelName, offsets: &[u64]) -> Result<(), Failure> {
    let keep = store.keep(channel);
    let expire = match (keep.age, begin_of_kept(keep)) {
        (Some(age), Some(begin)) => {
            let later = doc! { "$toDate": { "$add": ["$time", record::to_number(record::millis(age))] } };
            let is_young = doc! { "$gt": ["$time", record::to_number(begin)] };
            Bson::from(doc! { "$cond": [is_young, later, "$$REMOVE"] })
        }
        _ => Bson::from("$$REMOVE"),
    };
    let mut filter = Key::new(channel).all();
    let offsets = offsets.iter().map(|offset| Bson::from(record::to_number(*offset)));
    filter.insert("offset", doc! { "$in": Bson::Array(offsets.collect()) });
    let update = store
        .messages
        .update_many(filter, vec![doc! { "$set": { "expire": expire } }])
        .hint(Hint::Keys(record::by_offset()))
        .write_concern(majority());
    within(WRITE_LIMIT, update.into_future()).await.map(drop)
}
