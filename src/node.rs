//! One node: what all sessions and the HTTP API of this process share, and the way of a publication through it.
//!
//! `announce` tells the other nodes what was appended here, `history` reads the logs for who asks, `lookup` says which
//! node a client should use, `delete` takes messages away and `expire` those whose time has come, `route` has a channel
//! in which many nodes append appended to by one, `health` asks how the backends are, `balance` moves clients to who has
//! few, `tend` looks after what nobody waits for.
//!
//! Invariant: it knows backends by their traits only; who wires them is `main.rs`.

mod announce;
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
mod route;
mod telling;
mod tend;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, trace, warn};
use xpush_protocol::{
    AppId, ChannelName, Cursor, DeviceId, Draining, ErrorCode, Join, Leave, Limits as ClientLimits, Message,
    ServerFrame, SessionId, Target, UserId,
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
use telling::{Inboxes, Untold as UntoldMessage};

use crate::{
    auth::{Auth, SessionState},
    broker::{Broker, Carried, Inbox, Taken, Topic},
    channel::{Channels, PRESENCE_EVENTS_LIMIT},
    directory::{Change, Directory, LoginMode},
    log::{Appended, Log, LogError},
    membership::{Membership, NodeId},
    metrics::Metrics,
    namespace::{Access, Namespaces, Policy, Retention},
    presence::{List, Presence},
    publication::{Draft, Publisher},
    rate::{Allowance, Rates},
    session::{Departed, Entering, Refusal, Sessions},
    webhook::Webhooks,
};

/// Beyond it a connection begins without its app's login mode: the store is away.
const LOGIN_MODE_PATIENCE: Duration = Duration::from_millis(500);

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
    /// Publishes, and requests with an idempotency key, under way: they are finished whoever no longer waits for them, or the log would have what the
    /// subscribers have not.
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
}

