//! A channel is a named ordered stream and its local subscribers.
//!
//! The log gave each publication its place; a channel only sees to it that every subscriber gets them in that
//! order and without a hole, whatever order they arrive in here. What can't be handed out in order is not handed
//! out: a subscriber that is behind reads on from the log (`session::outbox`).

mod encoded;
mod frames;
mod ring;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use slab::Slab;
use tokio::{sync::OnceCell, time::Instant};
use xpush_protocol::{ChannelName, Cursor, Epoch, ServerFrame};
use xpush_transports::Lane;

pub use encoded::Encoded;
pub(crate) use frames::{Frames, Took};
pub use table::Channels;
pub(crate) use table::PRESENCE_EVENTS_LIMIT;

use self::{
    frames::Takers,
    ring::{Memory, Ring},
};
use crate::{
    log::{Extent, From, Log, LogError, Page, Query},
    namespace::{Policy, Retention},
    publication::Publication,
    session::{DeliveryKey, Outbox, Recheck, now},
};

/// Publications that came before their turn and wait for the ones between. Beyond it the newest are dropped: the
/// log has them, and a hole is read from there.
const EARLY_CAPACITY: usize = 1024;

/// How a hole is read from the log: this many publications at a time.
const REPAIR_PAGE: Query = Query { from: From::After(0), limit: 256, bytes: 1 << 20 };

/// What the channels of a node take for publications that were handed out.
#[derive(Clone, Default)]
struct RoomMemory {
    rings: Memory,
    frames: Memory,
}

/// A named ordered stream and its local subscribers.
pub struct Channel {
    name: ChannelName,
    policy: Policy,
    log: Arc<dyn Log>,
    lane: Lane,
    state: Mutex<State>,
    frames: Frames,
    loaded: OnceCell<()>,
}

#[derive(Default)]
struct State {
    /// Behind the last publication that was handed out. `None` until the log was asked.
    delivered: Option<Cursor>,
    /// The last publications that were handed out, up to `delivered`.
    ring: Ring,
    /// The epoch changed while somebody listened: from then on every publication says its own, since the
    /// subscriptions began with different ones.
    epoch_told: bool,
    subscribers: Slab<Subscriber>,
    /// Who takes the frame that is handed out just now. Room that is used again.
    takers: Takers,
    early: BTreeMap<u64, Early>,
    /// Since when `early` waits for a publication that did not come.
    hole_since: Option<Instant>,
    /// The newest of those that `early` had no room for, or that the channel only heard of.
    turned_away: u64,
    /// Something of another epoch came: the log has to say which one holds.
    doubted: bool,
    /// The count that `Occupancy` last told, where the channel is too big for single events.
    pending_occupancy: Option<u32>,
}

impl State {
    fn doubt(&mut self) {
        self.doubted = true;
        self.hole_since.get_or_insert_with(Instant::now);
    }
}

struct Early {
    epoch: Epoch,
    publication: Arc<Publication>,
}

/// One session's place in the fan-out.
struct Subscriber {
    outbox: Arc<Outbox>,
    delivery: DeliveryKey,
    /// Wants joins and leaves.
    presence: bool,
}

/// A subscriber's place, to be given back with `Channel::remove`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriberKey(usize);

impl Channel {
    fn new(name: ChannelName, policy: Policy, log: Arc<dyn Log>, memory: RoomMemory) -> Self {
        let number = lane_number(&name);
        let lane = if policy.retention.is_ephemeral() { Lane::Ephemeral(number) } else { Lane::Live(number) };
        let state = Mutex::new(State { ring: Ring::new(memory.rings), ..State::default() });
        let frames = Frames::new(memory.frames);
        Self { name, policy, log, lane, state, frames, loaded: OnceCell::new() }
    }

    #[must_use]
    pub fn name(&self) -> &ChannelName {
        &self.name
    }

    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    #[must_use]
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// Behind the last publication that was handed out.
    pub async fn delivered(&self) -> Result<Cursor, LogError> {
        self.load().await?;
        // `load` set it; the fallback is a channel that was never written to.
        Ok(self.state().delivered.unwrap_or(Cursor { epoch: Epoch(0), offset: 0 }))
    }

