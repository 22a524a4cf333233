//! One client in one channel: what it has to get next.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use xpush_protocol::{Cursor, Epoch};

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
    /// The epoch of publications that do not say theirs: the one that the subscription began with.
    implied: Epoch,
    /// Those that this connection went on from. On a wire of several streams what is late of them is no news.
    past: HashSet<Epoch>,
    /// On a wire of several streams: what came before its turn, that of an epoch whose gap has not come among it.
    held: BTreeMap<(Epoch, u64), Held>,
    /// What came while there was no subscription, or overtook the answer that begins it.
    early: Vec<Early>,
    /// When a subscription of this connection broke off: what it had on its way then may come beside the next one's.
    broke_off: Option<Duration>,
    revoked: Option<Duration>,
    ended: Option<Duration>,
}

#[derive(Debug)]
enum Held {
    Publication(Message),
    Gap(Missing),
}

#[derive(Debug)]
enum Early {
    Publication(Came),
    Gap(Missing),
}

/// A publication as it came.
#[derive(Debug)]
pub(super) struct Came {
    /// `None`: that of the subscription's beginning.
    pub(super) epoch: Option<Epoch>,
    pub(super) offset: u64,
    pub(super) message: Message,
    /// When it was published.
    pub(super) invoked: Option<Duration>,
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
            implied: Epoch(0),
            past: HashSet::new(),
            held: BTreeMap::new(),
            early: Vec::new(),
            broke_off: None,
            revoked: None,
            ended: None,
        }
    }

    /// Its connection is over.
    pub(super) fn interrupt(&mut self) {
        self.stop();
        self.past.clear();
        self.broke_off = None;
    }

    /// The subscription is over, and is asked for again on the same connection.
    pub(super) fn break_off(&mut self, at: Duration) {
        self.stop();
        self.broke_off = Some(at);
    }

    fn stop(&mut self) {
        self.live = false;
        self.held.clear();
        self.early.clear();
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
        if let Some(before) = self.cursor.replace(cursor) {
            self.past.insert(before.epoch);
        }
        self.past.remove(&cursor.epoch);
        self.implied = cursor.epoch;
        self.wanted = true;
        self.live = true;
        self.ended = None;
        for early in std::mem::take(&mut self.early) {
            match early {
                Early::Publication(came) => self.put(&came, false, outcome),
                Early::Gap(gap) => self.move_on(gap, false, outcome),
            }
        }
    }

    /// A publication came. `ordered`: nothing may come before its turn.
    pub(super) fn deliver(&mut self, came: Came, ordered: bool, outcome: &mut Outcome) {
        let (client, message) = (self.client, came.message);
        let is_past = |end: Option<Duration>| {
            end.zip(came.invoked).is_some_and(|(end, invoked)| invoked > end + GONE_WITHIN)
        };
        if is_past(self.revoked) {
            outcome.broken.push(Broken::Leaked { client, message });
            return;
        }
        if is_past(self.ended) || (self.cursor.is_none() && ordered) {
            outcome.broken.push(Broken::Unasked { client, message });
            return;
        }
        if self.live {
            self.put(&came, ordered, outcome);
        } else if !ordered && self.ended.is_none() {
            self.early.push(Early::Publication(came));
        }
        // Else it was under way when the subscription ended.
    }

    /// Takes a publication of a subscription.
    fn put(&mut self, came: &Came, ordered: bool, outcome: &mut Outcome) {
        let (client, message) = (self.client, came.message);
        let was_under_way =
            self.broke_off.zip(came.invoked).is_some_and(|(broke_off, invoked)| invoked <= broke_off);
        let Some(stood) = self.cursor else { return };
        let came = Cursor { epoch: came.epoch.unwrap_or(self.implied), offset: came.offset };
        let of_now = came.epoch == stood.epoch;
        let place = (came.epoch, came.offset);
        if (of_now && came.offset <= stood.offset) || self.held.contains_key(&place) {
            if ordered || !was_under_way {
                outcome.broken.push(Broken::DeliveredTwice { client, offset: came.offset });
            }
        } else if of_now && came.offset == stood.offset + 1 {
            self.take(message, came, outcome);
            self.take_held(outcome);
        } else if !ordered {
            if !self.past.contains(&came.epoch) {
                self.held.insert(place, Held::Publication(message));
            }
        } else {
            outcome.broken.push(if of_now {
                Broken::Hole { client, expected: stood.offset + 1, came: came.offset }
            } else {
                Broken::ForeignEpoch { client, stood, came }
            });
            // Told once, not again for everything that follows.
            self.implied = came.epoch;
            self.take(message, came, outcome);
        }
    }

    pub(super) fn gap(&mut self, gap: Missing, ordered: bool, outcome: &mut Outcome) {
        if self.live {
            self.move_on(gap, ordered, outcome);
        } else if !ordered && self.ended.is_none() {
            self.early.push(Early::Gap(gap));
        }
    }

    /// Takes a gap of a subscription.
    fn move_on(&mut self, gap: Missing, ordered: bool, outcome: &mut Outcome) {
        let Some(cursor) = self.cursor else { return };
        if gap.epoch != cursor.epoch {
            if self.past.contains(&gap.epoch) {
                let (client, came) = (self.client, Cursor { epoch: gap.epoch, offset: gap.to });
                outcome.broken.push(Broken::ForeignEpoch { client, stood: cursor, came });
            }
            self.past.insert(cursor.epoch);
            self.held.retain(|(epoch, _), _| *epoch != cursor.epoch);
            self.cursor = Some(Cursor { epoch: gap.epoch, offset: gap.to });
            self.take_held(outcome);
        } else if gap.from <= cursor.offset + 1 {
            self.cursor = Some(Cursor { offset: cursor.offset.max(gap.to), ..cursor });
            self.take_held(outcome);
        } else if ordered {
            let (client, expected) = (self.client, cursor.offset + 1);
            outcome.broken.push(Broken::Hole { client, expected, came: gap.from });
            self.cursor = Some(Cursor { offset: gap.to, ..cursor });
        } else {
            self.held.insert((gap.epoch, gap.from), Held::Gap(gap));
        }
    }

    fn take(&mut self, message: Message, at: Cursor, outcome: &mut Outcome) {
        self.cursor = Some(at);
        outcome.taken.push((message, at));
    }

    fn take_held(&mut self, outcome: &mut Outcome) {
        while let Some(cursor) = self.cursor
            && let Some((&place, _)) =
                self.held.range((cursor.epoch, 0)..=(cursor.epoch, cursor.offset + 1)).next()
            && let Some(held) = self.held.remove(&place)
        {
            let (_, offset) = place;
            match held {
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
