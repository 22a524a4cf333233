//! Whatever a node stands on may break while all clients publish: nothing is lost, doubled or out of order, and soon
//! after it is mended the traffic is as before.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    time::sleep,
};
use xpush_test_servers::{Mongo, Proxy, Redis, RedisSentinel, ZooKeeper};

use crate::{
    load,
    measure::{Away, Times},
    nodes::{self, ProcessDoors, SESSION_TIMEOUT, Shared, Signal},
    run::{Outcome, Running},
};

/// From the moment when everything is there again until the traffic is as before.
const NORMAL_WITHIN: Duration = Duration::from_secs(10);
/// A short run only has to get there.
const NORMAL_SOMETIME: Duration = Duration::from_secs(60);
/// How long a node is frozen: beyond its ZooKeeper session and its presence lease.
const FROZEN: Duration = Duration::from_secs(30);
/// How long a server is away, or a line is dead.
const AWAY: Duration = Duration::from_secs(4);
/// What a line takes that is slow.
const SLOW: Duration = Duration::from_millis(150);

/// Waits until the traffic is what it should be: at first everything is new.
async fn settled(running: &Running<ProcessDoors>) {
    let took = running.normal_within(NORMAL_SOMETIME).await;
    println!("the traffic is normal after {took:.1?}");
    assert!(took.is_some(), "the traffic is not normal within {NORMAL_SOMETIME:?} of the start");
}

/// Waits until the traffic is as before, and says how long it took.
async fn mended(running: &Running<ProcessDoors>, what: &str) {
    let limit = if load::is_timed() { NORMAL_WITHIN } else { NORMAL_SOMETIME };
    let at = running.now();
    match running.normal_within(limit).await {
        Some(took) => {
            println!("{at:.1?} {what}: the traffic was as before after {took:.1?}");
            assert!(took <= limit, "after {what} the traffic was as before only after {took:?}");
        }
        None => panic!(
            "after {what} the traffic was not as before within {limit:?}; {} are live\n{}",
            running.live(),
            running.times_since(at).by_second()
        ),
    }
}

fn judge(outcome: &Outcome) {
    let away = Away::of(outcome.recoveries.iter());
    println!("{}\n{}\n{away}", outcome.report, Times::of(&outcome.records));
    outcome.report.assert_clean();
    assert_eq!(outcome.report.unknown, 0, "{}", outcome.report);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the whole machine for minutes: ./tests/run cluster"]
async fn servers_that_die_stop_or_forget_cost_no_acknowledged_message() {
    let _alone = nodes::alone().await;
    let (mut redis, mut mongo, mut zookeeper) =
        tokio::join!(RedisSentinel::start(), Mongo::start(3), ZooKeeper::start(3));
    let shared = Shared { redis: redis.url(), mongodb: mongo.url(), zookeeper: zookeeper.connect_string() };
    let (nodes, doors) = nodes::start(&[shared.clone(), shared.clone(), shared]).await;
    let running = load::workload(u64::from(std::process::id())).start(doors).await;
    running.publish();
    settled(&running).await;

    redis.kill_primary().await;
    redis.primary().await;
    mended(&running, "a fail-over of Redis").await;
    redis.restore().await;

    flush(redis.primary().await).await;
    mended(&running, "FLUSHALL of Redis").await;

    let primary = mongo.primary().await;
    mongo.kill(primary);
    mongo.primary().await;
    mended(&running, "a fail-over of MongoDB").await;
    mongo.restart(primary).await;

    mongo.pause_all();
    sleep(AWAY).await;
    mongo.resume_all();
    mongo.primary().await;
    mended(&running, "a stop of all of MongoDB").await;

    let leader = zookeeper.leader().await;
    zookeeper.kill(leader);
    zookeeper.leader().await;
    mended(&running, "the death of ZooKeeper's leader").await;
    zookeeper.restart(leader).await;

    zookeeper.kill_all();
    sleep(SESSION_TIMEOUT + AWAY).await;
    mended(&running, "all of ZooKeeper being away for longer than its sessions last").await;
    zookeeper.restart_all().await;
    mended(&running, "the return of ZooKeeper").await;

    nodes[1].signal(Signal::Stop);
    sleep(FROZEN).await;
    nodes[1].signal(Signal::Continue);
    mended(&running, "a node that was frozen").await;

    let gaps = running.finish().await;
    judge(&gaps);
    assert!(gaps.report.gaps > 0, "FLUSHALL loses what need not last, and it is told");
}

/// By hand: a set of Redis servers has no command of its own.
async fn flush(primary: SocketAddr) {
    let mut stream = TcpStream::connect(primary).await.unwrap();
    stream.write_all(b"FLUSHALL\r\n").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+OK\r\n");
}

/// Where the lines run: not where the clients do, or a busy client would slow the lines down.
struct Exchange(Option<Runtime>);

impl Exchange {
    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Self(Some(builder.worker_threads(1).enable_all().build().unwrap()))
    }

    async fn line(&self, target: SocketAddr) -> Proxy {
        let runtime = self.0.as_ref().unwrap();
        runtime.spawn(Proxy::to(target)).await.unwrap()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Whoever drops this may not wait.
            runtime.shutdown_background();
        }
    }
}

