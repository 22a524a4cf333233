//! Telling the other nodes what was appended here. An acknowledgement does not wait for it, and a broker that is slow
//! or away loses nothing: what could not be carried is noted, one place a channel, and announced once it can be.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use xpush_protocol::{ChannelName, Cursor};

use super::Node;
use crate::broker::Carried;

/// Publications on their way to the broker. One more is only noted: its channel's top is told a little later.
const CARRIED_CAPACITY: usize = 4096;
/// Channels whose tops wait to be told; of one more, the others learn at its next publication.
const UNTOLD_CAPACITY: usize = 200_000;
/// Tops that are told at once.
const TELL_CONCURRENCY: usize = 64;

/// What the other nodes have not been told.
pub(super) struct Untold {
    places: Arc<Semaphore>,
    tops: Mutex<HashMap<ChannelName, Cursor>>,
}

impl Default for Untold {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(CARRIED_CAPACITY)), tops: Mutex::default() }
    }
}

impl Untold {
    fn note(&self, channel: ChannelName, cursor: Cursor) {
        let mut tops = self.tops();
        if tops.len() >= UNTOLD_CAPACITY && !tops.contains_key(&channel) {
            return;
        }
        let top = tops.entry(channel).or_insert(cursor);
        if top.epoch != cursor.epoch || top.offset < cursor.offset {
            *top = cursor;
        }
    }

    fn take(&self) -> HashMap<ChannelName, Cursor> {
        std::mem::take(&mut self.tops())
    }

    fn tops(&self) -> MutexGuard<'_, HashMap<ChannelName, Cursor>> {
        self.tops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Has a publication (or the top of one that was there already) carried to the other nodes, without waiting.
    pub(super) fn announce(self: &Arc<Self>, carried: Carried) {
        if !self.is_in_cluster() {
            return;
        }
        let (channel, cursor) = match &carried {
            Carried::Publication { channel, epoch, publication } => {
                (channel.clone(), Cursor { epoch: *epoch, offset: publication.offset })
            }
            Carried::Top { channel, cursor } => (channel.clone(), *cursor),
            // Nothing else is in a log.
            _ => return,
        };
        let Ok(place) = Arc::clone(&self.untold.places).try_acquire_owned() else {
            return self.untold.note(channel, cursor);
        };
        let node = Arc::clone(self);
        self.publishing.spawn(async move {
            if node.broker.publish(carried).await.is_err() {
                node.untold.note(channel, cursor);
            }
            drop(place);
        });
    }

    /// Tells what could not be told when it was published.
    pub(super) async fn announce_untold(&self) {
        let untold = stream::iter(self.untold.take());
        untold
            .for_each_concurrent(TELL_CONCURRENCY, async |(channel, cursor)| {
                if self.broker.publish(Carried::Top { channel: channel.clone(), cursor }).await.is_err() {
                    self.untold.note(channel, cursor);
                }
            })
            .await;
    }
}
