//! What becomes of a node's sessions when it dies, freezes, or Redis forgets them. The leases are short here.

use std::any::Any;

use xpush_protocol::{Cursor, SessionId};
use xpush_test_servers::{Proxy, RedisSentinel, until};

use super::*;
use crate::{
    broker::{BrokerError, Topic},
    presence::contract::{Opened, member},
    redis::Settings,
};

const SHORT: Duration = Duration::from_millis(900);

/// Notes what a node tells the others.
#[derive(Default)]
struct Told(Mutex<Vec<ServerFrame>>);

impl Broker for Told {
    fn publish(&self, carried: Carried) -> BoxFuture<'_, Result<usize, BrokerError>> {
        if let Carried::Presence { frame, .. } = carried {
            self.0.lock().unwrap().push(frame);
        }
        Box::pin(async { Ok(0) })
    }

    fn listen(&self, _: Topic) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn unlisten(&self, _: &Topic) {}

    fn tops<'a>(&'a self, _: &'a [ChannelName]) -> BoxFuture<'a, Result<Vec<Option<Cursor>>, BrokerError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async { Ok(()) })
    }
}

impl Told {
    fn count(&self, is_meant: impl Fn(&ServerFrame) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|frame| is_meant(frame)).count()
    }

    fn leaves_of(&self, session: &SessionId) -> usize {
        self.count(|frame| matches!(frame, ServerFrame::Leave(leave) if leave.member.session == *session))
    }

    fn joins_of(&self, session: &SessionId) -> usize {
        self.count(|frame| matches!(frame, ServerFrame::Join(join) if join.member.session == *session))
    }
}

struct Node {
    presence: Arc<Redis>,
    told: Arc<Told>,
}

impl Node {
    async fn start(url: &str, instance: u64) -> Self {
        Self::start_with(url, instance, SHORT).await
    }

    async fn start_with(url: &str, instance: u64, lease: Duration) -> Self {
        let settings = Settings { url: url.into(), prefix: "test".into() };
        let link = Link::connect(&settings).await.unwrap();
        let inbox = Arc::new(Inbox::new(format!("n{instance}").parse().unwrap()));
        let told = Arc::<Told>::default();
        let presence = Redis::start_with(link, inbox, Arc::clone(&told) as _, instance, lease);
        let it = Self { presence, told };
        // Not by `until`: this has to run in any task.
        while it.presence.shared.mirror().lease.is_none() {
            tokio::task::yield_now().await;
        }
        it
    }
}

/// With a lease that does not run out in the middle of a test.
pub(crate) async fn one_node(url: String, guard: Box<dyn Any + Send>) -> Opened {
    (Node::start_with(&url, 1, LEASE).await.presence as _, guard)
}

fn room() -> ChannelName {
    "room:a".parse().unwrap()
}

async fn sessions(node: &Node) -> u32 {
    node.presence.list(&room()).await.sessions
}

#[tokio::test]
async fn a_dead_nodes_sessions_leave_when_its_lease_has_run_out() {
    let server = xpush_test_servers::Redis::start().await;
    let (dead, alive) = (Node::start(&server.url(), 1).await, Node::start(&server.url(), 2).await);
    let (gone, stays) = (member(Some("ann")), member(Some("ann")));
    dead.presence.join(&room(), gone.clone(), 1).await;
    for n in 0..600 {
        let other = format!("room:other-{}", n % 3).parse().unwrap();
        dead.presence.join(&other, member(None), n).await;
    }
    assert_eq!(alive.presence.join(&room(), stays.clone(), 1).await.occupancy, 2);
    dead.presence.close().await;
    until("the session to leave", async || sessions(&alive).await == 1).await;
    let list = alive.presence.list(&room()).await;
    assert_eq!((list.users, list.members), (1, vec![stays]));
    until("it to be told", async || alive.told.leaves_of(&gone.session) == 1).await;
    until("nothing of it to be left", async || {
        server.command(&["ZCARD", "test:leases"]).await == "1"
            && server.command(&["KEYS", "test:*0001.*"]).await.is_empty()
    })
    .await;
    for n in 0..3 {
        let other = format!("room:other-{n}").parse().unwrap();
        assert_eq!(alive.presence.list(&other).await, List::default());
    }
    assert_eq!(alive.told.leaves_of(&gone.session), 1);
}

#[tokio::test]
async fn one_of_many_takes_a_dead_nodes_sessions_out() {
    let server = xpush_test_servers::Redis::start().await;
    let dead = Node::start(&server.url(), 1).await;
    let gone: Vec<_> = (0..90).map(|_| member(None)).collect();
    for gone in &gone {
        dead.presence.join(&room(), gone.clone(), 1).await;
    }
    let alive = [
        Node::start(&server.url(), 2).await,
        Node::start(&server.url(), 3).await,
        Node::start(&server.url(), 4).await,
    ];
    dead.presence.close().await;
    until("all to leave", async || sessions(&alive[0]).await == 0).await;
    until("each to be told", async || {
        gone.iter().all(|gone| alive.iter().any(|node| node.told.leaves_of(&gone.session) > 0))
    })
    .await;
    for gone in &gone {
        let told: usize = alive.iter().map(|node| node.told.leaves_of(&gone.session)).sum();
        assert_eq!(told, 1, "once");
    }
}

