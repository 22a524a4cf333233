//! A Redis primary, its replica, and three Sentinels that make the replica the primary when the first is gone.

use std::fs;
use std::net::SocketAddr;

use crate::port::Port;
use crate::process::Process;
use crate::redis::Redis;
use crate::resp::{self, ask};
use crate::until::Wait;

const NAME: &str = "mymaster";
const SENTINELS: usize = 3;

/// Sentinel's own periods are seconds, which a test would wait for; these are milliseconds.
const PERIODS: [&str; 8] =
    ["info-period", "500", "publish-period", "250", "ping-period", "200", "ask-period", "200"];

pub struct RedisSentinel {
    servers: [Redis; 2],
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: Port,
    process: Process,
}

impl RedisSentinel {
    /// Returns when the replica follows and every Sentinel knows it and the other Sentinels.
    pub async fn start() -> Self {
        // A primary waits five seconds for further replicas before it sends its data, unless told not to.
        let primary = Redis::configured("Redis primary", "repl-diskless-sync-delay 0\n", &[]);
        let follows =
            format!("repl-diskless-sync-delay 0\nreplicaof 127.0.0.1 {}\n", primary.address().port());
        let replica = Redis::configured("Redis replica", &follows, &[]);
        let sentinels = (0..SENTINELS).map(|at| Sentinel::watching(at, primary.address())).collect();
        let mut set = Self { servers: [primary, replica], sentinels };
        set.servers[0].restart().await;
        set.servers[1].restart().await;
        set.follows(1).await;
        for sentinel in &mut set.sentinels {
            sentinel.start().await;
        }
        set.settled().await;
        set
    }

    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(|at| at.port.address().to_string()).collect();
        format!("redis+sentinel://{}/{NAME}", addresses.join(","))
    }

    /// Waits until all Sentinels name the same running server and that server takes the part.
    pub async fn primary(&self) -> SocketAddr {
        self.servers[self.primary_at().await].address()
    }

    /// Has the server that follows do something, which the primary then does not know of.
    pub async fn command_replica(&self, words: &[&str]) -> String {
        self.servers[1 - self.primary_at().await].command(words).await
    }

    /// Returns when the process is gone, with the address it had. [`primary`](Self::primary) waits for the next.
    pub async fn kill_primary(&mut self) -> SocketAddr {
        let at = self.primary_at().await;
        self.servers[at].kill();
        self.servers[at].address()
    }

    /// Its connections stay open and nobody answers. Returns the address it has.
    pub async fn pause_primary(&self) -> SocketAddr {
        let at = self.primary_at().await;
        self.servers[at].pause();
        self.servers[at].address()
    }

    /// Resumes what was paused and restarts what was killed. Returns when there is a primary and the other follows.
    pub async fn restore(&mut self) {
        for server in &mut self.servers {
            if server.is_alive() {
                server.resume();
            } else {
                server.restart().await;
            }
        }
        self.settled().await;
    }

    async fn primary_at(&self) -> usize {
        let named = Wait::until("Sentinel to name a primary that runs");
        loop {
            if let Some(at) = self.named().await
                && role(&self.servers[at]).await.as_deref() == Some("master")
            {
                return at;
            }
            named.more().await;
        }
    }

    /// The running server that all Sentinels agree on.
    async fn named(&self) -> Option<usize> {
        let mut named = None;
        for sentinel in &self.sentinels {
            let answer =
                ask(sentinel.port.address(), &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).await.ok()?;
            let address = answer.replace('\n', ":").parse::<SocketAddr>().ok()?;
            if *named.get_or_insert(address) != address {
                return None;
            }
        }
        let named = named?;
        self.servers.iter().position(|server| server.address() == named && server.is_running())
    }

    async fn settled(&self) {
        let primary = self.primary_at().await;
        self.follows(1 - primary).await;
        let known = Wait::until("every Sentinel to know the replica and the other Sentinels");
        for sentinel in &self.sentinels {
            while !sentinel.knows_all().await {
                known.more().await;
            }
        }
    }

    async fn follows(&self, at: usize) {
        let follows = Wait::until("the Redis replica to follow the primary");
        loop {
            let answer = ask(self.servers[at].address(), &["INFO", "replication"]).await.unwrap_or_default();
            if resp::field(&answer, "master_link_status") == Some("up") {
                return;
            }
            follows.more().await;
        }
    }
}

impl Sentinel {
    fn watching(at: usize, primary: SocketAddr) -> Self {
        let port = Port::claim();
        let number = port.number();
        let process = Process::new(format!("Sentinel {at} on port {number}"), "redis-sentinel", |folder| {
            let file = folder.join("sentinel.conf");
            let lines = format!(
                "port {number}\nbind 127.0.0.1\n\
                 sentinel monitor {NAME} {} {} 2\n\
                 sentinel down-after-milliseconds {NAME} 1000\n\
                 sentinel failover-timeout {NAME} 3000\n",
                primary.ip(),
                primary.port()
            );
            fs::write(&file, lines).expect("Sentinel's configuration is written");
            vec![file]
        });
        Self { port, process }
    }

    async fn start(&mut self) {
        self.process.spawn();
        let address = self.port.address();
        let periods: Vec<&str> = ["SENTINEL", "DEBUG"].into_iter().chain(PERIODS).collect();
        let starting = self.process.starting();
        while ask(address, &periods).await.is_err() {
            self.process.not_yet(&starting).await;
        }
    }

    async fn knows_all(&self) -> bool {
        let address = self.port.address();
        let Ok(primary) = ask(address, &["SENTINEL", "MASTER", NAME]).await else { return false };
        let Ok(replicas) = ask(address, &["SENTINEL", "REPLICAS", NAME]).await else { return false };
        resp::value(&primary, "num-other-sentinels") == Some(&(SENTINELS - 1).to_string())
            && resp::value(&primary, "flags") == Some("master")
            && resp::value(&replicas, "flags") == Some("slave")
            && resp::value(&replicas, "master-link-status") == Some("ok")
    }
}

async fn role(server: &Redis) -> Option<String> {
    let answer = ask(server.address(), &["ROLE"]).await.ok()?;
    answer.lines().next().map(str::to_owned)
}
