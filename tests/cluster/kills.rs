//! No node matters: one after the other is killed while all clients publish, and nothing is lost, doubled or out of
//! order.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::{
    client::Recovery,
    load,
    measure::{self, Away, Times},
    nodes::{self, Node},
    random::Random,
};

/// From one kill to the next.
const EVERY: Duration = Duration::from_secs(15);
/// A killed node is away for so long.
const DOWN: Duration = Duration::from_secs(4);
/// A client is live elsewhere within this time, 99 times of 100.
const RECOVERED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the whole machine for minutes: ./tests/run cluster"]
async fn a_node_that_is_killed_every_fifteen_seconds_costs_nothing() {
    let _alone = nodes::alone().await;
    let seed = u64::from(std::process::id());
    let mut random = Random(seed);
    let (_servers, mut nodes, doors) = nodes::start_three().await;
    let running = load::workload(seed).start(doors).await;
    running.publish();
    let end = Instant::now() + load::seconds();
    let mut next = Instant::now() + EVERY / 3;
    let mut kills = 0;
    while next + DOWN < end {
        sleep_until(next).await;
        let node = &mut nodes[random.below(3) as usize];
        node.kill9();
        kills += 1;
        sleep_until(next + DOWN).await;
        node.start().await;
        next += EVERY;
    }
    sleep_until(end).await;
    let cpu: Vec<_> = nodes.iter().map(Node::cpu).collect();
    let clients = measure::cpu(std::process::id());
    let outcome = running.finish().await;
    // Others were asked to go, by nodes that had more than their share.
    let (moved, cut): (Vec<Recovery>, Vec<_>) =
        outcome.recoveries.iter().copied().partition(|recovery: &Recovery| recovery.drained);
    let away = Away::of(cut.iter());
    println!("{kills} kills; {}\n{}\n{away}", outcome.report, Times::of(&outcome.records));
    println!("asked to go: {}\n{}", Away::of(moved.iter()), Away::by_wire(&cut));
    for minute in 0..load::seconds().as_secs().div_ceil(60) {
        let in_minute = |recovery: &&Recovery| recovery.at.as_secs() / 60 == minute;
        println!("minute {}: {}", minute + 1, Away::of(cut.iter().filter(in_minute)));
    }
    println!("processor seconds: clients {clients:.1}, nodes since their last start {cpu:.1?}");
    outcome.report.assert_clean();
    assert_eq!(outcome.report.unknown, 0, "{}", outcome.report);
    assert!(kills > 0 && away.count() > 0, "{away}");
    assert!(!load::is_timed() || away.p99() < RECOVERED_WITHIN, "{away}");
}
