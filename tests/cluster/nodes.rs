//! The nodes of a cluster as processes of the real program: killed, stopped, drained, started again where they stood.

use std::{
    fs::{self, File},
    io::BufReader,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::MutexGuard,
    time::{Instant, sleep, timeout},
};
use xpush::{
    auth::ApiKey,
    client::{Server, Via, Visit},
};
use xpush_protocol::Codec;
use xpush_test_servers::{Mongo, Redis, ZooKeeper};

use crate::{client::Doors, harness, measure};

/// Generous: what has to happen happens within this time, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);
/// Below the range of outgoing connections, or one of the tests' own clients could take the port of a killed node;
/// above those that the tests' servers take.
const PORTS: std::ops::Range<u16> = 30_100..32_700;

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// May do everything.
pub(crate) const OPERATOR_KEY: &str = "xpk_operator_of-the-tests";

/// How long a node that leaves gives its clients.
pub(crate) const DRAIN: Duration = Duration::from_secs(3);
/// A node that says nothing to ZooKeeper for so long is gone.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(4);

/// Where a node finds what it shares with the others.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) redis: String,
    pub(crate) mongodb: String,
    pub(crate) zookeeper: String,
}

/// One node.
pub(crate) struct Node {
    name: String,
    child: Option<Child>,
    /// Held open: the node may print.
    _stdout: Option<BufReader<ChildStdout>>,
    pub(crate) http: SocketAddr,
    tls: SocketAddr,
    folder: TempDir,
}

/// Whatever the node can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Stop,
    Continue,
    Terminate,
}

impl Node {
    /// Prepares a node; `start` starts it.
    pub(crate) fn new(name: &str, shared: &Shared) -> Self {
        Self::of(name, Some(shared))
    }

    /// A node that shares nothing with any other.
    pub(crate) fn alone(name: &str) -> Self {
        Self::of(name, None)
    }

    fn of(name: &str, shared: Option<&Shared>) -> Self {
        let folder = tempfile::Builder::new().prefix("xpush-test-node-").tempdir().unwrap();
        let (http, tls) = (free_port(), free_port());
        let config = config(name, shared, folder.path());
        fs::write(folder.path().join("xpush.toml"), toml::to_string(&config).unwrap()).unwrap();
        Self { name: name.to_owned(), child: None, _stdout: None, http, tls, folder }
    }

    /// Starts it, and returns when it is ready for clients.
    pub(crate) async fn start(&mut self) {
        self.spawn();
        self.ready().await;
    }

    pub(crate) fn spawn(&mut self) {
        let stderr = File::options().create(true).append(true).open(self.stderr_path()).unwrap();
        let mut child = program()
            .args(["serve", "--config"])
            .arg(self.folder.path().join("xpush.toml"))
            .args(["--http", &self.http.to_string(), "--tls", &self.tls.to_string(), "--data"])
            .arg(self.folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        self._stdout = child.stdout.take().map(BufReader::new);
        self.child = Some(child);
    }

    /// Waits until it takes clients.
    pub(crate) async fn ready(&mut self) {
        let url = format!("http://{}", self.http);
        let deadline = Instant::now() + PATIENCE;
        while !is_ready(&url).await {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{} does not start: {}",
                self.name,
                self.tail()
            );
            sleep(LOOK).await;
        }
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let Some(child) = &self.child else { return };
        let name = match signal {
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
            Signal::Terminate => "TERM",
        };
        let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while let Some(child) = &mut self.child {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{} ended with {status}: {}", self.name, self.tail());
                self.child = None;
                return;
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            sleep(LOOK).await;
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Seconds of processor time that it took since its last start.
    pub(crate) fn cpu(&self) -> f64 {
        self.child.as_ref().map_or(0.0, |child| measure::cpu(child.id()))
    }

    fn stderr_path(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(self.stderr_path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Both fail only if it has ended, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("== the last lines of {}:\n{}", self.name, self.tail());
        } else {
            let text = fs::read_to_string(self.stderr_path()).unwrap_or_default();
            assert!(!text.contains("panicked"), "{} panicked: {text}", self.name);
        }
    }
}

/// One cluster at a time: two would take each other's processors, and with them their times.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
}

/// The fewest servers that nodes can share; they end when it is dropped.
pub(crate) struct Servers {
    pub(crate) shared: Shared,
    _servers: (Redis, Mongo, ZooKeeper),
}

/// Starts three nodes.
pub(crate) async fn start_three() -> (Servers, Vec<Node>, ProcessDoors) {
    let servers = tokio::join!(Redis::start(), Mongo::start(1), ZooKeeper::start(1));
    let (redis, mongo, zookeeper) = &servers;
    let shared = Shared { redis: redis.url(), mongodb: mongo.url(), zookeeper: zookeeper.connect_string() };
    let (nodes, doors) = start(&[shared.clone(), shared.clone(), shared.clone()]).await;
    (Servers { shared, _servers: servers }, nodes, doors)
}

/// Starts nodes side by side, one for each entry.
pub(crate) async fn start(shared: &[Shared]) -> (Vec<Node>, ProcessDoors) {
    let named = (1..).zip(shared);
    let mut nodes: Vec<_> = named.map(|(n, shared)| Node::new(&format!("n{n}"), shared)).collect();
    nodes.iter_mut().for_each(Node::spawn);
    let doors = ProcessDoors::default();
    for node in &mut nodes {
        node.ready().await;
        doors.add(node);
    }
    (nodes, doors)
}

/// The program, without what the environment of the tests would configure.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xpush"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("XPUSH_")) {
        command.env_remove(name);
    }
    command
}

