//! The line in front of the database: each channel has a lane, and of each lane one write at most is under way.
//!
//! So a channel's publications stand in the order in which they came, and what comes while the database is written to
//! gathers for the next write. Where a write did not get through, its drafts stay at the front of their lane.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    future,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval, sleep_until},
};
use tracing::{debug, error, warn};
use xpush_protocol::{ChannelName, Cursor};

use super::{
    super::{Appended, LogError},
    failure::Failure,
    lately::Lately,
    retention::Due,
    store::Store,
    tops::Tops,
    write::{Append, Batch, Settled, Taken, write},
    written::Written,
};

/// Writes under way at one time. More would each hold less, and cost MongoDB more: with 4, three nodes at 2,000 messages a
/// second kept it at two thirds of a core and an append took 32 ms (p50); with 2, 14 ms. One would let a hot channel keep
/// all others waiting.
const WRITES: usize = 2;

/// A write holds so many drafts at most: more would only make the first of them wait longer.
const WRITE_DRAFTS: usize = 1000;

/// And so many bytes, for the same reason. It is far below what MongoDB takes in one message.
const WRITE_BYTES: usize = 4 * 1024 * 1024;

/// A lane in which other nodes append, and so many wait, gets a write of its own. With 2, the writes of many short lanes
/// stood in each other's way: 256 appends at a time to 200 channels were a third as many in a second.
const LONG_LANE: usize = 8;

/// After so many writes in a row that were not refused, such a lane goes with others again, with all that it has. Else
/// one whose race is over long ago stays behind what it lost by it: one draft of it a write may be fewer than come.
const TRUSTED_AFTER: u32 = 2;

/// For so long after a lost race the line is wary: others are likely to follow, as channels change their appender
/// together.
const WARY_FOR: Duration = Duration::from_secs(2);

/// While it is wary, a lane goes with all that it has where so many wait, and else with its first.
const WARY_RUN: usize = 4;

/// So many are taken into their lanes at one time.
const REQUESTS: usize = 1024;

/// What could not be written, or found out, in so long is given up. Its publisher may retry it with its id.
pub(super) const APPEND_LIMIT: Duration = Duration::from_secs(10);

/// What comes to a lane whose first has waited so long is refused at once. Else publishers that give up and come again
/// keep a log that fell behind there: all that it writes is for nobody.
pub(super) const BEHIND: Duration = Duration::from_secs(3);

/// How often it is looked for what has waited that long.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A lane whose drafts were refused twice in a row rests so long. The first time there is no reason to: MongoDB
/// refuses a key when a majority has the other one, so a look tells. And who rests longer than the nodes that it races
/// with loses again: with 100 ms the slowest of a hundred appends took 1.1 s, with 2 ms 0.4 s (255 at a time from three
/// nodes to one channel, on a busy machine), and no fewer went through.
const PAUSE: Duration = Duration::from_millis(2);

/// Where writes fail, it doubles up to this.
const MAX_PAUSE: Duration = Duration::from_millis(200);

#[expect(
    clippy::large_enum_variant,
    reason = "all but the last are appends: a box would be one for each message"
)]
pub(super) enum Request {
    Append(ChannelName, Append),
    /// The last one.
    Close,
}

pub(super) struct Line {
    store: Arc<Store>,
    due: Arc<Due>,
    requests: mpsc::Receiver<Request>,
    /// Of those channels that have something in line.
    lanes: HashMap<ChannelName, Lane>,
    /// The lanes whose turn it is, in order. One that was emptied since may be among them.
    ready: VecDeque<ChannelName>,
    paused: BinaryHeap<Reverse<(Instant, ChannelName)>>,
    writes: JoinSet<Vec<Settled>>,
    tops: Arc<Tops>,
    rivals: Arc<Lately>,
    /// The channels to which messages come that are there already: who lost a connection sends all again that was not
    /// answered. There, all are looked for first. Else each of them would cost a write, and end it for all that goes with it.
    repeats: Lately,
    /// When a race was lost the last time.
    race_lost: Option<Instant>,
    written: Written,
    /// Why the last write failed, if it did.
    fault: Option<String>,
}

/// What goes in one write.
#[derive(Default)]
struct Group {
    batches: Vec<Batch>,
    /// Those in which other nodes append.
    doubtful: Vec<Batch>,
    drafts: usize,
    bytes: usize,
}

struct Lane {
    waiting: VecDeque<Append>,
    state: State,
    /// Writes in a row that got nothing through.
    setbacks: u32,
    /// Writes in a row of which nothing was refused.
    successes: u32,
    /// It was held up by another lane in the same write.
    was_held_up: bool,
}

