//! One write: it gives the drafts of some channels their offsets and inserts them, all in one command.
//!
//! An offset is claimed by inserting it, and only the one behind what a majority has is ever claimed. So no fail-over
//! can take the ground away under it, and there is never a hole: not when the primary dies in the middle either, for
//! what is left of a write then is a beginning of it. Drafts of one channel are inserted in order, and the first that
//! fails ends the write, for all channels in it; where each has one draft only, there is no order to keep, and the others
//! go on.
//!
//! Where the outcome isn't known (the connection broke, the primary stepped down, no majority confirmed in time), it
//! is found out before anything else of that channel is written (`look`): the draft is looked for by its ids, and if it
//! isn't there, inserted again. The index of the ids makes that safe, whenever the lost write comes through: it finds its
//! offset taken or its ids, and stands once. Where a namespace trims, that needs one look more (`ground`).

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use mongodb::{ClientSession, bson::RawDocumentBuf, error::ErrorKind};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use xpush_protocol::{ChannelName, Cursor, MessageId};

use super::{
    super::{Appended, LogError},
    failure::{Failure, within},
    ground::{self, Claim},
    line::APPEND_LIMIT,
    look,
    record::{self, Key, Place},
    retention::Due,
    store::{READ_LIMIT, Store, WRITE_LIMIT},
    written::Stood,
};
use crate::mongodb::{DUPLICATE_KEY, majority};
use crate::publication::{Draft, Publisher};

/// An append that waits.
pub(super) struct Append {
    pub(super) draft: Draft,
    pub(super) reply: oneshot::Sender<Result<Appended, LogError>>,
    /// When it is given up.
    pub(super) deadline: Instant,
    pub(super) standing: Standing,
    /// Its place in the line, until it is answered.
    pub(super) _place: OwnedSemaphorePermit,
}

/// What is known of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// This node did not write it, or what it wrote does not count.
    New,
    /// Its message may be there already: a look tells.
    Suspect,
    /// It was looked for, and was not there.
    Absent,
    /// This node tried to write it and heard no end of it. Where it stands now, nobody has announced it.
    InDoubt,
}

/// Drafts of one channel, in the order in which they came.
pub(super) struct Batch {
    pub(super) channel: ChannelName,
    /// The newest publication, where it is known that a majority has it.
    pub(super) top: Option<Place>,
    pub(super) appends: Vec<Append>,
    /// So many of them are inserted at most. What is more is only looked for.
    most: usize,
    /// What they claim, as far as they have to.
    places: Vec<Place>,
    /// How many they were before some were found and answered.
    size: usize,
    pub(super) taken: Option<Taken>,
}

/// What makes a message one.
pub(super) type Ids = (Publisher, MessageId);

/// What became of a batch.
pub(super) struct Settled {
    pub(super) channel: ChannelName,
    pub(super) top: Option<Place>,
    /// What stands since.
    pub(super) written: Vec<(Ids, Stood)>,
    /// What has to be tried again, in order.
    pub(super) left: Vec<Append>,
    /// Whether somebody was answered.
    pub(super) is_ahead: bool,
    /// Nothing speaks against it: the write ended before it.
    pub(super) is_held_up: bool,
    /// What was found taken.
    pub(super) taken: Option<Taken>,
    pub(super) failure: Option<Failure>,
}

/// What became of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A majority has it.
    Stands,
    Refused(Taken),
    Unknown,
    /// It was not inserted and won't be.
    NotTried,
}

/// What a draft can't have. A refusal tells it in MongoDB's own words: where they are not understood it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Another node was first.
    Offset,
    /// The message may be there already.
    Ids,
}

pub(super) async fn write(store: &Store, due: &Due, mut batches: Vec<Batch>) -> Vec<Settled> {
    let (outcomes, failure) = match try_write(store, &mut batches).await {
        Ok((outcomes, failure)) => (outcomes, failure),
        Err(failure) => (vec![], Some(failure)),
    };
    let mut outcomes = outcomes.into_iter();
    let settle = |batch: Batch| {
        let count = batch.places.len();
        batch.settle(store, due, outcomes.by_ref().take(count), failure.as_ref())
    };
    batches.into_iter().map(settle).collect()
}

