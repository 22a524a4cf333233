//! What the broker in Redis does when Redis is lost, in each of its three forms, and what it carries for the log.

use std::{
    any::Any,
    time::{Duration, Instant},
};

use xpush_test_servers::{Proxy, RedisCluster, RedisSentinel, until};

use super::*;
use crate::{
    broker::contract::{Node, Opened, Watched},
    log::{
        self, Appended, KeepByNamespace,
        fixture::{append, channel, draft},
    },
    redis::Settings,
};

async fn link(url: String) -> Arc<Link> {
    Link::connect(&Settings { url, prefix: "test".into() }).await.unwrap()
}

fn node(link: Arc<Link>, name: &str, instance: u64) -> Node {
    let inbox = Arc::new(Inbox::new(name.parse().unwrap()));
    Node { broker: Redis::start(link, Arc::clone(&inbox), instance), inbox }
}

pub(crate) async fn two_nodes(url: String, guard: Box<dyn Any + Send>) -> Opened {
    let nodes = [node(link(url.clone()).await, "a", 1), node(link(url).await, "b", 2)];
    Opened { nodes, guard }
}

async fn is_doubted(node: &Node) -> bool {
    tokio::time::timeout(Duration::ZERO, node.inbox.doubted()).await.is_ok()
}

/// Whether a publication goes from one node to the other now.
struct Conversation {
    nodes: [Node; 2],
    watched: Watched,
    offset: u64,
}

impl Conversation {
    async fn begin(url: String) -> Self {
        let Opened { nodes, .. } = two_nodes(url, Box::new(())).await;
        let room = channel("room:a");
        let watched = Watched::at(&nodes[1], &room).await;
        nodes[1].broker.listen(Topic::Channel(room)).await;
        let mut it = Self { nodes, watched, offset: 0 };
        assert!(it.goes_on().await);
        assert!(!is_doubted(&it.nodes[1]).await, "nothing was lost");
        it
    }

    async fn goes_on(&mut self) -> bool {
        let [from, to] = &self.nodes;
        if from.broker.publish(self.watched.publication(self.offset + 1)).await != Ok(1) {
            return false;
        }
        self.offset += 1;
        // What is published to a listener arrives; nobody else has the topic.
        until("a publication to arrive", async || self.watched.has_delivered(self.offset).await).await;
        to.broker.check().await.is_ok()
    }

    async fn is_doubted(&self) {
        until("the channels to be doubted", async || is_doubted(&self.nodes[1]).await).await;
    }
}

