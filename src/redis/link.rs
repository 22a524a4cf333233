//! What the backends hold: the way to whichever server has a key.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use ::redis::{Cmd, FromRedisValue, Pipeline, ServerError, ServerErrorKind, Value};
use futures_util::future::join_all;
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Keys, LinkError, Script, Settings,
    address::Address,
    server::{Seat, Server},
    slots::Slots,
};

/// How long a start waits for Redis.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// One command's answer, which may be an error of its own.
pub(crate) type Reply = Value;

/// The way to Redis.
pub struct Link {
    pub(crate) keys: Keys,
    layout: Layout,
    changed: watch::Sender<u64>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

enum Layout {
    /// One server has everything.
    One(Arc<Server>),
    Cluster(Arc<Slots>),
}

impl Link {
    /// Connects. A Redis that can't be used is told now: one that is out of reach, too old, or refuses the password.
    pub async fn connect(settings: &Settings) -> Result<Arc<Self>, LinkError> {
        let keys = Keys::new(&settings.prefix)?;
        let address = Address::parse(&settings.url)?;
        if address.has_tls() {
            // Taken already: then it is ours or the program's choice, and both will do.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let (changed, tasks, cancel) = (watch::Sender::new(0), TaskTracker::new(), CancellationToken::new());
        let one = |seat| {
            let server = Server::new(seat, changed.clone(), Arc::default(), cancel.child_token());
            tasks.spawn(Arc::clone(&server).keep());
            Layout::One(server)
        };
        let layout = match address {
            Address::Single(info) => one(Seat::Fixed(info)),
            Address::Sentinel(sentinels) => one(Seat::Primary(sentinels)),
            Address::Cluster(seeds) => {
                let slots = Slots::new(seeds, changed.clone(), tasks.clone(), cancel.clone());
                Layout::Cluster(Arc::new(slots))
            }
        };
        let link = Arc::new(Self { keys, layout, changed, tasks, cancel });
        let started = timeout(START_DEADLINE, link.first_attempt()).await.unwrap_or_else(|_| {
            let reason = format!("there was no answer within {START_DEADLINE:?}");
            Err(LinkError::Unreachable { address: "its address".into(), reason })
        });
        match started {
            Ok(()) => Ok(link),
            Err(error) => {
                link.close().await;
                Err(error)
            }
        }
    }

    /// Ends the connections. Whoever still asks is told that Redis is out of reach.
    pub async fn close(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether every server is there.
    pub async fn check(&self) -> Result<(), LinkError> {
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        for server in self.servers() {
            let replies = server.ask(&server.wire()?, &ping).await?;
            replies.into_iter().next().map_or(Ok(()), |reply| read::<String>(reply).map(drop))?;
        }
        Ok(())
    }

    /// Which server has a key.
    pub(crate) fn server(&self, key: &str) -> Result<Arc<Server>, LinkError> {
        match &self.layout {
            Layout::One(server) => Ok(Arc::clone(server)),
            Layout::Cluster(slots) => slots.server(key),
        }
    }

    pub(crate) fn servers(&self) -> Vec<Arc<Server>> {
        match &self.layout {
            Layout::One(server) => vec![Arc::clone(server)],
            Layout::Cluster(slots) => slots.servers(),
        }
    }

    /// Which runs of which servers are there. A new one may not know what another knew.
    pub(crate) fn runs(&self) -> BTreeSet<Arc<str>> {
        self.servers().iter().filter_map(|server| Some(server.wire().ok()?.run)).collect()
    }

    /// A server doubts that it has what it was asked for.
    pub(crate) fn suspect(&self) {
        if let Layout::Cluster(slots) = &self.layout {
            slots.stale.notify_one();
        }
    }

    /// Changes whenever a server was reached or lost, or has other keys than before.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Sends one command to the server that has `key`.
    pub(crate) async fn ask<T: FromRedisValue>(&self, key: &str, command: Cmd) -> Result<T, LinkError> {
        let server = self.server(key)?;
        let mut commands = Pipeline::new();
        commands.add_command(command);
        let replies = server.ask(&server.wire()?, &commands).await?;
        replies.into_iter().next().map_or_else(|| Err(unreadable("nothing")), read)
    }

    /// Sends a command for each key to the server that has it, those of one server in one go and in the keys' order.
    /// The answers stand in that order too.
    pub(crate) async fn ask_each(
        &self,
        keys: &[String],
        command: impl Fn(usize) -> Cmd,
    ) -> Vec<Result<Reply, LinkError>> {
        self.each(keys.iter().map(String::as_str), |at, _, _| command(at)).await
    }

    /// Runs a script for each list of keys, as `ask_each` does. To each server the first brings the script's text: one
    /// that does not know it could refuse some, learn it from somebody else, and take those behind them.
    pub(crate) async fn run_each<K: AsRef<[String]>>(
        &self,
        script: &Script,
        keys: &[K],
        arguments: impl Fn(usize, &mut Cmd, &str),
    ) -> Vec<Result<Reply, LinkError>> {
        let firsts = keys.iter().map(|keys| keys.as_ref()[0].as_str());
        let call = |at: usize, is_first, run: &str| {
            let keys = keys[at].as_ref();
            let mut call = if is_first { script.whole(keys) } else { script.by_hash(keys) };
            arguments(at, &mut call, run);
            call
        };
        self.each(firsts, call).await
    }

    /// `command` gets the key's place, whether it is its server's first, and the run of that server.
    async fn each<'a>(
        &self,
        keys: impl Iterator<Item = &'a str>,
        command: impl Fn(usize, bool, &str) -> Cmd,
    ) -> Vec<Result<Reply, LinkError>> {
        let mut answers = Vec::new();
        let mut by_server: HashMap<String, (Arc<Server>, Vec<usize>)> = HashMap::new();
        for (at, key) in keys.enumerate() {
            answers.push(Err(unreadable("nothing")));
            match self.server(key) {
                Ok(server) => {
                    let name = server.name().to_owned();
                    by_server.entry(name).or_insert_with(|| (server, Vec::new())).1.push(at);
                }
                Err(error) => answers[at] = Err(error),
            }
        }
        let command = &command;
        let asked = by_server.into_values().map(|(server, places)| async move {
            let replies = async {
                let wire = server.wire()?;
                let mut commands = Pipeline::with_capacity(places.len());
                for (nth, at) in places.iter().enumerate() {
                    commands.add_command(command(*at, nth == 0, &wire.run));
                }
                server.ask(&wire, &commands).await
            };
            let replies = replies.await;
            (places, replies)
        });
        for (places, replies) in join_all(asked).await {
            match replies {
                Ok(replies) => {
                    for (at, reply) in places.into_iter().zip(replies) {
                        answers[at] = Ok(reply);
                    }
                }
                Err(error) => {
                    for at in places {
                        answers[at] = Err(error.clone());
                    }
                }
            }
        }
        answers
    }

    /// Runs a script where its first key is. `arguments` gets the run of the server that will do it.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: impl Fn(&mut Cmd, &str),
    ) -> Result<T, LinkError> {
        let server = self.server(&keys[0])?;
        let wire = server.wire()?;
        let mut reply = None;
        for mut call in [script.by_hash(keys), script.whole(keys)] {
            arguments(&mut call, &wire.run);
            let mut commands = Pipeline::new();
            commands.add_command(call);
            reply = server.ask(&wire, &commands).await?.into_iter().next();
            let unknown = Some(ServerErrorKind::NoScript);
            if reply.as_ref().and_then(server_error).is_none_or(|error| error.kind() != unknown) {
                break;
            }
        }
        reply.map_or_else(|| Err(unreadable("nothing")), read)
    }

