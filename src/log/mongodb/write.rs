//! One write: it gives the drafts of some channels their offsets and inserts them, all in one command.
//!
//! An offset is claimed by inserting it, and only the one behind what a majority has is ever claimed. So no fail-over
//! can take the ground away under it, and there is never a hole: not when the primary dies in the middle either, for
//! what is left of a write then is a beginning of it. Drafts of one channel are inserted in order, and the first that
//! fails ends the write; many channels go together only with a draft each.
//!
//! Where the outcome isn't known (the connection broke, the primary stepped down, no majority confirmed in time), it
//! is found out before anything else of that channel is written: the draft is looked for by its ids, and if it isn't
//! there, inserted again. The index of the ids makes that safe, whenever the lost write comes through: it finds its
//! offset taken or its ids, and stands once. A write that comes so late that its offset was taken and trimmed again
//! leaves a publication in front of the channel's begin, where nobody reads and the next trimming takes it.

use std::{
    collections::{HashMap, hash_map::Entry},
    iter,
    sync::Arc,
};

use futures_util::future::try_join;
use mongodb::{
    bson::{RawDocumentBuf, doc},
    error::ErrorKind,
    options::Hint,
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use tracing::debug;
use xpush_protocol::{ChannelName, Cursor, MessageId};

use super::{
    super::{Appended, LogError},
    failure::{Failure, within},
    read::{begin_of_kept, kept_by_count},
    record,
    retention::Due,
    store::{DUPLICATE_KEY, READ_LIMIT, Store, WRITE_LIMIT, majority},
};
use crate::publication::{Draft, Publication, Publisher};

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
    /// It was never written by this node.
    New,
    /// Its ids or its offset are another's: which of them, a look tells.
    Refused,
    /// This node tried to write it and heard no end of it. Where it stands now, nobody has announced it.
    InDoubt,
}

/// Drafts of one channel, in the order in which they came.
pub(super) struct Batch {
    pub(super) channel: ChannelName,
    /// The newest offset, where it is known that a majority has it.
    pub(super) top: Option<u64>,
    pub(super) appends: Vec<Append>,
    /// How many they were before some were found and answered.
    pub(super) size: usize,
}

/// What became of a batch.
pub(super) struct Settled {
    pub(super) channel: ChannelName,
    pub(super) top: Option<u64>,
    /// What has to be tried again, in order.
    pub(super) left: Vec<Append>,
    /// Whether somebody was answered.
    pub(super) is_ahead: bool,
    pub(super) failure: Option<Failure>,
}

/// What became of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A majority has it.
    Stands,
    Refused,
    Unknown,
    /// It was not inserted and won't be.
    NotTried,
}

/// Takes either one batch, or several of one draft each.
pub(super) async fn write(store: &Store, due: &Due, mut batches: Vec<Batch>) -> Vec<Settled> {
    if let Err(failure) = prepare(store, &mut batches).await {
        let untried = |batch: Batch| batch.settle(store, due, &mut iter::empty(), Some(&failure));
        return batches.into_iter().map(untried).collect();
    }
    let documents: Vec<_> = batches.iter().flat_map(|batch| batch.documents(store)).collect();
    let (outcomes, failure) = if documents.is_empty() {
        (vec![], None)
    } else {
        insert(store, documents, batches.len() == 1).await
    };
    let mut outcomes = outcomes.into_iter();
    batches.into_iter().map(|batch| batch.settle(store, due, &mut outcomes, failure.as_ref())).collect()
}

/// Finds out what isn't known: where the channels end, and whether drafts are there already. Those are answered.
async fn prepare(store: &Store, batches: &mut [Batch]) -> Result<(), Failure> {
    let without_top: Vec<_> =
        batches.iter().filter(|batch| batch.top.is_none()).map(|batch| batch.channel.clone()).collect();
    let uncertain: Vec<_> = batches.iter().flat_map(Batch::uncertain).collect();
    let reads = try_join(store.tops(&without_top), store.messages(&uncertain));
    let (tops, messages) = within(READ_LIMIT, reads).await?;
    let mut tops = tops.into_iter();
    let mut messages = messages.into_iter();
    for batch in batches {
        if batch.top.is_none() {
            batch.top = tops.next();
        }
        let mut rest = Vec::with_capacity(batch.appends.len());
        for mut append in batch.appends.drain(..) {
            let found = if append.standing == Standing::New { None } else { messages.next().flatten() };
            match found {
                Some(publication) if append.standing == Standing::InDoubt => {
                    append.answer(Ok(Appended::New { epoch: store.epoch, publication }));
                }
                Some(publication) if is_kept(store, &batch.channel, batch.top, &publication) => {
                    let offset = publication.offset;
                    append.answer(Ok(Appended::Duplicate(Cursor { epoch: store.epoch, offset })));
                }
                Some(publication) => {
                    // A failure only lets it be refused again.
                    if let Err(failure) = release(store, &batch.channel, &append.draft, &publication).await {
                        debug!(channel = %batch.channel, ?failure, "a trimmed message keeps its id");
                    }
                    append.standing = Standing::New;
                    rest.push(append);
                }
                None => rest.push(append),
            }
        }
        batch.appends = rest;
    }
    Ok(())
}

