//! Couriers and writing sides that share outboxes.

use std::{
    sync::atomic::{AtomicBool, AtomicU64},
    task::Wake,
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use tokio::{task::JoinSet, time::timeout};
use xpush_protocol::{CloseCode, Codec, Cursor, Epoch, Pong, ServerFrame};
use xpush_transports::Farewell;

use super::*;
use crate::{
    channel::{Channel, Channels},
    log::{Capacity, KeepByNamespace, Log, Memory, fixture::draft},
    metrics::Metrics,
    namespace::Policy,
    session::outbox::Taken,
};

const EPOCH: Epoch = Epoch(7);

/// What a wire does that is written to by a courier.
enum Does {
    /// Takes so many frames.
    Takes(usize),
    /// Takes all, and has not written it.
    Keeps,
    /// Takes all, after this.
    After(Box<dyn FnOnce() + Send>),
}

/// A wire that takes what it is told to, and else all.
#[derive(Default)]
struct Wire {
    got: Mutex<Vec<u64>>,
    does: Mutex<VecDeque<Does>>,
    /// Else, it does not take all each fifth time.
    has_whims: AtomicBool,
    writes: AtomicUsize,
}

impl Wire {
    /// What it does now.
    fn next(&self) -> Does {
        let whim = self.writes.fetch_add(1, Ordering::Relaxed);
        let will = self.does.lock().unwrap().pop_front();
        will.unwrap_or(match whim % 20 {
            3 if self.has_whims.load(Ordering::Relaxed) => Does::Takes(0),
            8 if self.has_whims.load(Ordering::Relaxed) => Does::Takes(1),
            13 if self.has_whims.load(Ordering::Relaxed) => Does::Keeps,
            18 if self.has_whims.load(Ordering::Relaxed) => Does::Takes(40),
            _ => Does::Takes(usize::MAX),
        })
    }

    fn will(&self, does: Does) {
        self.does.lock().unwrap().push_back(does);
    }

    fn write(&self, frames: impl IntoIterator<Item = Outgoing>) {
        self.got.lock().unwrap().extend(frames.into_iter().filter_map(|frame| offset(&frame.bytes)));
    }

    fn written(&self) -> u64 {
        self.got.lock().unwrap().len() as u64
    }

    fn got(&self) -> Vec<u64> {
        self.got.lock().unwrap().clone()
    }
}

impl TryWrite for Wire {
    fn try_write(&self, frames: &mut Vec<Outgoing>) -> bool {
        let (mut all, mut takes) = (true, frames.len());
        match self.next() {
            Does::Takes(most) => takes = takes.min(most),
            Does::After(this) => this(),
            Does::Keeps => all = false,
        }
        self.write(frames.drain(..takes));
        all && frames.is_empty()
    }
}

fn offset(frame: &Bytes) -> Option<u64> {
    serde_json::from_slice::<Value>(frame).unwrap()["publication"]["offset"].as_u64()
}

/// A channel that stands at 0.
async fn channel() -> Arc<Channel> {
    let capacity = Capacity { channels: 10, bytes: 1 << 20 };
    let log: Arc<dyn Log> = Arc::new(Memory::new(KeepByNamespace::new(), capacity));
    let channels = Channels::default();
    let name = "live:a".parse().unwrap();
    let first = Arc::new(Outbox::new(Codec::Json));
    let key = first.reserve();
    let (channel, first) =
        channels.enter(&name, &Policy::default(), &log, |channel| channel.add(&first, key, false));
    channel.remove(first);
    channel.delivered().await.unwrap();
    channel.begin_at(Cursor { epoch: EPOCH, offset: 0 });
    channel
}

fn couriers() -> Couriers {
    Couriers::new(&Arc::new(Metrics::default()))
}

/// A session that is live in the channel, and what wakes its writing side.
struct Session {
    outbox: Arc<Outbox>,
    wire: Arc<Wire>,
    woken: Arc<Count>,
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Session {
    fn of(channel: &Arc<Channel>, couriers: &Couriers) -> Self {
        let (outbox, wire) = (Arc::new(Outbox::new(Codec::Json)), Arc::new(Wire::default()));
        outbox.carried_by(couriers.carrier(Arc::downgrade(&wire) as _));
        let key = outbox.reserve();
        let subscriber = channel.add(&outbox, key, false);
        let (at, answer) = (Cursor { epoch: EPOCH, offset: 0 }, ServerFrame::Pong(Pong { id: 1 }));
        outbox.begin(key, Arc::clone(channel), subscriber, at, &answer);
        let session = Self { outbox, wire, woken: Arc::default() };
        assert!(session.take().is_some_and(|(taken, _)| taken.behind.is_some()));
        assert!(channel.try_go_live(&session.outbox, key, at));
        session
    }

    /// What the writing side takes; it waits if that is nothing.
    fn take(&self) -> Option<(Taken, Vec<u64>)> {
        let (waker, mut batch) = (Waker::from(Arc::clone(&self.woken)), Vec::new());
        let taken =
            std::pin::pin!(self.outbox.take(&mut batch, false)).poll(&mut Context::from_waker(&waker));
        match taken {
            Poll::Ready(taken) => {
                Some((taken, batch.iter().filter_map(|frame| offset(&frame.bytes)).collect()))
            }
            Poll::Pending => None,
        }
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Ordering::Relaxed)
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    let waits = async {
        while !condition() {
            yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), waits).await.expect("it comes to pass");
}

fn deliver(channel: &Channel, offsets: impl IntoIterator<Item = u64>) {
    offsets
        .into_iter()
        .for_each(|offset| channel.deliver(EPOCH, &Arc::new(draft("ann", offset).into_publication(offset))));
}

#[tokio::test]
async fn a_courier_writes_while_the_writing_side_waits_and_does_not_wake_it() {
    let (channel, couriers) = (channel().await, couriers());
    let session = Session::of(&channel, &couriers);
    // Before it waits, it looks by itself.
    deliver(&channel, [1]);
    assert_eq!(session.take().map(|(_, offsets)| offsets), Some(vec![1]));
    assert!(session.take().is_none());
    deliver(&channel, 2..=4);
    until(|| session.wire.written() == 3).await;
    // More than may wait as it is handed out.
    deliver(&channel, 5..=300);
    until(|| session.wire.written() == 299).await;
    assert_eq!(session.wire.got(), (2..=300).collect::<Vec<_>>());
    assert_eq!(session.woken(), 0);
    // What nobody else can do wakes it.
    session.outbox.close(Farewell::new(CloseCode::Draining, "the node is stopping"));
    assert_eq!(session.woken(), 1);
    assert!(session.take().is_some_and(|(taken, _)| taken.farewell.is_some()));
}

#[tokio::test]
async fn no_courier_overtakes_a_writing_side_that_looked_without_being_woken() {
    let (channel, couriers) = (channel().await, couriers());
    let session = Session::of(&channel, &couriers);
    assert!(session.take().is_none());
    deliver(&channel, [1]);
    // The courier was called; but the wire, or anything else, had this one look first, and it writes.
    assert_eq!(session.take().map(|(_, offsets)| offsets), Some(vec![1]));
    deliver(&channel, [2]);
    couriers.finish().await;
    assert_eq!(session.wire.got(), [0_u64; 0]);
    assert_eq!(session.take().map(|(_, offsets)| offsets), Some(vec![2]));
}

#[tokio::test]
async fn no_writing_side_overtakes_a_courier_that_writes() {
    let (channel, couriers) = (channel().await, couriers());
    let session = Arc::new(Session::of(&channel, &couriers));
    assert!(session.take().is_none());
    session.wire.will(Does::After(Box::new({
        let (channel, session) = (Arc::clone(&channel), Arc::clone(&session));
        move || {
            deliver(&channel, [2]);
            session.outbox.push_answer(&ServerFrame::Pong(Pong { id: 2 }));
            assert!(session.take().is_none());
        }
    })));
    deliver(&channel, [1]);
    couriers.finish().await;
    assert_eq!(session.wire.got(), [1]);
    assert_eq!(session.woken(), 2, "by the answer, and once the courier had gone");
    assert_eq!(session.take().map(|(_, offsets)| offsets), Some(vec![2]));
}

#[tokio::test]
async fn what_the_wire_does_not_take_from_a_courier_is_the_first_that_the_writing_side_writes() {
    let (channel, couriers) = (channel().await, couriers());
    let session = Session::of(&channel, &couriers);
    for (round, does) in [Does::Takes(1), Does::Takes(0), Does::Keeps].into_iter().enumerate() {
        let (first, takes) = (5 * round as u64 + 1, session.wire.got().len());
        let took = match does {
            Does::Takes(takes) => takes as u64,
            _ => 3,
        };
        assert!(session.take().is_none());
        session.wire.will(does);
        deliver(&channel, first..first + 3);
        couriers.finish().await;
        assert_eq!(session.wire.got()[takes..], (first..first + took).collect::<Vec<_>>());
        assert_eq!(session.woken(), round + 1, "the writing side has to go on");
        // Until it has, no courier may.
        deliver(&channel, [first + 3, first + 4]);
        couriers.finish().await;
        let (taken, left) = session.take().expect("it goes on");
        assert!(taken.unwritten);
        assert_eq!(left, (first + took..first + 3).collect::<Vec<_>>());
        assert_eq!(session.take().map(|(_, offsets)| offsets), Some(vec![first + 3, first + 4]));
    }
}

#[tokio::test]
async fn after_a_courier_that_panicked_everybody_else_gets_everything() {
    let (first, second, couriers) = (channel().await, channel().await, couriers());
    // In each line some before and some behind the one, and one that calls meanwhile.
    let sessions: Vec<_> = (0..5 * couriers.lines.len()).map(|_| Session::of(&first, &couriers)).collect();
    let others: Vec<_> = (0..couriers.lines.len()).map(|_| Session::of(&second, &couriers)).collect();
    assert!(sessions.iter().chain(&others).all(|session| session.take().is_none()));
    let unlucky = sessions.len() / 2;
    sessions[unlucky].wire.will(Does::After(Box::new({
        let second = Arc::clone(&second);
        move || {
            deliver(&second, [1]);
            panic!("as the test wants it");
        }
    })));
    deliver(&first, [1]);
    couriers.finish().await;
    let (taken, _) = sessions[unlucky].take().expect("it has to go");
    assert_eq!(taken.farewell.map(|farewell| farewell.code), Some(CloseCode::Internal));
    let rest = || sessions.iter().enumerate().filter(|(n, _)| *n != unlucky).map(|(_, session)| session);
    for session in rest().chain(&others) {
        let by_itself = session.take().map_or(Vec::new(), |(_, offsets)| offsets);
        assert_eq!([session.wire.got(), by_itself].concat(), [1]);
        assert!(session.take().is_none());
    }
    deliver(&first, [2]);
    deliver(&second, [2]);
    couriers.finish().await;
    assert!(rest().chain(&others).all(|session| session.wire.got().last() == Some(&2)));
}

/// Publishers on all cores, wires that take what they like, and writing sides that come in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_writes_each_gets_everything_once_and_in_order() {
    const PUBLICATIONS: u64 = 20_000;
    /// Fewer than a channel keeps for those who don't keep up: nobody here reads a log.
    const AHEAD: u64 = 300;
    let (channel, couriers) = (channel().await, Arc::new(couriers()));
    let (next, mut tasks) = (Arc::new(Mutex::new(0)), JoinSet::new());
    let sessions: Vec<_> = (0..8).map(|_| Arc::new(Session::of(&channel, &couriers))).collect();
    for seed in 0..2 {
        let (next, channel, sessions) = (Arc::clone(&next), Arc::clone(&channel), sessions.clone());
        let random = AtomicU64::new(seed);
        tasks.spawn(async move {
            loop {
                let behind = sessions.iter().map(|session| session.wire.written()).min().unwrap_or(0);
                {
                    let mut next = next.lock().unwrap();
                    if *next == PUBLICATIONS {
                        return;
                    }
                    let burst = 1 + random.fetch_add(7, Ordering::Relaxed) % 50;
                    let end = PUBLICATIONS.min(*next + burst).min(behind + AHEAD);
                    let offsets = *next + 1..=end;
                    *next = end.max(*next);
                    deliver(&channel, offsets);
                }
                yield_now().await;
            }
        });
    }
    for session in sessions.iter().map(Arc::clone) {
        session.wire.has_whims.store(true, Ordering::Relaxed);
        tasks.spawn(async move {
            let mut batch = Vec::new();
            loop {
                let taken = session.outbox.take(&mut batch, false).await;
                assert!(taken.behind.is_none(), "everything is still in the channel");
                session.wire.write(batch.drain(..));
                if taken.farewell.is_some() {
                    return;
                }
                yield_now().await;
            }
        });
    }
    until(|| {
        if let Some(ended) = tasks.try_join_next() {
            ended.unwrap();
        }
        sessions.iter().all(|session| session.wire.written() == PUBLICATIONS)
    })
    .await;
    for session in &sessions {
        assert_eq!(session.wire.got(), (1..=PUBLICATIONS).collect::<Vec<_>>());
        session.outbox.close(Farewell::new(CloseCode::Normal, "all was said"));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}
