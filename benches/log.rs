//! What an append costs when many wait for one sync, beside what the disk can do, and what reading a page costs.

use std::{
    fs::File,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use xpush::{
    log::{Embedded, From, KeepByNamespace, Log, Query},
    publication::{Draft, Publisher},
};
use xpush_protocol::{ChannelName, Json, MessageId, Payload};

const PAYLOAD_BYTES: usize = 200;

/// What a message of `PAYLOAD_BYTES` takes in the journal, with its id, nearly.
const JOURNAL_BYTES: usize = 480;

const CHANNELS: u64 = 100;

fn channel(n: u64) -> ChannelName {
    format!("room:{}", n % CHANNELS).parse().expect("it is a channel's name")
}

fn draft() -> Draft {
    Draft {
        publisher: Publisher::backend("bench"),
        message_id: MessageId::random(),
        retriable: true,
        event: Default::default(),
        payload: Payload::Json(Json::from_value(&"x".repeat(PAYLOAD_BYTES - 2)).expect("it is JSON")),
        user: None,
        time: 0,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    }
}

/// So many tasks, each of which waits for its append before the next one.
async fn append(log: &Arc<Embedded>, tasks: u64, appends: u64) -> Duration {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let log = log.clone();
            tokio::spawn(async move {
                for n in 0..appends.div_ceil(tasks) {
                    let pending = log.append(&channel(task + n), draft()).await.expect("it is in line");
                    pending.await.expect("it is appended");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    begun.elapsed()
}

fn appends(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(1));
    for concurrent in [1, 16, 256] {
        let directory = tempfile::tempdir().expect("a directory");
        let log = Arc::new(Embedded::open(directory.path(), KeepByNamespace::new()).expect("a log"));
        group.bench_function(format!("{concurrent} concurrent"), |b| {
            b.iter_custom(|appends| runtime.block_on(append(&log, concurrent, appends)));
        });
        let mut file = File::create(directory.path().join("raw")).expect("a file");
        group.bench_function(format!("fdatasync of {concurrent}"), |b| {
            b.iter_custom(|appends| {
                let begun = Instant::now();
                for _ in 0..appends.div_ceil(concurrent) {
                    file.write_all(&vec![7; JOURNAL_BYTES * concurrent as usize]).expect("room");
                    file.sync_data().expect("it is synced");
                }
                begun.elapsed()
            });
        });
    }
}

fn reads(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let log = Arc::new(Embedded::open(directory.path(), KeepByNamespace::new()).expect("a log"));
    runtime.block_on(append(&log, 1000, 200_000));
    let last = Query { from: From::Before(None), limit: 50, bytes: usize::MAX };
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(50));
    let mut n = 0;
    group.bench_function("the last 50", |b| {
        b.iter(|| {
            n += 1;
            let page = runtime.block_on(log.read(&channel(n), last)).expect("a page");
            assert_eq!(page.publications.len(), 50);
        });
    });
    group.bench_function("an extent", |b| {
        b.iter(|| {
            n += 1;
            runtime.block_on(log.extent(&channel(n))).expect("an extent")
        });
    });
}

criterion_group!(benches, appends, reads);
criterion_main!(benches);
