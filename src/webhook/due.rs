//! Lines that have something to tell, now or later: each once, those of one webhook a few at a time.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use xpush_protocol::AppId;

use super::line::Line;

/// Lines known at once. More are found later, by what is kept of them.
const LINES: usize = 100_000;
/// Of one webhook that are told at once: a slow one must not take the place of all.
const OF_ONE_HOOK: usize = 8;
/// Of all.
const AT_ONCE: usize = 128;

#[derive(Default)]
pub(super) struct Due {
    lines: Mutex<Lines>,
    changed: Notify,
}

#[derive(Default)]
struct Lines {
    known: HashMap<Line, Place>,
    ready: HashMap<(AppId, String), VecDeque<Line>>,
    later: BTreeMap<(Instant, u64), Line>,
    running: HashMap<(AppId, String), usize>,
    /// Tells lines of the same moment apart.
    numbers: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    Later(Instant, u64),
    /// Being told. `again`: there was more to tell since.
    Running {
        again: bool,
    },
}

impl Due {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has something to tell. One that is to wait (for its webhook to answer again) still waits.
    pub(super) fn add(&self, line: Line) {
        let mut lines = self.lines();
        let has_room = lines.known.len() < LINES;
        match lines.known.get_mut(&line) {
            Some(Place::Running { again }) => *again = true,
            Some(_) => {}
            None if has_room => {
                lines.make_ready(line);
                drop(lines);
                self.changed.notify_one();
            }
            None => {}
        }
    }

    /// Waits for one that can be told now. Cancel safe. `done` has to follow.
    pub(super) async fn next(&self) -> Line {
        loop {
            let until = {
                let mut lines = self.lines();
                lines.wake(Instant::now());
                if let Some(line) = lines.take() {
                    return line;
                }
                lines.later.keys().next().map(|(at, _)| *at)
            };
            let timer = async {
                match until {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = timer => {}
            }
        }
    }

    /// It was told what there was, or is to be told more after this time.
    pub(super) fn done(&self, line: Line, after: Option<Duration>) {
        let mut lines = self.lines();
        let of = line.of_hook();
        if let Some(count) = lines.running.get_mut(&of) {
            *count -= 1;
            if *count == 0 {
                lines.running.remove(&of);
            }
        }
        let again = lines.known.remove(&line) == Some(Place::Running { again: true });
        match after {
            Some(after) => {
                lines.numbers += 1;
                let (at, number) = (Instant::now() + after, lines.numbers);
                lines.known.insert(line.clone(), Place::Later(at, number));
                lines.later.insert((at, number), line);
            }
            None if again => lines.make_ready(line),
            None => {}
        }
        drop(lines);
        self.changed.notify_one();
    }
}

impl Lines {
    fn make_ready(&mut self, line: Line) {
        self.known.insert(line.clone(), Place::Ready);
        self.ready.entry(line.of_hook()).or_default().push_back(line);
    }

    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let line = entry.remove();
            self.make_ready(line);
        }
    }

    fn take(&mut self) -> Option<Line> {
        if self.running.values().sum::<usize>() >= AT_ONCE {
            return None;
        }
        let running = |of: &(AppId, String)| self.running.get(of).copied().unwrap_or(0);
        // Who has the fewest under way comes first.
        let free = self.ready.keys().filter(|of| running(of) < OF_ONE_HOOK);
        let of = free.min_by_key(|of| running(of))?.clone();
        let queue = self.ready.get_mut(&of)?;
        let line = queue.pop_front()?;
        if queue.is_empty() {
            self.ready.remove(&of);
        }
        *self.running.entry(of).or_default() += 1;
        self.known.insert(line.clone(), Place::Running { again: false });
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(hook: &str, n: usize) -> Line {
        Line::of_events(&AppId::default(), hook, &format!("room:{n}"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_is_told_once_at_a_time_and_again_if_there_is_more() {
        let due = Due::default();
        due.add(line("a", 1));
        due.add(line("a", 1));
        let first = due.next().await;
        due.add(line("a", 1));
        let none = tokio::time::timeout(Duration::from_secs(1), due.next()).await;
        assert!(none.is_err(), "it is being told");
        due.done(first, None);
        let again = due.next().await;
        due.done(again, Some(Duration::from_secs(60)));
        due.add(line("a", 1));
        let began = Instant::now();
        due.next().await;
        assert_eq!(began.elapsed(), Duration::from_secs(60), "it waits whatever comes");
    }

    #[tokio::test(start_paused = true)]
    async fn one_webhook_does_not_take_the_place_of_the_others() {
        let due = Due::default();
        (0..100).for_each(|n| due.add(line("slow", n)));
        let mut running = Vec::new();
        for _ in 0..OF_ONE_HOOK {
            running.push(due.next().await);
        }
        due.add(line("other", 0));
        assert_eq!(due.next().await, line("other", 0));
        let none = tokio::time::timeout(Duration::from_secs(1), due.next()).await;
        assert!(none.is_err());
        due.done(running.remove(0), None);
        assert_eq!(due.next().await, line("slow", OF_ONE_HOOK));
    }
}
