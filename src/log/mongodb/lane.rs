//! What waits for one channel, and how it goes into the next write.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;
use xpush_protocol::Cursor;

use super::{
    super::{Appended, LogError},
    line::{APPEND_LIMIT, WRITE_BYTES},
    write::{Append, Settled, Taken},
};

/// A lane in which other nodes append, and so many wait, gets a write of its own, as long as it can't go with others. With
/// 2, the writes of many short lanes stood in each other's way: 256 appends at a time to 200 channels were a third as many
/// in a second.
const LONG_LANE: usize = 8;

/// A lane in which other nodes append goes with others again, with all that it has, after so many writes in a row that got
/// through. One draft a write may be fewer than come: three nodes that shared a full machine made 25 writes a second, and
/// what had lost a race when channels changed their appender stayed seconds behind. One win may be luck.
const TRUSTED_AFTER: u32 = 2;

/// While the line is wary, a lane goes with all that it has where so many wait, and else with its first. With one, each
/// race that is lost would go on holding up some sixty lanes; with many, short lanes would fall behind.
const WARY_RUN: usize = 4;

/// A lane whose drafts were refused twice in a row rests so long. The first time there is no reason to: MongoDB
/// refuses a key when a majority has the other one, so a look tells. And who rests longer than the nodes that it races
/// with loses again: with 100 ms the slowest of a hundred appends took 1.1 s, with 2 ms 0.4 s (255 at a time from three
/// nodes to one channel, on a busy machine), and no fewer went through.
const PAUSE: Duration = Duration::from_millis(2);

/// Where writes fail, it doubles up to this.
const MAX_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Lane {
    pub(super) waiting: VecDeque<Append>,
    pub(super) state: State,
    /// Writes in a row that got nothing through.
    setbacks: u32,
    /// Whether other nodes appended too when its turn was taken the last time.
    is_raced: bool,
    /// Writes in a row that got through although other nodes append.
    wins: u32,
    /// It was held up by another lane in the same write.
    was_held_up: bool,
}

/// How a lane's drafts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// As many as fit, in a write of their own.
    Alone,
    /// The first one, beside the first ones of others: no order is to be kept, so nobody holds up anybody.
    First,
    /// As many as fit, beside those of others.
    Run,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Paused,
    Writing,
}

impl Lane {
    pub(super) fn new(append: Append) -> Self {
        Self {
            waiting: VecDeque::from([append]),
            state: State::Ready,
            setbacks: 0,
            is_raced: false,
            wins: 0,
            was_held_up: false,
        }
    }

    /// `has_rivals`: other nodes append too. `is_wary`: more races than those may be lost. `is_only_first`: no other lane
    /// would go with its first draft.
    pub(super) fn turn(&mut self, has_rivals: bool, is_wary: bool, is_only_first: bool) -> Turn {
        self.is_raced = has_rivals;
        let waiting = self.waiting.len();
        let is_doubtful = has_rivals && self.wins < TRUSTED_AFTER;
        let is_careful = is_doubtful || self.was_held_up || is_wary && waiting < WARY_RUN;
        if !is_careful {
            return Turn::Run;
        }
        let is_long = has_rivals && waiting >= LONG_LANE;
        if is_long || is_only_first && waiting > 1 { Turn::Alone } else { Turn::First }
    }

    /// Takes note of how a write ended for it.
    pub(super) fn note(&mut self, settled: &Settled) {
        self.was_held_up = settled.is_held_up;
        if settled.is_held_up {
            return;
        }
        self.setbacks = if settled.is_ahead { 0 } else { self.setbacks.saturating_add(1) };
        // What it wrote while nobody else did says nothing of a race.
        if settled.taken == Some(Taken::Offset) || settled.failure.is_some() || !self.is_raced {
            self.wins = 0;
        } else if !settled.written.is_empty() {
            self.wins = self.wins.saturating_add(1);
        }
    }

    /// Answers the first ones, as far as they stand already.
    pub(super) fn answer_first(&mut self, stood: impl Fn(&Append) -> Option<Cursor>) {
        while let Some(cursor) = self.waiting.front().and_then(&stood) {
            let Some(append) = self.waiting.pop_front() else { return };
            append.answer(Ok(Appended::Duplicate(cursor)));
        }
    }

    /// What goes into the next write, so many at most, and its bytes. What stands already is answered.
    pub(super) fn next_write(
        &mut self,
        drafts: usize,
        stood: impl Fn(&Append) -> Option<Cursor>,
    ) -> (Vec<Append>, usize) {
        let mut bytes = 0;
        let mut appends = Vec::new();
        while appends.len() < drafts && bytes < WRITE_BYTES {
            let Some(append) = self.waiting.pop_front() else { break };
            if let Some(cursor) = stood(&append) {
                append.answer(Ok(Appended::Duplicate(cursor)));
                continue;
            }
            bytes += append.draft.payload.len();
            appends.push(append);
        }
        (appends, bytes)
    }