/// What became of each document, and why if not all is well. Fails before it wrote anything.
async fn try_write(store: &Store, batches: &mut [Batch]) -> Result<(Vec<Outcome>, Option<Failure>), Failure> {
    let mut session = store.session().await?;
    look::prepare(store, &mut session, batches).await?;
    let documents: Vec<_> = batches.iter_mut().flat_map(|batch| batch.documents(store)).collect();
    if documents.is_empty() {
        return Ok((vec![], None));
    }
    let ordered = batches.iter().any(|batch| batch.places.len() > 1);
    let (mut outcomes, mut failure) = insert(store, &mut session, documents, ordered).await;
    if outcomes.contains(&Outcome::Stands) {
        let claims: Vec<_> = batches.iter().filter_map(Batch::claim).collect();
        let checked = within(READ_LIMIT, ground::check(store, &mut session, &claims)).await;
        let checked = checked.unwrap_or_else(|unknown| {
            failure = Some(unknown);
            vec![false; claims.len()]
        });
        let counts = claims.iter().map(|claim| claim.count);
        doubt(&mut outcomes, checked.into_iter().zip(counts));
    }
    Ok((outcomes, failure))
}

/// What stands where a claim is not right is found by the next write, and withdrawn.
fn doubt(outcomes: &mut [Outcome], claims: impl Iterator<Item = (bool, usize)>) {
    let mut rest = outcomes;
    for (is_right, count) in claims {
        let (claimed, behind) = rest.split_at_mut(count);
        if !is_right {
            let stands = claimed.iter_mut().filter(|outcome| **outcome == Outcome::Stands);
            stands.for_each(|outcome| *outcome = Outcome::Unknown);
        }
        rest = behind;
    }
}

async fn insert(
    store: &Store,
    session: &mut ClientSession,
    documents: Vec<RawDocumentBuf>,
    ordered: bool,
) -> (Vec<Outcome>, Option<Failure>) {
    let count = documents.len();
    let insert =
        store.messages.insert_many(documents).ordered(ordered).write_concern(majority()).session(session);
    let error = match within(WRITE_LIMIT, async { Ok::<_, Failure>(insert.await) }).await {
        Ok(Ok(_)) => return (vec![Outcome::Stands; count], None),
        Ok(Err(error)) => error,
        Err(failure) => return (vec![Outcome::Unknown; count], Some(failure)),
    };
    let (outcomes, failed) = match &*error.kind {
        ErrorKind::InsertMany(failed) => {
            let is_confirmed = failed.write_concern_error.is_none();
            let mut outcomes = vec![if is_confirmed { Outcome::Stands } else { Outcome::Unknown }; count];
            let mut only_refused = is_confirmed;
            for error in failed.write_errors.iter().flatten() {
                let is_refused = error.code == DUPLICATE_KEY;
                only_refused &= is_refused;
                let Some(outcome) = outcomes.get_mut(error.index) else { continue };
                *outcome =
                    if is_refused { Outcome::Refused(taken(&error.message)) } else { Outcome::Unknown };
                if ordered {
                    outcomes[error.index + 1..].fill(Outcome::NotTried);
                }
            }
            (outcomes, !only_refused)
        }
        _ => (vec![Outcome::Unknown; count], true),
    };
    if !failed {
        return (outcomes, None);
    }
    match Failure::from(error) {
        failure @ Failure::Unreachable(_) => (vec![Outcome::NotTried; count], Some(failure)),
        failure => (outcomes, Some(failure)),
    }
}

/// Out of `… index: NAME dup key: VALUES`; the values are somebody else's words.
fn taken(message: &str) -> Taken {
    let before_values = message.split(" dup key:").next().unwrap_or_default();
    if before_values.ends_with(record::BY_OFFSET) { Taken::Offset } else { Taken::Ids }
}

impl Batch {
    pub(super) fn new(channel: ChannelName, top: Option<Place>, appends: Vec<Append>, most: usize) -> Self {
        Self { channel, top, size: appends.len(), appends, most, places: vec![], taken: None }
    }

    /// The drafts that have to be looked for.
    pub(super) fn uncertain(&self) -> impl Iterator<Item = (&ChannelName, &Draft)> {
        let uncertain = self.appends.iter().filter(|append| append.is_uncertain());
        uncertain.map(|append| (&self.channel, &append.draft))
    }

