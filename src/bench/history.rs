//! How many pages of history a server gives, and how fast: readers that jump about in channels that were filled before.

use std::{
    fmt,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use rand::Rng as _;
use serde::Serialize;
use tokio::task::JoinSet;
use xpush::client::{Client, Server};
use xpush_protocol::{
    ChannelName, ClientFrame, Connect, Cursor, History, HistoryPage, Namespace, ServerFrame,
};

use super::{
    LATENCY_LIMIT_US, channels,
    fill::fill,
    process::{self, Process},
};
use crate::cli::ServerArgs;

pub(super) struct Plan {
    pub(super) readers: usize,
    pub(super) channels: usize,
    /// In each channel.
    pub(super) messages: u64,
    pub(super) page: u16,
    pub(super) payload: usize,
    pub(super) duration: Duration,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    workload: &'static str,
    via: String,
    readers: usize,
    channels: usize,
    messages: u64,
    page: u16,
    pages: u64,
    pages_per_second: f64,
    publications_per_second: f64,
    page_ms_p50: f64,
    page_ms_p99: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_us_per_page: Option<f64>,
}

pub(super) async fn run(
    server: &Server,
    args: &ServerArgs,
    namespace: &Namespace,
    plan: &Plan,
    process: Option<&Process>,
) -> anyhow::Result<Report> {
    let channels = channels(namespace, plan.channels)?;
    fill(server, args, &channels, plan.messages, plan.payload).await?;

    let mut clients = Vec::new();
    for _ in 0..plan.readers {
        let mut client = server.dial(args.via, args.codec()).await?;
        client.connect(Connect { token: args.token.clone(), ..Connect::default() }).await?;
        clients.push(client);
    }
    let before = process::usage(process)?;
    let end = Instant::now() + plan.duration;
    let mut readers = JoinSet::new();
    for client in clients {
        readers.spawn(read_until(client, channels.clone(), plan.messages, plan.page, end));
    }
    let (mut pages, mut publications) = (0, 0);
    let mut latency_us = Histogram::<u64>::new_with_bounds(1, LATENCY_LIMIT_US, 2)?;
    while let Some(ended) = readers.join_next().await {
        let tally = ended??;
        pages += tally.pages;
        publications += tally.publications;
        latency_us.add(&tally.latency_us)?;
    }
    let cpu = before.zip(process::usage(process)?).map(|(before, after)| after.cpu - before.cpu);
    let seconds = plan.duration.as_secs_f64();
    let ms = |quantile| latency_us.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Report {
        workload: "history",
        via: args.via.to_string(),
        readers: plan.readers,
        channels: plan.channels,
        messages: plan.messages,
        page: plan.page,
        pages,
        pages_per_second: pages as f64 / seconds,
        publications_per_second: publications as f64 / seconds,
        page_ms_p50: ms(0.5),
        page_ms_p99: ms(0.99),
        server_cpu_us_per_page: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / pages.max(1) as f64),
    })
}

struct Tally {
    pages: u64,
    publications: u64,
    latency_us: Histogram<u64>,
}

/// One page after the other, each from anywhere.
async fn read_until(
    mut client: Client,
    channels: Vec<ChannelName>,
    messages: u64,
    page: u16,
    end: Instant,
) -> anyhow::Result<Tally> {
    let latency_us = Histogram::new_with_bounds(1, LATENCY_LIMIT_US, 2)?;
    let mut tally = Tally { pages: 0, publications: 0, latency_us };
    // As each channel's first page told it.
    let mut epochs = vec![None; channels.len()];
    while Instant::now() < end {
        let (at, offset) = {
            let mut random = rand::rng();
            (random.random_range(0..channels.len()), random.random_range(0..messages))
        };
        let cursor = epochs[at].map(|epoch| Cursor { epoch, offset });
        let asked = Instant::now();
        let history = |id| {
            let channel = channels[at].clone();
            ClientFrame::History(History { id, channel, cursor, backward: false, limit: Some(page) })
        };
        let ServerFrame::History(HistoryPage { publications, top, .. }) = client.call(history).await? else {
            anyhow::bail!("the answer to `history` is no page");
        };
        epochs[at] = Some(top.epoch);
        tally.pages += 1;
        tally.publications += publications.len() as u64;
        tally.latency_us.saturating_record((asked.elapsed().as_micros() as u64).max(1));
    }
    client.close().await;
    Ok(tally)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { via, readers, channels, messages, page, pages, .. } = self;
        writeln!(
            f,
            "history over {via}: {readers} readers, pages of {page} in {channels} channels of {messages}"
        )?;
        writeln!(
            f,
            "  pages         {pages} ({:.0}/s, {:.0} publications/s)",
            self.pages_per_second, self.publications_per_second
        )?;
        write!(f, "  latency       p50 {:.2} ms, p99 {:.2} ms", self.page_ms_p50, self.page_ms_p99)?;
        if let Some(cpu) = self.server_cpu_us_per_page {
            write!(f, "\n  server CPU    {cpu:.0} µs a page")?;
        }
        Ok(())
    }
}
