//! What a session listens to, and how far it got in each channel, over all its connections.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;
use xpush_protocol::{
    ChannelName, Cursor, Epoch, ErrorCode, Gap, Publication, Resubscribe, Subscribe, Subscribed,
    UnsubscribeReason, Unsubscribed,
};

use super::{Event, Start, pause};
use crate::client::{Overflow, Sequence, Step};

/// Frames of one channel that came before its `subscribed`.
const EARLY_CAPACITY: usize = 4096;
/// The resume vector of `connect`, in bytes of names and cursors: it fits into the smallest frame that makes sense
/// beside a token and a state. Channels beyond it are subscribed to one by one.
const VECTOR_BYTES: usize = 24 * 1024;
/// What an entry has beside the channel's name, as JSON.
const ENTRY_BYTES: usize = 80;
/// A server that says that a cursor is ahead of it may be one that lags behind the others. It is asked this often
/// before it is believed.
const AHEAD_ATTEMPTS: u32 = 6;
/// A hole that is as old will not be filled by itself.
const HOLE_LIMIT: Duration = Duration::from_secs(5);

/// All channels.
#[derive(Default)]
pub(super) struct Channels {
    by_name: HashMap<ChannelName, Channel>,
    /// When which is subscribed to again.
    retries: BTreeSet<(Instant, ChannelName)>,
    /// Since when something is missing.
    holes: HashMap<ChannelName, Instant>,
}

struct Channel {
    start: Start,
    /// Behind the last publication that was given out.
    cursor: Option<Cursor>,
    /// `None`: not subscribed, on this connection.
    sequence: Option<Sequence>,
    early: Vec<Step>,
    /// Of the first subscription on this connection.
    epoch: Option<Epoch>,
    ephemeral: bool,
    /// Subscriptions that failed since the last one that did not.
    failures: u32,
    /// How often the cursor was called ahead since then.
    ahead: u32,
}

