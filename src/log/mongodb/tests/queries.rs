//! What the database does for a query: it walks an index, and takes what is asked for.

use futures_util::future::join_all;
use mongodb::bson::{Bson, Document, doc};

use super::{
    super::{
        read::newest_of,
        record::{self, Key},
    },
    ALL,
    server::{connect, database, server},
};
use crate::{
    log::{
        Appended, From, KeepByNamespace, Log, LogError, MongoDb, Query,
        fixture::{append, channel, draft},
    },
    publication::Publisher,
};

async fn explain(log: &MongoDb, command: Document) -> String {
    let database = log.store.messages.client().database(&log.store.messages.namespace().db);
    let explain = doc! { "explain": command, "verbosity": "executionStats" };
    database.run_command(explain).await.unwrap().to_string()
}

fn stages(plan: &str, stage: &str) -> usize {
    plan.matches(&format!("\"stage\": \"{stage}\"")).count()
}

async fn filled() -> (impl Sized, std::sync::Arc<MongoDb>) {
    let server = server().await;
    let log = connect(&server, &database(), KeepByNamespace::new()).await;
    for room in ["room:a", "room:b"] {
        let mut pending = Vec::new();
        for n in 1..=200 {
            pending.push(log.append(&channel(room), draft("ann", n)).await.unwrap());
        }
        for pending in pending {
            pending.await.unwrap();
        }
    }
    (server, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_and_an_end_walk_the_index_of_offsets_and_sort_nothing() {
    let (_server, log) = filled().await;
    let key = Key::new(&channel("room:a"));
    let finds = [
        (key.range(150, 180), doc! { "offset": 1 }, 31),
        (key.range(1, 180), doc! { "offset": -1 }, 10),
        (key.all(), doc! { "offset": -1 }, 1),
        (key.all(), doc! { "offset": 1 }, 1),
    ];
    for (filter, sort, limit) in finds {
        let command = doc! {
            "find": "messages", "filter": filter, "sort": sort, "limit": limit, "hint": record::by_offset(),
        };
        let plan = explain(&log, command).await;
        assert!(
            stages(&plan, "IXSCAN") > 0 && stages(&plan, "COLLSCAN") + stages(&plan, "SORT") == 0,
            "{plan}"
        );
        assert!(plan.contains(&format!("\"totalKeysExamined\": {limit}")), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_found_by_its_ids() {
    let (_server, log) = filled().await;
    let key = Key::new(&channel("room:a"));
    let messages = [("ann", vec!["7", "9"]), ("bob", vec!["7"])];
    let messages = messages.map(|(name, ids)| Bson::from(key.messages(&Publisher::backend(name), ids)));
    let command = doc! {
        "find": "messages", "filter": { "$or": messages.to_vec() }, "hint": record::by_message(),
    };
    let plan = explain(&log, command).await;
    assert!(stages(&plan, "IXSCAN") > 0 && stages(&plan, "COLLSCAN") == 0, "{plan}");
    assert!(plan.contains("\"totalDocsExamined\": 2"), "{plan}");
}

/// Appends so many messages to each of so many channels, and tells what was new.
async fn append_all(log: &MongoDb, channels: u64, messages: u64) -> usize {
    let mut pending = Vec::new();
    for n in 1..=messages {
        for room in 0..channels {
            pending.push(log.append(&channel(&format!("room:{room}")), draft("ann", n)).await.unwrap());
        }
    }
    let appended = join_all(pending).await;
    appended.into_iter().filter(|appended| matches!(appended, Ok(Appended::New { .. }))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_that_are_sent_again_cost_few_writes() {
    let (_server, log) = filled().await;
    assert_eq!(append_all(&log, 40, 5).await, 200);
    let database = log.store.messages.client().database(&log.store.messages.namespace().db);
    let profile = async |level: i32| database.run_command(doc! { "profile": level }).await.unwrap();
    profile(2).await;
    // What is new stands behind what was there, in each channel.
    assert_eq!(append_all(&log, 40, 6).await, 40);
    profile(0).await;
    let log_of_commands = database.collection::<Document>("system.profile");
    let writes = log_of_commands.count_documents(doc! { "op": "insert" }).await.unwrap();
    assert!((1..=40).contains(&writes), "{writes} writes for 200 messages that were there already");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_of_offsets_is_known_by_its_name() {
    let (_server, log) = filled().await;
    let names = log.store.messages.list_index_names().await.unwrap();
    assert!(names.iter().any(|name| name == record::BY_OFFSET), "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ends_of_many_channels_are_found_without_walking_through_them() {
    let (_server, log) = filled().await;
    let rooms = ["room:b", "room:none", "room:a", "room:b"].map(channel);
    let tops = log.tops(&rooms).await.unwrap();
    let offsets: Vec<_> = tops.iter().map(|cursor| cursor.offset).collect();
    assert_eq!(offsets, [200, 0, 200, 200]);
    let hashes = rooms.iter().map(|room| Key::new(room).hash());
    let pipeline = newest_of(hashes).map(Bson::from).to_vec();
    let command = doc! {
        "aggregate": "messages", "pipeline": pipeline, "cursor": {}, "hint": record::by_offset(),
    };
    let plan = explain(&log, command).await;
    assert!(stages(&plan, "DISTINCT_SCAN") > 0, "{plan}");
    assert!(!plan.contains("COLLSCAN"), "{plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_page_comes_in_batches_and_ends_at_its_bytes() {
    let (_server, log) = filled().await;
    let room = channel("room:a");
    let page = log.read(&room, Query { from: From::After(0), limit: 150, bytes: usize::MAX }).await.unwrap();
    assert_eq!(page.publications.len(), 150);
    let page = log.read(&room, Query { from: From::Before(None), limit: 150, bytes: 30 }).await.unwrap();
    assert_eq!(page.publications.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_that_is_missing_is_damage() {
    let (_server, log) = filled().await;
    let room = channel("room:a");
    let gone = Key::new(&room).range(100, 100);
    log.store.messages.delete_one(gone).await.unwrap();
    assert!(matches!(log.read(&room, ALL).await, Err(LogError::Damaged { .. })));
    let behind = Query { from: From::After(100), ..ALL };
    assert_eq!(log.read(&room, behind).await.unwrap().publications.len(), 100);
    assert_eq!(append(&*log, &room, draft("ann", 201)).await.cursor().offset, 201);
}
