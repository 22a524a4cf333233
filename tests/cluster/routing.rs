//! Where many nodes append to one channel, one of them appends for all: whichever it is at a moment, and whatever is
//! lost between them, nobody's messages change their order.

use std::time::Duration;

use tokio::{task::JoinSet, time::sleep};
use xpush::client::{Via, Visit};
use xpush_protocol::{ClientFrame, Codec, Connect, EventName, Json, MessageId, Publish, ServerFrame};
use xpush_transports::{Connection, Lane, Outgoing, Reader as _, Writer as _};

use crate::{
    client::Doors,
    harness,
    random::Random,
    stand_in::{Cluster, Faults},
};

const NODES: usize = 3;
const MESSAGES: u32 = 300;
/// Within this time after the broker is back all is as before.
const SOON: Duration = Duration::from_millis(500);

/// The connection itself: what is sent does not wait for answers.
struct Bare {
    messages: u32,
}

impl Visit for Bare {
    type Output = futures_util::future::BoxFuture<'static, Vec<u64>>;

    fn visit(self, connection: impl Connection) -> Self::Output {
        Box::pin(publish(connection, self.messages))
    }
}

/// Publishes to one channel, and gives the offsets in the order in which it published.
async fn publish(connection: impl Connection, messages: u32) -> Vec<u64> {
    let (_, mut reader, mut writer) = connection.split();
    let outgoing =
        |frame: &ClientFrame| vec![Outgoing { bytes: Codec::Json.encode(frame), lane: Lane::Control }];
    let token = Some(harness::token_to_listen("publisher", &[]));
    let connect = ClientFrame::Connect(Connect { id: 1_000_000, token, ..Connect::default() });
    writer.write(&mut outgoing(&connect)).await.unwrap();
    let sending = async {
        let mut random = Random(7);
        for id in 1..=messages {
            let publish = Publish {
                id,
                channel: "room:hot".parse().unwrap(),
                message_id: Some(MessageId::random()),
                event: EventName::default(),
                data: Some(Json::parse("1").unwrap()),
                binary: None,
                reply_to: None,
                mentions: Vec::new(),
                expires_in: None,
            };
            writer.write(&mut outgoing(&ClientFrame::Publish(publish))).await.unwrap();
            if random.once_in(3) {
                sleep(random.up_to(Duration::from_millis(40))).await;
            }
        }
    };
    let receiving = async {
        let mut offsets = vec![0; messages as usize];
        while offsets.contains(&0) {
            let frame = reader.read().await.unwrap();
            match Codec::Json.decode(&frame).unwrap() {
                ServerFrame::Published(published) => {
                    offsets[published.id as usize - 1] = published.cursor.offset;
                }
                ServerFrame::Connected(_) => {}
                other => panic!("{other:?}"),
            }
        }
        offsets
    };
    let ((), offsets) = tokio::join!(sending, receiving);
    offsets
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_connection_keep_their_order_whichever_node_appends_them() {
    for (seed, faults) in [(1, Faults::none()), (2, Faults::storm()), (3, Faults::storm())] {
        let mut cluster = Cluster::start(NODES, faults, seed);
        let mut publishing = JoinSet::new();
        for node in 0..NODES {
            let bare = Bare { messages: MESSAGES };
            publishing.spawn(cluster.doors().dial(node, Via::Websocket, Codec::Json, bare).await.unwrap());
        }
        let mut all: Vec<u64> = Vec::new();
        while let Some(offsets) = publishing.join_next().await {
            let offsets = offsets.unwrap();
            assert!(offsets.is_sorted(), "seed {seed}: {offsets:?}");
            all.extend(offsets);
        }
        all.sort_unstable();
        let each_once: Vec<u64> = (1..=u64::from(MESSAGES) * NODES as u64).collect();
        assert_eq!(all, each_once, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_is_its_appenders_again_as_soon_as_the_broker_is_back() {
    let mut cluster = Cluster::start(NODES, Faults::none(), 4);
    let doors = cluster.doors();
    // Whether a channel has rivals is a hint that comes and goes: of so many messages some are another node's to append.
    let appenders = async || {
        for node in 0..NODES {
            let bare = Bare { messages: 20 };
            doors.dial(node, Via::Websocket, Codec::Json, bare).await.unwrap().await;
        }
        cluster.hub.take_appenders()
    };
    let before = appenders().await;
    assert_eq!(before.len(), 1);
    cluster.hub.set_away(true);
    appenders().await;
    sleep(Duration::from_secs(10)).await;
    appenders().await;
    cluster.hub.set_away(false);
    sleep(SOON).await;
    assert_eq!(appenders().await, before, "that the broker was away is held against a node");
}
