//! How many publishes a server acknowledges: closed-loop, since the question is how much goes, not how it feels.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;
use xpush::client::{Server, Visit};
use xpush_protocol::{ChannelName, ClientFrame, Codec, Connect, Namespace, Publish, ServerFrame};
use xpush_transports::{Connection, Reader, Writer};

use super::{
    LATENCY_LIMIT_US,
    load::{control, publication},
    process::{self, Process},
};
use crate::cli::ServerArgs;

pub(super) struct Plan {
    pub(super) publishers: usize,
    pub(super) in_flight: usize,
    pub(super) channels: usize,
    pub(super) duration: Duration,
    pub(super) payload: usize,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: &'static str,
    publishers: usize,
    in_flight: usize,
    channels: usize,
    servers: usize,
    acknowledged: u64,
    refused: u64,
    acknowledged_per_second: f64,
    ack_ms_p50: f64,
    ack_ms_p99: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_message: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_resident_kib: Option<u64>,
}

/// What all publishers share.
struct Run {
    codec: Codec,
    token: Option<String>,
    plan: Plan,
    /// Once all are connected.
    end: OnceLock<Instant>,
}

impl Run {
    fn is_open(&self) -> bool {
        self.end.get().is_none_or(|end| Instant::now() < *end)
    }
}

/// What one publisher saw.
struct Tally {
    acknowledged: u64,
    refused: u64,
    latency_us: Histogram<u64>,
}

pub(super) async fn run(
    servers: &[Server],
    args: &ServerArgs,
    namespace: &Namespace,
    plan: &Plan,
    process: Option<&Process>,
) -> anyhow::Result<Report> {
    let codec = args.codec();
    let Plan { publishers, in_flight, channels, duration, payload } = *plan;
    let plan = Plan { publishers, in_flight, channels, duration, payload };
    let run = Arc::new(Run { codec, token: args.token.clone(), plan, end: OnceLock::new() });
    let mut connected = Vec::with_capacity(publishers);
    let channels: Arc<[ChannelName]> = super::channels(namespace, channels)?.into();
    for n in 0..publishers {
        let publisher = Publisher { run: Arc::clone(&run), channels: Arc::clone(&channels), turn: n };
        connected.push(servers[n % servers.len()].dial_with(args.via, codec, publisher).await?);
    }
    let before = process::usage(process)?;
    run.end.get_or_init(|| Instant::now() + duration);
    let mut tasks = JoinSet::new();
    for publisher in connected {
        tasks.spawn(publisher);
    }
    let mut sum = Tally::new()?;
    while let Some(ended) = tasks.join_next().await {
        let tally = ended??;
        sum.acknowledged += tally.acknowledged;
        sum.refused += tally.refused;
        sum.latency_us.add(&tally.latency_us)?;
    }
    let after = process::usage(process)?;
    let cpu = before.zip(after).map(|(before, after)| after.cpu - before.cpu);
    let ms = |quantile| sum.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Report {
        workload: "publish",
        publishers,
        in_flight,
        channels: channels.len(),
        servers: servers.len(),
        acknowledged: sum.acknowledged,
        refused: sum.refused,
        acknowledged_per_second: sum.acknowledged as f64 / duration.as_secs_f64(),
        ack_ms_p50: ms(0.5),
        ack_ms_p99: ms(0.99),
        server_cpu_us_per_message: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / sum.acknowledged.max(1) as f64),
        server_resident_kib: after.map(|after| after.resident_kib),
    })
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_LIMIT_US, 2)?;
        Ok(Self { acknowledged: 0, refused: 0, latency_us })
    }
}

struct Publisher {
    run: Arc<Run>,
    channels: Arc<[ChannelName]>,
    /// Whose turn it is of the channels: all publishers together go through them.
    turn: usize,
}

impl Visit for Publisher {
    type Output = BoxFuture<'static, anyhow::Result<Tally>>;

    fn visit(self, connection: impl Connection) -> Self::Output {
        Box::pin(self.publish(connection))
    }
}

impl Publisher {
    async fn publish(self, connection: impl Connection) -> anyhow::Result<Tally> {
        let Self { run, channels, mut turn } = self;
        let (_, mut reader, mut writer) = connection.split();
        let connect = ClientFrame::Connect(Connect { id: 1, token: run.token.clone(), ..Connect::default() });
        writer.write(&mut vec![control(run.codec, &connect)]).await?;
        let mut tally = Tally::new()?;
        // By the command's number: when it was sent.
        let mut sent = std::collections::HashMap::new();
        let mut number = 1;
        loop {
            let open = run.is_open();
            let mut batch = Vec::new();
            while open && sent.len() < run.plan.in_flight {
                number += 1;
                let channel = &channels[turn % channels.len()];
                turn += run.plan.publishers;
                let publish = Publish { id: number, ..publication(channel, vec![0; run.plan.payload]) };
                sent.insert(number, Instant::now());
                batch.push(control(run.codec, &ClientFrame::Publish(publish)));
            }
            if !batch.is_empty() {
                writer.write(&mut batch).await?;
            }
            if !open && sent.is_empty() {
                return Ok(tally);
            }
            let frame = reader.read().await?;
            let id = match run.codec.decode::<ServerFrame>(&frame).map_err(anyhow::Error::msg)? {
                ServerFrame::Published(published) => published.id,
                ServerFrame::Error(error) => {
                    tally.refused += 1;
                    sent.remove(&error.id.unwrap_or_default());
                    continue;
                }
                _ => continue,
            };
            if let Some(at) = sent.remove(&id) {
                tally.latency_us.saturating_record((at.elapsed().as_micros() as u64).max(1));
                // What comes after the end was not within the time that it is counted for.
                tally.acknowledged += u64::from(run.is_open());
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { publishers, in_flight, channels, servers, acknowledged, refused, .. } = self;
        writeln!(
            f,
            "publish: {publishers} publishers, {in_flight} in flight each, {channels} channels, {servers} servers"
        )?;
        writeln!(
            f,
            "  acknowledged  {acknowledged} ({:.0}/s), {refused} refused",
            self.acknowledged_per_second
        )?;
        write!(f, "  latency       p50 {:.2} ms, p99 {:.2} ms", self.ack_ms_p50, self.ack_ms_p99)?;
        if let Some((cpu, memory)) = self.server_cpu_us_per_message.zip(self.server_resident_kib) {
            write!(f, "\n  server        {cpu:.1} µs a message, {memory} KiB in all")?;
        }
        Ok(())
    }
}
