//! How far each subscription of a session got, and how it gets what is next: as it is handed out, out of its channel's
//! frames, or from the log.

use std::{collections::VecDeque, sync::Arc};

use slab::Slab;
use xpush_protocol::{ChannelName, Codec, Cursor, Lag, ServerFrame};
use xpush_transports::{Lane, Outgoing};

use super::{Behind, TAKE_BYTES};
use crate::channel::{Channel, Encoded, SubscriberKey, Took};

/// A subscription's place in its session's outbox. Never used twice: what is still under way for an ended subscription
/// must not touch the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryKey {
    place: usize,
    /// A place is used again, a number is not.
    number: u64,
}

/// The subscriptions of a session.
#[derive(Default)]
pub(super) struct Deliveries {
    places: Slab<Place>,
    numbers: u64,
    /// Those that have to do something for what is next. `None`: nobody has to, as most of the time.
    lines: Option<Box<Lines>>,
}

#[derive(Default)]
struct Lines {
    /// They take their frames from their channels, in turn.
    taking: VecDeque<DeliveryKey>,
    /// To be read from the log, in turn.
    behind: VecDeque<DeliveryKey>,
    /// Behind too, but the log had no more the last time: they are read again once something came.
    waiting: VecDeque<DeliveryKey>,
}

/// Of a subscription, from its beginning to its end.
struct Place {
    number: u64,
    /// `None`: the log is still asked where it begins.
    delivery: Option<Delivery>,
}

/// How far one subscription got.
pub(super) struct Delivery {
    channel: Arc<Channel>,
    /// Its place in the channel.
    subscriber: SubscriberKey,
    /// Behind the last publication that was queued for the wire.
    pub(super) cursor: Cursor,
    pub(super) pace: Pace,
    /// The client was told that it lags, and is to be told when it doesn't.
    lag_told: bool,
    /// It was live once: from here on falling behind is news.
    was_live: bool,
}

/// How a delivery gets what is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// From the log.
    Behind,
    /// Out of the channel's frames: it is in `taking`.
    Taking,
    /// As it is handed out.
    Live,
}

impl Delivery {
    pub(super) fn lane(&self) -> Lane {
        self.channel.lane()
    }
}

impl Deliveries {
    pub(super) fn reserve(&mut self) -> DeliveryKey {
        self.numbers += 1;
        let number = self.numbers;
        if self.places.is_empty() {
            // Most sessions have one subscription, or a few.
            self.places.reserve_exact(1);
        }
        DeliveryKey { place: self.places.insert(Place { number, delivery: None }), number }
    }

    /// It begins behind `cursor`, with what the log has.
    pub(super) fn begin(
        &mut self,
        key: DeliveryKey,
        channel: Arc<Channel>,
        subscriber: SubscriberKey,
        cursor: Cursor,
    ) {
        if let Some(place) = self.place(key) {
            let (pace, lag_told, was_live) = (Pace::Behind, false, false);
            place.delivery = Some(Delivery { channel, subscriber, cursor, pace, lag_told, was_live });
            self.lines().behind.push_back(key);
        }
    }

    pub(super) fn end(&mut self, key: DeliveryKey) {
        if self.place(key).is_some() {
            let ended = self.places.remove(key.place);
            if let Some(Delivery { channel, subscriber, pace: Pace::Taking, .. }) = ended.delivery {
                channel.frames().leave(subscriber);
            }
            if let Some(lines) = &mut self.lines {
                for line in [&mut lines.taking, &mut lines.behind, &mut lines.waiting] {
                    line.retain(|waiting| *waiting != key);
                }
            }
        }
    }

    /// The log could not be read for it. Gives its channel.
    pub(super) fn fail(&mut self, key: DeliveryKey) -> Option<ChannelName> {
        let failed = self.place(key)?.delivery.take()?;
        Some(failed.channel.name().clone())
    }

    /// `None`: its subscription ended, or has not begun.
    pub(super) fn get(&mut self, key: DeliveryKey) -> Option<&mut Delivery> {
        self.place(key).and_then(|place| place.delivery.as_mut())
    }

    /// `None`: its subscription ended.
    fn place(&mut self, key: DeliveryKey) -> Option<&mut Place> {
        self.places.get_mut(key.place).filter(|place| place.number == key.number)
    }

    fn lines(&mut self) -> &mut Lines {
        self.lines.get_or_insert_default()
    }

    pub(super) fn go_live(&mut self, key: DeliveryKey) {
        if let Some(delivery) = self.get(key) {
            (delivery.pace, delivery.was_live) = (Pace::Live, true);
        }
    }

