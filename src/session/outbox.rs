//! The outbox is what waits to be written to one connection, and it is bounded. A subscription whose publications
//! no longer fit is not thrown out: it takes its frames from the channel, which keeps the newest once for all; and who
//! is too slow for that falls behind, and is read from the log as fast as the client takes it, until it stands where
//! the channel stands. The log is the slow client's buffer.

mod carrying;
mod deliveries;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use xpush_protocol::{ChannelName, Codec, Cursor, ServerFrame};
use xpush_transports::{Farewell, Lane, Outgoing};

use self::{
    carrying::Carried,
    deliveries::{Deliveries, Pace},
};
use super::{
    courier::Carrier,
    recheck::{Recheck, Rechecks},
};
use crate::channel::{Channel, Encoded, SubscriberKey};

pub use self::deliveries::DeliveryKey;

/// Live publications that may wait. From there on a subscription takes its frames from the channel, which keeps each once
/// for all; and from the log, if it does not keep up with that either.
const LIVE_CAPACITY: usize = 32;
/// Bytes of them.
const LIVE_BYTES: usize = 16 * 1024;
/// Bytes of frames that are taken from channels for one write. With what else may wait, a page of the log and what the
/// wire itself buffers, a client that stops reading costs less than 256 KiB.
const TAKE_BYTES: usize = 64 * 1024;
/// Answers that may wait; beyond it the session reads no further commands.
const ANSWERS_CAPACITY: usize = 64;
/// Joins, leaves and other news that nobody asked for; beyond it they are dropped, and presence can be asked for.
const EVENTS_CAPACITY: usize = 256;
/// Private messages; beyond it the sender is told that this session did not get it.
const MESSAGES_CAPACITY: usize = 64;

/// Publications that a connection without work keeps room for: the next one needs no allocation.
const IDLE_ROOM: usize = 4;

/// What waits to be written to one connection.
///
/// One side writes what is here, one side reads commands and looks after the rest; each waits at one place only, so
/// each has one waker, under the lock that is taken anyway.
///
/// While the writing side waits, a courier may write in its stead what others put here.
pub struct Outbox {
    codec: Codec,
    queue: Mutex<Queue>,
    /// `None`: this wire is written to by the writing side only.
    carrier: OnceLock<Carrier>,
}

#[derive(Default)]
struct Queue {
    /// Something came since the writing side looked that is more than a courier could do.
    rung: bool,
    carried: Carried,
    /// Frames that the wire did not take from the courier, be it none: the writing side goes on with them.
    left: Option<Vec<Outgoing>>,
    /// Of the writing side, while it waits and only then: a courier goes by it.
    writer: Option<Waker>,
    /// Of the reading side, while it waits for room for answers, or for something to look after.
    reader: Option<Waker>,
    answers: VecDeque<Outgoing>,
    events: VecDeque<Bytes>,
    messages: VecDeque<Arc<Encoded>>,
    live: VecDeque<Outgoing>,
    live_bytes: usize,
    deliveries: Deliveries,
    /// Subscriptions that the client brought with it, or asked for, and that have not begun: its state must not lose them.
    resuming: BTreeMap<ChannelName, Option<Cursor>>,
    /// Channels whose log could not be read: the session ends them.
    failed: Vec<ChannelName>,
    /// What the session has to ask the directory about again.
    recheck: Option<Box<Rechecks>>,
    /// The directory could not say whether rights are gone: all of them are to be asked about when it can.
    unsure: bool,
    farewell: Option<Farewell>,
    /// Publications ever queued, for the metrics.
    delivered: u64,
}

