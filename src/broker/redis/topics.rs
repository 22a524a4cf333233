//! What is to be listened to, counted, and how far that is so.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

/// The topics that somebody here listens to.
#[derive(Default)]
pub(super) struct Topics {
    state: Mutex<State>,
    /// There is something to look at.
    pub(super) changed: Notify,
}

#[derive(Default)]
struct State {
    wanted: HashMap<String, Wanted>,
    /// Those that somebody began or ceased to listen to since the last look.
    touched: HashSet<String>,
}

struct Wanted {
    listeners: usize,
    status: watch::Sender<Status>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Asked,
    /// What is published arrives.
    Heard,
    OutOfReach,
}

impl Topics {
    pub(super) fn listen(&self, topic: String) -> watch::Receiver<Status> {
        let mut state = self.state();
        let State { wanted, touched } = &mut *state;
        let entry = wanted.entry(topic).or_insert_with_key(|topic| {
            touched.insert(topic.clone());
            Wanted { listeners: 0, status: watch::Sender::new(Status::Asked) }
        });
        entry.listeners += 1;
        let status = entry.status.subscribe();
        drop(state);
        self.changed.notify_one();
        status
    }

    pub(super) fn unlisten(&self, topic: &str) {
        let mut state = self.state();
        let Some(wanted) = state.wanted.get_mut(topic) else { return };
        wanted.listeners -= 1;
        if wanted.listeners == 0 {
            state.wanted.remove(topic);
            state.touched.insert(topic.to_owned());
            drop(state);
            self.changed.notify_one();
        }
    }

    pub(super) fn is_heard(&self, topic: &str) -> bool {
        self.state().wanted.get(topic).is_some_and(|wanted| *wanted.status.borrow() == Status::Heard)
    }

    /// The topics that somebody began or ceased to listen to, and whether they are wanted now.
    pub(super) fn take_touched(&self) -> Vec<(String, bool)> {
        let mut state = self.state();
        let touched = std::mem::take(&mut state.touched);
        touched
            .into_iter()
            .map(|topic| (state.wanted.contains_key(&topic), topic))
            .map(|(is, t)| (t, is))
            .collect()
    }

    /// Takes note of how it stands with these. Gives whether one was out of reach and no longer is: something may have
    /// been missed.
    pub(super) fn set(&self, topics: &[String], status: Status) -> bool {
        let state = self.state();
        let mut was_out_of_reach = false;
        for wanted in topics.iter().filter_map(|topic| state.wanted.get(topic)) {
            let old = wanted.status.send_replace(status);
            was_out_of_reach |= old == Status::OutOfReach && status == Status::Heard;
        }
        was_out_of_reach
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_wanted_until_the_last_listener_goes() {
        let topics = Topics::default();
        let first = topics.listen("a".into());
        assert_eq!(topics.take_touched(), [("a".to_owned(), true)]);
        let second = topics.listen("a".into());
        assert_eq!(topics.take_touched(), []);
        assert!(!topics.set(&["a".into()], Status::Heard));
        assert_eq!((*first.borrow(), *second.borrow()), (Status::Heard, Status::Heard));
        topics.unlisten("a");
        assert!(topics.is_heard("a"));
        topics.unlisten("a");
        assert!(!topics.is_heard("a"));
        assert_eq!(topics.take_touched(), [("a".to_owned(), false)]);
        topics.unlisten("a");
    }

    #[test]
    fn what_was_out_of_reach_may_have_missed_something() {
        let topics = Topics::default();
        let _status = topics.listen("a".into());
        assert!(!topics.set(&["a".into(), "b".into()], Status::OutOfReach));
        assert!(topics.set(&["a".into()], Status::Heard));
        assert!(!topics.set(&["a".into()], Status::Heard));
    }
}
