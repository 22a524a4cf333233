//! What every log promises, as tests. Each backend runs all of them: `contract!` makes one test of each.

mod redaction;

use std::{any::Any, collections::HashMap, sync::Arc};

use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, join_all};
use xpush_protocol::{AppId, Binary, ChannelName, Json, Payload, UserId};

use super::{
    Appended, Extent, From, Keep, KeepByNamespace, Log, LogError, Query,
    fixture::{append, channel, draft, keep, offsets},
};
use crate::publication::{Draft, Publisher};

/// A log of a backend, and what must live as long.
pub(super) type Opened = (Arc<dyn Log>, Box<dyn Any>);

macro_rules! contract {
    ($backend:ident, $open:expr) => {
        mod $backend {
            $crate::log::contract::contract!(
                $open,
                concurrent_appends_get_offsets_without_a_hole
                drafts_of_one_task_stand_in_the_order_in_which_they_came
                a_duplicate_gets_the_first_ones_place
                retries_that_race_stand_once
                one_id_of_two_publishers_is_two_messages
                one_id_in_two_channels_is_two_messages
                a_page_forward_begins_behind_its_offset
                a_page_backward_begins_before_its_offset
                a_page_ends_where_its_bytes_are_full
                a_channel_that_was_never_written_to_is_empty
                a_trimmed_channel_tells_where_it_begins
                a_trimmed_message_may_be_said_again
                payloads_come_back_as_they_were
                thousands_of_channels_count_for_themselves
                channels_whose_names_begin_alike_are_apart
                an_append_whose_future_was_dropped_is_appended
                a_channel_of_two_apps_is_two_channels
                a_channel_of_another_app_is_trimmed_like_any
                what_is_deleted_is_gone_and_its_place_stays
                a_retry_of_a_deleted_message_finds_its_place
                what_is_not_there_can_not_be_deleted
                a_message_is_deleted_while_others_come
                deleted_messages_have_their_place_on_every_page
            );
        }
    };
    ($open:expr, $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::log::contract::$test($open).await;
            }
        )*
    };
}
pub(super) use contract;

contract!(memory, |keep| {
    let capacity = crate::log::Capacity { channels: 10_000, bytes: 64 << 20 };
    let log = std::sync::Arc::new(crate::log::Memory::new(keep, capacity));
    Box::pin(std::future::ready((log as _, Box::new(()) as _)))
});
#[cfg(feature = "embedded")]
contract!(embedded, |keep| {
    let directory = tempfile::tempdir().unwrap();
    let log = crate::log::Embedded::open(directory.path(), keep).unwrap();
    Box::pin(std::future::ready((std::sync::Arc::new(log) as _, Box::new(directory) as _)))
});
#[cfg(feature = "mongodb")]
contract!(mongodb, |keep| Box::pin(crate::log::mongodb::open(keep)));
#[cfg(feature = "redis")]
contract!(redis, |keep| Box::pin(async {
    let server = xpush_test_servers::Redis::start().await;
    let settings = crate::redis::Settings { url: server.url(), prefix: "test".into() };
    let link = crate::redis::Link::connect(&settings).await.unwrap();
    (std::sync::Arc::new(crate::log::Redis::new(link, 1, keep)) as _, Box::new(server) as _)
}));

pub(super) use self::redaction::*;

type Open = fn(KeepByNamespace) -> LocalBoxFuture<'static, Opened>;

const ALL: Query = Query { from: From::After(0), limit: usize::MAX, bytes: usize::MAX };

async fn read(log: &dyn Log, channel: &ChannelName, query: Query) -> Vec<u64> {
    offsets(&log.read(channel, query).await.unwrap())
}

/// The JSON numbers that the publications carry, in order.
async fn said(log: &dyn Log, channel: &ChannelName) -> Vec<u64> {
    let page = log.read(channel, ALL).await.unwrap();
    assert_eq!(offsets(&page), (page.extent.first..=page.extent.top).collect::<Vec<_>>());
    let number = |payload: &Payload| match payload {
        Payload::Json(json) => json.as_str().parse().unwrap(),
        Payload::Binary(_) => panic!("not a number"),
    };
    page.publications.iter().map(|publication| number(&publication.payload)).collect()
}

