//! What is trimmed, by any node, and what must not be taken for free because of it.

use std::time::Duration;

use mongodb::bson::{Document, doc};

use xpush_test_servers::until;

use super::{
    super::{
        MongoDb, ground,
        read::now,
        record::{Key, Place},
        retention,
        written::Stood,
    },
    ALL,
    server::{connect, database, server},
};
use crate::{
    log::{
        Appended, Extent, Keep, Log,
        fixture::{append, channel, draft, keep, offsets},
    },
    publication::Draft,
};

const HOUR: Duration = Duration::from_secs(3600);

fn sent_before(age: Duration, n: u64) -> Draft {
    Draft { time: now() - age.as_millis() as u64, ..draft("ann", n) }
}

/// The offsets that are stored, whether a reader sees them or not.
async fn stored(log: &MongoDb) -> Vec<i64> {
    let messages = log.store.messages.clone_with_type::<Document>();
    let mut found = messages.find(doc! {}).sort(doc! { "offset": 1 }).await.unwrap();
    let mut stored = Vec::new();
    while found.advance().await.unwrap() {
        stored.push(found.current().get_i64("offset").unwrap());
    }
    stored
}

async fn append_many(log: &MongoDb, numbers: std::ops::RangeInclusive<u64>) {
    let mut pending = Vec::new();
    for n in numbers {
        pending.push(log.append(&channel("room:a"), draft("ann", n)).await.unwrap());
    }
    for pending in pending {
        pending.await.unwrap();
    }
}

