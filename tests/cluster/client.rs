//! A client of the test: it publishes to a timetable, keeps its cursors, goes to another node when its connection
//! breaks, and takes note of every frame before anything sorts it.
//!
//! It is written against the protocol and not over the shipped client: what that one would put right, the checker has
//! to see.

mod connection;
mod life;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use xpush::client::{Via, Visit};
use xpush_protocol::{Codec, Cursor};

use crate::{
    history::{ChannelNumber, ClientNumber, Event, History},
    random::Random,
};
pub(crate) use connection::Ended;
use connection::{Start, dial};
use life::Life;

/// A node that is killed may be met while its socket still stands.
const DIAL_DEADLINE: Duration = Duration::from_secs(2);
/// A pause is drawn from 0 to this, doubled at each failure (full jitter): clients that all come back at once would
/// keep a busy node from letting any of them in.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LIMIT: Duration = Duration::from_secs(5);

/// The nodes, as a client can reach them.
pub(crate) trait Doors: Send + Sync + 'static {
    fn count(&self) -> usize;

    /// A connection to a node; the error is why there is none.
    fn dial<V>(
        &self,
        node: usize,
        via: Via,
        codec: Codec,
        visitor: V,
    ) -> impl Future<Output = Result<V::Output, String>> + Send
    where
        V: Visit + Send,
        V::Output: Send;
}

/// What the whole run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Connect and subscribe.
    Gather,
    Publish,
    /// Nothing new; what was not answered is sent again.
    Settle,
    End,
}

/// One client, and what it is to do.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) number: ClientNumber,
    pub(crate) via: Via,
    pub(crate) codec: Codec,
    /// The node that it begins at, and then the last one that let it in.
    pub(crate) node: usize,
    pub(crate) listens: Vec<ChannelNumber>,
    /// Publishes to one of these, at random.
    pub(crate) speaks: Vec<ChannelNumber>,
    /// Between two publishes. `None`: it publishes nothing.
    pub(crate) every: Option<Duration>,
    /// Loses the right to the first of its channels now and then, and gets it back.
    pub(crate) loses_rights: bool,
    pub(crate) tamper: Tamper,
    pub(crate) random: Random,
}

/// A bug of a client, planted to see that the checker finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tamper {
    #[default]
    None,
    /// Resumes one behind where it stood.
    SkipsOne,
    /// Resumes one before where it stood.
    RepeatsOne,
    /// Takes one channel less to the next node.
    ForgetsOne,
    /// Says that it lost the right, and keeps it: as a server that does not look.
    KeepsRight,
    /// Sends a message that was not answered again under another id.
    RenamesRetry,
}

/// Signs a client's token, for the channels that it may listen to. It may publish to all, and read them.
pub(crate) type SignToken = fn(user: &str, listens: &[&str]) -> String;

/// How far a client is, for who waits for it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) cursors: Mutex<HashMap<ChannelNumber, Cursor>>,
    /// Publishes that were not answered yet.
    pub(crate) unanswered: AtomicUsize,
    place: Mutex<At>,
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// Connected, with all its subscriptions.
    Home,
    /// On its way from one connection to the next, as it was asked to be, since then.
    Moving(Instant),
    Away,
}

impl View {
    pub(crate) fn new() -> Self {
        Self { cursors: Mutex::default(), unanswered: AtomicUsize::default(), place: Mutex::new(At::Away) }
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(*self.place(), At::Home)
    }

    /// Whether it is missing something. Who moves, and soon is there again, is not.
    pub(crate) fn is_away(&self, soon: Duration) -> bool {
        match *self.place() {
            At::Home => false,
            At::Moving(since) => since.elapsed() >= soon,
            At::Away => true,
        }
    }

    fn come_home(&self) {
        *self.place() = At::Home;
    }

    fn go_away(&self) {
        *self.place() = At::Away;
    }

    /// The next connection is there. Who was away is so until all its subscriptions are.
    fn move_on(&self) {
        let mut place = self.place();
        if matches!(*place, At::Home) {
            *place = At::Moving(Instant::now());
        }
    }

    fn place(&self) -> MutexGuard<'_, At> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, channel: ChannelNumber, cursor: Cursor) {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).insert(channel, cursor);
    }

    fn unset(&self, channel: ChannelNumber) {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel);
    }
}

/// A connection was lost, and the client is live again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recovery {
    pub(crate) at: Duration,
    pub(crate) via: Via,
    /// From the last frame that came until all channels were there again.
    pub(crate) took: Duration,
    /// It was asked to go.
    pub(crate) drained: bool,
}

/// What all clients of a run share.
pub(crate) struct Stage<D> {
    pub(crate) doors: D,
    pub(crate) history: Arc<History>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Of a message's data.
    pub(crate) payload: usize,
    /// A server that says nothing for so long is given up.
    pub(crate) dead_after: Duration,
    pub(crate) token: SignToken,
    pub(crate) recoveries: Mutex<Vec<Recovery>>,
}

/// Runs a client until the end of the run.
pub(crate) async fn run<D: Doors>(stage: Arc<Stage<D>>, part: Part, view: Arc<View>) {
    let Part { via, codec, number, mut node, .. } = part;
    let mut random = part.random.clone().fork();
    let life = Arc::new(tokio::sync::Mutex::new(Life::new(Arc::clone(&stage), part, view)));
    let mut phase = stage.phase.clone();
    let mut failures = 0_u32;
    while *phase.borrow_and_update() != Phase::End {
        let start = Start { life: Arc::clone(&life), phase: phase.clone(), node };
        let mut connection = match dial(Arc::clone(&stage), via, codec, start).await {
            Some(greet) => {
                let hello = life.lock().await.hello();
                let greeted = greet(hello).await;
                if let Err(why) = greeted {
                    life.lock().await.not_adopted(why);
                }
                greeted.ok()
            }
            None => None,
        };
        failures += u32::from(connection.is_none());
        while let Some(driving) = connection.take() {
            match driving.await {
                Ended::Done => return,
                Ended::Drained(next) => {
                    failures = 0;
                    connection = Some(next);
                }
                Ended::Lost { was_live } => failures = if was_live { 0 } else { failures + 1 },
            }
            stage.history.add(number, Event::Lost);
        }
        node = life.lock().await.another_node();
        if failures > 0 {
            let pause = random.up_to((PAUSE_FIRST * (1 << failures.min(8))).min(PAUSE_LIMIT));
            // It ends sooner when the run does.
            let _ = timeout(pause, phase.wait_for(|phase| *phase == Phase::End)).await;
        }
    }
}
