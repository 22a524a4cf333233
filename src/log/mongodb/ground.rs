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

/// Claims that stand in front of a channel are not more than one write holds.
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

/// Where a channel begins in which publications were found that somebody claimed.
#[derive(Clone, Copy)]
pub(super) struct Begin {
    /// What stands before this was claimed in front of what is left of the channel.
    pub(super) left: u64,
    /// And what stands before this may have been, or will be trimmed: it stands there no more.
    pub(super) right: u64,
}

/// `oldest` and `newest`: of those that were found.
pub(super) async fn begin(
    store: &Store,
    session: &mut ClientSession,
    channel: &ChannelName,
    oldest: u64,
    newest: u64,
) -> Result<Begin, Failure> {
    let keep = store.keep(channel);
    let mut right = 0;
    if keep.count.is_some() {
        let top = store.tops(slice::from_ref(channel)).await?.into_iter().flatten().next();
        let top = top.map_or(newest, |top| top.offset.max(newest));
        // Trimming leaves one more than it has to.
        right = kept_by_count(keep, top).saturating_sub(1);
    }
    let too_old = begin_of_kept(keep);
    let left = if too_old.is_some() || oldest < right {
        begin_of_left(store, session, &Key::new(channel), too_old).await?
    } else {
        0
    };
    Ok(Begin { left, right: right.max(left) })
}

/// What trimming leaves of a channel has no hole, and begins with one that is too old where it trims by age. So all in
/// front of a hole was claimed later; and all in front of one that is too old, where the claims touch it.
async fn begin_of_left(
    store: &Store,
    session: &mut ClientSession,
    key: &Key,
    too_old: Option<u64>,
) -> Result<u64, Failure> {
    let is_old = |stood: &Stood| too_old.is_some_and(|too_old| stood.time <= too_old);
    // Mostly, the first one says it.
    let Some(mut last) = first_from(store, session, key, 0).await? else { return Ok(0) };
    let mut begin = last.offset;
    if is_old(&last) {
        return Ok(begin);
    }
    let mut cursor = store
        .messages
        .find(key.range(last.offset + 1, u64::MAX))
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
        // A channel's first one is no claim in front of it, whatever the clock said by which a later one was sent.
        if is_old(&next) && begin > 1 {
            return Ok(next.offset);
        }
        last = next;
    }
    Ok(begin)
}

/// Deletes what was claimed in front of what is left of the channel.
pub(super) async fn withdraw(
    store: &Store,
    session: &mut ClientSession,
    channel: &ChannelName,
    Begin { left, .. }: Begin,
) -> Result<(), Failure> {
    warn!(%channel, left, "publications came where the channel was trimmed; they are appended anew");
    store
        .messages
        .delete_many(Key::new(channel).range(0, left.saturating_sub(1)))
        .hint(Hint::Keys(record::by_offset()))
        .write_concern(majority())
        .session(session)
        .await?;
    Ok(())
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
