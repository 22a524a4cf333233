//! The one task of a session: it holds the connection there is, makes the next one, and knows what has to be said on
//! it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use rand::Rng as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use xpush_protocol::{ChannelName, ClientFrame, CloseCode, Connect, ErrorCode, ServerFrame, Unsubscribe};
use xpush_transports::Closed;

use super::{
    Ended, Event, Options, Order,
    channels::{Broken, Channels},
    link::{Greeted, Link, NotGreeted},
    pause,
    publishes::Publishes,
};
use crate::client::{
    DialError, Via,
    lookup::{Lookup, LookupError},
};

/// From the first question to a connection. What takes longer is begun anew, elsewhere.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(8);
/// For one wire to one node.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// From the connection to the answer to `connect`.
const GREET_LIMIT: Duration = Duration::from_secs(5);
/// The first reconnect is made within this, so that the clients of a node that died don't come all at once.
const JITTER: Duration = Duration::from_millis(50);
/// A connection that held so long is no failure; the next one is made at once.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// Failures that are remembered once a connection stands.
const UNSTEADY: u32 = 2;
/// Channels of one session, above what servers take.
const CHANNELS_LIMIT: usize = 10_000;
/// For the goodbyes at the end.
const FAREWELL_LIMIT: Duration = Duration::from_secs(3);

/// The order in which wires are tried where none is wished for.
const BY_PREFERENCE: [Via; 4] = [Via::Quic, Via::Webtransport, Via::Websocket, Via::Longpoll];

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

struct Dialled {
    link: Link,
    node: String,
    ticket: Option<String>,
}

struct Failure {
    reason: String,
    /// Which node failed, if it came to one.
    node: Option<String>,
    is_final: bool,
}

