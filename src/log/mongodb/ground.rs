//! Whether an offset that could be claimed was free, or trimmed.
//!
//! Where a namespace trims, the index of the offsets guards only what is still there: a node that knows an old end of
//! a channel (it was frozen, or wrote nothing for a while) finds the next offset free when others have long passed it
//! and trimmed it. So behind a claim one looks at the publication in front of it, the ground. Channels are trimmed
//! from their old end only; as long as the ground is there, nothing behind it was ever trimmed, and the claim is
//! right. No clock has a say in it. Trimming leaves one publication more than it has to, so the ground of what is to
//! be kept is always there. A claim without ground is withdrawn, and the draft appended anew.
//!
//! Only who claimed something knows its ground. What others claimed, who sends a message again finds in the database, as a
//! claim that was not withdrawn yet or as the old end of what is left: it is not deleted, and counts where it is surely
//! the latter.

use std::{collections::HashSet, slice};

use mongodb::{
    ClientSession,
    bson::{RawDocument, doc, oid::ObjectId},
    error::Error,
    options::Hint,
};
use tracing::warn;
use xpush_protocol::ChannelName;

use super::{
    super::{Keep, LogError},
    failure::Failure,
    line::WRITE_DRAFTS,
    read::{begin_of_kept, kept_by_count},
    record::{self, Key, Place},
    store::{READ_LIMIT, Store},
    written::Stood,
};
use crate::mongodb::majority;

/// So far it is looked from a channel's old end for what was claimed in front of it: one write holds no more.
const CLAIMS: i64 = WRITE_DRAFTS as i64;

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

/// Of these offsets, at which publications were found that this node claimed, those that are right. The others are
/// deleted. That makes no hole, for there is nothing in front of them.
pub(super) async fn sift(
    store: &Store,
    session: &mut ClientSession,
    channel: &ChannelName,
    mut offsets: Vec<u64>,
) -> Result<HashSet<u64>, Failure> {
    if store.keep(channel) == Keep::default() {
        return Ok(offsets.into_iter().collect());
    }
    let key = Key::new(channel);
    offsets.sort_unstable();
    offsets.dedup();
    let mut right = HashSet::with_capacity(offsets.len());
    for run in offsets.chunk_by(|offset, next| offset + 1 == *next) {
        let ([first, ..], [.., last]) = (run, run) else { continue };
        let is_right = match first.checked_sub(1) {
            None | Some(0) => is_followed(store, session, &key, *last).await?,
            Some(ground) => {
                is_there(store, session, &key, ground).await? || is_left(store, session, &key, *last).await?
            }
        };
        if is_right {
            right.extend(run);
            continue;
        }
        warn!(%channel, first, last, "publications came where the channel was trimmed; they are appended anew");
        store
            .messages
            .delete_many(key.range(*first, *last))
            .hint(Hint::Keys(record::by_offset()))
            .write_concern(majority())
            .session(&mut *session)
            .await?;
    }
    Ok(right)
}

/// From which offset on publications that other nodes claimed are surely right, in a channel that reaches to `top` at
/// least. Those in front are said anew: they are not kept, or nobody can tell. They are not deleted either, for they may
/// be what is left of the channel, and a message that stands twice is better than one that is lost.
pub(super) async fn right_from(
    store: &Store,
    session: &mut ClientSession,
    channel: &ChannelName,
    top: u64,
) -> Result<u64, Failure> {
    let keep = store.keep(channel);
    // Trimming leaves one more than it has to.
    let by_count = kept_by_count(keep, top) - 1;
    match begin_of_kept(keep) {
        Some(too_old) => begin_by_age(store, session, &Key::new(channel), by_count, too_old).await,
        None => Ok(by_count),
    }
}

/// What trimming by age leaves of a channel has no hole, and begins with one that is too old. So what is in front of a hole
/// was claimed later; and what is in front of one that is too old, where the claims touch it. All of it is looked for from
/// an offset on.
async fn begin_by_age(
    store: &Store,
    session: &mut ClientSession,
    key: &Key,
    from: u64,
    too_old: u64,
) -> Result<u64, Failure> {
    let Some(mut last) = first_from(store, session, key, from).await? else { return Ok(from) };
    let mut begin = last.offset;
    // Mostly, the first one says it: it is too old, or nothing was ever trimmed.
    if begin == 1 || last.time <= too_old {
        return Ok(begin);
    }
    let mut cursor = store
        .messages
        .find(key.range(begin + 1, u64::MAX))
        .sort(doc! { "offset": 1 })
        .projection(doc! { "_id": 0, "offset": 1, "time": 1 })
        .limit(CLAIMS)
        .batch_size(CLAIMS as u32)
        .hint(Hint::Keys(record::by_offset()))
        .max_time(READ_LIMIT)
        .session(&mut *session)
        .await?;
    while cursor.advance(session).await? {
        let next = stood(cursor.current())?;
        if next.offset != last.offset + 1 {
            begin = next.offset;
        }
        if next.time <= too_old {
            return Ok(next.offset);
        }
        last = next;
    }
    Ok(begin)
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
    Ok(find.await?.as_deref().map(stood).transpose()?)
}

fn stood(document: &RawDocument) -> Result<Stood, LogError> {
    Ok(Stood { offset: record::offset(document)?, time: record::time(document)? })
}

/// Whether a run that ends here is what is left of the channel, though its ground was trimmed meanwhile. What one write
/// claims is all in front of that, or none of it.
async fn is_left(store: &Store, session: &mut ClientSession, key: &Key, last: u64) -> Result<bool, Failure> {
    let top = store.tops(slice::from_ref(&key.channel)).await?.into_iter().flatten().next();
    let top = top.map_or(last, |top| top.offset.max(last));
    let right = right_from(store, session, &key.channel, top).await?;
    Ok(last >= right && is_followed(store, session, key, last).await?)
}

async fn is_there(
    store: &Store,
    session: &mut ClientSession,
    key: &Key,
    offset: u64,
) -> Result<bool, Failure> {
    let find = store
        .messages
        .find_one(key.range(offset, offset))
        .projection(doc! { "_id": 1 })
        .hint(Hint::Keys(record::by_offset()))
        .max_time(READ_LIMIT)
        .session(session);
    Ok(find.await?.is_some())
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