/// How a lane's drafts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// All, in a write of their own.
    Alone,
    /// The first one, beside those of other lanes.
    First,
    /// All, beside those of other lanes.
    Run,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Paused,
    Writing,
}

impl Line {
    pub(super) fn new(
        store: Arc<Store>,
        due: Arc<Due>,
        tops: Arc<Tops>,
        rivals: Arc<Lately>,
        requests: mpsc::Receiver<Request>,
    ) -> Self {
        Self {
            store,
            due,
            requests,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            paused: BinaryHeap::new(),
            writes: JoinSet::new(),
            tops,
            rivals,
            repeats: Lately::default(),
            race_lost: None,
            written: Written::default(),
            fault: None,
        }
    }

    /// Ends when it was closed, and all that is in line is answered.
    pub(super) async fn run(mut self) {
        let mut is_open = true;
        let mut requests = Vec::with_capacity(REQUESTS);
        let mut check = interval(CHECK_INTERVAL);
        while is_open || !self.lanes.is_empty() {
            self.start_writes();
            let next_ready = self.paused.peek().map(|Reverse((at, _))| *at);
            tokio::select! {
                count = self.requests.recv_many(&mut requests, REQUESTS), if is_open => {
                    is_open = count > 0;
                    for request in requests.drain(..) {
                        match request {
                            Request::Append(channel, append) => self.take(channel, append),
                            Request::Close => is_open = false,
                        }
                    }
                }
                Some(settled) = self.writes.join_next() => match settled {
                    // The last first: those that were held up go to the front, each before the next.
                    Ok(settled) => settled.into_iter().rev().for_each(|settled| self.settle(settled)),
                    Err(error) => {
                        // Its lanes could never go on. Dropping them tells all who wait.
                        error!(%error, "a write of the log panicked; the log is closed");
                        return;
                    }
                },
                () = wait_until(next_ready) => self.end_pauses(),
                _ = check.tick() => self.give_up(),
            }
        }
    }

    fn take(&mut self, channel: ChannelName, append: Append) {
        if let Some(lane) = self.lanes.get_mut(&channel) {
            match lane.waiting.front().map(Append::waited).filter(|waited| *waited >= BEHIND) {
                Some(waited) => append.answer(Err(late(self.fault.as_deref(), waited))),
                None => lane.waiting.push_back(append),
            }
            return;
        }
        self.ready.push_back(channel.clone());
        self.lanes.insert(
            channel,
            Lane {
                waiting: VecDeque::from([append]),
                state: State::Ready,
                setbacks: 0,
                successes: 0,
                was_held_up: false,
            },
        );
    }

