//! Puts one channel's publications in order: a wire of several streams may bring them otherwise.

use std::collections::BTreeMap;

use xpush_protocol::{Cursor, Gap, Publication};

/// Publications held because one before them has not come; the server fills every hole or names it, so more than
/// this means that it broke its word, and the client subscribes anew with its cursor.
const HELD_CAPACITY: usize = 4096;

/// Where one channel's reader stands.
#[derive(Debug)]
pub struct Sequence {
    cursor: Cursor,
    /// Holes are not waited for.
    ephemeral: bool,
    held: BTreeMap<u64, Held>,
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

/// More is held than may be.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflow;

impl Sequence {
    #[must_use]
    pub fn new(cursor: Cursor, ephemeral: bool) -> Self {
        Self { cursor, ephemeral, held: BTreeMap::new() }
    }

    /// Behind the last publication that was given out.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Takes a publication; gives what is next in line now.
    pub fn publication(&mut self, publication: Publication) -> Result<Vec<Step>, Overflow> {
        let offset = publication.offset;
        if offset <= self.cursor.offset {
            return Ok(vec![]);
        }
        if self.ephemeral {
            self.cursor.offset = offset;
            return Ok(vec![Step::Publication(Box::new(publication))]);
        }
        self.hold(offset, Held::Publication(Box::new(publication)))
    }

    /// Takes a gap; it counts once everything before it was given out.
    pub fn gap(&mut self, gap: Gap) -> Result<Vec<Step>, Overflow> {
        if gap.epoch != self.cursor.epoch {
            self.held.clear();
            self.cursor = Cursor { epoch: gap.epoch, offset: gap.to };
            return Ok(vec![Step::Gap(gap)]);
        }
        self.hold(gap.from, Held::Gap(gap))
    }

    fn hold(&mut self, at: u64, held: Held) -> Result<Vec<Step>, Overflow> {
        if self.held.len() >= HELD_CAPACITY {
            return Err(Overflow);
        }
        self.held.insert(at, held);
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
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use xpush_protocol::{Epoch, Json, MessageId};

    use super::*;

    fn publication(offset: u64) -> Publication {
        Publication {
            channel: "room:a".parse().unwrap(),
            offset,
            message_id: MessageId::random(),
            event: xpush_protocol::EventName::default(),
            data: Some(Json::parse("1").unwrap()),
            binary: None,
            user: None,
            time: 0,
        }
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
        assert_eq!(offsets(sequence.publication(publication(1))), [1]);
    }

    #[test]
    fn an_ephemeral_channel_waits_for_nothing() {
        let mut sequence = Sequence::new(Cursor { epoch: Epoch(1), offset: 0 }, true);
        assert_eq!(offsets(sequence.publication(publication(3))), [3]);
        assert_eq!(offsets(sequence.publication(publication(2))), [0_u64; 0]);
    }
}