/// What came of the next connection.
enum Progress {
    Dialled(Box<Lookup>, Result<Dialled, Failure>),
    Greeted(Result<Box<Greeted>, NotGreeted>),
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
                frame = of(frames.map(|frames| frames.recv())), if out.is_empty() => {
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
            Turn::Frame(Ok(frame)) => match self.hear(frame)? {
                Ok(()) => {}
                Err(Broken(reason)) => self.lose(reason.into()),
            },
            Turn::Frame(Err(closed)) => self.closed(&closed)?,
            Turn::Progress(progress) => {
                self.next = None;
                match progress {
                    Progress::Dialled(lookup, dialled) => {
                        self.lookup = Some(*lookup);
                        match dialled {
                            Ok(dialled) => self.greet(dialled),
                            Err(failure) if failure.is_final => return Err(Ended::Refused(failure.reason)),
                            Err(failure) => {
                                self.avoid = failure.node.or(self.avoid.take());
                                self.fail(failure.reason);
                            }
                        }
                    }
                    Progress::Greeted(greeted) => {
                        let Some(greeting) = self.greeting.take() else { return Ok(()) };
                        match greeted {
                            Ok(greeted) => self.go_live(*greeted, greeting)?,
                            Err(why) => self.not_greeted(why, greeting)?,
                        }
                    }
                }
            }
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

    fn hear(&mut self, frame: ServerFrame) -> Result<Result<(), Broken>, Ended> {
        let out = &mut self.out;
        Ok(match frame {
            ServerFrame::Publication(publication) => self.channels.publication(publication, out),
            ServerFrame::Gap(gap) => self.channels.gap(gap, out),
            ServerFrame::Subscribed(subscribed) => {
                self.subscribing.remove(&subscribed.id);
                self.channels.subscribed(subscribed, out)
            }
            // A poll that another node took over: the whole resume vector is the surest way to go on there.
            ServerFrame::Connected(_) => Err(Broken("another node answers")),
            ServerFrame::Expired(_) => return Err(Ended::Refused("the token expired".into())),
            other => {
                match other {
                    ServerFrame::Published(published) => self.publishes.published(&published),
                    ServerFrame::Unsubscribed(unsubscribed) => self.channels.unsubscribed(unsubscribed, out),
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
                    _ => {}
                }
                Ok(())
            }
        })
    }

    /// Looks for a node after this pause, unless that is being done.
    fn seek(&mut self, after: Duration) {
        if self.next.is_some() {
            return;
        }
        let Some(mut lookup) = self.lookup.take() else { return };
        let (avoid, via, dead_after) = (self.avoid.clone(), self.options.via, self.options.dead_after);
        self.next = Some(Box::pin(async move {
            sleep(after).await;
            let attempt = dial(&mut lookup, avoid.as_deref(), via, dead_after);
            let dialled = timeout(ATTEMPT_LIMIT, attempt).await.unwrap_or_else(|_| {
                let reason = format!("no node was found within {} s", ATTEMPT_LIMIT.as_secs());
                Err(Failure { reason, node: None, is_final: false })
            });
            Progress::Dialled(Box::new(lookup), dialled)
        }));
    }

    fn greet(&mut self, Dialled { link, node, ticket }: Dialled) {
        let ticket = ticket.filter(|_| !self.distrusts_tickets);
        let token = if ticket.is_some() { None } else { self.options.token.clone() };
        let subscriptions = self.channels.vector();
        let asked = subscriptions.iter().map(|entry| entry.channel.clone()).collect();
        self.greeting = Some(Greeting { node, by_ticket: ticket.is_some(), asked });
        let (state, agent) = (self.state.clone(), self.options.agent.clone());
        let connect = Connect { id: 0, token, ticket, state, subscriptions, detached: false, agent };
        self.next = Some(Box::pin(async move {
            let greeted = timeout(GREET_LIMIT, link.greet(connect)).await.unwrap_or_else(|_| {
                Err(NotGreeted::Closed(Closed::Lost("`connect` is not answered".into())))
            });
            Progress::Greeted(greeted.map(Box::new))
        }));
    }

    /// The new connection takes over.
    fn go_live(&mut self, greeted: Greeted, greeting: Greeting) -> Result<(), Ended> {
        let Greeted { link, connected, early } = greeted;
        if let Some(mut old) = self.live.take() {
            // What came over it counts, and is not there twice: the new one's channels go on behind it.
            for frame in old.link.rest() {
                if self.hear(frame)?.is_err() {
                    break;
                }
            }
            self.leaving.push(Box::pin(old.link.close()));
        }
        self.begin();
        self.move_at = None;
        self.avoid = None;
        self.failures = self.failures.min(UNSTEADY);
        self.state = Some(connected.state);
        // Behind the id of `connect`.
        self.next_id = 2;
        self.tell(Event::Connected { node: connected.node.clone(), via: link.via });
        self.live = Some(Live { link, node: connected.node, since: Instant::now() });
        let new: Vec<_> =
            self.channels.names().filter(|name| !greeting.asked.contains(*name)).cloned().collect();
        new.into_iter().for_each(|name| self.ask_for(name));
        for name in greeting.asked {
            if !self.channels.contains(&name) {
                self.give_up(name);
            }
        }
        for frame in early {
            if let Err(Broken(reason)) = self.hear(frame)? {
                self.lose(reason.into());
                break;
            }
        }
        Ok(())
    }

    fn not_greeted(&mut self, why: NotGreeted, greeting: Greeting) -> Result<(), Ended> {
        match why {
            NotGreeted::Refused(error) if error.code == ErrorCode::InvalidState && self.state.is_some() => {
                self.state = None;
                self.seek(Duration::ZERO);
            }
            NotGreeted::Refused(error) if error.code == ErrorCode::InvalidToken && greeting.by_ticket => {
                self.distrusts_tickets = true;
                self.seek(Duration::ZERO);
            }
            NotGreeted::Refused(error) if error.retry => self.fail(error.message),
            NotGreeted::Refused(error) => {
                return Err(Ended::Refused(format!("{}: {}", error.code, error.message)));
            }
            NotGreeted::Closed(closed) => {
                refuse_final(&closed)?;
                self.avoid = Some(greeting.node);
                self.fail(closed.to_string());
            }
        }
        Ok(())
    }

    /// The connection ended.
    fn closed(&mut self, closed: &Closed) -> Result<(), Ended> {
        refuse_final(closed)?;
        let is_replaced = matches!(closed, Closed::ByPeer { code: CloseCode::Replaced, .. });
        if is_replaced && self.greeting.is_some() {
            // By the one that is being made beside it.
            self.let_go();
            return Ok(());
        }
        self.avoid = self.live.as_ref().map(|live| live.node.clone());
        self.lose(closed.to_string());
        Ok(())
    }

    /// There is no connection any more that is of use.
    fn lose(&mut self, reason: String) {
        let Some(since) = self.live.as_ref().map(|live| live.since) else { return };
        self.let_go();
        self.tell(Event::Disconnected { reason });
        if since.elapsed() >= STEADY_AFTER {
            self.failures = 0;
        }
        let after = if self.failures == 0 {
            rand::rng().random_range(Duration::ZERO..JITTER)
        } else {
            pause(self.failures)
        };
        self.failures += 1;
        self.seek(after);
    }

    /// No new connection came of it; the old one, if there is one, goes on.
    fn fail(&mut self, reason: String) {
        if self.live.is_none() {
            self.tell(Event::Disconnected { reason });
        }
        self.failures += 1;
        self.seek(pause(self.failures));
    }

    fn let_go(&mut self) {
        if let Some(live) = self.live.take() {
            self.leaving.push(Box::pin(live.link.close()));
        }
        self.move_at = None;
        self.begin();
    }

    /// Nothing was said on the connection that follows.
    fn begin(&mut self) {
        self.channels.begin();
        self.publishes.begin();
        self.outgoing.clear();
        self.subscribing.clear();
    }

    /// Of its own state only the newest is news.
    fn tell(&mut self, event: Event) {
        let is_state = |event: &Event| matches!(event, Event::Connected { .. } | Event::Disconnected { .. });
        self.out.retain(|event| !is_state(event));
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

fn refuse_final(closed: &Closed) -> Result<(), Ended> {
    match closed {
        Closed::ByPeer { code, .. } if !code.may_reconnect() => Err(Ended::Refused(closed.to_string())),
        _ => Ok(()),
    }
}

async fn dial(
    lookup: &mut Lookup,
    avoid: Option<&str>,
    via: Option<Via>,
    dead_after: Duration,
) -> Result<Dialled, Failure> {
    let failure =
        |error: LookupError, node| Failure { reason: error.to_string(), node, is_final: !error.may_retry() };
    let found = lookup.find(avoid).await.map_err(|error| failure(error, None))?;
    let wires = match &via {
        Some(via) => std::slice::from_ref(via),
        None => &BY_PREFERENCE[..],
    };
    let mut last = None;
    for &via in wires {
        match timeout(DIAL_LIMIT, Link::dial(&found.server, via, dead_after)).await {
            Ok(Ok(link)) => return Ok(Dialled { link, node: found.node, ticket: found.ticket }),
            Ok(Err(DialError::NoSuchWire(_))) if wires.len() > 1 => {}
            Ok(Err(error)) => last = Some(failure(error.into(), Some(found.node.clone()))),
            Err(_) => {
                let reason =
                    format!("no connection over {via} to {} within {} s", found.node, DIAL_LIMIT.as_secs());
                last = Some(Failure { reason, node: Some(found.node.clone()), is_final: false });
            }
        }
    }
    let no_wire =
        || Failure { reason: "the node has no wire that is known here".into(), node: None, is_final: true };
    Err(last.unwrap_or_else(no_wire))
}
