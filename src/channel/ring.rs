//! The newest publications that a channel handed out. When a node dies, all of its clients come to the others within
//! a second, and most of them missed a handful of publications: those are read from here, and not from the log.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::publication::Publication;

/// Of one channel.
const PUBLICATIONS: usize = 128;
/// And their bytes.
const BYTES: usize = 32 * 1024;
/// Of all channels of a node: a channel that would need more keeps less.
const MEMORY: usize = 64 * 1024 * 1024;
/// What a publication takes beside its payload, roughly.
const PUBLICATION_BYTES: usize = 256;

/// What the rings of a node take, or its frames, in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(pub(super) Arc<AtomicUsize>);

/// Publications without a hole between them; the last is the newest.
#[derive(Default)]
pub(super) struct Ring {
    publications: VecDeque<Arc<Publication>>,
    bytes: usize,
    memory: Memory,
}

impl Ring {
    pub(super) fn new(memory: Memory) -> Self {
        Self { publications: VecDeque::new(), bytes: 0, memory }
    }

    pub(super) fn push(&mut self, publication: &Arc<Publication>) {
        if self.publications.back().is_some_and(|last| last.offset + 1 != publication.offset) {
            self.clear();
        }
        let size = size(publication);
        self.bytes += size;
        self.memory.0.fetch_add(size, Ordering::Relaxed);
        self.publications.push_back(Arc::clone(publication));
        while self.publications.len() > PUBLICATIONS
            || self.bytes > BYTES
            || !self.publications.is_empty() && self.memory.0.load(Ordering::Relaxed) > MEMORY
        {
            self.drop_oldest();
        }
    }

    /// A message was deleted: it is not handed out from here any more.
    pub(super) fn redact(&mut self, offset: u64) {
        let first = self.publications.front().map_or(0, |first| first.offset);
        let at = offset.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        let Some(publication) = at.and_then(|at| self.publications.get_mut(at)) else { return };
        let before = size(publication);
        *publication = Arc::new(publication.redacted());
        // It may be larger than it was, by what no bound notices.
        let after = size(publication);
        self.bytes = self.bytes + after - before;
        self.memory.0.fetch_add(after, Ordering::Relaxed);
        self.memory.0.fetch_sub(before, Ordering::Relaxed);
    }

    pub(super) fn clear(&mut self) {
        while !self.publications.is_empty() {
            self.drop_oldest();
        }
    }

    /// What is behind this offset. `None`: not all of it is here.
    pub(super) fn after(&self, offset: u64) -> Option<impl Iterator<Item = &Arc<Publication>>> {
        let first = self.publications.front()?.offset;
        let skip = usize::try_from((offset + 1).checked_sub(first)?).ok()?;
        Some(self.publications.iter().skip(skip))
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.publications.pop_front() {
            let size = size(&oldest);
            self.bytes -= size;
            self.memory.0.fetch_sub(size, Ordering::Relaxed);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn size(publication: &Publication) -> usize {
    PUBLICATION_BYTES + publication.payload.len()
}

#[cfg(test)]
mod tests {
    use xpush_protocol::{EventName, Json, MessageId, Payload};

    use super::*;

    fn publication(offset: u64, length: usize) -> Arc<Publication> {
        Arc::new(Publication {
            offset,
            message_id: MessageId::random(),
            event: EventName::default(),
            payload: Payload::Json(Json::from_value(&"x".repeat(length)).unwrap()),
            user: None,
            time: 0,
            reply_to: None,
        })
    }

    fn offsets(ring: &Ring, after: u64) -> Option<Vec<u64>> {
        ring.after(after).map(|publications| publications.map(|publication| publication.offset).collect())
    }

    #[test]
    fn it_has_what_is_behind_an_offset_or_says_that_it_has_not() {
        let mut ring = Ring::default();
        assert_eq!(offsets(&ring, 0), None);
        (5..=7).for_each(|offset| ring.push(&publication(offset, 10)));
        assert_eq!(offsets(&ring, 3), None);
        assert_eq!(offsets(&ring, 4), Some(vec![5, 6, 7]));
        assert_eq!(offsets(&ring, 6), Some(vec![7]));
        assert_eq!(offsets(&ring, 7), Some(vec![]));
        ring.push(&publication(9, 10));
        assert_eq!(offsets(&ring, 7), None, "8 is missing");
        assert_eq!(offsets(&ring, 8), Some(vec![9]));
    }

    #[test]
    fn a_deleted_message_is_not_handed_out_any_more() {
        let memory = Memory::default();
        let mut ring = Ring::new(memory.clone());
        (5..=7).for_each(|offset| ring.push(&publication(offset, 10)));
        for offset in [0, 4, 6, 8, u64::MAX] {
            ring.redact(offset);
        }
        let events: Vec<_> = ring.after(4).unwrap().map(|there| there.event.as_str().to_owned()).collect();
        assert_eq!(events, ["message", crate::publication::DELETED, "message"]);
        assert_eq!(memory.0.load(Ordering::Relaxed), ring.bytes);
        drop(ring);
        assert_eq!(memory.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn it_is_bounded_in_number_and_bytes_and_gives_its_memory_back() {
        let memory = Memory::default();
        let mut ring = Ring::new(memory.clone());
        (1..=1000).for_each(|offset| ring.push(&publication(offset, 1)));
        assert!(ring.publications.len() <= PUBLICATIONS && ring.bytes <= BYTES);
        assert_eq!(memory.0.load(Ordering::Relaxed), ring.bytes);
        ring.push(&publication(1001, BYTES));
        assert_eq!(offsets(&ring, 1000), None, "one that is larger than the ring is not kept");
        ring.push(&publication(1002, 1));
        drop(ring);
        assert_eq!(memory.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_rings_of_a_node_share_a_bound() {
        let memory = Memory::default();
        memory.0.fetch_add(MEMORY, Ordering::Relaxed);
        let mut ring = Ring::new(memory.clone());
        ring.push(&publication(1, 1));
        assert!(ring.publications.is_empty());
        assert_eq!(memory.0.load(Ordering::Relaxed), MEMORY);
    }
}
