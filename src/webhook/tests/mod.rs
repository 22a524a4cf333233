//! Webhooks against a receiver that is a part of the test, in time that stands still unless it is waited for. Those against
//! real servers are in `tests/webhook`.

mod after;
mod before;

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    directory::{
        Directory,
        store::{Commit, Key, Memory, Store},
    },
    log::{Capacity, Keep, Log, fixture},
    namespace::{Policy, Retention},
};

/// Milliseconds since 1970, by the time of the test.
pub(super) fn clock() -> u64 {
    thread_local! {
        static BEGAN: (Instant, u64) = (Instant::now(), now());
    }
    BEGAN.with(|(began, at)| at + began.elapsed().as_millis() as u64)
}

/// What a receiver does with a request.
pub(super) enum Does {
    Answer(u16, Value),
    Fail,
    /// As long as this, and then a yes.
    Wait(Duration),
}

/// Takes requests, and notes them.
#[derive(Default)]
pub(super) struct Receiver {
    /// What it does with the next ones. Then it says yes.
    script: Mutex<VecDeque<Does>>,
    /// What it always does with deliveries of this id.
    poisoned: Mutex<Option<String>>,
    taken: Mutex<Vec<Taken>>,
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) at: Instant,
    pub(super) url: String,
    pub(super) body: Value,
    pub(super) attempt: String,
    pub(super) ended: bool,
}

impl Receiver {
    pub(super) fn doing(script: impl IntoIterator<Item = Does>) -> Arc<Self> {
        Arc::new(Self { script: Mutex::new(script.into_iter().collect()), ..Self::default() })
    }

    pub(super) fn poison(&self, id: &str) {
        *lock(&self.poisoned) = Some(id.into());
    }

    pub(super) fn cure(&self) {
        *lock(&self.poisoned) = None;
    }

    pub(super) fn taken(&self) -> Vec<Taken> {
        lock(&self.taken).clone()
    }

    /// The `data` of all requests.
    pub(super) fn data(&self) -> Vec<Value> {
        self.taken().into_iter().map(|taken| taken.body["data"].clone()).collect()
    }
}

