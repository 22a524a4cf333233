//! The outbox is what waits to be written to one connection, and it is bounded. A subscription whose publications
//! no longer fit is not thrown out: it falls behind, takes no more live publications, and is read from the log as
//! fast as the client takes it, until it stands where the channel stands. The log is the slow client's buffer.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;
use xpush_protocol::{ChannelName, Codec, Cursor, ServerFrame};
use xpush_transports::{Farewell, Lane, Outgoing};

use crate::channel::{Channel, Encoded};

/// Live publications that may wait. Full means that the client reads too slowly: its subscription lags on the log
/// from here.
const LIVE_CAPACITY: usize = 1024;
/// Bytes of them. With what the wire itself buffers, a client that stops reading costs less than 256 KiB.
const LIVE_BYTES: usize = 64 * 1024;
/// Answers that may wait; beyond it the session reads no further commands.
const ANSWERS_CAPACITY: usize = 64;
/// Joins, leaves and other news that nobody asked for; beyond it they are dropped, and presence can be asked for.
const EVENTS_CAPACITY: usize = 256;
/// Private messages; beyond it the sender is told that this session did not get it.
const MESSAGES_CAPACITY: usize = 64;

/// A subscription's place in its session's outbox. Never used twice: what is still under way for an ended subscription
/// must not touch the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey(u64);

/// What waits to be written to one connection.
pub struct Outbox {
    codec: Codec,
    queue: Mutex<Queue>,
    /// Something waits.
    ready: Notify,
    /// The answers that waited were taken.
    room: Notify,
    /// `farewell` was set.
    closing: Notify,
}

#[derive(Default)]
struct Queue {
    answers: VecDeque<Outgoing>,
    events: VecDeque<Bytes>,
    messages: VecDeque<Arc<Encoded>>,
    live: VecDeque<Outgoing>,
    live_bytes: usize,
    deliveries: BTreeMap<DeliveryKey, Delivery>,
    next_key: u64,
    /// Subscriptions that the client brought with it, or asked for, and that have not begun: its state must not lose them.
    resuming: BTreeMap<ChannelName, Option<Cursor>>,
    behind: VecDeque<DeliveryKey>,
    /// Channels whose log could not be read: the session ends them.
    failed: Vec<ChannelName>,
    farewell: Option<Farewell>,
    /// Publications ever queued, for the metrics.
    delivered: u64,
}

/// How far one subscription got.
struct Delivery {
    channel: Arc<Channel>,
    /// Behind the last publication that was queued for the wire.
    cursor: Cursor,
    live: bool,
    /// The client was told that it lags, and is to be told when it doesn't.
    lag_told: bool,
    /// It was live once: from here on falling behind is news.
    was_live: bool,
}

/// What was taken out of an outbox.
pub(super) struct Taken {
    pub(super) behind: Option<Behind>,
    pub(super) positions: Vec<(ChannelName, Option<Cursor>)>,
    /// Publications queued since the last time, for the metrics.
    pub(super) delivered: u64,
}

/// A subscription that has to be read from the log.
pub(super) struct Behind {
    pub(super) key: DeliveryKey,
    pub(super) channel: Arc<Channel>,
    pub(super) cursor: Cursor,
    /// The client should be told that it lags.
    pub(super) tell: bool,
}