/// The lines of one node to its servers.
struct Lines {
    redis: Proxy,
    mongodb: Proxy,
    zookeeper: Proxy,
}

impl Lines {
    async fn to(exchange: &Exchange, redis: &Redis, mongo: &Mongo, zookeeper: &ZooKeeper) -> Self {
        Self {
            redis: exchange.line(redis.address()).await,
            mongodb: exchange.line(mongo.address(0)).await,
            zookeeper: exchange.line(zookeeper.address(0)).await,
        }
    }

    fn shared(&self) -> Shared {
        Shared {
            redis: format!("redis://{}", self.redis.address()),
            // Or the driver would go to where the set says that it is, past the line.
            mongodb: format!("mongodb://{}/?directConnection=true", self.mongodb.address()),
            zookeeper: self.zookeeper.address().to_string(),
        }
    }

    fn all(&self) -> [(&'static str, &Proxy); 3] {
        [("Redis", &self.redis), ("MongoDB", &self.mongodb), ("ZooKeeper", &self.zookeeper)]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the whole machine for minutes: ./tests/run cluster"]
async fn lines_that_are_cut_dead_one_way_or_slow_cost_no_acknowledged_message() {
    let _alone = nodes::alone().await;
    let (redis, mongo, zookeeper) = tokio::join!(Redis::start(), Mongo::start(1), ZooKeeper::start(1));
    let exchange = Exchange::new();
    let mut lines = Vec::new();
    for _ in 0..3 {
        lines.push(Lines::to(&exchange, &redis, &mongo, &zookeeper).await);
    }
    let shared: Vec<_> = lines.iter().map(Lines::shared).collect();
    let (_nodes, doors) = nodes::start(&shared).await;
    let running = load::workload(u64::from(std::process::id())).start(doors).await;
    running.publish();
    settled(&running).await;

    // Another node each time.
    let mut node = lines.iter().cycle();
    type Break = fn(&Proxy);
    let breaks: [(&str, Break); 4] = [
        ("cut off from", Proxy::cut),
        ("not heard by", Proxy::stall_upstream),
        ("deaf to", Proxy::stall_downstream),
        ("slow to reach", |line| line.delay(SLOW)),
    ];
    for (how, break_line) in breaks {
        for at in 0..3 {
            let Some(lines) = node.next() else { continue };
            let (server, line) = lines.all()[at];
            break_line(line);
            sleep(AWAY).await;
            line.heal();
            mended(&running, &format!("a node that was {how} {server}")).await;
        }
    }
    // One node is cut off from everything but its clients.
    for (_, line) in lines[0].all() {
        line.stall_upstream();
        line.stall_downstream();
    }
    sleep(AWAY * 2).await;
    for (_, line) in lines[0].all() {
        line.heal();
    }
    mended(&running, "a node that was alone").await;

    judge(&running.finish().await);
}