fn config(name: &str, shared: Option<&Shared>, folder: &Path) -> toml::Table {
    let seconds = |duration: Duration| format!("{}s", duration.as_secs());
    let mut value = serde_json::json!({
        "node": { "name": name, "drain": seconds(DRAIN) },
        "auth": {
            "state_secret": "a state secret of the tests, long enough",
            "anonymous": false,
            "api_keys": [{ "id": "operator", "sha256": ApiKey::hash(OPERATOR_KEY) }],
            "keys": [{ "algorithm": "HS256", "secret": std::str::from_utf8(harness::SECRET).unwrap() }],
        },
        "namespaces": {
            "room": { "retention": "durable", "history": true },
            "chat": { "retention": "durable", "access": "members" },
            // More than any run publishes: nothing goes unless all does.
            "live": { "retention": "recent", "size": 100_000, "ttl": "1h", "history": true },
        },
        "store": { "path": folder.join("data") },
    });
    if let Some(shared) = shared {
        value["redis"] = serde_json::json!({ "url": shared.redis });
        value["mongodb"] = serde_json::json!({ "url": shared.mongodb });
        let session_timeout = seconds(SESSION_TIMEOUT);
        value["zookeeper"] =
            serde_json::json!({ "servers": shared.zookeeper, "session_timeout": session_timeout });
    }
    toml::Table::try_from(value).unwrap()
}

fn free_port() -> SocketAddr {
    // Two test processes begin at different places.
    let begin = (std::process::id() % u32::from(PORTS.end - PORTS.start)) as u16;
    for _ in PORTS {
        let step = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (begin + step) % (PORTS.end - PORTS.start);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// One request, beside what clients do. The answer's status and its JSON, if it has any.
pub(crate) async fn call(
    node: SocketAddr,
    method: &str,
    path: &str,
    bearer: &str,
    body: &Value,
) -> (u16, Value) {
    let ask = async {
        let mut stream = TcpStream::connect(node).await.unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {node}\r\nauthorization: Bearer {bearer}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    };
    timeout(PATIENCE, ask).await.unwrap()
}

async fn is_ready(url: &str) -> bool {
    Server::discover(url, &[]).await.is_ok()
}

/// The doors of nodes that are processes. A node that is killed keeps its address, and its place here.
#[derive(Clone, Default)]
pub(crate) struct ProcessDoors(Arc<RwLock<Vec<Arc<Door>>>>);

struct Door {
    http: SocketAddr,
    url: String,
    server: Mutex<Option<Arc<Server>>>,
}

impl ProcessDoors {
    pub(crate) fn add(&self, node: &Node) {
        let door = Door { http: node.http, url: node.url(), server: Mutex::default() };
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(door));
    }
}

impl Doors for ProcessDoors {
    fn count(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn dial<V>(&self, node: usize, via: Via, codec: Codec, visitor: V) -> Result<V::Output, String>
    where
        V: Visit + Send,
        V::Output: Send,
    {
        let door = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)[node]);
        // Clients ask over HTTP where to go before they dial: UDP says nothing of a node that is gone.
        TcpStream::connect(door.http).await.map_err(|error| error.to_string())?;
        let known = door.server.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let server = match known {
            Some(server) => server,
            None => {
                let found = Server::discover(&door.url, &[]).await.map_err(|error| error.to_string())?;
                let found = Arc::new(found);
                *door.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&found));
                found
            }
        };
        server.dial_with(via, codec, visitor).await.map_err(|error| error.to_string())
    }
}
