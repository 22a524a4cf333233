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
use xpush_protocol::ChannelName;

use super::{
    super::LogError,
    failure::Failure,
    record::Place,
    retention::Due,
    store::Store,
    write::{Append, Batch, Settled, write},
};

/// Writes under way at one time.
const WRITES: usize = 4;

/// A write holds so many drafts at most: more would only make the first of them wait longer.
const WRITE_DRAFTS: usize = 1000;

/// And so many bytes, for the same reason. It is far below what MongoDB takes in one message.
const WRITE_BYTES: usize = 4 * 1024 * 1024;

/// So many are taken into their lanes at one time.
const REQUESTS: usize = 1024;

/// What could not be written, or found out, in so long is given up. Its publisher may retry it with its id.
pub(super) const APPEND_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked for what has waited that long.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A lane rests so long when its writes got nothing through for the second time in a row. It doubles up to
/// `MAX_PAUSE`. The first time, there is no reason to wait: MongoDB refuses a key when a majority has the other one.
const PAUSE: Duration = Duration::from_millis(2);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// The ends of so many channels are remembered, twice: the last used, and those before.
const CACHED_TOPS: usize = 32 * 1024;

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
    tops: Tops,
}

struct Lane {
    waiting: VecDeque<Append>,
    state: State,
    /// Writes in a row that got nothing through.
    setbacks: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Paused,
    Writing,
}

impl Line {
    pub(super) fn new(store: Arc<Store>, due: Arc<Due>, requests: mpsc::Receiver<Request>) -> Self {
        Self {
            store,
            due,
            requests,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            paused: BinaryHeap::new(),
            writes: JoinSet::new(),
            tops: Tops::default(),
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
                    Ok(settled) => settled.into_iter().for_each(|settled| self.settle(settled)),
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
            lane.waiting.push_back(append);
            return;
        }
        self.ready.push_back(channel.clone());
        self.lanes
            .insert(channel, Lane { waiting: VecDeque::from([append]), state: State::Ready, setbacks: 0 });
    }

    /// Lanes with one draft go together. One with several goes alone, for its drafts must be inserted in order.
    fn start_writes(&mut self) {
        let mut free = WRITES.saturating_sub(self.writes.len());
        let mut group = Vec::new();
        let mut group_bytes = 0;
        while let Some(channel) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&channel) else { continue };
            if lane.state != State::Ready {
                continue;
            }
            let is_single = lane.waiting.len() == 1;
            if !is_single || group.is_empty() {
                if free == 0 {
                    self.ready.push_front(channel);
                    break;
                }
                free -= 1;
            }
            lane.state = State::Writing;
            let (appends, bytes) = lane.next_write();
            let top = self.tops.take(&channel);
            let batch = Batch::new(channel, top, appends);
            if !is_single {
                self.start(vec![batch]);
                continue;
            }
            group.push(batch);
            group_bytes += bytes;
            if group.len() == WRITE_DRAFTS || group_bytes >= WRITE_BYTES {
                self.start(std::mem::take(&mut group));
                group_bytes = 0;
            }
        }
        if !group.is_empty() {
            self.start(group);
        }
    }

    fn start(&mut self, batches: Vec<Batch>) {
        let (store, due) = (self.store.clone(), self.due.clone());
        self.writes.spawn(async move { write(&store, &due, batches).await });
    }

    fn settle(&mut self, settled: Settled) {
        let Settled { channel, top, left, is_ahead, failure } = settled;
        if let Some(top) = top {
            self.tops.set(&channel, top);
        }
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        lane.setbacks = if is_ahead { 0 } else { lane.setbacks.saturating_add(1) };
        for append in left.into_iter().rev() {
            lane.waiting.push_front(append);
        }
        let pause = lane.pause();
        lane.state = State::Ready;
        match failure {
            Some(failure @ Failure::Damaged(_)) => {
                let error = failure.into();
                error!(%channel, %error, "appends are refused");
                lane.refuse(&error, |_| true);
            }
            Some(failure @ Failure::Unreachable(_)) => {
                let error = failure.into();
                lane.refuse(&error, Append::is_untried);
                self.refuse_all(&error);
            }
            Some(Failure::Unknown(reason)) => {
                let given_up = lane.give_up(&reason);
                debug!(%channel, reason, given_up, "a write did not get through");
            }
            None => {}
        }
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
        if lane.waiting.is_empty() {
            self.lanes.remove(&channel);
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
        let refused = self.answer_waiting(|lane| lane.give_up("the log did not get to it in time"));
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
    /// What goes into the next write, and its bytes.
    fn next_write(&mut self) -> (Vec<Append>, usize) {
        let mut bytes = 0;
        let mut appends = Vec::new();
        while appends.len() < WRITE_DRAFTS && bytes < WRITE_BYTES {
            let Some(append) = self.waiting.pop_front() else { break };
            bytes += append.draft.payload.len();
            appends.push(append);
        }
        (appends, bytes)
    }

    fn pause(&self) -> Duration {
        match self.setbacks.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => PAUSE.saturating_mul(1 << doublings.min(16)).min(MAX_PAUSE),
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

    fn give_up(&mut self, reason: &str) -> usize {
        let now = Instant::now();
        if self.waiting.front().is_none_or(|append| append.deadline > now) {
            return 0;
        }
        self.refuse(&LogError::Unavailable { reason: reason.into() }, |append| append.deadline <= now)
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => future::pending().await,
    }
}

/// The newest offsets of the channels that were written to last, as far as a majority has them. Another node may have
/// gone on since; then the next write is refused, and its lane asks again.
#[derive(Default)]
struct Tops {
    recent: HashMap<ChannelName, Place>,
    earlier: HashMap<ChannelName, Place>,
}

impl Tops {
    /// While a write is under way there is none: only its end tells where the channel ends.
    fn take(&mut self, channel: &ChannelName) -> Option<Place> {
        let earlier = self.earlier.remove(channel);
        self.recent.remove(channel).or(earlier)
    }

    fn set(&mut self, channel: &ChannelName, top: Place) {
        if self.recent.len() >= CACHED_TOPS {
            self.earlier = std::mem::take(&mut self.recent);
        }
        self.recent.insert(channel.clone(), top);
    }
}
