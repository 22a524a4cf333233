//! What it costs to hand one publication to so many subscribers: through the node and the channel into each session's
//! outbox, out of it by the session's writer, and over the memory transport to who takes it. To 1 subscriber it is mostly
//! the publish; the more there are, the more it is a delivery.
//!
//! Everything runs on one thread, so the times are the work of one core.

#[path = "../tests/harness/mod.rs"]
mod harness;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use harness::{Listener, TestNode, channel, draft};
use tokio::runtime::Builder;
use xpush_protocol::MessageId;
use xpush_transports::memory;

const LOBBY: &str = "room:lobby";

async fn publish(node: &TestNode, listeners: &mut [Listener<memory::Connection>]) {
    let publishing = node.node.publish(&channel(LOBBY), draft(MessageId::random())).await;
    publishing.expect("it is in line").await.expect("it is published");
    for listener in listeners {
        listener.frame().await;
    }
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fanout");
    // A listener says nothing, and for so long as other ways of sampling take, no session would wait for it.
    group.sampling_mode(SamplingMode::Flat);
    for subscribers in [1, 10, 100, 1_000, 10_000] {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let node = runtime.block_on(async { TestNode::in_memory() });
        let mut listeners: Vec<_> =
            (0..subscribers).map(|_| runtime.block_on(node.listener(LOBBY))).collect();
        group.throughput(Throughput::Elements(subscribers));
        group.bench_function(subscribers.to_string(), |b| {
            b.iter(|| runtime.block_on(publish(&node, &mut listeners)));
        });
    }
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
