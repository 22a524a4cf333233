//! What every broker promises, as tests over two nodes. Each backend runs all of them: `contract!` makes one test of
//! each.

use std::{any::Any, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use xpush_protocol::{
    AppId, ChannelName, Codec, Cursor, DeviceId, Epoch, EventName, Join, Json, Member, Message, ServerFrame,
    SessionId, Target, UserDevice, UserId,
};
use xpush_test_servers::until;

use super::{Broker, Carried, Inbox, Topic};
use crate::{
    channel::Channel,
    log::{
        Capacity, KeepByNamespace, Log, Memory,
        fixture::{channel, draft},
    },
    namespace::{Policy, Retention},
    session::{Entering, Outbox},
};

/// Two nodes' brokers of a backend, and what must live as long.
pub(super) struct Opened {
    pub(super) nodes: [Node; 2],
    pub(super) guard: Box<dyn Any + Send>,
}

pub(super) type Open = fn() -> BoxFuture<'static, Opened>;

/// One node, as far as its broker sees it.
pub(super) struct Node {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) inbox: Arc<Inbox>,
}

macro_rules! contract {
    ($backend:ident, $open:expr) => {
        mod $backend {
            $crate::broker::contract::contract!(
                $open,
                a_publication_arrives_where_somebody_listens
                what_a_node_publishes_it_does_not_hear_itself
                nobody_gets_what_nobody_listens_to
                who_listens_twice_listens_until_both_cease
                who_ceases_and_begins_at_once_listens
                a_thousand_topics_are_listened_to
                a_top_never_goes_back_within_its_epoch
                tops_stand_in_the_order_that_was_asked_for
                a_private_message_is_counted_where_it_arrives
                joins_and_leaves_arrive
                one_apps_names_are_not_anothers
            );
        }
    };
    ($open:expr, $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::broker::contract::$test($open).await;
            }
        )*
    };
}
pub(super) use contract;

#[cfg(feature = "redis")]
contract!(redis, || Box::pin(async {
    let server = xpush_test_servers::Redis::start().await;
    crate::broker::redis::tests::two_nodes(server.url(), Box::new(server)).await
}));
#[cfg(feature = "redis")]
contract!(redis_sentinel, || Box::pin(async {
    let server = xpush_test_servers::RedisSentinel::start().await;
    crate::broker::redis::tests::two_nodes(server.url(), Box::new(server)).await
}));
#[cfg(feature = "redis")]
contract!(redis_cluster, || Box::pin(async {
    let server = xpush_test_servers::RedisCluster::start().await;
    crate::broker::redis::tests::two_nodes(server.url(), Box::new(server)).await
}));

/// A channel at a node, with a subscriber, whose log has nothing: what it delivers came by the broker.
pub(super) struct Watched {
    channel: Arc<Channel>,
    pub(super) epoch: Epoch,
}

impl Watched {
    pub(super) async fn at(node: &Node, name: &ChannelName) -> Self {
        let capacity = Capacity { channels: 10_000, bytes: 1 << 20 };
        let log: Arc<dyn Log> = Arc::new(Memory::new(KeepByNamespace::new(), capacity));
        Self::of(node, name, &log).await
    }

    pub(super) async fn of(node: &Node, name: &ChannelName, log: &Arc<dyn Log>) -> Self {
        let policy = Policy {
            retention: Retention::Recent { size: 1, ttl: Duration::from_secs(60) },
            presence: true,
            ..Policy::default()
        };
        let outbox = Arc::new(Outbox::new(Codec::Json));
        let delivery = outbox.reserve();
        let (channel, _) =
            node.inbox.channels.enter(name, &policy, log, |channel| channel.add(&outbox, delivery, true));
        let epoch = channel.delivered().await.unwrap().epoch;
        Self { channel, epoch }
    }

    /// The next publication of this channel, as another node has it.
    pub(super) fn publication(&self, offset: u64) -> Carried {
        let publication = Arc::new(draft("ann", offset).into_publication(offset));
        Carried::Publication { channel: self.channel.name().clone(), epoch: self.epoch, publication }
    }

    pub(super) async fn repair(&self) {
        self.channel.repair(Duration::ZERO).await.unwrap();
    }

    pub(super) async fn has_delivered(&self, offset: u64) -> bool {
        self.channel.delivered().await.unwrap().offset == offset
    }
}

pub(super) async fn a_publication_arrives_where_somebody_listens(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    let room = channel("room:a");
    let watched = Watched::at(&b, &room).await;
    b.broker.listen(Topic::Channel(room)).await;
    for offset in 1..=100 {
        assert_eq!(a.broker.publish(watched.publication(offset)).await, Ok(1));
    }
    until("all of them to arrive", async || watched.has_delivered(100).await).await;
}

pub(super) async fn what_a_node_publishes_it_does_not_hear_itself(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    let room = channel("room:a");
    let (here, there) = (Watched::at(&a, &room).await, Watched::at(&b, &room).await);
    for node in [&a, &b] {
        node.broker.listen(Topic::Channel(room.clone())).await;
    }
    // Of its own node's epoch: it would take it.
    assert_eq!(a.broker.publish(here.publication(1)).await, Ok(1), "this node is not counted");
    assert_eq!(a.broker.publish(there.publication(1)).await, Ok(1));
    until("the other node to have it", async || there.has_delivered(1).await).await;
    assert!(here.has_delivered(0).await);
}