    /// Lanes go together: one command for many channels does more than one for each of them. But a lane that goes with
    /// several drafts may be refused, and then holds up what is behind it. So those in which other nodes append go to the
    /// end, and before they can be trusted with their first draft only, beside other firsts: there nobody holds up
    /// anybody. So do those that were held up: whatever else would do so shows in one write, and not one by one.
    fn start_writes(&mut self) {
        let mut free = WRITES.saturating_sub(self.writes.len());
        if free == 0 {
            return;
        }
        let is_wary = self.race_lost.is_some_and(|at| at.elapsed() < WARY_FOR);
        let (mut firsts, mut runs, mut waiting) = (Group::default(), Group::default(), VecDeque::new());
        while let Some(channel) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&channel) else { continue };
            if lane.state != State::Ready {
                continue;
            }
            let top = self.tops.peek(&channel);
            let stood = |append: &Append| self.written.cursor(&self.store, &channel, top, append);
            lane.answer_first(stood);
            if lane.waiting.is_empty() {
                self.lanes.remove(&channel);
                continue;
            }
            let has_rivals = self.rivals.has(&channel);
            let is_last = self.ready.is_empty() && firsts.is_empty();
            let turn = lane.turn(has_rivals, is_wary, is_last);
            let group = if turn == Turn::First { &mut firsts } else { &mut runs };
            if turn == Turn::Alone || group.is_empty() {
                if free == 0 {
                    waiting.push_back(channel);
                    continue;
                }
                free -= 1;
            }
            lane.state = State::Writing;
            lane.was_held_up = false;
            let most = match turn {
                Turn::Alone => WRITE_DRAFTS,
                Turn::First => 1,
                Turn::Run => WRITE_DRAFTS - group.drafts,
            };
            let (mut appends, bytes) = lane.next_write(most, stood);
            if self.repeats.has(&channel) {
                appends.iter_mut().for_each(Append::suspect);
            }
            let drafts = appends.len();
            let top = self.tops.take(&channel);
            let batch = Batch::new(channel, top, appends);
            if turn == Turn::Alone {
                self.start(vec![batch]);
                continue;
            }
            if has_rivals { &mut group.doubtful } else { &mut group.batches }.push(batch);
            group.drafts += drafts;
            group.bytes += bytes;
            if group.drafts >= WRITE_DRAFTS || group.bytes >= WRITE_BYTES {
                let full = std::mem::take(group);
                self.start(full.in_order());
            }
        }
        self.ready = waiting;
        for group in [firsts, runs] {
            if !group.is_empty() {
                self.start(group.in_order());
            }
        }
    }

    fn start(&mut self, batches: Vec<Batch>) {
        let (store, due) = (self.store.clone(), self.due.clone());
        self.writes.spawn(async move { write(&store, &due, batches).await });
    }

    fn settle(&mut self, settled: Settled) {
        let Settled { channel, top, written, left, is_ahead, is_held_up, taken, failure } = settled;
        if let Some(top) = top {
            self.tops.set(&channel, top);
        }
        for (ids, stood) in written {
            self.written.note(channel.clone(), ids, stood);
        }
        let is_refused = taken.is_some() || failure.is_some();
        match taken {
            Some(Taken::Offset) => {
                self.rivals.note(&channel);
                self.race_lost = Some(Instant::now());
            }
            Some(Taken::Ids) => self.repeats.note(&channel),
            None => {}
        }
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        lane.was_held_up = is_held_up;
        if is_refused {
            lane.successes = 0;
        } else if !is_held_up {
            lane.successes = lane.successes.saturating_add(1);
        }
        if !is_held_up {
            lane.setbacks = if is_ahead { 0 } else { lane.setbacks.saturating_add(1) };
        }
        for append in left.into_iter().rev() {
            lane.waiting.push_front(append);
        }
        let pause = lane.pause(failure.is_some());
        lane.state = State::Ready;
        match failure {
            Some(failure @ Failure::Damaged(_)) => {
                let error = failure.into();
                error!(%channel, %error, "appends are refused");
                lane.refuse(&error, |_| true);
            }
            Some(Failure::Unreachable(why)) => {
                let error = LogError::Unavailable { reason: why.clone() };
                lane.refuse(&error, Append::is_untried);
                self.refuse_all(&error);
                self.fault = Some(why);
            }
            Some(Failure::Unknown(why)) => {
                debug!(%channel, why, "a write did not get through");
                self.fault = Some(why);
            }
            None => self.fault = None,
        }
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        // Here, and not only at the next look for all: that finds lanes which rest, and this one hardly does.
        lane.give_up(self.fault.as_deref());
        if lane.waiting.is_empty() {
            self.lanes.remove(&channel);
        } else if is_held_up {
            // Before what came meanwhile.
            self.ready.push_front(channel);
        } else if pause.is_zero() {
            self.ready.push_back(channel);
        } else {
            lane.state = State::Paused;
            self.paused.push(Reverse((Instant::now() + pause, channel)));
        }
    }

    fn end_pauses(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, _))) = self.paused.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((_, channel))) = self.paused.pop() else { break };
            if let Some(lane) = self.lanes.get_mut(&channel)
                && lane.state == State::Paused
            {
                lane.state = State::Ready;
                self.ready.push_back(channel);
            }
        }
    }

    /// There is no server: what waits would only wait as long, each for itself.
    fn refuse_all(&mut self, error: &LogError) {
        let refused = self.answer_waiting(|lane| lane.refuse(error, Append::is_untried));
        if refused > 0 {
            warn!(%error, refused, "MongoDB can't be reached; appends are refused");
        }
    }

    /// Answers those who waited too long.
    fn give_up(&mut self) {
        let fault = self.fault.clone();
        let refused = self.answer_waiting(|lane| lane.give_up(fault.as_deref()));
        if refused > 0 {
            warn!(refused, "appends waited too long and are given up");
        }
    }

    /// In all lanes that have no write under way. Gives how many were answered.
    fn answer_waiting(&mut self, answer: impl Fn(&mut Lane) -> usize) -> usize {
        let mut answered = 0;
        self.lanes.retain(|_, lane| {
            if lane.state == State::Writing {
                return true;
            }
            answered += answer(lane);
            !lane.waiting.is_empty()
        });
        answered
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.doubtful.is_empty()
    }

    /// What may be refused comes last: there it holds up the least.
    fn in_order(mut self) -> Vec<Batch> {
        self.batches.append(&mut self.doubtful);
        self.batches
    }
}

