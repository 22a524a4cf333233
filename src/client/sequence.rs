//! Puts one channel's publications in order: a wire of several streams may bring them otherwise, those of a new
//! epoch before the gap that announces it, and those of an old one behind it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use xpush_protocol::{Cursor, Epoch, Gap, Publication};

/// Publications held because one before them has not come; the server fills every hole or names it, so more than
/// this means that it broke its word, and the client subscribes anew with its cursor.
const HELD_CAPACITY: usize = 4096;

/// Epochs that were left and are remembered: what is late of them is no news. They change when a log is lost, so
/// that many within one connection do not come.
const PAST_EPOCHS: usize = 8;

/// Where one channel's reader stands.
#[derive(Debug)]
pub struct Sequence {
    cursor: Cursor,
    /// The epoch of publications that do not say theirs: the one that the subscription began with.
    implied: Epoch,
    /// Holes are not waited for.
    ephemeral: bool,
    /// Ahead of the cursor, in its epoch.
    held: BTreeMap<u64, Held>,
    /// Of epochs that no gap has announced yet.
    foreign: HashMap<Epoch, BTreeMap<u64, Held>>,
    past: VecDeque<Epoch>,
}

#[derive(Debug)]
enum Held {
    Publication(Box<Publication>),
    Gap(Gap),
}

/// What a reader gets, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Publication(Box<Publication>),
    Gap(Gap),
}

/// The server broke its word: more is held than may be, or an epoch came back. To subscribe anew, with the cursor,
/// puts it right.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflow;

impl Sequence {
    #[must_use]
    pub fn new(cursor: Cursor, ephemeral: bool) -> Self {
        let (held, foreign, past) = Default::default();
        Self { cursor, implied: cursor.epoch, ephemeral, held, foreign, past }
    }

    /// Behind the last publication that was given out.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Takes a publication; gives what is next in line now.
    pub fn publication(&mut self, publication: Publication) -> Result<Vec<Step>, Overflow> {
        let at = Cursor { epoch: publication.epoch.unwrap_or(self.implied), offset: publication.offset };
        if self.past.contains(&at.epoch) || (at.epoch == self.cursor.epoch && at.offset <= self.cursor.offset)
        {
            return Ok(vec![]);
        }
        if self.ephemeral {
            self.move_to(at);
            return Ok(vec![Step::Publication(Box::new(publication))]);
        }
        self.hold(at, Held::Publication(Box::new(publication)))?;
        Ok(self.take_held())
    }

    /// Takes a gap; it counts once everything before it was given out, or at once if it begins a new epoch.
    pub fn gap(&mut self, gap: Gap) -> Result<Vec<Step>, Overflow> {
        if gap.epoch == self.cursor.epoch {
            self.hold(Cursor { epoch: gap.epoch, offset: gap.from }, Held::Gap(gap))?;
            return Ok(self.take_held());
        }
        if self.past.contains(&gap.epoch) {
            return Err(Overflow);
        }
        self.move_to(Cursor { epoch: gap.epoch, offset: gap.to });
        let mut steps = vec![Step::Gap(gap)];
        steps.append(&mut self.take_held());
        Ok(steps)
    }

    /// Stands there from now on. What was held of another epoch's past is forgotten, what came early of this one
    /// is next.
    fn move_to(&mut self, cursor: Cursor) {
        if cursor.epoch != self.cursor.epoch {
            if self.past.len() == PAST_EPOCHS {
                self.past.pop_front();
            }
            self.past.push_back(self.cursor.epoch);
            self.held = self.foreign.remove(&cursor.epoch).unwrap_or_default();
        }
        self.cursor = cursor;
    }

    fn hold(&mut self, at: Cursor, held: Held) -> Result<(), Overflow> {
        if self.held.len() + self.foreign.values().map(BTreeMap::len).sum::<usize>() >= HELD_CAPACITY {
            return Err(Overflow);
        }
        let place = if at.epoch == self.cursor.epoch {
            &mut self.held
        } else {
            self.foreign.entry(at.epoch).or_default()
        };
        match held {
            // A gap at the same place says more.
            Held::Publication(_) => {
                place.entry(at.offset).or_insert(held);
            }
            Held::Gap(_) => {
                place.insert(at.offset, held);
            }
        }
        Ok(())
    }

