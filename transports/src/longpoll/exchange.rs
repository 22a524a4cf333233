//! Where the requests of one client and the writes of its session meet.
//!
//! Frames from the client wait in a queue for the reader. Frames for the client do not wait at all: a write stays
//! with its writer until a poll hangs, and is then that poll's answer. Only the last answer is kept, until the
//! client confirms it.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::state::{PollId, State};
use crate::Closed;

/// How long frames that are no news wait for some that are. A client whose polls go to another node each time would
/// be told at once, each time, that another node answers, and poll again at once; one whose node died has to hear it
/// soon, for it may have publishes to send again.
const COMPANY_WAIT: Duration = Duration::from_millis(500);

/// What a poll is answered with.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) state: Option<State>,
    pub(super) frames: Vec<Bytes>,
}

/// Both ends of one connection.
#[derive(Debug)]
pub(super) struct Exchange {
    id: PollId,
    /// To the reader.
    queue: mpsc::Sender<Bytes>,
    desk: Mutex<Desk>,
    /// A poll hangs now, or the connection is over.
    changed: Notify,
    /// Something was put aside.
    aside: Notify,
    /// The reader reads what is queued, and then why it ends.
    reader_ended: CancellationToken,
}

#[derive(Debug)]
struct Desk {
    /// Of the last answer that had frames.
    number: u64,
    checkpoint: String,
    /// Frames that are no reason to answer a poll. They go before the next ones, or after `COMPANY_WAIT`.
    aside: Vec<Bytes>,
    /// When that is over.
    aside_until: Instant,
    /// The last answer, until it is confirmed.
    kept: Option<Kept>,
    hanging: Option<Hanging>,
    /// Counts polls.
    tickets: u64,
    /// The last sign of the client.
    heard: Instant,
    /// Why the reader ends.
    why: Option<Closed>,
    /// Nothing can be written any more.
    over: bool,
}

#[derive(Debug)]
struct Kept {
    answer: Answer,
    ticket: u64,
    /// The frames of the request that it answered were queued for the reader.
    taken: bool,
}

#[derive(Debug)]
struct Hanging {
    ticket: u64,
    taken: bool,
    answer: oneshot::Sender<Answer>,
}

/// What a poll with an answer's number comes to.
#[derive(Debug)]
pub(super) enum Begun {
    /// It hangs.
    Hangs(Hung),
    /// It missed this answer. Its frames are to be taken if they were not the first time.
    Missed { answer: Answer, ticket: u64, taken: bool },
    /// It is of a time that nothing is left of.
    Stale,
}

/// A poll that hangs; no longer when this is dropped.
#[derive(Debug)]
pub(super) struct Hung {
    exchange: Arc<Exchange>,
    ticket: u64,
    answer: oneshot::Receiver<Answer>,
}

/// The connection has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over;

impl Exchange {
    pub(super) fn new(id: PollId, queue: mpsc::Sender<Bytes>) -> Self {
        let desk = Desk {
            number: 0,
            checkpoint: String::new(),
            aside: Vec::new(),
            aside_until: Instant::now(),
            kept: None,
            hanging: None,
            tickets: 0,
            heard: Instant::now(),
            why: None,
            over: false,
        };
        let (changed, aside, reader_ended) = (Notify::new(), Notify::new(), CancellationToken::new());
        Self { id, queue, desk: Mutex::new(desk), changed, aside, reader_ended }
    }

    pub(super) fn id(&self) -> PollId {
        self.id
    }

    // The client's side.

    /// A poll comes that saw the answer of this number.
    pub(super) fn begin(self: &Arc<Self>, number: u64) -> Begun {
        let mut desk = self.desk();
        if desk.over {
            return Begun::Stale;
        }
        desk.heard = Instant::now();
        if number == desk.number {
            desk.kept = None;
            let (answer, receiver) = oneshot::channel();
            desk.tickets += 1;
            let ticket = desk.tickets;
            // One poll hangs: the older one gets its state back, and whoever sent it sees that it is superseded.
            if let Some(older) = desk.hanging.replace(Hanging { ticket, taken: false, answer }) {
                let _ = older.answer.send(desk.nothing(self.id));
            }
            drop(desk);
            self.changed.notify_one();
            return Begun::Hangs(Hung { exchange: Arc::clone(self), ticket, answer: receiver });
        }
        match &desk.kept {
            Some(kept) if number + 1 == desk.number => {
                Begun::Missed { answer: kept.answer.clone(), ticket: kept.ticket, taken: kept.taken }
            }
            _ => Begun::Stale,
        }
    }

    /// Queues the frames of one request, all or, if dropped before, none; waits for room. `ticket` is that of the
    /// poll they came with.
    pub(super) async fn take(&self, frames: Vec<Bytes>, ticket: Option<u64>) -> Result<(), Over> {
        self.desk().heard = Instant::now();
        let room = self.queue.reserve_many(frames.len()).await.map_err(|_| Over)?;
        for (place, frame) in room.zip(frames) {
            place.send(frame);
        }
        if let Some(ticket) = ticket {
            self.desk().taken(ticket);
        }
        Ok(())
    }

    /// Ends the reader, behind what is queued; the writer may still say why.
    pub(super) fn end_reader(&self, why: Closed) {
        self.desk().why.get_or_insert(why);
        self.reader_ended.cancel();
    }

    /// Ends both.
    pub(super) fn end(&self, why: Closed) {
        self.end_reader(why);
        self.end_writer();
    }