pub(super) async fn concurrent_appends_get_offsets_without_a_hole(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let tasks = (0..50).map(|publisher| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut appended = Vec::new();
            for n in 0..20 {
                let draft = draft(&format!("p{publisher}"), publisher * 100 + n);
                appended.push(append(&*log, &channel("room:a"), draft).await);
            }
            appended
        })
    });
    let mut by_offset = HashMap::new();
    for task in join_all(tasks).await {
        let mut last = 0;
        for appended in task.unwrap() {
            let Appended::New { publication, .. } = appended else { panic!("it is new") };
            assert!(publication.offset > last, "one task's appends stand in its order");
            last = publication.offset;
            assert_eq!(by_offset.insert(publication.offset, publication), None);
        }
    }
    let page = log.read(&channel("room:a"), ALL).await.unwrap();
    assert_eq!(offsets(&page), (1..=1000).collect::<Vec<_>>());
    assert!(page.publications.iter().all(|publication| by_offset[&publication.offset] == *publication));
}

pub(super) async fn drafts_of_one_task_stand_in_the_order_in_which_they_came(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let mut pending = Vec::new();
    for n in 1..=500 {
        pending.push(log.append(&channel("room:a"), draft("ann", n)).await.unwrap());
    }
    let appended = join_all(pending).await;
    let offsets: Vec<_> = appended.into_iter().map(|appended| appended.unwrap().cursor().offset).collect();
    assert_eq!(offsets, (1..=500).collect::<Vec<_>>());
    assert_eq!(said(&*log, &channel("room:a")).await, (1..=500).collect::<Vec<_>>());
}

pub(super) async fn a_duplicate_gets_the_first_ones_place(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let room = channel("room:a");
    let first = append(&*log, &room, draft("ann", 1)).await;
    append(&*log, &room, draft("ann", 2)).await;
    let other_words = Draft { payload: draft("ann", 99).payload, ..draft("ann", 1) };
    assert_eq!(append(&*log, &room, other_words).await, Appended::Duplicate(first.cursor()));
    assert_eq!(said(&*log, &room).await, [1, 2]);
}

pub(super) async fn retries_that_race_stand_once(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let room = channel("room:a");
    for n in 1..=20 {
        // None waits for another, so that some come while the first one is under way.
        let mut pending = Vec::new();
        for _ in 0..10 {
            pending.push(log.append(&room, draft("ann", n)).await.unwrap());
        }
        let appended: Vec<_> = join_all(pending).await.into_iter().map(Result::unwrap).collect();
        assert!(appended.iter().all(|appended| appended.cursor().offset == n));
        let is_new = |appended: &&Appended| matches!(appended, Appended::New { .. });
        assert_eq!(appended.iter().filter(is_new).count(), 1);
    }
    assert_eq!(said(&*log, &room).await, (1..=20).collect::<Vec<_>>());
}

pub(super) async fn one_id_of_two_publishers_is_two_messages(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let room = channel("room:a");
    for publisher in ["ann", "bob"] {
        assert!(matches!(append(&*log, &room, draft(publisher, 1)).await, Appended::New { .. }));
    }
    assert_eq!(said(&*log, &room).await, [1, 1]);
}

pub(super) async fn one_id_in_two_channels_is_two_messages(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    for room in [channel("room:a"), channel("room:b")] {
        let appended = append(&*log, &room, draft("ann", 1)).await;
        assert!(matches!(appended, Appended::New { .. }) && appended.cursor().offset == 1);
    }
}

async fn five(open: Open) -> (Opened, ChannelName) {
    let opened = open(KeepByNamespace::new()).await;
    for n in 1..=5 {
        append(&*opened.0, &channel("room:a"), draft("ann", n)).await;
    }
    (opened, channel("room:a"))
}

pub(super) async fn a_page_forward_begins_behind_its_offset(open: Open) {
    let ((log, _guard), room) = five(open).await;
    let after = |offset, limit| Query { from: From::After(offset), limit, bytes: usize::MAX };
    assert_eq!(read(&*log, &room, after(0, 10)).await, [1, 2, 3, 4, 5]);
    assert_eq!(read(&*log, &room, after(2, 2)).await, [3, 4]);
    assert_eq!(read(&*log, &room, after(4, 1)).await, [5]);
    for (offset, limit) in [(5, 10), (6, 10), (u64::MAX, 10), (0, 0)] {
        assert_eq!(read(&*log, &room, after(offset, limit)).await, [0; 0], "after {offset}");
    }
}

