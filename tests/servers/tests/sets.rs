//! Servers that are several: what they keep when one of them is gone, and who takes its part.

use xpush_test_servers::{Mongo, RedisCluster, RedisSentinel, ZooKeeper, until};

#[tokio::test]
async fn sentinel_makes_the_replica_primary_and_the_old_primary_follows_it() {
    let mut redis = RedisSentinel::start().await;
    let first = redis.kill_primary().await;
    let second = redis.primary().await;
    assert_ne!(first, second);
    redis.restore().await;
    assert_eq!(redis.primary().await, second);
    assert_eq!(redis.kill_primary().await, second);
    assert_eq!(redis.primary().await, first);
    redis.restore().await;
}

#[tokio::test]
async fn sentinel_replaces_a_primary_that_hangs() {
    let mut redis = RedisSentinel::start().await;
    let first = redis.pause_primary().await;
    let second = redis.primary().await;
    assert_ne!(first, second);
    redis.restore().await;
    assert_eq!(redis.primary().await, second);
}

#[tokio::test]
async fn a_redis_cluster_misses_a_node_and_is_whole_with_it() {
    let mut redis = RedisCluster::start().await;
    assert_eq!(redis.command(0, &["CLUSTER", "KEYSLOT", "b"]).await, "3300");
    assert_eq!(redis.command(0, &["SET", "b", "1"]).await, "OK");
    redis.kill(2);
    until("the cluster to miss the node", async || {
        redis.command(0, &["CLUSTER", "INFO"]).await.contains("cluster_state:fail")
    })
    .await;
    redis.restart(2).await;
    assert_eq!(redis.command(0, &["GET", "b"]).await, "1");
}

#[tokio::test]
async fn mongodb_elects_another_primary_when_the_first_is_killed_or_hangs() {
    let mut mongo = Mongo::start(3).await;
    let first = mongo.primary().await;
    mongo.kill(first);
    let second = mongo.primary().await;
    assert_ne!(first, second);
    mongo.restart(first).await;

    let second = mongo.primary().await;
    mongo.pause(second);
    assert_ne!(mongo.primary().await, second);
    mongo.resume(second);

    mongo.kill_all();
    mongo.restart_all().await;
    mongo.pause_all();
    mongo.resume_all();
    mongo.primary().await;
}

#[tokio::test]
async fn zookeeper_elects_another_leader_when_the_first_is_killed_or_hangs() {
    let mut zookeeper = ZooKeeper::start(3).await;
    let first = zookeeper.leader().await;
    zookeeper.kill(first);
    let second = zookeeper.leader().await;
    assert_ne!(first, second);
    zookeeper.restart(first).await;

    zookeeper.pause(second);
    assert_ne!(zookeeper.leader().await, second);
    zookeeper.resume(second);

    zookeeper.kill_all();
    // Two of three serve, one alone does not.
    zookeeper.restart(0).await;
    zookeeper.restart(1).await;
    zookeeper.restart_all().await;
    zookeeper.leader().await;
}
