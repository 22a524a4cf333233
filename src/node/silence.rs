//! Nodes that were asked to append, and did not: each is left alone for a while, and then asked by one batch before all
//! others. So is one that comes, or comes back: it may not hear yet what it is asked.
//!
//! What the broker could not bring says little of the node: it is left alone for a moment, and no longer each time. Where
//! that was taken for silence, three nodes whose broker was away appended each for itself long after it was back, and a
//! log that had to bear this beside a full load fell behind for good.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tracing::warn;

use super::route::Appender;

/// For how long a node is left alone that is silent: the first time, and at most. It doubles each time.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// And one that the broker does not reach.
const UNREACHED_REST: Duration = Duration::from_millis(500);
/// Who was not silent for so long begins with the first rest again. It is more than the longest.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15);

/// How the nodes answer that are there, each run of them by its number.
#[derive(Default)]
pub(super) struct Silences {
    nodes: Mutex<HashMap<u64, Silence>>,
    changed: Notify,
}

struct Silence {
    /// When asking it came to nothing the last time.
    last: Option<Instant>,
    until: Instant,
    /// How long it was left alone the last time that it was silent.
    rest: Duration,
    trial: Trial,
}

/// Whether it has to show that it answers, before more than one batch goes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    Due,
    UnderWay,
    Passed,
}

/// A node is being asked. Who drops this has found out nothing.
pub(super) struct Asking<'a> {
    silences: &'a Silences,
    appender: &'a Appender,
    is_trial: bool,
}

impl Silence {
    fn is_silent(&self) -> bool {
        self.trial == Trial::UnderWay || self.until > Instant::now()
    }
}

impl Silences {
    pub(super) fn is_silent(&self, instance: u64) -> bool {
        self.nodes().get(&instance).is_some_and(Silence::is_silent)
    }

    /// `None`: it is not to be asked now.
    pub(super) fn ask<'a>(&'a self, appender: &'a Appender) -> Option<Asking<'a>> {
        let mut nodes = self.nodes();
        let silence = nodes.entry(appender.instance).or_insert_with(|| Silence {
            last: None,
            until: Instant::now(),
            rest: Duration::ZERO,
            trial: Trial::Due,
        });
        if silence.is_silent() {
            return None;
        }
        let is_trial = silence.trial == Trial::Due;
        if is_trial {
            silence.trial = Trial::UnderWay;
        }
        Some(Asking { silences: self, appender, is_trial })
    }

    /// Forgets those that are not there any more.
    pub(super) fn keep(&self, is_there: impl Fn(u64) -> bool) {
        self.nodes().retain(|instance, _| is_there(*instance));
    }

