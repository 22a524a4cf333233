//! One server, and the connection that commands go over. While it is known to be down every command fails at once,
//! and one task tries to reach it again: nobody waits for a server that is not there.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, Pipeline, PushInfo, PushKind, RedisError, ServerErrorKind,
    aio::{AsyncPushSender, ConnectionLike as _, MultiplexedConnection},
};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    LinkError,
    address::{Sentinels, moved},
    link::{Reply, server_error, text},
};

/// To connect, with TLS and a password.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// For an answer. A server that takes longer is taken for lost, or everybody would wait for it.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(1);
/// Commands that wait to be written; who brings one more waits with it.
const COMMANDS_CAPACITY: usize = 1024;
/// A connection over which nothing goes is tried as often.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Between two attempts to reach a server that is down: from the first to the second, doubled each time.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// What is needed: sharded Pub/Sub in scripts.
const NEEDED_VERSION: u32 = 7;

/// One server, or the primary of a Sentinel's set.
pub(crate) struct Server {
    name: String,
    seat: Seat,
    state: Mutex<State>,
    /// Counts how often the state changed.
    changed: watch::Sender<u64>,
    lost: Notify,
    /// What is told when the server says that other slots are elsewhere.
    stale: Arc<Notify>,
    pub(super) cancel: CancellationToken,
}

/// Where the server is.
pub(super) enum Seat {
    Fixed(ConnectionInfo),
    /// Where the Sentinels say, each time anew.
    Primary(Sentinels),
}

enum State {
    /// The first attempt is under way.
    Unknown,
    Up(Wire),
    Down(LinkError),
}

/// A connection to a server.
#[derive(Clone)]
pub(crate) struct Wire {
    connection: MultiplexedConnection,
    /// Which run of which process is there: another one may not know what this one knew.
    pub(crate) run: Arc<str>,
    number: u64,
}

impl Server {
    pub(super) fn new(
        seat: Seat,
        changed: watch::Sender<u64>,
        stale: Arc<Notify>,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let name = match &seat {
            Seat::Fixed(info) => info.addr().to_string(),
            Seat::Primary(sentinels) => sentinels.primary.clone(),
        };
        let state = Mutex::new(State::Unknown);
        Arc::new(Self { name, seat, state, changed, lost: Notify::new(), stale, cancel })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The connection there is now.
    pub(crate) fn wire(&self) -> Result<Wire, LinkError> {
        match &*self.state() {
            State::Up(wire) => Ok(wire.clone()),
            State::Down(error) => Err(error.clone()),
            State::Unknown => Err(self.unreachable("it was not reached yet")),
        }
    }

    /// Sends commands, in their order and one after another, and gives their answers. An error means that it is not
    /// known which of them were done.
    pub(crate) async fn ask(&self, wire: &Wire, commands: &Pipeline) -> Result<Vec<Reply>, LinkError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = wire.connection.clone();
        let answered = connection.req_packed_commands(commands, 0, commands.len()).await;
        let replies = answered.map_err(|error| {
            let error = self.unreachable(&reason(&error));
            self.lose(wire.number, error.clone());
            error
        })?;
        for error in replies.iter().filter_map(server_error) {
            match error.kind() {
                Some(
                    ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading,
                ) => self.lose(wire.number, self.unreachable(&text(error))),
                Some(
                    ServerErrorKind::Moved
                    | ServerErrorKind::Ask
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown,
                ) => self.stale.notify_one(),
                _ => {}
            }
        }
        Ok(replies)
    }

    /// Another connection to the same server.
    pub(super) async fn connect_again(
        &self,
        heard: impl AsyncPushSender,
    ) -> Result<MultiplexedConnection, LinkError> {
        // What is down is tried by one task only.
        self.wire()?;
        let info = self.seat.find().await?;
        connect(&info, heard).await
    }

    /// Once the first attempt is over, what came of it.
    pub(super) async fn first_attempt(&self) -> Result<(), LinkError> {
        let mut changed = self.changed.subscribe();
        loop {
            match &*self.state() {
                State::Unknown => {}
                State::Up(_) => return Ok(()),
                State::Down(error) => return Err(error.clone()),
            }
            // The sender is ours.
            let _ = changed.changed().await;
        }
    }

    /// Keeps the connection, until it is cancelled.
    pub(super) async fn keep(self: Arc<Self>) {
        let (mut wait, mut number) = (BACKOFF.0, 0);
        loop {
            number += 1;
            let opened = tokio::select! {
                opened = self.open(number) => opened,
                () = self.cancel.cancelled() => break,
            };
            match opened {
                Ok(wire) => {
                    info!(server = self.name, run = &*wire.run, "Redis is there");
                    self.set(State::Up(wire.clone()));
                    tokio::select! {
                        () = self.until_lost(&wire) => {}
                        () = self.cancel.cancelled() => break,
                    }
                    wait = BACKOFF.0;
                }
                Err(error) => {
                    if !matches!(&*self.state(), State::Down(_)) {
                        warn!(server = self.name, %error, "Redis is not there");
                    }
                    self.set(State::Down(error));
                }
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = self.cancel.cancelled() => break,
            }
            wait = (2 * wait).min(BACKOFF.1);
        }
        self.set(State::Down(self.unreachable("it is no longer used")));
    }

