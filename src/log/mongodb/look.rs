//! What has to be known before a write: where its channels end, and which of its drafts are there already.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::try_join;
use mongodb::{ClientSession, bson::doc, options::Hint};
use tracing::debug;
use xpush_protocol::{ChannelName, Cursor};

use super::{
    super::{Appended, Keep},
    failure::{Failure, within},
    ground,
    read::{begin_of_kept, kept_by_count},
    record::{self, Key, Place},
    store::{READ_LIMIT, Store, WRITE_LIMIT},
    write::{Batch, Ids, Standing, Taken},
    written::Stood,
};
use crate::mongodb::majority;
use crate::publication::{Draft, Publication};

/// Finds out what isn't known: where the channels end, and whether drafts are there already. Those are answered.
pub(super) async fn prepare(
    store: &Store,
    session: &mut ClientSession,
    batches: &mut [Batch],
) -> Result<(), Failure> {
    let without_top: Vec<_> =
        batches.iter().filter(|batch| batch.top.is_none()).map(|batch| batch.channel.clone()).collect();
    let reads = try_join(store.tops(&without_top), find(store, session, batches));
    let (tops, found) = within(READ_LIMIT, reads).await?;
    let mut tops = tops.into_iter();
    for (batch, Found { own, messages, right }) in batches.iter_mut().zip(found) {
        if batch.top.is_none() {
            batch.top = tops.next().flatten();
        }
        let mut rest = Vec::with_capacity(batch.appends.len());
        for mut append in batch.appends.drain(..) {
            if append.standing == Standing::InDoubt {
                match own.get(&append.ids()).cloned() {
                    Some(publication) => {
                        append.answer(Ok(Appended::New { epoch: store.epoch, publication }));
                    }
                    None => rest.push(append),
                }
                continue;
            }
            // What it retries may be in the same batch.
            let message = own.get(&append.ids()).or_else(|| messages.get(&append.ids())).cloned();
            let is_right = |publication: &Publication| publication.offset >= right;
            match message {
                Some(publication)
                    if is_right(&publication)
                        && is_kept(store, &batch.channel, batch.top, Stood::of(&publication)) =>
                {
                    batch.taken = Some(Taken::Ids);
                    let cursor = Cursor { epoch: store.epoch, offset: publication.offset };
                    append.answer(Ok(Appended::Duplicate(cursor)));
                }
                Some(publication) => {
                    // A failure only lets it be refused again.
                    if let Err(failure) = release(store, &batch.channel, &append.draft, &publication).await {
                        debug!(channel = %batch.channel, ?failure, "a trimmed message keeps its id");
                    }
                    append.standing = Standing::New;
                    rest.push(append);
                }
                None => {
                    if append.standing == Standing::Suspect {
                        append.standing = Standing::Absent;
                    }
                    rest.push(append);
                }
            }
        }
        batch.appends = rest;
    }
    Ok(())
}

/// The publications that the drafts of a batch became.
#[derive(Default)]
struct Found {
    /// Of those in doubt.
    own: HashMap<Ids, Arc<Publication>>,
    messages: HashMap<Ids, Arc<Publication>>,
    /// From which offset on these are right.
    right: u64,
}

/// For each batch.
async fn find(store: &Store, session: &mut ClientSession, batches: &[Batch]) -> Result<Vec<Found>, Failure> {
    let uncertain: Vec<_> = batches.iter().flat_map(Batch::uncertain).collect();
    let mut looked_up = store.messages(session, &uncertain).await?.into_iter();
    let mut found = Vec::with_capacity(batches.len());
    for batch in batches {
        let mut found_of = Found::default();
        for append in batch.appends.iter().filter(|append| append.is_uncertain()) {
            let Some(publication) = looked_up.next().flatten() else { continue };
            let is_own = append.standing == Standing::InDoubt;
            let messages = if is_own { &mut found_of.own } else { &mut found_of.messages };
            messages.insert(append.ids(), publication);
        }
        if !found_of.own.is_empty() {
            let offsets = found_of.own.values().map(|publication| publication.offset).collect();
            let right = ground::sift(store, session, &batch.channel, offsets).await?;
            found_of.own.retain(|_, publication| right.contains(&publication.offset));
        }
        found.push(found_of);
    }
    judge(store, session, batches, &mut found).await?;
    Ok(found)
}

/// Finds out which of the publications that others claimed are right.
async fn judge(
    store: &Store,
    session: &mut ClientSession,
    batches: &[Batch],
    found: &mut [Found],
) -> Result<(), Failure> {
    let mut others: Vec<_> = batches
        .iter()
        .zip(found)
        .filter(|(batch, of)| !of.messages.is_empty() && store.keep(&batch.channel) != Keep::default())
        .collect();
    let channels: Vec<_> = others.iter().map(|(batch, _)| batch.channel.clone()).collect();
    let tops = store.tops(&channels).await?;
    for ((batch, of), top) in others.iter_mut().zip(tops) {
        let newest = of.messages.values().map(|publication| publication.offset).max();
        let top = top.map(|top| top.offset).max(newest).unwrap_or(0);
        of.right = ground::right_from(store, session, &batch.channel, top).await?;
    }
    Ok(())
}

/// Whether what stood there stands yet.
pub(super) fn is_kept(store: &Store, channel: &ChannelName, top: Option<Place>, stood: Stood) -> bool {
    let keep = store.keep(channel);
    stood.offset >= kept_by_count(keep, top.map_or(0, |top| top.offset))
        && begin_of_kept(keep).is_none_or(|begin| stood.time > begin)
}

/// Lets a message that is trimmed, and not yet deleted, be said again. It stays where it is, without its publisher:
/// were it deleted before those in front of it, that would be a hole.
async fn release(
    store: &Store,
    channel: &ChannelName,
    draft: &Draft,
    publication: &Publication,
) -> Result<(), Failure> {
    let mut filter = Key::new(channel).message(draft);
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
