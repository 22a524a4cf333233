//! Every client is gone at once, and comes back with its cursor: how long until each has what it missed.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use xpush::client::{Client, Server};
use xpush_protocol::{
    ChannelName, ClientFrame, Connect, Cursor, Namespace, Resubscribe, ServerFrame, Subscribe,
};

use super::{
    DIALS, LATENCY_LIMIT_US, channels,
    fill::fill,
    process::{self, Process},
};
use crate::cli::ServerArgs;

/// From the storm's begin until a client counts as lost.
const LAST_WAIT: Duration = Duration::from_secs(60);

pub(super) struct Plan {
    pub(super) clients: usize,
    pub(super) channels: usize,
    /// In each channel, while nobody is there.
    pub(super) missed: u64,
    pub(super) payload: usize,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: &'static str,
    via: String,
    clients: usize,
    channels: usize,
    missed: u64,
    /// Clients that have all they missed.
    whole: u64,
    seconds: f64,
    resumed_per_second: f64,
    resume_ms_p50: f64,
    resume_ms_p99: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_client: Option<f64>,
}

impl Report {
    pub(super) fn is_whole(&self) -> bool {
        self.whole == self.clients as u64
    }
}

/// A client that is away.
struct Away {
    channel: ChannelName,
    state: String,
    cursor: Cursor,
}

pub(super) async fn run(
    server: &Server,
    args: &ServerArgs,
    namespace: &Namespace,
    plan: &Plan,
    process: Option<&Process>,
) -> anyhow::Result<Report> {
    let channels = channels(namespace, plan.channels)?;
    let mut away = Vec::with_capacity(plan.clients);
    let mut leaving = FuturesUnordered::new();
    for n in 0..plan.clients {
        if leaving.len() >= DIALS {
            away.extend(leaving.next().await.transpose()?);
        }
        leaving.push(come_and_go(server, args, channels[n % channels.len()].clone()));
    }
    while let Some(left) = leaving.next().await {
        away.push(left?);
    }
    fill(server, args, &channels, plan.missed, plan.payload).await?;

    let before = process::usage(process)?;
    let places = Arc::new(Semaphore::new(DIALS));
    let began = Instant::now();
    let mut returning = JoinSet::new();
    for client in away {
        let (server, args, places, missed) = (server.clone(), args.clone(), Arc::clone(&places), plan.missed);
        returning.spawn(async move {
            let back = timeout(LAST_WAIT, come_back(&server, &args, client, missed, &places)).await;
            (began.elapsed(), back)
        });
    }
    let mut latency_us = Histogram::<u64>::new_with_bounds(1, LATENCY_LIMIT_US, 2)?;
    // They stay: who comes back finds the others there.
    let mut back = Vec::new();
    while let Some(ended) = returning.join_next().await {
        let (took, client) = ended?;
        if let Ok(client) = client {
            back.push(client?);
            latency_us.saturating_record((took.as_micros() as u64).max(1));
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = before.zip(process::usage(process)?).map(|(before, after)| after.cpu - before.cpu);
    let ms = |quantile| latency_us.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Report {
        workload: "resume",
        via: args.via.to_string(),
        clients: plan.clients,
        channels: plan.channels,
        missed: plan.missed,
        whole: back.len() as u64,
        seconds,
        resumed_per_second: back.len() as f64 / seconds,
        resume_ms_p50: ms(0.5),
        resume_ms_p99: ms(0.99),
        server_cpu_us_per_client: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / plan.clients.max(1) as f64),
    })
}

async fn come_and_go(server: &Server, args: &ServerArgs, channel: ChannelName) -> anyhow::Result<Away> {
    let mut client = server.dial(args.via, args.codec()).await?;
    let connect = Connect { token: args.token.clone(), ..Connect::default() };
    let state = client.connect(connect).await?.state;
    let subscribe =
        |id| ClientFrame::Subscribe(Subscribe { id, channel: channel.clone(), cursor: None, last: None });
    let ServerFrame::Subscribed(subscribed) = client.call(subscribe).await? else {
        anyhow::bail!("the answer to `subscribe` is no `subscribed`");
    };
    client.close().await;
    Ok(Away { channel, state, cursor: subscribed.cursor })
}

/// Until it has all that it missed.
async fn come_back(
    server: &Server,
    args: &ServerArgs,
    away: Away,
    missed: u64,
    places: &Semaphore,
) -> anyhow::Result<Client> {
    // A client that finds the door crowded waits: it would be a storm of the bench's own otherwise.
    let _place = places.acquire().await?;
    let Away { channel, state, cursor } = away;
    let mut client = server.dial(args.via, args.codec()).await?;
    let subscriptions = vec![Resubscribe { channel, cursor: Some(cursor) }];
    let (token, state) = (args.token.clone(), Some(state));
    client.connect(Connect { token, state, subscriptions, ..Connect::default() }).await?;
    let (mut is_subscribed, mut came) = (false, 0);
    while !is_subscribed || came < missed {
        match client.event().await.context("a client that came back lost its connection")? {
            ServerFrame::Subscribed(_) => is_subscribed = true,
            ServerFrame::Publication(_) => came += 1,
            ServerFrame::Gap(gap) => came += gap.to + 1 - gap.from,
            ServerFrame::Error(error) => anyhow::bail!("{}: {}", error.code, error.message),
            _ => {}
        }
    }
    Ok(client)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { via, clients, channels, missed, whole, seconds, .. } = self;
        writeln!(
            f,
            "resume over {via}: {clients} clients in {channels} channels, {missed} missed messages in each"
        )?;
        writeln!(f, "  whole         {whole} in {seconds:.2} s ({:.0}/s)", self.resumed_per_second)?;
        write!(
            f,
            "  back after    p50 {:.2} ms, p99 {:.2} ms, since all were gone",
            self.resume_ms_p50, self.resume_ms_p99
        )?;
        if let Some(cpu) = self.server_cpu_us_per_client {
            write!(f, "\n  server CPU    {cpu:.0} µs a client")?;
        }
        Ok(())
    }
}