    /// Resolves when somebody asked it in vain, from `since` on.
    pub(super) async fn in_vain(&self, instance: u64, since: Instant) {
        loop {
            let changed = self.changed.notified();
            if self.nodes().get(&instance).is_some_and(|silence| silence.last >= Some(since)) {
                return;
            }
            changed.await;
        }
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<u64, Silence>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking<'_> {
    /// It answered, or gave a sign of life: others need not wait for this one's answer.
    pub(super) fn heard(&mut self) {
        self.is_trial = false;
        if let Some(silence) = self.silences.nodes().get_mut(&self.appender.instance) {
            (silence.until, silence.trial) = (Instant::now(), Trial::Passed);
        }
    }

    /// It did not, or could not append.
    pub(super) fn silent(self) {
        self.fail(true);
    }

    /// The broker did not bring it what it was asked. Nor will the answers come that others wait for.
    pub(super) fn unreached(self) {
        self.fail(false);
    }

    fn fail(self, is_silent: bool) {
        let now = Instant::now();
        let mut nodes = self.silences.nodes();
        // It may be gone meanwhile.
        let Some(silence) = nodes.get_mut(&self.appender.instance) else { return };
        if silence.until > now && !self.is_trial {
            // Many were waiting for it.
            return;
        }
        if silence.last.is_none_or(|last| last.elapsed() >= FORGOTTEN_AFTER) {
            silence.rest = Duration::ZERO;
            let node = &self.appender.id;
            warn!(%node, "a node does not append for this one; it appends by itself for a while");
        }
        if is_silent {
            silence.rest = (2 * silence.rest).clamp(REST.0, REST.1);
        }
        silence.last = Some(now);
        silence.until = now + if is_silent { silence.rest } else { UNREACHED_REST };
        silence.trial = Trial::Due;
        drop(nodes);
        self.silences.changed.notify_waiters();
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_trial {
            return;
        }
        if let Some(silence) = self.silences.nodes().get_mut(&self.appender.instance)
            && silence.trial == Trial::UnderWay
        {
            silence.trial = Trial::Due;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;
    use tokio::time::advance;

    use super::*;

    const A_BIT: Duration = Duration::from_millis(1);

    fn appender() -> Appender {
        Appender { id: "n1".parse().unwrap(), instance: 1 }
    }

    /// With a node that answered.
    fn heard_of(node: &Appender) -> Silences {
        let silences = Silences::default();
        silences.ask(node).unwrap().heard();
        silences
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_is_asked_by_one_first_and_again_when_it_comes_back() {
        let (silences, node) = (Silences::default(), appender());
        for _ in 0..2 {
            let mut first = silences.ask(&node).unwrap();
            assert!(silences.is_silent(1) && silences.ask(&node).is_none(), "more than one asks it");
            first.heard();
            assert!(!silences.is_silent(1));
            let (_second, third) = (silences.ask(&node).unwrap(), silences.ask(&node).unwrap());
            silences.keep(|instance| instance != 1);
            third.silent();
            assert!(!silences.is_silent(1), "it was another one that was silent");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_left_alone_longer_each_time_and_asked_by_one() {
        let node = appender();
        let silences = heard_of(&node);
        let (first, second) = (silences.ask(&node).unwrap(), silences.ask(&node).unwrap());
        first.silent();
        // It waited for it too.
        second.silent();
        for rest in [1, 2, 4, 8, 10, 10].map(Duration::from_secs) {
            advance(rest - A_BIT).await;
            assert!(silences.is_silent(1) && silences.ask(&node).is_none(), "not left alone for {rest:?}");
            advance(A_BIT).await;
            assert!(!silences.is_silent(1), "left alone for more than {rest:?}");
            let trial = silences.ask(&node).unwrap();
            assert!(silences.is_silent(1) && silences.ask(&node).is_none(), "more than one asks it");
            trial.silent();
        }
        advance(REST.1).await;
        silences.ask(&node).unwrap().heard();
        let (first, _second) = (silences.ask(&node).unwrap(), silences.ask(&node).unwrap());
        first.silent();
        advance(REST.1 - A_BIT).await;
        assert!(silences.is_silent(1), "one answer in between is enough to be asked all the time");
        advance(FORGOTTEN_AFTER).await;
        silences.ask(&node).unwrap().silent();
        advance(REST.0).await;
        assert!(!silences.is_silent(1), "long ago counts");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_broker_does_not_reach_is_left_alone_for_a_moment_only() {
        let node = appender();
        let silences = heard_of(&node);
        for _ in 0..5 {
            silences.ask(&node).unwrap().unreached();
            advance(UNREACHED_REST - A_BIT).await;
            assert!(silences.is_silent(1) && silences.ask(&node).is_none());
            advance(A_BIT).await;
            assert!(!silences.is_silent(1));
        }
        silences.ask(&node).unwrap().silent();
        advance(REST.0).await;
        assert!(!silences.is_silent(1), "that it was not reached counts as silence");
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_finds_nothing_out_is_made_again() {
        let node = appender();
        let silences = heard_of(&node);
        silences.ask(&node).unwrap().silent();
        advance(REST.0).await;
        drop(silences.ask(&node).unwrap());
        assert!(!silences.is_silent(1));
        let _trial = silences.ask(&node).unwrap();
        assert!(silences.ask(&node).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_lets_others_ask_before_the_answer() {
        let node = appender();
        let silences = heard_of(&node);
        silences.ask(&node).unwrap().silent();
        advance(REST.0).await;
        let mut trial = silences.ask(&node).unwrap();
        trial.heard();
        assert!(!silences.is_silent(1) && silences.ask(&node).is_some());
        let other = silences.ask(&node).unwrap();
        trial.silent();
        assert!(silences.is_silent(1), "it could not append in the end");
        other.silent();
        advance(2 * REST.0).await;
        assert!(!silences.is_silent(1), "one silence counts twice");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_that_it_is_in_vain() {
        let node = appender();
        let silences = heard_of(&node);
        for in_vain in [Asking::silent, Asking::unreached] {
            let asking = silences.ask(&node).unwrap();
            let mut waiting = pin!(silences.in_vain(1, Instant::now()));
            assert!((&mut waiting).now_or_never().is_none());
            in_vain(asking);
            assert!((&mut waiting).now_or_never().is_some());
            advance(REST.0).await;
            let asked_since = silences.in_vain(1, Instant::now());
            assert!(asked_since.now_or_never().is_none(), "what was before it asked counts");
        }
    }
}
