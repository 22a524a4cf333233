use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use xpush_protocol::{Binary, ChannelName, Cursor, Payload};

use super::{
    channel::{DEDUP_WINDOW, IDENTITY_OVERHEAD, PUBLICATION_OVERHEAD},
    shard::IDLE,
    *,
};
use crate::log::{
    From,
    fixture::{append, channel, draft, keep, offsets},
};

const MINUTE: Duration = Duration::from_secs(60);

/// More than these tests write.
const ROOMY: usize = 1 << 20;

const ALL: Query = Query { from: From::After(0), limit: usize::MAX, bytes: usize::MAX };

fn recent(count: u64, age: Option<Duration>) -> Memory {
    Memory::new(keep("room", Keep { count: Some(count), age }), Capacity { channels: 1000, bytes: ROOMY })
}

#[tokio::test]
async fn the_newest_are_kept() {
    let (log, room) = (recent(3, None), channel("room:a"));
    for n in 1..=5 {
        append(&log, &room, draft("ann", n)).await;
    }
    let page = log.read(&room, Query { from: From::After(0), limit: 10, bytes: 1000 }).await.unwrap();
    assert_eq!((page.extent.first, page.extent.top), (3, 5));
    assert_eq!(offsets(&page), [3, 4, 5]);
}

#[tokio::test]
async fn a_channel_that_keeps_nothing_still_counts_and_knows_duplicates() {
    let (log, room) = (recent(0, None), channel("room:a"));
    let first = append(&log, &room, draft("ann", 1)).await;
    for n in 2..=100 {
        append(&log, &room, draft("ann", n)).await;
    }
    let again = append(&log, &room, draft("ann", 1)).await;
    assert_eq!(again, Appended::Duplicate(first.cursor()));
    let extent = log.extent(&room).await.unwrap();
    assert_eq!((extent.first, extent.top), (101, 100));
}

