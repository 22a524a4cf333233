//! Tests wait for what they are about, never for a time.

use std::panic::Location;
use std::time::{Duration, Instant};

/// Far beyond what any condition takes, even on a busy machine: reached only when it never comes.
const LIMIT: Duration = Duration::from_secs(60);

const BETWEEN_POLLS: Duration = Duration::from_millis(20);

/// Polls the condition until it holds. Panics with `what` and the caller's line when it does not within 60 s.
#[track_caller]
pub fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let polls = async {
            while !condition().await {
                tokio::time::sleep(BETWEEN_POLLS).await;
            }
        };
        if tokio::time::timeout(LIMIT, polls).await.is_err() {
            panic!("waited {LIMIT:?} in vain for: {what} (at {caller})");
        }
    }
}

/// A wait of this crate's own. It takes no closure: a future that holds an asynchronous one is not `Send`, and
/// servers are started from spawned tasks as well.
pub(crate) struct Wait {
    what: String,
    began: Instant,
}

impl Wait {
    pub(crate) fn until(what: impl Into<String>) -> Self {
        Self { what: what.into(), began: Instant::now() }
    }

    /// Between two polls. Panics when the limit is over.
    pub(crate) async fn more(&self) {
        assert!(self.began.elapsed() < LIMIT, "waited {LIMIT:?} in vain for: {}", self.what);
        tokio::time::sleep(BETWEEN_POLLS).await;
    }
}
