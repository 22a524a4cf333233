//! What the log in Redis promises beyond the contract: what it does when Redis forgets, dies or is elsewhere, and that
//! several nodes share it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use xpush_test_servers::{RedisCluster, RedisSentinel, until};

use super::*;
use crate::{
    log::{
        Appended,
        fixture::{append, channel, draft, keep, offsets},
    },
    redis::Settings,
};

const ALL: Query = Query { from: From::After(0), limit: usize::MAX, bytes: usize::MAX };

async fn log(url: String, keep: KeepByNamespace) -> Redis {
    let link = Link::connect(&Settings { url, prefix: "test".into() }).await.unwrap();
    Redis::new(link, 1, keep)
}

fn recent(count: u64, age: Duration) -> KeepByNamespace {
    keep("live", Keep { count: Some(count), age: Some(age) })
}

#[tokio::test]
async fn a_flushed_redis_begins_anew_with_another_epoch() {
    let server = xpush_test_servers::Redis::start().await;
    let log = log(server.url(), recent(100, Duration::from_secs(60))).await;
    let live = channel("live:a");
    let first = append(&log, &live, draft("ann", 1)).await.cursor();
    assert_eq!(log.hold(&live).await.unwrap(), Extent { epoch: first.epoch, first: 1, top: 1 });
    server.command(&["FLUSHALL"]).await;
    let extent = log.hold(&live).await.unwrap();
    assert_ne!(extent.epoch, first.epoch);
    assert_eq!((extent.first, extent.top), (1, 0));
    let second = append(&log, &live, draft("ann", 1)).await.cursor();
    assert_eq!((second.epoch, second.offset), (extent.epoch, 1));
}

#[tokio::test]
async fn a_channel_that_lost_a_part_begins_anew() {
    let server = xpush_test_servers::Redis::start().await;
    let log = log(server.url(), recent(100, Duration::from_secs(60))).await;
    let live = channel("live:a");
    let first = append(&log, &live, draft("ann", 1)).await.cursor();
    server.command(&["DEL", "test:kept:{live:a}"]).await;
    let second = append(&log, &live, draft("ann", 2)).await.cursor();
    assert!(second.epoch != first.epoch && second.offset == 1);
}

#[tokio::test]
async fn another_run_of_the_server_begins_anew_though_it_has_the_data() {
    let mut server =
        xpush_test_servers::Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let log = log(server.url(), recent(100, Duration::from_secs(60))).await;
    let live = channel("live:a");
    let first = append(&log, &live, draft("ann", 1)).await.cursor();
    server.kill();
    server.restart().await;
    until("Redis to be used again", async || log.hold(&live).await.is_ok()).await;
    assert_eq!(server.command(&["EXISTS", "test:log:{live:a}"]).await, "1");
    let second = append(&log, &live, draft("ann", 2)).await.cursor();
    assert!(second.epoch != first.epoch && second.offset == 1);
}

