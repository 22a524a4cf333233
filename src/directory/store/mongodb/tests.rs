//! What becomes of the directory when MongoDB is not as it should be, and what it does for a query.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use ::mongodb::bson::{Document, doc};
use tokio::task::JoinSet;
use xpush_test_servers::{Mongo, until};

use super::{
    super::{Commit, CommitError, Key, Prefix, Scan, Store, StoreError},
    COMMIT_LIMIT, MongoDb, READ_LIMIT, collect, record,
};
use crate::log::mongodb::{database, server};

/// Some more than the limits, for a machine that is busy with other tests.
const BOUND: Duration = COMMIT_LIMIT.saturating_mul(3);

fn key(name: &str) -> Key {
    Key::new(&["user", "app", name])
}

async fn opened() -> (impl Sized, MongoDb) {
    let server = server().await;
    let store = MongoDb::connect(&server.url(), &database()).await.unwrap();
    (server, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_mongodb_is_one_may_try_again() {
    // Nobody listens at port 1.
    let begun = Instant::now();
    let error = MongoDb::connect("mongodb://127.0.0.1:1/?replicaSet=rs0", "test").await.err();
    assert!(matches!(error, Some(StoreError::Unavailable(_))), "{error:?}");
    assert!(begun.elapsed() < BOUND);
    let error = MongoDb::connect("mongodb://", "test").await.err();
    assert!(matches!(error, Some(StoreError::Refused(_))), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_a_newer_version_is_refused() {
    let (server, database) = (server().await, database());
    let store = MongoDb::connect(&server.url(), &database).await.unwrap();
    let meta = store.client.database(&database).collection::<Document>("meta");
    meta.update_one(doc! { "_id": "directory" }, doc! { "$set": { "format": 7_i64 } }).await.unwrap();
    let error = MongoDb::connect(&server.url(), &database).await.err().unwrap();
    assert!(error.to_string().contains("it has format 7; this version of xpush knows 1 at most"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_url_says_of_concerns_does_not_count() {
    let server = server().await;
    let url = format!("{}&w=0&readConcernLevel=local&readPreference=secondary", server.url());
    let store = MongoDb::connect(&url, &database()).await.unwrap();
    let commit = Commit::new().expect(key("ann"), None).put(key("ann"), "1");
    store.commit(commit.clone()).await.unwrap();
    assert_eq!(store.commit(commit).await, Err(CommitError::Conflict));
    store.commit(Commit::new().put(key("bob"), "1").put(key("cid"), "1")).await.unwrap();
    assert_eq!(store.get_many(&[key("ann"), key("cid")]).await.unwrap().iter().flatten().count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_takes_nothing() {
    let (_server, store) = opened().await;
    store.commit(Commit::new().put(key("ann"), "1")).await.unwrap();
    store.close().await;
    let late = store.commit(Commit::new().put(key("ann"), "2")).await;
    assert!(matches!(late, Err(CommitError::Store(StoreError::Unavailable(_)))), "{late:?}");
    assert!(matches!(store.get(&key("ann")).await, Err(StoreError::Unavailable(_))));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_server_left_everything_is_refused_in_time() {
    let mut set = Mongo::start(1).await;
    let store = MongoDb::connect(&set.url(), &database()).await.unwrap();
    store.commit(Commit::new().put(key("ann"), "1")).await.unwrap();
    set.kill_all();
    let refused_in_time = async || {
        let begun = Instant::now();
        let one = Commit::new().put(key("ann"), "2");
        let several = Commit::new().put(key("ann"), "2").put(key("bob"), "2");
        for commit in [one, several] {
            let refused = store.commit(commit).await;
            assert!(matches!(refused, Err(CommitError::Store(StoreError::Unavailable(_)))), "{refused:?}");
        }
        let scan = Scan::of(Prefix::new(&["user"]));
        assert!(matches!(store.get(&key("ann")).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.scan(scan).await, Err(StoreError::Unavailable(_))));
        assert!(begun.elapsed() < 2 * BOUND + 2 * READ_LIMIT, "it took {:?}", begun.elapsed());
    };
    refused_in_time().await;
    set.restart_all().await;
    until("the store to be there again", async || store.get(&key("ann")).await.is_ok()).await;
    // Frozen, it answers nothing and refuses nothing.
    set.pause_all();
    refused_in_time().await;
    set.resume_all();
    store.close().await;
}

/// Adds one to a number, until it is known that it was done. Gives how often that was not known before.
async fn count_at_last(store: &MongoDb, stop: &AtomicBool) -> (bool, u64) {
    let mut unknown = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(found) = store.get(&key("count")).await else { continue };
        let number = found.as_ref().map_or(0, |entry| str::from_utf8(&entry.value).unwrap().parse().unwrap());
        let commit = Commit::new().expect(key("count"), found.map(|entry| entry.version));
        let commit = commit.put(key("count"), (number + 1_u64).to_string());
        // By one write, and by a transaction.
        let commit = if number % 2 == 0 { commit } else { commit.put(key("odd"), number.to_string()) };
        let begun = Instant::now();
        match store.commit(commit).await {
            Ok(()) => return (true, unknown),
            Err(CommitError::Conflict) => {}
            Err(CommitError::Store(StoreError::Unavailable(_))) => unknown += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < BOUND, "it took {:?}", begun.elapsed());
    }
    (false, unknown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_primary_is_killed_or_freezes() {
    let mut set = Mongo::start(3).await;
    let name = database();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let store = MongoDb::connect(&set.url(), &name).await.unwrap();
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        tasks.spawn(async move {
            let mut unknown = 0;
            while !stop.load(Ordering::Relaxed) {
                let (done, not_known) = count_at_last(&store, &stop).await;
                acknowledged.fetch_add(u64::from(done), Ordering::Relaxed);
                unknown += not_known;
            }
            unknown
        });
    }
    let more_is_counted = async || {
        let before = acknowledged.load(Ordering::Relaxed);
        until("commits to go through", async || acknowledged.load(Ordering::Relaxed) > before + 20).await;
    };
    more_is_counted().await;
    let primary = set.primary().await;
    set.kill(primary);
    more_is_counted().await;
    set.restart(primary).await;
    let primary = set.primary().await;
    set.pause(primary);
    more_is_counted().await;
    set.resume(primary);
    more_is_counted().await;
    stop.store(true, Ordering::Relaxed);
    let unknown: u64 = tasks.join_all().await.into_iter().sum();
    let store = MongoDb::connect(&set.url(), &name).await.unwrap();
    let mut count = 0;
    until("the count to be read", async || {
        let Ok(found) = store.get(&key("count")).await else { return false };
        count = str::from_utf8(&found.unwrap().value).unwrap().parse().unwrap();
        true
    })
    .await;
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&count),
        "{count} were counted, {acknowledged} acknowledged, {unknown} not known"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_goes_by_itself_also_what_stood_for_an_absence() {
    let (_server, store) = opened().await;
    let soon = SystemTime::now() + Duration::from_millis(1);
    let commit = Commit::new().expect(key("bob"), None).put_until(key("ann"), "1", soon).put(key("cid"), "1");
    store.commit(commit).await.unwrap();
    assert_eq!(store.get(&key("bob")).await, Ok(None));
    until("what has expired to go", async || {
        store.entries.count_documents(doc! {}).await.is_ok_and(|count| count == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_walks_the_index_of_keys_and_sorts_nothing() {
    let (_server, store) = opened().await;
    let commit = (0..300).fold(Commit::new(), |commit, n| commit.put(key(&format!("{n:03}")), ""));
    store.commit(commit).await.unwrap();
    let database = store.client.database(&store.entries.namespace().db);
    let prefix = Prefix::new(&["user", "app"]);
    for (after, backward) in [(None, false), (Some(key("100")), false), (Some(key("100")), true)] {
        let scan = Scan { prefix: prefix.clone(), after, limit: 20, backward };
        let command = doc! {
            "find": "directory", "filter": record::within(&scan, SystemTime::now()),
            "sort": { "_id": if backward { -1 } else { 1 } }, "limit": 20,
            "hint": record::by_key(),
        };
        let explain = doc! { "explain": command, "verbosity": "executionStats" };
        let plan = database.run_command(explain).await.unwrap().to_string();
        assert!(plan.contains("\"IXSCAN\"") && plan.contains("\"totalKeysExamined\": 20,"), "{plan}");
        assert!(!plan.contains("\"COLLSCAN\"") && !plan.contains("\"SORT\""), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_text_from_outside_is_ever_a_field_or_an_operator() {
    let (_server, store) = opened().await;
    let hostile = [r#"{"$gt":""}"#, "$where", "$set", "a.b", "g", "v", "$", "."];
    let database = store.client.database(&store.entries.namespace().db);
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    for text in hostile {
        store.commit(Commit::new().put(key(text), text.to_owned())).await.unwrap();
        let several = Commit::new().expect(Key::new(&[text, "absent"]), None).put(key(text), text.to_owned());
        store.commit(several.put(Key::new(&[text]), text.to_owned())).await.unwrap();
        store.scan(Scan { after: Some(key(text)), ..Scan::of(Prefix::new(&[text])) }).await.unwrap();
        store.get_many(&[key(text), Key::new(&[text])]).await.unwrap();
        store.commit(Commit::new().expect(key(text), Some(7)).delete(key(text))).await.unwrap_err();
    }
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    // Whatever was asked of the server: what came from outside is always a value.
    let asked = collect(database.collection("system.profile").find(doc! {})).await.unwrap();
    assert!(asked.len() > 5 * hostile.len());
    for document in asked {
        let command = document.get_document("command").unwrap();
        fields(command, &mut |field| assert!(!hostile[..4].contains(&field), "{command}"));
    }
    for document in collect(store.entries.find(doc! {})).await.unwrap() {
        fields(&document, &mut |field| assert!(["_id", "v", "d", "e", "g"].contains(&field), "{document}"));
    }
}

/// All names of fields, at any depth.
fn fields(document: &Document, check: &mut impl FnMut(&str)) {
    for (field, value) in document {
        check(field);
        let values = match value {
            ::mongodb::bson::Bson::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for document in values.iter().filter_map(|value| value.as_document()) {
            fields(document, check);
        }
    }
}
