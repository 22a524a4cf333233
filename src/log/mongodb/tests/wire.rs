//! A wire that loses an answer, or holds a request back until nobody waits for it any more.

use std::{
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use mongodb::bson::{Document, doc};
use tokio::time::interval;
use xpush_test_servers::{Proxy, until};

use super::{
    super::line::BEHIND,
    failover::BOUND,
    server::{connect, database, server},
};
use crate::log::{
    Appended, KeepByNamespace, Log, LogError, MongoDb,
    fixture::{append, channel, draft},
};

/// A log that reaches its server through the proxy.
async fn connect_through(proxy: &Proxy, database: &str) -> Arc<MongoDb> {
    let url = format!("mongodb://{}/?directConnection=true", proxy.address());
    Arc::new(MongoDb::connect(&url, database, KeepByNamespace::new()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_answer_is_lost_is_found_and_new() {
    let (server, database) = (server().await, database());
    let proxy = Proxy::to(server.address(0)).await;
    let log = connect_through(&proxy, &database).await;
    let direct = connect(&server, &database, KeepByNamespace::new()).await;
    let (room, other) = (channel("room:a"), channel("room:b"));
    append(&*log, &room, draft("ann", 1)).await;
    proxy.stall_downstream();
    let pending = log.append(&room, draft("ann", 2)).await.unwrap();
    until("the write to arrive", async || direct.extent(&room).await.unwrap().top == 2).await;
    proxy.cut();
    // When this one fails, the driver has given the other up too.
    let refused = log.append(&other, draft("ann", 3)).await.unwrap().await;
    assert!(matches!(refused, Err(LogError::Unavailable { .. })), "{refused:?}");
    proxy.heal();
    let appended = pending.await.unwrap();
    assert!(matches!(appended, Appended::New { .. }) && appended.cursor().offset == 2, "{appended:?}");
    assert_eq!(append(&*log, &room, draft("ann", 4)).await.cursor().offset, 3);
    assert_eq!(direct.extent(&room).await.unwrap().top, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_comes_late_stands_once_or_not_at_all() {
    let (server, database) = (server().await, database());
    let proxy = Proxy::to(server.address(0)).await;
    let log = connect_through(&proxy, &database).await;
    let direct = connect(&server, &database, KeepByNamespace::new()).await;
    let (taken, free) = (channel("room:taken"), channel("room:free"));
    for room in [&taken, &free] {
        append(&*log, room, draft("ann", 1)).await;
    }
    proxy.stall_upstream();
    let begun = Instant::now();
    let pending = [
        log.append(&taken, draft("ann", 2)).await.unwrap(),
        log.append(&free, draft("ann", 2)).await.unwrap(),
    ];
    for pending in pending {
        let refused = pending.await;
        assert!(matches!(refused, Err(LogError::Unavailable { .. })), "{refused:?}");
    }
    assert!(begun.elapsed() < BOUND);
    assert_eq!(append(&*direct, &taken, draft("bob", 1)).await.cursor().offset, 2);
    proxy.heal();
    // Whether it was there first or comes yet or never: it has this one place.
    let retried = append(&*direct, &free, draft("ann", 2)).await;
    assert_eq!(retried.cursor().offset, 2, "{retried:?}");
    let retried = append(&*direct, &taken, draft("ann", 2)).await;
    assert!(matches!(retried, Appended::New { .. }) && retried.cursor().offset == 3, "{retried:?}");
    for room in [taken, free] {
        let top = direct.extent(&room).await.unwrap().top;
        assert_eq!(append(&*log, &room, draft("ann", 3)).await.cursor().offset, top + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_to_a_channel_that_is_behind_is_refused_at_once() {
    let (server, database) = (server().await, database());
    let proxy = Proxy::to(server.address(0)).await;
    let log = connect_through(&proxy, &database).await;
    let room = channel("room:a");
    append(&*log, &room, draft("ann", 1)).await;
    proxy.stall_upstream();
    let written = log.append(&room, draft("ann", 2)).await.unwrap();
    let in_line = log.append(&room, draft("ann", 3)).await.unwrap();
    let mut later = FuturesUnordered::new();
    let mut tries = interval(Duration::from_millis(50));
    let refused = loop {
        tokio::select! {
            refused = later.next(), if !later.is_empty() => break refused.unwrap(),
            _ = tries.tick() => later.push(log.append(&room, draft("bob", later.len() as u64)).await.unwrap()),
        }
    };
    assert!(matches!(refused, Err(LogError::Behind { waited }) if waited >= BEHIND), "{refused:?}");
    // Another channel is not behind.
    let other = log.append(&channel("room:b"), draft("ann", 1)).await.unwrap();
    proxy.heal();
    for (pending, offset) in [(written, 2), (in_line, 3), (other, 1)] {
        let appended = pending.await.unwrap();
        assert!(
            matches!(appended, Appended::New { .. }) && appended.cursor().offset == offset,
            "{appended:?}"
        );
    }
}

/// As a node does that its clients left for another one, and that finds in their connections what they had sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_to_another_node_meanwhile_is_looked_for_together() {
    let (server, database) = (server().await, database());
    let proxy = Proxy::to(server.address(0)).await;
    let log = connect_through(&proxy, &database).await;
    let other = connect(&server, &database, KeepByNamespace::new()).await;
    let rooms: Vec<_> = (0..30).map(|n| channel(&format!("room:{n}"))).collect();
    let append_all = async |log: &MongoDb, numbers: RangeInclusive<u64>| {
        let mut pending = Vec::new();
        for n in numbers {
            for room in &rooms {
                pending.push(log.append(room, draft("ann", n)).await.unwrap());
            }
        }
        pending
    };
    join_all(append_all(&log, 1..=1).await).await;
    join_all(append_all(&other, 2..=7).await).await;
    let profiled = other.store.messages.client().database(&other.store.messages.namespace().db);
    let profile = async |level: i32| profiled.run_command(doc! { "profile": level }).await.unwrap();
    profile(2).await;
    // All are in line before the first of them is answered.
    proxy.stall_upstream();
    let pending = append_all(&log, 2..=7).await;
    proxy.heal();
    for appended in join_all(pending).await {
        assert!(matches!(appended, Ok(Appended::Duplicate(_))), "{appended:?}");
    }
    profile(0).await;
    let by_ids = doc! { "op": "query", "command.filter.$or": { "$exists": true } };
    let commands = profiled.collection::<Document>("system.profile");
    let looks = commands.count_documents(by_ids).await.unwrap();
    assert!((1..=3).contains(&looks), "{looks} looks for six messages in each channel");
}
