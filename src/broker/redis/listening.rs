//! One task brings what is listened to in line with what is to be: it subscribes, unsubscribes, and begins again
//! where a connection was lost or a topic went to another server of a Cluster. Only when all of that is done are the
//! channels doubted: what comes from then on is heard.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    reading::Queue,
    topics::{Status, Topics},
};
use crate::{
    broker::Inbox,
    redis::{Ear, Heard, Link, LinkError, Server},
};

/// A connection over which nothing comes is tried as often.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Between two attempts where a server is there and yet does not let us listen.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Listening {
    pub(super) link: Arc<Link>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) topics: Arc<Topics>,
    pub(super) queue: Arc<Queue>,
    /// By the server's name.
    pub(super) open: HashMap<String, Open>,
    /// The topics that are heard, and at which server.
    pub(super) heard: HashMap<String, String>,
    /// Those that are wanted and not heard.
    pub(super) missing: HashSet<String>,
}

/// A connection, and what it says of itself.
pub(super) struct Open {
    ear: Ear,
    run: Arc<str>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_lost: AtomicBool,
    /// Topics that we asked it to let go.
    leaving: Mutex<HashSet<Vec<u8>>>,
}

impl Listening {
    /// Goes on until it is cancelled.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut changed = self.link.changed();
        let (mut has_changed, mut pinged) = (true, Instant::now());
        loop {
            let lost = |open: &Open| open.state.is_lost.load(Ordering::Acquire);
            self.lose(|_, open| lost(open));
            if mem::take(&mut has_changed) {
                self.follow().await;
            }
            self.take_touched().await;
            let is_to_retry = self.subscribe().await;
            tokio::select! {
                () = self.topics.changed.notified() => {}
                _ = changed.changed() => has_changed = true,
                () = sleep(if is_to_retry { RETRY_PAUSE } else { PING_INTERVAL }) => {}
                () = cancel.cancelled() => return,
            }
            if pinged.elapsed() >= PING_INTERVAL {
                self.ping().await;
                pinged = Instant::now();
            }
        }
    }

    /// Gives up the connections that are of no use, and what was heard over them.
    fn lose(&mut self, is_lost: impl Fn(&str, &Open) -> bool) {
        let names: HashSet<_> =
            self.open.extract_if(|name, open| is_lost(name, open)).map(|(name, _)| name).collect();
        if names.is_empty() {
            return;
        }
        debug!(?names, "a subscription was lost");
        let topics: Vec<_> =
            self.heard.extract_if(|_, at| names.contains(at)).map(|(topic, _)| topic).collect();
        self.topics.set(&topics, Status::OutOfReach);
        self.missing.extend(topics);
    }

    /// A server was reached or lost, or has other topics than before.
    async fn follow(&mut self) {
        let servers: HashMap<String, Arc<Server>> =
            self.link.servers().into_iter().map(|server| (server.name().to_owned(), server)).collect();
        // Another run at the same place, as a Sentinel's new primary: who listens to the old one hears nothing.
        self.lose(|name, open| match servers.get(name).map(|server| server.wire()) {
            Some(Ok(wire)) => wire.run != open.run,
            Some(Err(_)) => false,
            None => true,
        });
        let elsewhere =
            |topic: &str, at: &str| self.link.server(topic).is_ok_and(|server| server.name() != at);
        let moved: Vec<_> = self.heard.extract_if(|topic, at| elsewhere(topic, at)).collect();
        let topics: Vec<_> = moved.iter().map(|(topic, _)| topic.clone()).collect();
        self.topics.set(&topics, Status::OutOfReach);
        self.missing.extend(topics);
        self.unsubscribe(moved).await;
    }

    async fn take_touched(&mut self) {
        let (mut known, mut leaving) = (Vec::new(), Vec::new());
        for (topic, is_wanted) in self.topics.take_touched() {
            match (is_wanted, self.heard.contains_key(&topic)) {
                (true, true) => known.push(topic),
                (true, false) => {
                    self.missing.insert(topic);
                }
                (false, true) => leaving.extend(self.heard.remove_entry(&topic)),
                (false, false) => {
                    self.missing.remove(&topic);
                }
            }
        }
        self.topics.set(&known, Status::Heard);
        self.unsubscribe(leaving).await;
    }

    async fn unsubscribe(&mut self, leaving: Vec<(String, String)>) {
        let mut by_server: HashMap<String, Vec<String>> = HashMap::new();
        for (topic, at) in leaving {
            by_server.entry(at).or_default().push(topic);
        }
        for (name, topics) in by_server {
            let Some(open) = self.open.get_mut(&name) else { continue };
            open.state.leaving().extend(topics.iter().map(|topic| topic.clone().into_bytes()));
            if open.ear.unsubscribe(&topics).await.is_err() {
                self.lose(|lost, _| lost == name);
            }
        }
    }

    /// Gives whether it is worth trying again soon.
    async fn subscribe(&mut self) -> bool {
        let mut by_server: HashMap<String, (Arc<Server>, Vec<String>)> = HashMap::new();
        let mut out_of_reach = Vec::new();
        for topic in &self.missing {
            match self.link.server(topic) {
                Ok(server) if server.wire().is_ok() => {
                    let name = server.name().to_owned();
                    by_server.entry(name).or_insert_with(|| (server, Vec::new())).1.push(topic.clone());
                }
                _ => out_of_reach.push(topic.clone()),
            }
        }
        self.topics.set(&out_of_reach, Status::OutOfReach);
        let mut work = Vec::new();
        for (name, (server, topics)) in by_server {
            let (open, queue, changed) =
                (self.open.remove(&name), Arc::clone(&self.queue), Arc::clone(&self.topics));
            work.push(async move {
                let subscribed = async {
                    let mut open = match open {
                        Some(open) => open,
                        None => Open::at(&server, queue, changed).await?,
                    };
                    open.ear.subscribe(&topics).await?;
                    Ok::<_, LinkError>(open)
                };
                let subscribed = subscribed.await;
                (name, topics, subscribed)
            });
        }
        let (mut is_to_retry, mut is_doubtful) = (false, false);
        for (name, topics, subscribed) in join_all(work).await {
            match subscribed {
                Ok(open) => {
                    self.open.insert(name.clone(), open);
                    for topic in &topics {
                        self.missing.remove(topic);
                        self.heard.insert(topic.clone(), name.clone());
                    }
                    is_doubtful |= self.topics.set(&topics, Status::Heard);
                }
                Err(error) => {
                    debug!(server = name, %error, "can't listen");
                    is_to_retry = true;
                    self.link.suspect();
                    let gone: Vec<_> =
                        self.heard.extract_if(|_, at| *at == name).map(|(topic, _)| topic).collect();
                    self.topics.set(&gone, Status::OutOfReach);
                    self.topics.set(&topics, Status::OutOfReach);
                    self.missing.extend(gone);
                }
            }
        }
        if is_doubtful {
            self.inbox.doubt();
        }
        is_to_retry
    }

    async fn ping(&mut self) {
        join_all(self.open.values_mut().map(|open| async {
            if open.ear.ping().await.is_err() {
                open.state.is_lost.store(true, Ordering::Release);
            }
        }))
        .await;
    }
}

impl Open {
    async fn at(server: &Arc<Server>, queue: Arc<Queue>, topics: Arc<Topics>) -> Result<Self, LinkError> {
        let run = server.wire()?.run;
        let state = Arc::new(State::default());
        let its = Arc::clone(&state);
        let heard = move |what| match what {
            Heard::Message { topic, body } => queue.push(topic, body),
            // It went elsewhere with its slot. The client library may have taken the news for an answer: begin anew.
            Heard::Left(topic) if !its.leaving().remove(&topic) => {
                its.is_lost.store(true, Ordering::Release);
                topics.changed.notify_one();
            }
            Heard::Left(_) => {}
            Heard::Lost => {
                its.is_lost.store(true, Ordering::Release);
                topics.changed.notify_one();
            }
        };
        Ok(Self { ear: Ear::open(server, heard).await?, run, state })
    }
}

impl State {
    fn leaving(&self) -> MutexGuard<'_, HashSet<Vec<u8>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
