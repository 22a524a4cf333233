//! A server is a process of its own with a folder and a log; it never outlives the test that started it.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::until::Wait;

/// As much of a server's log as helps to see why a test failed.
const TAIL_LINES: usize = 40;

type Order = (Command, SyncSender<io::Result<Child>>);

/// The kernel ends a child when the thread that spawned it ends. So one thread, which lasts as long as the test's
/// process, spawns them all: killed or panicked, the process takes its servers with it.
static PARENT: LazyLock<SyncSender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = sync_channel::<Order>(1);
    thread::spawn(move || {
        for (mut command, answer) in inbox {
            // Whoever ordered it may have panicked meanwhile; the child then has no owner to end it.
            if let Err(unclaimed) = answer.send(command.spawn())
                && let Ok(mut child) = unclaimed.0
            {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    });
    orders
});

pub(crate) struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Absent while killed.
    child: Option<Child>,
    paused: AtomicBool,
    folder: TempDir,
}

impl Process {
    /// Prepares a process; [`spawn`](Self::spawn) starts it. The arguments may name the folder.
    pub(crate) fn new<A: Into<OsString>>(
        name: impl Into<String>,
        program: impl Into<PathBuf>,
        arguments: impl FnOnce(&Path) -> Vec<A>,
    ) -> Self {
        let folder =
            tempfile::Builder::new().prefix("xpush-test-").tempdir().expect("a folder for the server");
        let arguments = arguments(folder.path()).into_iter().map(Into::into).collect();
        Self {
            name: name.into(),
            program: program.into(),
            arguments,
            child: None,
            paused: AtomicBool::new(false),
            folder,
        }
    }

    /// Starts it with the arguments and the folder it had before. Kills what still runs.
    pub(crate) fn spawn(&mut self) {
        self.kill();
        let log =
            OpenOptions::new().create(true).append(true).open(self.log()).expect("the server's log opens");
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(&self.program)
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log);
        let (answer, outcome) = sync_channel(1);
        PARENT.send((command, answer)).expect("the thread that spawns servers lasts");
        let spawned = outcome.recv().expect("the thread that spawns servers answers");
        self.child = Some(spawned.unwrap_or_else(|error| {
            panic!("can't start {} with setpriv (of util-linux): {error}; run ./tests/run", self.name)
        }));
        self.paused.store(false, Ordering::Relaxed);
    }

    pub(crate) fn starting(&self) -> Wait {
        Wait::until(format!("{} to answer", self.name))
    }

    /// Between two polls of a server that starts. Panics with its last words when it has ended instead.
    pub(crate) async fn not_yet(&mut self, starting: &Wait) {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait().expect("a child of ours can be waited for")
        {
            self.child = None;
            panic!("{} did not start: {status}. Does ./tests/run install it?\n{}", self.name, self.tail());
        }
        starting.more().await;
    }

    /// SIGSTOP: its connections stay open and nobody answers.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        self.paused.store(true, Ordering::Relaxed);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
        self.paused.store(false, Ordering::Relaxed);
    }

    /// SIGKILL, which reaches a paused process as well.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child of ours can be killed");
            child.wait().expect("a child of ours can be waited for");
        }
    }

    /// Neither killed nor paused.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some() && !self.paused.load(Ordering::Relaxed)
    }

    /// Perhaps paused, not killed.
    pub(crate) fn is_alive(&self) -> bool {
        self.child.is_some()
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{} is not running", self.name));
        kill_process(Pid::from_child(child), signal).expect("a child of ours can be signalled");
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("output")
    }

    fn tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("== the last lines of {}:\n{}", self.name, self.tail());
        }
    }
}
