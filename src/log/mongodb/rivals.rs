//! In which channels other nodes append now, as far as this one was told or found its own appends refused.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use xpush_protocol::ChannelName;

/// A channel in which another node appended is remembered for so long at least, and twice as long at most. Where appends
/// come more seldom than this, they seldom meet.
const REMEMBERED_FOR: Duration = Duration::from_secs(2);
/// Channels that are remembered, twice. In one more, appends go on standing in each other's way.
const CAPACITY: usize = 64 * 1024;

pub(super) struct Rivals(Mutex<Generations>);

struct Generations {
    recent: HashSet<ChannelName>,
    earlier: HashSet<ChannelName>,
    since: Instant,
}

impl Default for Rivals {
    fn default() -> Self {
        let (recent, earlier) = (HashSet::new(), HashSet::new());
        Self(Mutex::new(Generations { recent, earlier, since: Instant::now() }))
    }
}

impl Rivals {
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
    async fn rivals_are_forgotten_once_they_are_still() {
        let (rivals, a, b) = (Rivals::default(), channel("room:a"), channel("room:b"));
        rivals.note(&a);
        assert!(rivals.has(&a) && !rivals.has(&b));
        tokio::time::advance(REMEMBERED_FOR).await;
        rivals.note(&b);
        assert!(rivals.has(&a) && rivals.has(&b));
        tokio::time::advance(REMEMBERED_FOR).await;
        assert!(!rivals.has(&a) && rivals.has(&b));
        tokio::time::advance(REMEMBERED_FOR * 2).await;
        assert!(!rivals.has(&b));
    }
}