#[tokio::test]
async fn a_node_that_was_frozen_comes_back_with_its_sessions() {
    let server = xpush_test_servers::Redis::start().await;
    let proxy = Proxy::to(server.address()).await;
    let frozen = Node::start(&format!("redis://{}", proxy.address()), 1).await;
    let alive = Node::start(&server.url(), 2).await;
    let ann = member(Some("ann"));
    frozen.presence.join(&room(), ann.clone(), 1).await;
    proxy.cut();
    until("it to be given up", async || sessions(&alive).await == 0).await;
    assert_eq!(sessions(&frozen).await, 1, "it knows its own");
    proxy.heal();
    until("it to be back", async || sessions(&alive).await == 1).await;
    until("it to be told", async || frozen.told.joins_of(&ann.session) == 1).await;
    // Who took it out before does not do it again.
    until("the old lease to be gone", async || server.command(&["ZCARD", "test:leases"]).await == "2").await;
    assert_eq!(sessions(&alive).await, 1);
    assert_eq!(alive.told.leaves_of(&ann.session), 1);
}

#[tokio::test]
async fn what_is_put_back_yields_to_what_came_since() {
    let server = xpush_test_servers::Redis::start().await;
    let node = Node::start_with(&server.url(), 1, LEASE).await;
    let ann = member(Some("ann"));
    node.presence.join(&room(), ann.clone(), 1).await;
    let older = node.presence.shared.mirror().to_tell(true);
    node.presence.join(&room(), ann.clone(), 2).await;
    let lease = node.presence.shared.mirror().lease.unwrap();
    let put = node.presence.shared.members.put(Lease { number: 9, ..lease }, &older).await;
    assert_eq!(put, [Ok((1, false))]);
    assert!(node.presence.leave(&room(), &ann.session, 2).await.is_some());
    assert_eq!(sessions(&node).await, 0);
}

#[tokio::test]
async fn what_happens_while_redis_is_away_is_told_later() {
    let server = xpush_test_servers::Redis::start().await;
    let proxy = Proxy::to(server.address()).await;
    let cut = Node::start(&format!("redis://{}", proxy.address()), 1).await;
    let alive = Node::start(&server.url(), 2).await;
    let (leaves, comes) = (member(Some("ann")), member(Some("bob")));
    cut.presence.join(&room(), leaves.clone(), 1).await;
    proxy.cut();
    assert_eq!(cut.presence.join(&room(), comes.clone(), 2).await, Joined { occupancy: 2, new: true });
    let left = cut.presence.leave(&room(), &leaves.session, 1).await;
    assert_eq!(left, Some(Left { member: leaves, occupancy: 1 }));
    assert_eq!(cut.presence.list(&room()).await.members, std::slice::from_ref(&comes));
    proxy.heal();
    until("the others to see it", async || alive.presence.list(&room()).await.members == [comes.clone()])
        .await;
    assert_eq!(alive.presence.list(&room()).await.users, 1);
}

#[tokio::test]
async fn a_flushed_redis_is_filled_again() {
    let server = xpush_test_servers::Redis::start().await;
    let nodes = [Node::start(&server.url(), 1).await, Node::start(&server.url(), 2).await];
    for node in &nodes {
        for n in 0..300 {
            node.presence.join(&room(), member(None), n).await;
        }
    }
    server.command(&["FLUSHALL"]).await;
    until("all to be back", async || sessions(&nodes[0]).await == 600).await;
}

#[tokio::test]
async fn another_primary_that_lacks_something_is_told_everything() {
    let mut redis = RedisSentinel::start().await;
    let node = Node::start(&redis.url(), 1).await;
    node.presence.join(&room(), member(None), 1).await;
    // Before it is the primary: afterwards the node may have told it already.
    let members = "test:members:{room:a}";
    until("the replica to have it", async || redis.command_replica(&["EXISTS", members]).await == "1").await;
    redis.command_replica(&["CONFIG", "SET", "replica-read-only", "no"]).await;
    assert_eq!(redis.command_replica(&["DEL", members]).await, "1");
    redis.kill_primary().await;
    let next = redis.primary().await;
    let link =
        Link::connect(&Settings { url: format!("redis://{next}"), prefix: "test".into() }).await.unwrap();
    until("it to be back", async || sessions(&node).await == 1 && link.check().await.is_ok()).await;
    let members = Members::new(link);
    until("Redis to have it", async || members.list(&room()).await.is_ok_and(|list| list.sessions == 1))
        .await;
}

#[tokio::test]
async fn a_session_that_moved_is_not_taken_out_by_its_old_node() {
    let server = xpush_test_servers::Redis::start().await;
    let (old, new) = (Node::start(&server.url(), 1).await, Node::start(&server.url(), 2).await);
    let ann = member(Some("ann"));
    assert!(old.presence.join(&room(), ann.clone(), 1).await.new);
    assert_eq!(new.presence.join(&room(), ann.clone(), 1).await, Joined { occupancy: 1, new: false });
    assert_eq!(old.presence.leave(&room(), &ann.session, 1).await, None);
    assert_eq!(sessions(&new).await, 1);
    assert!(old.presence.join(&room(), member(None), 2).await.new);
    old.presence.close().await;
    until("the old node's other session to leave", async || sessions(&new).await == 1).await;
    assert_eq!(new.presence.list(&room()).await.members, [ann]);
}

#[tokio::test]
async fn channels_where_nobody_is_any_more_are_not_remembered() {
    let server = xpush_test_servers::Redis::start().await;
    let node = Node::start(&server.url(), 1).await;
    let ann = member(None);
    for n in 0..300 {
        let channel: ChannelName = format!("room:{n}").parse().unwrap();
        node.presence.join(&channel, ann.clone(), 1).await;
        node.presence.leave(&channel, &ann.session, 1).await;
    }
    node.presence.join(&room(), ann, 1).await;
    until("them to be forgotten", async || {
        server.command(&["SCARD", "test:channels:0000000000000001.1"]).await == "1"
    })
    .await;
}
