//! The newest frames of a channel for those who don't keep up with it for a moment: encoded once, and taken from here
//! by each in turn, as many at a time as one write bears. A queue for each of them would hold the same frames a
//! thousand times.
//!
//! A channel keeps frames only while somebody takes them. Whoever reads so slowly that they are gone before they are
//! taken reads on from the log.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use xpush_protocol::{Codec, Cursor, Epoch};
use xpush_transports::{Lane, Outgoing};

use super::{Encoded, SubscriberKey, ring::Memory};

/// Of one channel.
const FRAMES: usize = 1024;
/// And their bytes.
const BYTES: usize = 256 * 1024;
/// Of all channels of a node: a channel that would need more keeps less.
const MEMORY: usize = 64 * 1024 * 1024;
/// What a frame takes beside its payload, roughly.
const FRAME_BYTES: usize = 128;

/// Locked after everything else, and never for long.
pub(crate) struct Frames(Mutex<Kept>);

struct Kept {
    epoch: Epoch,
    /// Of the last frame.
    top: u64,
    /// Without a hole between them.
    frames: VecDeque<Frame>,
    bytes: usize,
    /// The subscribers that take frames from here.
    takers: Takers,
    /// No taker is further than this.
    taken: u64,
    memory: Memory,
}

/// Subscribers of the channel, a bit each: a publication that passes a thousand of them asks nobody whether it takes.
#[derive(Default)]
pub(super) struct Takers {
    count: usize,
    bits: Vec<u64>,
}

struct Frame {
    encoded: Arc<Encoded>,
    size: usize,
}

/// What a delivery found here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Took {
    /// There is more.
    Some,
    /// It stands where the channel stands, and takes no more from here.
    All,
    /// What it needs is gone, and it takes no more from here.
    Gone,
}

impl Frames {
    pub(super) fn new(memory: Memory) -> Self {
        let frames = VecDeque::new();
        let takers = Takers::default();
        Self(Mutex::new(Kept { epoch: Epoch(0), top: 0, frames, bytes: 0, takers, taken: 0, memory }))
    }

    /// The next frame of the channel, if somebody takes from here. Gives who does, and so needs not be told of it: it
    /// ends to take only once it has this frame, or misses one and reads the log.
    pub(super) fn note(&self, at: Cursor, encoded: &Arc<Encoded>, takers: &mut Takers) {
        let mut kept = self.kept();
        // Nothing is kept for takers of whom each has missed something.
        if !kept.frames.is_empty() {
            kept.push(at, encoded);
        }
        takers.copy(&kept.takers);
    }

    /// A delivery takes its frames from here, this one being the first.
    pub(crate) fn begin(&self, taker: SubscriberKey, at: Cursor, encoded: &Arc<Encoded>) {
        let mut kept = self.kept();
        kept.takers.add(taker);
        kept.push(at, encoded);
        kept.taken = kept.taken.max(at.offset - 1);
    }

    /// A delivery that stands here takes its frames from here, if those behind it are here.
    pub(crate) fn join(&self, taker: SubscriberKey, at: Cursor) -> bool {
        let mut kept = self.kept();
        let is_here = kept.behind(at).is_some();
        if is_here {
            kept.takers.add(taker);
            kept.taken = kept.taken.max(at.offset);
        }
        is_here
    }

    /// A delivery takes no more from here.
    pub(crate) fn leave(&self, taker: SubscriberKey) {
        self.kept().leave(taker);
    }