/// A publish under way: its place, and whether the message was there already.
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

    /// Puts a message in line for its channel. What it gives resolves once the message is as durable as its
    /// namespace promises; then it is on its way to the subscribers too.
    pub async fn publish(
        self: &Arc<Self>,
        channel: &ChannelName,
        draft: Draft,
    ) -> Result<Publishing, Refusal> {
        let draft = match self.publish_at_once(channel, draft) {
            Ok(published) => return Ok(ready(published).boxed()),
            Err(draft) => draft,
        };
        match draft.expires_in {
            Some(expires_in) => self.publish_expiring(channel, draft, expires_in).await,
            None => self.publish_in_line(channel, draft).await,
        }
    }

    async fn publish_in_line(
        self: &Arc<Self>,
        channel: &ChannelName,
        draft: Draft,
    ) -> Result<Publishing, Refusal> {
        let policy = self.policy(channel)?;
        if self.webhooks.must_mark(policy, channel) {
            Box::pin(self.webhooks.mark(&self.directory, &**self.log(policy), channel)).await?;
        }
        let told = self.tells_members(policy, channel).then(|| UntoldMessage::new(channel, &draft));
        let publishing = if matches!(policy.retention, Retention::Durable { .. }) && self.is_in_cluster() {
            self.publish_routed(policy, channel, draft).await?
        } else {
            self.publish_here(policy, channel, draft, ()).await?
        };
        let Some(told) = told else { return Ok(publishing) };
        let node = Arc::clone(self);
        Ok(async move {
            let published = publishing.await?;
            if let (cursor, false) = published {
                node.told_of(told, cursor.offset);
            }
            Ok(published)
        }
        .boxed())
    }

    /// Whether the members of the channel hear of its messages in their inboxes.
    fn tells_members(&self, policy: &Policy, channel: &ChannelName) -> bool {
        let has_members = |access| matches!(access, Access::Members | Access::Public);
        matches!(policy.retention, Retention::Durable { .. })
            && match self.directory.known_policy(&channel.app()) {
                Some(of_app) => has_members(gate::rules_of(policy, channel, &of_app).access),
                None => has_members(policy.access),
            }
    }

    /// As `publish`, where there is nothing to wait for. Gives the draft back where there is.
    #[allow(clippy::result_large_err, reason = "it is no error: the draft itself is given back")]
    pub fn publish_at_once(
        self: &Arc<Self>,
        channel: &ChannelName,
        draft: Draft,
    ) -> Result<Result<(Cursor, bool), Refusal>, Draft> {
        let policy = match self.policy(channel) {
            Ok(policy) => policy,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if draft.payload.len() > self.limits.data {
            let message =
                format!("the data has {} bytes, {} are allowed", draft.payload.len(), self.limits.data);
            return Ok(Err(Refusal::new(ErrorCode::TooLarge, message)));
        }
        // Its time has to be noted first, or that the channel has messages to be told of.
        if draft.expires_in.is_some() || self.webhooks.must_mark(policy, channel) {
            return Err(draft);
        }
        let (log, began) = (self.log(policy), Instant::now());
        let appended = log.append_at_once(channel, draft)?;
        Ok(self.published(channel, began, appended, log.carries()))
    }

    /// Has this node append it. `until_appended` is dropped once the log has answered.
    async fn publish_here(
        self: &Arc<Self>,
        policy: &Policy,
        channel: &ChannelName,
        draft: Draft,
        until_appended: impl Send + 'static,
    ) -> Result<Publishing, Refusal> {
        let began = Instant::now();
        let log = self.log(policy);
        let carried = log.carries();
        let mut pending = log.append(channel, draft).await?;
        let (node, channel) = (Arc::clone(self), channel.clone());
        // It may have answered already; what waits for a disk is no longer its publisher's alone.
        if let Some(appended) = (&mut pending).now_or_never() {
            return Ok(ready(node.published(&channel, began, appended, carried)).boxed());
        }
        let task = self.publishing.spawn(async move {
            let appended = pending.await;
            drop(until_appended);
            node.published(&channel, began, appended, carried)
        });
        let lost =
            |error| Refusal::new(ErrorCode::Internal, format!("the publish was not finished: {error}"));
        Ok(async move { task.await.unwrap_or_else(|error| Err(lost(error))) }.boxed())
    }

    /// What is left to do once the log has answered: the publication is on its way to the subscribers.
    fn published(
        self: &Arc<Self>,
        channel: &ChannelName,
        began: Instant,
        appended: Result<Appended, LogError>,
        carried: bool,
    ) -> Result<(Cursor, bool), Refusal> {
        let appended = appended.inspect_err(|_| self.metrics.append_failed())?;
        self.metrics.appended(began.elapsed());
        let cursor = appended.cursor();
        let Appended::New { epoch, publication } = appended else {
            // Who appended it may have died before it told anybody.
            self.announce(Carried::Top { channel: channel.clone(), cursor });
            return Ok((cursor, true));
        };
        trace!(%channel, offset = cursor.offset, "published");
        if self.webhooks.are_some()
            && let Ok(policy) = self.policy(channel)
        {
            self.webhooks.published(policy, channel);
        }
        self.channels.deliver(channel, epoch, &publication);
        if !carried {
            self.announce(Carried::Publication { channel: channel.clone(), epoch, publication });
        }
        Ok((cursor, false))
    }

    /// Does to its end what was begun, whoever no longer waits for it.
    #[cfg(feature = "server")]
    pub(crate) fn see_through<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.publishing.spawn(task)
    }

    /// Waits for the publishes that are under way. There must be nobody left who begins one.
    pub async fn finish(&self) {
        self.publishing.close();
        self.publishing.wait().await;
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

    /// A connection takes a session over, from an older one here or, if the session was known before, anywhere.
    pub(crate) async fn attach(&self, entering: Entering<'_>, known: bool) {
        let Entering { session, user, device, since, generation, .. } = entering;
        self.sessions.attach(entering);
        if let Some(user) = user {
            self.enforce_login_mode(user, device, session, since).await;
            self.note_seen(user, device, session);
        }
        let of_session = self.broker.listen(Topic::Session(session.clone()));
        let of_user = user.map(|user| self.broker.listen(Topic::User(user.clone())));
        let of_user = async {
            if let Some(of_user) = of_user {
                of_user.await;
            }
        };
        tokio::join!(of_session, of_user);
        if known {
            // Where it can't be told, the older connection ends by itself, when its wire does.
            let _ = self.broker.publish(Carried::Taken(Taken { session: session.clone(), generation })).await;
        }
    }

    /// Where the app allows one session of a user, or of a device, the others end: here at once, elsewhere once they
    /// hear of it.
    async fn enforce_login_mode(
        &self,
        user: &UserId,
        device: Option<&DeviceId>,
        session: &SessionId,
        since: u64,
    ) {
        // Nobody is kept out, or waiting, for a store that is away.
        let policy = match timeout(LOGIN_MODE_PATIENCE, self.directory.policy(&user.app())).await {
            Ok(Ok(policy)) => policy,
            Ok(Err(error)) => return debug!(%user, %error, "the app's login mode is not known"),
            Err(_) => return debug!(%user, "the app's login mode is not known in time"),
        };
        let device = match (policy.login, device) {
            (LoginMode::PerUser, _) => None,
            (LoginMode::PerDevice, Some(device)) => Some(device.clone()),
            (LoginMode::PerDevice, None) | (LoginMode::Many, _) => return,
        };
        self.sessions.end_others(user, device.as_ref(), session, since);
        let (app, session) = (user.app(), session.clone());
        let entered = Change::Entered { app, user: user.clone(), device, session, at: since };
        if let Err(error) = self.directory.tell(&entered).await {
            warn!(%user, %error, "other nodes were not told to end the user's other sessions");
        }
    }

    /// Listens to a channel; `unlisten` has to follow.
    pub(crate) async fn listen(&self, channel: &ChannelName) {
        self.broker.listen(Topic::Channel(channel.clone())).await;
    }

    pub(crate) fn unlisten(&self, channel: &ChannelName) {
        self.broker.unlisten(&Topic::Channel(channel.clone()));
    }

    /// A session is no longer in a channel by this connection.
    pub(crate) async fn leave(&self, channel: &ChannelName, session: &SessionId, connection: u64) {
        if let Some(left) = self.presence.leave(channel, session, connection).await {
            let (member, occupancy) = (left.member, left.occupancy);
            self.note_user(channel, member.user.as_ref(), occupancy, false);
            let leave = Leave { channel: channel.clone(), member, occupancy };
            self.tell_presence(channel.clone(), occupancy, ServerFrame::Leave(leave)).await;
        }
    }

    /// A connection whose session will not return, or goes on by another, leaves its channels.
    pub(crate) async fn depart(&self, departed: Departed) {
        self.broker.unlisten(&Topic::Session(departed.session.clone()));
        if let Some(user) = &departed.user {
            self.broker.unlisten(&Topic::User(user.clone()));
        }
        for channel in &departed.channels {
            self.leave(channel, &departed.session, departed.connection).await;
        }
    }

    pub(crate) async fn tell_join(&self, join: Join) {
        self.note_user(&join.channel, join.member.user.as_ref(), join.occupancy, true);
        self.tell_presence(join.channel.clone(), join.occupancy, ServerFrame::Join(join)).await;
    }

    /// Tells all who are in a channel, here and elsewhere, something that is in no log.
    pub(crate) async fn tell_channel(&self, channel: ChannelName, frame: ServerFrame) {
        self.channels.tell(&channel, &frame);
        // Lost, it is what it may be: news that was of use for a moment.
        let _ = self.broker.publish(Carried::Event { channel, frame }).await;
    }

    async fn tell_presence(&self, channel: ChannelName, occupancy: u32, frame: ServerFrame) {
        self.channels.tell_presence(&channel, occupancy, &frame);
        // Of a big channel the others are told once a second, by `tend`, unless nobody is left here to count.
        if occupancy <= PRESENCE_EVENTS_LIMIT || self.channels.get(&channel).is_none() {
            // Lost, it is one event that subscribers elsewhere don't see; the list of members is right.
            let _ = self.broker.publish(Carried::Presence { channel, occupancy, frame }).await;
        }
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
