//! A log for several nodes of one process, as plain as can be: what is appended is there, and every node sees it.
//!
//! A node uses it by a desk, and a desk may have a flaw: that is how a bug of a log is planted without one.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use tokio::{task::JoinSet, time::sleep};
use xpush::{
    log::{Appended, Extent, From, Log, LogError, Page, Pending, Query},
    publication::{Draft, Publication, Publisher},
};
use xpush_protocol::{ChannelName, Cursor, Epoch, MessageId};

use crate::random::Random;

/// From the moment that a publication is in the ledger until its publisher hears of it, at most: so long its answer
/// may be lost with its node.
const ANSWER_WITHIN: Duration = Duration::from_millis(40);
/// A flaw that shows now and then shows once in so many times.
const NOW_AND_THEN: u64 = 20;
/// A desk that freezes does so after so many publications.
const FREEZE_AFTER: u64 = 100;

/// What was appended.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<State>);

#[derive(Default, Clone)]
struct State {
    epoch: u32,
    channels: HashMap<ChannelName, Written>,
}

#[derive(Default, Clone)]
struct Written {
    publications: Vec<Arc<Publication>>,
    places: HashMap<(Publisher, MessageId), u64>,
}

/// What is wrong with a desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// Answers before the write, which goes with the node.
    AnswersFirst,
    /// Takes a publication back that it has answered for, as a primary that rolls back.
    RollsBack,
    /// Gives a publication the place of the one before it.
    ReusesOffset,
    /// Does not know a message again.
    ForgetsIds,
    /// Knows a message again, and names the channel's end as its place.
    MisplacesDuplicates,
    /// Goes on by what it knew once, as a node that was frozen and believes that it still leads.
    Freezes,
    /// Leaves publications out of its pages.
    LeavesOut,
    /// Begins a page one too late.
    ReadsLate,
    /// Begins a page one too early.
    ReadsEarly,
    /// Gives two neighbours in each other's place.
    SwapsNeighbours,
    /// Says that a channel is longer than it is.
    LeapsAhead,
    /// Shows less than there is.
    HidesTheEnd,
    /// Says that the oldest are gone, which are there.
    DisownsTheOld,
    /// Mixes up what two messages say.
    MixesData,
}

impl Ledger {
    /// All is lost, and a new epoch begins; or so it should.
    pub(crate) fn lose(&self, tells: bool) {
        let mut state = self.state();
        state.channels.clear();
        state.epoch += u32::from(tells);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Written {
    fn push(&mut self, draft: Draft) -> Arc<Publication> {
        let offset = self.publications.len() as u64 + 1;
        self.places.insert((draft.publisher.clone(), draft.message_id.clone()), offset);
        let publication = Arc::new(draft.into_publication(offset));
        self.publications.push(Arc::clone(&publication));
        publication
    }
}

/// One node's access to a ledger.
pub(crate) struct Desk {
    ledger: Arc<Ledger>,
    flaw: Flaw,
    random: Mutex<Random>,
    appended: AtomicU64,
    /// What a desk that freezes goes on with.
    frozen: Mutex<Option<Arc<Ledger>>>,
    /// Writes that were answered for and are not done: they end with the desk.
    owed: Arc<Mutex<HashMap<ChannelName, u64>>>,
    writing: Mutex<JoinSet<()>>,
}

impl Desk {
    pub(crate) fn new(ledger: &Arc<Ledger>, flaw: Flaw, random: Random) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            flaw,
            random: Mutex::new(random),
            appended: AtomicU64::new(0),
            frozen: Mutex::default(),
            owed: Arc::default(),
            writing: Mutex::default(),
        }
    }

    /// What this node takes for the ledger.
    fn ledger(&self) -> Arc<Ledger> {
        let mut frozen = lock(&self.frozen);
        if self.flaw == Flaw::Freezes
            && frozen.is_none()
            && self.appended.load(Ordering::Relaxed) > FREEZE_AFTER
        {
            *frozen = Some(Arc::new(Ledger(Mutex::new(self.ledger.state().clone()))));
        }
        frozen.as_ref().map_or_else(|| Arc::clone(&self.ledger), Arc::clone)
    }

    fn append_now(&self, channel: &ChannelName, draft: Draft) -> Appended {
        let now_and_then = self.appended.fetch_add(1, Ordering::Relaxed) % NOW_AND_THEN == NOW_AND_THEN - 1;
        let ledger = self.ledger();
        let mut state = ledger.state();
        let epoch = Epoch(state.epoch + 1);
        let written = state.channels.entry(channel.clone()).or_default();
        let top = written.publications.len() as u64;
        let identity = (draft.publisher.clone(), draft.message_id.clone());
        if let Some(&offset) = written.places.get(&identity)
            && self.flaw != Flaw::ForgetsIds
        {
            let offset = if self.flaw == Flaw::MisplacesDuplicates { top + 1 } else { offset };
            return Appended::Duplicate(Cursor { epoch, offset });
        }
        let publication = match self.flaw {
            Flaw::AnswersFirst => {
                let mut owed = lock(&self.owed);
                let owed = owed.entry(channel.clone()).or_default();
                *owed += 1;
                let publication = draft.clone().into_publication(top + *owed);
                self.write_later(channel.clone(), draft);
                Arc::new(publication)
            }
            Flaw::RollsBack if now_and_then => {
                let publication = written.push(draft);
                written.publications.pop();
                written.places.remove(&identity);
                publication
            }
            Flaw::ReusesOffset if now_and_then && top > 0 => {
                written.publications.pop();
                written.push(draft)
            }
            _ => written.push(draft),
        };
        Appended::New { epoch, publication }
    }

