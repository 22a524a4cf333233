//! Whether an offset that could be claimed was free, or trimmed.
//!
//! Where a namespace trims, the index of the offsets guards only what is still there: a node that knows an old end of
//! a channel (it was frozen, or wrote nothing for a while) finds the next offset free when others have long passed it
//! and trimmed it. So behind a claim one looks at the publication in front of it, the ground. Channels are trimmed
//! from their old end only; as long as the ground is there, nothing behind it was ever trimmed, and the claim is
//! right. No clock has a say in it. Trimming leaves one publication more than it has to, so the ground of what is to
//! be kept is always there. A claim without ground is withdrawn, and the draft appended anew.

use std::{collections::HashSet, slice};

use mongodb::{
    ClientSession,
    bson::{Bson, doc, oid::ObjectId},
    error::Error,
    options::Hint,
};
use tracing::warn;
use xpush_protocol::ChannelName;

use super::{
    super::Keep,
    failure::Failure,
    read::{begin_of_kept, kept_by_count},
    record::{self, Key, Place},
    store::{READ_LIMIT, Store},
    written::Stood,
};
use crate::mongodb::majority;

/// What was inserted into a channel behind `ground`, which is none for its first publications.
pub(super) struct Claim<'a> {
    pub(super) channel: &'a ChannelName,
    pub(super) ground: Option<Place>,
    pub(super) last: u64,
    pub(super) count: usize,
}

