//! The load itself: subscribers that count, publishers that keep to a timetable.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use tokio::{
    task::JoinSet,
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use xpush::client::{Server, Visit};
use xpush_protocol::{
    Binary, ChannelName, ClientFrame, Codec, Connect, EventName, MessageId, Namespace, Ping, Publish,
    ServerFrame, Subscribe,
};
use xpush_transports::{Connection, Lane, Outgoing, Reader, Writer};

use super::{
    DIALS, LATENCY_LIMIT_US, channels,
    process::{self, Process, Usage},
};
use crate::cli::ServerArgs;

/// From the last message's moment until it counts as lost.
const LAST_WAIT: Duration = Duration::from_secs(20);
/// Subscriptions of one connection that are asked for and not answered.
const SUBSCRIBES_AT_ONCE: usize = 32;
/// Idle connections are looked at this long.
const IDLE_HOLD: Duration = Duration::from_secs(3);
/// A subscriber says this often that it lives.
const PING_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) channels: usize,
    pub(super) subscribers: usize,
    /// Of each subscriber.
    pub(super) subscriptions: usize,
    pub(super) rate: f64,
    pub(super) duration: Duration,
    pub(super) payload: usize,
}

pub(super) struct Outcome {
    /// To connect and subscribe all.
    pub(super) connecting: Duration,
    pub(super) published: u64,
    pub(super) refused: u64,
    /// From the first message's moment to the last delivery.
    pub(super) took: Duration,
    pub(super) tally: Tally,
    pub(super) before: Option<Usage>,
    pub(super) connected: Option<Usage>,
    pub(super) after: Option<Usage>,
}

/// What subscribers saw.
pub(super) struct Tally {
    pub(super) received: u64,
    pub(super) duplicates: u64,
    pub(super) out_of_order: u64,
    pub(super) latency_us: Histogram<u64>,
    last: Option<Instant>,
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_LIMIT_US, 2)?;
        Ok(Self { received: 0, duplicates: 0, out_of_order: 0, latency_us, last: None })
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.out_of_order += other.out_of_order;
        self.latency_us.add(&other.latency_us)?;
        self.last = self.last.max(other.last);
        Ok(())
    }
}

/// What all tasks of a run share.
struct Run {
    codec: Codec,
    token: Option<String>,
    began: Instant,
    received: AtomicU64,
    refused: AtomicU64,
    stop: CancellationToken,
}

pub(super) async fn run(
    server: &Server,
    publish_to: &[Server],
    args: &ServerArgs,
    namespace: &Namespace,
    plan: &Plan,
    process: Option<&Process>,
    bar: &ProgressBar,
) -> anyhow::Result<Outcome> {
    let usage = || process::usage(process);
    let codec = args.codec();
    let run = Arc::new(Run {
        codec,
        token: args.token.clone(),
        began: Instant::now(),
        received: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        stop: CancellationToken::new(),
    });
    let channels = channels(namespace, plan.channels)?;

    let before = usage()?;
    bar.set_message("connecting");
    let mut subscribers = JoinSet::new();
    let mut dials = FuturesUnordered::new();
    let connecting = Instant::now();
    for n in 0..plan.subscribers {
        if dials.len() >= DIALS {
            bar.inc(1);
            let dialled: Result<_, xpush::client::DialError> = dials.next().await.unwrap_or(Ok(None));
            start(dialled?, &mut subscribers).await?;
        }
        let mut listens = vec![channels[n % channels.len()].clone()];
        for k in 1..plan.subscriptions {
            listens.push(format!("{}-{n}-{k}", channels[0]).parse()?);
        }
        let subscriber = Subscriber { run: Arc::clone(&run), channels: listens };
        dials.push(async move { server.dial_with(args.via, codec, subscriber).await.map(Some) });
    }
    while let Some(dialled) = dials.next().await {
        bar.inc(1);
        start(dialled?, &mut subscribers).await?;
    }
    let connecting = connecting.elapsed();
    let connected = usage()?;

    let (published, began) = if plan.rate > 0.0 {
        publish_all(
            if publish_to.is_empty() { std::slice::from_ref(server) } else { publish_to },
            args,
            &run,
            plan,
            &channels,
            bar,
        )
        .await?
    } else {
        tokio::time::sleep(IDLE_HOLD).await;
        (0, Instant::now())
    };
    let after = usage()?;
    run.stop.cancel();
    let mut tally = Tally::new()?;
    while let Some(ended) = subscribers.join_next().await {
        tally.add(&ended??)?;
    }
    let took = tally.last.map_or(Duration::ZERO, |last| last - began);
    let refused = run.refused.load(Ordering::Relaxed);
    Ok(Outcome { connecting, published, refused, took, tally, before, connected, after })
}