impl Outbox {
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            queue: Mutex::default(),
            ready: Notify::new(),
            room: Notify::new(),
            closing: Notify::new(),
        }
    }

    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Queues the answer to a command. The caller asked for room first.
    pub(super) fn push_answer(&self, frame: &ServerFrame) {
        let answer = self.answer(frame);
        self.queue().answers.push_back(answer);
        self.ready.notify_one();
    }

    fn answer(&self, frame: &ServerFrame) -> Outgoing {
        // Where the wire itself took the session to this node, that it goes on as before is no news.
        let lane = match frame {
            ServerFrame::Connected(connected) if connected.id == 0 => Lane::Aside,
            ServerFrame::Subscribed(subscribed) if subscribed.id == 0 && subscribed.gap.is_none() => {
                Lane::Aside
            }
            _ => Lane::Control,
        };
        Outgoing { bytes: self.codec.encode(frame), lane }
    }

    /// Waits until answers may be queued. Cancel safe.
    pub(super) async fn room(&self) {
        loop {
            let room = self.room.notified();
            if self.queue().answers.len() < ANSWERS_CAPACITY {
                return;
            }
            room.await;
        }
    }

    /// Queues news that nobody asked for, or drops it.
    pub(crate) fn push_event(&self, frame: &Encoded) {
        let bytes = frame.bytes(self.codec);
        let mut queue = self.queue();
        if queue.events.len() < EVENTS_CAPACITY {
            queue.events.push_back(bytes);
            self.ready.notify_one();
        }
    }

    /// Queues a private message, unless too many wait.
    pub(crate) fn push_message(&self, message: &Arc<Encoded>) -> bool {
        let mut queue = self.queue();
        let fits = queue.messages.len() < MESSAGES_CAPACITY && queue.farewell.is_none();
        if fits {
            queue.messages.push_back(Arc::clone(message));
            self.ready.notify_one();
        }
        fits
    }

    /// The private messages that were not written.
    pub(super) fn take_messages(&self) -> VecDeque<Arc<Encoded>> {
        std::mem::take(&mut self.queue().messages)
    }

    /// Queues a publication for a live subscription, or lets the subscription fall behind.
    pub(crate) fn push_live(&self, key: DeliveryKey, cursor: Cursor, frame: &Encoded, lane: Lane) {
        let mut queue = self.queue();
        let queue = &mut *queue;
        let Some(delivery) = queue.deliveries.get_mut(&key) else { return };
        if !delivery.live {
            // It may have found nothing in the log the last time that it looked.
            self.ready.notify_one();
            return;
        }
        if cursor.offset <= delivery.cursor.offset {
            return;
        }
        let bytes = frame.bytes(self.codec);
        if queue.live.len() >= LIVE_CAPACITY
            || queue.live_bytes + bytes.len() > LIVE_BYTES && !queue.live.is_empty()
        {
            delivery.live = false;
            queue.behind.push_back(key);
        } else {
            delivery.cursor = cursor;
            queue.live_bytes += bytes.len();
            queue.live.push_back(Outgoing { bytes, lane });
            queue.delivered += 1;
        }
        self.ready.notify_one();
    }

    /// Notes what the client is about to subscribe to, and behind what if it comes back: should it be at another node
    /// before that is done, it is done there.
    pub(super) fn resume(&self, vector: impl IntoIterator<Item = (ChannelName, Option<Cursor>)>) {
        self.queue().resuming.extend(vector);
    }

    /// It will not be resumed: the client is told so.
    pub(super) fn give_up(&self, channel: &ChannelName) {
        self.queue().resuming.remove(channel);
    }

    /// A place for a subscription that is about to begin.
    pub(crate) fn reserve(&self) -> DeliveryKey {
        let mut queue = self.queue();
        queue.next_key += 1;
        DeliveryKey(queue.next_key)
    }

    /// Begins a subscription behind `cursor`, with its answer before everything that it delivers.
    pub(super) fn begin(
        &self,
        key: DeliveryKey,
        channel: Arc<Channel>,
        cursor: Cursor,
        answer: &ServerFrame,
    ) {
        let answer = self.answer(answer);
        let mut queue = self.queue();
        queue.answers.push_back(answer);
        queue.resuming.remove(channel.name());
        let delivery = Delivery { channel, cursor, live: false, lag_told: false, was_live: false };
        queue.deliveries.insert(key, delivery);
        queue.behind.push_back(key);
        self.ready.notify_one();
    }

    pub(super) fn end(&self, key: DeliveryKey) {
        let mut queue = self.queue();
        queue.deliveries.remove(&key);
        queue.behind.retain(|behind| *behind != key);
    }

    /// Called by the channel, under its lock.
    pub(crate) fn go_live(&self, key: DeliveryKey) {
        let mut queue = self.queue();
        if let Some(delivery) = queue.deliveries.get_mut(&key) {
            delivery.live = true;
            delivery.was_live = true;
        }
    }

    /// What the channel has to say can't be handed out in order: read it from the log. One that is behind already may
    /// have found nothing there the last time.
    pub(crate) fn fall_behind(&self, key: DeliveryKey) {
        let mut queue = self.queue();
        if let Some(delivery) = queue.deliveries.get_mut(&key)
            && delivery.live
        {
            delivery.live = false;
            queue.behind.push_back(key);
        }
        self.ready.notify_one();
    }

    /// Moves all that waits into `batch`, and gives the next subscription that has to be read from the log: what it
    /// reads comes behind the batch. With `positions`, it gives where every subscription stands once the batch is
    /// written: under the same lock, or the two could differ.
    pub(super) fn take(&self, batch: &mut Vec<Outgoing>, positions: bool) -> Taken {
        let mut queue = self.queue();
        let queue = &mut *queue;
        let control = |bytes| Outgoing { bytes, lane: Lane::Control };
        if !queue.answers.is_empty() {
            batch.extend(queue.answers.drain(..));
            self.room.notify_one();
        }
        batch.extend(queue.events.drain(..).map(control));
        batch.extend(queue.messages.drain(..).map(|message| control(message.bytes(self.codec))));
        batch.extend(queue.live.drain(..));
        queue.live_bytes = 0;
        let positions = if positions { queue.positions() } else { Vec::new() };
        // Who is told goodbye gets what waits for it, and no more: the log is there for its next connection.
        let behind = if queue.farewell.is_none() { queue.next_behind() } else { None };
        Taken { behind, positions, delivered: std::mem::take(&mut queue.delivered) }
    }

    /// Notes how far a subscription was read from the log.
    pub(super) fn advance(&self, key: DeliveryKey, cursor: Cursor, publications: u64) {
        let mut queue = self.queue();
        queue.delivered += publications;
        if let Some(delivery) = queue.deliveries.get_mut(&key) {
            delivery.cursor = cursor;
        }
    }

    /// A subscription that was read from the log and is not at the end yet: its turn comes again.
    pub(super) fn still_behind(&self, key: DeliveryKey) {
        self.queue().behind.push_back(key);
    }

    /// Whether the client was told that it lags, and so has to be told that it no longer does.
    pub(super) fn take_lag_told(&self, key: DeliveryKey) -> bool {
        let mut queue = self.queue();
        let delivery = queue.deliveries.get_mut(&key);
        delivery.is_some_and(|delivery| std::mem::take(&mut delivery.lag_told))
    }

    /// Waits until there is something to take. Cancel safe.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// What is queued is still written, then the connection ends. The first reason holds.
    pub(crate) fn close(&self, farewell: Farewell) {
        self.queue().farewell.get_or_insert(farewell);
        self.ready.notify_one();
        self.closing.notify_one();
    }

    /// The log could not be read for this subscription.
    pub(super) fn fail(&self, key: DeliveryKey) {
        let mut queue = self.queue();
        if let Some(delivery) = queue.deliveries.remove(&key) {
            queue.failed.push(delivery.channel.name().clone());
            self.closing.notify_one();
        }
    }

    pub(super) fn take_failed(&self) -> Vec<ChannelName> {
        std::mem::take(&mut self.queue().failed)
    }

    /// Waits until the session has to look: this is closed, or a subscription failed. Cancel safe.
    pub(super) async fn attention(&self) {
        let needed = || {
            let queue = self.queue();
            queue.farewell.is_some() || !queue.failed.is_empty()
        };
        while !needed() {
            self.closing.notified().await;
        }
    }

    /// Waits until somebody closes this. Cancel safe.
    pub(super) async fn closing(&self) {
        while self.farewell().is_none() {
            self.closing.notified().await;
        }
    }

    pub(super) fn farewell(&self) -> Option<Farewell> {
        self.queue().farewell.clone()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn positions(&self) -> Vec<(ChannelName, Option<Cursor>)> {
        let begun =
            self.deliveries.values().map(|delivery| (delivery.channel.name().clone(), Some(delivery.cursor)));
        begun.chain(self.resuming.clone()).collect()
    }

    fn next_behind(&mut self) -> Option<Behind> {
        while let Some(key) = self.behind.pop_front() {
            if let Some(delivery) = self.deliveries.get_mut(&key) {
                let tell = delivery.was_live && !delivery.lag_told;
                delivery.lag_told |= tell;
                let (channel, cursor) = (Arc::clone(&delivery.channel), delivery.cursor);
                return Some(Behind { key, channel, cursor, tell });
            }
        }
        None
    }
}
