//! How long a client that was away takes to have all it missed: from its `connect`, with a cursor for each of its
//! channels, to the last publication. Somebody else listens to the channels, so they have it in their rings; beside
//! channels that nobody listens to, which have to read the log on the disk.

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harness::{Listener, TestNode, channel, draft};
use tokio::runtime::Runtime;
use xpush::log::{Embedded, KeepByNamespace};
use xpush_protocol::{ChannelName, Codec, Connect, Cursor, MessageId, Resubscribe, ServerFrame};

/// Of each channel.
const MISSED: usize = 5;

/// A client is here for a moment, and misses what is published then. Gives what it will come back with.
async fn leave(node: &TestNode, channels: &[ChannelName]) -> Connect {
    let mut client = Listener::connect(node.dial().await, Connect::default()).await;
    let Ok(ServerFrame::Connected(connected)) = Codec::Json.decode(&client.frame().await) else {
        panic!("it is let in")
    };
    let mut subscriptions = Vec::new();
    for channel in channels {
        let mut cursor = None;
        for _ in 0..MISSED {
            let publishing = node.node.publish(channel, draft(MessageId::random())).await;
            let (published, _) = publishing.expect("it is in line").await.expect("it is published");
            cursor.get_or_insert(Cursor { offset: published.offset - 1, ..published });
        }
        subscriptions.push(Resubscribe { channel: channel.clone(), cursor });
    }
    Connect { state: Some(connected.state), subscriptions, ..Connect::default() }
}

async fn come_back(node: &TestNode, connect: Connect) -> Duration {
    let missed = connect.subscriptions.len() * MISSED;
    let connection = node.dial().await;
    let began = Instant::now();
    let mut client = Listener::connect(connection, connect).await;
    let mut publications = 0;
    while publications < missed {
        publications += usize::from(client.frame().await.starts_with(b"{\"publication"));
    }
    began.elapsed()
}

fn resume(c: &mut Criterion) {
    let mut group = c.benchmark_group("resume");
    let runtime = Runtime::new().expect("a runtime");
    for channels in [1, 10, 100] {
        let names: Vec<_> = (0..channels).map(|n| channel(&format!("room:{n}"))).collect();
        let directory = tempfile::tempdir().expect("a directory");
        let log = Embedded::open(directory.path(), KeepByNamespace::new()).expect("a log");
        let node = runtime.block_on(async { TestNode::on(Arc::new(log)) });
        group.throughput(Throughput::Elements(channels));
        let mut measure = |what: &str, connect: &Connect| {
            group.bench_function(format!("{what}/{channels}"), |b| {
                b.iter_custom(|times| {
                    runtime.block_on(async {
                        let mut took = Duration::ZERO;
                        for _ in 0..times {
                            took += come_back(&node, connect.clone()).await;
                        }
                        took
                    })
                });
            });
        };
        let connect = runtime.block_on(leave(&node, &names));
        measure("from the log", &connect);

        let _others: Vec<_> =
            names.iter().map(|name| runtime.block_on(node.listener(name.as_str()))).collect();
        let connect = runtime.block_on(leave(&node, &names));
        measure("from the rings", &connect);
    }
}

criterion_group!(benches, resume);
criterion_main!(benches);
