//! Deliveries that don't keep up with their channel.

use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::Value;
use xpush_protocol::{Epoch, EventName, Json, MessageId, Payload, Pong};

use super::*;
use crate::{
    channel::Channels,
    log::{Capacity, KeepByNamespace, Log, Memory},
    namespace::{Policy, Retention},
    publication::{DELETED, Draft, Publication},
};

const EPOCH: Epoch = Epoch(7);

fn at(offset: u64) -> Cursor {
    Cursor { epoch: EPOCH, offset }
}

fn publication(offset: u64) -> Publication {
    Publication {
        offset,
        message_id: MessageId::random(),
        event: EventName::default(),
        payload: Payload::Json(Json::from_value(&"x".repeat(100)).unwrap()),
        user: None,
        time: 0,
        reply_to: None,
    }
}

/// A channel and one who subscribed to it.
struct Reader {
    outbox: Arc<Outbox>,
    key: DeliveryKey,
    channel: Arc<Channel>,
    subscriber: SubscriberKey,
}

impl Reader {
    /// A channel that stands at `at(0)`, where its first subscriber stands too.
    async fn first() -> Self {
        let log: Arc<dyn Log> =
            Arc::new(Memory::new(KeepByNamespace::new(), Capacity { channels: 10, bytes: 1 << 20 }));
        let retention = Retention::Recent { size: 10, ttl: Duration::from_secs(60) };
        let policy = Policy { retention, ..Policy::default() };
        let (outbox, channels) = (Arc::new(Outbox::new(Codec::Json)), Channels::default());
        let key = outbox.reserve();
        let name = "live:a".parse().unwrap();
        let (channel, subscriber) =
            channels.enter(&name, &policy, &log, |channel| channel.add(&outbox, key, false));
        channel.delivered().await.unwrap();
        // The log's own epoch is of no interest here.
        channel.begin_at(at(0));
        let reader = Self { outbox, key, channel, subscriber };
        assert!(reader.begin(at(0)));
        reader
    }

    /// One more subscriber of the same channel.
    fn another(&self) -> Self {
        let outbox = Arc::new(Outbox::new(Codec::Json));
        let key = outbox.reserve();
        let subscriber = self.channel.add(&outbox, key, false);
        Self { outbox, key, channel: Arc::clone(&self.channel), subscriber }
    }

    /// Whether it needs nothing from the log.
    fn begin(&self, cursor: Cursor) -> bool {
        let answer = ServerFrame::Pong(Pong { id: 1 });
        self.outbox.begin(self.key, Arc::clone(&self.channel), self.subscriber, cursor, &answer);
        let begun = self.take();
        assert_eq!(begun.behind.map(|behind| behind.cursor), Some(cursor));
        self.channel.try_go_live(&self.outbox, self.key, cursor) || self.outbox.take_frames(self.key, cursor)
    }

    fn deliver(&self, offsets: impl IntoIterator<Item = u64>) {
        for offset in offsets {
            self.channel.deliver(EPOCH, &Arc::new(publication(offset)));
        }
    }

    /// Whether somebody who stands there could take frames.
    fn frames_are_kept(&self, offset: u64) -> bool {
        self.channel.frames().join(self.subscriber, at(offset))
    }

    fn take(&self) -> Batch {
        let mut frames = Vec::new();
        let behind = self.outbox.take(&mut frames, false).now_or_never().and_then(|taken| taken.behind);
        let parsed = frames.iter().map(|frame| serde_json::from_slice::<Value>(&frame.bytes).unwrap());
        let publications = parsed.filter(|frame| frame.get("publication").is_some()).collect();
        Batch { publications, behind }
    }

    /// What comes until nothing does.
    fn take_all(&self) -> Vec<u64> {
        let mut offsets = Vec::new();
        loop {
            let batch = self.take();
            assert!(batch.behind.is_none(), "nothing had to be read from the log");
            if batch.publications.is_empty() {
                return offsets;
            }
            offsets.extend(batch.offsets());
        }
    }
}

struct Batch {
    publications: Vec<Value>,
    behind: Option<Behind>,
}

impl Batch {
    fn offsets(&self) -> Vec<u64> {
        let offset = |frame: &Value| frame["publication"]["offset"].as_u64().unwrap();
        self.publications.iter().map(offset).collect()
    }
}