    /// One for each message: a retry that is in line beside the first one has none.
    fn documents(&mut self, store: &Store) -> Vec<RawDocumentBuf> {
        let key = Key::new(&self.channel);
        let keep = store.keep(&self.channel).age;
        let mut ids = HashSet::with_capacity(self.appends.len());
        let mut documents = Vec::with_capacity(self.appends.len());
        let mut offset = self.top.map_or(0, |top| top.offset);
        for append in &self.appends {
            if self.places.len() == self.most {
                break;
            }
            if ids.insert(append.ids()) {
                offset += 1;
                let place = Place::new(offset);
                documents.push(key.encode(&append.draft, place, keep));
                self.places.push(place);
            }
        }
        documents
    }

    fn claim(&self) -> Option<Claim<'_>> {
        let last = self.places.last()?.offset;
        Some(Claim { channel: &self.channel, ground: self.top, last, count: self.places.len() })
    }

    /// Answers whom it can. There are as many outcomes as there are places, or none if they were not tried.
    fn settle(
        self,
        store: &Store,
        due: &Due,
        mut outcomes: impl Iterator<Item = Outcome>,
        failure: Option<&Failure>,
    ) -> Settled {
        let Self { channel, mut top, appends, most: _, places, size, mut taken } = self;
        let epoch = store.epoch;
        let begin = top.map_or(0, |top| top.offset);
        let mut places = places.into_iter();
        let (mut is_sure, mut is_held_up) = (true, false);
        let (mut written, mut left) = (Vec::new(), Vec::new());
        let mut answers: HashMap<_, Option<Cursor>> = HashMap::with_capacity(appends.len());
        for mut append in appends {
            let answer = match answers.entry(append.ids()) {
                Entry::Occupied(first) => {
                    match first.get() {
                        Some(cursor) => append.answer(Ok(Appended::Duplicate(*cursor))),
                        None => left.push(append),
                    }
                    continue;
                }
                Entry::Vacant(answer) => answer,
            };
            match (places.next(), outcomes.next().unwrap_or(Outcome::NotTried)) {
                (Some(place), Outcome::Stands) => {
                    top = Some(place);
                    let offset = place.offset;
                    answer.insert(Some(Cursor { epoch, offset }));
                    written.push((append.ids(), Stood { offset, time: append.draft.time }));
                    let publication = Arc::new(append.draft.clone().into_publication(offset));
                    append.answer(Ok(Appended::New { epoch, publication }));
                    continue;
                }
                (_, Outcome::Refused(why)) => {
                    is_sure = false;
                    taken = Some(why);
                    // Whose offset is taken may have its ids taken too: then it is refused for them the next time. To
                    // look at once cost three nodes that append beside each other a sixth to a quarter of their rate.
                    if why == Taken::Ids && append.standing != Standing::InDoubt {
                        append.standing = Standing::Suspect;
                    }
                }
                (_, Outcome::Unknown) => {
                    is_sure = false;
                    append.standing = Standing::InDoubt;
                }
                (Some(_), Outcome::NotTried) => is_held_up = true,
                (None, Outcome::Stands | Outcome::NotTried) => {}
            }
            answer.insert(None);
            left.push(append);
        }
        if due.is_reached(begin, top.map_or(0, |top| top.offset)) {
            due.add(store, &channel);
        }
        Settled {
            channel,
            top: top.filter(|_| is_sure),
            is_ahead: left.len() < size,
            is_held_up: is_held_up && is_sure && failure.is_none(),
            written,
            left,
            taken,
            failure: failure.cloned(),
        }
    }
}

impl Append {
    pub(super) fn answer(self, answer: Result<Appended, LogError>) {
        // Nobody listens if the caller dropped its future. The publication stands all the same.
        let _ = self.reply.send(answer);
    }

    pub(super) fn waited(&self) -> Duration {
        APPEND_LIMIT.saturating_sub(self.deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether it has to be looked for.
    pub(super) fn is_uncertain(&self) -> bool {
        matches!(self.standing, Standing::Suspect | Standing::InDoubt)
    }

    /// Has it looked for, if it was not yet.
    pub(super) fn suspect(&mut self) {
        if self.standing == Standing::New {
            self.standing = Standing::Suspect;
        }
    }

    /// Whether it surely was not written by this node.
    pub(super) fn is_untried(&self) -> bool {
        self.standing != Standing::InDoubt
    }

    pub(super) fn ids(&self) -> Ids {
        (self.draft.publisher.clone(), self.draft.message_id.clone())
    }
}

#[cfg(test)]
pub(super) mod fixture {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::log::fixture::draft;

    /// So many different ones, for whose answers nobody waits.
    pub(crate) fn appends(count: usize) -> Vec<Append> {
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
}
