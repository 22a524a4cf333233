//! What the log reads. Every query names the index that it walks, and takes a bounded part of it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::future::try_join;
use mongodb::{
    ClientSession,
    bson::{Document, RawDocumentBuf, doc},
    options::{Hint, ReadConcern},
};
use xpush_protocol::ChannelName;

use super::{
    super::{Extent, From, Keep, LogError, Page, Query},
    failure::{Failure, within},
    record::{self, Key, Place},
    store::{READ_LIMIT, Store},
};
use crate::publication::{Draft, Publication};

/// So many channels are asked for in one query.
pub(super) const TOPS: usize = 500;

/// And so many messages by their ids. Those of each publisher are a plan of its own to MongoDB.
const MESSAGES: usize = 200;

/// MongoDB sends so many publications at one time, or 16 MB. Most pages are one batch.
const BATCH: usize = 100;

/// A page is read so often until its extent and its publications agree. They don't when the channel is trimmed, or
/// the primary changes, between the two.
const PAGE_TRIES: usize = 5;

/// Retention by age takes what is too old away every few seconds. A reader walks over so much of it at most: where
/// there is more, it sees some that should be gone already.
const WALK: u64 = 1000;

/// The oldest publication of a channel, or the newest.
pub(super) struct End {
    pub(super) place: Place,
    time: u64,
}