    /// The extent, as far as it matters to who stands at this cursor: from here if nothing is missing here, else from
    /// the log.
    pub(crate) async fn extent_at(&self, cursor: Cursor) -> Result<Extent, LogError> {
        match self.recent(cursor, Query { from: From::After(cursor.offset), limit: 0, bytes: 0 }) {
            Some(page) => Ok(page.extent),
            None => self.log.extent(&self.name).await,
        }
    }

    /// What is behind this cursor, `query.from` being its offset: from here if nothing is missing here, else from the
    /// log.
    pub(crate) async fn read_behind(&self, cursor: Cursor, query: Query) -> Result<Page, LogError> {
        match self.recent(cursor, query) {
            Some(page) => Ok(page),
            None => self.log.read(&self.name, query).await,
        }
    }

    /// What was handed out here lately, if it reaches back to this cursor, and to what is to be kept. Only a durable
    /// log's offsets mean the same for good.
    fn recent(&self, cursor: Cursor, query: Query) -> Option<Page> {
        let Retention::Durable { keep } = self.policy.retention else { return None };
        let state = self.state();
        let delivered = state.delivered?;
        if cursor.epoch != delivered.epoch || cursor.offset > delivered.offset {
            return None;
        }
        let extent = Extent { epoch: delivered.epoch, first: cursor.offset + 1, top: delivered.offset };
        let mut publications = Vec::new();
        if cursor.offset == delivered.offset {
            return Some(Page { extent, publications });
        }
        if keep.count.is_some_and(|count| cursor.offset + count < delivered.offset) {
            return None;
        }
        let mut behind = state.ring.after(cursor.offset)?.peekable();
        if let (Some(age), Some(oldest)) = (keep.age, behind.peek())
            && oldest.time.saturating_add(age.as_millis() as u64) <= now()
        {
            return None;
        }
        let mut room = query.bytes;
        for publication in behind.take(query.limit) {
            let len = publication.payload.len();
            if len > room && !publications.is_empty() {
                break;
            }
            room = room.saturating_sub(len);
            publications.push(Arc::clone(publication));
        }
        Some(Page { extent, publications })
    }

    /// Asks the log where the channel stands. What arrives meanwhile waits in `early`: the channel is in the table
    /// before the log is read, or a publication could fall between.
    async fn load(&self) -> Result<(), LogError> {
        let load = || async {
            let extent = self.log.hold(&self.name).await?;
            let mut state = self.state();
            state.delivered = Some(Cursor { epoch: extent.epoch, offset: extent.top });
            self.hand_out_early(&mut state);
            Ok(())
        };
        self.loaded.get_or_try_init(load).await.copied()
    }

    /// Adds a subscriber whose delivery stands somewhere before the channel's end; it is called live by
    /// `try_go_live` once it has caught up.
    pub(crate) fn add(&self, outbox: &Arc<Outbox>, delivery: DeliveryKey, presence: bool) -> SubscriberKey {
        let subscriber = Subscriber { outbox: Arc::clone(outbox), delivery, presence };
        SubscriberKey(self.state().subscribers.insert(subscriber))
    }