    // The session's side.

    /// Answers the poll that hangs with these frames, and the checkpoint behind them. Without a poll: leaves the
    /// frames where they are and says no.
    ///
    /// A last answer is not kept, and holds no state: nothing follows it.
    pub(super) fn answer(
        &self,
        frames: &mut Vec<Bytes>,
        checkpoint: &mut Option<String>,
        last: bool,
    ) -> Result<bool, Over> {
        let mut desk = self.desk();
        if desk.over {
            return Err(Over);
        }
        let Some(Hanging { ticket, taken, answer: poll }) = desk.hanging.take() else { return Ok(false) };
        desk.heard = Instant::now();
        frames.splice(..0, mem::take(&mut desk.aside));
        if last {
            let answer = Answer { state: None, frames: frames.clone() };
            // A poll that was just given up can't be the one that is told; another may come.
            desk.over = poll.send(answer).is_ok();
            return Ok(desk.over);
        }
        if let Some(checkpoint) = checkpoint.take() {
            desk.checkpoint = checkpoint;
        }
        let answer = desk.keep(self.id, mem::take(frames), ticket, taken);
        // Given up a moment ago: the client will ask for it.
        let _ = poll.send(answer);
        Ok(true)
    }

    /// Keeps frames that are no news until there are some, and the checkpoint behind them.
    pub(super) fn put_aside(&self, frames: Vec<Bytes>, checkpoint: Option<String>) -> Result<(), Over> {
        let mut desk = self.desk();
        if desk.over {
            return Err(Over);
        }
        if desk.aside.is_empty() {
            desk.aside_until = Instant::now() + COMPANY_WAIT;
        }
        desk.aside.extend(frames);
        if let Some(checkpoint) = checkpoint {
            desk.checkpoint = checkpoint;
        }
        drop(desk);
        self.aside.notify_one();
        Ok(())
    }

    /// Until there may be something new to see for the writer.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Nothing is written any more. A poll that hangs sees it.
    pub(super) fn end_writer(&self) {
        let mut desk = self.desk();
        desk.over = true;
        desk.hanging = None;
        drop(desk);
        self.changed.notify_one();
    }

    pub(super) fn over(&self) -> bool {
        self.desk().over
    }

    /// When the client is idle, if nothing more comes. A poll that hangs is a client that listens.
    pub(super) fn patience(&self, idle: Duration) -> Instant {
        let desk = self.desk();
        let heard = if desk.hanging.is_some() { Instant::now() } else { desk.heard };
        heard + idle
    }

    pub(super) async fn reader_ended(&self) -> Closed {
        self.reader_ended.cancelled().await;
        self.desk().why.clone().unwrap_or_else(|| Closed::Lost("the connection has ended".into()))
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Whole after every statement that could panic.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a poll hangs that would hang until then: less, where something is put aside.
    fn until(&self, end: Instant) -> Instant {
        let desk = self.desk();
        if desk.aside.is_empty() { end } else { end.min(desk.aside_until) }
    }

    /// What was put aside, as the answer of the poll that hangs.
    fn give_aside(&self, ticket: u64) -> Option<Answer> {
        let mut desk = self.desk();
        if desk.aside.is_empty() {
            return None;
        }
        let Hanging { taken, .. } = desk.hanging.take_if(|hanging| hanging.ticket == ticket)?;
        desk.heard = Instant::now();
        let frames = mem::take(&mut desk.aside);
        Some(desk.keep(self.id, frames, ticket, taken))
    }

    /// Whether that poll was still hanging.
    fn leave(&self, ticket: u64) -> bool {
        let mut desk = self.desk();
        desk.hanging.take_if(|hanging| hanging.ticket == ticket).is_some()
    }
}

impl Desk {
    fn state(&self, id: PollId) -> State {
        State { id, number: self.number, checkpoint: self.checkpoint.clone() }
    }

    /// The next answer, which is kept until it is confirmed.
    fn keep(&mut self, id: PollId, frames: Vec<Bytes>, ticket: u64, taken: bool) -> Answer {
        self.number += 1;
        let answer = Answer { state: Some(self.state(id)), frames };
        self.kept = Some(Kept { answer: answer.clone(), ticket, taken });
        answer
    }

    /// There is nothing to say: the same state again.
    fn nothing(&self, id: PollId) -> Answer {
        Answer { state: Some(self.state(id)), frames: Vec::new() }
    }

    fn taken(&mut self, ticket: u64) {
        if let Some(hanging) = self.hanging.as_mut().filter(|hanging| hanging.ticket == ticket) {
            hanging.taken = true;
        }
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.ticket == ticket) {
            kept.taken = true;
        }
    }
}

impl Hung {
    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The answer, with no frames if there are none in this time. `None`: the session is gone.
    pub(super) async fn answer(&mut self, wait: Duration) -> Option<Answer> {
        let end = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                answer = &mut self.answer => return answer.ok(),
                () = sleep_until(self.exchange.until(end)) => break,
                () = self.exchange.aside.notified() => {}
            }
        }
        if let Some(aside) = self.exchange.give_aside(self.ticket) {
            return Some(aside);
        }
        if self.exchange.leave(self.ticket) {
            let mut desk = self.exchange.desk();
            desk.heard = Instant::now();
            return Some(desk.nothing(self.exchange.id));
        }
        // The answer was given while the time ran out.
        (&mut self.answer).await.ok()
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.exchange.leave(self.ticket);
    }
}
