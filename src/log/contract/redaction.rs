//! What every log promises of messages that are deleted.

use std::sync::Arc;

use bytes::Bytes;
use xpush_protocol::{Binary, Payload};

use super::{ALL, Open, five, said};
use crate::{
    log::{
        Appended, From, Keep, KeepByNamespace, Query,
        fixture::{append, channel, draft, keep, offsets},
    },
    publication::{DELETED, Draft, Publication},
};

pub(in crate::log) async fn what_is_deleted_is_gone_and_its_place_stays(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let room = channel("room:a");
    let binary = Payload::Binary(Binary(Bytes::from_static(b"secret")));
    let user = Some("Ann Ü.".parse().unwrap());
    let drafts = [
        draft("ann", 1),
        Draft { user, reply_to: Some(1), ..draft("ann", 2) },
        Draft { payload: binary, ..draft("bob", 3) },
        draft("ann", 4),
    ];
    let mut expected = Vec::new();
    for draft in drafts {
        let Appended::New { publication, .. } = append(&*log, &room, draft).await else {
            panic!("it is new")
        };
        expected.push(publication);
    }
    for offset in [2, 3, 2] {
        assert!(log.redact(&room, offset).await.unwrap(), "{offset}");
        let left = expected[offset as usize - 1].redacted();
        expected[offset as usize - 1] = Arc::new(left);
    }
    let forward = log.read(&room, ALL).await.unwrap();
    assert_eq!((forward.extent.first, forward.extent.top), (1, 4));
    assert_eq!(forward.publications, expected);
    let backward = log.read(&room, Query { from: From::Before(None), ..ALL }).await.unwrap();
    expected.reverse();
    assert_eq!(backward.publications, expected);
}

pub(in crate::log) async fn a_retry_of_a_deleted_message_finds_its_place(open: Open) {
    let ((log, _guard), room) = five(open).await;
    assert!(log.redact(&room, 2).await.unwrap());
    let Appended::Duplicate(place) = append(&*log, &room, draft("ann", 2)).await else {
        panic!("it is not new")
    };
    assert_eq!(place.offset, 2);
    let page = log.read(&room, Query { from: From::After(1), limit: 1, bytes: 1 }).await.unwrap();
    assert_eq!(page.publications[0].event.as_str(), DELETED);
}

pub(in crate::log) async fn what_is_not_there_can_not_be_deleted(open: Open) {
    let (log, _guard) = open(keep("chat", Keep { count: Some(10), age: None })).await;
    assert!(!log.redact(&channel("room:a"), 1).await.unwrap());
    for room in [channel("room:a"), channel("chat:a")] {
        for chunk in 0..10 {
            let mut pending = Vec::new();
            for n in 1..=100 {
                pending.push(log.append(&room, draft("ann", chunk * 100 + n)).await.unwrap());
            }
            for pending in pending {
                pending.await.unwrap();
            }
        }
    }
    for offset in [0, 1001, u64::MAX] {
        assert!(!log.redact(&channel("room:a"), offset).await.unwrap(), "{offset}");
    }
    let was_trimmed = async || !log.redact(&channel("chat:a"), 1).await.unwrap();
    xpush_test_servers::until("the first is trimmed", was_trimmed).await;
    assert_eq!(said(&*log, &channel("room:a")).await, (1..=1000).collect::<Vec<_>>());
}

pub(in crate::log) async fn deleted_messages_have_their_place_on_every_page(open: Open) {
    let (log, _guard) = open(keep("room", Keep { count: Some(8), age: None })).await;
    let room = channel("room:a");
    for n in 1..=8 {
        append(&*log, &room, draft("ann", n)).await;
    }
    // The first, the last, two beside each other.
    for offset in [1, 4, 5, 8] {
        assert!(log.redact(&room, offset).await.unwrap());
    }
    let page = async |from, limit| {
        let query = Query { from, limit, bytes: 1 << 20 };
        let page = log.read(&room, query).await.unwrap();
        let is_deleted = |there: &&Arc<Publication>| there.event.as_str() == DELETED;
        let deleted: Vec<_> = page.publications.iter().filter(is_deleted).map(|there| there.offset).collect();
        (offsets(&page), deleted)
    };
    for after in 0..=8 {
        let expected: Vec<_> = (after + 1..=8).take(3).collect();
        let (read, deleted) = page(From::After(after), 3).await;
        assert_eq!(read, expected);
        assert!(read.iter().all(|offset| [1, 4, 5, 8].contains(offset) == deleted.contains(offset)));
    }
    for before in 1..=9 {
        let expected: Vec<_> = (1..before).rev().take(3).collect();
        assert_eq!(page(From::Before(Some(before)), 3).await.0, expected);
    }
    assert_eq!(page(From::Before(None), 100).await, ((1..=8).rev().collect(), vec![8, 5, 4, 1]));
    // Those that are let go of take along that they were deleted.
    for n in 9..=1008 {
        append(&*log, &room, draft("ann", n)).await;
    }
    xpush_test_servers::until("the first are trimmed", async || log.extent(&room).await.unwrap().first > 8)
        .await;
    let (left, deleted) = page(From::Before(None), 8).await;
    assert_eq!((left, deleted), ((1001..=1008).rev().collect(), vec![]));
    assert!(!log.redact(&room, 8).await.unwrap());
}

pub(in crate::log) async fn a_message_is_deleted_while_others_come(open: Open) {
    let ((log, _guard), room) = five(open).await;
    let appends = async {
        for n in 6..=205 {
            append(&*log, &room, draft("ann", n)).await;
        }
    };
    let deletes = async {
        for offset in 1..=5 {
            assert!(log.redact(&room, offset).await.unwrap());
            let page =
                log.read(&room, Query { from: From::After(0), limit: 5, bytes: 1 << 20 }).await.unwrap();
            let gone = page.publications.iter().filter(|there| there.event.as_str() == DELETED).count();
            assert_eq!(gone as u64, offset, "a reader that comes after the answer sees it");
        }
    };
    tokio::join!(appends, deletes);
    let page = log.read(&room, ALL).await.unwrap();
    assert_eq!(offsets(&page), (1..=205).collect::<Vec<_>>());
    assert_eq!(page.publications.iter().filter(|there| there.event.as_str() == DELETED).count(), 5);
}
