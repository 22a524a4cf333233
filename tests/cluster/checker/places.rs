//! One channel's messages and their places, put together from everything that was said of them.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use xpush_protocol::{Cursor, Epoch};

use super::violation::Broken;
use crate::history::Message;

/// What is known of one message.
#[derive(Debug)]
struct Known {
    /// When its first publish went out.
    invoked: Duration,
    /// What the channel was known to have then: the message has to stand behind it.
    past: Option<Cursor>,
    /// Where it is, as subscribers and logs say.
    stands: Option<Cursor>,
    /// Where it is, as its publisher was told.
    answered: Option<Cursor>,
    refused: bool,
}

/// Who says that a message has a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Answer,
    Delivery,
    Log,
}

/// One channel's messages and places.
#[derive(Debug, Default)]
pub(super) struct Places {
    durable: bool,
    messages: HashMap<Message, Known>,
    by_place: HashMap<(Epoch, u64), Message>,
    /// The furthest that anybody has seen, of the epoch that was seen last.
    seen: Option<Cursor>,
}

impl Places {
    pub(super) fn new(durable: bool) -> Self {
        Self { durable, ..Self::default() }
    }

    /// A publish goes out. Gives whether it is the message's first.
    pub(super) fn invoke(&mut self, message: Message, at: Duration) -> bool {
        let past = self.seen;
        match self.messages.entry(message) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                let known = Known { invoked: at, past, stands: None, answered: None, refused: false };
                entry.insert(known);
                true
            }
        }
    }

    pub(super) fn refuse(&mut self, message: Message) -> Option<Broken> {
        let known = self.messages.get_mut(&message)?;
        known.refused = true;
        known.stands.map(|_| Broken::RefusedYetThere { message })
    }

    /// When its first publish went out. `None`: nobody published it here.
    pub(super) fn invoked(&self, message: Message) -> Option<Duration> {
        self.messages.get(&message).map(|known| known.invoked)
    }

    /// Takes note that the log has the channel up to here.
    pub(super) fn see(&mut self, cursor: Cursor) -> Option<Broken> {
        let before = self.seen;
        match &mut self.seen {
            Some(seen) if seen.epoch == cursor.epoch => {
                seen.offset = seen.offset.max(cursor.offset);
                None
            }
            seen => {
                *seen = Some(cursor);
                before.filter(|_| self.durable).map(|before| Broken::EpochChanged { before, now: cursor })
            }
        }
    }

    /// Takes note that a message has a place.
    pub(super) fn place(&mut self, message: Message, at: Cursor, source: Source, broken: &mut Vec<Broken>) {
        let Some(known) = self.messages.get_mut(&message) else {
            broken.push(Broken::Invented { message });
            return;
        };
        if known.refused {
            broken.push(Broken::RefusedYetThere { message });
        }
        let durable = self.durable;
        // A log that was lost takes the message once more, in its next epoch.
        let other =
            |said: Option<Cursor>| said.filter(|said| *said != at && (durable || said.epoch == at.epoch));
        let (stands, answered) = (other(known.stands), other(known.answered));
        match source {
            Source::Answer => {
                if let Some(stands) = stands.or(answered) {
                    broken.push(Broken::AnsweredElsewhere { message, stands, answered: at });
                }
                known.answered = Some(at);
            }
            Source::Delivery | Source::Log => {
                if let Some(first) = stands {
                    broken.push(Broken::StandsTwice { message, first, second: at });
                } else if let Some(answered) = answered {
                    broken.push(Broken::AnsweredElsewhere { message, stands: at, answered });
                }
                known.stands = Some(at);
            }
        }
        if let Some(past) = known.past
            && past.epoch == at.epoch
            && past.offset >= at.offset
        {
            broken.push(Broken::BeforeItsPast { message, at, past: past.offset });
        }
        let first = *self.by_place.entry((at.epoch, at.offset)).or_insert(message);
        if first != message {
            broken.push(Broken::OffsetReused { at, first, second: message });
        }
        broken.extend(self.see(at));
    }

    /// Where each message is, as its publisher was told.
    pub(super) fn answered(&self) -> impl Iterator<Item = (Message, Cursor)> {
        self.messages.iter().filter_map(|(message, known)| Some((*message, known.answered?)))
    }

    /// Where each message is that nobody was told of but those who saw it.
    pub(super) fn only_seen(&self) -> impl Iterator<Item = (Message, Cursor)> {
        let seen = self.messages.iter().filter(|(_, known)| known.answered.is_none());
        seen.filter_map(|(message, known)| Some((*message, known.stands?)))
    }

    /// Messages that were published and never answered.
    pub(super) fn unanswered(&self) -> usize {
        self.messages.values().filter(|known| known.answered.is_none() && !known.refused).count()
    }
}
