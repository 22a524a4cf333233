//! No node matters: one after the other is killed while all clients publish, and nothing is lost, doubled or out of
//! order.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use xpush::client::Via;
use xpush_protocol::Codec;

use crate::{
    client::Tamper,
    harness,
    measure::{Away, Times},
    nodes::{Node, ProcessDoors, Shared},
    random::Random,
    run::Workload,
};
use xpush_test_servers::{Mongo, Redis, ZooKeeper};

/// From one kill to the next.
const EVERY: Duration = Duration::from_secs(15);
/// A killed node is away for so long.
const DOWN: Duration = Duration::from_secs(4);
/// A client is live elsewhere within this time, 99 times of 100.
const RECOVERED_WITHIN: Duration = Duration::from_secs(2);
/// Of a short run of a debug build beside other tests; `XPUSH_TEST_CLUSTER_SECONDS` and `XPUSH_TEST_CLUSTER_RATE` say
/// otherwise.
const SECONDS: u64 = 60;
const RATE: u64 = 500;

fn seconds() -> Duration {
    Duration::from_secs(asked("XPUSH_TEST_CLUSTER_SECONDS").unwrap_or(SECONDS))
}

fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")))
}

/// 500 clients on mixed wires, 200 channels.
pub(crate) fn workload(seed: u64) -> Workload {
    let wires = [
        (Via::Websocket, Codec::MessagePack),
        (Via::Quic, Codec::MessagePack),
        (Via::Websocket, Codec::Json),
        (Via::Webtransport, Codec::Json),
        (Via::Websocket, Codec::MessagePack),
        (Via::Longpoll, Codec::Json),
        (Via::Quic, Codec::Json),
        (Via::Webtransport, Codec::MessagePack),
    ];
    Workload {
        seed,
        rooms: 180,
        lives: 20,
        clients: 500,
        listens: 2,
        rate: asked("XPUSH_TEST_CLUSTER_RATE").unwrap_or(RATE) as f64,
        payload: 100,
        wires: wires.to_vec(),
        losing_rights: 50,
        tamper: Tamper::None,
        settle: Duration::from_secs(60),
        token: harness::token_to_listen,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_every_fifteen_seconds_costs_nothing() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random(seed);
    let (redis, mongo, zookeeper) = tokio::join!(Redis::start(), Mongo::start(3), ZooKeeper::start(3));
    let shared = Shared { redis: redis.url(), mongodb: mongo.url(), zookeeper: zookeeper.connect_string() };
    let doors = ProcessDoors::default();
    let mut nodes: Vec<Node> = (1..=3).map(|n| Node::new(&format!("n{n}"), &shared)).collect();
    nodes.iter_mut().for_each(Node::spawn);
    for node in &mut nodes {
        node.ready().await;
        doors.add(node);
    }
    let running = workload(seed).start(doors).await;
    println!("{:?}: {} clients are live", running.now(), running.live());
    running.publish();
    let end = Instant::now() + seconds();
    let mut kills = 0;
    let mut next = Instant::now() + EVERY / 3;
    while next + DOWN < end {
        sleep_until(next).await;
        let node = random.below(3) as usize;
        nodes[node].kill9();
        kills += 1;
        sleep_until(next + DOWN).await;
        nodes[node].start().await;
        next += EVERY;
    }
    sleep_until(end).await;
    println!(
        "{:?}: settling; processor seconds of the nodes: {:?}",
        running.now(),
        nodes.iter().map(Node::cpu).collect::<Vec<_>>()
    );
    let outcome = running.finish().await;
    let away = Away::of(outcome.recoveries.iter());
    println!("{kills} kills; {}", outcome.report);
    println!("{}", Times::of(&outcome.records));
    println!("{away}");
    outcome.report.assert_clean();
    assert_eq!(outcome.report.unknown, 0, "{}", outcome.report);
    assert!(away.count() > 0 && away.p99() < RECOVERED_WITHIN, "{away}");
}
