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
    written: Written,
    /// Why the last write failed, if it did.
    fault: Option<String>,
}

/// What goes in one write.
#[derive(Default)]
struct Group {
    batches: Vec<Batch>,
    drafts: usize,
    bytes: usize,
}

struct Lane {
    waiting: VecDeque<Append>,
    state: State,
    /// Writes in a row that got nothing through.
    setbacks: u32,
    /// It was held up by another lane in the same write.
    was_held_up: bool,
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
            Lane { waiting: VecDeque::from([append]), state: State::Ready, setbacks: 0, was_held_up: false },
        );
    }

    /// Lanes go together: one command for many channels does more than one for each of them. But lanes in which other
    /// nodes append too may be refused, and then hold up what goes with them in order: they go with their first draft
    /// each, or alone. So do those that were held up: whatever else would do so shows in one write, and not one by one.
    fn start_writes(&mut self) {
        let mut free = WRITES.saturating_sub(self.writes.len());
        if free == 0 {
            return;
        }
        let (mut calm, mut raced, mut waiting) = (Group::default(), Group::default(), VecDeque::new());
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
            let is_raced = self.rivals.has(&channel);
            let is_last = self.ready.is_empty() && raced.batches.is_empty();
            let goes_alone =
                is_raced && lane.waiting.len() > 1 && (lane.waiting.len() >= LONG_LANE || is_last);
            let is_careful = is_raced || lane.was_held_up;
            let group = if is_careful { &mut raced } else { &mut calm };
            if goes_alone || group.batches.is_empty() {
                if free == 0 {
                    waiting.push_back(channel);
                    continue;
                }
                free -= 1;
            }
            lane.state = State::Writing;
            lane.was_held_up = false;
            let most = match (goes_alone, is_careful) {
                (true, _) => WRITE_DRAFTS,
                (false, true) => 1,
                (false, false) => WRITE_DRAFTS - group.drafts,
            };
            let (mut appends, bytes) = lane.next_write(most, stood);
            if self.repeats.has(&channel) {
                appends.iter_mut().for_each(Append::suspect);
            }
            let drafts = appends.len();
            let top = self.tops.take(&channel);
            let batch = Batch::new(channel, top, appends);
            if goes_alone {
                self.start(vec![batch]);
                continue;
            }
            group.batches.push(batch);
            group.drafts += drafts;
            group.bytes += bytes;
            if group.drafts >= WRITE_DRAFTS || group.bytes >= WRITE_BYTES {
                let full = std::mem::take(group);
                self.start(full.batches);
            }
        }
        self.ready = waiting;
        for group in [calm, raced] {
            if !group.batches.is_empty() {
                self.start(group.batches);
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
        match taken {
            Some(Taken::Offset) => self.rivals.note(&channel),
            Some(Taken::Ids) => self.repeats.note(&channel),
            None => {}
        }
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        lane.was_held_up = is_held_up;
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

impl Lane {
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