    fn write_later(&self, channel: ChannelName, draft: Draft) {
        let (ledger, owed) = (Arc::clone(&self.ledger), Arc::clone(&self.owed));
        lock(&self.writing).spawn(async move {
            sleep(ANSWER_WITHIN).await;
            if let Some(owed) = lock(&owed).get_mut(&channel) {
                *owed -= 1;
            }
            ledger.state().channels.entry(channel).or_default().push(draft);
        });
    }

    fn extent_now(&self, channel: &ChannelName) -> Extent {
        let ledger = self.ledger();
        let state = ledger.state();
        let top = state.channels.get(channel).map_or(0, |written| written.publications.len() as u64);
        let epoch = Epoch(state.epoch + 1);
        match self.flaw {
            Flaw::LeapsAhead => Extent { epoch, first: 1, top: top + 1 },
            Flaw::HidesTheEnd => Extent { epoch, first: 1, top: top.saturating_sub(3) },
            Flaw::DisownsTheOld => Extent { epoch, first: (top / 2).max(1), top },
            _ => Extent { epoch, first: 1, top },
        }
    }

    fn read_now(&self, channel: &ChannelName, query: Query) -> Page {
        let extent = self.extent_now(channel);
        let ledger = self.ledger();
        let state = ledger.state();
        let empty = Vec::new();
        let all = state.channels.get(channel).map_or(&empty, |written| &written.publications);
        let shown = &all[..all.len().min(extent.top as usize)];
        let publications: Vec<_> = match query.from {
            From::After(offset) => {
                let offset = match self.flaw {
                    Flaw::ReadsLate => offset + 1,
                    Flaw::ReadsEarly => offset.saturating_sub(1),
                    _ => offset.max(extent.first - 1),
                };
                shown
                    .iter()
                    .skip(offset as usize)
                    .take(query.limit)
                    .map(|one| self.shown(one, shown))
                    .collect()
            }
            From::Before(offset) => {
                let end = offset.map_or(shown.len(), |offset| (offset as usize - 1).min(shown.len()));
                shown[..end].iter().rev().take(query.limit).map(|one| self.shown(one, shown)).collect()
            }
        };
        let left_out = |publication: &Arc<Publication>| {
            self.flaw == Flaw::LeavesOut && publication.offset % NOW_AND_THEN == NOW_AND_THEN - 1
        };
        Page { extent, publications: publications.into_iter().filter(|one| !left_out(one)).collect() }
    }

    /// A publication, as this desk shows it.
    fn shown(&self, publication: &Arc<Publication>, all: &[Arc<Publication>]) -> Arc<Publication> {
        let neighbour = |offset: u64| all.get((offset as usize).checked_sub(1)?);
        let offset = publication.offset;
        let other = match self.flaw {
            // 1 and 2, 3 and 4.
            Flaw::SwapsNeighbours => neighbour(if offset % 2 == 1 { offset + 1 } else { offset - 1 }),
            Flaw::MixesData => neighbour(offset - 1),
            _ => None,
        };
        match other {
            Some(other) if self.flaw == Flaw::SwapsNeighbours => {
                Arc::new(Publication { offset, ..Publication::clone(other) })
            }
            Some(other) => {
                Arc::new(Publication { payload: other.payload.clone(), ..Publication::clone(publication) })
            }
            None => Arc::clone(publication),
        }
    }
}

impl Log for Desk {
    fn append<'a>(
        &'a self,
        channel: &'a ChannelName,
        draft: Draft,
    ) -> BoxFuture<'a, Result<Pending, LogError>> {
        let appended = self.append_now(channel, draft);
        let answer_after = lock(&self.random).up_to(ANSWER_WITHIN);
        let pending = async move {
            sleep(answer_after).await;
            Ok(appended)
        };
        ready(Ok(pending.boxed())).boxed()
    }

    /// As it comes: whoever goes by this hint has to bear that it changes at any moment.
    fn has_rivals(&self, _: &ChannelName) -> bool {
        lock(&self.random).once_in(2)
    }

    fn read<'a>(&'a self, channel: &'a ChannelName, query: Query) -> BoxFuture<'a, Result<Page, LogError>> {
        ready(Ok(self.read_now(channel, query))).boxed()
    }

    fn redact<'a>(&'a self, _: &'a ChannelName, _: u64) -> BoxFuture<'a, Result<bool, LogError>> {
        unreachable!("the clients of these runs delete nothing")
    }

    fn extent<'a>(&'a self, channel: &'a ChannelName) -> BoxFuture<'a, Result<Extent, LogError>> {
        ready(Ok(self.extent_now(channel))).boxed()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
