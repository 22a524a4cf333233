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

use super::{Encoded, ring::Memory};

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
    /// Deliveries that take frames from here.
    takers: usize,
    /// No taker is further than this.
    taken: u64,
    memory: Memory,
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
        Self(Mutex::new(Kept { epoch: Epoch(0), top: 0, frames, bytes: 0, takers: 0, taken: 0, memory }))
    }

    /// The next frame of the channel, if somebody takes from here.
    pub(super) fn note(&self, at: Cursor, encoded: &Arc<Encoded>) {
        let mut kept = self.kept();
        // Nothing is kept for takers of whom each has missed something.
        if !kept.frames.is_empty() {
            kept.push(at, encoded);
        }
    }

    /// A delivery takes its frames from here, this one being the first.
    pub(crate) fn begin(&self, at: Cursor, encoded: &Arc<Encoded>) {
        let mut kept = self.kept();
        kept.takers += 1;
        kept.push(at, encoded);
        kept.taken = kept.taken.max(at.offset - 1);
    }

    /// A delivery that stands here takes its frames from here, if those behind it are here.
    pub(crate) fn join(&self, at: Cursor) -> bool {
        let mut kept = self.kept();
        let is_here = kept.behind(at).is_some();
        if is_here {
            kept.takers += 1;
            kept.taken = kept.taken.max(at.offset);
        }
        is_here
    }

    /// A delivery takes no more from here.
    pub(crate) fn leave(&self) {
        self.kept().leave();
    }

    /// Takes frames behind a cursor, and moves it. `room`: bytes that may still be taken; one frame is, however large.
    pub(crate) fn take(
        &self,
        cursor: &mut Cursor,
        codec: Codec,
        lane: Lane,
        room: &mut usize,
        batch: &mut Vec<Outgoing>,
    ) -> Took {
        let mut kept = self.kept();
        let Some(behind) = kept.behind(*cursor) else {
            kept.leave();
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
        kept.leave();
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

    fn leave(&mut self) {
        self.takers -= 1;
        if self.takers == 0 {
            self.clear();
            self.frames = VecDeque::new();
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