impl Lane {
    /// `has_rivals`: other nodes append too. `is_last`: no other lane waits for its turn.
    fn turn(&self, has_rivals: bool, is_wary: bool, is_last: bool) -> Turn {
        let waiting = self.waiting.len();
        if has_rivals && self.successes < TRUSTED_AFTER {
            return if waiting >= LONG_LANE || is_last && waiting > 1 { Turn::Alone } else { Turn::First };
        }
        if self.was_held_up || is_wary && waiting < WARY_RUN { Turn::First } else { Turn::Run }
    }

    /// Answers the first ones, as far as they stand already.
    fn answer_first(&mut self, stood: impl Fn(&Append) -> Option<Cursor>) {
        while let Some(cursor) = self.waiting.front().and_then(&stood) {
            let Some(append) = self.waiting.pop_front() else { return };
            append.answer(Ok(Appended::Duplicate(cursor)));
        }
    }

    /// What goes into the next write, so many at most, and its bytes. What stands already is answered.
    fn next_write(
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

    fn pause(&self, failed: bool) -> Duration {
        match self.setbacks.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) if failed => PAUSE.saturating_mul(1 << doublings.min(16)).min(MAX_PAUSE),
            Some(_) => PAUSE,
        }
    }

    fn refuse(&mut self, error: &LogError, which: impl Fn(&Append) -> bool) -> usize {
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

    fn give_up(&mut self, fault: Option<&str>) -> usize {
        let now = Instant::now();
        if self.waiting.front().is_none_or(|append| append.deadline > now) {
            return 0;
        }
        self.refuse(&late(fault, APPEND_LIMIT), |append| append.deadline <= now)
    }
}

/// Why it takes so long: MongoDB does not do what it is asked, or it is asked for too much.
fn late(fault: Option<&str>, waited: Duration) -> LogError {
    match fault {
        Some(reason) => LogError::Unavailable { reason: reason.into() },
        None => LogError::Behind { waited },
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Semaphore, oneshot};

    use super::*;
    use crate::log::{
        fixture::{channel, draft},
        mongodb::write::Standing,
    };

    fn appends(count: usize) -> Vec<Append> {
        let places = Arc::new(Semaphore::new(count));
        let append = |n| Append {
            draft: draft("bench", n),
            reply: oneshot::channel().0,
            deadline: Instant::now() + APPEND_LIMIT,
            standing: Standing::New,
            _place: Arc::clone(&places).try_acquire_owned().unwrap(),
        };
        (0..count as u64).map(append).collect()
    }

    fn lane(waiting: usize, successes: u32) -> Lane {
        let waiting = appends(waiting).into();
        Lane { waiting, state: State::Ready, setbacks: 0, successes, was_held_up: false }
    }

    #[test]
    fn a_lane_without_rivals_goes_with_all_that_it_has_and_while_races_are_lost_with_its_first() {
        for waiting in [1, WARY_RUN - 1, WARY_RUN, LONG_LANE] {
            assert_eq!(lane(waiting, 0).turn(false, false, false), Turn::Run);
            let wary = if waiting < WARY_RUN { Turn::First } else { Turn::Run };
            assert_eq!(lane(waiting, 0).turn(false, true, false), wary);
        }
        let held_up = Lane { was_held_up: true, ..lane(LONG_LANE, 0) };
        assert_eq!(held_up.turn(false, false, false), Turn::First);
    }

    #[test]
    fn a_lane_with_rivals_goes_with_all_that_it_has_again_once_it_is_not_refused() {
        for successes in 0..TRUSTED_AFTER {
            assert_eq!(lane(LONG_LANE - 1, successes).turn(true, true, false), Turn::First);
            assert_eq!(lane(LONG_LANE, successes).turn(true, true, false), Turn::Alone);
            assert_eq!(lane(2, successes).turn(true, true, true), Turn::Alone);
        }
        assert_eq!(lane(LONG_LANE - 1, TRUSTED_AFTER).turn(true, true, false), Turn::Run);
        assert_eq!(lane(2, TRUSTED_AFTER).turn(true, false, true), Turn::Run);
    }

    #[test]
    fn what_may_be_refused_comes_last() {
        let batch = |name| Batch::new(channel(name), None, appends(2));
        let group = Group {
            batches: vec![batch("room:a"), batch("room:b")],
            doubtful: vec![batch("room:c")],
            ..Group::default()
        };
        let names: Vec<_> = group.in_order().iter().map(|batch| batch.channel.to_string()).collect();
        assert_eq!(names, ["room:a", "room:b", "room:c"]);
    }
}
