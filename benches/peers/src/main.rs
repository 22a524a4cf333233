//! XPUSH beside a bare sender and beside other servers, each alone on one core: what `benches/compare` runs.
//!
//! To read it: `peer` says how each server is started and spoken to, `load` is the clients, `workload` what is measured
//! of them, `floor` the bare sender, `table` what comes out.

mod floor;
mod framing;
mod load;
mod payload;
mod peer;
mod server;
mod table;
mod websocket;
mod workload;

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum as _};
use rustix::thread::{CpuSet, sched_setaffinity};

use table::{Column, Table};
use workload::{Pace, Workload};

/// The load's core; the server's is the one before.
const CORE: usize = server::CORE + 1;

#[derive(Parser)]
#[command(
    bin_name = "benches/compare",
    about = "Measures XPUSH beside a bare sender and other servers, and prints the table of their ratios",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    server: Option<OwnServer>,
    #[command(flatten)]
    compare: CompareArgs,
}

/// What this program starts of itself.
#[derive(Subcommand)]
#[command(disable_help_subcommand = true)]
enum OwnServer {
    /// The bare sender
    #[command(hide = true)]
    Floor {
        #[arg(long)]
        port: u16,
    },
}

#[derive(Args)]
struct CompareArgs {
    /// Only these workloads
    #[arg(long, value_delimiter = ',', value_name = "WORKLOAD")]
    only: Vec<Workload>,
    /// Only these servers
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    servers: Vec<String>,
    /// One short run of each, to see that everything works
    #[arg(long)]
    quick: bool,
    /// Runs whose median counts
    #[arg(long)]
    runs: Option<usize>,
    /// Write the results into a file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The program to measure
    #[arg(long, env = "XPUSH_BIN", default_value = "target/release/xpush")]
    xpush: PathBuf,
    /// Centrifugo's program, where there is one
    #[arg(long, hide = true, default_value = "centrifugo")]
    centrifugo: PathBuf,
    /// Where the servers of the peers on Node are
    #[arg(long, hide = true, default_value = "benches/peers")]
    node_folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.server {
        Some(OwnServer::Floor { port }) => floor::serve(port),
        None => compare(&cli.compare),
    }
}

fn compare(args: &CompareArgs) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores > CORE, "the server and the load need a core each, and there is one");
    pin()?;
    let (runs, duration, step) = if args.quick {
        (1, Duration::from_secs(1), Duration::from_secs(1))
    } else {
        (3, Duration::from_secs(3), Duration::from_secs(2))
    };
    let pace = Pace { runs: args.runs.unwrap_or(runs).max(1), duration, step };
    let workloads = if args.only.is_empty() { Workload::value_variants() } else { &args.only };

    let xpush =
        fs::canonicalize(&args.xpush).with_context(|| format!("{} is not there", args.xpush.display()))?;
    let node_folder = fs::canonicalize(&args.node_folder)
        .with_context(|| format!("{} is not there", args.node_folder.display()))?;
    let mut servers = peer::all(xpush, args.centrifugo.clone(), &node_folder);
    let names: Vec<_> = servers.iter().map(|server| server.name()).collect();
    for name in &args.servers {
        ensure!(names.contains(&name.as_str()), "there is no server {name}; there are {}", names.join(", "));
    }
    servers.retain(|server| args.servers.is_empty() || args.servers.iter().any(|name| name == server.name()));

    let mut table = Table::of(machine(cores, &pace));
    let mut absent = Vec::new();
    servers.retain(|server| match server.version() {
        Ok(version) => {
            table.servers.push(Column { name: server.name(), version, manner: server.manner() });
            true
        }
        Err(error) => {
            absent.push(format!("Not compared: {}: {error:#}", server.name()));
            false
        }
    });
    for workload in workloads {
        eprintln!("{}", workload.title());
        let mut results = Vec::new();
        for server in &servers {
            eprintln!("  {}", server.name());
            let result = workload.measure(server.as_ref(), &pace);
            if let Err(error) = &result {
                eprintln!("    failed: {error:#}");
            }
            results.push((server.name().to_owned(), result));
        }
        table.add(*workload, results);
    }
    println!("{}", table.markdown());
    for line in &absent {
        println!("{line}  ");
    }
    if let Some(path) = &args.json {
        fs::write(path, serde_json::to_string_pretty(&table)?)?;
    }
    Ok(())
}

/// This process and what it measures must not take each other's time.
fn pin() -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(CORE);
    sched_setaffinity(None, &cores).context("the load can't be pinned to a core of its own")
}

/// On what the numbers depend besides the servers.
fn machine(cores: usize, pace: &Pace) -> String {
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let info = file("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let date =
        Command::new("date").args(["--utc", "+%F"]).output().map(|said| said.stdout).unwrap_or_default();
    format!(
        "{}, {cores} cores of {}, Linux {}; the server on one core, the load on another; loopback, without TLS, \
         {} bytes a message; {}",
        String::from_utf8_lossy(&date).trim(),
        model.trim_start_matches([' ', '\t', ':']).trim(),
        file("/proc/sys/kernel/osrelease").trim(),
        payload::LENGTH,
        match pace.runs {
            1 => "one run each".to_owned(),
            runs => format!("the median of {runs} runs"),
        }
    )
}
