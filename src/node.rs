//! One node: what all sessions and the HTTP API of this process share, and the way of a publication through it.
//!
//! `entrance` says who is let in and `gate` what he may do in a channel, `attend` has sessions come and go. `publish` puts
//! a message into its log and hands it on: `announce` tells the other nodes, `telling` the inboxes of the channel's
//! members (`inbox`), `contacts` tells friends who is online. `history` reads the logs for who asks, `mark` notes how far
//! members have come, `delete` takes messages away, `expire` those whose time has come and `farewell` what a deleted user
//! leaves. `lookup` says which node a client should use, `route` has a channel in which many nodes append appended to by
//! one, `health` asks how the backends are, `balance` moves clients to who has few, `tend` looks after what nobody waits
//! for.
//!
//! Invariant: it knows backends by their traits only; who wires them is `main.rs`.

mod announce;
mod attend;
mod balance;
mod contacts;
mod delete;
mod entrance;
mod expire;
mod farewell;
mod gate;
mod health;
mod history;
mod inbox;
mod lookup;
mod mark;
mod publish;
mod route;
mod silence;
mod telling;
mod tend;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use xpush_protocol::{
    AppId, ChannelName, Cursor, Draining, ErrorCode, Limits as ClientLimits, Message, ServerFrame, Target,
};

use announce::Untold;
use contacts::Contacts;
pub use delete::Deleter;
use gate::Gate;
pub use health::Health;
pub use history::HistoryQuery;
pub use inbox::inbox_of;
pub use mark::Mark;
use route::Routes;
use telling::Inboxes;

use crate::{
    auth::{Auth, SessionState},
    broker::{Broker, Carried, Inbox},
    channel::Channels,
    directory::Directory,
    log::Log,
    membership::{Membership, NodeId},
    metrics::Metrics,
    namespace::{Namespaces, Policy, Retention},
    presence::{List, Presence},
    publication::Publisher,
    rate::{Allowance, Rates},
    session::{Couriers, Refusal, Sessions},
    webhook::Webhooks,
};

/// Sessions that look at all of their rights at once: half of what a store reads at once.
const RECHECK_TURNS: usize = 16;

/// What this node takes.
#[derive(Debug, Clone)]
pub struct Limits {
    pub frame: usize,
    /// Bytes of a message's data.
    pub data: usize,
    pub in_flight: usize,
    pub subscriptions: usize,
    /// By one session; 0 is no limit.
    pub publishes_per_second: u32,
    pub ping_interval: Duration,
}

impl Limits {
    #[must_use]
    pub fn for_clients(&self) -> ClientLimits {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        ClientLimits {
            frame: number(self.frame),
            in_flight: number(self.in_flight),
            subscriptions: number(self.subscriptions),
        }
    }
}

/// What a node is made of.
pub struct Parts {
    pub namespaces: Namespaces,
    pub limits: Limits,
    pub auth: Auth,
    /// Where the broker puts what comes from other nodes; it names this one.
    pub inbox: Arc<Inbox>,
    /// Keeps `recent` channels, and counts those of `none`.
    pub recent: Arc<dyn Log>,
    pub durable: Arc<dyn Log>,
    pub directory: Arc<Directory>,
    pub broker: Arc<dyn Broker>,
    pub membership: Arc<dyn Membership>,
    pub presence: Arc<dyn Presence>,
    pub metrics: Arc<Metrics>,
}

/// One node.
pub struct Node {
    pub id: NodeId,
    pub namespaces: Namespaces,
    pub limits: Limits,
    pub channels: Arc<Channels>,
    pub presence: Arc<dyn Presence>,
    pub membership: Arc<dyn Membership>,
    pub metrics: Arc<Metrics>,
    pub sessions: Arc<Sessions>,
    pub directory: Arc<Directory>,
    pub webhooks: Arc<Webhooks>,
    inbox: Arc<Inbox>,
    auth: Auth,
    recent: Arc<dyn Log>,
    durable: Arc<dyn Log>,
    broker: Arc<dyn Broker>,
    connections: AtomicU64,
    rates: Rates,
    /// Publishes, and requests with an idempotency key, under way: they are finished whoever no longer waits for them, or
    /// the log would have what the subscribers have not.
    publishing: TaskTracker,
    untold: Untold,
    gate: Gate,
    /// Sessions that look at all of their rights at once.
    pub(crate) recheck_turns: Semaphore,
    inboxes: Inboxes,
    contacts: Contacts,
    routes: Routes,
    draining: AtomicBool,
    unchecked: entrance::Unchecked,
    /// An operator wants this node to leave.
    leaving: CancellationToken,
    pub(crate) couriers: Couriers,
}

/// A publish under way: its place, and whether the message was there already. What is left to do once the log has the
/// message is done by who waits for this, or by a task of the node's if it is dropped.
pub type Publishing = BoxFuture<'static, Result<(Cursor, bool), Refusal>>;