    async fn first_attempt(&self) -> Result<(), LinkError> {
        if let Layout::Cluster(slots) = &self.layout {
            slots.refresh().await?;
            self.tasks.spawn(Arc::clone(slots).keep());
        }
        let attempts =
            join_all(self.servers().into_iter().map(|server| async move { server.first_attempt().await }));
        let attempts = attempts.await;
        // A Cluster may miss a server, and still has the others.
        let is_there = attempts.iter().any(Result::is_ok);
        if is_there { Ok(()) } else { attempts.into_iter().collect() }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Who did not close it does not want to wait for its tasks; they end all the same.
        self.cancel.cancel();
    }
}

/// What a command answered, or why it did not.
pub(crate) fn read<T: FromRedisValue>(reply: Reply) -> Result<T, LinkError> {
    match server_error(&reply) {
        Some(error) => Err(LinkError::Refused { reason: text(error) }),
        None => T::from_redis_value(reply).map_err(|error| unreadable(&error.to_string())),
    }
}

pub(crate) fn server_error(reply: &Reply) -> Option<&ServerError> {
    match reply {
        Value::ServerError(error) => Some(error),
        _ => None,
    }
}

/// As the server said it.
pub(crate) fn text(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

fn unreadable(answer: &str) -> LinkError {
    LinkError::Refused { reason: format!("its answer can't be read: {answer}") }
}
