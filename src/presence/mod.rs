//! Who is in a channel, by lease: a session that is not heard of any more leaves when its lease runs out, so that
//! a phone that changes its wire neither leaves nor joins.

#[cfg(test)]
mod contract;
#[cfg(feature = "redis")]
mod redis;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::future::{self, BoxFuture};
use xpush_protocol::{ChannelName, Member, SessionId};

#[cfg(feature = "redis")]
pub use self::redis::{LEASE, Redis};

/// Members that a list names; the counts are of all.
pub const LIST_LIMIT: usize = 1000;

/// Who is in which channel. Every connection of a node has a number of its own, and a newer one a higher one: what an
/// old one of a session takes away later does not touch what the newer one put there.
pub trait Presence: Send + Sync + 'static {
    fn join<'a>(&'a self, channel: &'a ChannelName, member: Member, connection: u64)
    -> BoxFuture<'a, Joined>;

    /// `None`: the session is not there, or is there by another connection.
    fn leave<'a>(
        &'a self,
        channel: &'a ChannelName,
        session: &'a SessionId,
        connection: u64,
    ) -> BoxFuture<'a, Option<Left>>;

    fn list<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, List>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    pub occupancy: u32,
    /// The session was not there by another connection.
    pub new: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    pub member: Member,
    pub occupancy: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    pub members: Vec<Member>,
    pub sessions: u32,
    pub users: u32,
}

/// A power of two: two cores seldom want the same shard.
const SHARDS: usize = 64;

type Members = BTreeMap<SessionId, (Member, u64)>;
type Shard = HashMap<ChannelName, Members>;

/// The presence of one node alone.
pub struct InProcess {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

impl Default for InProcess {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl InProcess {
    fn shard(&self, channel: &ChannelName) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[self.hasher.hash_one(channel) as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence for InProcess {
    fn join<'a>(
        &'a self,
        channel: &'a ChannelName,
        member: Member,
        connection: u64,
    ) -> BoxFuture<'a, Joined> {
        let mut shard = self.shard(channel);
        let members = shard.entry(channel.clone()).or_default();
        let new = members.insert(member.session.clone(), (member, connection)).is_none();
        Box::pin(future::ready(Joined { occupancy: members.len() as u32, new }))
    }

    fn leave<'a>(
        &'a self,
        channel: &'a ChannelName,
        session: &'a SessionId,
        connection: u64,
    ) -> BoxFuture<'a, Option<Left>> {
        let mut shard = self.shard(channel);
        let left = shard.get_mut(channel).and_then(|members| {
            members.get(session).filter(|(_, by)| *by == connection)?;
            let (member, _) = members.remove(session)?;
            Some(Left { member, occupancy: members.len() as u32 })
        });
        if left.as_ref().is_some_and(|left| left.occupancy == 0) {
            shard.remove(channel);
        }
        Box::pin(future::ready(left))
    }

    fn list<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, List> {
        let shard = self.shard(channel);
        let list = shard.get(channel).map(|members| List {
            members: members.values().take(LIST_LIMIT).map(|(member, _)| member.clone()).collect(),
            sessions: members.len() as u32,
            users: members.values().filter_map(|(m, _)| m.user.as_ref()).collect::<HashSet<_>>().len() as u32,
        });
        Box::pin(future::ready(list.unwrap_or_default()))
    }
}
