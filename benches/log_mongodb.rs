//! What appends to MongoDB cost, and what a hot channel loses when several nodes write it. A plain program, as it
//! starts its own server: `cargo bench --bench log_mongodb`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime::Runtime, task::JoinSet};
use xpush::{
    log::{Keep, KeepByNamespace, Log, MongoDb},
    publication::{Draft, Publisher},
};
use xpush_protocol::{ChannelName, Json, MessageId, Payload};
use xpush_test_servers::Mongo;

const PAYLOAD_BYTES: usize = 200;
const CHANNELS: usize = 200;
const DURATION: Duration = Duration::from_secs(5);

fn draft(task: usize) -> Draft {
    Draft {
        publisher: Publisher::backend(&format!("bench-{task}")),
        message_id: MessageId::random(),
        retriable: true,
        event: Default::default(),
        payload: Payload::Json(Json::from_value(&"x".repeat(PAYLOAD_BYTES - 2)).expect("it is JSON")),
        user: None,
        time: 1_700_000_000_000,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    }
}

/// Tasks that each wait for an append before the next one; task `n` takes a log and channels from `place`.
async fn measure(what: &str, tasks: usize, place: impl Fn(usize, usize) -> (Arc<MongoDb>, ChannelName)) {
    let end = Instant::now() + DURATION;
    let mut appending = JoinSet::new();
    for task in 0..tasks {
        let places: Vec<_> = (0..CHANNELS).map(|n| place(task, n)).collect();
        appending.spawn(async move {
            let mut took = Vec::new();
            for (log, channel) in places.iter().cycle() {
                let begun = Instant::now();
                if begun >= end {
                    break;
                }
                let pending = log.append(channel, draft(task)).await.expect("it is in line");
                pending.await.expect("it is appended");
                took.push(begun.elapsed());
            }
            took
        });
    }
    let mut took = appending.join_all().await.concat();
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    let rate = took.len() as f64 / DURATION.as_secs_f64();
    println!("{what:<58} {rate:>7.0}/s   p50 {:>6.1} ms   p99 {:>6.1} ms", at(50), at(99));
}

async fn run(members: usize) {
    let server = Mongo::start(members).await;
    println!("a set of {members}:");
    let mut keep = KeepByNamespace::new();
    keep.insert("trim".parse().expect("a namespace"), Keep { count: Some(1000), age: None });
    let mut logs = Vec::new();
    for _ in 0..3 {
        let log = MongoDb::connect(&server.url(), "bench", keep.clone()).await.expect("a log");
        logs.push(Arc::new(log));
    }
    let channel = |name: String| name.parse::<ChannelName>().expect("a channel");
    let spread = |namespace: &str, task: usize, n: usize| {
        channel(format!("{namespace}:{}", (task * 7 + n) % CHANNELS))
    };
    for tasks in [1, 64, 256] {
        let place = |task, n| (logs[0].clone(), spread("room", task, n));
        measure(&format!("one log, {CHANNELS} channels, {tasks} tasks"), tasks, place).await;
    }
    let place = |task, n| (logs[0].clone(), spread("trim", task, n));
    measure(&format!("one log, {CHANNELS} channels that are trimmed, 256 tasks"), 256, place).await;
    for tasks in [63, 255] {
        let own = |task: usize, n| {
            (logs[task % 3].clone(), channel(format!("own{}:{}", task % 3, (task + n) % 67)))
        };
        measure(&format!("three logs, each its own channels, {tasks} tasks"), tasks, own).await;
        let shared = |task: usize, n| (logs[task % 3].clone(), spread("shared", task, n));
        measure(&format!("three logs, {CHANNELS} channels of all of them, {tasks} tasks"), tasks, shared)
            .await;
        let hot = |task: usize, _| (logs[task % 3].clone(), channel(format!("hot:three{tasks}")));
        measure(&format!("three logs, one channel, {tasks} tasks"), tasks, hot).await;
        let one = |_, _| (logs[0].clone(), channel(format!("hot:one{tasks}")));
        measure(&format!("one log, one channel, {tasks} tasks"), tasks, one).await;
    }
    for log in logs {
        log.close().await;
    }
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    for members in [1, 3] {
        runtime.block_on(run(members));
    }
}