    pub(super) fn pause(&self, failed: bool) -> Duration {
        match self.setbacks.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) if failed => PAUSE.saturating_mul(1 << doublings.min(16)).min(MAX_PAUSE),
            Some(_) => PAUSE,
        }
    }

    pub(super) fn refuse(&mut self, error: &LogError, which: impl Fn(&Append) -> bool) -> usize {
        let before = self.waiting.len();
        for append in std::mem::take(&mut self.waiting) {
            if which(&append) {
                append.answer(Err(error.clone()));
            } else {
                self.waiting.push_back(append);
            }
        }
        before - self.waiting.len()
    }

    pub(super) fn give_up(&mut self, fault: Option<&str>) -> usize {
        let now = Instant::now();
        if self.waiting.front().is_none_or(|append| append.deadline > now) {
            return 0;
        }
        self.refuse(&late(fault, APPEND_LIMIT), |append| append.deadline <= now)
    }
}

/// Why it takes so long: MongoDB does not do what it is asked, or it is asked for too much.
pub(super) fn late(fault: Option<&str>, waited: Duration) -> LogError {
    match fault {
        Some(reason) => LogError::Unavailable { reason: reason.into() },
        None => LogError::Behind { waited },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{
        fixture::channel,
        mongodb::{failure::Failure, write::fixture::appends, written::Stood},
    };

    fn lane(waiting: usize) -> Lane {
        let mut appends = appends(waiting).into_iter();
        let mut lane = Lane::new(appends.next().unwrap());
        lane.waiting.extend(appends);
        lane
    }

    /// The end of a write that got one draft through.
    fn through() -> Settled {
        let append = appends(1).remove(0);
        Settled {
            channel: channel("room:a"),
            top: None,
            written: vec![(append.ids(), Stood { offset: 1, time: append.draft.time })],
            left: vec![],
            is_ahead: true,
            is_held_up: false,
            taken: None,
            failure: None,
        }
    }

    fn trusted(waiting: usize) -> Lane {
        let mut lane = lane(waiting);
        for _ in 0..TRUSTED_AFTER {
            assert_ne!(lane.turn(true, false, false), Turn::Run);
            lane.note(&through());
        }
        assert_eq!(lane.turn(true, false, false), Turn::Run);
        lane
    }

    #[test]
    fn without_rivals_a_lane_goes_with_all_that_it_has_and_with_its_first_where_the_line_is_wary() {
        for waiting in [1, WARY_RUN - 1, WARY_RUN, LONG_LANE] {
            assert_eq!(lane(waiting).turn(false, false, false), Turn::Run);
            let wary = if waiting < WARY_RUN { Turn::First } else { Turn::Run };
            assert_eq!(lane(waiting).turn(false, true, false), wary);
        }
        assert_eq!(lane(2).turn(false, true, true), Turn::Alone, "no other first is there to go with");
    }

    #[test]
    fn with_rivals_a_lane_goes_with_its_first_or_alone_until_it_is_trusted() {
        assert_eq!(lane(LONG_LANE - 1).turn(true, false, false), Turn::First);
        assert_eq!(lane(LONG_LANE).turn(true, false, false), Turn::Alone);
        assert_eq!(lane(2).turn(true, false, true), Turn::Alone);
        assert_eq!(lane(1).turn(true, false, true), Turn::First);
        assert_eq!(trusted(LONG_LANE).turn(true, true, false), Turn::Run);
        assert_eq!(trusted(2).turn(true, true, true), Turn::Alone);
    }

    #[test]
    fn a_race_that_is_lost_ends_the_trust_and_so_does_a_failure() {
        let lost = Settled { taken: Some(Taken::Offset), ..through() };
        let failed = Settled { failure: Some(Failure::Unknown("it broke".into())), ..through() };
        for settled in [lost, failed] {
            let mut lane = trusted(2);
            lane.note(&settled);
            assert_eq!(lane.turn(true, false, false), Turn::First);
        }
    }

    #[test]
    fn what_says_nothing_of_a_race_neither_gives_trust_nor_takes_it() {
        let nothing = || Settled { written: vec![], ..through() };
        let found = || Settled { taken: Some(Taken::Ids), ..nothing() };
        let mut new = lane(2);
        for _ in 0..=TRUSTED_AFTER {
            assert_eq!(new.turn(true, false, false), Turn::First, "nothing was written");
            new.note(&nothing());
        }
        let mut busy = lane(2);
        for _ in 0..=TRUSTED_AFTER {
            assert_eq!(busy.turn(false, false, false), Turn::Run);
            busy.note(&through());
        }
        for _ in 0..TRUSTED_AFTER {
            assert_eq!(busy.turn(true, false, false), Turn::First, "there was no race to win before");
            busy.note(&through());
        }
        assert_eq!(busy.turn(true, false, false), Turn::Run);
        let mut lane = trusted(2);
        lane.note(&found());
        assert_eq!(lane.turn(true, false, false), Turn::Run);
    }

    #[test]
    fn who_was_held_up_goes_with_its_first_once() {
        let mut lane = trusted(LONG_LANE - 1);
        lane.note(&Settled { written: vec![], is_ahead: false, is_held_up: true, ..through() });
        assert_eq!(lane.setbacks, 0, "nothing speaks against it");
        assert_eq!(lane.turn(true, false, false), Turn::First);
        lane.note(&through());
        assert_eq!(lane.turn(true, false, false), Turn::Run);
    }
}
