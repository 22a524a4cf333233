//! What the server's process has used, as Linux tells it (proc(5)).

use std::{fs, time::Duration};

use anyhow::Context as _;

/// USER_HZ; it is 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

pub(super) struct Process(u32);

#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) resident_kib: u64,
}

impl Process {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let process = Self(pid);
        process.usage().with_context(|| format!("process {pid} can't be looked at"))?;
        Ok(process)
    }

    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name, in parentheses, may hold anything; the 14th and 15th fields are user and system time.
        let (_, fields) = stat.rsplit_once(')').context("/proc has another form")?;
        let ticks =
            fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let resident_kib = resident.trim().trim_end_matches(" kB").parse()?;
        Ok(Usage { cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND), resident_kib })
    }
}

/// Of a process, where there is one to look at.
pub(super) fn usage(process: Option<&Process>) -> anyhow::Result<Option<Usage>> {
    process.map(Process::usage).transpose()
}