impl Dial for Receiver {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
        let header = |name: &str| {
            let found = call.headers.iter().find(|(header, _)| *header == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let body: Value = serde_json::from_slice(call.body.as_deref().unwrap_or_default()).unwrap();
        assert!(header("xpush-signature").starts_with("t="), "it is signed");
        assert_eq!(
            (header("xpush-delivery"), header("xpush-event")),
            (text(&body["id"]), text(&body["event"]))
        );
        let url = format!("{}{}", call.target.origin(), call.target.path_and_query());
        let is_poisoned = lock(&self.poisoned).as_deref() == body["id"].as_str();
        let does =
            if is_poisoned { Some(Does::Answer(500, json!({}))) } else { lock(&self.script).pop_front() };
        let attempt = header("xpush-attempt");
        let place = {
            let mut taken = lock(&self.taken);
            taken.push(Taken { at: Instant::now(), url, body, attempt, ended: false });
            taken.len() - 1
        };
        Box::pin(async move {
            let answer = |status, body: &Value| Ok(Answer { status, body: Bytes::from(body.to_string()) });
            let answer = match does.unwrap_or(Does::Answer(200, json!({}))) {
                Does::Answer(status, body) => answer(status, &body),
                Does::Fail => Err(CallError::Unreachable("it is not there".into())),
                Does::Wait(time) => tokio::time::timeout(call.within, sleep(time))
                    .await
                    .map_err(|_| CallError::TimedOut(call.within))
                    .and_then(|()| answer(204, &Value::Null)),
            };
            lock(&self.taken)[place].ended = true;
            answer
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What nodes share.
pub(super) struct World {
    pub(super) store: Arc<dyn Store>,
    pub(super) log: Arc<dyn Log>,
    clock: fn() -> u64,
}

impl World {
    /// The default app has these webhooks.
    pub(super) async fn with(webhooks: Value) -> Self {
        Self::on(Arc::new(Memory::default()), clock, webhooks).await
    }

    /// On a real store, in real time.
    pub(super) async fn real(store: Arc<dyn Store>, webhooks: Value) -> Self {
        Self::on(store, now, webhooks).await
    }

    async fn on(store: Arc<dyn Store>, clock: fn() -> u64, webhooks: Value) -> Self {
        let keep = fixture::keep("room", Keep { count: None, age: None });
        let log = crate::log::Memory::new(keep, Capacity { channels: 1_000, bytes: 64 << 20 });
        let world = Self { store, log: Arc::new(log), clock };
        world.set("default", webhooks).await;
        world
    }

    pub(super) async fn set(&self, app: &str, webhooks: Value) {
        let record = json!({ "app": app, "name": app, "created": 0, "policy": { "webhooks": webhooks } });
        let commit = Commit::new().put(Key::new(&["app", app]), record.to_string());
        self.store.commit(commit).await.unwrap();
    }

    /// A node that calls this receiver.
    pub(super) async fn node(&self, receiver: &Arc<Receiver>) -> TestHooks {
        let directory = Arc::new(Directory::new(Arc::clone(&self.store)));
        let mut hooks = Webhooks::new(Arc::clone(&directory.hooks));
        hooks.clock = self.clock;
        hooks.dial_by(Arc::clone(receiver) as Arc<dyn Dial>);
        let node = TestHooks { hooks: Arc::new(hooks), directory, log: Arc::clone(&self.log), running: None };
        node.hooks.load(&node.directory).await.unwrap();
        node
    }

    /// As `node`, and it runs.
    pub(super) async fn running(&self, receiver: &Arc<Receiver>) -> TestHooks {
        let mut node = self.node(receiver).await;
        node.run();
        node
    }
}

/// What of a node has to do with webhooks.
pub(super) struct TestHooks {
    pub(super) hooks: Arc<Webhooks>,
    pub(super) directory: Arc<Directory>,
    log: Arc<dyn Log>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl TestHooks {
    pub(super) fn run(&mut self) {
        let cancel = CancellationToken::new();
        let (hooks, directory, log) =
            (Arc::clone(&self.hooks), Arc::clone(&self.directory), Arc::clone(&self.log));
        let token = cancel.clone();
        let task = tokio::spawn(async move { hooks.run(&directory, &log, &token).await });
        self.running = Some((cancel, task));
    }

    /// As a node does that is told to stop.
    pub(super) async fn stop(&mut self) {
        let (cancel, task) = self.running.take().unwrap();
        cancel.cancel();
        task.await.unwrap();
    }

    /// As a process that is killed.
    pub(super) async fn kill(&mut self) {
        let (_, task) = self.running.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    /// What a node does with a publish; without `told`, it dies right after it has acknowledged it.
    pub(super) async fn publish(&self, channel: &str, n: u64, told: bool) {
        let (channel, policy) = (fixture::channel(channel), durable());
        if self.hooks.must_mark(&policy, &channel) {
            self.hooks.mark(&self.directory, &*self.log, &channel).await.unwrap();
        }
        let draft =
            crate::publication::Draft { time: self.hooks.now(), ..fixture::draft(channel.local(), n) };
        fixture::append(&*self.log, &channel, draft).await;
        if told {
            self.hooks.published(&policy, &channel);
        }
    }
}

pub(super) fn durable() -> Policy {
    let keep = Keep { count: None, age: None };
    Policy { retention: Retention::Durable { keep }, ..Policy::default() }
}

pub(super) fn webhook(id: &str, events: &[&str], change: Value) -> Value {
    let url = format!("https://{id}.example/in");
    let mut webhook = json!({ "id": id, "url": url, "events": events, "secret": "0123456789abcdef" });
    webhook.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    webhook
}

/// Waits, in the test's time, until it holds.
#[track_caller]
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(4 * 3600), "in vain: {what} (at {at})");
            sleep(Duration::from_millis(10)).await;
        }
    }
}