#[tokio::test]
async fn the_ids_that_are_remembered_are_bounded() {
    let (log, room) = (recent(1, None), channel("room:a"));
    for n in 0..=DEDUP_WINDOW as u64 {
        append(&log, &room, draft("ann", n)).await;
    }
    assert!(matches!(append(&log, &room, draft("ann", 1)).await, Appended::Duplicate(_)));
    assert!(matches!(append(&log, &room, draft("ann", 0)).await, Appended::New { .. }));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_not_read_and_the_extent_says_so() {
    let (log, room) = (recent(100, Some(MINUTE)), channel("room:a"));
    append(&log, &room, draft("ann", 1)).await;
    tokio::time::advance(MINUTE / 2).await;
    append(&log, &room, draft("ann", 2)).await;
    tokio::time::advance(MINUTE / 2).await;
    let page = log.read(&room, Query { from: From::After(0), limit: 10, bytes: 1000 }).await.unwrap();
    assert_eq!((page.extent.first, offsets(&page)), (2, vec![2]));
    tokio::time::advance(MINUTE / 2).await;
    let extent = log.extent(&room).await.unwrap();
    assert_eq!((extent.first, extent.top), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn an_idle_channel_is_forgotten_and_comes_back_in_another_epoch() {
    let (log, room) = (
        Memory::new(keep("room", Keep { count: Some(0), age: None }), Capacity { channels: 1, bytes: ROOMY }),
        channel("room:a"),
    );
    let before = append(&log, &room, draft("ann", 1)).await.cursor();
    let refused = log.append(&channel("room:b"), draft("ann", 1)).await.err();
    assert!(matches!(refused, Some(LogError::TooManyChannels { limit: 1 })));
    tokio::time::advance(IDLE).await;
    append(&log, &channel("room:b"), draft("ann", 1)).await;
    tokio::time::advance(IDLE).await;
    let after = append(&log, &room, draft("ann", 2)).await.cursor();
    assert_eq!((before.offset, after.offset), (1, 1));
    assert_ne!(before.epoch, after.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_held_keeps_its_epoch_even_before_its_first_message() {
    let (log, room) = (
        Memory::new(
            keep("room", Keep { count: Some(0), age: None }),
            Capacity { channels: 100, bytes: ROOMY },
        ),
        channel("room:a"),
    );
    let held = log.hold(&room).await.unwrap();
    for n in 0..10 {
        append(&log, &channel(&format!("room:b{n}")), draft("ann", 1)).await;
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(log.hold(&room).await.unwrap(), held);
    }
    assert_eq!(append(&log, &room, draft("ann", 1)).await.cursor(), Cursor { epoch: held.epoch, offset: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_channel_with_something_to_read_is_never_forgotten() {
    let (log, room) = (recent(1, None), channel("room:a"));
    let first = append(&log, &room, draft("ann", 1)).await.cursor();
    tokio::time::advance(IDLE * 100).await;
    append(&log, &channel("room:b"), draft("ann", 1)).await;
    assert_eq!(append(&log, &room, draft("ann", 2)).await.cursor(), Cursor { offset: 2, ..first });
}

#[tokio::test]
async fn the_epoch_of_a_channel_is_known_before_its_first_message() {
    let (log, room) = (recent(1, None), channel("room:a"));
    let before = log.extent(&room).await.unwrap();
    assert_eq!(append(&log, &room, draft("ann", 1)).await.cursor().epoch, before.epoch);
}

/// A log that is to keep everything, and has room for so many bytes.
fn narrow(bytes: usize) -> Memory {
    Memory::new(KeepByNamespace::new(), Capacity { channels: 100_000, bytes })
}

/// The message `n` with so many bytes.
fn sized(n: u64, len: usize) -> Draft {
    Draft { payload: Payload::Binary(Binary(Bytes::from(vec![0; len]))), ..draft("ann", n) }
}

/// What a message of `sized` weighs.
const fn weight(len: usize) -> usize {
    len + PUBLICATION_OVERHEAD + IDENTITY_OVERHEAD
}

fn assert_within_budget(log: &Memory) {
    let total = log.ledger.total();
    assert!(total <= log.ledger.limit(), "{total} bytes are there, {} may be", log.ledger.limit());
    assert_eq!(total, log.ledger.sum());
}

/// Reads everything there is, and checks that it has no hole and is what the extent says.
async fn first_and_top(log: &Memory, room: &ChannelName) -> (u64, u64) {
    let page = log.read(room, ALL).await.unwrap();
    assert_eq!(offsets(&page), (page.extent.first..=page.extent.top).collect::<Vec<_>>());
    (page.extent.first, page.extent.top)
}

#[tokio::test]
async fn what_goes_for_want_of_room_is_told_by_the_extent() {
    let (log, room) = (narrow(4 * weight(1000) - 1), channel("room:a"));
    for n in 1..=3 {
        append(&log, &room, sized(n, 1000)).await;
    }
    assert_eq!(first_and_top(&log, &room).await, (1, 3));
    assert_eq!(log.ledger.total(), 3 * weight(1000));
    append(&log, &room, sized(4, 1000)).await;
    assert_eq!(first_and_top(&log, &room).await, (2, 4));
    let again = append(&log, &room, sized(1, 1000)).await;
    assert!(matches!(again, Appended::Duplicate(_)), "its id outlives it while there is room for that");
    append(&log, &room, sized(5, 1000)).await;
    assert_eq!(first_and_top(&log, &room).await, (3, 5));
    assert_within_budget(&log);
}

#[tokio::test]
async fn many_channels_with_large_payloads_stay_within_the_budget() {
    let log = narrow(1 << 20);
    for n in 0..2000_u64 {
        append(&log, &channel(&format!("room:{n}")), sized(1, 32 << 10)).await;
        assert_within_budget(&log);
    }
    // The room is used: at most one message, and one's share of each channel, is free.
    assert!(log.ledger.total() > (1 << 20) - 2 * weight(32 << 10));
    let mut kept = 0;
    for n in 0..2000 {
        let (first, top) = first_and_top(&log, &channel(&format!("room:{n}"))).await;
        assert_eq!(top, 1, "the order is never lost");
        kept += top + 1 - first;
    }
    assert!((20..=31).contains(&kept), "{kept} are kept");
}

#[tokio::test]
async fn a_channel_that_took_everything_makes_room_for_those_that_come_later() {
    let log = narrow(100 * weight(1000));
    let (greedy, late) = (channel("room:greedy"), channel("room:late"));
    for n in 0..500 {
        append(&log, &greedy, sized(n, 1000)).await;
    }
    for n in 0..20 {
        append(&log, &late, sized(n, 1000)).await;
    }
    assert_eq!(first_and_top(&log, &late).await, (1, 20));
    // Who has more than its share pays for itself from now on.
    for n in 500..1000 {
        append(&log, &greedy, sized(n, 1000)).await;
    }
    assert_eq!(first_and_top(&log, &late).await, (1, 20));
    let (first, top) = first_and_top(&log, &greedy).await;
    assert!(top + 1 - first >= 70, "{first}..={top}");
    assert_within_budget(&log);
}

#[tokio::test]
async fn a_message_larger_than_all_the_room_is_counted_and_nothing_goes_for_it() {
    let log = narrow(10 * weight(1000));
    let (room, other) = (channel("room:a"), channel("room:b"));
    append(&log, &other, sized(1, 1000)).await;
    append(&log, &room, sized(1, 1000)).await;
    let huge = append(&log, &room, sized(2, 20_000)).await;
    assert!(matches!(&huge, Appended::New { publication, .. } if publication.payload.len() == 20_000));
    assert_eq!(append(&log, &room, sized(2, 20_000)).await, Appended::Duplicate(huge.cursor()));
    assert_eq!(first_and_top(&log, &room).await, (3, 2));
    assert_eq!(first_and_top(&log, &other).await, (1, 1));
    append(&log, &room, sized(3, 1000)).await;
    assert_eq!(first_and_top(&log, &room).await, (3, 3));
    assert_within_budget(&log);
}

#[tokio::test]
async fn ids_count_where_nothing_else_is_kept() {
    let capacity = Capacity { channels: 100_000, bytes: 100 * weight(0) };
    let log = Memory::new(keep("room", Keep { count: Some(0), age: None }), capacity);
    for n in 0..1000 {
        append(&log, &channel(&format!("room:{}", n % 50)), draft("ann", n)).await;
        assert_within_budget(&log);
    }
    let again = append(&log, &channel("room:49"), draft("ann", 999)).await;
    assert!(matches!(again, Appended::Duplicate(_)), "the newest is known");
    let again = append(&log, &channel("room:0"), draft("ann", 0)).await;
    assert!(matches!(again, Appended::New { .. }), "the oldest is not");
}

#[tokio::test(start_paused = true)]
async fn all_that_is_forgotten_is_given_back() {
    let capacity = Capacity { channels: 1000, bytes: ROOMY };
    let log = Memory::new(keep("room", Keep { count: Some(3), age: Some(MINUTE) }), capacity);
    let rooms: Vec<_> = (0..200).map(|n| channel(&format!("room:{n}"))).collect();
    for n in 0..10 {
        for room in &rooms {
            append(&log, room, sized(n, 10)).await;
        }
    }
    assert_within_budget(&log);
    tokio::time::advance(MINUTE + IDLE).await;
    log.sweep_all(Instant::now());
    assert_eq!((log.ledger.total(), log.ledger.sum()), (0, 0));
    assert_eq!(log.channels.load(Ordering::Relaxed), 0);
    assert!(log.shards.iter().all(|shard| lock(shard).line() == 0));
}

#[tokio::test]
async fn the_line_holds_no_more_than_twice_what_is_there() {
    let (log, room) = (recent(1, None), channel("room:a"));
    for n in 0..20_000 {
        append(&log, &room, draft("ann", n)).await;
    }
    let longest = log.shards.iter().map(|shard| lock(shard).line()).max();
    assert!(longest <= Some(1024), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appends_stay_within_the_budget_and_leave_no_hole() {
    let log = Arc::new(narrow(64 << 10));
    let tasks = (0..8).map(|task| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            for n in 0..2000_u64 {
                let room = channel(&format!("room:{}", (n + task) % 40));
                let draft = sized(task * 10_000 + n, (n % 7 * 300) as usize);
                append(&*log, &room, draft).await;
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_within_budget(&log);
    let mut written = 0;
    for n in 0..40 {
        written += first_and_top(&log, &channel(&format!("room:{n}"))).await.1;
    }
    assert_eq!(written, 8 * 2000);
    assert!(log.ledger.total() > 32 << 10, "the room is used");
}