#[tokio::test]
async fn who_does_not_keep_up_for_a_moment_gets_each_frame_once_and_in_order() {
    let reader = Reader::first().await;
    let mut offsets = Vec::new();
    for chunk in 0..10 {
        reader.deliver(chunk * 400 + 1..=chunk * 400 + 400);
        // Sometimes one write's worth, sometimes all.
        if chunk % 3 == 2 {
            offsets.extend(reader.take_all());
        } else {
            let batch = reader.take();
            assert!(batch.behind.is_none());
            offsets.extend(batch.offsets());
        }
    }
    offsets.extend(reader.take_all());
    assert_eq!(offsets, (1..=4000).collect::<Vec<_>>());
    // It keeps up again, and the frames are gone.
    assert!(!reader.frames_are_kept(3999));
    reader.deliver([4001]);
    assert_eq!(reader.take_all(), [4001]);
}

#[tokio::test]
async fn who_is_too_slow_for_the_frames_reads_on_from_the_log_where_it_stopped() {
    let reader = Reader::first().await;
    let quick = reader.another();
    assert!(quick.begin(at(0)));
    for n in 1..=3000 {
        reader.deliver([n]);
        if n % 10 == 0 {
            assert_eq!(quick.take_all(), (n - 9..=n).collect::<Vec<_>>());
        }
    }
    assert!(!reader.frames_are_kept(2999), "nothing is kept for who has missed some of it");
    let batch = reader.take();
    let got = batch.offsets();
    assert_eq!(got, (1..=got.len() as u64).collect::<Vec<_>>());
    assert_eq!(batch.behind.map(|behind| (behind.cursor, behind.tell)), Some((at(got.len() as u64), true)));
}

#[tokio::test]
async fn who_comes_from_the_log_takes_the_rest_where_others_do() {
    let reader = Reader::first().await;
    reader.deliver(1..=200);
    let late = reader.another();
    // The frames begin behind what waits for the first one itself.
    assert!(!late.begin(at(3)));
    let late = reader.another();
    assert!(late.begin(at(100)));
    reader.deliver([201]);
    assert_eq!(late.take_all(), (101..=201).collect::<Vec<_>>());
    assert_eq!(reader.take_all(), (1..=201).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_ends_while_it_takes_frames_takes_none_and_keeps_none() {
    let reader = Reader::first().await;
    let other = reader.another();
    assert!(other.begin(at(0)));
    reader.deliver(1..=200);
    reader.outbox.end(reader.key);
    // What waited for it already is still written.
    let rest = reader.take_all();
    assert_eq!(rest, (1..=rest.len() as u64).collect::<Vec<_>>());
    assert!(rest.len() < 200);
    assert_eq!(other.take_all(), (1..=200).collect::<Vec<_>>());
    assert!(!reader.frames_are_kept(199));
}

#[tokio::test]
async fn a_publication_passes_who_takes_frames_and_nobody_else() {
    let first = Reader::first().await;
    let others: Vec<_> = (0..200).map(|_| first.another()).collect();
    assert!(others.iter().all(|other| other.begin(at(0))));
    first.deliver(1..=100);
    // Each third has all and is live again, each third has some, and the others are to take yet.
    let mut got: Vec<Vec<u64>> = Vec::new();
    for (n, other) in others.iter().enumerate() {
        got.push(match n % 3 {
            0 => other.take_all(),
            1 => other.take().offsets(),
            _ => Vec::new(),
        });
    }
    // Who has the place of one that ended while it took frames is told of what comes, as anybody.
    first.outbox.end(first.key);
    first.channel.remove(first.subscriber);
    let next = first.another();
    assert_eq!(next.subscriber, first.subscriber);
    assert!(next.begin(at(100)));
    assert!(next.take_all().is_empty());
    first.deliver([101]);
    assert_eq!(next.take_all(), [101]);
    for (other, mut got) in others.iter().zip(got) {
        got.extend(other.take_all());
        assert_eq!(got, (1..=101).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_message_that_is_deleted_before_it_is_taken_is_not_given() {
    let reader = Reader::first().await;
    reader.deliver(1..=100);
    let deletion = Draft::deletion(90, None, 0).into_publication(101);
    reader.channel.deliver(EPOCH, &Arc::new(deletion));
    let batch = reader.take();
    assert_eq!(batch.offsets(), (1..=101).collect::<Vec<_>>());
    let of_90 = &batch.publications[89]["publication"];
    assert_eq!((&of_90["event"], &of_90["data"]), (&DELETED.into(), &Value::Null));
}

#[tokio::test]
async fn a_channel_that_begins_anew_sends_who_takes_frames_to_the_log() {
    let reader = Reader::first().await;
    reader.deliver(1..=100);
    reader.channel.begin_at(Cursor { epoch: Epoch(8), offset: 0 });
    let batch = reader.take();
    let got = batch.offsets();
    assert!(got.len() < 100);
    assert_eq!(batch.behind.map(|behind| behind.cursor), Some(at(got.len() as u64)));
}
