//! What a log finds when it is opened, and what it says then.

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};

use super::server::{connect, database, server};
use crate::log::{
    KeepByNamespace, Log, LogError, MongoDb,
    fixture::{append, channel, draft},
};

async fn open(url: &str, database: &str) -> Result<MongoDb, LogError> {
    MongoDb::connect(url, database, KeepByNamespace::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_a_newer_version_is_refused() {
    let (server, database) = (server().await, database());
    let log = connect(&server, &database, KeepByNamespace::new()).await;
    let meta = log.store.messages.client().database(&database).collection::<Document>("meta");
    meta.update_one(doc! { "_id": "log" }, doc! { "$set": { "format": 7_i64 } }).await.unwrap();
    let error = open(&server.url(), &database).await.err().unwrap();
    assert!(matches!(error, LogError::NewerFormat { found: 7, known: 1, .. }), "{error}");
    assert!(error.to_string().starts_with(&format!("the database \"{database}\" of MongoDB has format 7")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_mongodb_is_one_may_try_again() {
    // Nobody listens at port 1.
    let begun = Instant::now();
    let error = open("mongodb://127.0.0.1:1/?replicaSet=rs0", "test").await.err().unwrap();
    assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_is_none_is_refused_for_good() {
    let error = open("mongodb://", "test").await.err().unwrap();
    assert!(matches!(error, LogError::Database { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_url_says_of_concerns_does_not_count() {
    let (server, database) = (server().await, database());
    let url = format!("{}&w=0&readConcernLevel=local&readPreference=secondary", server.url());
    let log = open(&url, &database).await.unwrap();
    assert_eq!(append(&log, &channel("room:a"), draft("ann", 1)).await.cursor().offset, 1);
    assert_eq!(log.extent(&channel("room:a")).await.unwrap().top, 1);
    assert_eq!(log.confirm(&channel("room:a")).await.unwrap().top, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_log_has_written_what_was_in_line() {
    let (server, database) = (server().await, database());
    let log = connect(&server, &database, KeepByNamespace::new()).await;
    let room = channel("room:a");
    let mut pending = Vec::new();
    for n in 1..=100 {
        pending.push(log.append(&room, draft("ann", n)).await.unwrap());
    }
    log.close().await;
    for pending in pending {
        pending.await.unwrap();
    }
    assert!(matches!(log.append(&room, draft("ann", 101)).await, Err(LogError::Unavailable { .. })));
    assert!(matches!(log.extent(&room).await, Err(LogError::Unavailable { .. })));
    log.close().await;
    let log = connect(&server, &database, KeepByNamespace::new()).await;
    assert_eq!(log.extent(&room).await.unwrap().top, 100);
}