impl Node {
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            namespaces,
            limits,
            auth,
            inbox,
            recent,
            durable,
            directory,
            broker,
            membership,
            presence,
            metrics,
        } = parts;
        let rates = Rates::per_second(limits.publishes_per_second);
        let couriers = Couriers::new(&metrics);
        Arc::new(Self {
            id: inbox.node().clone(),
            namespaces,
            limits,
            channels: Arc::clone(&inbox.channels),
            presence,
            membership,
            metrics,
            sessions: Arc::clone(&inbox.sessions),
            inbox,
            auth,
            recent,
            durable,
            webhooks: Arc::new(Webhooks::new(Arc::clone(&directory.hooks))),
            directory,
            broker,
            connections: AtomicU64::new(0),
            rates,
            publishing: TaskTracker::new(),
            untold: Untold::default(),
            gate: Gate::default(),
            recheck_turns: Semaphore::new(RECHECK_TURNS),
            inboxes: Inboxes::default(),
            contacts: Contacts::default(),
            routes: Routes::default(),
            draining: AtomicBool::new(false),
            unchecked: entrance::Unchecked::default(),
            leaving: CancellationToken::new(),
            couriers,
        })
    }

    /// What holds for a channel.
    pub fn policy(&self, channel: &ChannelName) -> Result<&Policy, Refusal> {
        self.namespaces.get(channel).ok_or_else(|| {
            let message =
                format!("there is no namespace `{}`; the configuration names them", channel.namespace());
            Refusal::new(ErrorCode::UnknownNamespace, message)
        })
    }

    #[must_use]
    pub fn log(&self, policy: &Policy) -> &Arc<dyn Log> {
        match policy.retention {
            Retention::None | Retention::Recent { .. } => &self.recent,
            Retention::Durable { .. } => &self.durable,
        }
    }

    /// Does to its end what was begun, whoever no longer waits for it.
    #[cfg(feature = "server")]
    pub(crate) fn see_through<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.publishing.spawn(task)
    }

    /// Waits for the publishes that are under way, whoever holds them, and for the couriers. There must be nobody left who
    /// begins one.
    pub async fn finish(&self) {
        self.publishing.close();
        self.publishing.wait().await;
        self.couriers.finish().await;
    }

    /// Messages a second of one publisher, from here on; 0 is no limit.
    pub fn limit_publishes(&self, per_second: u32) {
        self.rates.set_limit(per_second);
    }

    /// What this publisher may publish.
    pub fn allowance(&self, publisher: &Publisher) -> Arc<Allowance> {
        self.rates.of(publisher)
    }

    /// Counts a publish against its publisher's allowance.
    pub fn admit_publish(&self, allowance: &Allowance) -> Result<(), Refusal> {
        self.rates.take(allowance).map_err(|wait| Refusal {
            code: ErrorCode::RateLimited,
            message: format!("a publisher may publish {} messages a second", self.rates.limit()),
            retry_after: Some(wait.as_millis().max(1) as u32),
        })
    }

    /// Who is in a channel.
    pub async fn list_presence(&self, channel: &ChannelName) -> Result<List, Refusal> {
        if !self.policy(channel)?.presence {
            let message = format!("the namespace `{}` has no presence", channel.namespace());
            return Err(Refusal::new(ErrorCode::NotSupported, message));
        }
        Ok(self.presence.list(channel).await)
    }

    /// Hands a private message to the sessions of this app that are connected, here and at other nodes. Gives how many
    /// took it.
    pub async fn send(&self, app: &AppId, to: Target, message: Message) -> Result<u32, Refusal> {
        let here = self.sessions.send(app, &to, ServerFrame::Message(message.clone()));
        // A session is at one node, a user at many.
        let elsewhere = match to {
            Target::Session(_) if here > 0 => 0,
            to => self.send_elsewhere(app.clone(), to, message).await,
        };
        match here + elsewhere {
            0 => Err(Refusal::new(
                ErrorCode::NotConnected,
                "nobody with that address is connected, or can take more",
            )),
            sessions => Ok(sessions),
        }
    }

    async fn send_elsewhere(&self, app: AppId, to: Target, message: Message) -> u32 {
        let Some(answers) = self.inbox.expect_accepted() else { return 0 };
        let (from, request) = (self.id.clone(), answers.request);
        // Without the broker nobody elsewhere can be reached, and nobody took it.
        match self.broker.publish(Carried::Message { app, to, message, from, request }).await {
            Ok(nodes) => answers.sum(nodes).await,
            Err(_) => 0,
        }
    }

    /// Changes of rights so far: what was decided before one of them has to be looked at again.
    pub(crate) fn changes(&self) -> u64 {
        self.gate.changes()
    }

    pub(crate) fn open_state(&self, sealed: &str) -> Result<SessionState, Refusal> {
        Ok(self.auth.sealer.open(sealed)?)
    }

    pub(crate) fn seal_state(&self, state: &SessionState) -> String {
        self.auth.sealer.seal(state)
    }

    /// A key of the installation for something that is sealed neither as a state nor as a ticket.
    #[cfg(feature = "server")]
    pub(crate) fn key_of(&self, purpose: &[u8]) -> [u8; 32] {
        self.auth.sealer.key_of(purpose)
    }

    #[must_use]
    pub fn durable_log(&self) -> &Arc<dyn Log> {
        &self.durable
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether there may be other nodes.
    #[must_use]
    pub fn is_in_cluster(&self) -> bool {
        self.broker.reaches_others()
    }

    /// Whether this node takes new clients.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// As SIGTERM does; whoever runs the node waits for it with `asked_to_leave`.
    pub fn ask_to_leave(&self) {
        self.leaving.cancel();
    }

    pub async fn asked_to_leave(&self) {
        self.leaving.cancelled().await;
    }

    /// Takes no new clients from here on, and tells the others.
    pub fn leave_lookup(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.membership.tell(self.status());
    }

    /// Tells every session to be live elsewhere within this time.
    pub fn drain(&self, within: Duration) {
        self.leave_lookup();
        let (count, millis) = (self.sessions.count().max(1), within.as_millis() as u32);
        self.sessions.tell_all(|index| {
            // Spread over the first half, so that the slowest still has the second.
            let reconnect_in = (u64::from(millis / 2) * index as u64 / count as u64) as u32;
            ServerFrame::Draining(Draining { reconnect_in, close_in: millis })
        });
    }
}