fn is_kept(store: &Store, channel: &ChannelName, top: Option<u64>, publication: &Publication) -> bool {
    let keep = store.keep(channel);
    publication.offset >= kept_by_count(keep, top.unwrap_or(0))
        && begin_of_kept(keep).is_none_or(|begin| publication.time > begin)
}

/// Lets a message that is trimmed, and not yet deleted, be said again. It stays where it is, without its publisher:
/// were it deleted before those in front of it, that would be a hole.
async fn release(
    store: &Store,
    channel: &ChannelName,
    draft: &Draft,
    publication: &Publication,
) -> Result<(), Failure> {
    let mut filter = store.key(channel).message(draft);
    filter.insert("offset", record::to_number(publication.offset));
    // No publisher has such a name.
    let nobody = format!("trimmed:{}", publication.offset);
    let update = store
        .messages
        .update_one(filter, doc! { "$set": { "publisher": nobody } })
        .hint(Hint::Keys(record::by_message()))
        .write_concern(majority());
    within(WRITE_LIMIT, update.into_future()).await.map(drop)
}

async fn insert(
    store: &Store,
    documents: Vec<RawDocumentBuf>,
    ordered: bool,
) -> (Vec<Outcome>, Option<Failure>) {
    let count = documents.len();
    let insert = store.messages.insert_many(documents).ordered(ordered).write_concern(majority());
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
                *outcome = if is_refused { Outcome::Refused } else { Outcome::Unknown };
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

impl Batch {
    /// The drafts that have to be looked for.
    fn uncertain(&self) -> impl Iterator<Item = (&ChannelName, &Draft)> {
        let uncertain = self.appends.iter().filter(|append| append.standing != Standing::New);
        uncertain.map(|append| (&self.channel, &append.draft))
    }

    /// One for each message: a retry that is in line beside the first one has none.
    fn documents(&self, store: &Store) -> Vec<RawDocumentBuf> {
        let key = store.key(&self.channel);
        let keep = store.keep(&self.channel).age;
        let mut ids = HashMap::with_capacity(self.appends.len());
        let mut offset = self.top.unwrap_or(0);
        let mut documents = Vec::with_capacity(self.appends.len());
        for append in &self.appends {
            if ids.insert(append.ids(), ()).is_none() {
                offset += 1;
                documents.push(key.encode(&append.draft, offset, keep));
            }
        }
        documents
    }

    /// Answers whom it can. There are as many outcomes as there were documents, or fewer if they were not tried.
    fn settle(
        self,
        store: &Store,
        due: &Due,
        outcomes: &mut impl Iterator<Item = Outcome>,
        failure: Option<&Failure>,
    ) -> Settled {
        let Self { channel, top, appends, size } = self;
        let epoch = store.epoch;
        let begin = top.unwrap_or(0);
        let mut newest = begin;
        let mut offset = begin;
        let mut is_sure = top.is_some();
        let mut left = Vec::new();
        let mut places: HashMap<_, Option<Cursor>> = HashMap::with_capacity(appends.len());
        for mut append in appends {
            let place = match places.entry(append.ids()) {
                Entry::Occupied(first) => {
                    match first.get() {
                        Some(cursor) => append.answer(Ok(Appended::Duplicate(*cursor))),
                        None => left.push(append),
                    }
                    continue;
                }
                Entry::Vacant(place) => place,
            };
            offset += 1;
            match outcomes.next().unwrap_or(Outcome::NotTried) {
                Outcome::Stands => {
                    newest = offset;
                    place.insert(Some(Cursor { epoch, offset }));
                    let publication = Arc::new(append.draft.clone().into_publication(offset));
                    append.answer(Ok(Appended::New { epoch, publication }));
                    continue;
                }
                Outcome::Refused => {
                    is_sure = false;
                    if append.standing == Standing::New {
                        append.standing = Standing::Refused;
                    }
                }
                Outcome::Unknown => {
                    is_sure = false;
                    append.standing = Standing::InDoubt;
                }
                Outcome::NotTried => {}
            }
            place.insert(None);
            left.push(append);
        }
        if due.is_reached(begin, newest) {
            due.add(store, &channel);
        }
        Settled {
            channel,
            top: is_sure.then_some(newest),
            is_ahead: left.len() < size,
            left,
            failure: failure.cloned(),
        }
    }
}

impl Append {
    pub(super) fn answer(self, answer: Result<Appended, LogError>) {
        // Nobody listens if the caller dropped its future. The publication stands all the same.
        let _ = self.reply.send(answer);
    }

    fn ids(&self) -> (Publisher, MessageId) {
        (self.draft.publisher.clone(), self.draft.message_id.clone())
    }
}
