//! How many bytes there are, in all and in each shard: counted without a lock, so an append that has room asks nobody.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of all shards.
pub(super) struct Ledger {
    limit: usize,
    total: AtomicUsize,
    shards: Box<[AtomicUsize]>,
}

impl Ledger {
    pub(super) fn new(limit: usize, shards: usize) -> Self {
        let shards = (0..shards).map(|_| AtomicUsize::new(0)).collect();
        Self { limit, total: AtomicUsize::new(0), shards }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.total() > self.limit
    }

    /// Something in this shard had `before` bytes, and has `after` now. To be called under the shard's lock, so that
    /// what is said of a shard is true for whoever holds it.
    pub(super) fn change(&self, shard: usize, before: usize, after: usize) {
        // Modulo the word: a sum of differences is right whatever each of them wraps to.
        let difference = after.wrapping_sub(before);
        if difference != 0 {
            self.shards[shard].fetch_add(difference, Ordering::Relaxed);
            self.total.fetch_add(difference, Ordering::Relaxed);
        }
    }

    /// The shard with the most.
    pub(super) fn fullest(&self) -> usize {
        let bytes = |(_, bytes): &(usize, &AtomicUsize)| bytes.load(Ordering::Relaxed);
        self.shards.iter().enumerate().max_by_key(bytes).map_or(0, |(shard, _)| shard)
    }

    #[cfg(test)]
    pub(super) fn sum(&self) -> usize {
        self.shards.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }
}