type Subscribing = tokio::task::JoinHandle<anyhow::Result<Tally>>;

/// Waits until a subscriber is subscribed.
async fn start(
    dialled: Option<(Subscribing, tokio::sync::oneshot::Receiver<()>)>,
    subscribers: &mut JoinSet<anyhow::Result<Tally>>,
) -> anyhow::Result<()> {
    let Some((task, subscribed)) = dialled else { return Ok(()) };
    if subscribed.await.is_err() {
        // It ended before it was subscribed, and knows why.
        task.await??;
        anyhow::bail!("a subscriber ended before it was subscribed");
    }
    subscribers.spawn(async move { task.await? });
    Ok(())
}

/// Publishes to a timetable, and waits until everything arrived or is given up.
async fn publish_all(
    servers: &[Server],
    args: &ServerArgs,
    run: &Arc<Run>,
    plan: &Plan,
    channels: &[ChannelName],
    bar: &ProgressBar,
) -> anyhow::Result<(u64, Instant)> {
    let total = (plan.rate * plan.duration.as_secs_f64()) as u64;
    let deliveries = total * (plan.subscribers / channels.len()) as u64;
    bar.set_length(deliveries);
    bar.set_position(0);
    bar.set_message("publishing");
    let began = Instant::now() + Duration::from_millis(200);
    let mut publishers = JoinSet::new();
    for (n, channel) in channels.iter().enumerate() {
        let timetable =
            Timetable { began, rate: plan.rate, total, first: n as u64, step: channels.len() as u64 };
        let publisher =
            Publisher { run: Arc::clone(run), channel: channel.clone(), payload: plan.payload, timetable };
        let server = &servers[n % servers.len()];
        publishers.spawn(server.dial_with(args.via, run.codec, publisher).await?);
    }
    let watch = async {
        while run.received.load(Ordering::Relaxed) < deliveries {
            bar.set_position(run.received.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let _ = timeout(plan.duration + LAST_WAIT, watch).await;
    run.stop.cancel();
    while let Some(ended) = publishers.join_next().await {
        ended??;
    }
    Ok((total, began))
}

/// Every so many messages of the whole load are this publisher's.
struct Timetable {
    began: Instant,
    rate: f64,
    total: u64,
    first: u64,
    step: u64,
}

struct Subscriber {
    run: Arc<Run>,
    channels: Vec<ChannelName>,
}

impl Visit for Subscriber {
    type Output = (Subscribing, tokio::sync::oneshot::Receiver<()>);

    fn visit(self, connection: impl Connection) -> Self::Output {
        let (subscribed, wait) = tokio::sync::oneshot::channel();
        (tokio::spawn(self.receive(connection, subscribed)), wait)
    }
}

impl Subscriber {
    async fn receive(
        self,
        connection: impl Connection,
        subscribed: tokio::sync::oneshot::Sender<()>,
    ) -> anyhow::Result<Tally> {
        let Self { run, channels } = self;
        let (_, mut reader, mut writer) = connection.split();
        let connect = ClientFrame::Connect(Connect { id: 1, token: run.token.clone(), ..Connect::default() });
        let mut waiting = channels.len();
        let subscribe = |channel| {
            let subscribe = Subscribe { id: 2, channel, cursor: None, last: None };
            control(run.codec, &ClientFrame::Subscribe(subscribe))
        };
        let mut channels = channels.into_iter();
        let first = channels.by_ref().take(SUBSCRIBES_AT_ONCE).map(subscribe);
        writer.write(&mut [control(run.codec, &connect)].into_iter().chain(first).collect()).await?;
        let (mut subscribed, mut tally, mut newest) = (Some(subscribed), Tally::new()?, 0);
        let mut pings = tokio::time::interval(PING_INTERVAL);
        loop {
            let frame = tokio::select! {
                frame = reader.read() => frame?,
                () = run.stop.cancelled() => return Ok(tally),
                _ = pings.tick() => {
                    writer.write(&mut vec![control(run.codec, &ClientFrame::Ping(Ping { id: 3 }))]).await?;
                    continue;
                }
            };
            match run.codec.decode::<ServerFrame>(&frame).map_err(anyhow::Error::msg)? {
                ServerFrame::Publication(publication) => {
                    let now = Instant::now();
                    if publication.offset == newest {
                        tally.duplicates += 1;
                    } else if publication.offset < newest {
                        tally.out_of_order += 1;
                    }
                    newest = newest.max(publication.offset);
                    tally.received += 1;
                    tally.last = Some(now);
                    if let Some(sent) = publication.binary.and_then(|data| data.0.first_chunk::<8>().copied())
                    {
                        let sent = run.began + Duration::from_nanos(u64::from_be_bytes(sent));
                        let latency = now.saturating_duration_since(sent).as_micros() as u64;
                        tally.latency_us.saturating_record(latency.max(1));
                    }
                    run.received.fetch_add(1, Ordering::Relaxed);
                }
                ServerFrame::Subscribed(_) => {
                    waiting = waiting.saturating_sub(1);
                    if let Some(next) = channels.next() {
                        writer.write(&mut vec![subscribe(next)]).await?;
                    }
                    if waiting == 0
                        && let Some(subscribed) = subscribed.take()
                    {
                        // Who waits for it is the one who made this task.
                        let _ = subscribed.send(());
                    }
                }
                ServerFrame::Error(error) => anyhow::bail!("{}: {}", error.code, error.message),
                _ => {}
            }
        }
    }
}

struct Publisher {
    run: Arc<Run>,
    channel: ChannelName,
    payload: usize,
    timetable: Timetable,
}

impl Visit for Publisher {
    type Output = futures_util::future::BoxFuture<'static, anyhow::Result<()>>;

    fn visit(self, connection: impl Connection) -> Self::Output {
        Box::pin(self.publish(connection))
    }
}

impl Publisher {
    async fn publish(self, connection: impl Connection) -> anyhow::Result<()> {
        let Self { run, channel, payload, timetable } = self;
        let (_, mut reader, mut writer) = connection.split();
        let connect = ClientFrame::Connect(Connect { id: 1, token: run.token.clone(), ..Connect::default() });
        writer.write(&mut vec![control(run.codec, &connect)]).await?;
        let write = async {
            let mut numbers = (timetable.first..timetable.total).step_by(timetable.step as usize).peekable();
            while let Some(first) = numbers.peek().copied() {
                sleep_until((timetable.moment(first)).into()).await;
                // All whose moment has come, in one write: who is late does not become later by it.
                let now = Instant::now();
                let mut batch = Vec::new();
                while let Some(n) = numbers.next_if(|n| timetable.moment(*n) <= now) {
                    let meant = timetable.moment(n).saturating_duration_since(run.began).as_nanos() as u64;
                    let mut data = vec![0; payload.max(8)];
                    data[..8].copy_from_slice(&meant.to_be_bytes());
                    batch.push(control(run.codec, &ClientFrame::Publish(publication(&channel, data))));
                }
                writer.write(&mut batch).await?;
            }
            anyhow::Ok(())
        };
        let read = async {
            loop {
                let frame = reader.read().await.context("a publisher's connection ended")?;
                if let Ok(ServerFrame::Error(_)) = run.codec.decode(&frame) {
                    run.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let (mut written, mut write, mut read) = (false, Box::pin(write), Box::pin(read));
        loop {
            tokio::select! {
                done = &mut write, if !written => { done?; written = true; }
                done = &mut read => { let done: anyhow::Result<std::convert::Infallible> = done; done?; }
                () = run.stop.cancelled() => return Ok(()),
            }
        }
    }
}

impl Timetable {
    fn moment(&self, number: u64) -> Instant {
        self.began + Duration::from_secs_f64(number as f64 / self.rate)
    }
}

/// Without an id: no answer comes.
pub(super) fn publication(channel: &ChannelName, data: Vec<u8>) -> Publish {
    Publish {
        id: 0,
        channel: channel.clone(),
        message_id: Some(MessageId::random()),
        event: EventName::default(),
        data: None,
        binary: Some(Binary(data.into())),
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    }
}

pub(super) fn control(codec: Codec, frame: &ClientFrame) -> Outgoing {
    Outgoing { bytes: codec.encode(frame), lane: Lane::Control }
}