#[tokio::test]
async fn after_a_restart_the_channels_are_doubted_and_it_goes_on() {
    let mut server = xpush_test_servers::Redis::start().await;
    let mut talk = Conversation::begin(server.url()).await;
    for _ in 0..2 {
        server.kill();
        until("the loss to be seen", async || talk.nodes[0].broker.check().await.is_err()).await;
        let began = Instant::now();
        for _ in 0..100 {
            assert!(talk.nodes[0].broker.publish(talk.watched.publication(9)).await.is_err());
        }
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        server.restart().await;
        talk.is_doubted().await;
        until("it to go on", async || talk.goes_on().await).await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_lost_and_found() {
    let server = xpush_test_servers::Redis::start().await;
    let mut talk = Conversation::begin(server.url()).await;
    server.pause();
    until("the loss to be seen", async || talk.nodes[1].broker.check().await.is_err()).await;
    // It does not wait for what is out of reach.
    talk.nodes[1].broker.listen(Topic::Channel(channel("room:b"))).await;
    server.resume();
    talk.is_doubted().await;
    until("it to go on", async || talk.goes_on().await).await;
    assert_eq!(
        talk.nodes[0]
            .broker
            .publish(Carried::Top {
                channel: channel("room:b"),
                cursor: Cursor { epoch: Epoch(1), offset: 1 }
            })
            .await,
        Ok(1)
    );
}

#[tokio::test]
async fn a_wire_that_goes_dumb_is_noticed() {
    let server = xpush_test_servers::Redis::start().await;
    let proxy = Proxy::to(server.address()).await;
    let a = node(link(server.url()).await, "a", 1);
    let inbox = Arc::new(Inbox::new("b".parse().unwrap()));
    let behind = Redis::start(link(format!("redis://{}", proxy.address())).await, Arc::clone(&inbox), 2);
    let b = Node { broker: Arc::clone(&behind) as _, inbox };
    let room = channel("room:a");
    let watched = Watched::at(&b, &room).await;
    let topic = Topic::Channel(room);
    b.broker.listen(topic.clone()).await;
    proxy.stall_downstream();
    assert_eq!(a.broker.publish(watched.publication(1)).await, Ok(1), "Redis does not know");
    until("the wire to be given up", async || !behind.topics.is_heard(&behind.topic(&topic))).await;
    proxy.heal();
    until("the channels to be doubted", async || is_doubted(&b).await).await;
    until("it to go on", async || {
        a.broker.publish(watched.publication(1)).await == Ok(1) && watched.has_delivered(1).await
    })
    .await;
}

#[tokio::test]
async fn sentinels_next_primary_is_followed() {
    let mut redis = RedisSentinel::start().await;
    let mut talk = Conversation::begin(redis.url()).await;
    redis.kill_primary().await;
    talk.is_doubted().await;
    until("it to go on", async || talk.goes_on().await).await;
    redis.restore().await;
    redis.pause_primary().await;
    talk.is_doubted().await;
    until("it to go on", async || talk.goes_on().await).await;
    redis.restore().await;
    assert!(talk.goes_on().await, "an old primary that comes back changes nothing");
}

#[tokio::test]
async fn a_clusters_lost_server_is_found_again() {
    let mut redis = RedisCluster::start().await;
    let mut talk = Conversation::begin(redis.url()).await;
    let slot: u16 = redis.command(0, &["CLUSTER", "KEYSLOT", "room:a"]).await.parse().unwrap();
    let owner = usize::from(slot) * 3 / 16_384;
    redis.kill(owner);
    until("the loss to be seen", async || talk.nodes[0].broker.check().await.is_err()).await;
    redis.restart(owner).await;
    talk.is_doubted().await;
    until("it to go on", async || talk.goes_on().await).await;
}

#[tokio::test]
async fn what_the_log_appends_arrives_at_other_nodes() {
    let server = xpush_test_servers::Redis::start().await;
    let [a, b] = two_nodes(server.url(), Box::new(())).await.nodes;
    let log = log::Redis::new(link(server.url()).await, 1, KeepByNamespace::new());
    let live = channel("live:a");
    let log: Arc<dyn log::Log> = Arc::new(log);
    let (here, there) = (Watched::of(&a, &live, &log).await, Watched::of(&b, &live, &log).await);
    for node in [&a, &b] {
        node.broker.listen(Topic::Channel(live.clone())).await;
    }
    for n in 1..=10 {
        let Appended::New { .. } = append(&*log, &live, draft("ann", n)).await else { panic!("it is new") };
    }
    until("all of them to arrive", async || there.has_delivered(10).await).await;
    // Whoever appended delivers it. If it was not told the outcome, its channel knows that it misses something.
    assert!(here.has_delivered(0).await);
    until("the channel to read what it misses", async || {
        here.repair().await;
        here.has_delivered(10).await
    })
    .await;
}

#[tokio::test]
async fn a_closed_broker_listens_to_nothing() {
    let server = xpush_test_servers::Redis::start().await;
    let inbox = Arc::new(Inbox::new("a".parse().unwrap()));
    let broker = Redis::start(link(server.url()).await, Arc::clone(&inbox), 1);
    broker.listen(Topic::Channel(channel("room:a"))).await;
    broker.close().await;
    broker.listen(Topic::Channel(channel("room:b"))).await;
    assert_eq!(Arc::strong_count(&inbox), 1, "nobody is left");
    until("the connection to be gone", async || {
        server.command(&["PUBSUB", "SHARDCHANNELS"]).await.is_empty()
    })
    .await;
}
