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
    lane::{Lane, State, Turn, late},
    lately::Lately,
    retention::Due,
    stall::Stalls,
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
pub(super) const WRITE_DRAFTS: usize = 1000;

/// And so many bytes, for the same reason. It is far below what MongoDB takes in one message.
pub(super) const WRITE_BYTES: usize = 4 * 1024 * 1024;

/// Where one draft of a lane is written, so many are looked for that may be there already: they need no write.
const LOOKED_FOR: usize = 8;

/// For so long after a race was lost where none was to be expected, the line is wary: channels change their appender
/// together, so others are likely to follow.
const WARY_FOR: Duration = Duration::from_secs(2);

/// So many are taken into their lanes at one time.
const REQUESTS: usize = 1024;

/// What could not be written, or found out, in so long is given up. Its publisher may retry it with its id.
pub(super) const APPEND_LIMIT: Duration = Duration::from_secs(10);

/// What comes to a lane whose first has waited so long is refused at once. Else publishers that give up and come again
/// keep a log that fell behind there: all that it writes is for nobody.
pub(super) const BEHIND: Duration = Duration::from_secs(3);

/// How often it is looked for what has waited that long.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

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
    /// answered. There, what comes is looked for first. Else each of them would cost a write, and end it for all that goes
    /// with it.
    repeats: Lately,
    /// After this node stood still, all are looked for.
    stalls: Stalls,
    /// When a race was lost the last time where none was to be expected.
    surprised: Option<Instant>,
    written: Written,
    /// Why the last write failed, if it did.
    fault: Option<String>,
}

/// What goes in one write.
#[derive(Default)]
struct Group {
    batches: Vec<Batch>,
    /// Those to whose channels other nodes append.
    doubtful: Vec<Batch>,
    drafts: usize,
    bytes: usize,
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
            stalls: Stalls::new(),
            surprised: None,
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
            if self.stalls.look() {
                self.tops.forget();
            }
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
        self.lanes.insert(channel, Lane::new(append));
    }

    /// Lanes go together: one command for many channels does more than one for each of them. But where one of them has
    /// several drafts they are inserted in order, and one that is refused holds up what is behind it. So those that are
    /// likely to be refused go alone, or with their first draft beside the first drafts of others, which need no order
    /// (`Turn`); and where other nodes append, a lane goes to the end.
    fn start_writes(&mut self) {
        let mut free = WRITES.saturating_sub(self.writes.len());
        if free == 0 {
            return;
        }
        let is_after_stall = self.stalls.ended_lately();
        let is_wary = is_after_stall || self.surprised.is_some_and(|at| at.elapsed() < WARY_FOR);
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
            let is_only_first = self.ready.is_empty() && firsts.is_empty();
            let turn = lane.turn(has_rivals, is_wary, is_only_first);
            let group = if turn == Turn::First { &mut firsts } else { &mut runs };
            if turn == Turn::Alone || group.is_empty() {
                if free == 0 {
                    waiting.push_back(channel);
                    continue;
                }
                free -= 1;
            }
            lane.state = State::Writing;
            let room = if turn == Turn::Alone { WRITE_DRAFTS } else { WRITE_DRAFTS - group.drafts };
            let most = if turn == Turn::First { 1 } else { room };
            // What is there already goes by one look, also where one draft at most is written.
            let is_suspect = is_after_stall || self.repeats.has(&channel);
            let looked_for = if is_suspect { room.min(most.max(LOOKED_FOR)) } else { most };
            let (mut appends, bytes) = lane.next_write(looked_for, stood);
            if is_suspect {
                appends.iter_mut().for_each(Append::suspect);
            }
            let top = self.tops.take(&channel);
            let batch = Batch::new(channel, top, appends, most);
            if turn == Turn::Alone {
                self.start(vec![batch]);
                continue;
            }
            group.push(batch, bytes, has_rivals);
            if group.is_full() {
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
        if let Some(lane) = self.lanes.get_mut(&settled.channel) {
            lane.note(&settled);
        }
        let Settled { channel, top, written, left, is_held_up, taken, failure, .. } = settled;
        if let Some(top) = top {
            self.tops.set(&channel, top);
        }
        for (ids, stood) in written {
            self.written.note(channel.clone(), ids, stood);
        }
        match taken {
            Some(Taken::Offset) => {
                if !self.rivals.has(&channel) {
                    self.surprised = Some(Instant::now());
                }
                self.rivals.note(&channel);
            }
            Some(Taken::Ids) => self.repeats.note(&channel),
            None => {}
        }
        let Some(lane) = self.lanes.get_mut(&channel) else { return };
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
    /// `is_doubtful`: other nodes append to its channel.
    fn push(&mut self, batch: Batch, bytes: usize, is_doubtful: bool) {
        self.drafts += batch.appends.len();
        self.bytes += bytes;
        if is_doubtful { &mut self.doubtful } else { &mut self.batches }.push(batch);
    }

    fn is_full(&self) -> bool {
        self.drafts >= WRITE_DRAFTS || self.bytes >= WRITE_BYTES
    }

    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.doubtful.is_empty()
    }

    /// What may be refused comes last: there it holds up the least.
    fn in_order(mut self) -> Vec<Batch> {
        self.batches.append(&mut self.doubtful);
        self.batches
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
    use super::*;
    use crate::log::{fixture::channel, mongodb::write::fixture::appends};

    #[test]
    fn what_may_be_refused_comes_last() {
        let mut group = Group::default();
        for (name, is_doubtful) in [("room:a", false), ("room:b", true), ("room:c", false)] {
            group.push(Batch::new(channel(name), None, appends(2), 2), 10, is_doubtful);
        }
        assert_eq!((group.drafts, group.bytes), (6, 30));
        let names: Vec<_> = group.in_order().iter().map(|batch| batch.channel.to_string()).collect();
        assert_eq!(names, ["room:a", "room:c", "room:b"]);
    }
}
