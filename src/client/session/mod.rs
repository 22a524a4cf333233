//! A client's session, over as many connections as it takes: it finds a node, comes back elsewhere when that one dies
//! or leaves, and goes on where it stopped. Its publications come once and in order; what it publishes is sent again
//! until it is acknowledged.

mod attempt;
mod channels;
mod driver;
mod link;
mod publishes;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rand::Rng as _;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use xpush_protocol::{
    ChannelName, Cursor, ErrorCode, EventName, Gap, Join, Lag, Leave, Message, MessageId, Occupancy, Payload,
    Publication, Publish,
};

use self::driver::Driver;
use super::{Via, lookup::Lookup};

/// Orders that may wait for the session; a caller that is faster waits.
const ORDERS_CAPACITY: usize = 256;
/// Events that may wait for the caller; for one that is slower, the session reads no more.
const EVENTS_CAPACITY: usize = 256;
/// A pause is drawn from 0 to this, doubled at each failure (full jitter).
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// Shorter than this, a busy machine's pauses look like a dead server.
const DEAD_AFTER_LEAST: Duration = Duration::from_millis(100);

/// How a session finds its servers, and who it is there.
#[derive(Debug, Clone)]
pub struct Options {
    /// The servers' HTTP addresses: one is enough to find the others.
    pub bases: Vec<String>,
    /// The wire. `None`: the first that works of those that the node names.
    pub via: Option<Via>,
    pub token: Option<String>,
    /// SHA-256 of the certificates to trust for https servers, in base64. None: the system's authorities.
    pub certificate_hashes: Vec<String>,
    /// A server that says nothing for as long is taken for dead.
    pub dead_after: Duration,
    /// Name and version, for the operator's logs.
    pub agent: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bases: Vec::new(),
            via: None,
            token: None,
            certificate_hashes: Vec::new(),
            dead_after: Duration::from_millis(1200),
            agent: None,
        }
    }
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Now,
    /// With the last this many publications.
    Last(u32),
    Behind(Cursor),
}

/// What happens to a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Of each channel in order, and once.
    Publication(Box<Publication>),
    /// What can't be had any more.
    Gap(Gap),
    /// The channel comes from behind `cursor` on; up to `top` it is caught up.
    Subscribed {
        channel: ChannelName,
        cursor: Cursor,
        top: u64,
    },
    /// The subscription is over.
    Refused {
        channel: ChannelName,
        code: ErrorCode,
        message: String,
    },
    /// The servers lost what was read behind this cursor (a restored backup): the channel goes on from now.
    CursorLost {
        channel: ChannelName,
        cursor: Cursor,
    },
    /// A private message. One that was on its way when a node died is lost.
    Message(Message),
    Join(Join),
    Leave(Leave),
    Occupancy(Occupancy),
    Lag(Lag),
    /// It is live at this node.
    Connected {
        node: String,
        via: Via,
    },
    /// It is live nowhere, and tries to be.
    Disconnected {
        reason: String,
    },
}

impl Event {
    /// Whether it tells how the session stands, of which only the newest is news.
    fn is_state(&self) -> bool {
        matches!(self, Self::Connected { .. } | Self::Disconnected { .. })
    }
}

/// Where a publication stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    pub cursor: Cursor,
    /// It stood there before this session first sent it.
    pub duplicate: bool,
}

/// Why a publication does not stand.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    #[error("{code}: {message}")]
    Refused { code: ErrorCode, message: String },
    /// It may stand all the same.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Ended {
    #[error("the session was closed")]
    Closed,
    /// With this token, or these addresses, every server will say the same.
    #[error("{0}")]
    Refused(String),
}

/// A client's session.
pub struct Session {
    publisher: Publisher,
    events: mpsc::Receiver<Event>,
    stop: CancellationToken,
    driver: JoinHandle<()>,
    /// Who forgets to close leaves no task behind.
    _stop_on_drop: DropGuard,
}

/// Gives a session its orders. A caller that reads no events gets no answers either, once some hundred wait: who
/// does both does them side by side.
#[derive(Clone)]
pub struct Publisher {
    orders: mpsc::Sender<Order>,
    ended: Arc<OnceLock<Ended>>,
}

/// What a session is told to do.
enum Order {
    Subscribe { channel: ChannelName, start: Start },
    Unsubscribe { channel: ChannelName },
    Publish { publish: Publish, answer: oneshot::Sender<Result<Acknowledged, PublishError>> },
}

impl Session {
    /// Begins to look for a node. What comes of it, `event` tells.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let dead_after = options.dead_after.max(DEAD_AFTER_LEAST);
        let options = Options { dead_after, ..options };
        let (orders, orders_in) = mpsc::channel(ORDERS_CAPACITY);
        let (events_out, events) = mpsc::channel(EVENTS_CAPACITY);
        let stop = CancellationToken::new();
        let ended = Arc::new(OnceLock::new());
        let lookup =
            Lookup::new(options.bases.clone(), options.certificate_hashes.clone(), options.token.clone());
        let driver = Driver::new(options, lookup, orders_in, events_out);
        let driver = tokio::spawn(driver.run(stop.clone(), Arc::clone(&ended)));
        let publisher = Publisher { orders, ended };
        Self { publisher, events, driver, _stop_on_drop: stop.clone().drop_guard(), stop }
    }

    /// What happens next. An error is the end. Cancel safe.
    pub async fn event(&mut self) -> Result<Event, Ended> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            None => Err(self.publisher.ended().await),
        }
    }

    /// For who publishes beside reading.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Says goodbye.
    pub async fn close(self) {
        let Self { events, driver, stop, .. } = self;
        stop.cancel();
        drop(events);
        // One that panicked has ended as well.
        let _ = driver.await;
    }
}

impl Publisher {
    /// Listens to a channel, over all connections; `Event::Subscribed` or `Event::Refused` follows. One that is
    /// listened to already stays as it is.
    pub async fn subscribe(&self, channel: ChannelName, start: Start) -> Result<(), Ended> {
        self.order(Order::Subscribe { channel, start }).await
    }

    pub async fn unsubscribe(&self, channel: ChannelName) -> Result<(), Ended> {
        self.order(Order::Unsubscribe { channel }).await
    }

    /// Returns when the publication is as durable as its namespace promises, over however many connections and nodes
    /// that takes. Who waits no longer gives up what was not sent yet.
    pub async fn publish(
        &self,
        channel: ChannelName,
        message_id: MessageId,
        event: EventName,
        payload: Payload,
    ) -> Result<Acknowledged, PublishError> {
        let (data, binary) = payload.into_fields();
        let publish = Publish {
            id: 0,
            channel,
            message_id: Some(message_id),
            event,
            data,
            binary,
            reply_to: None,
            mentions: Vec::new(),
            expires_in: None,
        };
        let (answer, answered) = oneshot::channel();
        self.order(Order::Publish { publish, answer }).await?;
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(self.ended().await.into()),
        }
    }

    async fn order(&self, order: Order) -> Result<(), Ended> {
        match self.orders.send(order).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended().await),
        }
    }

    /// Why the session is over, once it is.
    async fn ended(&self) -> Ended {
        // The driver says why before it lets go of its orders.
        self.orders.closed().await;
        self.ended.get().cloned().unwrap_or(Ended::Closed)
    }
}

/// The pause after so many failures, of which the first is 1.
fn pause(failures: u32) -> Duration {
    let limit = PAUSE_FIRST.saturating_mul(1 << failures.clamp(1, 16).saturating_sub(1)).min(PAUSE_LIMIT);
    rand::rng().random_range(Duration::ZERO..limit)
}