/// What was taken out of an outbox.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) behind: Option<Behind>,
    pub(super) positions: Vec<(ChannelName, Option<Cursor>)>,
    /// Publications queued since the last time, for the metrics.
    pub(super) delivered: u64,
    /// The wire has taken something that it did not write yet: it has to be written to, even if there is no frame.
    pub(super) unwritten: bool,
    /// All was said: nothing else was taken.
    pub(super) farewell: Option<Farewell>,
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
        Self { codec, queue: Mutex::default(), carrier: OnceLock::new() }
    }

    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Queues the answer to a command. The caller asked for room first.
    pub(super) fn push_answer(&self, frame: &ServerFrame) {
        let answer = self.outgoing(frame);
        let mut queue = self.queue();
        queue.answers.push_back(answer);
        ring(queue);
    }

    /// As `push_answer`, if there is one.
    pub(super) fn answer(&self, answer: Option<ServerFrame>) {
        if let Some(answer) = answer {
            self.push_answer(&answer);
        }
    }

    fn outgoing(&self, frame: &ServerFrame) -> Outgoing {
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

    /// Whether answers may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.queue().has_room()
    }

    /// Waits until answers may be queued. Cancel safe.
    pub(super) async fn room(&self) {
        self.reader_waits(Queue::has_room).await;
    }

    /// As `room`, or until the session has to look at something first. Cancel safe.
    pub(super) async fn room_or_attention(&self) {
        self.reader_waits(|queue| queue.has_room() || queue.wants_attention()).await;
    }

    /// Waits on the reading side. Cancel safe.
    async fn reader_waits(&self, until: impl Fn(&Queue) -> bool) {
        poll_fn(|cx| {
            let mut queue = self.queue();
            if until(&queue) {
                return Poll::Ready(());
            }
            register(&mut queue.reader, cx);
            Poll::Pending
        })
        .await;
    }

    /// Queues news that nobody asked for, or drops it.
    pub(crate) fn push_event(self: &Arc<Self>, frame: &Encoded) {
        let bytes = frame.bytes(self.codec);
        let mut queue = self.queue();
        if queue.events.len() < EVENTS_CAPACITY {
            queue.events.push_back(bytes);
            self.call(queue);
        }
    }

    /// Queues a private message, unless too many wait.
    pub(crate) fn push_message(&self, message: &Arc<Encoded>) -> bool {
        let mut queue = self.queue();
        let fits = queue.messages.len() < MESSAGES_CAPACITY && queue.farewell.is_none();
        if fits {
            queue.messages.push_back(Arc::clone(message));
            ring(queue);
        }
        fits
    }

    /// The private messages that were not written.
    pub(super) fn take_messages(&self) -> VecDeque<Arc<Encoded>> {
        std::mem::take(&mut self.queue().messages)
    }

    /// Queues a publication for a live subscription, or lets the subscription fall behind.
    pub(crate) fn push_live(self: &Arc<Self>, key: DeliveryKey, cursor: Cursor, frame: &Arc<Encoded>) {
        let mut guard = self.queue();
        let queue = &mut *guard;
        let Some(delivery) = queue.deliveries.get(key) else { return };
        match delivery.pace {
            Pace::Live => {}
            // It began to since the channel looked. A courier was called for what is there, or the writing side rung, and
            // looks until it has all.
            Pace::Taking => return,
            // It may have found nothing in the log the last time that it looked.
            Pace::Behind => return ring(guard),
        }
        if cursor.offset <= delivery.cursor.offset {
            return;
        }
        let bytes = frame.bytes(self.codec);
        if queue.live.len() >= LIVE_CAPACITY
            || queue.live_bytes + bytes.len() > LIVE_BYTES && !queue.live.is_empty()
        {
            queue.deliveries.begin_to_take(key, cursor, frame);
        } else {
            delivery.cursor = cursor;
            queue.live_bytes += bytes.len();
            queue.live.push_back(Outgoing { bytes, lane: delivery.lane() });
            queue.delivered += 1;
        }
        self.call(guard);
    }

    /// A subscription that stands here takes its frames from the channel, if they are there.
    pub(super) fn take_frames(&self, key: DeliveryKey, at: Cursor) -> bool {
        self.queue().deliveries.join_those_who_take(key, at)
    }

    /// Notes what the client is about to subscribe to, and behind what if it comes back: should it be at another node
    /// before that is done, it is done there.
    pub(super) fn resume(&self, vector: impl IntoIterator<Item = (ChannelName, Option<Cursor>)>) {
        self.queue().resuming.extend(vector);
    }

    /// It will not be resumed: the client is told so.
    pub(super) fn give_up(&self, channel: &ChannelName) {
        self.queue().forget_resuming(channel);
    }

    /// A place for a subscription that is about to begin; `end` has to follow.
    pub(crate) fn reserve(&self) -> DeliveryKey {
        self.queue().deliveries.reserve()
    }

    /// Begins a subscription behind `cursor`, with its answer before everything that it delivers.
    pub(super) fn begin(
        &self,
        key: DeliveryKey,
        channel: Arc<Channel>,
        subscriber: SubscriberKey,
        cursor: Cursor,
        answer: &ServerFrame,
    ) {
        let answer = self.outgoing(answer);
        let mut queue = self.queue();
        queue.answers.push_back(answer);
        queue.forget_resuming(channel.name());
        queue.deliveries.begin(key, channel, subscriber, cursor);
        ring(queue);
    }

    pub(super) fn end(&self, key: DeliveryKey) {
        self.queue().deliveries.end(key);
    }

    /// Called by the channel, under its lock.
    pub(crate) fn go_live(&self, key: DeliveryKey) {
        self.queue().deliveries.go_live(key);
    }

    /// What the channel has to say can't be handed out in order: read it from the log. One that is behind already may
    /// have found nothing there the last time.
    pub(crate) fn fall_behind(&self, key: DeliveryKey) {
        let mut queue = self.queue();
        queue.deliveries.fall_behind(key);
        ring(queue);
    }

    /// Moves all that waits into `batch`, which is empty, and gives the next subscription that has to be read from the
    /// log: what it reads comes behind the batch. With `positions`, it gives where every subscription stands once the
    /// batch is written: under the same lock, or the two could differ.
    ///
    /// Waits until there is something. Cancel safe.
    pub(super) async fn take(&self, batch: &mut Vec<Outgoing>, positions: bool) -> Taken {
        poll_fn(|cx| self.poll_take(cx, batch, positions)).await
    }

    fn poll_take(&self, cx: &mut Context<'_>, batch: &mut Vec<Outgoing>, positions: bool) -> Poll<Taken> {
        let mut queue = self.queue();
        let queue = &mut *queue;
        if queue.carried == Carried::Now {
            register(&mut queue.writer, cx);
            return Poll::Pending;
        }
        if let Some(left) = queue.left.take() {
            // By itself: it is as much as one write bears.
            *batch = left;
            queue.writer = None;
            return Poll::Ready(Taken { unwritten: true, ..Taken::default() });
        }
        if std::mem::take(&mut queue.rung) {
            queue.deliveries.something_came();
        }
        queue.take_all(self.codec, batch);
        // Who is told goodbye gets what waits for it, and no more: the log is there for its next connection.
        let behind = if queue.farewell.is_none() { queue.deliveries.next_behind() } else { None };
        let farewell = if batch.is_empty() { queue.farewell.clone() } else { None };
        if batch.is_empty() && behind.is_none() && farewell.is_none() {
            // Nobody keeps a busy hour's memory through a quiet night.
            queue.let_go();
            // Nor room for what never came.
            if batch.capacity() > IDLE_ROOM || queue.live.capacity() == 0 {
                *batch = Vec::new();
            }
            register(&mut queue.writer, cx);
            return Poll::Pending;
        }
        let positions = if positions { queue.positions() } else { Vec::new() };
        let delivered = std::mem::take(&mut queue.delivered);
        // It does not wait, whatever it was woken by: until it does, nobody else may write.
        queue.writer = None;
        Poll::Ready(Taken { behind, positions, delivered, unwritten: false, farewell })
    }

    /// Notes how far a subscription was read from the log.
    pub(super) fn advance(&self, key: DeliveryKey, cursor: Cursor, publications: u64) {
        let mut queue = self.queue();
        queue.delivered += publications;
        if let Some(delivery) = queue.deliveries.get(key) {
            delivery.cursor = cursor;
        }
    }

    /// A subscription that was read from the log and is not at the end yet. Its turn comes again; if the log had
    /// `nothing`, only once something came.
    pub(super) fn still_behind(&self, key: DeliveryKey, nothing: bool) {
        self.queue().deliveries.still_behind(key, nothing);
    }

    /// Whether the client was told that it lags, and so has to be told that it no longer does.
    pub(super) fn take_lag_told(&self, key: DeliveryKey) -> bool {
        self.queue().deliveries.take_lag_told(key)
    }

    /// What is queued is still written, then the connection ends. The first reason holds.
    pub(crate) fn close(&self, farewell: Farewell) {
        let mut queue = self.queue();
        queue.farewell.get_or_insert(farewell);
        queue.wake_reader();
        ring(queue);
    }

    /// The log could not be read for this subscription.
    pub(super) fn fail(&self, key: DeliveryKey) {
        let mut queue = self.queue();
        let Some(failed) = queue.deliveries.fail(key) else { return };
        queue.failed.push(failed);
        queue.wake_reader();
    }

    pub(super) fn take_failed(&self) -> Vec<ChannelName> {
        std::mem::take(&mut self.queue().failed)
    }

    /// A right of the session may be gone: it looks, before it reads another command.
    pub(crate) fn ask_recheck(&self, recheck: &Recheck) {
        let mut queue = self.queue();
        queue.recheck.get_or_insert_default().add(recheck);
        queue.wake_reader();
    }

    /// A directory that is away, or has too much to do, did not say: another look, later.
    pub(super) fn note_unsure(&self) {
        self.queue().unsure = true;
    }

    /// It may be able to say now.
    pub(crate) fn ask_unsure(&self) {
        let mut queue = self.queue();
        if std::mem::take(&mut queue.unsure) {
            queue.recheck.get_or_insert_default().add(&Recheck::Everything);
            queue.wake_reader();
        }
    }

    pub(super) fn take_rechecks(&self) -> Option<Box<Rechecks>> {
        self.queue().recheck.take()
    }

    /// Waits until the session has to look: this is closed, a subscription failed, or a right may be gone. Cancel safe.
    pub(super) async fn attention(&self) {
        self.reader_waits(Queue::wants_attention).await;
    }

    /// Waits until somebody closes this. Cancel safe.
    pub(super) async fn closing(&self) {
        self.reader_waits(|queue| queue.farewell.is_some()).await;
    }

    pub(super) fn farewell(&self) -> Option<Farewell> {
        self.queue().farewell.clone()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing side has something to look at.
fn ring(mut queue: MutexGuard<'_, Queue>) {
    queue.rung = true;
    let writer = queue.writer.take();
    drop(queue);
    if let Some(writer) = writer {
        writer.wake();
    }
}

fn register(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

impl Queue {
    fn wants_attention(&self) -> bool {
        self.farewell.is_some() || !self.failed.is_empty() || self.recheck.is_some()
    }

    fn has_room(&self) -> bool {
        self.answers.len() < ANSWERS_CAPACITY
    }

    /// There is room again, or something to look after.
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn forget_resuming(&mut self, channel: &ChannelName) {
        self.resuming.remove(channel);
        if self.resuming.is_empty() {
            // An empty one keeps a node.
            self.resuming = BTreeMap::new();
        }
    }

    /// Of what is empty.
    fn let_go(&mut self) {
        self.answers = VecDeque::new();
        self.events = VecDeque::new();
        self.messages = VecDeque::new();
        if self.live.capacity() > IDLE_ROOM {
            self.live = VecDeque::new();
        }
        self.deliveries.let_go();
    }

    fn positions(&self) -> Vec<(ChannelName, Option<Cursor>)> {
        self.deliveries.positions().chain(self.resuming.clone()).collect()
    }

    /// Takes all that is to be written, in its order, up to what one write bears.
    fn take_all(&mut self, codec: Codec, batch: &mut Vec<Outgoing>) {
        let control = |bytes| Outgoing { bytes, lane: Lane::Control };
        if !self.answers.is_empty() {
            batch.extend(self.answers.drain(..));
            self.wake_reader();
        }
        batch.extend(self.events.drain(..).map(control));
        batch.extend(self.messages.drain(..).map(|message| control(message.bytes(codec))));
        batch.extend(self.live.drain(..));
        self.live_bytes = 0;
        if self.farewell.is_none() {
            self.delivered += self.deliveries.take_frames(codec, batch);
        }
    }
}
