//! Whether an offset that could be claimed was free, or trimmed.
//!
//! Where a namespace trims, the index of the offsets guards only what is still there: a node that knows an old end of
//! a channel (it was frozen, or wrote nothing for a while) finds the next offset free when others have long passed it
//! and trimmed it. So behind a claim one looks at the publication in front of it, the ground. Channels are trimmed
//! from their old end only; as long as the ground is there, nothing behind it was ever trimmed, and the claim is
//! right. No clock has a say in it. Trimming leaves one publication more than it has to, so the ground of what is to
//! be kept is always there. A claim without ground is withdrawn, and the draft appended anew.

use std::collections::HashSet;

use mongodb::{
    ClientSession,
    bson::{doc, oid::ObjectId},
    error::Error,
    options::Hint,
};
use tracing::warn;
use xpush_protocol::ChannelName;

use super::{
    super::Keep,
    failure::Failure,
    record::{self, Key, Place},
    store::{READ_LIMIT, Store},
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

/// Of these offsets, at which publications were found that somebody claimed, those that are right. The others are
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
            Some(ground) => is_there(store, session, &key, ground).await?,
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
    let find = store
        .messages
        .find_one(key.range(last + 1, u64::MAX))
        .sort(doc! { "offset": 1 })
        .projection(doc! { "_id": 0, "offset": 1 })
        .hint(Hint::Keys(record::by_offset()))
        .max_time(READ_LIMIT)
        .session(session);
    match find.await? {
        Some(next) => Ok(record::offset(&next)? == last + 1),
        None => Ok(true),
    }
}
