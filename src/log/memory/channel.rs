//! What is kept of one channel, and what that weighs.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use tokio::time::Instant;
use xpush_protocol::{Cursor, Epoch};

use crate::{
    log::{Appended, Extent, From, Keep, Page, Query},
    publication::{Draft, Publication},
};

/// A retry comes at most so many messages of its channel later: where less is kept, the ids of so many are.
pub(super) const DEDUP_WINDOW: usize = 128;

/// What a publication takes beside its payload: itself, its place, its names, and what the allocator adds.
pub(super) const PUBLICATION_OVERHEAD: usize = 256;

/// What it takes to know a message again: a place in a map, in its channel's line and in its shard's.
pub(super) const IDENTITY_OVERHEAD: usize = 160;

/// Places for so many are kept free without asking.
const SPARE: usize = 64;

pub(super) struct Channel {
    pub(super) epoch: Epoch,
    top: u64,
    /// The newest is `top`; there is no hole.
    kept: VecDeque<Kept>,
    offsets: HashMap<Identity, u64>,
    /// The keys of `offsets`, oldest first, and `None` for each message that nobody can send again. The newest is that
    /// of `top`, there is no hole, and they reach as far back as `kept` at least.
    identities: VecDeque<Option<Identity>>,
    bytes: usize,
    pub(super) touched: Instant,
}

struct Kept {
    since: Instant,
    publication: Arc<Publication>,
}

/// What a message is known by: a digest of its publisher and its id. By keys that nobody knows and of 128 bits, so two of
/// a channel are the same as likely as never. The texts themselves would be looked for in memory that no cache has.
pub(super) type Identity = [u64; 2];

/// Makes identities, by keys of its own.
#[derive(Default)]
pub(super) struct Identifier([RandomState; 2]);

impl Identifier {
    /// `None`: nobody can send it again.
    pub(super) fn of(&self, draft: &Draft) -> Option<Identity> {
        let ids = (&draft.publisher, &draft.message_id);
        draft.retriable.then(|| self.0.each_ref().map(|keys| keys.hash_one(ids)))
    }
}

impl Channel {
    pub(super) fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            epoch,
            top: 0,
            kept: VecDeque::new(),
            offsets: HashMap::new(),
            identities: VecDeque::new(),
            bytes: 0,
            touched: now,
        }
    }

    /// One that is larger than `largest` is counted and known again, but not kept: the whole log would go for it.
    pub(super) fn append(
        &mut self,
        draft: Draft,
        identity: Option<Identity>,
        keep: Keep,
        now: Instant,
        largest: usize,
    ) -> Appended {
        self.touched = now;
        if let Some(identity) = identity {
            match self.offsets.entry(identity) {
                Entry::Occupied(entry) => {
                    return Appended::Duplicate(Cursor { epoch: self.epoch, offset: *entry.get() });
                }
                Entry::Vacant(entry) => entry.insert(self.top + 1),
            };
        }
        self.top += 1;
        self.bytes += IDENTITY_OVERHEAD;
        self.identities.push_back(identity);
        let publication = Arc::new(draft.into_publication(self.top));
        let bytes = publication_bytes(&publication);
        self.bytes += bytes;
        self.kept.push_back(Kept { since: now, publication: publication.clone() });
        if bytes > largest {
            while self.forget_publication() {}
        }
        self.trim(keep, now);
        Appended::New { epoch: self.epoch, publication }
    }

    /// Lets go of what need not be kept any more.
    pub(super) fn trim(&mut self, keep: Keep, now: Instant) {
        let count = keep.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        while let Some(oldest) = self.kept.front()
            && (self.kept.len() > count || keep.age.is_some_and(|age| now - oldest.since >= age))
        {
            self.forget_publication();
        }
        // By size, not by age: what is too old to be read may still be retried.
        let window = self.kept.len().max(DEDUP_WINDOW).max(keep.count.map_or(0, |_| count));
        while self.identities.len() > window && self.forget_identity() {}
    }

    /// Lets go of the oldest to make room. A publication goes before an id, as it is larger, and of both the newest
    /// stays. `false`: there is nothing that may go.
    pub(super) fn let_go(&mut self) -> bool {
        let gone = if self.kept.len() > 1 {
            self.forget_publication()
        } else {
            self.identities.len() > 1 && self.forget_identity()
        };
        self.shrink();
        gone
    }

    /// Lets go of everything up to this offset, to make room.
    pub(super) fn let_go_through(&mut self, offset: u64) {
        while self.extent().first <= offset && self.forget_publication() {}
        while self.remembers(offset) && self.forget_identity() {}
        self.shrink();
    }

    /// Whether anything is left of the message of this offset, or of one before it.
    pub(super) fn remembers(&self, offset: u64) -> bool {
        self.top - (self.identities.len() as u64) < offset
    }

    pub(super) fn keeps_nothing(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn extent(&self) -> Extent {
        Extent { epoch: self.epoch, first: self.top - self.kept.len() as u64 + 1, top: self.top }
    }

    pub(super) fn read(&mut self, query: Query, keep: Keep, now: Instant) -> Page {
        self.trim(keep, now);
        let extent = self.extent();
        // How many of the kept are older than the offset `before`.
        let older = |before: u64| before.clamp(extent.first, extent.top + 1) - extent.first;
        let shared = |kept: &Kept| kept.publication.clone();
        let publications = match query.from {
            From::After(offset) => {
                let skipped = older(offset.saturating_add(1)) as usize;
                query.page(self.kept.range(skipped..).map(shared))
            }
            From::Before(offset) => {
                let end = older(offset.unwrap_or(u64::MAX)) as usize;
                query.page(self.kept.range(..end).rev().map(shared))
            }
        };
        Page { extent, publications }
    }

    /// Whether there was one.
    pub(super) fn redact(&mut self, offset: u64) -> bool {
        let first = self.extent().first;
        let at = offset.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        let Some(kept) = at.and_then(|at| self.kept.get_mut(at)) else { return false };
        self.bytes -= publication_bytes(&kept.publication);
        kept.publication = Arc::new(kept.publication.redacted());
        self.bytes += publication_bytes(&kept.publication);
        true
    }

    fn forget_publication(&mut self) -> bool {
        let Some(oldest) = self.kept.pop_front() else { return false };
        self.bytes -= publication_bytes(&oldest.publication);
        true
    }

    fn forget_identity(&mut self) -> bool {
        let Some(oldest) = self.identities.pop_front() else { return false };
        self.bytes -= IDENTITY_OVERHEAD;
        if let Some(oldest) = oldest {
            self.offsets.remove(&oldest);
        }
        true
    }

    /// Gives back the places of those that went, once most are free: so it costs each of them a moment only.
    fn shrink(&mut self) {
        let is_sparse = |capacity: usize, len: usize| capacity > SPARE && len < capacity / 4;
        if is_sparse(self.kept.capacity(), self.kept.len()) {
            self.kept.shrink_to(self.kept.capacity() / 2);
        }
        if is_sparse(self.identities.capacity(), self.identities.len()) {
            self.identities.shrink_to(self.identities.capacity() / 2);
            self.offsets.shrink_to(self.identities.capacity());
        }
    }
}

fn publication_bytes(publication: &Publication) -> usize {
    publication.payload.len() + PUBLICATION_OVERHEAD
}