#[tokio::test]
async fn two_nodes_append_to_one_channel_without_a_hole_and_retries_stand_once() {
    let server = xpush_test_servers::Redis::start().await;
    let keep = recent(10_000, Duration::from_secs(60));
    let logs = [log(server.url(), keep.clone()).await, log(server.url(), keep).await];
    let live = channel("live:a");
    let appends = logs.iter().map(|log| async {
        let mut appended = Vec::new();
        // Both say the same messages.
        for n in 0..500 {
            appended.push(append(log, &live, draft("ann", n)).await);
        }
        appended
    });
    let by_node = join_all(appends).await;
    for (one, other) in by_node[0].iter().zip(&by_node[1]) {
        assert_eq!(one.cursor(), other.cursor());
        let is_new = |appended: &Appended| matches!(appended, Appended::New { .. });
        assert!(is_new(one) != is_new(other), "one of them was first");
    }
    let page = logs[0].read(&live, ALL).await.unwrap();
    assert_eq!(offsets(&page), (1..=500).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_tops_of_many_channels_are_asked_for_together() {
    let server = xpush_test_servers::Redis::start().await;
    let log = log(server.url(), KeepByNamespace::new()).await;
    let rooms: Vec<_> = (0..600).map(|n| channel(&format!("room:{n}"))).collect();
    for n in 1..=3 {
        append(&log, &rooms[300], draft("ann", n)).await;
    }
    let tops = log.tops(&rooms).await.unwrap();
    let offsets: Vec<_> = tops.iter().map(|top| top.offset).collect();
    assert_eq!(offsets.iter().sum::<u64>(), 3);
    assert_eq!(offsets[300], 3);
    for at in [0, 300, 599] {
        assert_eq!(log.extent(&rooms[at]).await.unwrap().epoch, tops[at].epoch);
    }
}

#[tokio::test]
async fn what_is_too_old_goes_and_may_still_be_retried() {
    let server = xpush_test_servers::Redis::start().await;
    let log = log(server.url(), recent(100, Duration::from_millis(50))).await;
    let live = channel("live:a");
    for n in 1..=3 {
        append(&log, &live, draft("ann", n)).await;
    }
    until("them to be too old", async || log.extent(&live).await.unwrap().first == 4).await;
    assert_eq!(log.read(&live, ALL).await.unwrap().publications, []);
    assert!(matches!(append(&log, &live, draft("ann", 2)).await, Appended::Duplicate(at) if at.offset == 2));
    assert_eq!(append(&log, &live, draft("ann", 4)).await.cursor().offset, 4);
}

#[tokio::test]
async fn what_is_not_kept_is_counted_and_known_again() {
    let server = xpush_test_servers::Redis::start().await;
    let log = log(server.url(), keep("typing", Keep { count: Some(0), age: None })).await;
    let typing = channel("typing:a");
    for n in 1..=500 {
        assert_eq!(append(&log, &typing, draft("ann", n)).await.cursor().offset, n);
    }
    let page = log.read(&typing, ALL).await.unwrap();
    assert_eq!((page.extent.first, page.extent.top, page.publications.len()), (501, 500, 0));
    assert!(matches!(append(&log, &typing, draft("ann", 400)).await, Appended::Duplicate(_)));
    assert_eq!(server.command(&["EXISTS", "test:kept:{typing:a}"]).await, "0");
    let fields: u64 = server.command(&["HLEN", "test:log:{typing:a}"]).await.parse().unwrap();
    assert_eq!(fields, 5 + 2 * 128, "the ids of the last messages, and no more");
}

#[tokio::test]
async fn a_channel_is_forgotten_in_time_unless_it_is_held() {
    let server = xpush_test_servers::Redis::start().await;
    let log = log(server.url(), recent(100, Duration::from_secs(1))).await;
    let live = channel("live:a");
    append(&log, &live, draft("ann", 1)).await;
    let left = async |key: &str| server.command(&["PTTL", key]).await.parse::<u128>().unwrap();
    let whole = (HOLD + SLACK).as_millis();
    for key in ["test:log:{live:a}", "test:kept:{live:a}"] {
        assert!((whole - 10_000..=whole).contains(&left(key).await), "{key}");
        server.command(&["PEXPIRE", key, "5000"]).await;
    }
    log.extent(&live).await.unwrap();
    assert!(left("test:log:{live:a}").await <= 5000, "who only looks does not hold it");
    log.hold(&live).await.unwrap();
    for key in ["test:log:{live:a}", "test:kept:{live:a}"] {
        assert!(left(key).await > 5000, "{key}");
    }
}

#[tokio::test]
async fn a_log_that_redis_does_not_answer_says_so_at_once() {
    let mut server = xpush_test_servers::Redis::start().await;
    let log = log(server.url(), KeepByNamespace::new()).await;
    let room = channel("room:a");
    let first = append(&log, &room, draft("ann", 1)).await.cursor();
    server.pause();
    let unknown = log.append(&room, draft("ann", 2)).await.unwrap().await;
    assert!(matches!(unknown, Err(LogError::Unavailable { .. })), "{unknown:?}");
    let began = Instant::now();
    for n in 3..100 {
        assert!(log.append(&room, draft("ann", n)).await.unwrap().await.is_err());
    }
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    server.resume();
    until("Redis to be used again", async || log.hold(&room).await.is_ok()).await;
    // Its outcome was unknown; said again, it stands once.
    let again = append(&log, &room, draft("ann", 2)).await.cursor();
    assert_eq!((again.epoch, again.offset), (first.epoch, 2));
    assert_eq!(log.extent(&room).await.unwrap().top, 2);
    server.kill();
    assert!(log.append(&room, draft("ann", 3)).await.unwrap().await.is_err());
    log.close().await;
    assert!(log.append(&room, draft("ann", 4)).await.is_err());
}

#[tokio::test]
async fn a_full_redis_refuses_with_its_reason() {
    let server = xpush_test_servers::Redis::start().await;
    let log = log(server.url(), KeepByNamespace::new()).await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = log.append(&channel("room:a"), draft("ann", 1)).await.unwrap().await.unwrap_err();
    assert!(matches!(&refused, LogError::Unavailable { reason } if reason.contains("OOM")), "{refused}");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(append(&log, &channel("room:a"), draft("ann", 1)).await.cursor().offset, 1);
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_is_told_them_again() {
    let server = xpush_test_servers::Redis::start().await;
    let log = log(server.url(), KeepByNamespace::new()).await;
    for n in 1..=3 {
        assert_eq!(append(&log, &channel("room:a"), draft("ann", n)).await.cursor().offset, n);
        assert_eq!(log.extent(&channel("room:a")).await.unwrap().top, n);
        server.command(&["SCRIPT", "FLUSH"]).await;
    }
}

#[tokio::test]
async fn another_primary_begins_anew() {
    let mut redis = RedisSentinel::start().await;
    let log = log(redis.url(), recent(100, Duration::from_secs(60))).await;
    let live = channel("live:a");
    let first = append(&log, &live, draft("ann", 1)).await.cursor();
    redis.kill_primary().await;
    until("the new primary to be used", async || log.hold(&live).await.is_ok()).await;
    let second = append(&log, &live, draft("ann", 2)).await.cursor();
    assert!(second.epoch != first.epoch && second.offset == 1);
}

#[tokio::test]
async fn channels_are_spread_over_a_cluster_and_miss_only_what_its_lost_server_had() {
    let mut redis = RedisCluster::start().await;
    let log = log(redis.url(), recent(100, Duration::from_secs(60))).await;
    let rooms: Vec<_> = (0..60).map(|n| channel(&format!("live:{n}"))).collect();
    let mut pending = Vec::new();
    for n in 1..=5 {
        for room in &rooms {
            pending.push(log.append(room, draft("ann", n)).await.unwrap());
        }
    }
    for appended in join_all(pending).await {
        assert!(appended.is_ok());
    }
    let before = log.tops(&rooms).await.unwrap();
    for (room, top) in rooms.iter().zip(&before) {
        assert_eq!(top.offset, 5);
        assert_eq!(offsets(&log.read(room, ALL).await.unwrap()), [1, 2, 3, 4, 5]);
    }
    redis.kill(1);
    until("the loss to be seen", async || log.tops(&rooms).await.is_err()).await;
    redis.restart(1).await;
    until("it to be whole again", async || log.tops(&rooms).await.is_ok()).await;
    let after = log.tops(&rooms).await.unwrap();
    let kept = before.iter().zip(&after).filter(|(before, after)| before == after).count();
    let anew = after.iter().filter(|top| top.offset == 0).count();
    assert!(kept > 20 && anew > 5 && kept + anew == 60, "{kept} kept, {anew} anew");
}
