//! What a message costs from one node to another, and how many durable ones a cluster takes: numbers, beside no other
//! work. Nothing here fails for being slow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use xpush::client::{Client, Via, Visit};
use xpush_protocol::{ClientFrame, Codec, Connect, EventName, Json, Publish, ServerFrame, Subscribe};
use xpush_transports::Connection;

use crate::{
    client::Doors,
    harness,
    measure::Took,
    nodes::{self, ProcessDoors},
};

/// Messages a second.
const RATE: u32 = 1000;
const MEASURED_FOR: Duration = Duration::from_secs(5);
/// Who send them, in turn.
const SENDERS: u32 = 25;
/// Before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// Beyond what any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Publishers that each wait for their answer, at all nodes together.
const PUBLISHERS: usize = 192;
const CHANNELS: usize = 200;

/// Each is a user of its own: what one publisher may publish is limited.
async fn client(doors: &ProcessDoors, node: usize, user: &str, listens: &[&str]) -> Client {
    struct Start;
    impl Visit for Start {
        type Output = Client;
        fn visit(self, connection: impl Connection) -> Client {
            Client::start(connection, Codec::MessagePack)
        }
    }
    let mut client = doors.dial(node, Via::Websocket, Codec::MessagePack, Start).await.unwrap();
    let token = Some(harness::token_to_listen(user, listens));
    client.connect(Connect { token, ..Connect::default() }).await.unwrap();
    client
}

fn publish(id: u32, channel: &str, data: &str) -> ClientFrame {
    ClientFrame::Publish(Publish {
        id,
        channel: channel.parse().unwrap(),
        message_id: None,
        event: EventName::default(),
        data: Some(Json::from_value(&data).unwrap()),
        binary: None,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    })
}

/// From the moment when a message was due at one node until a subscriber at another had it.
pub(crate) async fn across(
    doors: &ProcessDoors,
    [from, to]: [usize; 2],
    rate: u32,
    measured_for: Duration,
    channel: &'static str,
) -> Took {
    let mut subscriber = client(doors, to, "reader", &[channel]).await;
    let subscribe = |id| {
        ClientFrame::Subscribe(Subscribe { id, channel: channel.parse().unwrap(), cursor: None, last: None })
    };
    subscriber.call(subscribe).await.unwrap();
    let began = Instant::now();
    let mut publishing = JoinSet::new();
    for n in 0..SENDERS {
        let mut publisher = client(doors, from, &format!("sender-{n}"), &[]).await;
        publishing.spawn(async move {
            let every = Duration::from_secs(1) * SENDERS / rate;
            let mut ticks = interval_at(began + every * n / SENDERS, every);
            // What is late is sent all the same, and counts from when it was due.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                let due = ticks.tick().await - began;
                if due >= WARM_UP + measured_for {
                    return publisher.close().await;
                }
                let data = format!("{} {}", due.as_micros(), "x".repeat(100));
                let published = publisher.call(|id| publish(id, channel, &data)).await;
                assert!(matches!(published, Ok(ServerFrame::Published(_))), "{published:?}");
            }
        });
    }
    let mut took = Vec::new();
    let expected = measured_for.as_secs() as usize * rate as usize;
    while took.len() < expected {
        let frame = timeout(PATIENCE, subscriber.event()).await.expect("publications come").unwrap();
        let ServerFrame::Publication(publication) = frame else { continue };
        let data: String = serde_json::from_str(publication.data.unwrap().as_str()).unwrap();
        let due = Duration::from_micros(data.split(' ').next().unwrap().parse().unwrap());
        if due >= WARM_UP {
            took.push(began.elapsed() - due);
        }
    }
    publishing.join_all().await;
    subscriber.close().await;
    Took::of(took)
}

/// Durable messages a second, of publishers at these nodes.
async fn durable_rate(doors: &ProcessDoors, nodes: &[usize]) -> (f64, Took) {
    let (is_over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut publishers = JoinSet::new();
    for n in 0..PUBLISHERS {
        let mut client = client(doors, nodes[n % nodes.len()], &format!("publisher-{n}"), &[]).await;
        let (is_over, count) = (Arc::clone(&is_over), Arc::clone(&count));
        publishers.spawn(async move {
            let (mut took, mut turn) = (Vec::new(), n);
            while !is_over.load(Ordering::Relaxed) {
                turn += PUBLISHERS;
                let channel = format!("room:{}", turn % CHANNELS);
                let began = Instant::now();
                let published = client.call(|id| publish(id, &channel, &"x".repeat(100))).await;
                assert!(matches!(published, Ok(ServerFrame::Published(_))), "{published:?}");
                took.push(began.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
            }
            client.close().await;
            took
        });
    }
    sleep(WARM_UP).await;
    let (began, before) = (Instant::now(), count.load(Ordering::Relaxed));
    sleep(MEASURED_FOR).await;
    let rate = (count.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    is_over.store(true, Ordering::Relaxed);
    (rate, Took::of(publishers.join_all().await.concat()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the whole machine: ./tests/run cluster"]
async fn what_a_message_costs_across_nodes() {
    let _alone = nodes::alone().await;
    let (_servers, _nodes, doors) = nodes::start_three().await;
    for (retention, channel) in [("none", "typing:a"), ("recent", "live:a"), ("durable", "room:a")] {
        let took = across(&doors, [0, 1], RATE, MEASURED_FOR, channel).await;
        println!("{RATE} messages/s from one node to another, {retention}: {took}");
        assert!(took.count() > 0);
    }
    for nodes in [&[0][..], &[0, 1, 2]] {
        let (rate, took) = durable_rate(&doors, nodes).await;
        println!(
            "{PUBLISHERS} publishers at {} of three nodes, {CHANNELS} channels: {rate:.0} durable messages/s, \
             acknowledged after {took}",
            nodes.len()
        );
        assert!(rate > 0.0);
    }
}