/// A busy machine may take longer than a sweep waits.
async fn sweep(log: &MongoDb) {
    until("the sweep to be done", async || retention::sweep(&log.store).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_while_its_next_offset_was_trimmed_appends_at_the_end() {
    let (server, database) = (server().await, database());
    let room = channel("room:a");
    let count = keep("room", Keep { count: Some(10), age: None });
    let stale = connect(&server, &database, count.clone()).await;
    let other = connect(&server, &database, count).await;
    append_many(&stale, 1..=5).await;
    append_many(&other, 6..=500).await;
    retention::trim(&other.store, &room).await.unwrap();
    assert_eq!(stored(&other).await, (490..=500).collect::<Vec<_>>());
    // To this node the channel ends at 5, and nothing in the database says otherwise.
    let appended = append(&*stale, &room, draft("ann", 501)).await;
    assert!(matches!(appended, Appended::New { .. }) && appended.cursor().offset == 501, "{appended:?}");
    assert_eq!(stored(&other).await, (490..=501).collect::<Vec<_>>());
    assert_eq!(offsets(&other.read(&room, ALL).await.unwrap()), (492..=501).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_race_while_the_channel_is_trimmed_lose_nothing() {
    let (server, database) = (server().await, database());
    let room = channel("room:a");
    let mut tasks = Vec::new();
    for node in 0..3 {
        let log = connect(&server, &database, keep("room", Keep { count: Some(3), age: None })).await;
        let room = room.clone();
        tasks.push(tokio::spawn(async move {
            let mut offsets = Vec::new();
            for n in 0..200 {
                offsets.push(append(&*log, &room, draft(&format!("p{node}"), n)).await.cursor().offset);
                if n % 10 == 0 {
                    retention::trim(&log.store, &room).await.unwrap();
                }
            }
            offsets
        }));
    }
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await.unwrap());
    }
    taken.sort_unstable();
    // One whose ground was trimmed at once may be appended twice, and is gone from its first place.
    assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "no offset was given twice");
    let log = connect(&server, &database, keep("room", Keep { count: Some(3), age: None })).await;
    let page = log.read(&room, ALL).await.unwrap();
    let top = page.extent.top;
    assert!(top >= 600 && taken.last() == Some(&top));
    assert_eq!(offsets(&page), (top - 2..=top).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_is_neither_seen_nor_kept() {
    let (server, database) = (server().await, database());
    let room = channel("room:a");
    let log = connect(&server, &database, keep("room", Keep { count: None, age: Some(HOUR) })).await;
    for n in 1..=5 {
        append(&*log, &room, sent_before(2 * HOUR, n)).await;
    }
    append(&*log, &room, sent_before(HOUR / 2, 6)).await;
    // By a clock that is behind: it can't go before the one in front of it.
    append(&*log, &room, sent_before(2 * HOUR, 7)).await;
    append(&*log, &room, sent_before(Duration::ZERO, 8)).await;
    let extent = log.extent(&room).await.unwrap();
    assert_eq!((extent.first, extent.top), (6, 8));
    assert_eq!(offsets(&log.read(&room, ALL).await.unwrap()), [6, 7, 8]);
    sweep(&log).await;
    assert_eq!(stored(&log).await, [5, 6, 7, 8], "what is kept stands on one more");
    assert_eq!(offsets(&log.read(&room, ALL).await.unwrap()), [6, 7, 8]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_of_which_all_is_too_old_goes_on_behind_it() {
    let (server, database) = (server().await, database());
    let room = channel("room:a");
    let log = connect(&server, &database, keep("room", Keep { count: None, age: Some(HOUR) })).await;
    for n in 1..=5 {
        append(&*log, &room, sent_before(2 * HOUR, n)).await;
    }
    for _ in 0..2 {
        sweep(&log).await;
    }
    assert_eq!(stored(&log).await, [4, 5]);
    let Extent { first, top, .. } = log.extent(&room).await.unwrap();
    assert_eq!((first, top), (6, 5));
    assert_eq!(offsets(&log.read(&room, ALL).await.unwrap()), [0; 0]);
    let again = append(&*log, &room, sent_before(Duration::ZERO, 5)).await;
    assert!(matches!(again, Appended::New { .. }) && again.cursor().offset == 6, "{again:?}");
    assert_eq!(offsets(&log.read(&room, ALL).await.unwrap()), [6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_longer_than_when_it_was_sent_expires_later() {
    let (server, database) = (server().await, database());
    let room = channel("room:a");
    let short = connect(&server, &database, keep("room", Keep { count: None, age: Some(HOUR) })).await;
    for n in 1..=3 {
        append(&*short, &room, sent_before(2 * HOUR, n)).await;
    }
    short.close().await;
    let long = connect(&server, &database, keep("room", Keep { count: None, age: Some(3 * HOUR) })).await;
    sweep(&long).await;
    assert_eq!(offsets(&long.read(&room, ALL).await.unwrap()), [1, 2, 3]);
    let messages = long.store.messages.clone_with_type::<Document>();
    // The short log's own sweep took it from the one that was the newest then.
    let dated = messages.find_one(doc! { "expire": { "$exists": true } }).await.unwrap().unwrap();
    let expire = dated.get_datetime("expire").unwrap().timestamp_millis();
    assert_eq!(expire - dated.get_i64("time").unwrap(), 3 * HOUR.as_millis() as i64);
}

/// All that is stored of the channel, as who looks for it finds it.
async fn found(log: &MongoDb) -> Vec<Stood> {
    let messages = log.store.messages.clone_with_type::<Document>();
    let mut found = messages.find(doc! {}).sort(doc! { "offset": 1 }).await.unwrap();
    let mut all = Vec::new();
    while found.advance().await.unwrap() {
        let number = |name| found.current().get_i64(name).unwrap() as u64;
        all.push(Stood { offset: number("offset"), time: number("time") });
    }
    all
}

async fn sift(log: &MongoDb, found: Vec<Stood>) -> Vec<u64> {
    let mut session = log.store.session().await.unwrap();
    let right = ground::sift(&log.store, &mut session, &channel("room:a"), found).await.unwrap();
    let mut right: Vec<_> = right.into_iter().collect();
    right.sort_unstable();
    right
}

/// Inserts what a node would that knows an old end of the channel, and dies before it looks for its ground.
async fn insert_stray(log: &MongoDb, offset: u64) {
    let draft = sent_before(Duration::ZERO, 10_000 + offset);
    let document = Key::new(&channel("room:a")).encode(&draft, Place::new(offset), None);
    log.store.messages.insert_one(document).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_stays_when_all_of_a_channel_is_looked_for() {
    let (server, database) = (server().await, database());
    let room = channel("room:a");
    let count = keep("room", Keep { count: Some(10), age: None });
    let one = connect(&server, &database, count.clone()).await;
    let other = connect(&server, &database, count).await;
    append_many(&one, 1..=5).await;
    append_many(&other, 6..=500).await;
    retention::trim(&other.store, &room).await.unwrap();
    // What is not kept any more may be said again; all others are there.
    append_many(&one, 481..=500).await;
    let page = other.read(&room, ALL).await.unwrap();
    assert_eq!((page.extent.first, page.extent.top), (501, 510), "ten of the twenty were gone");
    let mut numbers: Vec<_> = page.publications.iter().map(|found| found.message_id.to_string()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (481..=490).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(found(&other).await.iter().any(|stood| stood.offset == 500), "the newest that was there stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_touch_the_old_end_of_a_channel_are_told_from_it_by_count() {
    let (server, room) = (server().await, channel("room:a"));
    let log = connect(&server, &database(), keep("room", Keep { count: Some(10), age: None })).await;
    append_many(&log, 1..=100).await;
    retention::trim(&log.store, &room).await.unwrap();
    let whole = found(&log).await;
    assert_eq!(
        sift(&log, whole[1..].to_vec()).await,
        (91..=100).collect::<Vec<_>>(),
        "their ground is there"
    );
    for offset in [20, 88, 89] {
        insert_stray(&log, offset).await;
    }
    let all = found(&log).await;
    assert_eq!(sift(&log, all).await, (91..=100).collect::<Vec<_>>());
    assert_eq!(stored(&log).await, (91..=100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_touch_the_old_end_of_a_channel_are_told_from_it_by_age() {
    let (server, room) = (server().await, channel("room:a"));
    let log = connect(&server, &database(), keep("room", Keep { count: None, age: Some(HOUR) })).await;
    for n in 1..=10 {
        append(&*log, &room, sent_before(2 * HOUR, n)).await;
    }
    for n in 11..=15 {
        append(&*log, &room, sent_before(HOUR / 2, n)).await;
    }
    retention::trim(&log.store, &room).await.unwrap();
    assert_eq!(stored(&log).await, (10..=15).collect::<Vec<_>>());
    // Nothing is claimed in front of it: all of it stays.
    assert_eq!(sift(&log, found(&log).await).await, (10..=15).collect::<Vec<_>>());
    for offset in [3, 8, 9] {
        insert_stray(&log, offset).await;
    }
    assert_eq!(sift(&log, found(&log).await[..3].to_vec()).await, [] as [u64; 0]);
    assert_eq!(stored(&log).await, (10..=15).collect::<Vec<_>>());
    for offset in [8, 9] {
        insert_stray(&log, offset).await;
    }
    assert_eq!(sift(&log, found(&log).await).await, (10..=15).collect::<Vec<_>>());
    assert_eq!(stored(&log).await, (10..=15).collect::<Vec<_>>());
}
