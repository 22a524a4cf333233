//! The broker of a cluster: sharded Pub/Sub of Redis, which a single server, a Sentinel's set and a Cluster have alike.
//!
//! A topic is subscribed to only while somebody here listens to it. Redis forgets what it handed out, and hands out
//! nothing to who is not connected: after every loss all topics are subscribed to again, and then the channels doubt.

mod listening;
mod publishing;
mod reading;
#[cfg(test)]
pub(super) mod tests;
mod topics;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use xpush_protocol::{ChannelName, Cursor, Epoch};

use self::{
    listening::Listening,
    publishing::Publishing,
    topics::{Status, Topics},
};
use super::{Broker, BrokerError, Carried, Inbox, Topic};
use crate::redis::{Link, LinkError, Reply, read};

/// Tops that are asked for in one go.
const TOPS_AT_ONCE: usize = 1024;

/// Carries things through Redis.
pub struct Redis {
    link: Arc<Link>,
    topics: Arc<Topics>,
    publishing: Arc<Publishing>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Redis {
    /// Begins to listen to what concerns this node. `instance` is this run of it: what it says itself it does not hear.
    #[must_use]
    pub fn start(link: Arc<Link>, inbox: Arc<Inbox>, instance: u64) -> Arc<Self> {
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let topics = Arc::<Topics>::default();
        let publishing = Arc::new(Publishing::new(Arc::clone(&link), instance));
        let (queue, reading, answering) = reading::queue(&inbox, instance);
        topics.listen(link.keys.topic(&Topic::Node(inbox.node().clone())));
        let listening = Listening {
            link: Arc::clone(&link),
            inbox,
            topics: Arc::clone(&topics),
            queue: Arc::new(queue),
            open: HashMap::new(),
            heard: HashMap::new(),
            missing: HashSet::new(),
        };
        tasks.spawn(listening.run(cancel.clone()));
        tasks.spawn(reading.run(cancel.clone()));
        tasks.spawn(answering.run(Arc::clone(&publishing), cancel.clone()));
        Arc::new(Self { link, topics, publishing, tasks, cancel })
    }

    /// Listens to nothing any more.
    pub async fn close(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn topic(&self, topic: &Topic) -> String {
        self.link.keys.topic(topic)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Who did not close it does not want to wait for its tasks; they end all the same.
        self.cancel.cancel();
    }
}

impl Broker for Redis {
    fn publish(&self, carried: Carried) -> BoxFuture<'_, Result<usize, BrokerError>> {
        async move {
            let connections = self.publishing.publish(&carried).await?;
            let ours = self.topics.is_heard(&self.topic(&carried.topic()));
            Ok(connections.saturating_sub(usize::from(ours)))
        }
        .boxed()
    }

    fn listen(&self, topic: Topic) -> BoxFuture<'_, ()> {
        let mut status = self.topics.listen(self.topic(&topic));
        async move {
            tokio::select! {
                // An error: it was taken back.
                _ = status.wait_for(|status| *status != Status::Asked) => {}
                () = self.cancel.cancelled() => {}
            }
        }
        .boxed()
    }

    fn unlisten(&self, topic: &Topic) {
        self.topics.unlisten(&self.topic(topic));
    }

    fn tops<'a>(
        &'a self,
        channels: &'a [ChannelName],
    ) -> BoxFuture<'a, Result<Vec<Option<Cursor>>, BrokerError>> {
        async move {
            let mut tops = Vec::with_capacity(channels.len());
            for channels in channels.chunks(TOPS_AT_ONCE) {
                let keys: Vec<_> =
                    channels.iter().map(|channel| self.link.keys.of_channel("top", channel)).collect();
                let get = |at: usize| {
                    let mut get = ::redis::cmd("GET");
                    get.arg(&keys[at]);
                    get
                };
                for answer in self.link.ask_each(&keys, get).await {
                    tops.push(top(answer)?);
                }
            }
            Ok(tops)
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        async move { Ok(self.link.check().await?) }.boxed()
    }
}

fn top(answer: Result<Reply, LinkError>) -> Result<Option<Cursor>, LinkError> {
    let text = read::<Option<String>>(answer?)?;
    Ok(text.and_then(|text| {
        let (epoch, offset) = text.split_once(' ')?;
        Some(Cursor { epoch: Epoch(epoch.parse().ok()?), offset: offset.parse().ok()? })
    }))
}

impl From<LinkError> for BrokerError {
    fn from(error: LinkError) -> Self {
        Self { reason: error.to_string() }
    }
}
