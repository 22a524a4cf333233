//! Where channels end, as far as this node knows.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use xpush_protocol::ChannelName;

use super::record::Place;

/// The ends of so many channels are remembered, twice: the last used, and those before.
const CACHED_TOPS: usize = 32 * 1024;

/// The newest offsets of the channels that were written to last, as far as a majority has them. Another node may have
/// gone on since; then the next write is refused, and its lane asks again.
#[derive(Default)]
pub(super) struct Tops(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    recent: HashMap<ChannelName, Place>,
    earlier: HashMap<ChannelName, Place>,
}

impl Tops {
    /// Another node said that the channel reaches so far. It is asked for anew rather than believed: a hole would be
    /// for good.
    pub(super) fn told(&self, channel: &ChannelName, offset: u64) {
        let mut tops = self.generations();
        let Generations { recent, earlier } = &mut *tops;
        for generation in [recent, earlier] {
            if generation.get(channel).is_some_and(|top| top.offset < offset) {
                generation.remove(channel);
            }
        }
    }

    pub(super) fn forget(&self) {
        *self.generations() = Generations::default();
    }

    pub(super) fn peek(&self, channel: &ChannelName) -> Option<Place> {
        let tops = self.generations();
        tops.recent.get(channel).or_else(|| tops.earlier.get(channel)).copied()
    }

    /// While a write is under way there is none: only its end tells where the channel ends.
    pub(super) fn take(&self, channel: &ChannelName) -> Option<Place> {
        let mut tops = self.generations();
        let earlier = tops.earlier.remove(channel);
        tops.recent.remove(channel).or(earlier)
    }

    pub(super) fn set(&self, channel: &ChannelName, top: Place) {
        let mut tops = self.generations();
        if tops.recent.len() >= CACHED_TOPS {
            tops.earlier = std::mem::take(&mut tops.recent);
        }
        tops.recent.insert(channel.clone(), top);
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