pub(super) async fn nobody_gets_what_nobody_listens_to(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    let room = channel("room:a");
    let watched = Watched::at(&b, &room).await;
    assert_eq!(a.broker.publish(watched.publication(1)).await, Ok(0));
    let topic = Topic::Channel(room);
    b.broker.listen(topic.clone()).await;
    b.broker.unlisten(&topic);
    until("it to be taken back", async || a.broker.publish(watched.publication(9)).await == Ok(0)).await;
    b.broker.listen(topic).await;
    assert_eq!(a.broker.publish(watched.publication(1)).await, Ok(1));
    until("it to arrive", async || watched.has_delivered(1).await).await;
}

pub(super) async fn who_listens_twice_listens_until_both_cease(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    let topic = Topic::Channel(channel("room:a"));
    let watched = Watched::at(&b, &channel("room:a")).await;
    // A future that is dropped has listened too.
    drop(b.broker.listen(topic.clone()));
    b.broker.listen(topic.clone()).await;
    b.broker.unlisten(&topic);
    // What is asked for later is done later: the former would be seen by now.
    b.broker.listen(Topic::Channel(channel("room:b"))).await;
    assert_eq!(a.broker.publish(watched.publication(1)).await, Ok(1));
    b.broker.unlisten(&topic);
    until("nobody to listen", async || a.broker.publish(watched.publication(9)).await == Ok(0)).await;
}

pub(super) async fn who_ceases_and_begins_at_once_listens(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    let topic = Topic::Channel(channel("room:a"));
    let watched = Watched::at(&b, &channel("room:a")).await;
    b.broker.listen(topic.clone()).await;
    for offset in 1..=200 {
        b.broker.unlisten(&topic);
        if offset % 3 == 0 {
            tokio::task::yield_now().await;
        }
        b.broker.listen(topic.clone()).await;
        assert_eq!(a.broker.publish(watched.publication(offset)).await, Ok(1), "the {offset}th time");
    }
    until("all of them to arrive", async || watched.has_delivered(200).await).await;
}

pub(super) async fn a_thousand_topics_are_listened_to(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    let rooms: Vec<_> = (0..1000).map(|n| channel(&format!("room:{n}"))).collect();
    let mut watched = Vec::new();
    for room in &rooms {
        watched.push(Watched::at(&b, room).await);
    }
    let listen = rooms.iter().map(|room| b.broker.listen(Topic::Channel(room.clone())));
    futures_util::future::join_all(listen).await;
    let publish = watched.iter().map(|watched| a.broker.publish(watched.publication(1)));
    let got: usize = futures_util::future::join_all(publish).await.into_iter().map(Result::unwrap).sum();
    assert_eq!(got, 1000);
    for watched in &watched {
        until("it to arrive", async || watched.has_delivered(1).await).await;
    }
}

fn top(name: &str, epoch: u32, offset: u64) -> Carried {
    Carried::Top { channel: channel(name), cursor: Cursor { epoch: Epoch(epoch), offset } }
}

pub(super) async fn a_top_never_goes_back_within_its_epoch(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    let room = [channel("room:a")];
    for (told, expected) in [
        ((7, 5), (7, 5)),
        ((7, 4), (7, 5)),
        ((7, 10), (7, 10)),
        ((7, 9), (7, 10)),
        ((6, 3), (6, 3)),
        ((6, u64::MAX - 1), (6, u64::MAX - 1)),
        ((6, u64::MAX - 2), (6, u64::MAX - 1)),
        ((6, u64::MAX), (6, u64::MAX)),
    ] {
        a.broker.publish(top("room:a", told.0, told.1)).await.unwrap();
        let cursor = Cursor { epoch: Epoch(expected.0), offset: expected.1 };
        assert_eq!(b.broker.tops(&room).await.unwrap(), [Some(cursor)], "{told:?}");
    }
    let watched = Watched::at(&b, &room[0]).await;
    a.broker.publish(watched.publication(3)).await.unwrap();
    assert_eq!(b.broker.tops(&room).await.unwrap(), [Some(Cursor { epoch: watched.epoch, offset: 3 })]);
}

pub(super) async fn tops_stand_in_the_order_that_was_asked_for(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    assert_eq!(a.broker.tops(&[]).await.unwrap(), []);
    let rooms: Vec<_> = (0..3000).map(|n| channel(&format!("room:{n}"))).collect();
    for n in (0..3000).step_by(100) {
        a.broker.publish(top(&format!("room:{n}"), 1, n)).await.unwrap();
    }
    let tops = b.broker.tops(&rooms).await.unwrap();
    assert_eq!(tops.len(), 3000);
    for (n, top) in (0_u64..).zip(tops) {
        assert_eq!(top, (n % 100 == 0).then_some(Cursor { epoch: Epoch(1), offset: n }));
    }
}