    /// It takes its frames from its channel, this one being the first.
    pub(super) fn begin_to_take(&mut self, key: DeliveryKey, at: Cursor, first: &Arc<Encoded>) {
        if let Some(delivery) = self.get(key) {
            delivery.channel.frames().begin(delivery.subscriber, at, first);
            delivery.pace = Pace::Taking;
            self.lines().taking.push_back(key);
        }
    }

    /// One that is behind and stands here takes its frames from its channel, if they are there.
    pub(super) fn join_those_who_take(&mut self, key: DeliveryKey, at: Cursor) -> bool {
        let Some(delivery) = self.get(key) else { return false };
        let may = delivery.pace == Pace::Behind && delivery.channel.frames().join(delivery.subscriber, at);
        if may {
            (delivery.pace, delivery.was_live) = (Pace::Taking, true);
            self.lines().taking.push_back(key);
        }
        may
    }

    pub(super) fn fall_behind(&mut self, key: DeliveryKey) {
        let Some(delivery) = self.get(key) else { return };
        let before = std::mem::replace(&mut delivery.pace, Pace::Behind);
        if before == Pace::Taking {
            delivery.channel.frames().leave(delivery.subscriber);
            self.lines().taking.retain(|taking| *taking != key);
        }
        if before != Pace::Behind {
            self.lines().behind.push_back(key);
        }
    }

    /// It was read from the log, and is not at the end yet. Its turn comes again; if the log had `nothing`, only once
    /// something came.
    pub(super) fn still_behind(&mut self, key: DeliveryKey, nothing: bool) {
        let lines = self.lines();
        let line = if nothing { &mut lines.waiting } else { &mut lines.behind };
        line.push_back(key);
    }

    /// For those for whom the log had nothing.
    pub(super) fn something_came(&mut self) {
        if let Some(lines) = &mut self.lines {
            lines.behind.append(&mut lines.waiting);
        }
    }

    /// Whether somebody has frames to take.
    pub(super) fn are_taking(&self) -> bool {
        self.lines.as_ref().is_some_and(|lines| !lines.taking.is_empty())
    }

    /// Whether somebody has to be read from the log, now that something came.
    pub(super) fn need_the_log(&self) -> bool {
        self.lines.as_ref().is_some_and(|lines| !lines.behind.is_empty() || !lines.waiting.is_empty())
    }

    /// Takes frames out of the channels, of one subscription after the other. Gives how many.
    pub(super) fn take_frames(&mut self, codec: Codec, batch: &mut Vec<Outgoing>) -> u64 {
        let (mut room, mut taken) = (TAKE_BYTES, 0);
        while room > 0
            && let Some(key) = self.lines.as_mut().and_then(|lines| lines.taking.pop_front())
        {
            let Some(delivery) = self.get(key) else { continue };
            let Delivery { channel, subscriber, cursor, .. } = delivery;
            let before = batch.len();
            let took = channel.frames().take(*subscriber, cursor, codec, channel.lane(), &mut room, batch);
            taken += (batch.len() - before) as u64;
            match took {
                Took::Some => self.lines().taking.push_back(key),
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
                    self.lines().behind.push_back(key);
                }
            }
        }
        taken
    }

    pub(super) fn next_behind(&mut self) -> Option<Behind> {
        while let Some(key) = self.lines.as_mut()?.behind.pop_front() {
            if let Some(delivery) = self.get(key) {
                let tell = delivery.was_live && !delivery.lag_told;
                delivery.lag_told |= tell;
                let (channel, cursor) = (Arc::clone(&delivery.channel), delivery.cursor);
                return Some(Behind { key, channel, cursor, tell });
            }
        }
        None
    }

    /// Whether the client was told that it lags, and so has to be told that it no longer does.
    pub(super) fn take_lag_told(&mut self, key: DeliveryKey) -> bool {
        self.get(key).is_some_and(|delivery| std::mem::take(&mut delivery.lag_told))
    }

    /// Where each that has begun stands.
    pub(super) fn positions(&self) -> impl Iterator<Item = (ChannelName, Option<Cursor>)> {
        let begun = self.places.iter().filter_map(|(_, place)| place.delivery.as_ref());
        begun.map(|delivery| (delivery.channel.name().clone(), Some(delivery.cursor)))
    }

    /// Nobody keeps a busy hour's memory through a quiet night.
    pub(super) fn let_go(&mut self) {
        let are_empty = |lines: &mut Box<Lines>| {
            lines.taking.is_empty() && lines.behind.is_empty() && lines.waiting.is_empty()
        };
        self.lines.take_if(|lines| are_empty(lines));
    }
}