pub(super) async fn a_page_backward_begins_before_its_offset(open: Open) {
    let ((log, _guard), room) = five(open).await;
    let before = |offset, limit| Query { from: From::Before(offset), limit, bytes: usize::MAX };
    assert_eq!(read(&*log, &room, before(None, 2)).await, [5, 4]);
    assert_eq!(read(&*log, &room, before(Some(4), 10)).await, [3, 2, 1]);
    assert_eq!(read(&*log, &room, before(Some(u64::MAX), 1)).await, [5]);
    for offset in [0, 1] {
        assert_eq!(read(&*log, &room, before(Some(offset), 10)).await, [0; 0], "before {offset}");
    }
}

pub(super) async fn a_page_ends_where_its_bytes_are_full(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let room = channel("room:a");
    for n in 1..=4 {
        let payload = Payload::Binary(Binary(Bytes::from(vec![7; 100])));
        append(&*log, &room, Draft { payload, ..draft("ann", n) }).await;
    }
    let page = |from, bytes| Query { from, limit: 10, bytes };
    assert_eq!(read(&*log, &room, page(From::After(0), 299)).await, [1, 2]);
    assert_eq!(read(&*log, &room, page(From::After(0), 300)).await, [1, 2, 3]);
    assert_eq!(read(&*log, &room, page(From::Before(None), 299)).await, [4, 3]);
    assert_eq!(read(&*log, &room, page(From::After(0), 0)).await, [1], "the first is always given");
}

pub(super) async fn a_channel_that_was_never_written_to_is_empty(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let Extent { first, top, epoch } = log.extent(&channel("room:a")).await.unwrap();
    assert_eq!((first, top), (1, 0));
    let page = log.read(&channel("room:a"), ALL).await.unwrap();
    assert_eq!((page.extent, page.publications), (Extent { first, top, epoch }, vec![]));
    assert_eq!(append(&*log, &channel("room:a"), draft("ann", 1)).await.cursor().epoch, epoch);
}

/// What a backend may hold beyond what is to be kept, when it trims in steps.
const TRIMMED_LATE: u64 = 200;

pub(super) async fn a_trimmed_channel_tells_where_it_begins(open: Open) {
    let (log, _guard) = open(keep("room", Keep { count: Some(100), age: None })).await;
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
    let page = log.read(&channel("room:a"), ALL).await.unwrap();
    let first = page.extent.first;
    assert!((901 - TRIMMED_LATE..=901).contains(&first), "it begins at {first}");
    assert_eq!(page.extent.top, 1000);
    assert_eq!(offsets(&page), (first..=1000).collect::<Vec<_>>());
    let backward = Query { from: From::Before(Some(first + 2)), ..ALL };
    assert_eq!(read(&*log, &channel("room:a"), backward).await, [first + 1, first]);
    let gone = Query { from: From::Before(Some(first)), ..ALL };
    assert_eq!(read(&*log, &channel("room:a"), gone).await, [0; 0]);
    assert_eq!(log.extent(&channel("chat:a")).await.unwrap().first, 1, "another namespace keeps everything");
}

pub(super) async fn a_trimmed_message_may_be_said_again(open: Open) {
    let (log, _guard) = open(keep("room", Keep { count: Some(10), age: None })).await;
    let room = channel("room:a");
    for n in 1..=1000 {
        append(&*log, &room, draft("ann", n)).await;
    }
    assert!(matches!(append(&*log, &room, draft("ann", 995)).await, Appended::Duplicate(_)));
    assert_eq!(append(&*log, &room, draft("ann", 1)).await.cursor().offset, 1001);
}

