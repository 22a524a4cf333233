//! One client in one channel: what it has to get next.

use std::{collections::BTreeMap, time::Duration};

use xpush_protocol::Cursor;

use super::violation::Broken;
use crate::history::{ClientNumber, Message, Missing};

/// A right that was taken away, and a subscription that was ended, are gone within this time (P8).
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// Where a client stands in a channel.
#[derive(Debug)]
pub(super) struct Reader {
    client: ClientNumber,
    /// Behind what it has. `None`: it never had a subscription here.
    cursor: Option<Cursor>,
    /// Where it stood when it last asked to go on.
    asked: Option<Cursor>,
    /// It did not give the channel up, nor lose the right to it.
    wanted: bool,
    /// Its connection has a subscription.
    live: bool,
    /// On a wire of several streams: what came before its turn.
    held: BTreeMap<u64, Held>,
    revoked: Option<Duration>,
    ended: Option<Duration>,
}

#[derive(Debug)]
enum Held {
    Publication(Message),
    Gap(Missing),
}

/// What a step brought to light.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) broken: Vec<Broken>,
    /// Messages whose turn it was, and their places.
    pub(super) taken: Vec<(Message, Cursor)>,
}

impl Reader {
    pub(super) fn new(client: ClientNumber) -> Self {
        Self {
            client,
            cursor: None,
            asked: None,
            wanted: false,
            live: false,
            held: BTreeMap::new(),
            revoked: None,
            ended: None,
        }
    }

    /// Its connection is over.
    pub(super) fn interrupt(&mut self) {
        self.live = false;
        self.held.clear();
    }

    /// It asks to go on from here.
    pub(super) fn ask(&mut self) {
        self.asked = self.cursor;
    }

    /// The new connection begins where it was asked to, whatever the one before brought meanwhile: that comes again.
    pub(super) fn go_on(&mut self) {
        self.interrupt();
        self.cursor = self.asked.take().or(self.cursor);
    }

    pub(super) fn subscribed(
        &mut self,
        at: Duration,
        cursor: Cursor,
        resumed: bool,
        gap: Option<Missing>,
        outcome: &mut Outcome,
    ) {
        let client = self.client;
        if self.revoked.is_some_and(|revoked| at > revoked + GONE_WITHIN) {
            outcome.broken.push(Broken::LetIn { client });
        }
        if resumed && let Some(stood) = self.cursor {
            let expected = gap.map_or(stood, |gap| Cursor { epoch: gap.epoch, offset: gap.to });
            let torn = gap.is_some_and(|gap| gap.epoch == stood.epoch && gap.from != stood.offset + 1);
            if cursor != expected || torn {
                outcome.broken.push(Broken::ResumedElsewhere { client, stood, resumed: cursor });
            }
        }
        self.cursor = Some(cursor);
        self.wanted = true;
        self.live = true;
        self.ended = None;
        self.take_held(outcome);
    }

    /// A publication came. `ordered`: nothing may come before its turn. `invoked`: when it was published.
    pub(super) fn deliver(
        &mut self,
        offset: u64,
        message: Message,
        invoked: Option<Duration>,
        ordered: bool,
        outcome: &mut Outcome,
    ) {
        let client = self.client;
        let is_past = |end: Option<Duration>| {
            end.zip(invoked).is_some_and(|(end, invoked)| invoked > end + GONE_WITHIN)
        };
        if is_past(self.revoked) {
            outcome.broken.push(Broken::Leaked { client, message });
            return;
        }
        if is_past(self.ended) || (self.cursor.is_none() && ordered) {
            outcome.broken.push(Broken::Unasked { client, message });
            return;
        }
        match self.cursor {
            Some(cursor) if self.live => {
                if offset <= cursor.offset || self.held.contains_key(&offset) {
                    outcome.broken.push(Broken::DeliveredTwice { client, offset });
                } else if offset == cursor.offset + 1 {
                    self.take(message, Cursor { offset, ..cursor }, outcome);
                    self.take_held(outcome);
                } else if ordered {
                    outcome.broken.push(Broken::Hole { client, expected: cursor.offset + 1, came: offset });
                    // Told once, not again for everything that follows.
                    self.take(message, Cursor { offset, ..cursor }, outcome);
                } else {
                    self.held.insert(offset, Held::Publication(message));
                }
            }
            // It may have overtaken the answer that begins the subscription.
            _ if !ordered && self.ended.is_none() => {
                self.held.insert(offset, Held::Publication(message));
            }
            // What was under way when the subscription ended.
            _ => {}
        }
    }

    pub(super) fn gap(&mut self, gap: Missing, ordered: bool, outcome: &mut Outcome) {
        let Some(cursor) = self.cursor else { return };
        if gap.epoch != cursor.epoch {
            self.held.clear();
            self.cursor = Some(Cursor { epoch: gap.epoch, offset: gap.to });
        } else if gap.from <= cursor.offset + 1 {
            self.cursor = Some(Cursor { offset: cursor.offset.max(gap.to), ..cursor });
            self.take_held(outcome);
        } else if ordered {
            let (client, expected) = (self.client, cursor.offset + 1);
            outcome.broken.push(Broken::Hole { client, expected, came: gap.from });
            self.cursor = Some(Cursor { offset: gap.to, ..cursor });
        } else {
            self.held.insert(gap.from, Held::Gap(gap));
        }
    }

    fn take(&mut self, message: Message, at: Cursor, outcome: &mut Outcome) {
        self.cursor = Some(at);
        outcome.taken.push((message, at));
    }

    fn take_held(&mut self, outcome: &mut Outcome) {
        while let (Some(cursor), Some(entry)) = (self.cursor, self.held.first_entry()) {
            let offset = *entry.key();
            if offset > cursor.offset + 1 {
                break;
            }
            match entry.remove() {
                Held::Gap(gap) => {
                    self.cursor = Some(Cursor { offset: cursor.offset.max(gap.to), ..cursor });
                }
                Held::Publication(_) if offset <= cursor.offset => {
                    outcome.broken.push(Broken::DeliveredTwice { client: self.client, offset });
                }
                Held::Publication(message) => self.take(message, Cursor { offset, ..cursor }, outcome),
            }
        }
    }

    /// The subscription is over, and the client does not want it back.
    pub(super) fn end(&mut self, at: Duration) {
        self.wanted = false;
        self.ended = Some(at);
        self.interrupt();
    }

    pub(super) fn revoke(&mut self, at: Duration) {
        self.wanted = false;
        self.revoked.get_or_insert(at);
    }

    pub(super) fn grant(&mut self) {
        self.revoked = None;
    }

    /// Whether, at the end, it has all that the log has.
    pub(super) fn check_end(&self, top: Cursor) -> Option<Broken> {
        let complete = self.live && self.held.is_empty() && self.cursor == Some(top);
        (self.wanted && !complete).then_some(Broken::Missed { client: self.client, stood: self.cursor, top })
    }
}
