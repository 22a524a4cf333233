//! What this node wrote last. Who lost a connection sends again what was not answered, and a channel's appender is mostly
//! the same: what is found here costs the database nothing.

use std::collections::HashMap;

use xpush_protocol::{ChannelName, Cursor};

use super::{
    look::is_kept,
    record::Place,
    store::Store,
    write::{Append, Ids},
};
use crate::publication::Publication;

/// Messages that are remembered, twice: the last, and those before.
const CAPACITY: usize = 32 * 1024;

/// Where a message stands, as far as a majority has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stood {
    pub(super) offset: u64,
    /// When it was sent, in milliseconds since 1970.
    pub(super) time: u64,
}

impl Stood {
    pub(super) fn of(publication: &Publication) -> Self {
        Self { offset: publication.offset, time: publication.time }
    }
}

#[derive(Default)]
pub(super) struct Written {
    recent: HashMap<(ChannelName, Ids), Stood>,
    earlier: HashMap<(ChannelName, Ids), Stood>,
}

impl Written {
    pub(super) fn note(&mut self, channel: ChannelName, ids: Ids, stood: Stood) {
        if self.recent.len() >= CAPACITY {
            self.earlier = std::mem::take(&mut self.recent);
        }
        self.recent.insert((channel, ids), stood);
    }

    /// Where the message of this append stands, if it does and that is known here. `top` is where the channel ends.
    pub(super) fn cursor(
        &self,
        store: &Store,
        channel: &ChannelName,
        top: Option<Place>,
        append: &Append,
    ) -> Option<Cursor> {
        let stood = self.find(channel, append.ids())?;
        // Where only a number is kept, and nobody knows where the channel ends, the database has to tell.
        let is_told = top.is_some() || store.keep(channel).count.is_none();
        let is_kept = is_told && is_kept(store, channel, top, stood);
        is_kept.then_some(Cursor { epoch: store.epoch, offset: stood.offset })
    }

    fn find(&self, channel: &ChannelName, ids: Ids) -> Option<Stood> {
        let key = (channel.clone(), ids);
        self.recent.get(&key).or_else(|| self.earlier.get(&key)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fixture::{channel, draft};

    fn ids(n: u64) -> Ids {
        let draft = draft("ann", n);
        (draft.publisher, draft.message_id)
    }

    #[test]
    fn the_last_messages_are_known_and_no_more_than_fit_in() {
        let (mut written, room) = (Written::default(), channel("room:a"));
        let count = CAPACITY as u64 * 3;
        for n in 1..=count {
            written.note(room.clone(), ids(n), Stood { offset: n, time: 0 });
        }
        assert_eq!(written.find(&room, ids(count)), Some(Stood { offset: count, time: 0 }));
        assert!(written.find(&room, ids(count - CAPACITY as u64 + 1)).is_some());
        assert_eq!(written.find(&room, ids(1)), None);
        assert_eq!(written.find(&channel("room:b"), ids(count)), None);
        assert!(written.recent.len() + written.earlier.len() <= 2 * CAPACITY);
    }
}
