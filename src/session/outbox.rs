//! The outbox is what waits to be written to one connection, and it is bounded. A subscription whose publications
//! no longer fit is not thrown out: it takes its frames from the channel, which keeps the newest once for all; and who
//! is too slow for that falls behind, and is read from the log as fast as the client takes it, until it stands where
//! the channel stands. The log is the slow client's buffer.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use slab::Slab;
use xpush_protocol::{ChannelName, Codec, Cursor, Lag, ServerFrame};
use xpush_transports::{Farewell, Lane, Outgoing};

use super::{
    courier::Carrier,
    recheck::{Recheck, Rechecks},
};
use crate::channel::{Channel, Encoded, SubscriberKey, Took};

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

/// A subscription's place in its session's outbox. Never used twice: what is still under way for an ended subscription
/// must not touch the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryKey {
    place: usize,
    /// A place is used again, a number is not.
    number: u64,
}

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
    /// Something came since the writing side looked.
    rung: bool,
    carried: Carried,
    /// Frames that the wire did not take from the courier, be it none: the writing side goes on with them.
    left: Option<Vec<Outgoing>>,
    /// Of the writing side, while it waits.
    writer: Option<Waker>,
    /// Of the reading side, while it waits for room for answers, or for something to look after.
    reader: Option<Waker>,
    answers: VecDeque<Outgoing>,
    events: VecDeque<Bytes>,
    messages: VecDeque<Arc<Encoded>>,
    live: VecDeque<Outgoing>,
    live_bytes: usize,
    deliveries: Slab<Place>,
    numbers: u64,
    /// Subscriptions that the client brought with it, or asked for, and that have not begun: its state must not lose them.
    resuming: BTreeMap<ChannelName, Option<Cursor>>,
    /// They take their frames from their channels, in turn.
    taking: VecDeque<DeliveryKey>,
    /// To be read from the log, in turn.
    behind: VecDeque<DeliveryKey>,
    /// Behind too, but the log had no more the last time: they are read again once something came.
    waiting: VecDeque<DeliveryKey>,
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

/// What a courier has to do with an outbox.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Carried {
    #[default]
    Not,
    /// One will come by.
    Called,
    /// One is writing: nothing may overtake it.
    Now,
}

/// Of a subscription, from its beginning to its end.
struct Place {
    number: u64,
    /// `None`: the log is still asked where it begins.
    delivery: Option<Delivery>,
}

/// How far one subscription got.
struct Delivery {
    channel: Arc<Channel>,
    /// Its place in the channel.
    subscriber: SubscriberKey,
    /// Behind the last publication that was queued for the wire.
    cursor: Cursor,
    pace: Pace,
    /// The client was told that it lags, and is to be told when it doesn't.
    lag_told: bool,
    /// It was live once: from here on falling behind is news.
    was_live: bool,
}

/// How a delivery gets what is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// From the log.
    Behind,
    /// Out of the channel's frames: it is in `taking`.
    Taking,
    /// As it is handed out.
    Live,
}

