//! One server of each kind: it starts, loses its process, and comes back as it was.

use std::net::SocketAddr;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use xpush_test_servers::{Mongo, Proxy, Redis, RedisCluster, RedisSentinel, ZooKeeper, until};

#[tokio::test]
async fn redis_answers_and_forgets_when_restarted() {
    let mut redis = Redis::start().await;
    assert_eq!(redis.command(&["SET", "k", "v"]).await, "OK");
    assert_eq!(redis.command(&["GET", "k"]).await, "v");
    redis.kill();
    redis.restart().await;
    assert_eq!(redis.command(&["GET", "k"]).await, "");
}

#[tokio::test]
async fn redis_keeps_what_it_was_told_to_keep() {
    let mut redis = Redis::with(&["--appendonly", "yes"]).await;
    redis.command(&["SET", "k", "v"]).await;
    redis.kill();
    redis.restart().await;
    assert_eq!(redis.command(&["GET", "k"]).await, "v");
}

#[tokio::test]
async fn a_mongodb_of_one_takes_writes_and_keeps_them() {
    let mut mongo = Mongo::start(1).await;
    let client = Client::with_uri_str(mongo.url()).await.unwrap();
    let notes = client.database("tests").collection::<Document>("notes");
    notes.insert_one(doc! { "_id": 1 }).await.unwrap();
    mongo.kill(0);
    mongo.restart(0).await;
    assert_eq!(mongo.primary().await, 0);
    assert_eq!(notes.count_documents(doc! { "_id": 1 }).await.unwrap(), 1);
}

#[tokio::test]
async fn a_zookeeper_of_one_serves_and_comes_back() {
    let mut zookeeper = ZooKeeper::start(1).await;
    assert_eq!(zookeeper.leader().await, 0);
    zookeeper.kill(0);
    zookeeper.restart(0).await;
    assert_eq!(zookeeper.leader().await, 0);
}

#[tokio::test]
#[should_panic(expected = "waited 60s in vain for: a miracle")]
async fn a_condition_that_never_holds_is_named() {
    tokio::time::pause();
    until("a miracle", async || false).await;
}

#[test]
fn servers_may_be_started_from_spawned_tasks() {
    fn sendable(_: impl Send) {}
    sendable(Redis::start());
    sendable(RedisSentinel::start());
    sendable(RedisCluster::start());
    sendable(Mongo::start(1));
    sendable(ZooKeeper::start(1));
    sendable(Proxy::to(SocketAddr::from(([127, 0, 0, 1], 0))));
}
