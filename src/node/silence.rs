//! Nodes that were asked to append, and did not: each is left alone for a while, and then asked by one batch before all
//! others.
//!
//! What the broker could not bring to a node is no silence of it. Where that was taken for one, three nodes that lost
//! their broker for a moment appended each for itself long after it was back, and a log that had to bear this beside a
//! full load fell behind for good.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tracing::warn;

use crate::membership::NodeId;

/// For how long a node is left alone: the first time, and at most. It doubles each time that it does not answer then
/// either.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// Who was not asked for so long is asked as if nothing had been. It is more than an answer takes that comes at all.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Which nodes did not answer, each run of them by its number.
#[derive(Default)]
pub(super) struct Silences {
    nodes: Mutex<HashMap<u64, Silence>>,
    changed: Notify,
}

struct Silence {
    /// When asking it came to nothing the last time.
    last: Instant,
    /// How long it is left alone since. Zero: nothing speaks against it.
    rest: Duration,
    until: Instant,
    /// It was asked again, and has not answered yet.
    is_tried: bool,
}

impl Silence {
    fn is_silent(&self) -> bool {
        self.is_tried || self.until > Instant::now()
    }
}

impl Silences {
    pub(super) fn is_silent(&self, instance: u64) -> bool {
        self.nodes().get(&instance).is_some_and(Silence::is_silent)
    }

    /// Gives whether it may be asked. Then one of the others has to follow. Where it was silent, nobody else may until then.
    pub(super) fn ask(&self, instance: u64) -> bool {
        let mut nodes = self.nodes();
        // Those that are gone for good are forgotten here too.
        nodes.retain(|_, silence| silence.last.elapsed() < FORGOTTEN_AFTER);
        let Some(silence) = nodes.get_mut(&instance) else { return true };
        if silence.is_silent() {
            return false;
        }
        silence.is_tried = !silence.rest.is_zero();
        true
    }

    /// It answered.
    pub(super) fn heard(&self, instance: u64) {
        self.nodes().remove(&instance);
    }

    /// It did not, or could not append.
    pub(super) fn silent(&self, node: &NodeId, instance: u64) {
        let now = Instant::now();
        let mut nodes = self.nodes();
        let silence = nodes.entry(instance).or_insert_with(|| Silence::nothing(now));
        if silence.until > now && !silence.is_tried {
            // Many were waiting for it.
            return;
        }
        if silence.rest.is_zero() {
            warn!(%node, "a node does not append for this one; it appends by itself for a while");
        }
        let rest = (2 * silence.rest).clamp(REST.0, REST.1);
        *silence = Silence { last: now, rest, until: now + rest, is_tried: false };
        drop(nodes);
        self.changed.notify_waiters();
    }

    /// The broker could not bring it what it was asked: nor will the answers come that others wait for.
    pub(super) fn unreached(&self, instance: u64) {
        let now = Instant::now();
        let mut nodes = self.nodes();
        let silence = nodes.entry(instance).or_insert_with(|| Silence::nothing(now));
        (silence.last, silence.is_tried) = (now, false);
        drop(nodes);
        self.changed.notify_waiters();
    }

    /// Resolves when somebody asked it in vain, from `since` on.
    pub(super) async fn in_vain(&self, instance: u64, since: Instant) {
        loop {
            let changed = self.changed.notified();
            if self.nodes().get(&instance).is_some_and(|silence| silence.last >= since) {
                return;
            }
            changed.await;
        }
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<u64, Silence>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Silence {
    fn nothing(now: Instant) -> Self {
        Self { last: now, rest: Duration::ZERO, until: now, is_tried: false }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    const NODE: u64 = 1;

    fn silences() -> (Silences, NodeId) {
        (Silences::default(), "n1".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_silent_is_asked_by_one_and_left_alone_longer_each_time() {
        let (silences, node) = silences();
        assert!(silences.ask(NODE));
        let mut rest = REST.0;
        for _ in 0..5 {
            silences.silent(&node, NODE);
            // Others that waited for it too.
            silences.silent(&node, NODE);
            assert!(silences.is_silent(NODE) && !silences.ask(NODE));
            advance(rest - Duration::from_millis(1)).await;
            assert!(silences.is_silent(NODE), "not left alone for {rest:?}");
            advance(Duration::from_millis(1)).await;
            assert!(!silences.is_silent(NODE) && silences.ask(NODE));
            assert!(silences.is_silent(NODE) && !silences.ask(NODE), "it is being asked");
            rest = (2 * rest).min(REST.1);
        }
        silences.heard(NODE);
        assert!(silences.ask(NODE) && !silences.is_silent(NODE));
        silences.silent(&node, NODE);
        advance(REST.0).await;
        assert!(silences.ask(NODE), "what was before it answered counts no more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_broker_could_not_bring_is_no_silence() {
        let (silences, node) = silences();
        assert!(silences.ask(NODE));
        let mut waiting = pin!(silences.in_vain(NODE, Instant::now()));
        assert!((&mut waiting).now_or_never().is_none());
        silences.unreached(NODE);
        assert!((&mut waiting).now_or_never().is_some(), "who waits is not told");
        assert!(silences.ask(NODE) && silences.ask(NODE) && !silences.is_silent(NODE));

        // Nor is it an answer of who was silent before.
        silences.silent(&node, NODE);
        advance(REST.0).await;
        assert!(silences.ask(NODE));
        silences.unreached(NODE);
        assert!(silences.ask(NODE) && !silences.ask(NODE), "one asks it again, and one only");
        silences.silent(&node, NODE);
        advance(REST.0).await;
        assert!(silences.is_silent(NODE), "it is left alone longer than before");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asked_after_it_fell_silent_waits_for_an_answer() {
        let (silences, node) = silences();
        silences.silent(&node, NODE);
        advance(REST.0).await;
        assert!(silences.ask(NODE));
        let mut waiting = pin!(silences.in_vain(NODE, Instant::now()));
        assert!((&mut waiting).now_or_never().is_none());
        silences.silent(&node, NODE);
        assert!((&mut waiting).now_or_never().is_some());
    }
}
