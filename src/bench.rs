//! `xpush bench`: measures a server as its clients see it.
//!
//! The load is open-loop: each message has the moment at which it was meant to be sent, and its latency counts from
//! there, so that a server that stalls can't hide it by stalling the sender too.

mod fill;
mod history;
mod load;
mod process;
mod publish;
mod report;
mod resume;

use std::{fmt::Display, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use xpush_protocol::{ChannelName, Namespace};

use crate::cli::ServerArgs;
use load::Plan;
use process::Process;

/// Connections that are made at the same time.
const DIALS: usize = 64;
/// Of the latencies that are recorded: 1 microsecond to 2 minutes, 2 digits.
const LATENCY_LIMIT_US: u64 = 120_000_000;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  xpush bench fanout --subscribers 1000 --rate 50 --via websocket
  xpush bench pairs --pairs 500 --rate 5000 --via quic
  xpush bench pairs --server http://n1:8080 --publish-to http://n2:8080    across two nodes
  xpush bench publish --publishers 64 --namespace room
  xpush bench idle --connections 10000 --via websocket --server-pid $(pidof xpush)
  xpush bench history --messages 100000 --page 50 --via websocket
  xpush bench resume --clients 5000 --missed 20 --via websocket
  xpush bench fanout --json | jq .latency_ms.p99

The server should run with --set limits.connections_per_address=20000.")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// One publisher, many subscribers of one channel
    Fanout {
        #[arg(long, default_value_t = 1000)]
        subscribers: usize,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Many channels, each with one publisher and one subscriber
    Pairs {
        #[arg(long, default_value_t = 500)]
        pairs: usize,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Publishers that send the next message as soon as one is acknowledged
    Publish {
        #[arg(long, default_value_t = 64)]
        publishers: usize,
        /// Messages of each that wait for their acknowledgement
        #[arg(long, default_value_t = 8)]
        in_flight: usize,
        /// Over so many channels
        #[arg(long, default_value_t = 200)]
        channels: usize,
        /// Seconds
        #[arg(long, default_value_t = 10)]
        duration: u64,
        /// Bytes of each message's data
        #[arg(long, default_value_t = 128)]
        payload: usize,
        /// Publish to these servers too, as to the other nodes of a cluster
        #[arg(long, value_name = "URL")]
        publish_to: Vec<String>,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Readers that turn pages of history, anywhere in channels that are filled first
    History {
        #[arg(long, default_value_t = 16)]
        readers: usize,
        #[arg(long, default_value_t = 4)]
        channels: usize,
        /// Messages of each channel
        #[arg(long, default_value_t = 10_000)]
        messages: u64,
        /// Publications of a page
        #[arg(long, default_value_t = 50)]
        page: u16,
        /// Bytes of each message's data
        #[arg(long, default_value_t = 128)]
        payload: usize,
        /// Seconds
        #[arg(long, default_value_t = 10)]
        duration: u64,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Clients that are all gone, and all come back with their cursors
    Resume {
        #[arg(long, default_value_t = 1000)]
        clients: usize,
        #[arg(long, default_value_t = 100)]
        channels: usize,
        /// Messages of each channel that came meanwhile
        #[arg(long, default_value_t = 10)]
        missed: u64,
        /// Bytes of each message's data
        #[arg(long, default_value_t = 128)]
        payload: usize,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Connections that are subscribed and silent: what it costs to connect, and to stay
    Idle {
        #[arg(long, default_value_t = 1000)]
        connections: usize,
        /// Of each connection, to channels of its own if it is more than one
        #[arg(long, default_value_t = 1)]
        subscriptions: usize,
        #[command(flatten)]
        common: CommonArgs,
    },
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// Messages a second, over all publishers
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Seconds
    #[arg(long, default_value_t = 10)]
    duration: u64,
    /// Bytes of each message's data
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Publish to this server instead, as to another node of a cluster; several take turns
    #[arg(long, value_name = "URL")]
    publish_to: Vec<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// The channels' namespace, and by that the retention
    #[arg(long, default_value = "live")]
    namespace: Namespace,
    /// The server's process, where it runs on this machine: its CPU time and memory are reported too
    #[arg(long)]
    server_pid: Option<u32>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let (name, publish_to, common, plan) = match args.workload {
        Workload::Fanout { subscribers, load } => {
            let plan = Plan { channels: 1, subscribers, ..load.plan() };
            ("fanout", load.publish_to, load.common, plan)
        }
        Workload::Pairs { pairs, load } => {
            let plan = Plan { channels: pairs, subscribers: pairs, ..load.plan() };
            ("pairs", load.publish_to, load.common, plan)
        }
        Workload::Idle { connections, subscriptions, common } => {
            let silence = Plan {
                duration: Duration::ZERO,
                rate: 0.0,
                payload: 0,
                channels: 1,
                subscribers: connections,
                subscriptions,
            };
            ("idle", vec![], common, silence)
        }
        Workload::Publish { publishers, in_flight, channels, duration, payload, publish_to, common } => {
            let duration = Duration::from_secs(duration);
            let plan = publish::Plan { publishers, in_flight, channels, duration, payload };
            let mut servers = vec![common.server.discover().await?];
            servers.extend(common.server.discover_all(&publish_to).await?);
            let process = common.process()?;
            let (args, namespace) = (&common.server, &common.namespace);
            common.show(&publish::run(&servers, args, namespace, &plan, process.as_ref()).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Workload::History { readers, channels, messages, page, payload, duration, common } => {
            let duration = Duration::from_secs(duration);
            let plan = history::Plan { readers, channels, messages, page, payload, duration };
            let (server, process) = (common.server.discover().await?, common.process()?);
            let (args, namespace) = (&common.server, &common.namespace);
            common.show(&history::run(&server, args, namespace, &plan, process.as_ref()).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Workload::Resume { clients, channels, missed, payload, common } => {
            let plan = resume::Plan { clients, channels, missed, payload };
            let (server, process) = (common.server.discover().await?, common.process()?);
            let (args, namespace) = (&common.server, &common.namespace);
            let report = resume::run(&server, args, namespace, &plan, process.as_ref()).await?;
            common.show(&report)?;
            return Ok(success(report.is_whole()));
        }
    };
    let server = common.server.discover().await?;
    let publish_to = common.server.discover_all(&publish_to).await?;
    let process = common.process()?;
    let bar = bar(&plan, common.json);
    let outcome =
        load::run(&server, &publish_to, &common.server, &common.namespace, &plan, process.as_ref(), &bar)
            .await?;
    bar.finish_and_clear();
    let report = report::Report::new(name, common.server.via, &plan, &outcome);
    common.show(&report)?;
    Ok(success(report.is_whole()))
}

fn success(whole: bool) -> ExitCode {
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl CommonArgs {
    fn process(&self) -> anyhow::Result<Option<Process>> {
        self.server_pid.map(Process::of).transpose()
    }

    fn show(&self, report: &(impl Display + Serialize)) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(report)?);
        } else {
            println!("{report}");
        }
        Ok(())
    }
}

/// So many channels of this run's own.
fn channels(namespace: &Namespace, count: usize) -> anyhow::Result<Vec<ChannelName>> {
    let run = std::process::id();
    (0..count).map(|n| Ok(format!("{namespace}:bench-{run}-{n}").parse()?)).collect()
}

impl LoadArgs {
    fn plan(&self) -> Plan {
        let duration = Duration::from_secs(self.duration);
        Plan {
            duration,
            rate: self.rate,
            payload: self.payload,
            channels: 0,
            subscribers: 0,
            subscriptions: 1,
        }
    }
}

fn bar(plan: &Plan, hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(plan.subscribers as u64);
    // A template of our own that does not parse would only cost the looks.
    if let Ok(style) = ProgressStyle::with_template("{msg:<12} [{bar:40}] {pos}/{len}") {
        bar.set_style(style);
    }
    bar
}
