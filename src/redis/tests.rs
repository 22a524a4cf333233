//! The way to a real Redis: what is told when it can't be used, and how long one waits when it is gone.

use std::time::{Duration, Instant};

use xpush_test_servers::{Redis, RedisCluster, RedisSentinel, until};

use super::{link::server_error, *};

async fn link(url: String) -> std::sync::Arc<Link> {
    Link::connect(&Settings { url, prefix: DEFAULT_PREFIX.into() }).await.unwrap()
}

async fn set(link: &Link, key: &str) -> Result<String, LinkError> {
    let mut set = ::redis::cmd("SET");
    set.arg(key).arg("1");
    link.ask(key, set).await
}

#[tokio::test]
async fn what_can_not_be_used_is_told_at_the_start() {
    let connect = async |url: &str| {
        let settings = Settings { url: url.into(), prefix: DEFAULT_PREFIX.into() };
        Link::connect(&settings).await.err().unwrap().to_string()
    };
    let redis = Redis::start().await;
    redis.command(&["CONFIG", "SET", "requirepass", "secret"]).await;
    let error = connect(&redis.url()).await;
    assert!(error.contains(&redis.address().to_string()) && error.contains("out of reach"), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = connect(&format!("redis://{nobody}")).await;
    assert!(error.contains(&nobody.to_string()), "{error}");
    let error = connect(&format!("redis+sentinel://{nobody}/mymaster")).await;
    assert!(error.contains(&nobody.to_string()), "{error}");
    let right = redis.url().replace("redis://", "redis://:secret@");
    let link = link(right).await;
    assert!(set(&link, "a").await.is_ok());
}

#[tokio::test]
async fn a_server_that_is_known_to_be_down_costs_nobody_a_wait() {
    let mut redis = Redis::start().await;
    let link = link(redis.url()).await;
    redis.pause();
    assert!(set(&link, "a").await.is_err());
    let began = Instant::now();
    for _ in 0..100 {
        assert!(matches!(set(&link, "a").await, Err(LinkError::Unreachable { .. })));
    }
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    redis.resume();
    until("Redis to be used again", async || set(&link, "a").await.is_ok()).await;
    redis.kill();
    until("its death to be noticed", async || link.check().await.is_err()).await;
    redis.restart().await;
    until("Redis to be used again", async || set(&link, "a").await.is_ok()).await;
    link.close().await;
    assert!(set(&link, "a").await.is_err());
}

#[tokio::test]
async fn the_primary_that_sentinel_names_is_used() {
    let mut redis = RedisSentinel::start().await;
    let link = link(redis.url()).await;
    assert!(set(&link, "a").await.is_ok());
    redis.kill_primary().await;
    until("the new primary to be used", async || set(&link, "a").await.is_ok()).await;
}

#[tokio::test]
async fn every_server_of_a_cluster_is_used_and_found_again() {
    let mut redis = RedisCluster::start().await;
    let link = link(redis.url()).await;
    let keys: Vec<String> = (0..50).map(|n| format!("key:{n}")).collect();
    let all = async || {
        let get = |at: usize| {
            let mut get = ::redis::cmd("GET");
            get.arg(&keys[at]);
            get
        };
        let answers = link.ask_each(&keys, get).await;
        answers.into_iter().all(|answer| answer.is_ok_and(|reply| server_error(&reply).is_none()))
    };
    assert!(all().await);
    for key in &keys {
        assert!(set(&link, key).await.is_ok());
    }
    redis.kill(1);
    until("the server to be missed", async || !all().await).await;
    redis.restart(1).await;
    until("the server to be used again", all).await;
    link.close().await;
}
