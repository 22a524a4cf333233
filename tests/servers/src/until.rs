//! Tests wait for what they are about, never for a time.

use std::panic::Location;
use std::time::Duration;

/// Far beyond what any condition takes, even on a busy machine: reached only when it never comes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

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