/// Only a new connection, with the resume vector, puts it right.
#[derive(Debug)]
pub(super) struct Broken(pub(super) &'static str);

impl From<Overflow> for Broken {
    fn from(_: Overflow) -> Self {
        Self("a hole in a channel was not filled")
    }
}

impl Channels {
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn contains(&self, name: &ChannelName) -> bool {
        self.by_name.contains_key(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &ChannelName> {
        self.by_name.keys()
    }

    /// False: it is there already.
    pub(super) fn add(&mut self, name: ChannelName, start: Start) -> bool {
        if self.by_name.contains_key(&name) {
            return false;
        }
        let cursor = if let Start::Behind(cursor) = start { Some(cursor) } else { None };
        let channel = Channel {
            start,
            cursor,
            sequence: None,
            early: Vec::new(),
            epoch: None,
            ephemeral: false,
            failures: 0,
            ahead: 0,
        };
        self.by_name.insert(name, channel);
        true
    }

    /// False: it was not there.
    pub(super) fn remove(&mut self, name: &ChannelName) -> bool {
        self.holes.remove(name);
        self.retries.retain(|(_, retried)| retried != name);
        self.by_name.remove(name).is_some()
    }

    /// The resume vector, as far as it fits into `connect`.
    pub(super) fn vector(&self) -> Vec<Resubscribe> {
        let mut bytes = 0;
        let resumable =
            |channel: &&Channel| channel.cursor.is_some() || !matches!(channel.start, Start::Last(_));
        let entries = self
            .by_name
            .iter()
            .filter(|(_, channel)| resumable(channel))
            .map(|(name, channel)| Resubscribe { channel: name.clone(), cursor: channel.wanted() });
        entries
            .take_while(|entry| {
                bytes += entry.channel.as_str().len() + ENTRY_BYTES;
                bytes <= VECTOR_BYTES
            })
            .collect()
    }

    /// A new connection has begun, or none is left: no channel is subscribed.
    pub(super) fn begin(&mut self) {
        self.retries.clear();
        self.holes.clear();
        for channel in self.by_name.values_mut() {
            channel.sequence = None;
            channel.epoch = None;
            channel.early.clear();
        }
    }

    /// The command for a channel.
    pub(super) fn subscribe(&self, name: &ChannelName, id: u32) -> Option<Subscribe> {
        let channel = self.by_name.get(name)?;
        let last = match (channel.cursor, channel.start) {
            (None, Start::Last(last)) => Some(last),
            _ => None,
        };
        Some(Subscribe { id, channel: name.clone(), cursor: channel.wanted(), last })
    }

    pub(super) fn subscribed(
        &mut self,
        told: Subscribed,
        out: &mut impl Extend<Event>,
    ) -> Result<(), Broken> {
        let Some(channel) = self.by_name.get_mut(&told.channel) else { return Ok(()) };
        if *channel.epoch.get_or_insert(told.cursor.epoch) != told.cursor.epoch {
            // What is late of the first subscription could not be told from the second one's.
            return Err(Broken("a channel's epoch changed between two subscriptions"));
        }
        // On the connection before this one more may have come since this one asked.
        let known = channel.cursor.filter(|known| known.epoch == told.cursor.epoch);
        let from = known.filter(|known| known.offset > told.cursor.offset).unwrap_or(told.cursor);
        if let Some(gap) = told.gap.filter(|gap| known.is_none_or(|known| gap.to > known.offset)) {
            out.extend([Event::Gap(gap)]);
        }
        channel.sequence = Some(Sequence::new(from, told.ephemeral));
        channel.cursor = Some(from);
        channel.ephemeral = told.ephemeral;
        (channel.failures, channel.ahead) = (0, 0);
        let early = std::mem::take(&mut channel.early);
        self.holes.remove(&told.channel);
        let (name, top) = (told.channel, told.top);
        out.extend([Event::Subscribed { channel: name.clone(), cursor: from, top }]);
        for step in early {
            self.take(&name, step, out)?;
        }
        Ok(())
    }

    pub(super) fn publication(
        &mut self,
        publication: Publication,
        out: &mut impl Extend<Event>,
    ) -> Result<(), Broken> {
        let name = publication.channel.clone();
        self.take(&name, Step::Publication(Box::new(publication)), out)
    }

    pub(super) fn gap(&mut self, gap: Gap, out: &mut impl Extend<Event>) -> Result<(), Broken> {
        let name = gap.channel.clone();
        self.take(&name, Step::Gap(gap), out)
    }

    fn take(&mut self, name: &ChannelName, step: Step, out: &mut impl Extend<Event>) -> Result<(), Broken> {
        let Some(channel) = self.by_name.get_mut(name) else { return Ok(()) };
        let Some(sequence) = &mut channel.sequence else {
            if channel.early.len() >= EARLY_CAPACITY {
                return Err(Broken("`subscribed` does not come"));
            }
            channel.early.push(step);
            return Ok(());
        };
        let before = sequence.cursor();
        let is_ahead = match &step {
            Step::Publication(publication) => publication.offset > before.offset,
            Step::Gap(gap) => gap.from > before.offset,
        };
        let steps = match step {
            Step::Publication(publication) => sequence.publication(*publication)?,
            Step::Gap(gap) => sequence.gap(gap)?,
        };
        channel.cursor = Some(sequence.cursor());
        if !steps.is_empty() {
            self.holes.remove(name);
        } else if is_ahead && !self.holes.contains_key(name) {
            self.holes.insert(name.clone(), Instant::now());
        }
        out.extend(steps.into_iter().map(|step| match step {
            Step::Publication(publication) => Event::Publication(publication),
            Step::Gap(gap) => Event::Gap(gap),
        }));
        Ok(())
    }

    /// A subscription was refused.
    pub(super) fn refused(
        &mut self,
        name: &ChannelName,
        error: xpush_protocol::Error,
        out: &mut impl Extend<Event>,
    ) {
        let Some(channel) = self.by_name.get_mut(name) else { return };
        if channel.sequence.is_some() {
            // An answer to what was asked for twice, as where a poll was made again.
            return;
        }
        if error.code == ErrorCode::CursorAhead {
            channel.ahead += 1;
            if channel.ahead >= AHEAD_ATTEMPTS {
                let lost = channel.cursor.take();
                channel.ahead = 0;
                channel.start = Start::Now;
                out.extend(lost.map(|cursor| Event::CursorLost { channel: name.clone(), cursor }));
            }
        } else if !error.retry {
            self.remove(name);
            let (code, message) = (error.code, error.message);
            out.extend([Event::Refused { channel: name.clone(), code, message }]);
            return;
        }
        let after = error.retry_after.map(|millis| Duration::from_millis(millis.into()));
        self.retry(name, after);
    }

    /// A subscription ended.
    pub(super) fn unsubscribed(&mut self, told: Unsubscribed, out: &mut impl Extend<Event>) {
        let name = told.channel;
        let Some(channel) = self.by_name.get_mut(&name) else { return };
        let message = match told.reason {
            // Of one that was given up, and begun anew since.
            UnsubscribeReason::Requested => return,
            UnsubscribeReason::LogUnavailable => {
                channel.sequence = None;
                self.holes.remove(&name);
                return self.retry(&name, None);
            }
            UnsubscribeReason::TokenExpired => "the token expired",
            UnsubscribeReason::Revoked => "the token does not grant it any more",
        };
        self.remove(&name);
        out.extend([Event::Refused {
            channel: name,
            code: ErrorCode::PermissionDenied,
            message: message.into(),
        }]);
    }

    fn retry(&mut self, name: &ChannelName, after: Option<Duration>) {
        let Some(channel) = self.by_name.get_mut(name) else { return };
        // It was not asked for yet once the pause is over: what comes until then is late.
        channel.early.clear();
        channel.failures += 1;
        let at = Instant::now() + pause(channel.failures).max(after.unwrap_or_default());
        self.retries.retain(|(_, retried)| retried != name);
        self.retries.insert((at, name.clone()));
    }

    /// When there is something to do by itself.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let retry = self.retries.first().map(|(at, _)| *at);
        let hole = self.holes.values().min().map(|since| *since + HOLE_LIMIT);
        retry.into_iter().chain(hole).min()
    }

    /// The channels that are to be subscribed to again now.
    pub(super) fn take_due(&mut self) -> Result<HashSet<ChannelName>, Broken> {
        let now = Instant::now();
        if self.holes.values().any(|since| *since + HOLE_LIMIT <= now) {
            return Err(Overflow.into());
        }
        let mut due = HashSet::new();
        while self.retries.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(self.retries.pop_first().map(|(_, name)| name));
        }
        Ok(due)
    }
}

impl Channel {
    /// What to resume with. A channel that keeps nothing has nothing to resume.
    fn wanted(&self) -> Option<Cursor> {
        if self.ephemeral { None } else { self.cursor }
    }
}
