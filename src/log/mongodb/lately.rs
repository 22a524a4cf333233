//! What was lately found out of a channel: that other nodes append to it, or that messages come that are there already.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use xpush_protocol::ChannelName;

/// A channel is remembered for so long at least, and twice as long at most. Where appends of several nodes come more seldom
/// than this, they seldom meet.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);

/// Channels that are remembered, twice. In one more, appends go on standing in each other's way.
const CAPACITY: usize = 64 * 1024;

pub(super) struct Lately(Mutex<Generations>);

struct Generations {
    recent: HashSet<ChannelName>,
    earlier: HashSet<ChannelName>,
    since: Instant,
}

impl Default for Lately {
    fn default() -> Self {
        let (recent, earlier) = (HashSet::new(), HashSet::new());
        Self(Mutex::new(Generations { recent, earlier, since: Instant::now() }))
    }
}

impl Lately {
    pub(super) fn note(&self, channel: &ChannelName) {
        self.with(|Generations { recent, .. }| {
            if recent.len() < CAPACITY && !recent.contains(channel) {
                recent.insert(channel.clone());
            }
        });
    }

    pub(super) fn has(&self, channel: &ChannelName) -> bool {
        self.with(|Generations { recent, earlier, .. }| recent.contains(channel) || earlier.contains(channel))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Generations) -> T) -> T {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = generations.since.elapsed();
        if age >= REMEMBERED_FOR {
            generations.earlier = std::mem::take(&mut generations.recent);
            generations.since = Instant::now();
        }
        if age >= 2 * REMEMBERED_FOR {
            generations.earlier.clear();
        }
        look(&mut generations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::fixture::channel;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_again_is_forgotten() {
        let (lately, a, b) = (Lately::default(), channel("room:a"), channel("room:b"));
        lately.note(&a);
        assert!(lately.has(&a) && !lately.has(&b));
        tokio::time::advance(REMEMBERED_FOR).await;
        lately.note(&b);
        assert!(lately.has(&a) && lately.has(&b));
        tokio::time::advance(REMEMBERED_FOR).await;
        assert!(!lately.has(&a) && lately.has(&b));
        tokio::time::advance(REMEMBERED_FOR * 2).await;
        assert!(!lately.has(&b));
    }
}
