//! The one task of a session: it holds the connection there is, makes the next one, and knows what has to be said on
//! it.

mod handover;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use xpush_protocol::{ChannelName, ClientFrame, ErrorCode, ServerFrame, Unsubscribe};
use xpush_transports::Closed;

use super::{
    Ended, Event, Options, Order,
    attempt::{Dialled, Failure},
    channels::{Broken, Channels},
    link::{Greeted, Link, NotGreeted},
    publishes::Publishes,
};
use crate::client::lookup::Lookup;

/// Channels of one session, above what servers take.
const CHANNELS_LIMIT: usize = 10_000;
/// For the goodbyes at the end.
const FAREWELL_LIMIT: Duration = Duration::from_secs(3);

/// A session's task.
pub(super) struct Driver {
    options: Options,
    orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<Event>,
    /// Events that the caller has no room for yet. While there are some, nothing is read.
    out: VecDeque<Event>,
    channels: Channels,
    publishes: Publishes,
    live: Option<Live>,
    next: Option<BoxFuture<'static, Progress>>,
    /// Who is being greeted.
    greeting: Option<Greeting>,
    /// Away while a node is looked for.
    lookup: Option<Lookup>,
    /// Of the last `connected`.
    state: Option<String>,
    /// Tickets are refused, though they are given: the nodes do not share their secret.
    distrusts_tickets: bool,
    /// A node that is dead or leaves.
    avoid: Option<String>,
    failures: u32,
    /// When to look for another node, while this one leaves.
    move_at: Option<Instant>,
    leaving: FuturesUnordered<BoxFuture<'static, ()>>,
    outgoing: VecDeque<ClientFrame>,
    /// Commands by their ids, on this connection.
    subscribing: HashMap<u32, ChannelName>,
    next_id: u32,
}

struct Live {
    link: Link,
    node: String,
    since: Instant,
}

struct Greeting {
    node: String,
    by_ticket: bool,
    /// What the resume vector named.
    asked: HashSet<ChannelName>,
}

/// What came of the next connection.
enum Progress {
    Dialled(Box<Lookup>, Result<Dialled, Failure>),
    Greeted(Result<Box<Greeted>, NotGreeted>),
}

/// Why a frame is the last one of its connection.
enum Halt {
    Broken(Broken),
    Ended(Ended),
}

/// What there is to do.
enum Turn {
    Stop,
    Told,
    Order(Order),
    Frame(Result<ServerFrame, Closed>),
    Progress(Progress),
    Due,
}

impl From<Broken> for Halt {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl Driver {
    pub(super) fn new(
        options: Options,
        lookup: Lookup,
        orders: mpsc::Receiver<Order>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            options,
            orders,
            events,
            out: VecDeque::new(),
            channels: Channels::default(),
            publishes: Publishes::default(),
            live: None,
            next: None,
            greeting: None,
            lookup: Some(lookup),
            state: None,
            distrusts_tickets: false,
            avoid: None,
            failures: 0,
            move_at: None,
            leaving: FuturesUnordered::new(),
            outgoing: VecDeque::new(),
            subscribing: HashMap::new(),
            next_id: 0,
        }
    }

    /// Until the session is over; says why before it lets go of the orders.
    pub(super) async fn run(mut self, stop: CancellationToken, ended: Arc<OnceLock<Ended>>) {
        self.seek(Duration::ZERO);
        let why = loop {
            match self.turn(&stop).await {
                Turn::Stop => break Ended::Closed,
                turn => {
                    if let Err(why) = self.take(turn) {
                        break why;
                    }
                }
            }
        };
        // The last news, for who still takes it.
        while let Some(event) = self.out.pop_front() {
            tokio::select! {
            () = stop.cancelled() => break,
            sent = self.events.send(event) => if sent.is_err() { break },
            }
        }
        let _ = ended.set(why);
        self.let_go();
        let goodbyes = async { while self.leaving.next().await.is_some() {} };
        // A server that does not hear it finds out by itself.
        let _ = timeout(FAREWELL_LIMIT, goodbyes).await;
    }

    async fn turn(&mut self, stop: &CancellationToken) -> Turn {
        let due = self.next_due();
        let Self { orders, events, out, publishes, live, next, leaving, outgoing, .. } = self;
        let (commands, frames) = live.as_mut().map(|live| live.link.halves()).unzip();
        // Who only publishes need not ask how it stands.
        let may_read = out.iter().all(Event::is_state);
        tokio::select! {
            () = stop.cancelled() => Turn::Stop,
            permit = events.reserve(), if !out.is_empty() => match permit {
                Ok(permit) => {
                    if let Some(event) = out.pop_front() {
                        permit.send(event);
                    }
                    Turn::Told
                }
                Err(_) => Turn::Stop,
            },
            Some(order) = orders.recv(), if publishes.has_room() => Turn::Order(order),
            permit = of(commands.as_ref().map(|commands| commands.reserve())), if !outgoing.is_empty() => {
                match (permit, outgoing.pop_front()) {
                    (Ok(permit), Some(frame)) => permit.send(frame),
                    // The connection is gone, as its frames tell; all is said again on the next one.
                    _ => outgoing.clear(),
                }
                Turn::Told
            }
            frame = of(frames.map(|frames| frames.recv())), if may_read => {
                Turn::Frame(frame.unwrap_or_else(|| Err(Closed::Lost("the connection has ended".into()))))
            }
            progress = of(next.as_mut()) => Turn::Progress(progress),
            Some(()) = leaving.next(), if !leaving.is_empty() => Turn::Told,
            () = of(due.map(sleep_until)) => Turn::Due,
        }
    }

