//! A server as a process of its own: started on free ports, killed, started again where it stood, gone when dropped.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::time::sleep;

use super::http;

/// Generous: a test waits this long for what has to happen, on a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
pub(crate) const LOOK: Duration = Duration::from_millis(10);
/// A free TCP port whose UDP twin is taken: another one is tried.
const PORT_ATTEMPTS: usize = 8;

pub(crate) struct ServerProcess {
    child: Child,
    /// Held open: the server may print.
    _stdout: BufReader<ChildStdout>,
    pub(crate) http: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) data: PathBuf,
    arguments: Vec<String>,
    /// What was made for this server, and goes with it.
    folder: TempDir,
}

/// The program, without what the environment of the tests would configure.
pub(crate) fn xpush() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xpush"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("XPUSH_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Where `xpush-test-servers` runs the tests, a server keeps what it knows in the stores of a cluster: its part of
/// them goes by the name of its folder, and so is the same after a restart.
fn share(command: &mut Command, data: &Path, folder: &Path) {
    let Ok(keys) = std::env::var("XPUSH_TEST_KEYS") else { return };
    for (name, value) in std::env::vars() {
        if let Some(name) = name.strip_prefix("XPUSH_TEST_NODE_") {
            command.env(format!("XPUSH_{name}"), value);
        }
    }
    let name = folder.file_name().unwrap().to_str().unwrap().replace('.', "");
    command
        .env("XPUSH_REDIS__PREFIX", &name)
        .env("XPUSH_MONGODB__DATABASE", &name)
        .env("XPUSH_ZOOKEEPER__ROOT", format!("/{name}"));
    std::fs::create_dir_all(data).unwrap();
    std::fs::copy(keys, data.join("dev-keys.toml")).unwrap();
}

/// Runs the program to its end, away from the runtime that may have to serve it.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let mut command = xpush();
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// The one line of an error, which is all that is on standard error.
pub(crate) fn the_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert!(lines[0].starts_with("xpush: "), "{text}");
    lines[0].to_owned()
}

impl ServerProcess {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further arguments.
    pub(crate) async fn with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::in_directory(folder, data, arguments).await
    }

    pub(crate) async fn in_directory(folder: TempDir, data: PathBuf, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for _ in 0..PORT_ATTEMPTS {
            match spawn(&arguments, any, any, &data, folder.path()) {
                Ok((child, _stdout, http, tls)) => {
                    let server = Self { child, _stdout, http, tls, data, arguments, folder };
                    server.ready().await;
                    server.open_registration().await;
                    return server;
                }
                Err(why) if why.contains("UDP port") => {}
                Err(why) => panic!("the server did not start: {why}"),
            }
        }
        panic!("no free pair of ports");
    }

    /// Again on the same ports and data, after it was killed.
    pub(crate) async fn restart(&mut self) {
        let started = spawn(&self.arguments, self.http, self.tls, &self.data, self.folder.path());
        let (child, stdout, ..) =
            started.unwrap_or_else(|why| panic!("the server did not start again: {why}"));
        self.child = child;
        self._stdout = stdout;
        self.ready().await;
    }

    async fn ready(&self) {
        until("the server is ready", async || {
            http::try_get(self.http, "/readyz").await.is_some_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// A node alone is in development, where everybody may become a user; one of a cluster never is.
    async fn open_registration(&self) {
        if std::env::var_os("XPUSH_TEST_KEYS").is_none() {
            return;
        }
        let policy = serde_json::json!({ "policy": { "registration": "open" } });
        let key = self.api_key();
        let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
        let answer =
            http::request(self.http, "PATCH", "/v1/apps/default", &headers, &policy.to_string()).await;
        // A test that has its own keys has its own apps, and not every node serves the API.
        assert!(matches!(answer.status, 200 | 401 | 404), "{answer:?}");
    }

    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop; `ended` tells how it did.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            sleep(LOOK).await;
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process has in memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The value of a development key.
    pub(crate) fn dev_key(&self, name: &str) -> String {
        let keys = std::fs::read_to_string(self.data.join("dev-keys.toml")).unwrap();
        keys.parse::<toml::Table>().unwrap()[name].as_str().unwrap().to_owned()
    }

    pub(crate) fn api_key(&self) -> String {
        format!("Bearer {}", self.dev_key("api_key"))
    }

    /// What it wrote to standard error.
    pub(crate) fn stderr(&self) -> String {
        read_stderr(self.folder.path())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Both fail only if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let stderr = self.stderr();
        if std::thread::panicking() {
            let tail = stderr.lines().rev().take(40).collect::<Vec<_>>();
            eprintln!("the server's last lines:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        } else {
            // Whatever else a test looks at.
            assert!(!stderr.contains("panicked"), "{stderr}");
        }
    }
}

fn read_stderr(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("stderr")).unwrap_or_default()
}

type Started = (Child, BufReader<ChildStdout>, SocketAddr, SocketAddr);

/// Starts it and reads the addresses off its banner. The error is what it had to say.
fn spawn(
    arguments: &[String],
    http: SocketAddr,
    tls: SocketAddr,
    data: &Path,
    folder: &Path,
) -> Result<Started, String> {
    let mut command = xpush();
    share(&mut command, data, folder);
    command
        .args(["--http", &http.to_string(), "--tls", &tls.to_string(), "--data"])
        .arg(data)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(File::create(folder.join("stderr")).unwrap());
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (mut http, mut tls) = (None, None);
    let mut line = String::new();
    while http.is_none() || tls.is_none() {
        line.clear();
        if stdout.read_line(&mut line).unwrap() == 0 {
            child.wait().unwrap();
            return Err(read_stderr(folder));
        }
        let address = |scheme: &str| {
            let (_, rest) = line.split_once(scheme)?;
            rest.split_whitespace().next()?.parse().ok()
        };
        match line.trim_start() {
            text if text.starts_with("HTTP ") => http = address("http://"),
            text if text.starts_with("TLS and UDP ") => tls = address("https://"),
            _ => {}
        }
    }
    Ok((child, stdout, http.unwrap(), tls.unwrap()))
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(LOOK).await;
    }
}