/// A session of this user begins at a node, on a phone.
fn enter(node: &Node, session: &SessionId, user: &UserId) -> Arc<Outbox> {
    let outbox = Arc::new(Outbox::new(Codec::Json));
    let (app, device) = (user.app(), phone());
    let entering = Entering {
        session,
        app: &app,
        user: Some(user),
        device: Some(&device),
        since: 0,
        connection: 1,
        generation: 1,
        outbox: &outbox,
    };
    node.inbox.sessions.attach(entering);
    outbox
}

fn phone() -> DeviceId {
    "phone".parse().unwrap()
}

/// Gives how many nodes got it, and how many sessions took it.
async fn send(node: &Node, app: &AppId, to: &Target) -> (usize, u32) {
    let message = Message {
        session: None,
        user: None,
        event: EventName::default(),
        data: Some(Json::parse("1").unwrap()),
        binary: None,
    };
    let answers = node.inbox.expect_accepted().unwrap();
    let (from, request) = (node.inbox.node().clone(), answers.request);
    let carried = Carried::Message { app: app.clone(), to: to.clone(), message, from, request };
    let nodes = node.broker.publish(carried).await.unwrap();
    (nodes, answers.sum(nodes).await)
}

pub(super) async fn one_apps_names_are_not_anothers(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    let [shop, game] = ["shop", "game"].map(|app| app.parse::<AppId>().unwrap());
    let (room, ann) = (channel("room:a"), "ann".parse::<UserId>().unwrap());
    let (of_shop, of_game) = (room.within(&shop), room.within(&game));
    // One log, so that their numbers alone would not tell the two apart.
    let log: Arc<dyn Log> =
        Arc::new(Memory::new(KeepByNamespace::new(), Capacity { channels: 10, bytes: 1 << 20 }));
    let watched = Watched::of(&b, &of_shop, &log).await;
    let other = Watched::of(&b, &of_game, &log).await;
    for name in [&of_shop, &of_game] {
        b.broker.listen(Topic::Channel(name.clone())).await;
    }
    assert_eq!(a.broker.publish(watched.publication(1)).await, Ok(1));
    until("it to arrive", async || watched.has_delivered(1).await).await;
    assert!(other.has_delivered(0).await);
    let tops = a.broker.tops(&[room, of_shop, of_game]).await.unwrap();
    assert_eq!(tops, [None, Some(Cursor { epoch: watched.epoch, offset: 1 }), None]);

    let session = SessionId::random();
    let ann_of_shop = ann.within(&shop);
    let _outbox = enter(&b, &session, &ann_of_shop);
    for topic in [&session].map(|session| Topic::Session(session.clone())) {
        b.broker.listen(topic).await;
    }
    for user in [&ann, &ann_of_shop, &ann.within(&game)] {
        b.broker.listen(Topic::User(user.clone())).await;
    }
    for (app, taken) in [(&shop, 1), (&game, 0), (&AppId::default(), 0)] {
        let device = UserDevice { user: ann.within(app), device: phone() };
        let targets =
            [Target::Session(session.clone()), Target::User(ann.within(app)), Target::Device(device)];
        for to in targets {
            // The sender's own subscription may still be on its way, and without it there is no answer.
            if taken == 1 {
                until("an answer", async || send(&a, app, &to).await == (1, 1)).await;
            } else {
                assert_eq!(send(&a, app, &to).await, (1, 0), "{to:?} of {app}");
            }
        }
    }
}

pub(super) async fn a_private_message_is_counted_where_it_arrives(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    let (session, user): (_, UserId) = (SessionId::random(), "Ann Ü. {1}".parse().unwrap());
    let app = AppId::default();
    let _outbox = enter(&b, &session, &user);
    let of = |device| Target::Device(UserDevice { user: user.clone(), device });
    let targets = [Target::Session(session.clone()), Target::User(user.clone()), of(phone())];
    let send = async |to: &Target| send(&a, &app, to).await;
    for to in &targets {
        assert_eq!(send(to).await, (0, 0), "nobody listens yet");
    }
    for topic in [Topic::Session(session), Topic::User(user)] {
        b.broker.listen(topic).await;
    }
    for to in &targets {
        // The sender's own subscription may still be on its way, and without it there is no answer.
        until("an answer", async || send(to).await == (1, 1)).await;
    }
}

pub(super) async fn joins_and_leaves_arrive(open: Open) {
    let Opened { nodes: [a, b], guard: _guard } = open().await;
    let room = channel("room:a");
    let watched = Watched::at(&b, &room).await;
    b.broker.listen(Topic::Channel(room.clone())).await;
    // One of a big channel is noted, and can be asked for.
    let member = Member { session: SessionId::random(), user: None };
    let join = Join { channel: room.clone(), member, occupancy: 101 };
    let carried = Carried::Presence { channel: room, occupancy: 101, frame: ServerFrame::Join(join) };
    assert_eq!(a.broker.publish(carried).await, Ok(1));
    until("it to arrive", async || watched.channel.take_occupancy() == Some(101)).await;
}
