//! What is trimmed, by any node, and what must not be taken for free because of it.

use std::{sync::Arc, time::Duration};

use mongodb::bson::{Document, doc};

use xpush_test_servers::until;

use super::{
    super::{
        MongoDb, ground,
        read::now,
        record::{Key, Place},
        retention,
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

async fn right_from(log: &MongoDb) -> u64 {
    let mut session = log.store.session().await.unwrap();
    let top = log.extent(&channel("room:a")).await.unwrap().top;
    ground::right_from(&log.store, &mut session, &channel("room:a"), top).await.unwrap()
}

/// Inserts what a node would that knows an old end of the channel, and dies before it looks for its ground.
async fn insert_stray(log: &MongoDb, offset: u64) {
    let draft = sent_before(Duration::ZERO, 10_000 + offset);
    let document = Key::new(&channel("room:a")).encode(&draft, Place::new(offset), None);
    log.store.messages.insert_one(document).await.unwrap();
}

/// Ten that are too old, and five that are kept: 10 to 15 are left.
async fn trimmed_by_age() -> (impl Sized, Arc<MongoDb>) {
    let server = server().await;
    let log = connect(&server, &database(), keep("room", Keep { count: None, age: Some(HOUR) })).await;
    for n in 1..=10 {
        append(&*log, &channel("room:a"), sent_before(2 * HOUR, n)).await;
    }
    for n in 11..=15 {
        append(&*log, &channel("room:a"), sent_before(HOUR / 2, n)).await;
    }
    retention::trim(&log.store, &channel("room:a")).await.unwrap();
    assert_eq!(stored(&log).await, (10..=15).collect::<Vec<_>>());
    (server, log)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_stays_when_all_of_a_channel_is_looked_for() {
    let (server, database) = (server().await, database());
    let room = channel("room:a");
    let count = keep("room", Keep { count: Some(10), age: None });
    let one = connect(&server, &database, count.clone()).await;
    append_many(&one, 1..=500).await;
    retention::trim(&one.store, &room).await.unwrap();
    // What is not kept any more may be said again; all others are there.
    let other = connect(&server, &database, count).await;
    let mut pending = Vec::new();
    for n in (491..=500).chain([490]) {
        pending.push((n, other.append(&room, draft("ann", n)).await.unwrap()));
    }
    for (n, pending) in pending {
        let appended = pending.await.unwrap();
        let is_there = matches!(appended, Appended::Duplicate(_));
        assert_eq!((is_there, appended.cursor().offset), if n == 490 { (false, 501) } else { (true, n) });
    }
    assert_eq!(offsets(&one.read(&room, ALL).await.unwrap()), (492..=501).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_by_count_is_told_from_what_was_claimed_in_front_of_it() {
    let (server, room) = (server().await, channel("room:a"));
    let log = connect(&server, &database(), keep("room", Keep { count: Some(10), age: None })).await;
    // The next hundred would have it trimmed once more.
    append_many(&log, 1..=97).await;
    retention::trim(&log.store, &room).await.unwrap();
    assert_eq!(stored(&log).await, (87..=97).collect::<Vec<_>>());
    // Some touch what is left, and some don't.
    for offset in [20, 21, 85, 86] {
        insert_stray(&log, offset).await;
        assert_eq!(right_from(&log).await, 87);
    }
    for (stray, offset) in [(20, 98), (86, 99)] {
        let again = append(&*log, &room, draft("ann", 10_000 + stray)).await;
        assert!(matches!(again, Appended::New { .. }) && again.cursor().offset == offset, "{again:?}");
    }
    assert_eq!(offsets(&log.read(&room, ALL).await.unwrap()), (90..=99).collect::<Vec<_>>());
}

async fn sift(log: &MongoDb, offsets: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut session = log.store.session().await.unwrap();
    let offsets = offsets.collect();
    let right = ground::sift(&log.store, &mut session, &channel("room:a"), offsets).await.unwrap();
    let mut right: Vec<_> = right.into_iter().collect();
    right.sort_unstable();
    right
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_in_doubt_whose_ground_was_trimmed_meanwhile_stays() {
    let server = server().await;
    let by_count = connect(&server, &database(), keep("room", Keep { count: Some(10), age: None })).await;
    append_many(&by_count, 1..=97).await;
    assert_eq!(sift(&by_count, 1..=97).await, (1..=97).collect::<Vec<_>>(), "nothing was trimmed yet");
    retention::trim(&by_count.store, &channel("room:a")).await.unwrap();
    let (_server, by_age) = trimmed_by_age().await;
    for (log, left) in [(&by_count, 87..=97), (&by_age, 10..=15)] {
        let left: Vec<_> = left.collect();
        assert_eq!(sift(log, left.iter().copied()).await, left);
        assert_eq!(stored(log).await.len(), left.len(), "nothing of it is deleted");
        let first = left[0];
        for claimed in [first - 7..=first - 6, first - 2..=first - 1] {
            for offset in claimed.clone() {
                insert_stray(log, offset).await;
            }
            assert_eq!(sift(log, claimed).await, [] as [u64; 0]);
            assert_eq!(stored(log).await.len(), left.len(), "they are withdrawn");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_by_age_is_told_from_what_was_claimed_in_front_of_it() {
    let (_server, log) = trimmed_by_age().await;
    assert_eq!(right_from(&log).await, 10);
    for offset in [3, 4, 8, 9] {
        insert_stray(&log, offset).await;
        assert_eq!(right_from(&log).await, 10);
    }
    for (stray, offset) in [(3, 16), (9, 17)] {
        let again = append(&*log, &channel("room:a"), sent_before(Duration::ZERO, 10_000 + stray)).await;
        assert!(matches!(again, Appended::New { .. }) && again.cursor().offset == offset, "{again:?}");
    }
    let there = append(&*log, &channel("room:a"), sent_before(HOUR / 2, 11)).await;
    assert!(matches!(there, Appended::Duplicate(_)) && there.cursor().offset == 11, "{there:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_deleted_for_a_clock_that_is_behind() {
    let (server, room) = (server().await, channel("room:a"));
    let both = keep("room", Keep { count: Some(10), age: Some(HOUR) });
    let (one, other) = {
        let database = database();
        (connect(&server, &database, both.clone()).await, connect(&server, &database, both).await)
    };
    for n in 1..=30 {
        let age = if n == 25 { 2 * HOUR } else { HOUR / 2 };
        append(&*one, &room, sent_before(age, n)).await;
    }
    retention::trim(&one.store, &room).await.unwrap();
    assert_eq!(stored(&one).await, (20..=30).collect::<Vec<_>>());
    // One in front of it is said twice: that is no loss.
    let again = append(&*other, &room, sent_before(HOUR / 2, 23)).await;
    assert!(matches!(again, Appended::New { .. }) && again.cursor().offset == 31, "{again:?}");
    assert_eq!(stored(&one).await, (20..=31).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_of_a_channel_is_no_claim_in_front_of_it() {
    let (server, room) = (server().await, channel("room:a"));
    let log = connect(&server, &database(), keep("room", Keep { count: None, age: Some(HOUR) })).await;
    append(&*log, &room, sent_before(HOUR / 2, 1)).await;
    // By a clock that is behind.
    append(&*log, &room, sent_before(2 * HOUR, 2)).await;
    append(&*log, &room, sent_before(Duration::ZERO, 3)).await;
    assert_eq!(right_from(&log).await, 1);
}