    /// Takes frames behind a cursor, and moves it. `room`: bytes that may still be taken; one frame is, however large.
    pub(crate) fn take(
        &self,
        taker: SubscriberKey,
        cursor: &mut Cursor,
        codec: Codec,
        lane: Lane,
        room: &mut usize,
        batch: &mut Vec<Outgoing>,
    ) -> Took {
        let mut kept = self.kept();
        let Some(behind) = kept.behind(*cursor) else {
            kept.leave(taker);
            return Took::Gone;
        };
        for frame in kept.frames.range(behind..) {
            if *room == 0 {
                break;
            }
            let bytes = frame.encoded.bytes(codec);
            *room = room.saturating_sub(bytes.len());
            cursor.offset += 1;
            batch.push(Outgoing { bytes, lane });
        }
        kept.taken = kept.taken.max(cursor.offset);
        if cursor.offset < kept.top {
            return Took::Some;
        }
        kept.leave(taker);
        Took::All
    }

    /// A message was deleted: it is not handed out from here any more.
    pub(super) fn redact(&self, offset: u64) {
        let mut kept = self.kept();
        let at = offset.checked_sub(kept.first()).and_then(|at| usize::try_from(at).ok());
        let Some(frame) = at.and_then(|at| kept.frames.get_mut(at)) else { return };
        if let Some(left) = frame.encoded.redacted() {
            frame.encoded = Arc::new(left);
        }
    }

    /// The channel began anew.
    pub(super) fn clear(&self) {
        self.kept().clear();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Takers {
    pub(super) fn contains(&self, SubscriberKey(place): SubscriberKey) -> bool {
        self.count > 0 && self.bits.get(place / 64).is_some_and(|bits| bits & (1 << (place % 64)) != 0)
    }

    fn add(&mut self, SubscriberKey(place): SubscriberKey) {
        if self.bits.len() <= place / 64 {
            self.bits.resize(place / 64 + 1, 0);
        }
        self.bits[place / 64] |= 1 << (place % 64);
        self.count += 1;
    }

    fn remove(&mut self, SubscriberKey(place): SubscriberKey) {
        self.bits[place / 64] &= !(1 << (place % 64));
        self.count -= 1;
    }

    fn copy(&mut self, of: &Self) {
        self.count = of.count;
        self.bits.clear();
        self.bits.extend_from_slice(&of.bits);
    }
}

impl Kept {
    fn first(&self) -> u64 {
        self.top + 1 - self.frames.len() as u64
    }

    /// The place of the first frame behind this cursor; `None` if it is not here. Who stands at the top needs none.
    fn behind(&self, at: Cursor) -> Option<usize> {
        if self.frames.is_empty() || at.epoch != self.epoch || at.offset > self.top {
            return None;
        }
        usize::try_from((at.offset + 1).checked_sub(self.first())?).ok()
    }

    fn push(&mut self, at: Cursor, encoded: &Arc<Encoded>) {
        if !self.frames.is_empty() && at.epoch == self.epoch && at.offset <= self.top {
            return;
        }
        if self.frames.is_empty() || at.epoch != self.epoch || at.offset != self.top + 1 {
            self.clear();
            self.taken = at.offset - 1;
        }
        let size = FRAME_BYTES + encoded.payload_len();
        (self.epoch, self.top) = (at.epoch, at.offset);
        self.frames.push_back(Frame { encoded: Arc::clone(encoded), size });
        self.bytes += size;
        self.memory.0.fetch_add(size, Ordering::Relaxed);
        // The newest stays: whoever begins with it has to find it.
        while self.frames.len() > 1
            && (self.frames.len() > FRAMES
                || self.bytes > BYTES
                || self.memory.0.load(Ordering::Relaxed) > MEMORY)
        {
            self.drop_oldest();
        }
        if self.first() > self.taken + 1 {
            self.clear();
        }
    }

    fn leave(&mut self, taker: SubscriberKey) {
        self.takers.remove(taker);
        if self.takers.count == 0 {
            self.clear();
            self.frames = VecDeque::new();
            self.takers = Takers::default();
        }
    }

    fn clear(&mut self) {
        while !self.frames.is_empty() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.frames.pop_front() {
            self.bytes -= oldest.size;
            self.memory.0.fetch_sub(oldest.size, Ordering::Relaxed);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.clear();
    }
}
