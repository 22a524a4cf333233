//! Channels that share one lock.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use xpush_protocol::{ChannelName, Epoch};

use super::{
    channel::{Channel, Identity},
    ledger::Ledger,
};
use crate::{
    log::{Appended, Extent, Keep},
    publication::Draft,
};

/// A channel of which nothing can be read is forgotten after this time, with the ids of its last messages: a
/// publisher that retries has long given up.
pub(super) const IDLE: Duration = crate::log::HOLD;

/// Looking for idle channels takes time in proportion to the channels of a shard, so it isn't done at every append.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Messages that go from one shard before it is asked again which is the fullest.
const GONE_AT_ONCE: usize = 32;

/// A line that is no longer than this isn't cleaned up.
const SHORT_LINE: usize = 1024;

pub(super) struct Shard {
    channels: HashMap<ChannelName, Channel>,
    /// The epoch of a channel that isn't there yet. It changes whenever a channel is forgotten, so no channel has
    /// one epoch in two lives, and yet nothing needs to be kept of those that are gone.
    next_epoch: Epoch,
    swept: Instant,
    /// The messages of all channels, oldest first. Some may be gone already: those are skipped.
    line: VecDeque<Place>,
    /// The length at which the line is cleaned up.
    long_line: usize,
    ledger: Arc<Ledger>,
    number: usize,
}

struct Place {
    channel: ChannelName,
    epoch: Epoch,
    offset: u64,
}

impl Shard {
    pub(super) fn new(number: usize, ledger: Arc<Ledger>, now: Instant) -> Self {
        Self {
            channels: HashMap::new(),
            next_epoch: Epoch::random(),
            swept: now,
            line: VecDeque::new(),
            long_line: SHORT_LINE,
            ledger,
            number,
        }
    }

    pub(super) fn has(&self, name: &ChannelName) -> bool {
        self.channels.contains_key(name)
    }

    /// Makes the channel if it isn't there.
    pub(super) fn open(&mut self, name: &ChannelName, now: Instant) {
        let epoch = self.next_epoch;
        self.channels.entry(name.clone()).or_insert_with(|| Channel::new(epoch, now));
    }

    /// As a channel that isn't there is seen.
    pub(super) fn empty(&self) -> Extent {
        Extent { epoch: self.next_epoch, first: 1, top: 0 }
    }

    /// What is done with a channel, and counted. `None`: it isn't there.
    pub(super) fn with<T>(&mut self, name: &ChannelName, act: impl FnOnce(&mut Channel) -> T) -> Option<T> {
        let channel = self.channels.get_mut(name)?;
        let before = channel.bytes();
        let done = act(channel);
        self.ledger.change(self.number, before, channel.bytes());
        Some(done)
    }

    /// Appends, and gives it a place in the line. Where that is over the budget, a channel that has more than its
    /// share pays for itself. Gives the draft back where the channel isn't there.
    #[allow(clippy::result_large_err, reason = "it is no error: the draft itself is given back")]
    pub(super) fn append(
        &mut self,
        name: &ChannelName,
        draft: Draft,
        identity: Option<Identity>,
        keep: Keep,
        now: Instant,
        share: usize,
    ) -> Result<Appended, Draft> {
        let largest = self.ledger.limit();
        let Some(channel) = self.channels.get_mut(name) else { return Err(draft) };
        let before = channel.bytes();
        let appended = channel.append(draft, identity, keep, now, largest);
        self.ledger.change(self.number, before, channel.bytes());
        if let Appended::New { epoch, publication } = &appended {
            let place = Place { channel: name.clone(), epoch: *epoch, offset: publication.offset };
            self.line.push_back(place);
            if self.line.len() >= self.long_line {
                self.clean_line();
            }
            let over = self.ledger.total().saturating_sub(self.ledger.limit());
            if over > 0 {
                self.with(name, |channel| {
                    let enough = channel.bytes().saturating_sub(over).max(share);
                    while channel.bytes() > enough && channel.let_go() {}
                });
            }
        }
        Ok(appended)
    }

    /// Makes room: some of the oldest messages go. `false`: there are none.
    pub(super) fn let_go(&mut self) -> bool {
        let mut gone = 0;
        while gone < GONE_AT_ONCE
            && self.ledger.is_over()
            && let Some(Place { channel, epoch, offset }) = self.line.pop_front()
        {
            let went = self.with(&channel, |channel| {
                let is_there = channel.epoch == epoch && channel.remembers(offset);
                if is_there {
                    channel.let_go_through(offset);
                }
                is_there
            });
            gone += usize::from(went == Some(true));
        }
        gone > 0
    }

    /// Lets go of what is too old, and of channels that are idle; says how many those were.
    pub(super) fn sweep_if_due(&mut self, now: Instant, keep_of: impl Fn(&ChannelName) -> Keep) -> usize {
        if now - self.swept < SWEEP_INTERVAL {
            return 0;
        }
        self.swept = now;
        let channels = self.channels.len();
        let (mut before, mut after) = (0, 0);
        self.channels.retain(|name, channel| {
            before += channel.bytes();
            channel.trim(keep_of(name), now);
            let stays = !channel.keeps_nothing() || now - channel.touched < IDLE;
            after += if stays { channel.bytes() } else { 0 };
            stays
        });
        self.ledger.change(self.number, before, after);
        let gone = channels - self.channels.len();
        if gone > 0 {
            self.next_epoch = Epoch(self.next_epoch.0.wrapping_add(1));
        }
        self.clean_line();
        gone
    }

    /// Takes those out of the line that are gone. It is done again when the line has doubled, so that it costs each
    /// message a moment only.
    fn clean_line(&mut self) {
        let is_there = |place: &Place| {
            self.channels
                .get(&place.channel)
                .is_some_and(|channel| channel.epoch == place.epoch && channel.remembers(place.offset))
        };
        self.line.retain(is_there);
        self.long_line = (2 * self.line.len()).max(SHORT_LINE);
        self.line.shrink_to(self.long_line);
    }

    #[cfg(test)]
    pub(super) fn line(&self) -> usize {
        self.line.len()
    }
}
