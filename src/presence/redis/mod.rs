//! The presence of a cluster, in Redis. Every node has a lease there, and its sessions are members under it. A node
//! that dies lets its lease run out; then one of the others takes its sessions out, and tells it: that takes the lease
//! and two thirds of it at most.
//!
//! What a node's own sessions are in, it knows itself as well (`mirror`): that is the answer while Redis is away, and
//! it is put back when Redis has lost it, or when this node was frozen for so long that it was given up. An entry that
//! another node has made since is left alone.

mod lease;
mod members;
mod mirror;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};
use xpush_protocol::{ChannelName, Member, ServerFrame, SessionId};

use self::{
    lease::Keeper,
    members::Members,
    mirror::{Lease, Mirror, Owed, Place},
};
use super::{Joined, Left, List, Presence};
use crate::{
    broker::{Broker, Carried, Inbox},
    channel::PRESENCE_EVENTS_LIMIT,
    redis::{Link, LinkError},
};

/// How long the others wait for a node that is not heard of. A session that finds another node within it has never
/// left.
pub const LEASE: Duration = Duration::from_secs(10);

/// Who is where, in Redis.
pub struct Redis {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// Somebody came or went.
struct News {
    channel: ChannelName,
    occupancy: u32,
    frame: ServerFrame,
    /// This node's own subscribers do not know it yet.
    here_too: bool,
}

struct Shared {
    members: Members,
    mirror: Mutex<Mirror>,
    inbox: Arc<Inbox>,
    broker: Arc<dyn Broker>,
}

impl Redis {
    /// Takes a lease for this run of this node, `instance`, and keeps it.
    #[must_use]
    pub fn start(link: Arc<Link>, inbox: Arc<Inbox>, broker: Arc<dyn Broker>, instance: u64) -> Arc<Self> {
        Self::start_with(link, inbox, broker, instance, LEASE)
    }

    fn start_with(
        link: Arc<Link>,
        inbox: Arc<Inbox>,
        broker: Arc<dyn Broker>,
        instance: u64,
        lease: Duration,
    ) -> Arc<Self> {
        let changed = link.changed();
        let members = Members::new(link);
        let shared = Arc::new(Shared { members, mirror: Mutex::default(), inbox, broker });
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let keeper = Keeper::new(Arc::clone(&shared), instance, lease);
        tasks.spawn(keeper.run(changed, cancel.clone()));
        Arc::new(Self { shared, tasks, cancel })
    }

    /// Keeps the lease no longer. Sessions that are still here may be on their way to another node: they leave when it
    /// runs out, if they don't arrive.
    pub async fn close(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Who did not close it does not want to wait for its tasks; they end all the same.
        self.cancel.cancel();
    }
}

impl Shared {
    async fn join(&self, channel: &ChannelName, member: Member, connection: u64) -> Joined {
        let place = Place { member: member.clone(), connection, is_told: false };
        let (here, new) = self.mirror().join(channel, member, connection);
        match self.tell_join(channel, &place).await {
            Ok((occupancy, new)) => Joined { occupancy, new },
            Err(error) => {
                debug!(%channel, %error, "Redis will be told of a join later");
                Joined { occupancy: here, new }
            }
        }
    }

    async fn tell_join(&self, channel: &ChannelName, place: &Place) -> Result<(u32, bool), LinkError> {
        let mut joined = None;
        loop {
            let (lease, is_listed) = {
                let mirror = self.mirror();
                (mirror.lease, mirror.is_listed(channel))
            };
            let Some(lease) = lease else {
                return Err(LinkError::Refused { reason: "there is no lease yet".into() });
            };
            if !is_listed {
                // Before the member: nobody could find it there if this node died between.
                self.members.list_channels(lease, std::slice::from_ref(channel)).await?;
                self.mirror().listed(channel, lease);
            }
            let (occupancy, new) = self.members.join(lease, channel, place).await?;
            let new = joined.map_or(new, |(_, new)| new);
            joined = Some((occupancy, new));
            // What belongs to a lease that ran out meanwhile is taken out.
            if self.mirror().lease == Some(lease) {
                self.was_told(lease, channel, place).await;
                return Ok((occupancy, new));
            }
        }
    }

    /// Redis has a session's place; if it left meanwhile, it is taken out again. Gives whether it is still there.
    async fn was_told(&self, lease: Lease, channel: &ChannelName, place: &Place) -> bool {
        let session = &place.member.session;
        let is_here = {
            let mut mirror = self.mirror();
            mirror.told(channel, session, place.connection) || mirror.has(channel, session)
        };
        if !is_here {
            self.members.leave(lease, &[(channel, session, place.connection)]).await;
        }
        is_here
    }

    async fn leave(&self, channel: &ChannelName, session: &SessionId, connection: u64) -> Option<Left> {
        let (lease, (place, here)) = {
            let mut mirror = self.mirror();
            (mirror.lease, mirror.leave(channel, session, connection)?)
        };
        let told = match lease {
            Some(lease) => self.members.leave(lease, &[(channel, session, connection)]).await.pop(),
            None => None,
        };
        let member = place.member;
        match told {
            Some(Ok((occupancy, true))) => Some(Left { member, occupancy }),
            // Redis never had it, and this node has told that it came.
            Some(Ok((occupancy, false))) if !place.is_told => Some(Left { member, occupancy }),
            // It is there by another node, or was taken out, and that was told.
            Some(Ok((_, false))) => None,
            Some(Err(_)) | None => {
                let owed = Owed { channel: channel.clone(), member: member.clone(), connection };
                if !self.mirror().owe(owed) {
                    warn!(%channel, "too many leaves wait for Redis; one is not told");
                }
                Some(Left { member, occupancy: here })
            }
        }
    }

    async fn list(&self, channel: &ChannelName) -> List {
        match self.members.list(channel).await {
            Ok(list) => list,
            Err(error) => {
                debug!(%channel, %error, "only this node's own sessions are listed");
                self.mirror().list(channel)
            }
        }
    }

    /// Tells the other nodes who came and went, and this one's subscribers what they were not told yet. Of a big
    /// channel the last count says it all.
    async fn tell(&self, news: Vec<News>) {
        let big = |news: &News| news.occupancy > PRESENCE_EVENTS_LIMIT;
        let lasts: HashMap<_, _> = news
            .iter()
            .enumerate()
            .filter(|(_, news)| big(news))
            .map(|(at, news)| (news.channel.clone(), at))
            .collect();
        let to_tell = news
            .into_iter()
            .enumerate()
            .filter(|(at, news)| !big(news) || lasts.get(&news.channel) == Some(at));
        join_all(to_tell.map(|(_, News { channel, occupancy, frame, here_too })| {
            if here_too {
                self.inbox.channels.tell_presence(&channel, occupancy, &frame);
            }
            self.broker.publish(Carried::Presence { channel, occupancy, frame })
        }))
        .await;
    }

    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Presence for Redis {
    fn join<'a>(
        &'a self,
        channel: &'a ChannelName,
        member: Member,
        connection: u64,
    ) -> BoxFuture<'a, Joined> {
        self.shared.join(channel, member, connection).boxed()
    }

    fn leave<'a>(
        &'a self,
        channel: &'a ChannelName,
        session: &'a SessionId,
        connection: u64,
    ) -> BoxFuture<'a, Option<Left>> {
        self.shared.leave(channel, session, connection).boxed()
    }

    fn list<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, List> {
        self.shared.list(channel).boxed()
    }
}
