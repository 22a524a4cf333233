use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};

use super::*;
use crate::{
    log::{Appended, Capacity, Keep, Memory, Pending},
    publication::{Draft, Publisher},
};

/// A log that can be lost, as a store that keeps nothing on disk is lost with its machine.
struct Losable(Mutex<Memory>);

impl Losable {
    fn new() -> Self {
        Self(Mutex::new(Self::fresh()))
    }

    fn fresh() -> Memory {
        Memory::new(HashMap::new(), Capacity { channels: 10, bytes: 1 << 20 })
    }

    fn lose(&self) {
        *self.memory() = Self::fresh();
    }

    fn append_one(&self, channel: &ChannelName, time: u64) -> Appended {
        let draft = Draft {
            publisher: Publisher::backend("b"),
            message_id: xpush_protocol::MessageId::random(),
            retriable: true,
            event: xpush_protocol::EventName::default(),
            payload: xpush_protocol::Payload::Json(xpush_protocol::Json::parse("1").unwrap()),
            user: None,
            time,
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        };
        let pending = self.memory().append(channel, draft).now_or_never().unwrap().unwrap();
        pending.now_or_never().unwrap().unwrap()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Losable {
    fn append<'a>(&'a self, _: &'a ChannelName, _: Draft) -> BoxFuture<'a, Result<Pending, LogError>> {
        unreachable!("these tests append to the memory within")
    }

    fn read<'a>(&'a self, channel: &'a ChannelName, query: Query) -> BoxFuture<'a, Result<Page, LogError>> {
        let page = self.memory().read(channel, query).now_or_never();
        Box::pin(async { page.expect("memory answers at once") })
    }

    fn redact<'a>(&'a self, _: &'a ChannelName, _: u64) -> BoxFuture<'a, Result<bool, LogError>> {
        unreachable!("these tests delete nothing")
    }

    fn extent<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        let extent = self.memory().extent(channel).now_or_never();
        Box::pin(async { extent.expect("memory answers at once") })
    }
}

#[tokio::test]
async fn publications_say_their_epoch_once_it_changed_under_the_channel() {
    let log = Arc::new(Losable::new());
    let retention = Retention::Recent { size: 10, ttl: Duration::from_secs(60) };
    let policy = Policy { retention, ..Policy::default() };
    let name: ChannelName = "live:a".parse().unwrap();
    let channel = Channel::new(name.clone(), policy, Arc::clone(&log) as Arc<dyn Log>, RoomMemory::default());
    let append = || log.append_one(&name, 0);
    let first = append().cursor();
    assert_eq!(channel.delivered().await.unwrap(), first);
    assert_eq!(channel.told_epoch(first.epoch), None);

    log.lose();
    let second = append().cursor();
    assert_ne!(second.epoch, first.epoch);
    channel.note_top(second);
    assert!(channel.repair(Duration::ZERO).await.unwrap());
    assert_eq!(channel.told_epoch(second.epoch), Some(second.epoch));
    assert!(!channel.repair(Duration::ZERO).await.unwrap());
    assert_eq!(channel.delivered().await.unwrap(), second);
}

#[tokio::test]
async fn a_page_of_a_new_epoch_says_it_before_the_channel_has_heard() {
    let log: Arc<dyn Log> = Arc::new(Losable::new());
    let policy = Policy { retention: Retention::None, ..Policy::default() };
    let channel = Channel::new("live:a".parse().unwrap(), policy, log, RoomMemory::default());
    let begun = channel.delivered().await.unwrap().epoch;
    assert_eq!(channel.told_epoch(begun), None);
    let another = Epoch(begun.0 ^ 1);
    assert_eq!(channel.told_epoch(another), Some(another));
    // Whoever began before has to tell the two apart from now on.
    assert_eq!(channel.told_epoch(begun), Some(begun));
}

/// A durable channel with three publications handed out, whose log is lost then: what it still gives comes from here.
async fn handed_out(keep: Keep, time: u64) -> (Channel, Cursor) {
    let log = Arc::new(Losable::new());
    let policy = Policy { retention: Retention::Durable { keep }, history: true, ..Policy::default() };
    let name: ChannelName = "room:a".parse().unwrap();
    let channel = Channel::new(name.clone(), policy, Arc::clone(&log) as Arc<dyn Log>, RoomMemory::default());
    let begun = channel.delivered().await.unwrap();
    for _ in 0..3 {
        let Appended::New { epoch, publication } = log.append_one(&name, time) else {
            panic!("each has an id of its own")
        };
        channel.deliver(epoch, &publication);
    }
    log.lose();
    (channel, begun)
}

async fn offsets_behind(channel: &Channel, cursor: Cursor) -> Vec<u64> {
    let query = Query { from: From::After(cursor.offset), limit: 10, bytes: 1 << 20 };
    let page = channel.read_behind(cursor, query).await.unwrap();
    page.publications.iter().map(|publication| publication.offset).collect()
}

#[tokio::test]
async fn who_missed_little_reads_it_from_the_channel() {
    let (channel, begun) = handed_out(Keep::default(), 0).await;
    let at = |offset| Cursor { offset, ..begun };
    assert_eq!(offsets_behind(&channel, begun).await, [1, 2, 3]);
    assert_eq!(offsets_behind(&channel, at(2)).await, [3]);
    assert_eq!(offsets_behind(&channel, at(3)).await, [0; 0]);
    assert_eq!(channel.extent_at(at(1)).await.unwrap().top, 3);
    let another = Cursor { epoch: Epoch(begun.epoch.0 ^ 1), offset: 1 };
    assert_eq!(offsets_behind(&channel, another).await, [0; 0], "only the log knows of another epoch");
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_not_given_from_the_channel_either() {
    let (channel, begun) = handed_out(Keep { count: Some(2), age: None }, 0).await;
    assert_eq!(offsets_behind(&channel, begun).await, [0; 0]);
    assert_eq!(offsets_behind(&channel, Cursor { offset: 1, ..begun }).await, [2, 3]);
    let an_hour = Keep { count: None, age: Some(Duration::from_secs(3600)) };
    let (channel, begun) = handed_out(an_hour, now()).await;
    assert_eq!(offsets_behind(&channel, begun).await, [1, 2, 3]);
    let (channel, begun) = handed_out(an_hour, now() - 3_600_000).await;
    assert_eq!(offsets_behind(&channel, begun).await, [0; 0]);
}