impl Store {
    /// For a reader: bounded in number and time.
    pub(super) async fn bounded<T>(
        &self,
        read: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, LogError> {
        let read = async {
            // It is never closed.
            let _reader = self.readers.acquire().await;
            read.await
        };
        Ok(within(READ_LIMIT, read).await?)
    }

    pub(super) async fn extent(
        &self,
        channel: &ChannelName,
        concern: ReadConcern,
    ) -> Result<Extent, Failure> {
        let key = Key::new(channel);
        let ends = try_join(
            self.end(&key, 1, ReadConcern::majority()),
            // The only one of the two that a deposed primary could give wrong.
            self.end(&key, -1, concern),
        );
        let epoch = self.epoch;
        Ok(match ends.await? {
            (Some(oldest), Some(newest)) => {
                let top = newest.place.offset;
                Extent { epoch, first: self.first(&key, &oldest, top).await?, top }
            }
            (None, Some(End { place: Place { offset, .. }, .. })) => {
                Extent { epoch, first: offset, top: offset }
            }
            (_, None) => Extent { epoch, first: 1, top: 0 },
        })
    }

    async fn end(&self, key: &Key, direction: i32, concern: ReadConcern) -> Result<Option<End>, Failure> {
        let find = self
            .messages
            .find_one(key.all())
            .sort(doc! { "offset": direction })
            .projection(doc! { "offset": 1, "time": 1 })
            .hint(Hint::Keys(record::by_offset()))
            .read_concern(concern)
            .max_time(READ_LIMIT);
        let Some(document) = find.await? else { return Ok(None) };
        Ok(Some(End { place: record::place(&document, "_id")?, time: record::time(&document)? }))
    }

    /// The oldest offset that is stored, and the newest.
    pub(super) async fn ends(&self, key: &Key) -> Result<Option<(u64, u64)>, Failure> {
        let majority = ReadConcern::majority;
        let ends = try_join(self.end(key, 1, majority()), self.end(key, -1, majority())).await?;
        Ok(match ends {
            (Some(oldest), Some(newest)) => Some((oldest.place.offset, newest.place.offset)),
            _ => None,
        })
    }

    /// Where what is to be kept begins.
    async fn first(&self, key: &Key, oldest: &End, top: u64) -> Result<u64, Failure> {
        let keep = self.keep(&key.channel);
        let oldest_offset = oldest.place.offset;
        let from = oldest_offset.max(kept_by_count(keep, top)).min(top + 1);
        let Some(begin) = begin_of_kept(keep) else { return Ok(from) };
        if from == oldest_offset && oldest.time > begin {
            return Ok(from);
        }
        let to = top.min(from.saturating_add(WALK - 1));
        Ok(self.first_since(key, from, to, begin).await?.unwrap_or(to + 1))
    }

    /// The first of this range that was sent after this time.
    pub(super) async fn first_since(
        &self,
        key: &Key,
        from: u64,
        to: u64,
        time: u64,
    ) -> Result<Option<u64>, Failure> {
        let mut filter = key.range(from, to);
        filter.insert("time", doc! { "$gt": record::to_number(time) });
        let find = self
            .messages
            .find_one(filter)
            .sort(doc! { "offset": 1 })
            .projection(doc! { "_id": 0, "offset": 1 })
            .hint(Hint::Keys(record::by_offset()))
            .max_time(READ_LIMIT);
        Ok(find.await?.map(|document| record::offset(&document)).transpose()?)
    }

    pub(super) async fn page(&self, channel: &ChannelName, query: Query) -> Result<Page, Failure> {
        let key = Key::new(channel);
        let is_trimmed = self.keep(channel) != Keep::default();
        let mut hole = None;
        let mut floor = 1;
        for _ in 0..PAGE_TRIES {
            let mut extent = self.extent(channel, ReadConcern::majority()).await?;
            extent.first = extent.first.max(floor);
            match self.publications(&key, extent, query).await? {
                Read::Whole(publications) => return Ok(Page { extent, publications }),
                Read::Hole { at, end } => {
                    hole = Some(at);
                    // A write that came when its offset was trimmed already may stand in front of the channel.
                    if is_trimmed {
                        floor = end;
                    }
                }
                Read::Short => hole = None,
            }
        }
        Err(match hole {
            Some(at) => Failure::Damaged(format!("the publication {at} of {channel} is missing")),
            None => Failure::Unknown("the channel changed under the reader, several times".into()),
        })
    }

    async fn publications(&self, key: &Key, extent: Extent, query: Query) -> Result<Read, Failure> {
        let (from, to, direction) = match query.from {
            From::After(offset) => (extent.first.max(offset.saturating_add(1)), extent.top, 1),
            From::Before(None) => (extent.first, extent.top, -1),
            From::Before(Some(offset)) => (extent.first, extent.top.min(offset.saturating_sub(1)), -1),
        };
        let there = (to + 1).saturating_sub(from);
        let wanted = query.limit.min(there.try_into().unwrap_or(usize::MAX));
        let mut publications = Vec::new();
        // To MongoDB, a limit of 0 is none.
        if wanted == 0 {
            return Ok(Read::Whole(publications));
        }
        let mut cursor = self
            .messages
            .find(key.range(from, to))
            .sort(doc! { "offset": direction })
            .projection(as_published())
            .limit(i64::try_from(wanted).unwrap_or(i64::MAX))
            .batch_size(wanted.min(BATCH) as u32)
            .hint(Hint::Keys(record::by_offset()))
            .max_time(READ_LIMIT)
            .await?;
        let (mut room, app) = (query.bytes, key.channel.app());
        let mut next = if direction > 0 { from } else { to };
        while cursor.advance().await? {
            let publication = record::decode(&app, cursor.current())?;
            if publication.offset != next {
                let end = next.max(publication.offset) + u64::from(direction < 0);
                return Ok(Read::Hole { at: next, end });
            }
            next = next.wrapping_add_signed(direction.into());
            let len = publication.payload.len();
            if len > room && !publications.is_empty() {
                return Ok(Read::Whole(publications));
            }
            room = room.saturating_sub(len);
            publications.push(publication);
        }
        Ok(if publications.len() == wanted { Read::Whole(publications) } else { Read::Short })
    }

    /// The newest place of each.
    pub(super) async fn tops(&self, channels: &[ChannelName]) -> Result<Vec<Option<Place>>, Failure> {
        let mut tops = Vec::with_capacity(channels.len());
        for channels in channels.chunks(TOPS) {
            match channels {
                [channel] => tops.push(self.top(channel).await?),
                channels => tops.extend(self.tops_at_once(channels).await?),
            }
        }
        Ok(tops)
    }

    async fn top(&self, channel: &ChannelName) -> Result<Option<Place>, Failure> {
        let end = self.end(&Key::new(channel), -1, ReadConcern::majority()).await?;
        Ok(end.map(|end| end.place))
    }

    async fn tops_at_once(&self, channels: &[ChannelName]) -> Result<Vec<Option<Place>>, Failure> {
        let keys: Vec<_> = channels.iter().map(Key::new).collect();
        let hashes = keys.iter().map(Key::hash);
        let mut cursor = self
            .messages
            .aggregate(newest_of(hashes))
            .hint(Hint::Keys(record::by_offset()))
            .max_time(READ_LIMIT)
            .with_type::<RawDocumentBuf>()
            .await?;
        let mut found = HashMap::with_capacity(channels.len());
        while cursor.advance().await? {
            let document = cursor.current();
            let hash = document.get_i64("_id").map_err(mongodb::error::Error::from)?;
            found.insert(hash, (record::channel(document)?, record::place(document, "id")?));
        }
        let mut tops = Vec::with_capacity(channels.len());
        for key in &keys {
            tops.push(match found.get(&key.hash()) {
                Some((channel, top)) if *channel == key.channel => Some(*top),
                // Another channel has the same hash, which will hardly ever be.
                Some(_) => self.top(&key.channel).await?,
                None => None,
            });
        }
        Ok(tops)
    }

    /// The publications that have the ids of these drafts.
    pub(super) async fn messages(
        &self,
        session: &mut ClientSession,
        drafts: &[(&ChannelName, &Draft)],
    ) -> Result<Vec<Option<Arc<Publication>>>, Failure> {
        let mut messages = Vec::with_capacity(drafts.len());
        for drafts in drafts.chunks(MESSAGES) {
            let mut by_publisher = HashMap::<_, Vec<_>>::new();
            for (channel, draft) in drafts {
                let ids = by_publisher.entry((*channel, &draft.publisher)).or_default();
                ids.push(draft.message_id.as_str());
            }
            let of_publisher = |((channel, publisher), ids)| Key::new(channel).messages(publisher, ids);
            let wanted: Vec<_> = by_publisher.into_iter().map(of_publisher).collect();
            let mut projection = as_published();
            projection.extend(doc! { "app": 1, "channel": 1, "publisher": 1 });
            let find = self
                .messages
                .find(doc! { "$or": wanted })
                .projection(projection)
                .hint(Hint::Keys(record::by_message()))
                .max_time(READ_LIMIT)
                .session(&mut *session);
            let mut cursor = find.await?;
            let mut found = HashMap::new();
            while cursor.advance(session).await? {
                let document = cursor.current();
                let (publisher, id) = record::message(document)?;
                let channel = record::channel(document)?;
                let publication = record::decode(&channel.app(), document)?;
                found.insert((channel, publisher.to_owned(), id.to_owned()), publication);
            }
            messages.extend(drafts.iter().map(|(channel, draft)| {
                let key = (
                    ChannelName::clone(channel),
                    draft.publisher.as_str().to_owned(),
                    draft.message_id.as_str().to_owned(),
                );
                found.get(&key).cloned()
            }));
        }
        Ok(messages)
    }
}

enum Read {
    /// All that was asked for.
    Whole(Vec<Arc<Publication>>),
    /// This one is not there, and `end` is the first behind the hole that may be.
    Hole { at: u64, end: u64 },
    /// It ends before it should.
    Short,
}

fn as_published() -> Document {
    doc! {
        "_id": 0, "offset": 1, "message_id": 1, "event": 1, "user": 1, "time": 1, "data": 1, "binary": 1,
        "reply_to": 1,
    }
}

/// The newest publication of each of these hashes. In this order, MongoDB jumps from one to the next in the index
/// (`DISTINCT_SCAN`), whatever lies between.
pub(super) fn newest_of(hashes: impl Iterator<Item = i64>) -> [Document; 3] {
    [
        doc! { "$match": { "h": { "$in": hashes.collect::<Vec<_>>() } } },
        doc! { "$sort": record::newest_first() },
        doc! { "$group": {
            "_id": "$h",
            "app": { "$first": "$app" },
            "channel": { "$first": "$channel" },
            "offset": { "$first": "$offset" },
            "id": { "$first": "$_id" },
        } },
    ]
}

/// The first that is kept, if only the number counts.
pub(super) fn kept_by_count(keep: Keep, top: u64) -> u64 {
    keep.count.map_or(1, |count| (top + 1).saturating_sub(count).max(1))
}

/// What was sent at this time or before is too old, in milliseconds since 1970.
pub(super) fn begin_of_kept(keep: Keep) -> Option<u64> {
    keep.age.map(|age| now().saturating_sub(record::millis(age)))
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, record::millis)
}