/// What was taken out of an outbox.
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

    /// This wire can be written to by a courier.
    pub(super) fn carried_by(&self, carrier: Carrier) {
        let _ = self.carrier.set(carrier);
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
        let Some(delivery) = delivery(&mut queue.deliveries, key) else { return };
        match delivery.pace {
            Pace::Live => {}
            // It began to since the channel looked. The writing side was rung for what is there, and looks until it has
            // all.
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
            delivery.channel.frames().begin(delivery.subscriber, cursor, frame);
            delivery.pace = Pace::Taking;
            queue.taking.push_back(key);
        } else {
            delivery.cursor = cursor;
            queue.live_bytes += bytes.len();
            queue.live.push_back(Outgoing { bytes, lane: delivery.channel.lane() });
            queue.delivered += 1;
        }
        self.call(guard);
    }

    /// There is something to write, and nothing else to do: a courier can.
    fn call(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        match (queue.carried, self.carrier.get()) {
            // Where it does not wait, the writing side looks by itself.
            (Carried::Not, Some(carrier)) if queue.writer.is_some() => {
                queue.carried = Carried::Called;
                drop(queue);
                carrier.call(Arc::clone(self));
            }
            (Carried::Called, _) => {}
            (Carried::Now, _) => queue.rung = true,
            (Carried::Not, _) => ring(queue),
        }
    }

    /// What a courier does who comes by: it writes what waits, if the writing side does not. `frames` is empty, and is
    /// again. Gives how many publications that were, for the metrics.
    pub(super) fn carry(self: &Arc<Self>, frames: &mut Vec<Outgoing>) -> u64 {
        let Some(carrier) = self.carrier.get() else { return 0 };
        let mut queue = self.queue();
        queue.carried = Carried::Not;
        if queue.writer.is_none() {
            return 0;
        }
        queue.take_all(self.codec, frames);
        // Which of them has to be read from the log was found only now.
        queue.rung |= !queue.behind.is_empty();
        queue.let_go();
        let delivered = std::mem::take(&mut queue.delivered);
        if frames.is_empty() {
            // The writing side was here meanwhile.
            if queue.rung {
                ring(queue);
            }
            return delivered;
        }
        queue.carried = Carried::Now;
        drop(queue);
        let mut carrying = Carrying { outbox: self, frames, written: false };
        carrying.written = carrier.wire().try_write(carrying.frames);
        delivered
    }

    /// The courier that was called does not come.
    pub(super) fn not_carried(&self) {
        let mut queue = self.queue();
        queue.carried = Carried::Not;
        ring(queue);
    }

    /// A subscription that stands here takes its frames from the channel, if they are there.
    pub(super) fn take_frames(&self, key: DeliveryKey, at: Cursor) -> bool {
        let mut queue = self.queue();
        let queue = &mut *queue;
        let Some(delivery) = delivery(&mut queue.deliveries, key) else { return false };
        let may = delivery.pace == Pace::Behind && delivery.channel.frames().join(delivery.subscriber, at);
        if may {
            (delivery.pace, delivery.was_live) = (Pace::Taking, true);
            queue.taking.push_back(key);
        }
        may
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
        let mut queue = self.queue();
        queue.numbers += 1;
        let number = queue.numbers;
        if queue.deliveries.is_empty() {
            // Most sessions have one subscription, or a few.
            queue.deliveries.reserve_exact(1);
        }
        DeliveryKey { place: queue.deliveries.insert(Place { number, delivery: None }), number }
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
        if let Some(place) = place(&mut queue.deliveries, key) {
            let (pace, lag_told, was_live) = (Pace::Behind, false, false);
            place.delivery = Some(Delivery { channel, subscriber, cursor, pace, lag_told, was_live });
            queue.behind.push_back(key);
        }
        ring(queue);
    }

    pub(super) fn end(&self, key: DeliveryKey) {
        let mut queue = self.queue();
        if place(&mut queue.deliveries, key).is_some() {
            let ended = queue.deliveries.remove(key.place);
            if let Some(Delivery { channel, subscriber, pace: Pace::Taking, .. }) = ended.delivery {
                channel.frames().leave(subscriber);
            }
            queue.taking.retain(|taking| *taking != key);
            queue.behind.retain(|behind| *behind != key);
            queue.waiting.retain(|waiting| *waiting != key);
        }
    }

    /// Called by the channel, under its lock.
    pub(crate) fn go_live(&self, key: DeliveryKey) {
        if let Some(delivery) = delivery(&mut self.queue().deliveries, key) {
            delivery.pace = Pace::Live;
            delivery.was_live = true;
        }
    }

    /// What the channel has to say can't be handed out in order: read it from the log. One that is behind already may
    /// have found nothing there the last time.
    pub(crate) fn fall_behind(&self, key: DeliveryKey) {
        let mut guard = self.queue();
        let queue = &mut *guard;
        if let Some(delivery) = delivery(&mut queue.deliveries, key)
            && delivery.pace != Pace::Behind
        {
            if delivery.pace == Pace::Taking {
                delivery.channel.frames().leave(delivery.subscriber);
                queue.taking.retain(|taking| *taking != key);
            }
            delivery.pace = Pace::Behind;
            queue.behind.push_back(key);
        }
        ring(guard);
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
        if std::mem::take(&mut queue.rung) {
            queue.behind.append(&mut queue.waiting);
        }
        let left = queue.left.take();
        let unwritten = left.is_some();
        batch.extend(left.into_iter().flatten());
        queue.take_all(self.codec, batch);
        // Who is told goodbye gets what waits for it, and no more: the log is there for its next connection.
        let behind = if queue.farewell.is_none() { queue.next_behind() } else { None };
        let nothing = batch.is_empty() && !unwritten;
        let farewell = if nothing { queue.farewell.clone() } else { None };
        if nothing && behind.is_none() && farewell.is_none() {
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
        Poll::Ready(Taken { behind, positions, delivered, unwritten, farewell })
    }

    /// Notes how far a subscription was read from the log.
    pub(super) fn advance(&self, key: DeliveryKey, cursor: Cursor, publications: u64) {
        let mut queue = self.queue();
        queue.delivered += publications;
        if let Some(delivery) = delivery(&mut queue.deliveries, key) {
            delivery.cursor = cursor;
        }
    }

    /// A subscription that was read from the log and is not at the end yet. Its turn comes again; if the log had
    /// `nothing`, only once something came.
    pub(super) fn still_behind(&self, key: DeliveryKey, nothing: bool) {
        let mut queue = self.queue();
        let line = if nothing { &mut queue.waiting } else { &mut queue.behind };
        line.push_back(key);
    }

    /// Whether the client was told that it lags, and so has to be told that it no longer does.
    pub(super) fn take_lag_told(&self, key: DeliveryKey) -> bool {
        let mut queue = self.queue();
        let delivery = delivery(&mut queue.deliveries, key);
        delivery.is_some_and(|delivery| std::mem::take(&mut delivery.lag_told))
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
        let Some(failed) = place(&mut queue.deliveries, key).and_then(|place| place.delivery.take()) else {
            return;
        };
        queue.failed.push(failed.channel.name().clone());
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

/// A courier is writing. Whether it can or panics, the writing side has its turn afterwards.
struct Carrying<'a> {
    outbox: &'a Arc<Outbox>,
    frames: &'a mut Vec<Outgoing>,
    /// The wire took all of it.
    written: bool,
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        let mut queue = self.outbox.queue();
        queue.carried = Carried::Not;
        if !self.written {
            queue.left = Some(std::mem::take(self.frames));
        }
        if !self.written || queue.rung {
            ring(queue);
        } else if !queue.taking.is_empty() {
            // There was more than one write bears.
            self.outbox.call(queue);
        }
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

/// `None`: its subscription ended.
fn place(places: &mut Slab<Place>, key: DeliveryKey) -> Option<&mut Place> {
    places.get_mut(key.place).filter(|place| place.number == key.number)
}

/// `None`: its subscription ended, or has not begun.
fn delivery(places: &mut Slab<Place>, key: DeliveryKey) -> Option<&mut Delivery> {
    place(places, key).and_then(|place| place.delivery.as_mut())
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
    }

    fn positions(&self) -> Vec<(ChannelName, Option<Cursor>)> {
        let begun = self.deliveries.iter().filter_map(|(_, place)| place.delivery.as_ref());
        let begun = begun.map(|delivery| (delivery.channel.name().clone(), Some(delivery.cursor)));
        begun.chain(self.resuming.clone()).collect()
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
            self.take_frames(codec, batch);
        }
    }

    /// Takes frames out of the channels, of one subscription after the other.
    fn take_frames(&mut self, codec: Codec, batch: &mut Vec<Outgoing>) {
        let mut room = TAKE_BYTES;
        while room > 0
            && let Some(key) = self.taking.pop_front()
        {
            let Some(delivery) = delivery(&mut self.deliveries, key) else { continue };
            let Delivery { channel, subscriber, cursor, .. } = delivery;
            let before = batch.len();
            let took = channel.frames().take(*subscriber, cursor, codec, channel.lane(), &mut room, batch);
            self.delivered += (batch.len() - before) as u64;
            match took {
                Took::Some => self.taking.push_back(key),
                Took::All => {
                    delivery.pace = Pace::Live;
                    if std::mem::take(&mut delivery.lag_told) {
                        let lag = Lag { channel: channel.name().clone(), behind: 0 };
                        let bytes = codec.encode(&ServerFrame::Lag(lag));
                        batch.push(Outgoing { bytes, lane: Lane::Control });
                    }
                }
                Took::Gone => {
                    delivery.pace = Pace::Behind;
                    self.behind.push_back(key);
                }
            }
        }
        if self.taking.is_empty() && self.taking.capacity() > 0 {
            self.taking = VecDeque::new();
        }
    }

    fn next_behind(&mut self) -> Option<Behind> {
        while let Some(key) = self.behind.pop_front() {
            if let Some(delivery) = delivery(&mut self.deliveries, key) {
                let tell = delivery.was_live && !delivery.lag_told;
                delivery.lag_told |= tell;
                let (channel, cursor) = (Arc::clone(&delivery.channel), delivery.cursor);
                return Some(Behind { key, channel, cursor, tell });
            }
        }
        None
    }
}