    /// Whether a subscriber is told of joins and leaves.
    pub(crate) fn show_presence(&self, key: SubscriberKey, shown: bool) {
        if let Some(subscriber) = self.state().subscribers.get_mut(key.0) {
            subscriber.presence = shown;
        }
    }

    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.state().subscribers.len()
    }

    pub(crate) fn remove(&self, key: SubscriberKey) {
        self.state().subscribers.try_remove(key.0);
    }

    /// The frames that deliveries which don't keep up take.
    pub(crate) fn frames(&self) -> &Frames {
        &self.frames
    }

    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    /// Calls a delivery live if it stands where the channel stands. Under the channel's lock: nothing can be
    /// handed out between the look and the switch.
    pub(crate) fn try_go_live(&self, outbox: &Outbox, delivery: DeliveryKey, at: Cursor) -> bool {
        let state = self.state();
        let caught_up = state
            .delivered
            .is_some_and(|delivered| delivered.epoch == at.epoch && delivered.offset <= at.offset);
        if caught_up {
            outbox.go_live(delivery);
        }
        caught_up
    }

    /// Takes a publication that the log has, from this node or another, and hands out what is next in line.
    pub fn deliver(&self, epoch: Epoch, publication: &Arc<Publication>) {
        let mut state = self.state();
        let offset = publication.offset;
        match state.delivered {
            Some(delivered) if delivered.epoch == epoch => {
                if offset <= delivered.offset {
                    return;
                }
                if offset == delivered.offset + 1 {
                    self.hand_out(&mut state, epoch, publication);
                    self.hand_out_early(&mut state);
                    return;
                }
            }
            // Of a newer epoch, or late and of an older one: only the log knows.
            Some(_) => {
                state.doubt();
                return;
            }
            None => {}
        }
        if state.early.len() < EARLY_CAPACITY {
            state.early.insert(offset, Early { epoch, publication: Arc::clone(publication) });
        } else {
            state.turned_away = state.turned_away.max(offset);
        }
        state.hole_since.get_or_insert_with(Instant::now);
    }

    /// Takes note that the log has the channel up to here: what is missing did not come, and is read from the log.
    pub fn note_top(&self, top: Cursor) {
        let mut state = self.state();
        match state.delivered {
            Some(delivered) if delivered.epoch != top.epoch => state.doubt(),
            Some(delivered) if delivered.offset < top.offset => {
                state.turned_away = state.turned_away.max(top.offset);
                state.hole_since.get_or_insert_with(Instant::now);
            }
            Some(_) => {}
            // `load` will ask the log.
            None => {}
        }
    }

    /// Reads from the log what did not come, if a hole is older than `patience`. Gives whether one is left.
    pub async fn repair(&self, patience: std::time::Duration) -> Result<bool, LogError> {
        let from = {
            let state = self.state();
            match (state.hole_since, state.delivered) {
                (None, _) => return Ok(false),
                (Some(since), Some(delivered)) if state.doubted || since.elapsed() >= patience => delivered,
                _ => return Ok(true),
            }
        };
        let page = self.log.read(&self.name, Query { from: From::After(from.offset), ..REPAIR_PAGE }).await?;
        let epoch = page.extent.epoch;
        self.state().doubted = false;
        if page.extent.first > from.offset + 1 || epoch != from.epoch {
            // What is missing is gone from the log too: every subscriber finds the same gap when it reads on.
            let mut state = self.state();
            let end = page.extent.first.saturating_sub(1);
            self.change_epoch(&mut state, Cursor { epoch, offset: end });
            // The page was asked for in the numbers of another epoch: what this one has is read next.
            if page.extent.top > end {
                state.turned_away = page.extent.top;
                state.hole_since = Some(Instant::now());
            }
        }
        for publication in &page.publications {
            self.deliver(epoch, publication);
        }
        let mut state = self.state();
        if state.delivered.is_some_and(|at| at.epoch == epoch && at.offset >= page.extent.top) {
            // Whoever spoke of more than the log has will say so again, if it is true.
            state.turned_away = 0;
        }
        self.hand_out_early(&mut state);
        Ok(state.hole_since.is_some())
    }

    /// The channel's rules changed: who is here asks whether it still may be.
    pub(crate) fn recheck(&self) {
        let recheck = Recheck::Channel(self.name.clone());
        for (_, subscriber) in &self.state().subscribers {
            subscriber.outbox.ask_recheck(&recheck);
        }
    }

    /// Tells all subscribers something that is in no log. Who reads too slowly misses it.
    pub(crate) fn tell(&self, frame: &ServerFrame) {
        let encoded = Encoded::new(frame);
        for (_, subscriber) in &self.state().subscribers {
            subscriber.outbox.push_event(&encoded);
        }
    }

    /// Tells the subscribers who may know it that somebody came or went.
    pub(crate) fn tell_presence(&self, frame: &ServerFrame) {
        let encoded = Encoded::new(frame);
        for (_, subscriber) in self.state().subscribers.iter().filter(|(_, s)| s.presence) {
            subscriber.outbox.push_event(&encoded);
        }
    }

    /// Notes the count of a channel that is too big for single events, to be told once a second.
    pub(crate) fn note_occupancy(&self, occupancy: u32) {
        self.state().pending_occupancy = Some(occupancy);
    }

    pub(crate) fn take_occupancy(&self) -> Option<u32> {
        self.state().pending_occupancy.take()
    }

    /// The epoch as a publication read from the log has to say it; `None` where every subscriber knows it.
    pub(crate) fn told_epoch(&self, of_log: Epoch) -> Option<Epoch> {
        let mut state = self.state();
        // The log may tell of the change before the first publication of the new epoch is here.
        state.epoch_told |= state.delivered.is_some_and(|delivered| delivered.epoch != of_log);
        state.epoch_told.then_some(of_log)
    }

    fn is_idle(&self) -> bool {
        self.state().subscribers.is_empty()
    }

    fn hand_out(&self, state: &mut State, epoch: Epoch, publication: &Arc<Publication>) {
        let offset = publication.offset;
        state.delivered = Some(Cursor { epoch, offset });
        if let Some(deleted) = publication.deletes() {
            state.ring.redact(deleted);
            self.frames.redact(deleted);
        }
        if matches!(self.policy.retention, Retention::Durable { .. }) {
            // No other channel's ring is read (`recent`).
            state.ring.push(publication);
        }
        if state.subscribers.is_empty() {
            // Nor is there anybody who takes frames.
            return;
        }
        let told = state.epoch_told.then_some(epoch);
        let encoded = Arc::new(Encoded::publication(self.name.clone(), told, Arc::clone(publication)));
        let at = Cursor { epoch, offset };
        self.frames.note(at, &encoded, &mut state.takers);
        for (place, subscriber) in &state.subscribers {
            if !state.takers.contains(SubscriberKey(place)) {
                subscriber.outbox.push_live(subscriber.delivery, at, &encoded);
            }
        }
    }

    /// Hands out of `early` what is next in line, and drops what is old.
    fn hand_out_early(&self, state: &mut State) {
        while let (Some(delivered), Some(entry)) = (state.delivered, state.early.first_entry()) {
            let next = delivered.offset + 1;
            if entry.get().epoch == delivered.epoch && *entry.key() > next {
                break;
            }
            let (offset, early) = entry.remove_entry();
            if early.epoch == delivered.epoch && offset == next {
                self.hand_out(state, early.epoch, &early.publication);
            }
        }
        let whole = !state.doubted
            && state.early.is_empty()
            && state.delivered.is_some_and(|at| at.offset >= state.turned_away);
        state.hole_since = if whole { None } else { Some(Instant::now()) };
    }

    /// The log lost the channel and began anew, or a part of it: every subscriber has to read on from the log,
    /// where it finds what it missed, or the gap.
    fn change_epoch(&self, state: &mut State, now: Cursor) {
        state.epoch_told |= state.delivered.is_some_and(|before| before.epoch != now.epoch);
        state.delivered = Some(now);
        state.ring.clear();
        self.frames.clear();
        state.early.clear();
        state.turned_away = 0;
        state.doubted = false;
        state.hole_since = None;
        for (_, subscriber) in &state.subscribers {
            subscriber.outbox.fall_behind(subscriber.delivery);
        }
    }

    /// The channel stands there, as the log would have it.
    #[cfg(test)]
    pub(crate) fn begin_at(&self, cursor: Cursor) {
        self.change_epoch(&mut self.state(), cursor);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which of a wire's pooled streams a channel uses.
fn lane_number(name: &ChannelName) -> u32 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() as u32
}