    /// What is next in line now.
    fn take_held(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(entry) = self.held.first_entry() {
            if *entry.key() > self.cursor.offset + 1 {
                break;
            }
            match entry.remove() {
                Held::Publication(publication) if publication.offset == self.cursor.offset + 1 => {
                    self.cursor.offset = publication.offset;
                    steps.push(Step::Publication(publication));
                }
                Held::Gap(gap) if gap.to > self.cursor.offset => {
                    self.cursor.offset = gap.to;
                    steps.push(Step::Gap(gap));
                }
                _ => {}
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use xpush_protocol::{Json, MessageId, ServerFrame};

    use super::*;

    fn publication(offset: u64) -> Publication {
        Publication {
            channel: "room:a".parse().unwrap(),
            offset,
            epoch: None,
            message_id: MessageId::random(),
            event: xpush_protocol::EventName::default(),
            data: Some(Json::parse("1").unwrap()),
            binary: None,
            user: None,
            time: 0,
            reply_to: None,
        }
    }

    fn of(epoch: u32, offset: u64) -> Publication {
        Publication { epoch: Some(Epoch(epoch)), ..publication(offset) }
    }

    fn gap(epoch: u32, from: u64, to: u64) -> Gap {
        Gap { channel: "room:a".parse().unwrap(), epoch: Epoch(epoch), from, to }
    }

    fn offsets(steps: Result<Vec<Step>, Overflow>) -> Vec<u64> {
        let offset = |step| match step {
            Step::Publication(publication) => publication.offset,
            Step::Gap(gap) => gap.to + 1_000_000,
        };
        steps.unwrap().into_iter().map(offset).collect()
    }

    #[test]
    fn publications_come_out_once_and_in_order() {
        let mut sequence = Sequence::new(Cursor { epoch: Epoch(1), offset: 4 }, false);
        assert_eq!(offsets(sequence.publication(publication(6))), [0_u64; 0]);
        assert_eq!(offsets(sequence.publication(publication(4))), [0_u64; 0]);
        assert_eq!(offsets(sequence.publication(publication(5))), [5, 6]);
        assert_eq!(offsets(sequence.publication(publication(6))), [0_u64; 0]);
    }

    #[test]
    fn a_gap_waits_for_what_is_before_it() {
        let mut sequence = Sequence::new(Cursor { epoch: Epoch(1), offset: 0 }, false);
        assert_eq!(offsets(sequence.gap(gap(1, 2, 5))), [0_u64; 0]);
        assert_eq!(offsets(sequence.publication(publication(6))), [0_u64; 0]);
        assert_eq!(offsets(sequence.publication(publication(1))), [1, 1_000_005, 6]);
    }

    #[test]
    fn a_gap_of_a_new_epoch_counts_at_once() {
        let mut sequence = Sequence::new(Cursor { epoch: Epoch(1), offset: 9 }, false);
        assert_eq!(offsets(sequence.gap(gap(2, 1, 0))), [1_000_000]);
        assert_eq!(offsets(sequence.publication(of(2, 1))), [1]);
    }

    #[test]
    fn an_ephemeral_channel_waits_for_nothing() {
        let mut sequence = Sequence::new(Cursor { epoch: Epoch(1), offset: 0 }, true);
        assert_eq!(offsets(sequence.publication(publication(3))), [3]);
        assert_eq!(offsets(sequence.publication(publication(2))), [0_u64; 0]);
        assert_eq!(offsets(sequence.publication(of(2, 1))), [1]);
        assert_eq!(offsets(sequence.publication(publication(4))), [0_u64; 0]);
    }

    #[test]
    fn a_new_epoch_that_overtakes_its_gap_waits_for_it() {
        let mut sequence = Sequence::new(Cursor { epoch: Epoch(1), offset: 500 }, false);
        assert_eq!(offsets(sequence.publication(of(2, 3))), [0_u64; 0]);
        assert_eq!(offsets(sequence.publication(publication(501))), [501]);
        assert_eq!(offsets(sequence.publication(of(2, 4))), [0_u64; 0]);
        assert_eq!(offsets(sequence.gap(gap(2, 1, 1))), [1_000_001]);
        assert_eq!(offsets(sequence.publication(of(2, 2))), [2, 3, 4]);
        assert_eq!(sequence.cursor(), Cursor { epoch: Epoch(2), offset: 4 });
    }

    #[test]
    fn what_is_late_of_an_old_epoch_is_no_news() {
        let mut sequence = Sequence::new(Cursor { epoch: Epoch(1), offset: 3 }, false);
        assert_eq!(offsets(sequence.publication(publication(5))), [0_u64; 0]);
        assert_eq!(offsets(sequence.gap(gap(2, 1, 3))), [1_000_003]);
        assert_eq!(offsets(sequence.publication(publication(4))), [0_u64; 0]);
        assert_eq!(offsets(sequence.publication(of(1, 5))), [0_u64; 0]);
        assert_eq!(offsets(sequence.publication(of(2, 4))), [4]);
        assert_eq!(sequence.gap(gap(1, 1, 9)), Err(Overflow));
    }

    #[test]
    fn what_two_epochs_hold_is_bounded_together() {
        let mut sequence = Sequence::new(Cursor { epoch: Epoch(1), offset: 0 }, false);
        for held in 0..HELD_CAPACITY as u64 / 2 {
            assert_eq!(offsets(sequence.publication(publication(held + 2))), [0_u64; 0]);
            assert_eq!(offsets(sequence.publication(of(2, held + 1))), [0_u64; 0]);
        }
        assert_eq!(sequence.publication(of(3, 1)), Err(Overflow));
    }

    /// What a server sends to a subscriber whose channel lost its log `changes` times: a stream of what is live, one
    /// of what is read from the log, and the newest place.
    fn streams(changes: u32, random: &mut impl FnMut(u64) -> u64) -> ([Vec<ServerFrame>; 2], Cursor) {
        let (mut live, mut backfill) = (Vec::new(), Vec::new());
        let mut top = Cursor { epoch: Epoch(0), offset: random(6) };
        live.extend((1..=top.offset).map(|offset| ServerFrame::Publication(publication(offset))));
        for epoch in 1..=changes {
            let lost = random(4);
            let read = lost + random(4);
            top = Cursor { epoch: Epoch(epoch), offset: read + random(4) };
            backfill.push(ServerFrame::Gap(gap(epoch, 1, lost)));
            backfill.extend((lost + 1..=read).map(|offset| ServerFrame::Publication(of(epoch, offset))));
            live.extend((read + 1..=top.offset).map(|offset| ServerFrame::Publication(of(epoch, offset))));
        }
        ([live, backfill], top)
    }

    #[test]
    fn however_the_streams_interleave_each_comes_once_and_in_order_or_a_gap_does() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for round in 0..2_000 {
            let (streams, top) = streams(round % 4, &mut random);
            let mut streams = streams.map(VecDeque::from);
            let mut sequence = Sequence::new(Cursor { epoch: Epoch(0), offset: 0 }, false);
            let mut at = sequence.cursor();
            while let Some(frame) = {
                let first = random(2) as usize;
                streams[first].pop_front().or_else(|| streams[1 - first].pop_front())
            } {
                let steps = match frame {
                    ServerFrame::Publication(publication) => sequence.publication(publication),
                    ServerFrame::Gap(gap) => sequence.gap(gap),
                    _ => unreachable!(),
                };
                for step in steps.unwrap() {
                    at = match step {
                        Step::Publication(publication) => {
                            assert_eq!(publication.epoch.unwrap_or(Epoch(0)), at.epoch, "round {round}");
                            assert_eq!(publication.offset, at.offset + 1, "round {round}");
                            Cursor { offset: publication.offset, ..at }
                        }
                        Step::Gap(gap) => Cursor { epoch: gap.epoch, offset: gap.to },
                    };
                }
            }
            assert_eq!((at, sequence.cursor()), (top, top), "round {round}");
        }
    }
}