/// Which of these claims are right. The session wrote them, so it reads what was there then, or later.
pub(super) async fn check(
    store: &Store,
    session: &mut ClientSession,
    claims: &[Claim<'_>],
) -> Result<Vec<bool>, Failure> {
    let grounds = grounds(store, session, claims).await?;
    let mut checked = Vec::with_capacity(claims.len());
    for claim in claims {
        checked.push(match claim.ground {
            _ if store.keep(claim.channel) == Keep::default() => true,
            Some(ground) => grounds.contains(&ground.id),
            None => is_followed(store, session, &Key::new(claim.channel), claim.last).await?,
        });
    }
    Ok(checked)
}

async fn grounds(
    store: &Store,
    session: &mut ClientSession,
    claims: &[Claim<'_>],
) -> Result<HashSet<ObjectId>, Failure> {
    let (mut hashes, mut ids) = (Vec::new(), Vec::new());
    for claim in claims {
        if let Some(ground) = claim.ground
            && store.keep(claim.channel) != Keep::default()
        {
            hashes.push(Key::new(claim.channel).hash());
            ids.push(ground.id);
        }
    }
    let mut grounds = HashSet::with_capacity(ids.len());
    if ids.is_empty() {
        return Ok(grounds);
    }
    let mut cursor = store
        .messages
        .find(doc! { "_id": { "$in": ids }, "h": { "$in": hashes } })
        .projection(doc! { "_id": 1 })
        .hint(Hint::Keys(doc! { "_id": 1 }))
        .max_time(READ_LIMIT)
        .session(&mut *session)
        .await?;
    while cursor.advance(session).await? {
        grounds.insert(cursor.current().get_object_id("_id").map_err(Error::from)?);
    }
    Ok(grounds)
}

/// Of these publications that somebody claimed, the offsets of those that are right. The others are deleted. That makes no
/// hole, for there is nothing in front of them.
pub(super) async fn sift(
    store: &Store,
    session: &mut ClientSession,
    channel: &ChannelName,
    mut found: Vec<Stood>,
) -> Result<HashSet<u64>, Failure> {
    if store.keep(channel) == Keep::default() {
        return Ok(found.into_iter().map(|stood| stood.offset).collect());
    }
    let key = Key::new(channel);
    found.sort_unstable_by_key(|stood| stood.offset);
    found.dedup_by_key(|stood| stood.offset);
    let runs: Vec<_> = found.chunk_by(|stood, next| stood.offset + 1 == next.offset).collect();
    let grounds = runs.iter().filter_map(|run| run.first()?.offset.checked_sub(1));
    let grounds = stored(store, session, &key, grounds).await?;
    let mut right = HashSet::with_capacity(found.len());
    for run in runs {
        let ([first, ..], [.., last]) = (run, run) else { continue };
        let has_ground = first.offset.checked_sub(1).is_some_and(|ground| grounds.contains(&ground));
        let begin = if has_ground { first.offset } else { begin_of_right(store, session, &key, run).await? };
        right.extend(run.iter().map(|stood| stood.offset).filter(|offset| *offset >= begin));
        if begin <= first.offset {
            continue;
        }
        let (first, last) = (first.offset, last.offset.min(begin - 1));
        warn!(%channel, first, last, "publications came where the channel was trimmed; they are appended anew");
        store
            .messages
            .delete_many(key.range(first, last))
            .hint(Hint::Keys(record::by_offset()))
            .write_concern(majority())
            .session(&mut *session)
            .await?;
    }
    Ok(right)
}

/// From which offset on a run is right in front of which nothing is. It may be the old end of what is left of the channel,
/// which has lost its ground by being trimmed; or a claim in front of that; or both, where they touch.
async fn begin_of_right(
    store: &Store,
    session: &mut ClientSession,
    key: &Key,
    run: &[Stood],
) -> Result<u64, Failure> {
    let behind = run.last().map_or(0, |last| last.offset) + 1;
    let next = first_from(store, session, key, behind).await?;
    if next.is_some_and(|next| next.offset != behind) {
        // There is never a hole in what is left.
        return Ok(behind);
    }
    let keep = store.keep(&key.channel);
    let top = store.tops(slice::from_ref(&key.channel)).await?.into_iter().flatten().next();
    let by_count = kept_by_count(keep, top.map_or(0, |top| top.offset));
    // The one that trimming leaves in front of what is kept is too old itself. So nothing in front of one that is too old
    // is kept for its age; and it only looks as if it were, where it was claimed there later.
    let is_old = |stood: &&Stood| begin_of_kept(keep).is_some_and(|begin| stood.time <= begin);
    let by_age = run.iter().chain(&next).find(is_old).map_or(0, |stood| stood.offset);
    Ok(by_count.max(by_age))
}

/// Which of these offsets are stored.
async fn stored(
    store: &Store,
    session: &mut ClientSession,
    key: &Key,
    offsets: impl Iterator<Item = u64>,
) -> Result<HashSet<u64>, Failure> {
    let mut filter = key.all();
    let offsets = offsets.map(|offset| Bson::from(record::to_number(offset)));
    filter.insert("offset", doc! { "$in": Bson::Array(offsets.collect()) });
    let mut cursor = store
        .messages
        .find(filter)
        .projection(doc! { "_id": 0, "offset": 1 })
        .hint(Hint::Keys(record::by_offset()))
        .max_time(READ_LIMIT)
        .session(&mut *session)
        .await?;
    let mut stored = HashSet::new();
    while cursor.advance(session).await? {
        stored.insert(record::offset(cursor.current())?);
    }
    Ok(stored)
}

async fn first_from(
    store: &Store,
    session: &mut ClientSession,
    key: &Key,
    offset: u64,
) -> Result<Option<Stood>, Failure> {
    let find = store
        .messages
        .find_one(key.range(offset, u64::MAX))
        .sort(doc! { "offset": 1 })
        .projection(doc! { "_id": 0, "offset": 1, "time": 1 })
        .hint(Hint::Keys(record::by_offset()))
        .max_time(READ_LIMIT)
        .session(session);
    let Some(found) = find.await? else { return Ok(None) };
    Ok(Some(Stood { offset: record::offset(&found)?, time: record::time(&found)? }))
}

/// A channel's first publication has no ground. It is right if it is the newest, or the next one follows it: were it
/// in front of a channel that was trimmed, there would be a hole between.
async fn is_followed(
    store: &Store,
    session: &mut ClientSession,
    key: &Key,
    last: u64,
) -> Result<bool, Failure> {
    let next = first_from(store, session, key, last + 1).await?;
    Ok(next.is_none_or(|next| next.offset == last + 1))
}
