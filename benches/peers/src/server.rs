//! A peer's server: a process on a core of its own, and what Linux says that it has used (proc(5)).

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::peer::Peer;

/// The server has this core, the load the next one.
pub(crate) const CORE: usize = 0;

/// USER_HZ; it is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;
/// Until it listens.
const START: Duration = Duration::from_secs(20);
/// From the wish that it ends to its being killed.
const END: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Server {
    pub(crate) port: u16,
    child: Child,
    /// Its configuration, its data and what it said.
    folder: TempDir,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Of user and system.
    pub(crate) cpu: Duration,
    /// What is its own: neither its program nor files. nchan keeps its messages in memory that its processes share.
    pub(crate) memory_kib: u64,
}

impl Server {
    pub(crate) fn start(peer: &dyn Peer) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let command = peer.command(folder.path(), port)?;
        let mut pinned = Command::new("taskset");
        pinned.args(["--cpu-list", &CORE.to_string()]).arg(command.get_program()).args(command.get_args());
        // What configures this command is no configuration of XPUSH.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"XPUSH_"))
        {
            pinned.env_remove(name);
        }
        let said = fs::File::create(folder.path().join("stderr"))?;
        let child = pinned
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("taskset can't be run")?;
        let mut server = Self { port, child, folder };
        let deadline = Instant::now() + START;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended with {status}: {}", server.said());
            }
            if Instant::now() > deadline {
                bail!("the server does not listen: {}", server.said());
            }
            sleep(LOOK);
        }
        Ok(server)
    }

    /// Of it and all processes that it started.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let (mut all, mut pids) = (Usage::default(), vec![self.child.id()]);
        while let Some(pid) = pids.pop() {
            let usage = usage(pid)?;
            all.cpu += usage.cpu;
            all.memory_kib += usage.memory_kib;
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        Ok(all)
    }

    /// The last that it said.
    pub(crate) fn said(&self) -> String {
        let said = fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
        let lines: Vec<_> = said.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let signal =
            |signal| Pid::from_raw(self.child.id().cast_signed()).map(|pid| kill_process(pid, signal));
        signal(Signal::TERM);
        let deadline = Instant::now() + END;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // It may end just now; then nobody is left to be told.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            sleep(LOOK);
        }
    }
}

pub(crate) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the server is gone")?;
    // The name, in parentheses, may hold anything; the 14th and 15th fields are user and system time.
    let (_, fields) = stat.rsplit_once(')').context("/proc has another form")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let own = |line: &str| {
        let size = line.strip_prefix("RssAnon:").or_else(|| line.strip_prefix("RssShmem:"))?;
        size.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    Ok(Usage {
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        memory_kib: status.lines().filter_map(own).sum(),
    })
}

/// What all programs used of the first `cores`, and what the machine below took of them.
pub(crate) fn busy(cores: usize) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let mut ticks = 0;
    for line in stat.lines().skip(1).take(cores) {
        let fields = line.split_whitespace().skip(1).map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
        // user, nice, system, (idle, iowait,) irq, softirq, steal
        ticks += fields.iter().take(3).chain(fields.iter().skip(5).take(3)).sum::<u64>();
    }
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// One that nobody listened on a moment ago.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