    async fn open(self: &Arc<Self>, number: u64) -> Result<Wire, LinkError> {
        let info = self.seat.find().await?;
        let server = Arc::downgrade(self);
        let heard = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection
                && let Some(server) = server.upgrade()
            {
                server.lose(number, server.unreachable("it closed the connection"));
            }
            Ok::<_, ()>(())
        };
        let mut connection = connect(&info, heard).await?;
        let address = info.addr().to_string();
        let about: String = ::redis::cmd("INFO")
            .query_async(&mut connection)
            .await
            .map_err(|error| LinkError::Unreachable { address: address.clone(), reason: reason(&error) })?;
        let field = |name: &str| {
            let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned);
            about.lines().find_map(value).unwrap_or_default()
        };
        let found = field("redis_version");
        if found.split('.').next().and_then(|major| major.parse().ok()) < Some(NEEDED_VERSION) {
            return Err(LinkError::Version { address, found });
        }
        let reason = match (field("role").as_str(), field("loading").as_str()) {
            ("master", "0") => return Ok(Wire { connection, run: field("run_id").into(), number }),
            ("master", _) => "it still reads its data",
            _ => "it is a replica, and the primary is needed",
        };
        Err(LinkError::Unreachable { address, reason: reason.into() })
    }

    async fn until_lost(&self, wire: &Wire) {
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        loop {
            // Where one waits already, the permit is an old one's: look again.
            if !matches!(&*self.state(), State::Up(wire_now) if wire_now.number == wire.number) {
                return;
            }
            if timeout(PING_INTERVAL, self.lost.notified()).await.is_err() {
                // What it answers is seen there.
                let _ = self.ask(wire, &ping).await;
            }
        }
    }

    /// The connection of this number is of no use any more.
    fn lose(&self, number: u64, error: LinkError) {
        if matches!(&*self.state(), State::Up(wire) if wire.number == number) {
            warn!(server = self.name, %error, "Redis was lost");
            self.set(State::Down(error));
            self.lost.notify_one();
            self.stale.notify_one();
        }
    }

    fn set(&self, state: State) {
        // The connection's end is told under its own locks, never under ours.
        let old = std::mem::replace(&mut *self.state(), state);
        drop(old);
        self.changed.send_modify(|count| *count += 1);
    }

    fn unreachable(&self, reason: &str) -> LinkError {
        LinkError::Unreachable { address: self.name.clone(), reason: reason.to_owned() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    async fn find(&self) -> Result<ConnectionInfo, LinkError> {
        match self {
            Self::Fixed(info) => Ok(info.clone()),
            Self::Primary(sentinels) => sentinels.find().await,
        }
    }
}

impl Sentinels {
    /// Where the primary is now: the first that knows decides, as nobody else could be asked if they disagree.
    async fn find(&self) -> Result<ConnectionInfo, LinkError> {
        let mut reasons = Vec::new();
        for sentinel in &self.addresses {
            let found = async {
                let mut connection = connect(sentinel, |_: PushInfo| Ok::<_, ()>(())).await?;
                let mut question = ::redis::cmd("SENTINEL");
                question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
                let answer: Option<(String, u16)> =
                    question.query_async(&mut connection).await.map_err(|error| LinkError::Unreachable {
                        address: sentinel.addr().to_string(),
                        reason: reason(&error),
                    })?;
                answer.ok_or_else(|| LinkError::Refused {
                    reason: format!("{} knows no {}", sentinel.addr(), self.primary),
                })
            };
            match found.await {
                Ok((host, port)) => return Ok(moved(&self.server, &host, port)),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(LinkError::Unreachable { address: self.primary.clone(), reason: reasons.join("; ") })
    }
}

/// A connection by RESP3; what is pushed over it is given to `heard`, which must not wait.
pub(super) async fn connect(
    info: &ConnectionInfo,
    heard: impl AsyncPushSender,
) -> Result<MultiplexedConnection, LinkError> {
    let failed = |reason: String| LinkError::Unreachable { address: info.addr().to_string(), reason };
    let client = Client::open(info.clone()).map_err(|error| failed(reason(&error)))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_DEADLINE))
        .set_response_timeout(Some(RESPONSE_DEADLINE))
        .set_pipeline_buffer_size(COMMANDS_CAPACITY)
        .set_push_sender(heard);
    match timeout(CONNECT_DEADLINE, client.get_multiplexed_async_connection_with_config(&config)).await {
        Ok(connection) => connection.map_err(|error| failed(reason(&error))),
        Err(_) => Err(failed(format!("there was no answer within {CONNECT_DEADLINE:?}"))),
    }
}

fn reason(error: &RedisError) -> String {
    if error.is_timeout() {
        return format!("there was no answer within {RESPONSE_DEADLINE:?}");
    }
    error.to_string()
}