pub(super) async fn payloads_come_back_as_they_were(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let room = channel("room:a");
    let payloads = [
        Payload::Json(Json::parse(r#"{"b": 1.0, "a":["\u0000",null,"ü"]}"#).unwrap()),
        Payload::Json(Json::parse("\"\"").unwrap()),
        Payload::Binary(Binary(Bytes::new())),
        Payload::Binary(Binary((0..=255).collect::<Vec<u8>>().into())),
        Payload::Binary(Binary(vec![0; 1_000_000].into())),
    ];
    let mut written = Vec::new();
    for (payload, n) in payloads.into_iter().zip(0..) {
        let user = (n % 2 == 0).then(|| "Ann Ü.".parse().unwrap());
        let reply_to = (n % 3 == 0).then_some(n + 1);
        let draft = Draft { payload, user, reply_to, event: "a:b".parse().unwrap(), ..draft("ann", n) };
        let Appended::New { publication, .. } = append(&*log, &room, draft).await else {
            panic!("it is new")
        };
        written.push(publication);
    }
    assert_eq!(log.read(&room, ALL).await.unwrap().publications, written);
}

pub(super) async fn thousands_of_channels_count_for_themselves(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let rooms: Vec<_> = (0..5000).map(|n| channel(&format!("room:{n}"))).collect();
    for offset in 1..=2 {
        let mut pending = Vec::new();
        for room in &rooms {
            pending.push(log.append(room, draft("ann", offset)).await.unwrap());
        }
        for pending in pending {
            assert_eq!(pending.await.unwrap().cursor().offset, offset);
        }
    }
    for room in rooms.iter().step_by(97) {
        assert_eq!(said(&*log, room).await, [1, 2]);
    }
}

pub(super) async fn channels_whose_names_begin_alike_are_apart(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let rooms = ["room:a", "room:a:", "room:a-", "room:aa", "room:A", "r:a"].map(channel);
    for (room, n) in rooms.iter().zip(1..) {
        append(&*log, room, draft("ann", n)).await;
    }
    for (room, n) in rooms.iter().zip(1..) {
        assert_eq!(said(&*log, room).await, [n]);
        let newest = Query { from: From::Before(None), ..ALL };
        assert_eq!(read(&*log, room, newest).await, [1]);
    }
}

pub(super) async fn an_append_whose_future_was_dropped_is_appended(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let room = channel("room:a");
    drop(log.append(&room, draft("ann", 1)).await.unwrap());
    assert_eq!(append(&*log, &room, draft("ann", 2)).await.cursor().offset, 2);
    assert_eq!(said(&*log, &room).await, [1, 2]);
}

#[tokio::test]
async fn an_error_says_what_it_is_about() {
    let error = LogError::Unavailable { reason: "the disk is full".into() };
    assert_eq!(error.to_string(), "the log can't be written: the disk is full");
}

/// The message `n` of this app's ann.
fn of_ann(app: &AppId, n: u64) -> Draft {
    let ann = "ann".parse::<UserId>().unwrap().within(app);
    Draft { publisher: Publisher::user(&ann), user: Some(ann), ..draft("", n) }
}

pub(super) async fn a_channel_of_two_apps_is_two_channels(open: Open) {
    let (log, _guard) = open(KeepByNamespace::new()).await;
    let apps = ["default", "shop", "game"].map(|app| app.parse::<AppId>().unwrap());
    let rooms = apps.each_ref().map(|app| channel("room:a").within(app));
    for (app, room) in apps.iter().zip(&rooms).take(2) {
        let appended = append(&*log, room, of_ann(app, 1)).await;
        assert_eq!(appended.cursor().offset, 1, "an id of one app's user is none of another's");
        assert!(matches!(append(&*log, room, of_ann(app, 1)).await, Appended::Duplicate(_)));
    }
    append(&*log, &rooms[1], of_ann(&apps[1], 2)).await;
    let [default, shop, game] = &rooms;
    assert_eq!(said(&*log, default).await, [1]);
    assert_eq!(said(&*log, shop).await, [1, 2]);
    assert_eq!(said(&*log, game).await, [0; 0]);
    for (app, room) in apps.iter().zip(&rooms) {
        let page = log.read(room, ALL).await.unwrap();
        let users = page.publications.iter().map(|publication| publication.user.as_ref().unwrap());
        assert!(users.into_iter().all(|user| user.is_of(app) && user.local() == "ann"));
    }
    let tops = log.tops(&rooms).await.unwrap();
    assert_eq!(tops.iter().map(|top| top.offset).collect::<Vec<_>>(), [1, 2, 0]);
}

pub(super) async fn a_channel_of_another_app_is_trimmed_like_any(open: Open) {
    let (log, _guard) = open(keep("room", Keep { count: Some(100), age: None })).await;
    let [shop, game] = ["shop", "game"].map(|app| app.parse::<AppId>().unwrap());
    let (room, other) = (channel("room:a").within(&shop), channel("room:a").within(&game));
    append(&*log, &other, of_ann(&game, 1)).await;
    for n in 1..=1000 {
        log.append(&room, of_ann(&shop, n)).await.unwrap().await.unwrap();
    }
    let first = log.extent(&room).await.unwrap().first;
    assert!((901 - TRIMMED_LATE..=901).contains(&first), "it begins at {first}");
    assert_eq!(said(&*log, &other).await, [1], "what another app has is not counted");
}
