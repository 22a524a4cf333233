//! The channels that have subscribers on this node.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use xpush_protocol::{ChannelName, Cursor, Epoch, ServerFrame};

use super::{Channel, RoomMemory, SubscriberKey};
use crate::{log::Log, namespace::Policy, publication::Publication};

/// A power of two: two cores seldom want the same shard.
const SHARDS: usize = 64;

/// Beyond this many sessions a channel tells its count once a second instead of every join and leave.
pub(crate) const PRESENCE_EVENTS_LIMIT: u32 = 100;

type Shard = HashMap<ChannelName, Arc<Channel>>;

/// The channels that have subscribers on this node, by name.
pub struct Channels {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    memory: RoomMemory,
}

impl Default for Channels {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            memory: RoomMemory::default(),
        }
    }
}

impl Channels {
    #[must_use]
    pub fn get(&self, name: &ChannelName) -> Option<Arc<Channel>> {
        self.shard(name).get(name).cloned()
    }

    /// The channel, and a subscriber in it that `join` adds: under one lock, or an empty channel could be dropped
    /// between the two.
    pub(crate) fn enter(
        &self,
        name: &ChannelName,
        policy: &Policy,
        log: &Arc<dyn Log>,
        join: impl FnOnce(&Arc<Channel>) -> SubscriberKey,
    ) -> (Arc<Channel>, SubscriberKey) {
        let mut shard = self.shard(name);
        let channel = shard.entry(name.clone()).or_insert_with(|| {
            Arc::new(Channel::new(name.clone(), *policy, Arc::clone(log), self.memory.clone()))
        });
        let key = join(channel);
        (Arc::clone(channel), key)
    }

    /// Removes a subscriber, and the channel with its last one.
    pub(crate) fn leave(&self, channel: &Arc<Channel>, key: SubscriberKey) {
        let mut shard = self.shard(channel.name());
        channel.remove(key);
        if channel.is_idle() && shard.get(channel.name()).is_some_and(|current| Arc::ptr_eq(current, channel))
        {
            shard.remove(channel.name());
        }
    }

    /// Hands a publication to the channel, if somebody here is subscribed to it.
    pub fn deliver(&self, name: &ChannelName, epoch: Epoch, publication: &Arc<Publication>) {
        if let Some(channel) = self.get(name) {
            channel.deliver(epoch, publication);
        }
    }

    /// As `deliver`, for what another node appended.
    pub fn deliver_told(&self, name: &ChannelName, epoch: Epoch, publication: &Arc<Publication>) {
        if let Some(channel) = self.get(name) {
            channel.log().told(name, Cursor { epoch, offset: publication.offset });
            channel.deliver(epoch, publication);
        }
    }

    /// Tells all subscribers here something that is in no log.
    pub fn tell(&self, name: &ChannelName, frame: &ServerFrame) {
        if let Some(channel) = self.get(name) {
            channel.tell(frame);
        }
    }

    /// Tells the subscribers here that somebody came or went; those of a big channel, how many are there.
    pub fn tell_presence(&self, name: &ChannelName, occupancy: u32, frame: &ServerFrame) {
        let Some(channel) = self.get(name) else { return };
        if occupancy > PRESENCE_EVENTS_LIMIT {
            channel.note_occupancy(occupancy);
        } else {
            channel.tell_presence(frame);
        }
    }

    /// All of them, as they are now.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Channel>> {
        self.shards.iter().flat_map(|shard| lock(shard).values().cloned().collect::<Vec<_>>()).collect()
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, name: &ChannelName) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.hasher.hash_one(name) as usize % SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