    fn take(&mut self, turn: Turn) -> Result<(), Ended> {
        match turn {
            Turn::Stop | Turn::Told => {}
            Turn::Order(order) => self.obey(order),
            Turn::Frame(Ok(frame)) => {
                self.hear_or_lose(frame)?;
            }
            Turn::Frame(Err(closed)) => self.closed(&closed)?,
            Turn::Progress(progress) => self.go_on(progress)?,
            Turn::Due => {
                self.publishes.take_due();
                match self.channels.take_due() {
                    Ok(due) => due.into_iter().for_each(|name| self.ask_for(name)),
                    Err(Broken(reason)) => self.lose(reason.into()),
                }
                if self.move_at.is_some_and(|at| at <= Instant::now()) {
                    self.move_at = None;
                    self.avoid = self.live.as_ref().map(|live| live.node.clone());
                    self.seek(Duration::ZERO);
                }
            }
        }
        if self.live.is_some() {
            self.outgoing.extend(self.publishes.take_unsent(&mut self.next_id));
        }
        Ok(())
    }

    fn next_due(&self) -> Option<Instant> {
        self.live.as_ref()?;
        self.move_at.into_iter().chain(self.channels.next_due()).chain(self.publishes.next_due()).min()
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Subscribe { channel, .. }
                if self.channels.len() >= CHANNELS_LIMIT && !self.channels.contains(&channel) =>
            {
                let message = format!("a session can have {CHANNELS_LIMIT} channels");
                self.out.push_back(Event::Refused { channel, code: ErrorCode::LimitReached, message });
            }
            Order::Subscribe { channel, start } => {
                if self.channels.add(channel.clone(), start) && self.live.is_some() {
                    self.ask_for(channel);
                }
            }
            Order::Unsubscribe { channel } => {
                if self.channels.remove(&channel) && self.live.is_some() {
                    self.give_up(channel);
                }
            }
            Order::Publish { publish, answer } => self.publishes.add(publish, answer),
        }
    }

    fn ask_for(&mut self, name: ChannelName) {
        let id = self.take_id();
        if let Some(subscribe) = self.channels.subscribe(&name, id) {
            self.subscribing.insert(id, name);
            self.outgoing.push_back(ClientFrame::Subscribe(subscribe));
        }
    }

    fn give_up(&mut self, channel: ChannelName) {
        let id = self.take_id();
        self.outgoing.push_back(ClientFrame::Unsubscribe(Unsubscribe { id, channel }));
    }

    fn take_id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// False: the connection is lost over it.
    fn hear_or_lose(&mut self, frame: ServerFrame) -> Result<bool, Ended> {
        match self.hear(frame) {
            Ok(()) => Ok(true),
            Err(Halt::Broken(Broken(reason))) => {
                self.lose(reason.into());
                Ok(false)
            }
            Err(Halt::Ended(why)) => Err(why),
        }
    }

    fn hear(&mut self, frame: ServerFrame) -> Result<(), Halt> {
        let out = &mut self.out;
        match frame {
            ServerFrame::Publication(publication) => self.channels.publication(publication, out)?,
            ServerFrame::Gap(gap) => self.channels.gap(gap, out)?,
            ServerFrame::Subscribed(subscribed) => {
                self.subscribing.remove(&subscribed.id);
                self.channels.subscribed(subscribed, out)?;
            }
            ServerFrame::Unsubscribed(unsubscribed) => self.channels.unsubscribed(unsubscribed, out),
            ServerFrame::Published(published) => self.publishes.published(&published),
            ServerFrame::Error(error) => {
                let id = error.id.unwrap_or_default();
                let channel = self.subscribing.remove(&id).or_else(|| error.channel.clone());
                if !self.publishes.refused(id, &error)
                    && let Some(channel) = channel
                {
                    self.channels.refused(&channel, error, out);
                }
            }
            ServerFrame::Draining(draining) => {
                let wait = Duration::from_millis(draining.reconnect_in.into());
                self.move_at.get_or_insert(Instant::now() + wait);
            }
            ServerFrame::Message(message) => out.push_back(Event::Message(message)),
            ServerFrame::Join(join) => out.push_back(Event::Join(join)),
            ServerFrame::Leave(leave) => out.push_back(Event::Leave(leave)),
            ServerFrame::Occupancy(occupancy) => out.push_back(Event::Occupancy(occupancy)),
            ServerFrame::Lag(lag) => out.push_back(Event::Lag(lag)),
            // A poll that another node took over: the whole resume vector is the surest way to go on there.
            ServerFrame::Connected(_) => return Err(Broken("another node answers").into()),
            ServerFrame::Expired(_) => return Err(Halt::Ended(Ended::Refused("the token expired".into()))),
            _ => {}
        }
        Ok(())
    }

    /// Of its own state only the newest is news.
    fn tell(&mut self, event: Event) {
        self.out.retain(|event| !event.is_state());
        self.out.push_back(event);
    }
}

/// Waits for what there may be.
async fn of<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
